"""The pass over preference rows before the first step, by the model that the training begins with.

That is the base model, whose new adapters change nothing yet, or the base with the adapter that the
training goes on from. So does TRL: it keeps a copy of a trained adapter as the reference (trl
1.16.0, trainer/dpo_trainer.py, lines 666 to 690). The log-probabilities are kept in a file beside
the checkpoints, a line for each round, in which every rank computes a micro-batch. So an
interrupted pass goes on, and a training that goes on reads the same numbers.
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

PROGRESS_SECONDS = 15  # between two messages about how far a pass is


@dataclass(frozen=True, slots=True)
class ReferencePass:
    """The pass of the reference over all rows, which can be interrupted."""

    model: PeftModel  # before its first step, with its adapters
    form: Form
    file: Path  # where log-probabilities are kept
    stop: Callable[[], bool]  # called after each round of micro-batches; returns whether to stop
    ranks: Ranks = ALONE
    note: Note = drop_note  # receives how far the pass is, now and then

    def run(
        self, rounds: Sequence[Sequence[Sequence[TrainingRow]]]
    ) -> dict[TrainingRow, TrainingRow] | None:
        """Return each row with its log-probabilities; None when it was stopped.

        Args:
            rounds: The micro-batches of the first epoch and of a validation, one for each rank in
                a round; empty where it has none. The same ones in the training give the very same
                sums, so that the first step begins at a gain of 0.
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
        """Write a round down, and return whether to stop."""
        with self.file.open("a") as file:
            file.write(json.dumps(sums) + "\n")
        return self.stop()

    def _kept(self) -> list[list[list[tuple[float, float]]]]:
        """Return what a pass before has computed; a line that was cut off is taken away."""
        if not self.file.exists():
            return []
        lines = self.file.read_text().splitlines(keepends=True)
        whole = [line for line in lines if line[-1] == "\n"]
        self.file.write_text("".join(whole))
        return [json.loads(line) for line in whole]
