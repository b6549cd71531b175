"""Find rows with nearly the same question, and rows whose label is probably wrong.

A label is probably wrong if rows with similar words have another one. A naive Bayes classifier
scores each row by all other rows. By comparison with random labels, the list ends where fewer than
half of its rows are expected to be wrong.

Sources: Rennie, Shih, Teevan and Karger, Tackling the Poor Assumptions of Naive Bayes Text
Classifiers, ICML 2003 (multinomial model). Blanchard, Lee and Scott, Semi-Supervised Novelty
Detection, JMLR 11, 2010: the share of a known distribution in a mixture is at most the least ratio
of their tails.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from unitune.data.families import MOST_COMPARED, Groups
from unitune.data.near import NEAR_SIMILARITY, NearIndex
from unitune.data.pieces import HASH, HASH_BITS, hashed_pieces, pieces
from unitune.data.questions import Templates, normal, numbers_of, text_of
from unitune.data.report import MOST_ISSUES, QualityRow, RowIssue, RowIssues

# Shorter answers are the same only if equal; longer ones may be worded differently
MOST_LABEL_CHARACTERS = 60
# Similarity of two long answers from which both may be right. Two wordings of one answer share most
# of their pieces.
SAME_ANSWER = 0.5
SHOWN_COPIES = 3


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
            yield RowIssue(first, why, tuple(others[:SHOWN_COPIES]))


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


Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]

# Count of a piece that no row of a label has. 0.1 finds as many on banking77, 1 fewer.
UNSEEN = 0.01
FEWEST_ROWS = 3  # rows of a label needed to score one of them by the others
# If more rows are doubtful, labels do not depend on words, and nothing is reported
UNRELATED_SHARE = 0.5
HALF = 0.5  # minimum expected share of wrong rows in the list
# Minimum share of random labels above a score; beyond it, their tail is too thin to compare
FEWEST_REACHED = 0.1
TOGETHER = 1024
SHOWN_BESIDE = 2


class _Judged(NamedTuple):
    """Log-likelihood margins of the best other label, that label, and margins of random ones."""

    margins: Floats
    labels: Ints
    random: Floats


def label_errors(rows: Sequence[QualityRow]) -> RowIssues:
    """Return the rows whose words contradict their label, most doubtful first."""
    answers = {at: row.answer for at, row in enumerate(rows) if row.answer}
    spelled = {normal(answer): answer for answer in answers.values()}
    usable, names = list(answers), list(spelled.values())
    numbers = {name: number for number, name in enumerate(spelled)}
    labels = np.array([numbers[normal(answer)] for answer in answers.values()], np.int64)
    pieces = _pieces([rows[at] for at in usable])
    judged = _judged(pieces, labels, len(spelled))
    enough = np.bincount(labels)[labels] >= FEWEST_ROWS
    doubtful = np.flatnonzero((judged.margins > 0) & enough)
    if len(doubtful) > UNRELATED_SHARE * len(labels):
        doubtful = doubtful[:0]
    doubtful = doubtful[np.argsort(-judged.margins[doubtful], kind="stable")]
    end, wrong, likely = _end_of_list(judged.margins[doubtful], judged.random[enough])
    doubtful = doubtful[:end]
    beside = _nearest(pieces, labels, judged.labels, doubtful[:MOST_ISSUES])
    return RowIssues(
        "label-errors",
        "Labels that other rows contradict",
        f"About {wrong:.0f} of these {end:,} are expected to be wrong, most likely ones first. "
        "Compare each with its neighbours and correct wrong labels.",
        [
            RowIssue(
                usable[at],
                f"Rows with similar words have {names[judged.labels[at]]!r}.",
                tuple(usable[other] for other in beside.get(at, ())),
            )
            for at in map(int, doubtful)
        ],
        likely=round(likely),
    )


def _end_of_list(margins: Floats, random: Floats) -> tuple[int, float, float]:
    """Return the rows to list, and how many of these and of all are expected to be wrong."""
    if not len(margins):
        return 0, 0.0, 0.0
    listed = np.arange(1, len(margins) + 1)
    reached = 1 - np.searchsorted(np.sort(random), margins) / len(random)
    reached = np.maximum(reached, FEWEST_REACHED)
    known = reached > FEWEST_REACHED
    known[-1] |= not known.any()
    likely = float((listed / reached)[known].min())
    wrong = np.minimum(likely * reached, listed)
    end = int(np.flatnonzero(wrong >= HALF * listed).max(initial=-1)) + 1
    return end, float(wrong[end - 1]) if end else 0.0, likely


def _pieces(rows: Sequence[QualityRow]) -> Any:
    """Return a sparse matrix of rows and pieces, without pieces of a single row."""
    templates = Templates({row.question: row.answer for row in rows})
    texts = [text_of(templates.own_words(row.question)) for row in rows]
    keys = [_keys(texts[at : at + TOGETHER]) for at in range(0, len(texts), TOGETHER)]
    hashes = np.concatenate([some & HASH for some in keys])
    different, counts = np.unique(hashes, return_counts=True)
    shared = np.append(different[counts > 1], np.uint64(2**HASH_BITS))  # sentinel above all pieces
    columns: list[NDArray[np.int32]] = []
    sizes: list[Ints] = []
    for some in keys:
        column = np.searchsorted(shared, some & HASH)
        known = shared[column] == some & HASH
        columns.append(column[known].astype(np.int32))
        owners = (some[known] >> np.uint64(HASH_BITS)).astype(np.int64)
        sizes.append(np.bincount(owners, minlength=TOGETHER))
    ends = np.cumsum(np.concatenate(sizes)[: len(rows)])
    at = np.concatenate(columns)
    parts = np.ones(len(at), np.float32), at, np.append(0, ends).astype(np.int32)
    return sparse.csr_array(parts, shape=(len(rows), max(len(different), 1)))


def _keys(texts: Sequence[str]) -> NDArray[np.uint64]:
    owners, hashes = hashed_pieces(texts)
    return np.unique(owners.astype(np.uint64) << np.uint64(HASH_BITS) | hashes)


def _judged(pieces: Any, labels: Ints, count: int) -> _Judged:
    every = len(labels), pieces.shape[1]
    of_label = sparse.csr_array(
        (np.ones(every[0], np.float32), (labels, np.arange(every[0]))), shape=(count, every[0])
    )
    counts = sparse.csr_array(of_label @ pieces)
    totals = np.asarray(counts.sum(axis=1), np.float64)
    sizes = np.asarray(pieces.sum(axis=1), np.float64)
    weights = counts.copy()
    weights.data = np.log1p(counts.data / UNSEEN)
    unseen = np.log(UNSEEN / (totals + UNSEEN * every[1]))
    own = _own_likelihoods(pieces, labels, counts)
    margins, best = np.empty(every[0]), np.empty(every[0], np.int64)
    random = np.empty(every[0])
    others = (labels + np.random.default_rng(0).integers(1, count, every[0])) % count
    for start in range(0, every[0], TOGETHER):
        some = slice(start, start + TOGETHER)
        likely = (pieces[some] @ weights.T).toarray() + np.outer(sizes[some], unseen)
        each = np.arange(len(likely))
        likely[each, labels[some]] = -np.inf
        best[some] = likely.argmax(axis=1)
        margins[some] = likely.max(axis=1) - own[some]
        wrong = likely[each, others[some]]
        likely[each, others[some]] = -np.inf
        random[some] = np.maximum(likely.max(axis=1), own[some]) - wrong
    scale = np.sqrt(np.maximum(sizes, 1))  # standard deviation of a sum over the pieces
    return _Judged(margins / scale, best, random / scale)


def _own_likelihoods(pieces: Any, labels: Ints, counts: Any) -> Floats:
    every, different = pieces.shape
    counts.sort_indices()
    known: Ints = _rows_of(counts) * different + counts.indices
    seen = np.empty(every)
    for start in range(0, every, TOGETHER):
        some = pieces[start : start + TOGETHER]
        rows = _rows_of(some)
        wanted: Ints = labels[start + rows] * different + some.indices
        at = np.searchsorted(known, wanted)
        others = np.log1p((counts.data[at].astype(np.float64) - 1) / UNSEEN)
        seen[start : start + TOGETHER] = np.bincount(rows, others, minlength=some.shape[0])
    sizes, totals = pieces.sum(axis=1), np.asarray(counts.sum(axis=1), np.float64)
    return seen + sizes * np.log(UNSEEN / (totals[labels] - sizes + UNSEEN * different))


def _rows_of(matrix: Any) -> Ints:
    sizes: Ints = np.diff(matrix.indptr)
    return np.repeat(np.arange(len(sizes)), sizes)


def _nearest(pieces: Any, labels: Ints, others: Ints, rows: Ints) -> dict[int, list[int]]:
    """Return the rows of the other label that share the rarest pieces, for some rows."""
    frequency = np.maximum(pieces.sum(axis=0), 1)
    weighted = pieces.copy()
    weighted.data = np.log(len(labels) / frequency)[pieces.indices] ** 2
    norm = np.sqrt(np.maximum(weighted.sum(axis=1), 1e-9))
    nearest: dict[int, list[int]] = {}
    for label in np.unique(others[rows]):
        some, of_label = rows[others[rows] == label], np.flatnonzero(labels == label)
        shared = (weighted[some] @ pieces[of_label].T).toarray() / norm[of_label]
        first = np.argsort(-shared, axis=1, kind="stable")[:, :SHOWN_BESIDE]
        nearest |= dict(zip(some.tolist(), of_label[first].tolist(), strict=True))
    return nearest
