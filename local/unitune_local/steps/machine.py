"""Compute the steps of a training at a vendor, with the losses of trainings on this machine.

A loss on rows is computed here from the vendor's log-probabilities. Its gradient with respect to
them, with the opposite sign, is what the vendor weights its cross-entropy with, so that it adds the
gradient of our loss to the weights. Where the loss is linear in the log-probabilities (sft), one
pass of the vendor is enough; otherwise (dpo) a pass forwards comes before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from unitune.errors import RunFailed
from unitune_local.data.batches import TrainingRow
from unitune_local.data.rendering import turn_ends
from unitune_local.grading import RewardGrader
from unitune_local.inference.answers import Answer, Ending, Generated, Sampling
from unitune_local.job_folder import REFERENCE_FILE, Note
from unitune_local.objectives.objective import CrossEntropy, Objective, StepRows, preference_loss
from unitune_local.objectives.preference import Answers, ReferencePass
from unitune_local.objectives.reward import RewardedAnswers, clipped_losses
from unitune_local.objectives.rollout import Rollouts
from unitune_local.settings import RewardSettings, Settings
from unitune_local.steps.vendor import Adam, Logprobs, Loss, Meter, Prompt, Saved, StepVendor, Trace
from unitune_local.training.checkpoint import Position
from unitune_local.training.loop import Mean
from unitune_local.training.stepping import Record, check_finite

CHARGED = "charged_tokens"  # name of the trained tokens in the event of a step
# Trained tokens between two checkpoints where no price is known
UNPRICED_TOKENS = 1_000_000
REFERENCED_TOGETHER = 64  # rows whose reference is asked for in one round
CISPO_CLIP = {"clip_low_threshold": 0.0, "clip_high_threshold": 4.0}


@dataclass(slots=True)
class VendorMachine:
    """Machine of a vendor (`unitune_local.training.stepping.Machine`)."""

    vendor: StepVendor
    meter: Meter
    settings: Settings
    folder: Path  # of the checkpoints' positions
    note: Note
    stop: Callable[[], bool]
    checkpoint_usd: Decimal  # most that is spent between two checkpoints, but for a step
    policy_loss: Loss
    grader: RewardGrader | None = None  # grades sampled answers, if any
    ends: frozenset[int] = frozenset()  # tokens that end an answer
    _saved: dict[int, Saved] = field(default_factory=dict[int, Saved], init=False)
    _position: Position | None = field(default=None, init=False)
    _dearest: Decimal = field(default=Decimal(0), init=False)  # step so far
    _leaves: list[Tensor] = field(default_factory=list[Tensor], init=False)
    # Log-probabilities of sampled answers, by prompt and answer
    _sampled: dict[tuple[int, ...], list[float]] = field(
        default_factory=dict[tuple[int, ...], list[float]], init=False
    )
    _objective: Objective | RewardedAnswers = field(init=False)

    def __post_init__(self) -> None:
        """Choose the objective."""
        settings = self.settings
        if settings.reward is not None:
            assert self.grader is not None, "sampled answers are graded"
            rollouts = Rollouts(
                self._generate,
                self.grader,
                settings.reward,
                settings.seed,
                settings.sequence_length,
            )
            self._objective = RewardedAnswers(rollouts)
        elif settings.preference is not None:
            self._objective = preference_loss(self._answers, settings.preference)
        else:
            self._objective = CrossEntropy(self._loss_sum)

    def referenced(self, *files: Sequence[TrainingRow]) -> list[list[TrainingRow]] | None:
        """Return the rows of files with the base model's log-probabilities; None if stopped."""
        preference = self.settings.preference
        if preference is None or not preference.needs_reference:
            return [[*rows] for rows in files]
        ahead = ReferencePass(
            self._reference, self.folder / REFERENCE_FILE, self.stop, note=self.note
        )
        every, size = [row for rows in files for row in rows], REFERENCED_TOGETHER
        made = ahead.run([[every[at : at + size]] for at in range(0, len(every), size)])
        return None if made is None else [[made[row] for row in rows] for rows in files]

    def restore(self) -> Position | None:
        found = self.vendor.find()
        self._saved = {saved.step: saved for saved in found.checkpoints}
        newest = max(found.checkpoints, key=lambda saved: saved.step, default=None)
        self.vendor.begin(newest)
        if newest is None:
            return None
        self._position = self._position_of(newest)
        return self._position

    def step(self, step: int, rows: Sequence[TrainingRow], rate: float, record: Record) -> None:
        before, tokens = self.meter.usd, self.meter.tokens["train"]
        prepared = self._objective.prepare(rows, step)
        settings = self.settings
        adam = Adam(
            rate, settings.beta1, settings.beta2, settings.weight_decay, settings.max_grad_norm
        )
        if isinstance(self._objective, RewardedAnswers):
            figures = self._learn_answers(prepared, adam)
        else:
            figures = self._learn_rows(self._objective, prepared, adam)
        loss = figures.get(self._objective.figure, 0.0)
        check_finite(step, loss, 0.0, rate, prepared.rows)
        self._dearest = max(self._dearest, self.meter.usd - before)
        charged = self.meter.tokens["train"] - tokens
        record(prepared, {**figures, "learning_rate": rate, CHARGED: charged})

    def measure(self, rows: Sequence[TrainingRow]) -> dict[str, float]:
        """Return the mean loss of validation rows, and the other figures."""
        if isinstance(self._objective, RewardedAnswers):
            return self._objective.validate(rows)
        traces = [Trace(side.ids, [0.0] * (len(side.ids) - 1)) for side in _sides(rows)]
        made = self._logprobs(traces)
        return self._figures(self._objective, self._objective.prepare(rows, 0), made)

    def move(self, position: Position) -> None:
        self._position = position

    def stops(self) -> bool:
        return self.stop()

    def is_due(self, step: int, *, epoch_ended: bool) -> bool:
        del step, epoch_ended
        if self.meter.prices.train is None:
            return self.meter.unpriced >= UNPRICED_TOKENS
        return self.meter.usd + self._dearest > self.checkpoint_usd

    def save(self, step: int) -> None:
        assert self._position is not None
        if step not in self._saved or not self._position.evaluated:
            # First here: some vendors keep no position, and a checkpoint without one is of no use.
            position = self._position.model_dump_json()
            self.folder.mkdir(exist_ok=True)
            self._note_of(step).write_text(position, encoding="utf-8")
            self._saved[step] = self.vendor.save(step, position)
            self.note("checkpoint", {"step": step, "usd": float(self.meter.usd)})
        self.meter.saved()

    def keep(self, kept: int, step: int) -> None:
        if kept != step:
            if kept not in self._saved:
                raise RunFailed(
                    f"the vendor no longer has the checkpoint of step {kept}, which was the best. "
                    "Train again, or set tuning.keep to last."
                )
            self.vendor.begin(self._saved[kept])

    def _note_of(self, step: int) -> Path:
        return self.folder / f"step-{step}"

    def _position_of(self, saved: Saved) -> Position:
        """Return the position of a checkpoint: the vendor's, or else this folder's."""
        note = self._note_of(saved.step)
        kept = note.read_text(encoding="utf-8") if note.exists() else ""
        for text in (saved.position, kept):
            with suppress(ValueError):  # missing, or not ours
                return Position.model_validate_json(text).model_copy(update={"step": saved.step})
        return Position(step=saved.step)

    def _logprobs(self, traces: Sequence[Trace]) -> Logprobs:
        self.meter.count("train", sum(len(trace.ids) - 1 for trace in traces))
        return self.vendor.logprobs(traces)

    def _reference(self, rows: Sequence[TrainingRow]) -> list[tuple[float, float]]:
        traces = [Trace(side.ids, ()) for side in _sides(rows)]
        self.meter.count("prefill", sum(len(trace.ids) for trace in traces))
        return self._measured(rows, self.vendor.logprobs(traces, of_base=True)).pairs

    def _measured(self, rows: Sequence[TrainingRow], made: Logprobs) -> Answers:
        self._leaves = [torch.tensor(each, dtype=torch.float64) for each in made]
        with torch.no_grad():
            return self._answers(rows)

    def _answers(self, rows: Sequence[TrainingRow]) -> Answers:
        masks = [_mask(side) for side in _sides(rows)]
        sums = torch.stack([(a * m).sum() for a, m in zip(self._leaves, masks, strict=True)])
        tokens = torch.tensor([int(mask.sum()) for mask in masks])
        return Answers(sums.view(-1, 2), tokens.view(-1, 2))

    def _loss_sum(self, rows: Sequence[TrainingRow]) -> Tensor:
        pairs = zip(rows, self._leaves, strict=True)
        return torch.stack([-row.weight * (leaf * _mask(row)).sum() for row, leaf in pairs]).sum()

    def _figures(
        self, objective: Objective, prepared: StepRows, made: Logprobs, *, learns: bool = False
    ) -> dict[str, float]:
        """Return figures by log-probabilities; with `learns`, the leaves get their gradients."""
        self._leaves = [
            torch.tensor(each, dtype=torch.float64, requires_grad=learns) for each in made
        ]
        mean = Mean(prepared.weight, objective.figure)
        for part in objective.losses([prepared.rows]):
            loss = mean.add(part)
            if learns:
                torch.autograd.backward(loss)
        return mean.figures

    def _learn_rows(self, objective: Objective, prepared: StepRows, adam: Adam) -> dict[str, float]:
        sides = _sides(prepared.rows)
        made: Logprobs = [[0.0] * (len(side.ids) - 1) for side in sides]
        if not isinstance(objective, CrossEntropy):
            made = self._logprobs([Trace(s.ids, [0.0] * (len(s.ids) - 1)) for s in sides])
        figures = self._figures(objective, prepared, made, learns=True)
        grads = [cast("Tensor", leaf.grad) for leaf in self._leaves]
        traces = [
            Trace(side.ids, cast("list[float]", cast("Any", -grad).tolist()))
            for side, grad in zip(sides, grads, strict=True)
        ]
        after = self._learn(traces, "cross_entropy", {}, adam)
        if isinstance(objective, CrossEntropy):
            return self._figures(objective, prepared, after)
        return figures

    def _learn_answers(self, prepared: StepRows, adam: Adam) -> dict[str, float]:
        settings = cast("RewardSettings", self.settings.reward)
        if not prepared.rows:  # all answers of each group earn the same
            return {"policy_loss": 0.0}
        low, high = settings.clip, settings.clip_high or settings.clip
        config = {
            "importance_sampling": {},
            "ppo": {"clip_low_threshold": 1 - low, "clip_high_threshold": 1 + high},
            "cispo": CISPO_CLIP,
        }[self.policy_loss]
        traces = [self._trace(row, prepared.weight, settings) for row in prepared.rows]
        made: Logprobs = []
        for _ in range(settings.updates):
            made = self._learn(traces, self.policy_loss, config, adam)
        return self._policy_figures(traces, made, low, high)

    def _policy_figures(
        self, traces: Sequence[Trace], made: Logprobs, low: float, high: float
    ) -> dict[str, float]:
        now, old, gains = (
            torch.tensor([value for each in parts for value in each], dtype=torch.float64)
            for parts in (made, [t.sampled for t in traces], [t.weights for t in traces])
        )
        ratios = (now - old).exp()
        losses = -(ratios * gains)
        counts = gains != 0
        figures = dict[str, float]()
        if self.policy_loss == "ppo":
            losses, clipped = clipped_losses(ratios, gains, low, high)
            figures["clipped"] = clipped[counts].double().mean().item()
        figures["kl_sampled"] = (old - now)[counts].mean().nan_to_num(0.0).item()
        return {"policy_loss": losses.sum().item(), **figures}

    def _trace(self, row: TrainingRow, divisor: float, settings: RewardSettings) -> Trace:
        share = row.weight / divisor / (row.trained_tokens if settings.loss == "grpo" else 1)
        on = row.trained[1:]
        answer = self._sampled[tuple(row.ids)]
        before = [0.0] * (len(row.ids) - 1 - len(answer))
        return Trace(row.ids, [share * each for each in on], [*before, *answer])

    def _learn(
        self, traces: Sequence[Trace], loss: Loss, config: Mapping[str, float], adam: Adam
    ) -> Logprobs:
        self.meter.count("train", sum(len(trace.ids) - 1 for trace in traces))
        return self.vendor.learn(traces, loss, config, adam)

    def _generate(
        self, prompts: Sequence[tuple[int, ...]], samplings: Sequence[Sampling]
    ) -> list[Generated]:
        """Answer prompts; equal ones in a row are one request for as many answers."""
        self._sampled.clear()
        asked: list[Prompt] = []
        for ids, sampling in zip(prompts, samplings, strict=True):
            if asked and tuple(asked[-1].ids) == ids:
                asked[-1] = asked[-1]._replace(answers=asked[-1].answers + 1)
            else:
                asked.append(
                    Prompt(ids, 1, sampling.max_tokens, sampling.temperature, sampling.seed)
                )
        groups = self.vendor.sample(asked)
        ending = Ending(self.ends, cast("RewardGrader", self.grader).tokenizer)
        made: list[Generated] = []
        for prompt, group in zip(asked, groups, strict=True):
            self.meter.count("prefill", len(prompt.ids))
            self.meter.count("sample", sum(len(each.ids) for each in group))
            opened = ending.has_opened_thought(prompt.ids)
            for each in group:
                self._sampled[(*prompt.ids, *each.ids)] = each.logprobs
                answer = Answer(
                    0, [], Sampling(prompt.max_tokens, prompt.temperature), ending, opened=opened
                )
                answer.ids = list(each.ids)
                made.append(answer.finished())
        return made


def ending_tokens(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the tokens that end an answer, by tokenizer and template."""
    end = cast("int | None", tokenizer.eos_token_id)
    return turn_ends(tokenizer) | (frozenset[int]() if end is None else {end})


def _sides(rows: Sequence[TrainingRow]) -> list[TrainingRow]:
    return [side for row in rows for side in row.conversations]


def _mask(row: TrainingRow) -> Tensor:
    return torch.tensor([*row.trained[1:]], dtype=torch.float64)
