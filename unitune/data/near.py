"""Find all near duplicates among texts by an index that misses none.

Similarity is that of the texts' piece sets (`unitune.data.pieces`). Near duplicates share a key
(`indexed_keys`). A bitmap filter (Sandes, Teodoro and Melo, Information Systems 2020)
rules out most texts that share one, and the rest are compared piece by piece. If keys are too
frequent, the bitmaps of all texts of similar length are compared.

Pieces are ordered by rarity. Near duplicates that share a rare piece share one among the first n /
5 + 1 (prefix filtering: Bayardo, Ma and Srikant, WWW 2007); these pieces are keys. Otherwise they
differ in few frequent pieces. Those are dealt by hash into more parts than can differ, so one part
is equal (Arasu, Ganti and Kaushik, VLDB 2006); the parts are keys.

The number of parts depends on the text with more slack (`PieceSets.slack`). Each text is cut into
the number for its own slack and every larger one. Keys of its own number are marked, so two texts
meet only at the larger of their numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unitune.data.pieces import (
    BATCH_TEXTS,
    DIFFERENCE,
    FACTORS,
    HASH_BITS,
    HashedPieces,
    Hashes,
    Ints,
    PieceCounts,
    PieceSets,
    batches,
    folded,
    pieces,
)

# Numbers of parts; the greatest exceeds the need of two texts of 64 MiB
NUMBERS = np.array(sorted({2**step for step in range(25)} | {3 * 2**step for step in range(23)}))
_PART_BITS = 40  # plus the bits of a number of parts are 64
_OWN = np.uint64(1 << (HASH_BITS - 1))


def parts_needed(slack: Ints) -> Ints:
    """Return the number of parts for two texts with at most this slack."""
    return _rounded(np.maximum(2 * slack // DIFFERENCE, 0) + 1)


def _rounded(parts: Ints) -> Ints:
    return NUMBERS[np.searchsorted(NUMBERS, parts)]


def indexed_keys(sets: PieceSets, numbers: Sequence[int]) -> HashedPieces:
    """Return keys for the index, with part numbers ascending."""
    own = parts_needed(sets.slack)
    keys = [sets.rarest]
    for number in numbers:
        owners, hashes = _parts(sets, own <= number, number)
        keys.append(HashedPieces(owners, np.where(own[owners] == number, hashes | _OWN, hashes)))
    return _joined(keys)


def wanted_keys(sets: PieceSets, numbers: Sequence[int]) -> HashedPieces:
    """Return the keys to look near duplicates up by, with the index's part numbers."""
    own = np.maximum(parts_needed(sets.slack), numbers[0])
    keys = [sets.rarest]
    for number in numbers:
        owners, hashes = _parts(sets, own <= number, number)
        at_own = own[owners] == number
        keys.append(HashedPieces(owners, hashes | _OWN))
        keys.append(HashedPieces(owners[at_own], hashes[at_own]))
    return _joined(keys)


def _joined(keys: Sequence[HashedPieces]) -> HashedPieces:
    owners, hashes = zip(*keys, strict=True)
    return HashedPieces(np.concatenate(owners), np.concatenate(hashes))


def _parts(sets: PieceSets, some: NDArray[np.bool_], number: int) -> HashedPieces:
    """Return the parts of texts, each as the hash of its pieces with the first bit free."""
    enough = _rounded(5 * sets.sizes // (2 * DIFFERENCE) + 1)
    meets = (2 * sets.slack + DIFFERENCE * number > 0) & (sets.sizes > 0)
    texts = np.flatnonzero(some & meets & (enough >= number))
    place = np.full(len(sets.sizes), -1)
    place[texts] = np.arange(len(texts))
    inside = place[sets.frequent.owners] >= 0
    hashes = sets.frequent.hashes[inside]
    dealt = hashes * FACTORS[0] >> np.uint64(64 - _PART_BITS)
    part = (dealt * np.uint64(number) >> np.uint64(_PART_BITS)).astype(np.int64)
    sums = np.zeros(len(texts) * number, np.uint64)
    np.add.at(sums, place[sets.frequent.owners[inside]] * number + part, hashes * FACTORS[1])
    sums += np.tile(np.arange(number, number * 2, dtype=np.uint64) * FACTORS[2], len(texts))
    sums = sums * FACTORS[3] >> np.uint64(64 - HASH_BITS)
    return HashedPieces(np.repeat(texts, number), sums & ~_OWN)


# Jaccard similarity of near duplicates; customary in deduplication
NEAR_SIMILARITY = 0.8

MOST_HITS = 1 << 18  # shared keys examined together: some 30 MB

# A scan covers this many texts in the time of one hit; starting one takes as long as 4,000 more.
# Measured on banking77 and on questions of 25 words out of 25.
SCANNED_PER_HIT, SCAN_START = 25, 4000


class Double(NamedTuple):
    """Two near-duplicate texts, by position."""

    text: int
    indexed: int
    similarity: float


class NearIndex:
    """Index of texts that finds near duplicates of other texts."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts
        self._pieces = lru_cache(1024)(pieces)
        self._counts = PieceCounts(texts)
        every = [(start, self._counts.sets(batch)) for start, batch in batches(texts)]
        sizes = np.concatenate([sets.sizes for _, sets in every])
        slack = np.concatenate([sets.slack for _, sets in every])
        most = parts_needed(slack).max(initial=1)
        self._numbers: list[int] = NUMBERS[most >= NUMBERS].tolist()
        self._by_size = np.argsort(sizes, kind="stable")
        self._sizes = sizes[self._by_size]
        bitmaps = np.concatenate([sets.bitmaps for _, sets in every], axis=1)
        self._bitmaps = np.ascontiguousarray(bitmaps[:, self._by_size])
        self._folded = folded(self._bitmaps)
        place = np.argsort(self._by_size).astype(np.int32)
        self._owner_bits = max(len(texts), BATCH_TEXTS).bit_length()
        keys = list[Hashes]()
        while every:  # free finished sets: pieces take more memory than keys
            start, sets = every.pop()
            owners, hashes = indexed_keys(sets, self._numbers)
            keys.append(self._packed(place[start + owners], hashes))
        self._owners, hashes = self._unpacked(np.sort(np.concatenate(keys)))
        self._starts = np.flatnonzero(np.append(True, hashes[1:] != hashes[:-1])[: len(hashes)])
        self._known = hashes[self._starts]
        self._holders = np.diff(self._starts, append=len(hashes))

    def doubles(self, texts: Sequence[str]) -> Iterator[Double]:
        """Yield the indexed near duplicates of other texts, best called with many texts at once."""
        for start, batch in batches(texts):
            below = np.full(len(batch), len(self._texts))
            for text, places in sorted(self._candidates(self._counts.sets(batch), below)):
                for indexed in np.sort(self._by_size[places]).tolist():
                    similarity = self.similarity(batch[text], indexed)
                    if similarity >= NEAR_SIMILARITY:
                        yield Double(start + text, indexed, similarity)

    def similarity(self, text: str, indexed: int) -> float:
        """Return the Jaccard similarity of a text and an indexed one."""
        ours, theirs = self._pieces(text), self._pieces(self._texts[indexed])
        return len(ours & theirs) / max(len(ours | theirs), 1)

    def candidates_within(self) -> Iterator[tuple[int, Ints]]:
        """Yield each indexed text with its possible near duplicates among earlier ones, by size."""
        for start, batch in batches([self._texts[int(at)] for at in self._by_size]):
            own = start + np.arange(len(batch))
            for text, places in sorted(self._candidates(self._counts.sets(batch), own)):
                yield int(self._by_size[start + text]), self._by_size[places]

    def _candidates(self, sets: PieceSets, below: Ints) -> Iterator[tuple[int, Ints]]:
        """Yield texts with the places of possible near duplicates before `below`."""
        beyond = parts_needed(sets.slack) > self._numbers[-1]
        owners, at = self._looked_up(wanted_keys(sets, self._numbers))
        low = np.searchsorted(self._sizes, -(-4 * sets.sizes // 5))
        high = np.minimum(np.searchsorted(self._sizes, 5 * sets.sizes // 4, "right"), below)
        hits = np.bincount(owners, self._holders[at], minlength=len(low))
        scanned = beyond | (hits > (high - low + SCAN_START) / SCANNED_PER_HIT)
        by_keys = ~scanned[owners]
        yield from self._by_keys(sets, owners[by_keys], at[by_keys], below)
        for text in np.flatnonzero(scanned & (low < high)).tolist():
            yield text, self._scan(sets, text, slice(low[text], high[text]))

    def _packed(self, owners: NDArray[np.integer], hashes: Hashes) -> Hashes:
        """Pack hashes with their owners into 64 bits, cutting the hashes' last bits if needed."""
        cut = max(HASH_BITS + self._owner_bits - 64, 0)
        return hashes >> np.uint64(cut) << np.uint64(self._owner_bits) | owners.astype(np.uint64)

    def _unpacked(self, packed: Hashes) -> tuple[NDArray[np.int32], Hashes]:
        owners = (packed & np.uint64((1 << self._owner_bits) - 1)).astype(np.int32)
        return owners, packed >> np.uint64(self._owner_bits)

    def _looked_up(self, keys: HashedPieces) -> tuple[Ints, Ints]:
        """Return the owners, ascending, and index numbers of the keys that the index has."""
        if not len(self._known):
            return np.empty(0, np.int64), np.empty(0, np.int64)
        # Sorted, so that neighbouring keys are close in memory.
        owners, hashes = self._unpacked(np.sort(self._packed(*keys)))
        at = np.minimum(np.searchsorted(self._known, hashes), len(self._known) - 1)
        known = self._known[at] == hashes
        owners, at = owners[known].astype(np.int64), at[known]
        order = np.argsort(owners, kind="stable")
        return owners[order], at[order]

    def _scan(self, sets: PieceSets, text: int, places: slice) -> Ints:
        """Return the places whose texts differ from a text in few bits."""
        most = (sets.sizes[text] + self._sizes[places]) // DIFFERENCE
        bits = sets.bitmaps[:, [text]]
        first, last = np.bitwise_count(self._folded[:, places] ^ folded(bits))
        left = np.flatnonzero(first + last <= most[-1:])  # longer texts may differ more
        differ = np.bitwise_count(self._bitmaps[:, places.start + left] ^ bits)
        return places.start + left[differ.sum(axis=0, dtype=np.int64) <= most[left]]

    def _by_keys(
        self, sets: PieceSets, owners: Ints, at: Ints, below: Ints
    ) -> Iterator[tuple[int, Ints]]:
        """Yield texts with the places of texts that share a key and differ in few bits."""
        holders = self._holders[at]
        hits = np.cumsum(np.bincount(owners, holders, minlength=len(below)))
        part = hits.astype(np.int64)[owners] // MOST_HITS  # a text's hits stay together
        for number in np.unique(part):
            some = slice(*np.searchsorted(part, [number, number + 1]))
            held = holders[some]
            offset = np.repeat(self._starts[at[some]] - np.cumsum(held) + held, held)
            places = self._owners[np.arange(len(offset)) + offset].astype(np.int64)
            yield from self._alike(sets, np.repeat(owners[some], held), places, below)

    def _alike(
        self, sets: PieceSets, texts: Ints, places: Ints, below: Ints
    ) -> Iterator[tuple[int, Ints]]:
        """Yield the pairs that bits do not rule out, text by text."""
        inside = places < below[texts]
        texts, places = texts[inside], places[inside]
        for ours, theirs in ((folded(sets.bitmaps), self._folded), (sets.bitmaps, self._bitmaps)):
            differ = np.bitwise_count(ours[:, texts] ^ theirs[:, places]).sum(axis=0, dtype=int)
            fit = differ <= (sets.sizes[texts] + self._sizes[places]) // DIFFERENCE
            texts, places = texts[fit], places[fit]
        pairs = np.unique(texts * len(self._texts) + places)
        texts, places = pairs // len(self._texts), pairs % len(self._texts)
        different, first = np.unique(texts, return_index=True)
        yield from zip(different.tolist(), np.split(places, first)[1:], strict=True)
