"""Find test cases whose question is also in the training rows (leaks), in four ways.

    exact            the user turns are equal after normalisation (NFKC, case, white space,
                     invisible and look-alike letters)
    near-duplicate   the Jaccard similarity of the texts' five-letter pieces is at least 0.8
    n-gram           at least half of the case's runs of 13 words are in one training row
    quoted           a case of 6 to 12 words is a line or, outside user turns, a clause of a row

The first two compare user turns; the last two search every turn of a row. Answers are not compared.
The search finds every pair above the threshold, but no paraphrases, translations or encodings such
as base64.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

from unitune.data.dataset import Dataset, Row
from unitune.data.questions import (
    Run,
    Templates,
    Turns,
    Words,
    answer_key,
    clauses_of,
    normal,
    numbers_of,
    question,
    text_of,
    word_runs,
    words_of,
)
from unitune.documents import Closed
from unitune.errors import Leak
from unitune.workspace.progress import counted

Kind = Literal["exact", "near-duplicate", "n-gram", "quoted"]

# Words per n-gram, as in GPT-3's contamination check (Brown et al. 2020, appendix C).
RUN_WORDS = 13

RUN_SHARE = 0.5  # a case is seen if this share of its n-grams is in one training row

# Minimum words of a quoted case; shorter phrases are common
QUOTED_WORDS = 6

# Most rows and letters compared together, which is faster than one by one
WAITING_ROWS, WAITING_LETTERS = 1024, 1 << 18

SHOWN_CASES = 5

NAMES: dict[Kind, tuple[str, str]] = {
    "exact": ("exact", "exact"),
    "near-duplicate": ("near duplicate", "near duplicates"),
    "n-gram": ("by n-grams", "by n-grams"),
    "quoted": ("quoted", "quoted"),
}


class SharedCase(Closed):
    """A test case whose question is also in the training or validation rows."""

    case: str
    """`Example.case_id` of the case."""
    line: int
    """Line of the case in its file."""
    kind: Kind
    similarity: float
    """1 if exact or quoted, the Jaccard similarity, or the share of n-grams."""
    train_file: str
    """File of the nearest duplicate; among equals, the first with the same answer."""
    train_line: int
    same_answer: bool
    """True if the duplicate also has the same answer after normalisation."""

    def __str__(self) -> str:
        """Return place and similarity of the duplicate: ``train.csv:7, near-duplicate 0.86``."""
        nearness = "" if self.kind == "exact" else f", {self.kind}"
        nearness += "" if self.kind in ("exact", "quoted") else f" {self.similarity:.2f}"
        return f"{self.train_file}:{self.train_line}{nearness}"


class _Question(NamedTuple):
    runs: int
    cases: Sequence[int]


class _Waiting(NamedTuple):
    row: Row
    file: str
    turns: Turns


class _Double(NamedTuple):
    """Match of a row and a case; the greatest rank per case is kept."""

    rank: tuple[bool, float, bool]
    shared: SharedCase


class _Match(NamedTuple):
    cases: Sequence[int]
    kind: Kind
    similarity: float


class Search:
    """Search for cases in a stream of rows."""

    def __init__(self, cases: Sequence[Row]) -> None:
        from unitune.data.near import NearIndex  # noqa: PLC0415 - a single file needs no scipy

        self._cases = cases
        self._doubles: dict[int, _Double] = {}
        self._waiting: list[_Waiting] = []
        self._waiting_letters = 0
        self._exact: defaultdict[Turns, list[int]] = defaultdict(list)
        answers: dict[Turns, tuple[str, ...]] = {}
        for at, row in enumerate(cases):
            turns = question(row.example)
            self._exact[turns].append(at)
            answers.setdefault(turns, answer_key(row.example))
        self._templates = Templates(answers)
        by_words: defaultdict[Words, list[int]] = defaultdict(list)
        whole: dict[Words, Words] = {}
        for turns, positions in self._exact.items():
            own = self._templates.own_words(turns)
            by_words[own] += positions
            whole |= {words_of(turns): own, own: own}
        self._questions: list[_Question] = []
        self._by_run: defaultdict[Run, list[int]] = defaultdict(list)
        for at, (words, positions) in enumerate(by_words.items()):
            runs = set(word_runs(words, RUN_WORDS))
            self._questions.append(_Question(len(runs), positions))
            for run in runs:
                self._by_run[run].append(at)
        self._short = {
            words: by_words[own]
            for words, own in whole.items()
            if QUOTED_WORDS <= len(words) < RUN_WORDS
        }
        self._matches_in = lru_cache(1024)(self._quoted)
        self._near = NearIndex([text_of(words) for words in by_words])

    def compare_rows(self, rows: Iterable[Row], file: str) -> None:
        """Compare rows with the cases."""
        for row in rows:
            self.compare_row(row, file)

    def compare_row(self, row: Row, file: str) -> None:
        """Queue a row for comparison. Rows are compared in batches."""
        turns = question(row.example)
        self._waiting.append(_Waiting(row, file, turns))
        self._waiting_letters += sum(len(turn.text) for turn in row.example.messages)
        if len(self._waiting) == WAITING_ROWS or self._waiting_letters >= WAITING_LETTERS:
            self._compare()

    def shared_cases(self) -> tuple[SharedCase, ...]:
        """Return the cases found in the rows until now, in case order."""
        self._compare()
        return tuple(self._doubles[at].shared for at in sorted(self._doubles))

    def _compare(self) -> None:
        waiting, self._waiting, self._waiting_letters = self._waiting, [], 0
        words = [self._templates.own_words(item.turns) for item in waiting]
        near: defaultdict[int, list[_Match]] = defaultdict(list)
        for double in self._near.doubles([text_of(own) for own in words]):
            cases = self._questions[double.indexed].cases
            near[double.text].append(_Match(cases, "near-duplicate", double.similarity))
        for at, item in enumerate(waiting):
            exact = self._exact.get(item.turns, ())
            quoted = self._by_runs(words[at])
            texts = {turn.text: turn.role == "user" for turn in item.row.example.messages}
            others = (match for text in texts.items() for match in self._matches_in(*text))
            for match in (_Match(exact, "exact", 1.0), *near.pop(at, ()), *quoted, *others):
                for case in match.cases:
                    self._note(item, case, match)

    def _note(self, item: _Waiting, at: int, match: _Match) -> None:
        row, case = item.row, self._cases[at]
        same = answer_key(case.example) == answer_key(row.example)
        numbers = numbers_of(question(case.example))
        if match.kind == "near-duplicate" and not same and numbers != numbers_of(item.turns):
            return
        rank = (match.kind == "exact", match.similarity, same)
        if at not in self._doubles or rank > self._doubles[at].rank:
            shared = SharedCase(
                case=case.example.case_id,
                line=case.line,
                kind=match.kind,
                similarity=match.similarity,
                train_file=item.file,
                train_line=row.line,
                same_answer=same,
            )
            self._doubles[at] = _Double(rank, shared)

    def _quoted(self, text: str, is_user: bool) -> tuple[_Match, ...]:  # noqa: FBT001 - cached
        """Return the cases that a turn quotes, whole or in long runs.

        In a user turn only a whole line counts as a quotation, because users often begin alike.
        """
        clauses = clauses_of(text, lines=is_user)
        words = self._templates.own_words((normal(text),))
        found = list(self._by_runs(words)) if len(words) >= RUN_WORDS else []
        for first, clause in enumerate(clauses if self._short else ()):
            joined = clause
            for following in (*clauses[first + 1 : first + RUN_WORDS], ()):
                if len(joined) >= RUN_WORDS:
                    break
                if joined in self._short:
                    found.append(_Match(self._short[joined], "quoted", 1.0))
                joined += following
        return tuple(found)

    def _by_runs(self, words: Words) -> Iterator[_Match]:
        known = self._by_run.keys() & word_runs(words, RUN_WORDS)
        for at, count in Counter(at for run in known for at in self._by_run[run]).items():
            share = count / self._questions[at].runs
            if share >= RUN_SHARE:
                yield _Match(self._questions[at].cases, "n-gram", share)


def leaks(seen: Iterable[Dataset], test: Dataset) -> tuple[SharedCase, ...]:
    """Return the test cases found in sets of rows, each with its nearest duplicate."""
    some = [rows for rows in seen if len(rows)]
    if not some:
        return ()
    search = Search(test.rows)
    for rows in some:
        search.compare_rows(counted(rows.rows, "looking for leaks", len(rows)), rows.name)
    return search.shared_cases()


def refuse(shared: Sequence[SharedCase], test: Dataset) -> None:
    """Raise `Leak` if a test case is in the training or validation rows."""
    if not shared:
        return
    first = ", ".join(f"{test.name}:{leak.line} (as {leak})" for leak in shared[:SHOWN_CASES])
    more = ", …" if len(shared) > SHOWN_CASES else ""
    raise Leak(
        f"{len(shared)} of {len(test)} test cases are in the training or validation rows, "
        f"{by_kind(leak.kind for leak in shared)}: {first}{more}. Remove them from one of the "
        "files, or set evaluate.leaks to `drop` (leave them out) or `allow` (keep them). "
        "`unitune check` lists all of them."
    )


def by_kind(kinds: Iterable[Kind]) -> str:
    """Return the number of cases of each kind in words: ``7 exact, 1 near duplicate``."""
    counts = Counter(kinds)
    return ", ".join(
        f"{counts[kind]:,} {names[counts[kind] > 1]}"
        for kind, names in NAMES.items()
        if counts[kind]
    )
