"""Compute keys such that any two near duplicates share at least one.

Pieces are ordered by rarity. Near duplicates that share a rare piece share one among the first n /
5 + 1 (prefix filtering: Bayardo, Ma and Srikant, WWW 2007); these pieces are keys. Otherwise they
differ in few frequent pieces. Those are dealt by hash into more parts than can differ, so one part
is equal (Arasu, Ganti and Kaushik, VLDB 2006); the parts are keys.

The number of parts depends on the text with more slack (`PieceSets.slack`). Each text is cut into
the number for its own slack and every larger one. Keys of its own number are marked, so two texts
meet only at the larger of their numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from unitune.data.pieces import (
    DIFFERENCE,
    FACTORS,
    HASH_BITS,
    HashedPieces,
    Ints,
    PieceSets,
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
