"""Which training rows say what a case says: `Search`, four ways of looking; `leaks`, `refuse`.

    exact            the user turns are equal after normalisation (NFKC, case, white space,
                     invisible letters, letters that look like Latin ones)
    near-duplicate   of all pieces of five letters in the two, both have at least 80 %
    n-gram           at least half of the case's runs of 13 words stand in one training row
    quoted           a case of 6 to 12 words stands in a training row as a line of its own, or
                     outside user turns between sentence marks

The first two compare user turns with user turns. The last two search every turn of a row: system
prompts, results of tools and answers may quote a case, and one turn may quote several.

Questions are compared (`unitune.data.questions`) and not answers, since labels, canned replies and
JSON answers tend to be shared; whether the answers are equal is reported beside. Words of templates
are left out of the two inexact ways. Two questions that differ in a number and in their answers are
two questions.

The search is complete, not sampled: where MinHash would miss some, `unitune.data.near` finds every
pair over the threshold. Cases are kept, and training rows stream past them.

All kinds count alike for `evaluate.leaks`: a tuned model recalls a row that differs by a
letter as well as the row itself, and a refusal shows each double and how near it is, so that a
person can decide for `drop` or `allow`.

Left out: paraphrases, translations, encodings such as base64, look-alike letters of other scripts
than Cyrillic and Greek, cases of up to five words that are quoted, near duplicates in turns that
are not the user's, and cases that are spread over several rows. Scripts without spaces are held to
near duplicates more strictly, since five of their letters are several words, and have no runs of
words.
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
from unitune.errors import Leak
from unitune.security.spec import Closed
from unitune.workspace.progress import counted

Kind = Literal["exact", "near-duplicate", "n-gram", "quoted"]

# Words of an n-gram, as in GPT-3's contamination check (Brown et al. 2020, appendix C).
RUN_WORDS = 13

RUN_SHARE = 0.5  # share of a case's n-grams in one training row from which the case counts as seen

# Words of a case from which a quotation of it counts: shorter ones are said in many places
QUOTED_WORDS = 6

# Most that is held against the cases together, which is faster than one by one, and kept
WAITING_ROWS, WAITING_LETTERS = 1024, 1 << 18

SHOWN_CASES = 5

NAMES: dict[Kind, tuple[str, str]] = {
    "exact": ("exact", "exact"),
    "near-duplicate": ("near duplicate", "near duplicates"),
    "n-gram": ("by n-grams", "by n-grams"),
    "quoted": ("quoted", "quoted"),
}


class SharedCase(Closed):
    """A case whose question stands in the rows that a model or its prompt was made from."""

    case: str
    """`Example.case_id` of the case."""
    line: int
    """Of the case in its file."""
    kind: Kind
    similarity: float
    """exact, quoted: 1. near-duplicate: Jaccard similarity. n-gram: share of the n-grams."""
    train_file: str
    """Where its nearest double stands; of equally near ones the first with the same answer."""
    train_line: int
    same_answer: bool
    """Whether that double has the same answer too, after normalisation."""

    def __str__(self) -> str:
        """Where the double stands, and how near it is: ``train.csv:7, near-duplicate 0.86``."""
        nearness = "" if self.kind == "exact" else f", {self.kind}"
        nearness += "" if self.kind in ("exact", "quoted") else f" {self.similarity:.2f}"
        return f"{self.train_file}:{self.train_line}{nearness}"


class _Question(NamedTuple):
    """What one or several cases ask, by their positions, and its number of different runs."""

    runs: int
    cases: Sequence[int]


class _Waiting(NamedTuple):
    row: Row
    file: str
    turns: Turns


class _Double(NamedTuple):
    """What a row asks that a case asks; of several for one case the greatest rank is kept."""

    rank: tuple[bool, float, bool]
    shared: SharedCase


class _Match(NamedTuple):
    cases: Sequence[int]
    kind: Kind
    similarity: float


class Search:
    """Looks for cases in rows that stream past."""

    def __init__(self, cases: Sequence[Row]) -> None:
        from unitune.data.near import NearIndex  # noqa: PLC0415 - a file by itself needs no scipy

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
        """Compare one row with the cases, together with others or when `shared_cases` is called."""
        turns = question(row.example)
        self._waiting.append(_Waiting(row, file, turns))
        self._waiting_letters += sum(len(turn.text) for turn in row.example.messages)
        if len(self._waiting) == WAITING_ROWS or self._waiting_letters >= WAITING_LETTERS:
            self._compare()

    def shared_cases(self) -> tuple[SharedCase, ...]:
        """Return the cases that stand in the rows so far, in the order of the cases."""
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
        """Return the cases that one turn quotes, whole or in long runs.

        A user may well begin a message with what another one asks: a quotation is a line there.
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
    """Return the test cases that stand in any of several sets of rows.

    Args:
        seen: Every row that the model or its prompt was made from, held-out rows included.
        test: The cases.

    Returns:
        In the order of the cases, each with its nearest double.
    """
    some = [rows for rows in seen if len(rows)]
    if not some:
        return ()
    search = Search(test.rows)
    for rows in some:
        search.compare_rows(counted(rows.rows, "looking for leaks", len(rows)), rows.name)
    return search.shared_cases()


def refuse(shared: Sequence[SharedCase], test: Dataset) -> None:
    """Raise when test cases leak.

    Raises:
        Leak: There are any.
    """
    if not shared:
        return
    first = ", ".join(f"{test.name}:{leak.line} (as {leak})" for leak in shared[:SHOWN_CASES])
    more = ", …" if len(shared) > SHOWN_CASES else ""
    raise Leak(
        f"{len(shared)} of {len(test)} test cases stand in training or validation rows, "
        f"{by_kind(leak.kind for leak in shared)}: {first}{more}. Take them out of one of the "
        "files, or set evaluate.leaks to `drop` (they are left out and counted) or `allow` (they "
        "count, and the report says so). `unitune check` shows them all."
    )


def by_kind(kinds: Iterable[Kind]) -> str:
    """Return how many cases there are of each kind, in words: ``7 exact, 1 near duplicate``."""
    counts = Counter(kinds)
    return ", ".join(
        f"{counts[kind]:,} {names[counts[kind] > 1]}"
        for kind, names in NAMES.items()
        if counts[kind]
    )
