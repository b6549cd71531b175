"""What tuning cost beside the task: general questions that the base could answer.

`probes` are a fixed set of general questions with short answers (``probes.yaml``), put to the
untuned base and to the tuned model alike. `retained` says how many of those that the base got right
the tuned model still gets right.

It can show that a model has lost much of what it knew or answers nothing but its task any more,
which happens with high learning rates, many epochs and narrow data. The set is small, easy and
English: a loss of a few points is lost in the interval that is shown with it, and it says nothing
of safety, long texts, code or other languages. A tuned model that answers every question in its
task's form fails it, rightly, though a system prompt might bring it back. Since the base is
measured on what it was right about, by luck too, a model that is as good as the base shows a little
less than all of it. SmolLM2-135M-Instruct gets 49 of the 82 right, so even a small base has
something to lose. It is a warning light and no benchmark, and no verdict rests on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from statistics import fmean

import yaml

from unitune.data.example import Message
from unitune.evaluate.inference.engine import Question
from unitune.evaluate.records import Record
from unitune.evaluate.results import Retained
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
    """Return the probes as questions: greedy, without a system prompt."""
    asks = ((probe.id, f"{probe.ask} {MANNER}") for probe in probes())
    return [
        Question(
            name, Request(messages=(Message(role="user", content=text),), max_tokens=MOST_TOKENS)
        )
        for name, text in asks
    ]


def retained(
    base: Iterable[Record], tuned: Iterable[Record], usd: Decimal | None = None
) -> Retained:
    """Return what a tuned model still gets right of what its base did.

    Args:
        base: The untuned model's answers, by `Probe.id`; those in error leave their question out.
        tuned: The tuned model's.
        usd: Cost of the answers, in US dollars; None: no charge known.
    """
    before, after = _right(base), _right(tuned)
    both = [probe.id for probe in probes() if probe.id in before and probe.id in after]
    lost = tuple(name for name in both if before[name] and not after[name])
    base_right = sum(before[name] for name in both)
    kept = [1.0] * (base_right - len(lost)) + [0.0] * len(lost)
    return Retained(
        probes=len(both),
        base_right=base_right,
        lost=lost,
        gained=tuple(name for name in both if after[name] and not before[name]),
        share=fmean(kept) if kept else None,
        interval=own_score(kept).ends if kept else None,
        usd=usd,
    )


def _right(records: Iterable[Record]) -> Mapping[str, bool]:
    by_id = {probe.id: probe for probe in probes()}
    return {
        record.case: by_id[record.case].is_right(record.text)
        for record in records
        if record.error is None and record.case in by_id
    }
