"""Learning from rewards: its formulas by published values, its gradient, and its trainings."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support import tiny_training
from support.rewarded_rows import REWARD, SCORER, loss_of, model_of, prompts_of
from support.tiny_model import SETTINGS
from support.tiny_training import Trained

from unitune.data.example import Example
from unitune.errors import BackendError, RunFailed
from unitune.scorers.interface import Attempt, Score, Scorer, Setting
from unitune.scorers.text import Exact, Regex
from unitune_local.data.batches import TrainingRow, padded
from unitune_local.grading import Reward, RewardGrader
from unitune_local.inference.answers import Sampling
from unitune_local.inference.generate import generate
from unitune_local.models.model import load_model, load_tokenizer
from unitune_local.objectives.loss import token_losses
from unitune_local.objectives.reward import advantages, has_signal, kl_estimate, scaled
from unitune_local.objectives.rollout import Rollouts, Sample, seed_of


def test_an_advantage_is_what_an_answer_earns_above_its_group() -> None:
    """Divided by the group's deviation it is GRPO's: TRL 1.16 gives 0.8658754 for (1, 0, 0, 1)."""
    rewards = torch.tensor([[1, 0, 0, 1], [1, 0, 0, 0], [0.2, 0.2, 0.2, 0.2]], dtype=torch.float64)
    gains = advantages(rewards)
    expected = [[0.5, -0.5, -0.5, 0.5], [0.75, -0.25, -0.25, -0.25], [0.0] * 4]
    assert expected == gains.tolist()
    scaled = gains[0] / (rewards[0].std() + 1e-4)
    assert pytest.approx(scaled.tolist(), abs=1e-7) == [
        0.8658754,
        -0.8658754,
        -0.8658754,
        0.8658754,
    ]


def test_an_answer_that_could_not_be_scored_counts_in_no_mean_and_has_no_advantage() -> None:
    nan = math.nan
    rewards = torch.tensor([[1, nan, 0, nan], [nan] * 4, [1, 1, nan, 1]], dtype=torch.float64)
    assert advantages(rewards).tolist() == [[0.5, 0, -0.5, 0], [0] * 4, [0] * 4]
    assert has_signal(rewards).tolist() == [True, False, False]


def test_the_estimate_of_the_divergence_is_k3() -> None:
    """Values of e^x - x - 1 at x = -0.3 and 0.3, as in TRL 1.16 (GRPOTrainer, `per_token_kl`)."""
    model, base = torch.tensor([1.0, 1.3, 2.0]), torch.tensor([1.3, 1.0, 2.0])
    expected = [0.0408182, 0.0498588, 0.0]
    assert expected == pytest.approx(kl_estimate(model, base).tolist(), abs=1e-6)


def test_the_gradient_of_the_estimate_is_the_divergences() -> None:
    """In expectation over all tokens."""
    base = torch.tensor([0.3, 0.1, -0.5], dtype=torch.float64).log_softmax(0)
    logits = torch.tensor([0.2, -0.4, 0.9], dtype=torch.float64, requires_grad=True)
    chances = logits.log_softmax(0)
    (exact,) = torch.autograd.grad((chances.exp() * (chances - base)).sum(), logits)

    chances = logits.log_softmax(0)
    estimate = (chances.exp().detach() * kl_estimate(-chances, -base)).sum()
    (actual,) = torch.autograd.grad(estimate, logits)
    torch.testing.assert_close(actual, exact)


@pytest.mark.parametrize("size", [2, 3])
def test_the_gradient_is_that_of_the_expected_reward(size: int) -> None:
    """Over all groups that can be drawn; the group's mean holds the answer itself: (K - 1) / K.

    Source: Kool et al. 2019, "Buy 4 REINFORCE samples, get a baseline for free", section 3.
    """
    rewards = torch.tensor([1.0, 0.3, 0.0], dtype=torch.float64)
    logits = torch.tensor([0.2, -0.4, 0.9], dtype=torch.float64, requires_grad=True)
    chances = logits.softmax(0)
    (exact,) = torch.autograd.grad((chances * rewards).sum(), logits)

    chances = logits.softmax(0)
    estimate = torch.zeros((), dtype=torch.float64)
    for drawn in itertools.product(range(3), repeat=size):
        group = torch.tensor(drawn)
        likely = chances.detach()[group].prod()
        gains = advantages(rewards[group][None])[0]
        estimate = estimate + likely * (gains * chances.log()[group]).sum() / size
    (actual,) = torch.autograd.grad(estimate, logits)
    torch.testing.assert_close(actual, exact * (size - 1) / size)


def test_a_prompt_is_what_inference_sees_with_its_case(tiny_model: Path) -> None:
    prompt = prompts_of(tiny_model)[2]
    text = load_tokenizer(tiny_model).decode(prompt.ids)
    assert text.endswith("Which is number 2?<|im_end|>\n<|im_start|>assistant\n")
    assert prompt.trained_tokens == 0
    assert prompt.case is not None
    assert prompt.case.answer == "c"


def test_each_answer_has_a_seed_of_its_own() -> None:
    seeds = {
        seed_of(run, step, line, place)
        for run, step, line, place in itertools.product((0, 1), (1, 11), (1, 11), range(4))
    }
    assert len(seeds) == 32


def test_answers_of_a_group_are_those_of_each_alone(tiny_model: Path) -> None:
    """The prompt is computed once for all, and changes nothing."""
    objective = loss_of(tiny_model)
    prompts, rollouts = prompts_of(tiny_model, 3), objective.rollouts
    groups = rollouts.groups(prompts, 7)
    base = load_model(tiny_model, torch.float32)
    for prompt, group in zip(prompts, groups, strict=True):
        for place, sample in enumerate(group):
            sampling = Sampling(3, 1.0, seed_of(0, 7, prompt.line, place))
            (alone,) = generate(base, rollouts.grader.tokenizer, [prompt.ids], [sampling])
            assert (tuple(alone.ids), alone.text) == (sample.ids, sample.text)
    assert len({sample.ids for group in groups for sample in group}) > 6


def test_at_another_temperature_it_is_that_distributions_loss(tiny_model: Path) -> None:
    model = model_of(tiny_model, trained=True)
    prompt = prompts_of(tiny_model)[0]
    row = TrainingRow((*prompt.ids, 65), (*prompt.trained, True), 1.0, 1)
    logits = model(input_ids=torch.tensor([row.ids])).logits[0, -2]
    expected = -(logits / 0.5).log_softmax(-1)[65]
    actual = token_losses(model, padded([row]), 0.5)[0]
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def run(
    base: Path,
    folder: Path,
    scorer: Scorer = SCORER,
    *,
    reward: Reward | None = None,
    epochs: int = 12,
    stop_after: int | None = None,
    **changes: Any,
) -> Trained:
    settings = SETTINGS.model_copy(
        update={
            "epochs": epochs,
            "batch_size": 4,
            "reward": REWARD.model_copy(update={"max_tokens": 1, "group_size": 8} | changes),
        }
    )
    rows = prompts_of(base)
    grader = RewardGrader(load_tokenizer(base), [reward or Reward.of(scorer)])
    return tiny_training.run(
        base, rows, rows[:2], folder, settings, stop_after=stop_after, grader=grader
    )


def test_what_earns_more_becomes_likelier(tiny_model: Path, tmp_path: Path) -> None:
    done = run(tiny_model, tmp_path, epochs=20)
    earned = [float(str(data["reward"])) for data in done.steps.values()]
    assert list(range(1, 41)) == list(done.steps)
    assert sum(earned[:4]) / 4 < 0.4
    assert sum(earned[-8:]) / 8 > 0.75
    assert done.validations[-1]["reward"] == 1.0
    first = done.steps[1]
    assert first.keys() >= {
        "reward",
        "reward_std",
        "no_signal",
        "answer_tokens",
        "cut",
        "policy_loss",
        "entropy",
    }
    assert first["answer_tokens"] == 1.0
    assert "loss" not in first


@pytest.mark.parametrize("updates", [1, 3])
def test_a_resumed_training_has_the_same_answers_value_for_value(
    tiny_model: Path, tmp_path: Path, updates: int
) -> None:
    settings: dict[str, Any] = {"epochs": 4, "max_tokens": 3, "kl": 0.1, "updates": updates}
    whole = run(tiny_model, tmp_path / "whole", **settings)
    first = run(tiny_model, tmp_path / "parts", stop_after=3, **settings)
    second = run(tiny_model, tmp_path / "parts", **settings)

    assert (whole.finished, first.finished, second.finished) == (True, False, True)
    assert whole.steps == first.steps | second.steps
    assert list(second.steps)[:2] == [4, 5]
    if updates == 1:
        assert whole.steps[1]["kl"] == pytest.approx(0.0, abs=1e-9)
    assert float(str(whole.steps[8]["kl"])) > 0


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("never said", "every answer earns 0, such as .* Train on answers first"),
        ("(?s).?", "every answer is already right"),
    ],
)
def test_a_task_without_signal_ends_at_its_beginning(
    tiny_model: Path, tmp_path: Path, pattern: str, words: str
) -> None:
    scorer = Regex(pattern=pattern).ready(Setting(), "")
    with pytest.raises(RunFailed, match=rf"first 40 groups, all 8 .* 'regex', {words}"):
        run(tiny_model, tmp_path, scorer, epochs=30)


def test_answers_alike_in_each_group_want_a_higher_temperature(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = loss_of(tiny_model)

    def groups(_: Rollouts, prompts: Sequence[TrainingRow], step: int) -> list[list[Sample]]:
        del step
        return [
            [Sample((65,), "A", float(at % 2), "", cut=False, grades=(1,))] * 4
            for at in range(len(prompts))
        ]

    monkeypatch.setattr(Rollouts, "groups", groups)
    prompts = prompts_of(tiny_model)
    for step in range(1, 5):
        objective.prepare(prompts, step)
    with pytest.raises(RunFailed, match=r"Raise tuning\.reward\.temperature \(it is 1\)"):
        objective.prepare(prompts, 5)


def test_a_scorer_that_scores_nothing_ends_it_with_its_reason(
    tiny_model: Path, tmp_path: Path
) -> None:
    class Broken(Scorer):
        """Never can."""

        name: str = "broken"

        def judge(self, attempt: Attempt) -> float:
            raise ZeroDivisionError(f"no answers {attempt.text!r}")

    with pytest.raises(
        RunFailed,
        match=r"no answer of step 1 could be graded: ZeroDivisionError: no answers",
    ):
        run(tiny_model, tmp_path, Broken().ready(Setting(), ""))


def test_what_is_learnt_later_is_no_reason_to_end(tiny_model: Path) -> None:
    """A group without signal means success once the model earns what there is."""
    objective = loss_of(tiny_model, scorer=Exact().ready(Setting(), ""))
    prompts = prompts_of(tiny_model)
    for step in range(2, 9):  # as after a resume
        prepared = objective.prepare(prompts, step)
        assert prepared.figures["no_signal"] <= 1


class Long(Scorer):
    """A second letter or none; it cannot score every fourth first letter."""

    name: str = "long"

    def judge(self, attempt: Attempt) -> float | Score:
        if is_fourth(attempt.text):
            return Score(0.0, "a fourth", failed=True)
        return float(len(attempt.text) > 1)


def is_fourth(text: str) -> bool:
    return ord(text[:1] or "a") % 4 == 0


def test_several_rewards_are_added_up_by_their_weights(tiny_model: Path) -> None:
    long = Long().ready(Setting(), "")
    objective = loss_of(tiny_model, max_tokens=2, group_size=8)
    rewards = [Reward.of(SCORER, 2.0), Reward.of(long, -0.5), Reward("noted", unsure, 0.0)]
    grader = RewardGrader(load_tokenizer(tiny_model), rewards)
    objective.rollouts = replace(objective.rollouts, grader=grader)
    groups = objective.rollouts.groups(prompts_of(tiny_model), 1)
    samples = [each for group in groups for each in group]
    for sample in samples:
        letter, length = float(sample.text[:1].isalpha()), float(len(sample.text) > 1)
        missing = not sample.text or is_fourth(sample.text)
        assert math.isnan(sample.reward) if missing else sample.reward == 2 * letter - length / 2
    figures = objective.prepare(prompts_of(tiny_model), 1).figures
    known = [sample.grades[1] for sample in samples if not math.isnan(sample.grades[1])]
    assert pytest.approx(sum(known) / len(known)) == figures["reward_long"]
    assert "reward_noted" not in figures
    assert 0 < figures["unscored"] < 1
    assert 0 < figures["reward_std"] < 2


def unsure(case: Example, texts: Sequence[str], _: object) -> list[Score]:
    del case
    return [Score(0.0, "not sure", failed=True)] * len(texts)


def test_the_spread_of_rewards_is_the_mean_deviation_of_groups() -> None:
    """Of the sample, as TRL's `reward_std` with `scale_rewards: group`."""
    nan = math.nan
    groups = [[1, 0, 0, 1], [2, nan, 0, nan], [nan, nan, nan, 3]]
    rewards = torch.tensor(groups, dtype=torch.float64)
    by_group = scaled(torch.ones(3, 4, dtype=torch.float64), rewards, "group")
    expected = [1 / (3**-0.5 + 1e-4), 1 / (2**0.5 + 1e-4), 1e4]
    assert expected == pytest.approx(by_group[:, 0].tolist())
    by_batch = scaled(torch.ones(3, 4, dtype=torch.float64), rewards, "batch")
    assert by_batch[0, 0].item() == pytest.approx(1 / (rewards[rewards >= 0].std() + 1e-4).item())


def test_grades_that_fail_later_pause_a_training(tiny_model: Path, tmp_path: Path) -> None:
    """RunFailed would end it for good; see `unitune_local.training.worker`."""

    def grade(case: Example, texts: Sequence[str], trajectories: object) -> list[Score]:
        calls.append(case)
        if len(calls) > 12:  # two before the first step, four of each step
            return unsure(case, texts, trajectories)
        return [Score(float(at)) for at, _ in enumerate(texts)]

    calls: list[Example] = []
    with pytest.raises(BackendError, match="no answer of step 3 could be graded: not sure") as why:
        run(tiny_model, tmp_path, reward=Reward("failing", grade), epochs=4)
    assert type(why.value) is BackendError
