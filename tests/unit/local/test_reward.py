"""Learning from rewards: its formulas by published values, its gradient, and its trainings."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from pydantic import JsonValue
from tiny_model import SETTINGS
from torch import Tensor

from unitune.data.dataset import Dataset, Row
from unitune.data.example import Example
from unitune.errors import RunFailed
from unitune.scorers.interface import Attempt, Score, Scorer, Setting
from unitune.scorers.text import Exact, Regex
from unitune_local.data.batches import TrainingRow, padded
from unitune_local.data.rows import render_prompts
from unitune_local.grading import Grader
from unitune_local.inference.answers import Sampling
from unitune_local.inference.generate import generate
from unitune_local.job_folder import Kind
from unitune_local.models.model import add_adapter, load_model, load_tokenizer
from unitune_local.objectives.loss import choose_form, token_losses
from unitune_local.objectives.reward import RewardLoss, advantages, has_signal, kl_estimate
from unitune_local.objectives.rollout import Rollouts, Sample, seed_of
from unitune_local.settings import RewardSettings
from unitune_local.training.loop import TrainingContext, train

REWARD = RewardSettings(group_size=4, temperature=1.0, max_tokens=3, kl=0.0)


class ByText(Scorer):
    """What a test says that texts earn."""

    name: str = "by-text"

    def judge(self, attempt: Attempt) -> float | Score:
        first = attempt.text[:1]
        return Score(0.0, "no text", failed=True) if not first else float(first.isalpha())


SCORER = ByText().ready(Setting(), "")


def test_an_advantage_is_what_an_answer_earns_above_its_group() -> None:
    """Divided by the group's deviation it is GRPO's: TRL 1.16 gives 0.8658754 for (1, 0, 0, 1)."""
    rewards = torch.tensor([[1, 0, 0, 1], [1, 0, 0, 0], [0.2, 0.2, 0.2, 0.2]], dtype=torch.float64)
    gains = advantages(rewards)
    expected = [[0.5, -0.5, -0.5, 0.5], [0.75, -0.25, -0.25, -0.25], [0.0] * 4]
    assert expected == gains.tolist()
    scaled = gains[0] / (rewards[0].std() + 1e-4)
    assert [0.8658754, -0.8658754, -0.8658754, 0.8658754] == pytest.approx(
        scaled.tolist(), abs=1e-7
    )


def test_an_answer_that_could_not_be_scored_counts_in_no_mean_and_has_no_advantage() -> None:
    nan = math.nan
    rewards = torch.tensor([[1, nan, 0, nan], [nan] * 4, [1, 1, nan, 1]], dtype=torch.float64)
    assert [[0.5, 0, -0.5, 0], [0] * 4, [0] * 4] == advantages(rewards).tolist()
    assert [True, False, False] == has_signal(rewards).tolist()


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


def prompts_of(base: Path, count: int = 8) -> tuple[TrainingRow, ...]:
    cases = [
        Example.model_validate(
            {
                "messages": [
                    {"role": "system", "content": "Say one letter."},
                    {"role": "user", "content": f"Which is number {number}?"},
                    {"role": "assistant", "content": chr(ord("a") + number)},
                ]
            }
        )
        for number in range(count)
    ]
    dataset = Dataset("prompts", tuple(Row(at, case) for at, case in enumerate(cases, 1)))
    return render_prompts(load_tokenizer(base), dataset, 512).rows


def model_of(base: Path, *, trained: bool) -> PeftModel:
    torch.manual_seed(0)
    model = add_adapter(load_model(base, torch.float32), SETTINGS)
    if trained:
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.05)
    return model.train()


def loss_of(
    base: Path, *, trained: bool = False, scorer: Scorer = SCORER, **changes: Any
) -> RewardLoss:
    model = model_of(base, trained=trained)
    form = choose_form(model, prompts_of(base), share=True)
    grader, settings = Grader(load_tokenizer(base), scorer), REWARD.model_copy(update=changes)
    return RewardLoss(Rollouts(model, form, grader, settings, seed=0, longest=512))


def gradients_of(model: PeftModel) -> dict[str, Tensor]:
    named = model.named_parameters()
    gradients = {name: each.grad.clone() for name, each in named if each.grad is not None}
    model.zero_grad()
    return gradients


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


@pytest.mark.parametrize("kl", [0.0, 0.3])
def test_loss_and_gradient_are_those_of_all_answers_computed_alone(
    tiny_model: Path, kl: float
) -> None:
    """Equal answers computed once, answers without advantage left out, prompts shared."""
    settings = {"kl": kl, "max_tokens": 2, "group_size": 8, "temperature": 0.4}
    beginning = model_of(tiny_model, trained=True)
    objective = moved(loss_of(tiny_model, trained=True, **settings))
    model, prompts = objective.rollouts.model, prompts_of(tiny_model)
    groups = objective.rollouts.groups(prompts, 1)
    rewards = torch.tensor([[each.reward for each in group] for group in groups])
    gains, tokens = advantages(rewards), sum(len(each.ids) for group in groups for each in group)
    expected, divergence = 0.0, 0.0
    for prompt, group, above in zip(prompts, groups, gains.tolist(), strict=True):
        for sample, gain in zip(group, above, strict=True):
            ids = torch.tensor([[*prompt.ids, *sample.ids]])
            start = len(prompt.ids) - 1
            use_plain(model)
            with torch.no_grad():
                base = beginning(input_ids=ids).logits[0, start:-1]
            logits = model(input_ids=ids).logits[0, start:-1]
            own, theirs = (
                (each / 0.4).log_softmax(-1).gather(1, torch.tensor(sample.ids)[:, None])[:, 0]
                for each in (logits, base)
            )
            gap = theirs - own
            ratio = (own - own.detach()).exp()
            estimate = (ratio * (gap.exp() - gap - 1)).sum()
            loss = (-gain * own.sum() + kl * estimate) / tokens
            torch.autograd.backward(loss)
            expected, divergence = expected + loss.item(), divergence + estimate.item()
    gradients = gradients_of(model)

    objective = moved(loss_of(tiny_model, trained=True, **settings))
    prepared = objective.prepare(prompts, 1)
    (part,) = objective.losses([prepared.rows])
    torch.autograd.backward(part.loss / prepared.weight)

    assert expected == pytest.approx(part.loss.item() / prepared.weight, abs=1e-5)
    assert (len(prepared.rows) == 64) == bool(kl)
    if kl:
        assert divergence == pytest.approx(part.figures["kl"], rel=1e-3)
    for name, gradient in gradients_of(objective.rollouts.model).items():
        torch.testing.assert_close(gradient, gradients[name], rtol=2e-3, atol=2e-5)


def moved(objective: RewardLoss) -> RewardLoss:
    """Return it with its model as some steps would leave it."""
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in objective.rollouts.model.parameters():
            if weight.requires_grad:
                weight.add_(0.02 * torch.randn_like(weight))
    return objective


def use_plain(model: PeftModel) -> None:
    model.get_base_model().set_attn_implementation("sdpa")  # pyright: ignore[reportCallIssue]


def test_at_another_temperature_it_is_that_distributions_loss(tiny_model: Path) -> None:
    model = model_of(tiny_model, trained=True)
    prompt = prompts_of(tiny_model)[0]
    row = TrainingRow((*prompt.ids, 65), (*prompt.trained, True), 1.0, 1)
    logits = model(input_ids=torch.tensor([row.ids])).logits[0, -2]
    expected = -(logits / 0.5).log_softmax(-1)[65]
    actual = token_losses(model, padded([row]), 0.5)[0]
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


@dataclass
class Trained:
    """One call of `train`, with what it noted."""

    steps: dict[JsonValue, dict[str, JsonValue]] = field(default_factory=dict)
    validations: list[dict[str, JsonValue]] = field(default_factory=list)
    finished: bool = False

    def note(self, kind: Kind, data: dict[str, JsonValue]) -> None:
        if kind == "step":
            timed = {"tokens_per_second", "seconds_left"}
            self.steps[data["step"]] = {
                name: value for name, value in data.items() if name not in timed
            }
        elif kind == "validation":
            self.validations.append(data)


def run(
    base: Path,
    folder: Path,
    scorer: Scorer = SCORER,
    *,
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
    torch.manual_seed(0)
    model = add_adapter(load_model(base, torch.float32), settings)
    done = Trained()
    context = TrainingContext(
        folder,
        done.note,
        lambda: len(done.steps) == stop_after,
        grader=Grader(load_tokenizer(base), scorer),
    )
    done.finished = train(model, rows, rows[:2], settings, context)
    return done


def test_what_earns_more_becomes_likelier(tiny_model: Path, tmp_path: Path) -> None:
    done = run(tiny_model, tmp_path, epochs=20)
    earned = [float(str(data["reward"])) for data in done.steps.values()]
    assert list(range(1, 41)) == list(done.steps)
    assert sum(earned[:4]) / 4 < 0.4
    assert sum(earned[-8:]) / 8 > 0.75
    assert done.validations[-1]["reward"] == 1.0
    first = done.steps[1]
    assert first.keys() >= {"reward", "no_signal", "answer_tokens", "cut", "policy_loss"}
    assert first["answer_tokens"] == 1.0
    assert "loss" not in first


def test_a_resumed_training_has_the_same_answers_value_for_value(
    tiny_model: Path, tmp_path: Path
) -> None:
    whole = run(tiny_model, tmp_path / "whole", epochs=4, max_tokens=3, kl=0.1)
    first = run(tiny_model, tmp_path / "parts", epochs=4, max_tokens=3, kl=0.1, stop_after=3)
    second = run(tiny_model, tmp_path / "parts", epochs=4, max_tokens=3, kl=0.1)

    assert (True, False, True) == (whole.finished, first.finished, second.finished)
    assert whole.steps == first.steps | second.steps
    assert [4, 5] == list(second.steps)[:2]
    assert whole.steps[1]["kl"] == pytest.approx(0.0, abs=1e-9)
    assert float(str(whole.steps[8]["kl"])) > 0


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("never said", "every answer earns 0, such as .* Train the answers first"),
        ("(?s).?", "every answer is right already"),
    ],
)
def test_a_task_without_signal_ends_at_its_beginning(
    tiny_model: Path, tmp_path: Path, pattern: str, words: str
) -> None:
    scorer = Regex(pattern=pattern).ready(Setting(), "")
    with pytest.raises(RunFailed, match=rf"first 40 groups all 8 .* 'regex' {words}"):
        run(tiny_model, tmp_path, scorer, epochs=30)


def test_answers_alike_in_each_group_want_a_higher_temperature(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = loss_of(tiny_model)

    def groups(_: Rollouts, prompts: Sequence[TrainingRow], step: int) -> list[list[Sample]]:
        del step
        return [
            [Sample((65,), "A", float(at % 2), "", cut=False)] * 4 for at in range(len(prompts))
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
        RunFailed, match=r"'broken' could score no answer .* ZeroDivisionError: no answers"
    ):
        run(tiny_model, tmp_path, Broken().ready(Setting(), ""))


def test_what_is_learnt_later_is_no_reason_to_end(tiny_model: Path) -> None:
    """A group without signal means success once the model earns what there is."""
    objective = loss_of(tiny_model, scorer=Exact().ready(Setting(), ""))
    prompts = prompts_of(tiny_model)
    for step in range(2, 9):  # as after a resume
        prepared = objective.prepare(prompts, step)
        assert prepared.figures["no_signal"] <= 1
