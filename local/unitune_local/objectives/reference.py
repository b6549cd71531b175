"""Compute the log-probabilities of preference rows by the model that a training begins with.

This is the base model, or the base with the adapter to continue from, as in TRL (1.16.0,
trainer/dpo_trainer.py, lines 666 to 690). Log-probabilities are stored, a line for each round of
the ranks, so that an interrupted pass continues and a resumed training reads the same numbers.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path

import torch
from peft import PeftModel

from unitune_local.data.batches import TrainingRow
from unitune_local.job_folder import Note, drop_note
from unitune_local.objectives.loss import Form
from unitune_local.objectives.preference import answers
from unitune_local.parallel.ranks import ALONE, Ranks

PROGRESS_SECONDS = 15  # between two messages about the progress of a pass


@dataclass(frozen=True, slots=True)
class ReferencePass:
    """Interruptible pass of the reference model over all rows."""

    model: PeftModel  # before its first step, with its adapters
    form: Form
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
        was_training = self.model.training
        self.model.eval()
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
        self.model.train(was_training)
        return referenced

    def _sums(self, parts: Sequence[Sequence[TrainingRow]]) -> list[tuple[float, float]]:
        own = parts[self.ranks.rank]
        computed = own or (next(filter(None, parts)) if self.ranks.computes_together else ())
        with torch.no_grad():
            pairs = answers(self.model, self.form, computed).pairs if computed else []
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
