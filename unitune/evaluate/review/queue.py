"""Review a comparison's answers blind: the draw of cases, and the queue of a reviewer.

A pair of answers is compared. With a judge that has a rubric of pass and fail, each answer is
reviewed by itself instead, clause by clause.

Cases are drawn at random once for each comparison. The draw is stored next to it, so that all
reviewers see the same cases and no one can choose them. Of every 20 cases one is shown again, a
pair with exchanged sides. This measures the reviewer; nothing shows which case it is.

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
    ClauseVerdict,
    Label,
    Round,
    answers_digest,
    append_label,
    labels_of_cases,
    mean_verdict,
    mend_labels,
    read_all_labels,
    verdict_of,
)
from unitune.documents import Closed
from unitune.errors import UserError
from unitune.evaluate.documents.history import VERDICT, checked_note
from unitune.evaluate.documents.records import CaseJudgement, CaseResult
from unitune.evaluate.documents.results import Comparison
from unitune.evaluate.statistics.judgements import sign
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
    contender: str = ""
    """Contender whose answer is reviewed by the rubric; empty for a pair."""


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
        self.has_rubric = any(case.clauses for case in comparison.cases)
        self.contenders = self.sides if self.has_rubric else ("",)
        self.answers = {
            contender: {
                case.id: answers_digest(*(case.answers[name] for name in self.shown(contender)))
                for case in comparison.cases
            }
            for contender in self.contenders
        }
        self.draw = _draw(comparison, self.cases)
        with locked(file, str(file), WAIT_SECONDS):
            mend_labels(file)
        self.look()

    def shown(self, contender: str) -> tuple[str, ...]:
        """Return the contenders whose answers an item shows."""
        return (contender,) if contender else self.sides

    def look(self) -> Look:
        """Read the labels file. Raises DataError."""
        every = read_all_labels(self.file) if self.file.stat().st_size else []
        labels: dict[Item, list[Label]] = {}
        for contender in self.contenders:
            own = [label for label in every if label.is_about(*self.shown(contender))]
            found = labels_of_cases(own, self.answers[contender], str(self.file))
            for id_, case in self.cases.items():
                sizes = 0, len(case.clauses)
                if whole := [each for each in found.get(id_, ()) if len(each.clauses) in sizes]:
                    labels[Item(id_, "first", contender)] = whole
        return Look(self, labels)

    def candidate_is_left(self, item: Item) -> bool:
        """Return whether the candidate's answer is left, or first: a hash of case and reviewer."""
        left = int(digest([item.case, self.reviewer])[:8], 16) % 2 == 0
        return left is not (item.round == "repeat")

    def write(self, item: Item, choice: Choice | tuple[ClauseVerdict, ...], note: str = "") -> None:
        """Append a verdict to the labels file.

        Raises:
            UserError: The note is too long, or the file is a symbolic link.
            LockTimeout: Another process is writing.
        """
        clauses = choice if isinstance(choice, tuple) else ()
        verdict = verdict_of(choice) if isinstance(choice, tuple) else choice
        if verdict in ("left", "right"):
            is_win = (verdict == "left") is self.candidate_is_left(item)
            verdict = "win" if is_win else "loss"
        candidate, baseline = (*self.shown(item.contender), None)[:2]
        label = Label(
            case=item.case,
            reviewer=self.reviewer,
            verdict=verdict,
            clauses=clauses,
            note=checked_note(item.case, note),
            candidate=candidate,
            baseline=baseline,
            answers=self.answers[item.contender][item.case],
            round=item.round,
            created=datetime.now(UTC),
        )
        with locked(self.file, str(self.file), WAIT_SECONDS):
            append_label(self.file, label)

    def judgements(self, case: CaseResult) -> dict[str, CaseJudgement]:
        """Return the first judge's judgements of a case by contender."""
        own = [each for each in case.judgements if each.judge == case.judgements[0].judge]
        return {each.contender: each for each in own if not each.repeat}

    def judged(self, case: CaseResult) -> Judged | None:
        """Return the first judge's view of the two answers; None without one."""
        made = self.judgements(case)
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
    labels: dict[Item, list[Label]]  # of all reviewers and rounds, by the item's first round

    @cached_property
    def own(self) -> dict[Item, Label]:
        """This reviewer's labels by item."""
        return {
            item._replace(round=label.round): label
            for item, labels in self.labels.items()
            for label in labels
            if label.reviewer == self.review.reviewer
        }

    @cached_property
    def first(self) -> dict[Item, list[Label]]:
        """First verdicts of all reviewers by item."""
        return {
            item: first
            for item, labels in self.labels.items()
            if (first := [label for label in labels if label.round == "first"])
        }

    @cached_property
    def people(self) -> dict[str, float]:
        """Mean of the reviewers' first verdicts by case, without those who could not tell.

        With a rubric, it is the candidate's mean minus the baseline's.
        """
        values: dict[str, list[float | None]] = {}
        for contender in self.review.contenders:
            for case in self.review.cases:
                labels = self.first.get(Item(case, "first", contender), ())
                values.setdefault(case, []).append(mean_verdict(labels))
        return {
            case: means[0] - sum(means[1:])
            for case, found in values.items()
            if len(means := [mean for mean in found if mean is not None]) == len(found)
        }

    @cached_property
    def judged(self) -> dict[str, Judged]:
        """The judge's view of each case."""
        made = {id_: self.review.judged(case) for id_, case in self.review.cases.items()}
        return {id_: each for id_, each in made.items() if each is not None}

    @cached_property
    def items(self) -> list[Item]:
        """The reviewer's queue: the drawn cases, and repeats of some."""
        draw, size = self.review.draw, self.size
        queue: list[tuple[float, Item]] = []
        for at, case in enumerate(draw.cases[:size]):
            of_case = [Item(case, "first", name) for name in self.review.contenders]
            order = of_case if self.review.candidate_is_left(of_case[0]) else of_case[::-1]
            queue += [(at + place / 4, item) for place, item in enumerate(order)]
        for block in range(0, size, REPEAT_EVERY):
            chance = random.Random(f"{draw.seed} {self.review.reviewer} {block}")  # noqa: S311
            at = block + chance.randrange(REPEAT_EVERY - SHORTEST_GAP)
            again = min(at + chance.randint(SHORTEST_GAP, LONGEST_GAP), size - 1)
            if again - at >= SHORTEST_GAP:
                contender = chance.choice(self.review.contenders)
                queue.append((again + 0.5, Item(draw.cases[at], "repeat", contender)))
        return [item for _, item in sorted(queue)]

    @cached_property
    def disagreements(self) -> list[Item]:
        """The reviewer's items on which the judge has another verdict, for a second look."""
        return [
            Item(case, "second", contender)
            for case in self.review.draw.cases
            for contender in self.review.contenders
            if self._differs(Item(case, "first", contender))
        ]

    def _differs(self, item: Item) -> bool:
        """Return whether the reviewer's first verdict on an item, if any, is not the judge's."""
        if (label := self.own.get(item)) is None:
            return False
        if item.contender:
            judgement = self.review.judgements(self.review.cases[item.case]).get(item.contender)
            both = zip(label.clauses, judgement.verdicts if judgement else (), strict=False)
            return any("unsure" != own != verdict for own, verdict in both)
        known = item.case in self.judged and label.value is not None
        return known and label.value != sign(self.judged[item.case].value)

    @cached_property
    def size(self) -> int:
        """Number of cases to review: as wanted or, after the pilot, as many as the margin needs."""
        review = self.review
        if review.wanted is not None:
            return min(review.wanted, len(review.cases))
        pilot = review.draw.cases[:MIN_LABELS]
        first = (Item(case, "first", name) for case in pilot for name in review.contenders)
        if any(item not in self.own for item in first):
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
        """Return the choice by which the reviewer decided a pair; None if it is open."""
        label = self.own.get(item)
        if label is None or item.contender:
            return None
        if label.verdict in ("tie", "unsure"):
            return cast("Choice", label.verdict)
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
