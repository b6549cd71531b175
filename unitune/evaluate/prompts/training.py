"""What a comparison tells of the training behind the tuned model, and whether the cases fit it.

`check_prompts` refuses cases with another prompt than the rows that it was trained on. Not here:
which run it was (`unitune.evaluate.prompts.tuned_run`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from unitune.data.dataset import Dataset
from unitune.data.example import Example
from unitune.errors import Mismatch
from unitune.evaluate.prompts.prompts import SYSTEM_ROLES
from unitune.evaluate.results import Curve
from unitune.findings import clip
from unitune.job.contenders import Tuned
from unitune.job.job import Job

MOST_SYSTEM_PROMPTS = 0.1
"""Where there are more of them than a tenth of the rows, they hold content and are no prompt."""


@dataclass(frozen=True, slots=True)
class Training:
    """Where the tuned model comes from.

    Args:
        run: Id of the run.
        fingerprint: Of everything that determined what it learned.
        rows: What it was trained on, validation rows included, where that is not what the job
            says now.
        effort: What went into it, in words.
        curve: Its losses, when there are events of them.
        notes: What a reader of the verdict must know about it.
    """

    run: str
    fingerprint: str
    rows: tuple[Dataset, ...]
    effort: str
    curve: Curve | None
    notes: tuple[str, ...]


def check_prompts(job: Job, trained: Iterable[Dataset], cases: Iterable[Example]) -> None:
    """Refuse cases whose system prompt the tuned model has never seen in training.

    Its own prompt is the one that it was trained with; another would judge another thing. Where
    nearly every row has a system prompt of its own, none of them is the model's, and any will do.

    Raises:
        Mismatch: There are such cases, and a tuned contender is asked with its own prompt.
    """
    if not any(isinstance(s, Tuned) and s.prompt == "own" for s in job.evaluate.contenders):
        return
    known = Counter(_system(row) for rows in trained for row in rows)
    strange = [case for case in cases if _system(case) not in known]
    fixed = 0 < len(known) <= max(1, MOST_SYSTEM_PROMPTS * known.total())
    if not strange or not fixed:
        return
    raise Mismatch(
        f"the tuned model was not trained with the system prompt of {len(strange)} test cases, "
        f"such as {clip(_system(strange[0]))}; most of its rows have "
        f"{clip(known.most_common(1)[0][0])}. Give the cases the prompt of training, or let the "
        "contender be asked otherwise: {type: tuned, prompt: baseline}."
    )


def _system(row: Example) -> str:
    turns = (turn.text for turn in row.prompt if turn.role in SYSTEM_ROLES)
    return " ".join(" ".join(turns).split())
