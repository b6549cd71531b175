from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from support import tiny_training
from support.tiny_model import SETTINGS
from support.tiny_training import Trained, fresh, tuned
from torch import Tensor

from unitune.data.dataset import Dataset, Row
from unitune.data.example import Example
from unitune_local.data.attention import NAME
from unitune_local.data.batches import TrainingRow
from unitune_local.data.rendering import render_prompt
from unitune_local.data.rows import render_rows
from unitune_local.models.model import load_tokenizer, use_attention
from unitune_local.objectives import preference
from unitune_local.objectives.loss import Form, choose_form
from unitune_local.objectives.objective import PreferenceLoss, RatedLoss
from unitune_local.objectives.preference import (
    Answers,
    ReferencePass,
    answers,
    pair_losses,
    pairs_by,
    rated_losses,
)
from unitune_local.settings import Loss, PreferenceSettings

PAIR_SETTINGS = SETTINGS.model_copy(
    update={"epochs": 6, "batch_size": 2, "learning_rate": 1e-2, "micro_batch_tokens": 150}
)
REFERENCE = torch.tensor([[-0.5, -0.1], [-10.1, -20.1], [-0.1, -0.1]])
POLICY = torch.tensor([[-0.5, -0.1], [-10.0, -30.0], [-1.0, -21.0]])
"""Log-probabilities of pytorch/torchtune (20fe622), tests/torchtune/rlhf/loss/test_dpo_loss.py."""
ONE_TOKEN = torch.ones(3, 2)
FOUR_AND_FIVE = torch.tensor([[4, 5]]).expand(3, 2)


def settings(loss: Loss = "dpo", beta: float = 0.1, **others: float) -> PreferenceSettings:
    values = {"label_smoothing": 0.0, "margin": 0.0, "nll_weight": 0.0, **others}
    return PreferenceSettings(loss=loss, beta=beta, **values)


@pytest.mark.parametrize(
    ("chosen", "tokens", "expected"),
    [
        (settings(), ONE_TOKEN, [0.6931472, 0.3132617, 0.1269280]),  # torchtune asserts these
        (settings(label_smoothing=0.1), ONE_TOKEN, [0.6931472, 0.4132617, 0.3269280]),
        (settings("robust", label_smoothing=0.1), ONE_TOKEN, [0.6931472, 0.1882617, -0.1230720]),
        (settings("ipo"), ONE_TOKEN, [25.0, 25.0, 225.0]),
        (settings("ipo"), FOUR_AND_FIVE, [25.0, 8.970025, 1.092025]),
    ],
)
def test_losses_against_a_reference(
    chosen: PreferenceSettings, tokens: Tensor, expected: list[float]
) -> None:
    """By the formulas of the papers, computed by hand; d is 0, 10 and 20."""
    reference = REFERENCE.clone()
    reference[1] = torch.tensor([-10.1, -20.1])
    losses = pair_losses(Answers(POLICY, tokens), reference, chosen)
    assert expected == pytest.approx(losses.tolist(), abs=1e-5)


def test_simpo_of_the_means() -> None:
    """torchtune asserts these for beta 2 and gamma 0.5."""
    losses = pair_losses(Answers(POLICY, ONE_TOKEN), REFERENCE, settings("simpo", 2.0, margin=0.5))
    assert pytest.approx(losses.tolist(), abs=1e-6) == [1.5410085, 0.0, 0.0]


def test_orpo_of_the_means() -> None:
    means = torch.tensor([[-0.5, -1.0], [-0.1, -2.0], [-1.0, -0.5]])
    losses = pair_losses(Answers(means, ONE_TOKEN), REFERENCE, settings("orpo", 1.0))
    odds = [loss + mean for loss, mean in zip(losses.tolist(), means[:, 0].tolist(), strict=True)]
    assert pytest.approx(odds, abs=1e-6) == [0.3202998, 0.0163271, 1.2943768]


@pytest.mark.parametrize(
    ("shift", "good", "bad"),
    [
        (0.0, [0.5, 0.4975, 0.5225], [0.5, 0.2709, 0.1101]),  # torchtune asserts these
        (0.3, [0.5074994, 0.5049998, 0.5299641], [0.4925006, 0.2650274, 0.1071681]),
    ],
)
def test_rated_answers(shift: float, good: list[float], bad: list[float]) -> None:
    gains = POLICY - REFERENCE
    for column, is_good, expected in ((0, True, good), (1, False, bad)):
        marks = torch.full((3,), is_good)
        losses = rated_losses(gains[:, column], marks, shift, 0.1)
        assert expected == pytest.approx(losses.tolist(), abs=1e-4)


def test_nll_weight_adds_the_better_answers_loss_per_token() -> None:
    policy = Answers(POLICY, torch.tensor([[5, 1]]).expand(3, 2))
    without, with_it = (
        pair_losses(policy, REFERENCE, settings(nll_weight=weight)) for weight in (0.0, 0.5)
    )
    assert pytest.approx((with_it - without).tolist(), abs=1e-6) == [0.05, 1.0, 0.1]


def test_swapped_answers_turn_the_gain_round() -> None:
    """-log s(x) of a pair and of the same pair swapped differ by x."""
    policy, swapped = Answers(POLICY, ONE_TOKEN), Answers(POLICY.flip(1), ONE_TOKEN)
    difference = pair_losses(swapped, REFERENCE.flip(1), settings()) - pair_losses(
        policy, REFERENCE, settings()
    )
    gain = 0.1 * ((POLICY - REFERENCE)[:, 0] - (POLICY - REFERENCE)[:, 1])
    assert gain.tolist() == pytest.approx(difference.tolist(), abs=1e-5)


PAIRS = [
    ("Say a colour.", "red", "a stone, which is no colour"),
    ("Say a colour that is not red, please.", "green", "red"),
    ("Count.", "one two three", "three"),
    ("What is one and one?", "2", "two and two"),
    ("Say nothing.", ".", "I will say something"),
]


@pytest.fixture(scope="module")
def rows(tiny_model: Path) -> tuple[TrainingRow, ...]:
    examples = [
        Example.model_validate(
            {
                "input": {
                    "messages": [
                        {"role": "system", "content": "Answer."},
                        {"role": "user", "content": prompt},
                    ]
                },
                "preferred_output": [{"role": "assistant", "content": better}],
                "non_preferred_output": [{"role": "assistant", "content": worse}],
                "weight": 1 + 0.5 * number,
            }
        )
        for number, (prompt, better, worse) in enumerate(PAIRS)
    ]
    dataset = Dataset("pairs", tuple(Row(at, each) for at, each in enumerate(examples, 1)))
    rendered = render_rows(load_tokenizer(tiny_model), dataset, 512)
    assert not rendered.findings
    return rendered.rows


def test_a_row_holds_its_prompt_once(tiny_model: Path, rows: Sequence[TrainingRow]) -> None:
    tokenizer = load_tokenizer(tiny_model)
    better, worse = rows[1].conversations
    prompt = render_prompt(tokenizer, Example.model_validate({
        "messages": [{"role": "system", "content": "Answer."},
                     {"role": "user", "content": PAIRS[1][0]}]}).messages)  # fmt: skip
    assert rows[1].fork is not None
    assert prompt == list(rows[1].ids[: rows[1].fork.better])
    assert prompt == list(better.ids[: len(prompt)]) == list(worse.ids[: len(prompt)])
    assert len(rows[1].ids) == len(better.ids) + len(worse.ids) - len(prompt)


@pytest.mark.parametrize("multiple", [1, 32])
@pytest.mark.parametrize("share", [True, False])
def test_sharing_changes_no_sum_and_no_gradient(
    tiny_model: Path, rows: Sequence[TrainingRow], *, share: bool, multiple: int
) -> None:
    """Against one conversation after the other, through torch's own attention."""
    model = tuned(tiny_model)
    use_attention(model, "sdpa")
    plain = Form("padded", share=False)
    sides = [side for row in rows for side in row.conversations]
    alone = [answers(model, plain, [row]) for row in rows]
    expected = torch.cat([each.sums for each in alone])
    assert alone[0].tokens[0].tolist() == [len(PAIRS[0][1]) + 1, len(PAIRS[0][2]) + 1]
    expected.square().sum().backward()
    gradients = gradients_of(model)

    use_attention(model, NAME)
    packed = answers(model, Form("packed", share=share, multiple=multiple), rows)
    packed.sums.square().sum().backward()

    assert len(sides) == 2 * len(rows)
    torch.testing.assert_close(packed.sums, expected, rtol=1e-4, atol=1e-4)
    for name, gradient in gradients_of(model).items():
        torch.testing.assert_close(gradient, gradients[name], rtol=2e-3, atol=2e-3)


def gradients_of(model: PeftModel) -> dict[str, Tensor]:
    gradients = {
        name: weight.grad.clone()
        for name, weight in model.named_parameters()
        if weight.grad is not None
    }
    model.zero_grad()
    return gradients


def test_the_form_is_checked_on_pairs(tiny_model: Path, rows: Sequence[TrainingRow]) -> None:
    assert choose_form(tuned(tiny_model), rows, SETTINGS).kind == "packed"


@pytest.mark.parametrize(
    ("loss", "first"), [("dpo", math.log(2)), ("robust", math.log(2)), ("ipo", 25.0)]
)
def test_a_new_adapter_has_gained_nothing(
    tiny_model: Path, tmp_path: Path, rows: Sequence[TrainingRow], loss: Loss, first: float
) -> None:
    model = fresh(tiny_model).eval()
    form = choose_form(model, rows, SETTINGS)
    referenced = ReferencePass(pairs_by(model, form), tmp_path / "r.jsonl", lambda: False).run(
        [[rows]]
    )
    assert referenced is not None
    objective = PreferenceLoss(partial(answers, model, form), settings(loss))
    ready = [referenced[row] for row in rows]
    (sums,) = objective.losses([ready])
    weight = objective.weight(ready)

    assert first == pytest.approx(sums.loss.item() / weight, rel=1e-6)
    assert {name: value / weight for name, value in sums.figures.items()} == {
        "accuracy": 0.5,
        "margin": 0.0,
    }


def test_reference_of_new_adapters_is_the_base(
    tiny_model: Path, tmp_path: Path, rows: Sequence[TrainingRow]
) -> None:
    model = fresh(tiny_model).eval()
    form = choose_form(model, rows, SETTINGS)
    made = ReferencePass(pairs_by(model, form), tmp_path / "r", lambda: False).run([[rows]])
    with torch.no_grad(), model.disable_adapter():
        base = answers(model, form, rows).pairs
    assert made is not None
    assert list(map(tuple, base)) == [made[row].reference for row in rows]


def test_an_interrupted_pass_goes_on(
    tiny_model: Path,
    tmp_path: Path,
    rows: Sequence[TrainingRow],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(preference, "PROGRESS_SECONDS", 0)
    model = fresh(tiny_model).eval()
    form = choose_form(model, rows, SETTINGS)
    parts = [[rows[:2]], [rows[2:4]], [rows[4:]]]
    whole = ReferencePass(pairs_by(model, form), tmp_path / "whole", lambda: False).run(parts)
    file = tmp_path / "cut"
    assert ReferencePass(pairs_by(model, form), file, lambda: True).run(parts) is None
    kept = file.read_text()
    assert len(kept.splitlines()) == 1
    file.write_text(kept + json.dumps([[1.0, 2.0]])[:7])  # the process died while it wrote

    messages, done_rows = list[str](), (2, 4, len(rows))
    again = ReferencePass(
        pairs_by(model, form),
        file,
        lambda: False,
        note=lambda _, data: messages.append(str(data["text"])),
    )
    assert whole == again.run(parts)
    assert file.read_text().startswith(kept)
    assert [
        f"reference log-probabilities of {done} of {len(rows)} rows" for done in done_rows
    ] == messages


def run(
    base: Path, rows: Sequence[TrainingRow], folder: Path, loss: Loss, stop_after: int | None = None
) -> Trained:
    chosen = PAIR_SETTINGS.model_copy(update={"preference": settings(loss)})
    return tiny_training.run(base, rows, rows[:2], folder, chosen, stop_after=stop_after)


@pytest.fixture(scope="module")
def rated(tiny_model: Path) -> tuple[TrainingRow, ...]:
    examples = [
        Example.model_validate(
            {
                "messages": [
                    {"role": "user", "content": prompt},
                    {"role": "assistant", "content": answer},
                ],
                "kto_tag": answer == better,
            }
        )
        for prompt, better, worse in PAIRS[:3]
        for answer in (better, worse)
    ]
    dataset = Dataset("rated", tuple(Row(at, each) for at, each in enumerate(examples, 1)))
    return render_rows(load_tokenizer(tiny_model), dataset, 512).rows


def test_a_rated_row_holds_the_next_rows_answer(rated: Sequence[TrainingRow]) -> None:
    own, other = rated[0].conversations
    following = rated[1].conversations[0]
    length = len(PAIRS[0][2]) + 1
    assert following.ids[-length:] == other.ids[-length:]
    assert own.ids[: -len(PAIRS[0][1]) - 1] == other.ids[:-length]
    assert [row.is_good for row in rated] == [True, False] * 3


def test_the_shift_of_rated_answers_is_the_whole_steps(
    tiny_model: Path, tmp_path: Path, rated: Sequence[TrainingRow]
) -> None:
    base, model = fresh(tiny_model).eval(), tuned(tiny_model)
    form = choose_form(base, rated, SETTINGS)
    use_attention(model, NAME)
    referenced = ReferencePass(pairs_by(base, form), tmp_path / "r", lambda: False).run([[rated]])
    assert referenced is not None
    ready = [referenced[row] for row in rated]
    objective = RatedLoss(partial(answers, model, form), settings("kto"))
    (whole,) = objective.losses([ready])
    parts = [*objective.losses([ready[:2], ready[2:]])]

    assert whole.loss.item() == pytest.approx(sum(part.loss.item() for part in parts), rel=1e-5)
    gained = [
        (answers(model, form, [row]).sums - torch.tensor([row.reference]))[0, 1].item()
        for row in ready
    ]
    expected = max(0.0, sum(gained) / len(gained)) * len(gained)
    assert expected == pytest.approx(whole.figures["shift"], abs=1e-3)


def test_training_on_ratings_tells_good_from_bad(
    tiny_model: Path, tmp_path: Path, rated: Sequence[TrainingRow]
) -> None:
    done = run(tiny_model, rated, tmp_path, "kto")
    assert pytest.approx(done.losses[1], rel=1e-6) == 0.5
    assert done.validations[-1]["loss"] < done.validations[0]["loss"]


@pytest.mark.parametrize("loss", ["dpo", "simpo", "kto"])
def test_a_resumed_training_has_the_same_losses_value_for_value(
    tiny_model: Path,
    tmp_path: Path,
    rows: Sequence[TrainingRow],
    rated: Sequence[TrainingRow],
    loss: Loss,
) -> None:
    rows = rated if loss == "kto" else rows
    whole = run(tiny_model, rows, tmp_path / "whole", loss)
    first = run(tiny_model, rows, tmp_path / "parts", loss, stop_after=5)
    second = run(tiny_model, rows, tmp_path / "parts", loss)

    assert (whole.finished, first.finished, second.finished) == (True, False, True)
    assert whole.losses == first.losses | second.losses
    assert list(second.losses)[:2] == [6, 7]
    if loss == "dpo":
        assert whole.validations[-1]["accuracy"] == 1.0
        assert math.log(2) == pytest.approx(whole.losses[1], rel=1e-6)
        assert whole.validations[0]["accuracy"] == 0.5


def test_the_base_models_pass_can_be_paused(
    tiny_model: Path, tmp_path: Path, rows: Sequence[TrainingRow]
) -> None:
    paused = run(tiny_model, rows, tmp_path, "dpo", stop_after=0)
    assert (paused.finished, paused.losses) == (False, {})
    assert run(tiny_model, rows, tmp_path, "dpo").finished
