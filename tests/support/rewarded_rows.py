"""What tests of rewards share: prompts with their answers, a model, and its loss."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor

from support.tiny_model import SETTINGS
from support.tiny_training import fresh, tuned
from unitune.data.dataset import Dataset, Row
from unitune.data.example import Example
from unitune.scorers.interface import Attempt, Score, Scorer, Setting
from unitune_local.data.batches import TrainingRow
from unitune_local.data.rows import render_prompts
from unitune_local.grading import Reward, RewardGrader
from unitune_local.inference.generate import generate_in_training
from unitune_local.models.model import load_tokenizer
from unitune_local.objectives.loss import choose_form
from unitune_local.objectives.reward import RewardLoss
from unitune_local.objectives.rollout import Rollouts
from unitune_local.settings import RewardSettings

REWARD = RewardSettings(group_size=4, temperature=1.0, max_tokens=3, kl=0.0)


class ByText(Scorer):
    """What a test says that texts earn."""

    name: str = "by-text"

    def judge(self, attempt: Attempt) -> float | Score:
        first = attempt.text[:1]
        return Score(0.0, "no text", failed=True) if not first else float(first.isalpha())


SCORER = ByText().ready(Setting(), "")


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
    return (tuned(base, spread=0.05) if trained else fresh(base)).train()


def loss_of(
    base: Path, *, trained: bool = False, scorer: Scorer = SCORER, **changes: Any
) -> RewardLoss:
    model = model_of(base, trained=trained)
    form = choose_form(model, prompts_of(base), SETTINGS)
    grader, settings = (
        RewardGrader(load_tokenizer(base), [Reward.of(scorer)]),
        REWARD.model_copy(update=changes),
    )
    generate = partial(generate_in_training, model, grader.tokenizer)
    return RewardLoss(Rollouts(generate, grader, settings, seed=0, longest=512), model, form)


def gradients_of(model: PeftModel) -> dict[str, Tensor]:
    named = model.named_parameters()
    gradients = {name: each.grad.clone() for name, each in named if each.grad is not None}
    model.zero_grad()
    return gradients


def moved(objective: RewardLoss) -> RewardLoss:
    """Return it with its model as some steps would leave it."""
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in objective.model.parameters():
            if weight.requires_grad:
                weight.add_(0.02 * torch.randn_like(weight))
    return objective


def use_plain(model: PeftModel) -> None:
    model.get_base_model().set_attn_implementation("sdpa")  # pyright: ignore[reportCallIssue]
