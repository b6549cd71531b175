"""Which texts are near duplicates of one another: an index that misses none, in numpy.

Two texts are as similar as their sets of pieces (Jaccard: what both have, of all that either has).
Sets of a and b pieces that are near duplicates differ in at most d = (a + b) / 9 pieces. Cut all
pieces that there are into k > d parts, by hash: one part at least is the same in both sets. So a
set is found by its parts; of the k that the index keeps, those d + 1 are looked up that the fewest
others share. (Arasu, Ganti and Kaushik, VLDB 2006; Deng, Li, Wen and Feng, VLDB 2015; Qin et al.,
ICDE 2018.) Unlike an index of rare pieces this needs none to be rare: texts of few words share all
their pieces, but hardly ever a whole part.

What is found is held against bitmaps (Sandes, Teodoro and Melo, Information Systems 2020), and the
few left against the pieces themselves. As d goes by the sizes, sets of like sizes share an index.

Pieces are known by 52 bits of a hash. If two pieces of one text met in these, which happens to one
text in some 10¹², a duplicate of it could be missed; none is ever made by it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Ints: TypeAlias = NDArray[np.int64]
Words: TypeAlias = NDArray[np.uint64]

PIECE_LETTERS = 5
"""As for short documents in Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, 3.2.2.

Tried on banking77: of the near duplicates found with 5 letters 96 % have the label of their double;
words instead of letters find "change my name" beside "change my pin".
"""

NEAR_SIMILARITY = 0.8
"""Jaccard similarity from which two texts are near duplicates; customary in deduplication."""

BATCH_TEXTS = 1024
"""Looked up together: numpy takes as long to begin as for some hundred numbers."""

BATCH_LETTERS = 1 << 18
"""Likewise: numpy takes some 60 bytes a letter."""

_LEAST, _WHOLE = 4, 5  # NEAR_SIMILARITY as a fraction, for whole numbers
_HASH_BITS = np.uint64(52)  # beside which 12 bits hold the position in a batch
_FACTORS = np.random.default_rng().integers(2**63, size=PIECE_LETTERS, dtype=np.uint64) * 2 + 1
_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # 2⁶⁴ over the golden ratio: odd, and even in its bits
_MOST_HITS = 1 << 20  # looked at together, some 30 MB
_SIZES = np.unique(np.ceil(1.25 ** np.arange(110)).astype(np.int64))  # where groups begin


class Double(NamedTuple):
    """Two texts that are near duplicates, by their positions."""

    text: int
    indexed: int
    similarity: float


class NearIndex:
    """Finds the near duplicates of texts among others.

    Args:
        texts: Those others; equal ones are found each.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts
        self._pieces = lru_cache(BATCH_TEXTS)(pieces)
        parts: defaultdict[int, list[_Described]] = defaultdict(list)
        for start, some in _batches(texts):
            sets = _Sets.of(some)
            for number in np.unique(_group_of(sets.sizes[sets.sizes > 0])):
                chosen = np.flatnonzero((_group_of(sets.sizes) == number) & (sets.sizes > 0))
                parts[int(number)].append(_described(sets, chosen, start, _Shape.of(int(number))))
        self._groups = [_Group.of(_Shape.of(number), one) for number, one in sorted(parts.items())]

    def doubles(self, texts: Sequence[str]) -> Iterator[Double]:
        """Yield the indexed texts that are near duplicates of some others, text by text.

        Args:
            texts: Those others; a few hundred take hardly longer than one.
        """
        for start, some in _batches(texts):
            sets = _Sets.of(some)
            pairs = {pair for group in self._groups for pair in group.candidates(sets)}
            for text, indexed in sorted(pairs):
                similarity = self._similarity(some[text], indexed)
                if similarity >= NEAR_SIMILARITY:
                    yield Double(start + text, indexed, similarity)

    def _similarity(self, text: str, indexed: int) -> float:
        one, other = self._pieces(text), self._pieces(self._texts[indexed])
        shared = len(one & other)
        return shared / (len(one) + len(other) - shared)


def _batches(texts: Sequence[str]) -> Iterator[tuple[int, Sequence[str]]]:
    """Yield texts that are looked at together, with the position of the first."""
    start = letters = 0
    for at, text in enumerate(texts):
        letters += len(text)
        if at + 1 - start == BATCH_TEXTS or letters >= BATCH_LETTERS or at + 1 == len(texts):
            yield start, texts[start : at + 1]
            start, letters = at + 1, 0


def pieces(text: str) -> frozenset[str]:
    """Return all runs of five letters of a text."""
    return frozenset(text[at : at + PIECE_LETTERS] for at in range(len(text) - PIECE_LETTERS + 1))


@dataclass(frozen=True, slots=True)
class _Sets:
    """The pieces of up to `BATCH_TEXTS` texts.

    Args:
        hashes: Of the pieces, text by text, each once for each text, ascending.
        sizes: How many pieces each text has.
    """

    hashes: Words
    sizes: Ints

    @classmethod
    def of(cls, texts: Sequence[str]) -> _Sets:
        encoded = "".join(texts).encode("utf-32-le", "surrogatepass")
        letters = np.frombuffer(encoded, np.uint32).astype(np.uint64)
        owners = np.repeat(np.arange(len(texts), dtype=np.uint64), [len(text) for text in texts])
        windows = max(len(letters) - PIECE_LETTERS + 1, 0)
        hashes = np.zeros(windows, np.uint64)
        for at, factor in enumerate(_FACTORS):
            hashes += letters[at : at + windows] * factor
        inside = owners[:windows] == owners[len(owners) - windows :]
        keys = owners[:windows] << _HASH_BITS | hashes >> np.uint64(64 - _HASH_BITS)
        found = np.sort(keys[inside])
        found = found[_first_of_its_kind(found)]
        sizes = np.bincount((found >> _HASH_BITS).astype(np.int64), minlength=len(texts))
        return cls(found & np.uint64(2**52 - 1), sizes)


@dataclass(frozen=True, slots=True)
class _Shape:
    """How the sets of a group are described.

    Args:
        least: Fewest pieces of a set.
        most: Most of them.
        parts: One more than a set and a near duplicate of it may differ in.
        words: Of 64 bits, in a bitmap.
    """

    least: int
    most: int
    parts: int
    words: int

    @classmethod
    def of(cls, group: int) -> _Shape:
        least, most = int(_SIZES[group]), int(_SIZES[group + 1]) - 1
        parts = int(_apart(np.array(most), np.array(most * _WHOLE // _LEAST))) + 1
        return cls(least, most, parts, 1 << max(most // 64, 1).bit_length() - 1)


class _Described(NamedTuple):
    """Sets as they are compared: N of them, in P parts, with bitmaps of W words."""

    members: Ints  # (N,)
    sizes: Ints  # (N,)
    keys: Words  # (N, P)
    bitmaps: Words  # (N, W)


def _described(sets: _Sets, chosen: Ints, start: int, shape: _Shape) -> _Described:
    """Describe some of the sets, the first of which has this position."""
    sizes, starts = sets.sizes[chosen], np.cumsum(sets.sizes) - sets.sizes
    owners = np.repeat(np.arange(len(chosen)), sizes)
    hashes = sets.hashes[_ranges(starts[chosen], sizes)]
    part = (hashes >> np.uint64(20)) * np.uint64(shape.parts) >> np.uint64(32)
    cells = owners * shape.parts + part.astype(np.int64)
    # Floats hold whole numbers of 53 bits, and numpy sums them faster.
    low = (hashes * _SPREAD >> np.uint64(24)).astype(np.float64)
    sums = np.bincount(cells, low, len(chosen) * shape.parts).reshape(-1, shape.parts)
    keys = sums.astype(np.uint64) + np.arange(shape.parts, dtype=np.uint64) * _SPREAD
    bits = hashes * _SPREAD >> np.uint64(12) & np.uint64(64 * shape.words - 1)
    bitmaps = np.zeros(len(chosen) * shape.words, np.uint64)
    words = owners * shape.words + (bits >> np.uint64(6)).astype(np.int64)
    np.bitwise_xor.at(bitmaps, words, np.uint64(1) << (bits & np.uint64(63)))
    return _Described(chosen + start, sizes, keys, bitmaps.reshape(len(chosen), shape.words))


@dataclass(frozen=True, slots=True)
class _Group:
    """Indexed sets of like sizes.

    Args:
        shape: How they are described.
        sets: Their descriptions.
        keys: All different keys of their parts, ascending.
        starts: Where in `holders` those begin that have a key; one more at the end.
        holders: Positions in `sets`, key by key.
    """

    shape: _Shape
    sets: _Described
    keys: Words
    starts: Ints
    holders: Ints

    @classmethod
    def of(cls, shape: _Shape, described: Sequence[_Described]) -> _Group:
        sets = _Described(*(np.concatenate(column) for column in zip(*described, strict=True)))
        order = np.argsort(sets.keys, axis=None)
        keys = sets.keys.ravel()[order]
        starts = np.flatnonzero(_first_of_its_kind(keys))
        return cls(shape, sets, keys[starts], np.append(starts, len(order)), order // shape.parts)

    def candidates(self, sets: _Sets) -> Iterator[tuple[int, int]]:
        """Yield which of some sets may be near duplicates of which indexed ones."""
        least, most = -(-sets.sizes * _LEAST // _WHOLE), sets.sizes * _WHOLE // _LEAST
        chosen = np.flatnonzero(
            (most >= self.shape.least) & (least <= self.shape.most) & (sets.sizes > 0)
        )
        if not len(chosen):
            return
        asked = _described(sets, chosen, 0, self.shape)
        apart = _apart(asked.sizes, np.minimum(most[chosen], self.shape.most))
        at = np.minimum(np.searchsorted(self.keys, asked.keys), len(self.keys) - 1)
        hits = np.where(self.keys[at] == asked.keys, self.starts[at + 1] - self.starts[at], 0)
        some = np.flatnonzero((hits == 0).sum(axis=1) <= apart)
        # Of each set's parts those that fewest share: any `apart` + 1 of them find all.
        order = np.argsort(hits[some], axis=1)
        picked = np.arange(self.shape.parts) <= apart[some, None]
        hits[some[:, None], order] *= picked
        for rows in _in_slices(some, hits[some].sum(axis=1)):
            yield from self._similar(asked, rows, at[rows], hits[rows])

    def _similar(
        self, asked: _Described, rows: Ints, at: Ints, hits: Ints
    ) -> Iterator[tuple[int, int]]:
        """Yield the pairs among the hits that sizes and bitmaps allow."""
        counts = hits.ravel()
        row = np.repeat(np.repeat(rows, hits.shape[1]), counts)
        holder = self.holders[_ranges(self.starts[at.ravel()], counts)]
        one, other = asked.sizes[row], self.sets.sizes[holder]
        differ = np.bitwise_count(asked.bitmaps[row] ^ self.sets.bitmaps[holder]).sum(axis=1)
        may_be = (differ <= _apart(one, other)) & _similar_sizes(one, other)
        members = self.sets.members[holder[may_be]]
        yield from zip(asked.members[row[may_be]].tolist(), members.tolist(), strict=True)


def _ranges(starts: Ints, counts: Ints) -> Ints:
    """Return the numbers from each start on, as many as are counted, one range after another."""
    before = np.cumsum(counts) - counts
    return np.repeat(starts - before, counts) + np.arange(int(counts.sum()))


def _first_of_its_kind(ascending: Words) -> NDArray[np.bool_]:
    first = np.ones(len(ascending), np.bool_)
    first[1:] = ascending[1:] != ascending[:-1]
    return first


def _apart(one: Ints, other: Ints) -> Ints:
    """Return in how many pieces two near duplicates with so many may differ."""
    return (one + other) * (_WHOLE - _LEAST) // (_WHOLE + _LEAST)


def _similar_sizes(one: Ints, other: Ints) -> NDArray[np.bool_]:
    return np.minimum(one, other) * _WHOLE >= np.maximum(one, other) * _LEAST


def _group_of(sizes: Ints) -> Ints:
    return np.searchsorted(_SIZES, sizes, "right") - 1


def _in_slices(rows: Ints, hits: Ints) -> Iterator[Ints]:
    """Yield rows in order, so many at a time that their hits fit into memory."""
    slices = np.cumsum(hits) // _MOST_HITS
    yield from np.split(rows, np.flatnonzero(np.diff(slices)) + 1)
