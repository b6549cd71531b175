"""What requests and answers of a job really measured: the tokens of its newest comparison."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from unitune.evaluate.inference.journal import read_record
from unitune.evaluate.records import Record
from unitune.evaluate.results import Comparison
from unitune.job.job import Job
from unitune.workspace.home import home


@dataclass(frozen=True, slots=True)
class MeanTokens:
    """Tokens of a request, on average over the test cases."""

    prompt: int
    answer: int
    """As the vendor counted them, hidden reasoning included."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The tokens of a comparison.

    Args:
        origin: Which comparison, for people.
        created: ISO date and time, UTC.
        candidate: Of the tuned model; None where the vendor told no numbers.
        baseline: Of the best prompt.
        others: Of every contender, by name.
        nearest_shots: Whether the best prompt shows each case rows of its own, so that no two
            prompts have more than the system prompt in common.
    """

    origin: str
    created: str
    candidate: MeanTokens | None
    baseline: MeanTokens | None
    others: dict[str, MeanTokens]
    nearest_shots: bool = False


def measured(job: Job) -> Measured | None:
    """Return what the newest comparison of a job measured; None where there is none here.

    Args:
        job: Only comparisons of its name, backend and base model count.
    """
    found = [one for folder in _folders(job) if (one := _read(folder, job)) is not None]
    return max(found, key=lambda one: one.created, default=None)


def _folders(job: Job) -> Iterator[Path]:
    yield home() / "evaluations" / job.name
    yield from (path.parent for path in home().glob("runs/*/evaluation/verdict.json"))


def _read(folder: Path, job: Job) -> Measured | None:
    """Return what a comparison measured; None where it is another job's, or not whole."""
    try:
        text = (folder / "verdict.json").read_text(encoding="utf-8")
        comparison = Comparison.model_validate_json(text)
        if (comparison.job, comparison.backend) != (job.name, job.backend):
            return None
        if comparison.base_model != job.base_model:
            return None
        with (folder / "rows.jsonl").open("rb") as lines:
            records = [read_record(line) for line in lines if line.endswith(b"\n")]
    except (OSError, ValidationError):
        return None
    means = _means(records)
    return Measured(
        origin=f"run {comparison.run}" if comparison.run else f"comparison of {comparison.job}",
        created=comparison.created,
        candidate=means.get(comparison.candidate),
        baseline=means.get(comparison.baseline),
        others=means,
        nearest_shots=_shows_nearest(comparison),
    )


def _shows_nearest(comparison: Comparison) -> bool:
    """Whether the best baseline chose shots of each case's own, by what it says of its effort."""
    efforts = (one.effort for one in comparison.contenders if one.name == comparison.baseline)
    return any("nearest" in effort.rpartition("chose ")[2] for effort in efforts)


def _means(records: Iterable[Record]) -> dict[str, MeanTokens]:
    """Return the mean tokens by contender; of several answers to one question the last counts."""
    last = {(one.contender, one.case, one.repeat): one for one in records}
    sums: dict[str, tuple[int, int, int]] = {}
    for one in last.values():
        if one.prompt_tokens is None or one.completion_tokens is None:
            continue
        n, prompt, answer = sums.get(one.contender, (0, 0, 0))
        sums[one.contender] = (n + 1, prompt + one.prompt_tokens, answer + one.completion_tokens)
    return {
        name: MeanTokens(_mean(prompt, n), _mean(answer, n))
        for name, (n, prompt, answer) in sums.items()
    }


def _mean(total: int, n: int) -> int:
    """Return the mean, to the nearest token."""
    return (2 * total + n) // (2 * n)
