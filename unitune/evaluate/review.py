"""Review a comparison's answers blind: the draw of cases, and the queue of a reviewer.

Cases are drawn at random once for each comparison. The draw is stored next to it, so that all
reviewers see the same cases and no one can choose them. Of every 20 cases one is shown again with
exchanged sides, which measures the reviewer; nothing shows which.

Every verdict is appended to the labels file at once. A changed verdict is appended again, and the
later one counts.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from secrets import token_hex
from statistics import median
from typing import Literal, NamedTuple, cast

from unitune.data.example import digest
from unitune.data.labels import (
    Label,
    Round,
    answers_digest,
    append_label,
    labels_of_cases,
    mean_verdict,
    mend_labels,
    read_all_labels,
)
from unitune.documents import Closed
from unitune.errors import UserError
from unitune.evaluate.history import LONGEST_NOTE, VERDICT
from unitune.evaluate.records import CaseResult
from unitune.evaluate.results import Comparison
from unitune.evaluate.statistics.labels import MIN_LABELS, labels_needed
from unitune.files.filesystem import content_of, replacing
from unitune.workspace.own_files import locked

DRAW = "review-draw.json"
WAIT_SECONDS = 2.0  # for another reviewer's verdict that is being written
REPEAT_EVERY = 20  # cases: 5 % are shown again
SHORTEST_GAP, LONGEST_GAP = 6, 18  # cases until one is shown again
LONGEST_PAUSE_SECONDS = 300.0  # a longer pause is not time spent on a case
LONGEST_NAME = 80  # characters
RECENT = 20  # verdicts that tell the time of the next ones

Choice = Literal["left", "right", "tie", "unsure"]


class Draw(Closed):
    """Random order of a comparison's cases."""

    schema_version: Literal[1] = 1
    seed: str
    """Seed of Python's `random.Random`, which shuffled the cases."""
    cases: tuple[str, ...]
    """Ids of all cases that both contenders have answered, in the drawn order."""
    created: str
    """ISO date and time in UTC."""


class Item(NamedTuple):
    """Case in a reviewer's queue."""

    case: str
    round: Round


class Progress(NamedTuple):
    """Number of decided items, of all, and the expected seconds for the others, if known."""

    done: int
    total: int
    seconds_left: float | None


class Judged(NamedTuple):
    """A judge's view of two answers.

    Its reasons are, for a pair, those with the candidate's answer first and second and, for a
    rubric, those for the candidate's answer and for the baseline's.
    """

    value: float  # above 0 if the candidate's answer is better, below if the baseline's is
    is_pair: bool
    reasons: tuple[str, ...]


def sign(value: float) -> int:
    """Return 1, 0 or -1, as the value of a verdict."""
    return (value > 0) - (value < 0)


class Review:
    """One reviewer's review of a comparison.

    Args:
        comparison: Finished comparison with its cases and folder.
        file: JSON Lines file that verdicts are appended to.
        reviewer: Name of the reviewer.
        cases: Number of cases to review; None for a pilot of 30, then as many as the margin needs.

    Raises:
        UserError: The file is not JSON Lines, the name is odd, or no case has two answers.
        DataError: The file has a line that is not a label.
    """

    def __init__(
        self, comparison: Comparison, file: Path, reviewer: str, cases: int | None = None
    ) -> None:
        self.comparison, self.file, self.reviewer, self.wanted = comparison, file, reviewer, cases
        self.sides = comparison.candidate, comparison.baseline
        answered = (
            case
            for case in comparison.cases
            if all(case.answers[name].error is None for name in self.sides)
        )
        self.cases = {case.id: case for case in answered}
        if file.suffix not in (".jsonl", ".ndjson"):
            raise UserError(f"{file}: verdicts are written as JSON Lines. Name a .jsonl file.")
        if not reviewer.isprintable() or len(reviewer) > LONGEST_NAME:
            raise UserError(
                f"the reviewer is {reviewer[:LONGEST_NAME]!r}. Use a name of at most "
                f"{LONGEST_NAME} printable characters."
            )
        if not self.cases:
            both = " and ".join(self.sides)
            raise UserError(f"there is nothing to review: no case has answers of both {both}.")
        self.answers = {
            case.id: answers_digest(*(case.answers[name] for name in self.sides))
            for case in comparison.cases
        }
        self.draw = _draw(comparison, self.cases)
        with locked(file, str(file), WAIT_SECONDS):
            mend_labels(file)
        self.look()

    def look(self) -> Look:
        """Read the labels file. Raises DataError."""
        every = read_all_labels(self.file) if self.file.stat().st_size else []
        found = labels_of_cases(every, self.answers, str(self.file))
        return Look(self, {case: found[case] for case in self.cases if case in found})

    def candidate_is_left(self, item: Item) -> bool:
        """Return the side of the candidate's answer: a hash of case and reviewer fixes it."""
        left = int(digest([item.case, self.reviewer])[:8], 16) % 2 == 0
        return left is not (item.round == "repeat")

    def write(self, item: Item, choice: Choice, note: str = "") -> None:
        """Append a verdict to the labels file.

        Raises:
            UserError: The note is too long, or the file is a symbolic link.
            LockTimeout: Another process is writing.
        """
        if len(note) > LONGEST_NOTE:
            raise UserError(f"the note has {len(note):,} characters; {LONGEST_NOTE:,} are allowed.")
        verdict = choice
        if verdict in ("left", "right"):
            is_win = (verdict == "left") is self.candidate_is_left(item)
            verdict = "win" if is_win else "loss"
        candidate, baseline = self.sides
        label = Label(
            case=item.case,
            reviewer=self.reviewer,
            verdict=verdict,
            note="\n".join(note.split("\r\n")).strip(),
            candidate=candidate,
            baseline=baseline,
            answers=self.answers[item.case],
            round=item.round,
            created=datetime.now(UTC),
        )
        with locked(self.file, str(self.file), WAIT_SECONDS):
            append_label(self.file, label)

    def judged(self, case: CaseResult) -> Judged | None:
        """Return the first judge's view of the two answers; None without one."""
        own = [each for each in case.judgements if each.judge == case.judgements[0].judge]
        made = {each.contender: each for each in own if not each.repeat}
        candidate, baseline = (made.get(name) for name in self.sides)
        if baseline is None or baseline.value is None:
            return None
        if candidate is None:
            return Judged(baseline.value, is_pair=True, reasons=baseline.reasons)
        if candidate.value is None:
            return None
        reasons = (" ".join(candidate.reasons), " ".join(baseline.reasons))
        return Judged(candidate.value - baseline.value, is_pair=False, reasons=reasons)


@dataclass
class Look:
    """Labels of a comparison at one moment, and what follows from them."""

    review: Review
    labels: dict[str, list[Label]]  # of all reviewers and rounds, by case

    @cached_property
    def own(self) -> dict[Item, Label]:
        """This reviewer's labels by item."""
        return {
            Item(label.case, label.round): label
            for labels in self.labels.values()
            for label in labels
            if label.reviewer == self.review.reviewer
        }

    @cached_property
    def first(self) -> dict[str, list[Label]]:
        """First verdicts of all reviewers by case."""
        return {
            case: first
            for case, labels in self.labels.items()
            if (first := [label for label in labels if label.round == "first"])
        }

    @cached_property
    def people(self) -> dict[str, float]:
        """Mean of the reviewers' first verdicts by case, without those who could not tell."""
        means = {case: mean_verdict(labels) for case, labels in self.first.items()}
        return {case: mean for case, mean in means.items() if mean is not None}

    @cached_property
    def judged(self) -> dict[str, Judged]:
        """The judge's view of each case."""
        made = {id_: self.review.judged(case) for id_, case in self.review.cases.items()}
        return {id_: each for id_, each in made.items() if each is not None}

    @cached_property
    def items(self) -> list[Item]:
        """The reviewer's queue: the drawn cases, and repeats of some."""
        draw, size = self.review.draw, self.size
        queue = [(float(at), Item(case, "first")) for at, case in enumerate(draw.cases[:size])]
        for block in range(0, size, REPEAT_EVERY):
            chance = random.Random(f"{draw.seed} {self.review.reviewer} {block}")  # noqa: S311
            at = block + chance.randrange(REPEAT_EVERY - SHORTEST_GAP)
            again = min(at + chance.randint(SHORTEST_GAP, LONGEST_GAP), size - 1)
            if again - at >= SHORTEST_GAP:
                queue.append((again + 0.5, Item(draw.cases[at], "repeat")))
        return [item for _, item in sorted(queue)]

    @cached_property
    def disagreements(self) -> list[Item]:
        """The reviewer's cases on which the judge has another verdict, for a second look."""
        own = {item.case: label.value for item, label in self.own.items() if item.round == "first"}
        return [
            Item(case, "second")
            for case in self.review.draw.cases
            if case in self.judged and own.get(case) not in (None, sign(self.judged[case].value))
        ]

    @cached_property
    def size(self) -> int:
        """Number of cases to review: as wanted or, after the pilot, as many as the margin needs."""
        review = self.review
        if review.wanted is not None:
            return min(review.wanted, len(review.cases))
        pilot = review.draw.cases[:MIN_LABELS]
        if any(Item(case, "first") not in self.own for case in pilot):
            return len(pilot)
        known = [case for case in pilot if case in self.people]
        if len(known) < 2:
            return len(review.cases)
        values = {
            case: self.judged[case].value if case in self.judged else 0.0 for case in review.cases
        }
        needed = labels_needed(
            [self.people[case] for case in known],
            [values[case] for case in known],
            [value for case, value in values.items() if case not in known],
            review.comparison.margin,
        )
        return needed or len(review.cases)

    def choice(self, item: Item) -> Choice | None:
        """Return the choice by which the reviewer decided an item; None if it is open."""
        label = self.own.get(item)
        if label is None or label.verdict in ("tie", "unsure"):
            return label and cast("Choice", label.verdict)
        is_left = (label.verdict == "win") is self.review.candidate_is_left(item)
        return "left" if is_left else "right"

    def progress(self, items: Sequence[Item]) -> Progress:
        """Return how far the reviewer is, with the time for the rest at the recent pace."""
        done = sum(item in self.own for item in items)
        times = sorted(label.created.timestamp() for label in self.own.values() if label.created)
        gaps = (later - sooner for sooner, later in pairwise(times))
        paces = [gap for gap in gaps if gap <= LONGEST_PAUSE_SECONDS][-RECENT:]
        return Progress(done, len(items), median(paces) * (len(items) - done) if paces else None)


def _draw(comparison: Comparison, cases: Iterable[str]) -> Draw:
    """Return the stored draw of a comparison, or make one."""
    assert comparison.folder is not None, "it is kept in one"
    path = comparison.folder / DRAW
    with locked(comparison.folder / VERDICT, str(path), WAIT_SECONDS):
        if path.exists():
            return Draw.model_validate_json(content_of(path))
        seed, order = token_hex(8), sorted(cases)
        random.Random(seed).shuffle(order)  # noqa: S311 - anyone can check the order by the seed
        now = datetime.now(UTC).isoformat(timespec="seconds")
        draw = Draw(seed=seed, cases=tuple(order), created=now)
        with replacing(path) as file:
            file.write(f"{draw.model_dump_json()}\n")
    return draw
