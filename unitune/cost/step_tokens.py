"""Count the tokens of a training whose loop unitune runs, at a vendor that sells its steps.

The loop is ours, so what it asks for is known: each row once per epoch (sft), the answers of a pair
forwards and then with the gradient (dpo) after one look at the base model, or a group of sampled
answers to each prompt and a step on them (rft).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from unitune.backends.offer import Billing
from unitune.cost.billing import Lengths, Tally
from unitune.cost.tokens import Count
from unitune.job.job import Job

GROUP_SIZE = 8  # of sampled answers; the local trainer's default
WITHOUT_REFERENCE = ("simpo", "orpo")


@dataclass(frozen=True, slots=True)
class StepTokens:
    """Tokens that a training is charged for."""

    epoch: Count  # trained in one epoch
    validation: Count  # trained on (forwards) in all evaluations
    read: Count  # prompts of sampled answers and of the base model, in all
    written: Count  # sampled answers, in all
    because: tuple[str, ...]


def step_tokens(
    job: Job, rules: Billing, rows: Tally, held_out: Tally, epochs: Count
) -> StepTokens:
    """Return the tokens of a training; the rules are those of a vendor of steps."""
    evaluations = _evaluations(job, epochs) if len(held_out) else Count()
    because = [_paid_again(job, rules)]
    if job.method == "rft":
        reward = job.tuning.reward
        group = Count.of(reward.group_size if isinstance(reward.group_size, int) else GROUP_SIZE)
        answers = _sampled(job, rows.answers)
        updates = Count.of(reward.updates if isinstance(reward.updates, int) else 1)
        because.append(
            f"{group.expected} answers are sampled to each prompt; their length is unknown, and "
            "expected to be that of the rows' answers"
        )
        prompts, dev = rows.prompts.total, held_out.prompts.total
        dev_answers = _sampled(job, held_out.answers)
        return StepTokens(
            epoch=group * (prompts + answers) * updates,
            validation=Count(),
            read=epochs * prompts + evaluations * dev,
            written=epochs * group * answers + evaluations * dev_answers,
            because=tuple(because),
        )
    totals, dev = rows.totals, held_out.totals
    if job.method != "dpo":
        return StepTokens(totals.total, evaluations * dev.total, Count(), Count(), tuple(because))
    sides, dev_sides = totals + rows.prompts, dev + held_out.prompts
    because.append("each pair is computed twice: forwards, and with the gradient")
    loss = job.tuning.preference.loss
    reads = Count() if loss in WITHOUT_REFERENCE else sides.total + dev_sides.total
    return StepTokens(
        epoch=Count.of(2) * sides.total,
        validation=evaluations * dev_sides.total,
        read=reads,
        written=Count(),
        because=tuple(because),
    )


def _paid_again(job: Job, rules: Billing) -> str:
    usd = job.options.get(job.backend, {}).get("checkpoint_usd", rules.checkpoint_usd)
    return (
        f"if the training's process dies, at most ${usd} of steps and one more step are paid for "
        f"again (options.{job.backend}.checkpoint_usd)"
    )


def _evaluations(job: Job, epochs: Count) -> Count:
    """Return the evaluations: one before the first step, then as `tuning.evaluate_every` says."""
    every = job.tuning.evaluate_every
    share = every if isinstance(every, float) and every < 1 else 1.0
    return Count(*(1 + math.ceil(n / share) for n in (epochs.low, epochs.expected, epochs.high)))


def _sampled(job: Job, answers: Lengths) -> Count:
    """Return the tokens of one sampled answer to each row: from one token to the limit."""
    rows, limit = len(answers), job.tuning.reward.max_tokens
    own: Sequence[int] = answers.expected
    most = rows * limit if isinstance(limit, int) else 2 * answers.total.high
    expected = sum(min(each + 1, limit) if isinstance(limit, int) else each + 1 for each in own)
    return Count(rows, expected, max(most, expected))
