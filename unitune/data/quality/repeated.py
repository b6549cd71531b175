"""Find rows with nearly the same question: duplicates and contradictions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from unitune.data.families import MOST_COMPARED, Groups
from unitune.data.near import NEAR_SIMILARITY, NearIndex
from unitune.data.pieces import pieces
from unitune.data.quality.findings import QualityRow, RowIssue, RowIssues
from unitune.data.questions import Templates, normal, numbers_of, text_of

# Shorter answers are the same only if equal; longer ones may be worded differently
MOST_LABEL_CHARACTERS = 60
# Similarity of two long answers from which both may be right. Two wordings of one answer share most
# of their pieces.
SAME_ANSWER = 0.5
SHOWN_BESIDE = 3


class _Pair(NamedTuple):
    at: int
    other: int
    similarity: float
    same: bool


def repeated(rows: Sequence[QualityRow], *, labels: bool) -> tuple[RowIssues, RowIssues]:
    """Return families of duplicates, largest first, and rows that contradict others."""
    near = RowIssues(
        "near-duplicates",
        "Rows that are the same or nearly the same",
        "Keep one row of each family, or all if the variants are intended: each row counts.",
        list(_families(rows, pairs := list(_pairs(rows)))),
    )
    doubtful = sorted((pair for pair in pairs if not pair.same), key=lambda pair: -pair.similarity)
    contradictions = RowIssues(
        "contradictions",
        "Nearly the same question with different answers",
        "Decide which answer is right and use it for both, or remove one row."
        if labels
        else "Several answers may be right. If only one is, correct or remove the other.",
        [RowIssue(pair.at, _nearness(pair.similarity), (pair.other,)) for pair in doubtful],
    )
    return near, contradictions


def _nearness(similarity: float) -> str:
    if similarity == 1:
        return "The questions differ only in case, punctuation or template words."
    return f"{100 * similarity:.0f} % of the two questions are the same."


def _families(rows: Sequence[QualityRow], pairs: Sequence[_Pair]) -> Iterator[RowIssue]:
    groups = Groups(len(rows))
    for pair in pairs:
        groups.join(pair.at, pair.other)
    families: defaultdict[int, list[int]] = defaultdict(list)
    for at in {at for pair in pairs for at in (pair.at, pair.other)}:
        families[groups.head(at)].append(at)
    doubtful = {groups.head(pair.at) for pair in pairs if not pair.same}
    for first, members in sorted(families.items(), key=lambda each: (-len(each[1]), each[0])):
        if first not in doubtful:
            _, *others = sorted(members)
            why = f"{len(members):,} rows have nearly the same question and the same answer."
            yield RowIssue(first, why, tuple(others[:SHOWN_BESIDE]))


def _pairs(rows: Sequence[QualityRow]) -> Iterator[_Pair]:
    texts = _by_text(rows)
    for text in texts:
        for before, at in pairwise(text.rows):
            yield _Pair(at, before, 1.0, _same_answer(rows[before], rows[at]))
    index = NearIndex([text.words for text in texts])
    for text, candidates in index.candidates_within():
        yield from _pairs_of(rows, texts, index, text, list(map(int, candidates)))


def _pairs_of(
    rows: Sequence[QualityRow],
    texts: Sequence[_Text],
    index: NearIndex,
    text: int,
    candidates: Sequence[int],
) -> Iterator[_Pair]:
    """Yield a near duplicate of a text, and one that contradicts it if the first does not."""
    at, linked = texts[text].rows[0], False
    for count, candidate in enumerate(candidates):
        other = texts[candidate].rows[0]
        same = _same_answer(rows[at], rows[other])
        if linked and count >= MOST_COMPARED:
            return
        similarity = 0.0 if linked and same else index.similarity(texts[text].words, candidate)
        if similarity < NEAR_SIMILARITY:
            continue
        if same or numbers_of(rows[at].question) == numbers_of(rows[other].question):
            yield _Pair(at, other, similarity, same)
            linked = True
            if not same:
                return


class _Text(NamedTuple):
    words: str
    rows: list[int]


def _by_text(rows: Sequence[QualityRow]) -> list[_Text]:
    """Return the different questions with their rows; without own words, by the whole question."""
    templates = Templates({row.question: normal(row.answer or "") for row in rows})
    texts: defaultdict[str, list[int]] = defaultdict(list)
    for at, row in enumerate(rows):
        words = templates.own_words(row.question)
        texts[text_of(words or row.question)].append(at)
    return [_Text(words, positions) for words, positions in texts.items()]


def _same_answer(row: QualityRow, other: QualityRow) -> bool:
    ours, theirs = normal(row.answer or ""), normal(other.answer or "")
    if ours == theirs or min(len(ours), len(theirs)) <= MOST_LABEL_CHARACTERS:
        return ours == theirs
    both, either = pieces(ours) & pieces(theirs), pieces(ours) | pieces(theirs)
    return len(both) >= SAME_ANSWER * len(either)
