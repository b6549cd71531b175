"""Which texts are near duplicates of one another: an index that misses none.

Two texts are as similar as their sets of pieces (Jaccard: what both have, of all that either has).
Pieces are put in one order, the rarest first. A near duplicate of a text with n pieces lacks at
most n / 5 of them, so each of two has one of the other's first n / 5 + 1 among its own (prefix
filtering: Bayardo, Ma and Srikant, WWW 2007). Where those are frequent, as in rows from a template,
every text of about that length is a candidate. Most candidates are ruled out by some bits of each
text, in which no more can differ than pieces do (bitmap filter: Sandes, Teodoro and Melo,
Information Systems 2020); the few that are left are compared piece by piece.

Pieces are known by 48 bits of a hash. If two pieces of one text met in these, which happens to one
text of 60 pieces in some 10¹¹, a duplicate of it could be missed; none is ever made by it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Ints: TypeAlias = NDArray[np.int64]
Hashes: TypeAlias = NDArray[np.uint64]
Bitmaps: TypeAlias = NDArray[np.uint64]

PIECE_LETTERS = 5
"""As for short documents in Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, 3.2.2.

Tried on banking77: of the near duplicates by 5 letters 96 % have the label of their double;
words instead of letters find "change my name" beside "change my pin".
"""

NEAR_SIMILARITY = 0.8
"""Jaccard similarity from which two texts are near duplicates; customary in deduplication."""

BATCH_TEXTS, BATCH_LETTERS = 1 << 10, 1 << 18
"""The most that is looked up together: numpy takes some 60 bytes a letter."""

MOST_HITS = 1 << 18
"""Rare pieces in common that are looked at together: some 60 MB."""

SCANNED_PER_HIT, SCAN_START = 25, 4000
"""A scan of all texts of a length passes so many of them in the time of one hit.

Measured on banking77 and on questions of 25 words out of 25. To begin takes as long as 4,000 more.
"""

_DIFFERENCE = 9
"""Two sets with 4 / 5 of their union in common differ in a ninth of their sizes' sum."""
_RARITY_BITS, HASH_BITS = 6, 48  # beside 10 bits for a text of a batch
_LEVELS_AN_OCTAVE = 3
"""Rarity is counted in levels, since its order alone matters: 63 of them reach to 2²¹ texts."""
_BUCKETS_BITS = range(8, 23)
_WORD_BITS, _FEWEST_WORDS, _MOST_WORDS = 64, 8, 256
_FIRST_WORDS = 2
"""Half of a bitmap is compared first, in which most pairs differ enough."""
_FACTORS = np.random.default_rng().integers(2**63, size=PIECE_LETTERS, dtype=np.uint64) * 2 + 1


class Double(NamedTuple):
    """Two texts that are near duplicates, by their positions."""

    text: int
    indexed: int
    similarity: float


class NearIndex:
    """Finds the near duplicates of texts among others.

    Args:
        texts: Those others; equal ones count each.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts
        self._pieces = lru_cache(1024)(pieces)
        self._rarity = _rarity(texts)
        self._words = _words_for(texts)
        batches = [(start, self._sets(batch)) for start, batch in _batches(texts)]
        sizes = np.concatenate([sets.sizes for _, sets in batches])
        self._by_size = np.argsort(sizes, kind="stable")
        self._sizes = sizes[self._by_size]
        bitmaps = np.concatenate([sets.bitmaps for _, sets in batches], axis=1)
        self._bitmaps = np.ascontiguousarray(bitmaps[:, self._by_size])
        place = np.argsort(self._by_size)
        owners = np.concatenate([place[start + sets.owners] for start, sets in batches])
        hashes = np.concatenate([sets.hashes for _, sets in batches])
        order = np.argsort(hashes)
        self._owners, hashes = owners[order].astype(np.int32), hashes[order]
        self._starts = np.flatnonzero(np.append(True, hashes[1:] != hashes[:-1])[: len(hashes)])
        self._known = hashes[self._starts]
        self._holders = np.diff(self._starts, append=len(hashes))

    def doubles(self, texts: Sequence[str]) -> Iterator[Double]:
        """Yield the indexed texts that are near duplicates of some others, text by text.

        Args:
            texts: Those others; some thousand take hardly longer than one.
        """
        for text, candidates in self.candidates(texts):
            for indexed in candidates.tolist():
                similarity = self.similarity(texts[text], indexed)
                if similarity >= NEAR_SIMILARITY:
                    yield Double(text, indexed, similarity)

    def similarity(self, text: str, indexed: int) -> float:
        """Return the Jaccard similarity of a text and an indexed one."""
        ours, theirs = self._pieces(text), self._pieces(self._texts[indexed])
        return len(ours & theirs) / max(len(ours | theirs), 1)

    def candidates(self, texts: Sequence[str]) -> Iterator[tuple[int, Ints]]:
        """Yield each text that may have near duplicates, with the positions of all of these.

        Args:
            texts: Those others.
        """
        for start, batch in _batches(texts):
            sets = self._sets(batch)
            below = np.full(len(batch), len(self._texts))
            for text, places in sorted(self._candidates(sets, below)):
                yield start + text, np.sort(self._by_size[places])

    def candidates_within(self) -> Iterator[tuple[int, Ints]]:
        """Yield each indexed text that may have near duplicates among those before it.

        Texts come by their sizes, and so do the positions of those that may be near duplicates.
        """
        for start, batch in _batches([self._texts[int(at)] for at in self._by_size]):
            own = start + np.arange(len(batch))
            for text, places in sorted(self._candidates(self._sets(batch), own)):
                yield int(self._by_size[start + text]), self._by_size[places]

    def _candidates(self, sets: _Sets, below: Ints) -> Iterator[tuple[int, Ints]]:
        """Yield texts with the places of those that may be near duplicates, among the first."""
        owners, at = self._looked_up(sets)
        low = np.searchsorted(self._sizes, -(-4 * sets.sizes // 5))
        high = np.minimum(np.searchsorted(self._sizes, 5 * sets.sizes // 4, "right"), below)
        hits = np.bincount(owners, self._holders[at], minlength=len(low))
        scanned = hits > (high - low + SCAN_START) / SCANNED_PER_HIT
        by_pieces = ~scanned[owners]
        yield from self._by_rare_pieces(sets, owners[by_pieces], at[by_pieces], below)
        for text in np.flatnonzero(scanned & (low < high)).tolist():
            yield text, self._scan(sets, text, slice(low[text], high[text]))

    def _looked_up(self, sets: _Sets) -> tuple[Ints, Ints]:
        """Return the rarest pieces that the index knows: whose each is, and its number there."""
        if not len(self._known):
            return np.empty(0, np.int64), np.empty(0, np.int64)
        at = np.minimum(np.searchsorted(self._known, sets.hashes), len(self._known) - 1)
        known = self._known[at] == sets.hashes
        return sets.owners[known], at[known]

    def _scan(self, sets: _Sets, text: int, places: slice) -> Ints:
        """Return which of some places hold a text that few bits tell from one."""
        bits, first = sets.bitmaps[:, text], self._words // _FIRST_WORDS
        sizes = sets.sizes[text] + self._sizes[places]
        differ = np.zeros(len(sizes), np.uint16)
        for theirs, ours in zip(self._bitmaps[:first, places], bits, strict=False):
            differ += np.bitwise_count(theirs ^ ours)
        left = np.flatnonzero(differ <= sizes[-1:] // _DIFFERENCE)  # the longest may differ most
        rest = self._bitmaps[first:, places.start + left] ^ bits[first:, np.newaxis]
        more = np.bitwise_count(rest).sum(axis=0, dtype=np.int64)
        fit = differ[left] + more <= sizes[left] // _DIFFERENCE
        return places.start + left[fit]

    def _by_rare_pieces(
        self, sets: _Sets, owners: Ints, at: Ints, below: Ints
    ) -> Iterator[tuple[int, Ints]]:
        """Yield texts with the places of those that have a rare piece of theirs, and most others.

        Args:
            sets: The texts.
            owners: Of the pieces that are looked up: whose each is, ascending.
            at: Their numbers in the index.
            below: For each text, the place before which others are looked for.
        """
        holders = self._holders[at]
        hits = np.cumsum(np.bincount(owners, holders, minlength=len(below)))
        part = hits.astype(np.int64)[owners] // MOST_HITS  # a text's hits stay together
        for number in np.unique(part):
            some = slice(*np.searchsorted(part, [number, number + 1]))
            texts, places = self._hits(owners[some], self._starts[at[some]], holders[some])
            yield from self._alike(sets, texts, places, below)

    def _hits(self, owners: Ints, starts: Ints, holders: Ints) -> tuple[Ints, Ints]:
        """Return for each piece and each that has it, too, the text and the place of that."""
        offset = np.repeat(starts - np.cumsum(holders) + holders, holders)
        places = self._owners[np.arange(len(offset)) + offset].astype(np.int64)
        return np.repeat(owners, holders), places

    def _alike(
        self, sets: _Sets, texts: Ints, places: Ints, below: Ints
    ) -> Iterator[tuple[int, Ints]]:
        """Yield of some pairs those that sizes and bits do not rule out, text by text."""
        ours, theirs = sets.sizes[texts], self._sizes[places]
        fit = (np.abs(ours - theirs) <= (ours + theirs) // _DIFFERENCE) & (places < below[texts])
        pairs = np.unique(texts[fit] * len(self._texts) + places[fit])
        texts, places = pairs // len(self._texts), pairs % len(self._texts)
        differ = np.bitwise_count(sets.bitmaps[:, texts] ^ self._bitmaps[:, places])
        most = (sets.sizes[texts] + self._sizes[places]) // _DIFFERENCE
        fit = differ.sum(axis=0, dtype=np.int64) <= most
        different, first = np.unique(texts[fit], return_index=True)
        yield from zip(different.tolist(), np.split(places[fit], first)[1:], strict=True)

    def _sets(self, texts: Sequence[str]) -> _Sets:
        return _sets(texts, self._rarity, self._words)


def pieces(text: str) -> frozenset[str]:
    """Return all runs of five letters of a text."""
    return frozenset(text[at : at + PIECE_LETTERS] for at in range(len(text) - PIECE_LETTERS + 1))


class _Sets(NamedTuple):
    """The pieces of some texts.

    Args:
        owners: The text of each of the rarest pieces, ascending.
        hashes: That piece.
        sizes: How many pieces each text has.
        bitmaps: Of each bit and text, whether an odd number of its pieces has it. (words, texts)
    """

    owners: Ints
    hashes: Hashes
    sizes: Ints
    bitmaps: Bitmaps


def _sets(texts: Sequence[str], rarity: NDArray[np.uint8], words: int) -> _Sets:
    owners, hashes = hashed_pieces(texts)
    levels = rarity[_buckets(hashes, rarity)].astype(np.uint64)
    keys = np.sort((owners << np.uint64(_RARITY_BITS) | levels) << np.uint64(HASH_BITS) | hashes)
    keys = keys[np.append(True, keys[1:] != keys[:-1])[: len(keys)]]
    hashes = keys & np.uint64(2**HASH_BITS - 1)
    owners = (keys >> np.uint64(_RARITY_BITS + HASH_BITS)).astype(np.int64)
    sizes = np.bincount(owners, minlength=len(texts))
    rank = np.arange(len(owners)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    rare = rank <= (sizes // 5)[owners]
    return _Sets(owners[rare], hashes[rare], sizes, _bitmaps(owners, hashes, (len(texts), words)))


def _bitmaps(owners: Ints, hashes: Hashes, shape: tuple[int, int]) -> Bitmaps:
    texts, words = shape
    bits = owners * (words * _WORD_BITS) + (hashes % np.uint64(words * _WORD_BITS)).astype(np.int64)
    odd = np.bincount(bits, minlength=texts * words * _WORD_BITS) & 1
    return np.packbits(odd.astype(np.bool_)).view(np.uint64).reshape(shape).T


def _words_for(texts: Sequence[str]) -> int:
    """Return of how many words bitmaps are: about two bits a letter, for all but long texts."""
    letters = float(np.quantile([len(text) for text in texts], 0.95)) if texts else 0
    words = 1 << math.ceil(math.log2(max(2 * letters / _WORD_BITS, 1)))
    return min(max(words, _FEWEST_WORDS), _MOST_WORDS)


def _rarity(texts: Sequence[str]) -> NDArray[np.uint8]:
    """Return by the bucket of a piece how many texts have it, in levels."""
    letters = sum(map(len, texts))
    bits = min(max(letters.bit_length() + 1, _BUCKETS_BITS[0]), _BUCKETS_BITS[-1])
    counts = np.zeros(1 << bits, np.int64)
    for _, batch in _batches(texts):
        np.add.at(counts, _buckets(hashed_pieces(batch).hashes, counts), 1)
    levels = np.ceil(_LEVELS_AN_OCTAVE * np.log2(counts + 1))
    return np.minimum(levels, 2**_RARITY_BITS - 1).astype(np.uint8)


def _buckets(hashes: Hashes, table: NDArray[np.int64] | NDArray[np.uint8]) -> Ints:
    """Return the place of each piece in a table of a power of two."""
    return (hashes >> np.uint64(HASH_BITS - len(table).bit_length() + 1)).astype(np.int64)


class HashedPieces(NamedTuple):
    """The pieces of some texts, text by text; one as often as it stands there."""

    owners: NDArray[np.uint64]
    hashes: Hashes


def hashed_pieces(texts: Sequence[str]) -> HashedPieces:
    """Return all runs of five letters of some texts; numpy takes 60 bytes a letter."""
    encoded = "".join(texts).encode("utf-32-le", "surrogatepass")
    letters = np.frombuffer(encoded, np.uint32).astype(np.uint64)
    owners = np.repeat(np.arange(len(texts), dtype=np.uint64), [len(text) for text in texts])
    windows = max(len(letters) - PIECE_LETTERS + 1, 0)
    hashes = np.zeros(windows, np.uint64)
    for at, factor in enumerate(_FACTORS):
        hashes += letters[at : at + windows] * factor
    inside = owners[:windows] == owners[len(owners) - windows :]
    return HashedPieces(owners[:windows][inside], hashes[inside] >> np.uint64(64 - HASH_BITS))


def _batches(texts: Sequence[str]) -> Iterator[tuple[int, Sequence[str]]]:
    """Yield texts that are looked up together, with the position of the first."""
    start = letters = 0
    for at, text in enumerate(texts):
        letters += len(text)
        if letters >= BATCH_LETTERS or at + 1 - start == BATCH_TEXTS:
            yield start, texts[start : at + 1]
            start, letters = at + 1, 0
    yield start, texts[start:]
