"""Compute losses on pairs of answers from their log-probabilities.

A loss reads the sum of each answer's token log-probabilities (with its end token, without the
prompt) and their number. With d the better answer's gain over the worse one since the base model,
d/n the same with each answer's gain divided by its length, and s the log of a sigmoid:

    dpo      -(1 - e) s(beta d) - e s(-beta d)          Rafailov et al. 2023; e: Mitchell 2023
    robust   (-(1 - e) s(beta d) + e s(-beta d)) / (1 - 2 e)    Chowdhury et al. 2024, eq. 11
    ipo      (d/n - 1 / (2 beta))^2                     Azar et al. 2023; by tokens, as TRL
    simpo    -s(beta (mean of better - mean of worse) - margin)            Meng et al. 2024
    orpo     -mean of better - beta s(log of the odds ratio)               Hong et al. 2024

kto (Ethayarajh et al. 2024) is in `rated_losses`. `nll_weight` adds that many times the better
answer's loss per token. A step's loss is the mean over its pairs.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from peft import PeftModel
from torch import Tensor
from torch.nn import functional

from unitune_local.data.batches import TrainingRow
from unitune_local.job_folder import Note, drop_note
from unitune_local.objectives.loss import Form, token_losses
from unitune_local.parallel.ranks import ALONE, Ranks
from unitune_local.settings import Loss, PreferenceSettings


class Answers(NamedTuple):
    """The better and the worse answer of each pair."""

    sums: Tensor  # (B, 2), log-probabilities
    tokens: Tensor  # (B, 2)

    @property
    def means(self) -> Tensor:
        """Mean log-probability of a token."""
        return self.sums / self.tokens  # (B, 2)

    @property
    def pairs(self) -> list[tuple[float, float]]:
        """Sums as numbers."""
        return cast("list[tuple[float, float]]", cast("Any", self.sums).tolist())


def answers(model: torch.nn.Module, form: Form, rows: Sequence[TrainingRow]) -> Answers:
    """Return the log-probabilities of the answers of preference rows."""
    batch = form.batch(rows, next(model.parameters()).device)
    losses = token_losses(model, batch)  # (N,)
    count = 2 * len(rows)
    sums = losses.new_zeros(count).index_add(0, batch.answers, -losses)
    tokens = torch.bincount(batch.answers, minlength=count)
    return Answers(sums.view(-1, 2), tokens.view(-1, 2))


def pairs_by(
    model: PeftModel, form: Form
) -> Callable[[Sequence[TrainingRow]], list[tuple[float, float]]]:
    """Return a function for the log-probabilities of rows' answers by a model in this state."""

    def pairs(rows: Sequence[TrainingRow]) -> list[tuple[float, float]]:
        was_training = model.training
        model.eval()
        with torch.no_grad():
            made = answers(model, form, rows).pairs
        model.train(was_training)
        return made

    return pairs


def pair_losses(policy: Answers, reference: Tensor, settings: PreferenceSettings) -> Tensor:
    """Return the loss of each pair (B,); reference sums (B, 2) are zeros without a reference."""
    losses = _LOSSES[settings.loss](policy, reference, settings)
    if settings.nll_weight:
        losses = losses - settings.nll_weight * policy.means[:, 0]
    return losses  # (B,)


def _dpo(policy: Answers, reference: Tensor, settings: PreferenceSettings) -> Tensor:
    logits = settings.beta * _lead(policy.sums - reference)
    smoothing = settings.label_smoothing
    right = -(1 - smoothing) * functional.logsigmoid(logits)
    wrong = smoothing * functional.logsigmoid(-logits)
    if settings.loss == "robust":
        return (right + wrong) / (1 - 2 * smoothing)
    return right - wrong


def _ipo(policy: Answers, reference: Tensor, settings: PreferenceSettings) -> Tensor:
    gain = _lead((policy.sums - reference) / policy.tokens)
    return (gain - 1 / (2 * settings.beta)) ** 2


def _simpo(policy: Answers, _: Tensor, settings: PreferenceSettings) -> Tensor:
    return -functional.logsigmoid(settings.beta * _lead(policy.means) - settings.margin)


def _orpo(policy: Answers, _: Tensor, settings: PreferenceSettings) -> Tensor:
    means = policy.means
    log_odds_ratio = _lead(means - _log_complement(means))
    return -means[:, 0] - settings.beta * functional.logsigmoid(log_odds_ratio)


def rated_losses(gains: Tensor, is_good: Tensor, shift: float, beta: float) -> Tensor:
    """Return the loss of each rated answer (kto).

    Gains are those of log-probabilities over the base model (B,); the shift is the mean gain of
    answers to other prompts, at least 0.
    """
    signs = torch.where(is_good, 1.0, -1.0)
    return 1 - torch.sigmoid(beta * signs * (gains - shift))  # (B,)


_LOSSES: dict[Loss, Callable[[Answers, Tensor, PreferenceSettings], Tensor]] = {
    "dpo": _dpo,
    "robust": _dpo,
    "ipo": _ipo,
    "simpo": _simpo,
    "orpo": _orpo,
}


def _lead(pairs: Tensor) -> Tensor:
    return pairs[:, 0] - pairs[:, 1]


def _log_complement(log_probabilities: Tensor) -> Tensor:
    """Return log(1 - e^a), in the form that is exact for a near 0 or far from it."""
    near = torch.log(-torch.expm1(log_probabilities.clamp(max=-1e-7)))
    return torch.where(
        log_probabilities > -math.log(2), near, torch.log1p(-torch.exp(log_probabilities))
    )


PROGRESS_SECONDS = 15  # between two messages about the progress of a pass


@dataclass(frozen=True, slots=True)
class ReferencePass:
    """Interruptible pass of the model that a training begins with over all rows.

    This is the base, or the base with the adapter to continue from, as in TRL (1.16.0,
    trainer/dpo_trainer.py, lines 666 to 690). Log-probabilities are stored, a line for each round
    of the ranks, so that an interrupted pass continues and a resumed training reads the same ones.
    """

    # Returns the log-probabilities of rows' answers by the model before its first step
    pairs: Callable[[Sequence[TrainingRow]], list[tuple[float, float]]]
    file: Path  # stores the log-probabilities
    stop: Callable[[], bool]  # called after each round of micro-batches; returns whether to stop
    ranks: Ranks = ALONE
    note: Note = drop_note  # receives the progress

    def run(
        self, rounds: Sequence[Sequence[Sequence[TrainingRow]]]
    ) -> dict[TrainingRow, TrainingRow] | None:
        """Return each row with its log-probabilities, or None if the pass was stopped.

        Rounds hold a micro-batch for each rank, empty if it is idle, and cover an epoch and a
        validation. The training uses the same ones, so that its first step begins at a gain of 0.
        """
        kept = self.ranks.first(self._kept)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        referenced: dict[TrainingRow, TrainingRow] = {}
        total, reported_at = sum(len(part) for parts in rounds for part in parts), time.monotonic()
        for number, parts in enumerate(rounds):
            if number < len(kept):
                sums = kept[number]
            else:
                sums = self.ranks.gather(self._sums(parts))
                if self.ranks.first(partial(self._keep, sums)):
                    return None
            referenced |= {
                row: replace(row, reference=tuple(pair))
                for row, pair in zip(chain(*parts), chain(*sums), strict=True)
            }
            if time.monotonic() - reported_at >= PROGRESS_SECONDS:
                done = f"reference log-probabilities of {len(referenced)} of {total} rows"
                self.note("message", {"text": done})
                reported_at = time.monotonic()
        return referenced

    def _sums(self, parts: Sequence[Sequence[TrainingRow]]) -> list[tuple[float, float]]:
        own = parts[self.ranks.rank]
        computed = own or (next(filter(None, parts)) if self.ranks.computes_together else ())
        pairs = self.pairs(computed) if computed else []
        return pairs if own else []

    def _keep(self, sums: list[list[tuple[float, float]]]) -> bool:
        with self.file.open("a") as file:
            file.write(json.dumps(sums) + "\n")
        return self.stop()

    def _kept(self) -> list[list[list[tuple[float, float]]]]:
        """Return the rounds of an earlier pass, without a line that was cut off."""
        if not self.file.exists():
            return []
        lines = self.file.read_text().splitlines(keepends=True)
        whole = [line for line in lines if line[-1] == "\n"]
        self.file.write_text("".join(whole))
        return [json.loads(line) for line in whole]
