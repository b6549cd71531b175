"""What tuning cost beside the task: general questions that the base could answer.

`probes` are a fixed set of general questions with short answers (``probes.yaml``), put to the
untuned base and to the tuned model alike. `retained` says how many of those that the base got right
the tuned model still gets right.

What it can show: that a model has lost much of what it knew or has become unable to answer anything
but its task, which happens with high learning rates, many epochs and narrow data. What it cannot:
the set is small, easy and English, so a loss of a few points is lost in the interval that is told
with it; it says nothing of safety, long texts, code or other languages; a tuned model that answers
every question in its task's form fails it, rightly, though a system prompt might bring it back; and
since the base is measured on what it was right about, by luck too, a model that is as good as the
base shows a little less than all of it. SmolLM2-135M-Instruct gets 49 of the 82 right, so even a
small base has something to lose. It is a warning light and no benchmark, and no verdict
rests on it.

Not here: asking. `questions` are what `unitune.evaluate.inference.engine.ask` takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cache, partial
from pathlib import Path

import yaml

from unitune.data.example import Message
from unitune.evaluate.inference.engine import Question
from unitune.evaluate.results import Record
from unitune.evaluate.statistics.intervals import Interval
from unitune.evaluate.statistics.paired import own_score
from unitune.models import Request
from unitune.scorers.labels import find_label

FILE = Path(__file__).with_name("probes.yaml")
MANNER = "Answer in a few words."
"""Added to each question; without it small models write paragraphs that name much by chance."""
MOST_TOKENS = 48
"""Room for a short sentence; the answers are a word or two."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A general question."""

    id: str
    ask: str
    accept: tuple[str, ...]

    def is_right(self, answer: str) -> bool:
        """Whether an answer names what it should, as a whole word and in either case."""
        return find_label(answer, self.accept, take="first") is not None


@dataclass(frozen=True, slots=True)
class Retention:
    """What the tuned model still gets right of what the base did.

    Args:
        probes: Questions that both answered.
        base_right: Of these, what the base got right.
        lost: Ids of those that the tuned model no longer gets right.
        gained: Ids of those that it alone gets right.
        usd: What the answers have cost, in US dollars; None: no charge known.
    """

    probes: int
    base_right: int
    lost: tuple[str, ...]
    gained: tuple[str, ...]
    usd: Decimal | None = None

    @property
    def share(self) -> float | None:
        """Share of the base's right answers that are kept; None where it had none."""
        return (self.base_right - len(self.lost)) / self.base_right if self.base_right else None

    def interval(self, level: float = 0.95) -> Interval | None:
        """Return the interval of the share, Wilson's; None where the base had nothing right."""
        if not self.base_right:
            return None
        lost = len(self.lost)
        return own_score([1.0] * (self.base_right - lost) + [0.0] * lost, level=level)


@cache
def probes() -> tuple[Probe, ...]:
    """Return the fixed set of general questions."""
    themes: dict[str, list[dict[str, str | list[str]]]] = yaml.safe_load(
        FILE.read_text(encoding="utf-8")
    )
    return tuple(
        Probe(f"{theme}-{number}", str(row["ask"]), tuple(row["accept"]))
        for theme, rows in themes.items()
        for number, row in enumerate(rows, start=1)
    )


def questions() -> list[Question]:
    """Return the probes as questions."""
    return [Question(probe.id, partial(_request, probe)) for probe in probes()]


def _request(probe: Probe) -> Request:
    """Put a probe to a model: greedy, without a system prompt."""
    return Request(
        messages=(Message(role="user", content=f"{probe.ask} {MANNER}"),), max_tokens=MOST_TOKENS
    )


def retained(base: Iterable[Record], tuned: Iterable[Record]) -> Retention:
    """Return what a tuned model still gets right of what its base did.

    Args:
        base: The untuned model's answers, by `Probe.id`; those in error leave their question out.
        tuned: The tuned model's.
    """
    before, after = _right(base), _right(tuned)
    both = [probe.id for probe in probes() if probe.id in before and probe.id in after]
    return Retention(
        probes=len(both),
        base_right=sum(before[name] for name in both),
        lost=tuple(name for name in both if before[name] and not after[name]),
        gained=tuple(name for name in both if after[name] and not before[name]),
    )


def _right(records: Iterable[Record]) -> Mapping[str, bool]:
    by_id = {probe.id: probe for probe in probes()}
    return {
        record.case: by_id[record.case].is_right(record.text)
        for record in records
        if record.error is None and record.case in by_id
    }
