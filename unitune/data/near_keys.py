"""The keys by which near duplicates meet: of two of them, one key at least is the same.

Pieces stand in one order, the rarest first. Two near duplicates

    share a rare piece   The first that they share is among the first n / 5 + 1 of each, since none
                         lacks more (prefix filtering: Bayardo, Ma and Srikant, WWW 2007). Keys are
                         these pieces, as far as they are rare.
    share none           Then each rare piece of either is one that the other lacks, and they differ
                         in few others. Their frequent pieces are dealt into more parts than these
                         by their hashes, so that one part is the same in both (Arasu, Ganti and
                         Kaushik, VLDB 2006). Keys are the parts.

Rows from a template have few rare pieces, as of a number or a name, and hardly any two have the
same in any part: the keys of a text lead to some hundred others, however many rows there are.

How many parts two texts need hangs on the one with more slack (`PieceSets.slack`). Each text is cut
into as many as two of its own slack need, and into every larger number for others that need that;
keys of a text's own number are marked, so that two texts meet at the larger of their numbers alone.
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

# Numbers of parts. The greatest is more than two texts of 64 MiB can need.
NUMBERS = np.array(sorted({2**step for step in range(25)} | {3 * 2**step for step in range(23)}))
_PART_BITS = 40  # and as many as a number of parts has are 64
_OWN = np.uint64(1 << (HASH_BITS - 1))


def parts_needed(slack: Ints) -> Ints:
    """Return into how many parts two texts must be cut that have no more slack than this."""
    return _rounded(np.maximum(2 * slack // DIFFERENCE, 0) + 1)


def _rounded(parts: Ints) -> Ints:
    return NUMBERS[np.searchsorted(NUMBERS, parts)]


def indexed_keys(sets: PieceSets, numbers: Sequence[int]) -> HashedPieces:
    """Return the keys under which texts are kept.

    Args:
        sets: Their pieces.
        numbers: Of parts, ascending: all that an indexed text needs, and those between.
    """
    own = parts_needed(sets.slack)
    keys = [sets.rarest]
    for number in numbers:
        owners, hashes = _parts(sets, own <= number, number)
        keys.append(HashedPieces(owners, np.where(own[owners] == number, hashes | _OWN, hashes)))
    return _joined(keys)


def wanted_keys(sets: PieceSets, numbers: Sequence[int]) -> HashedPieces:
    """Return the keys under which near duplicates of texts are found.

    Args:
        sets: Their pieces. None needs more parts than the last number.
        numbers: As of the index.
    """
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
    """Return the parts of some texts, each as the hash of its pieces, with the first bit free.

    Left out are texts of which no near duplicate needs so many parts: since both together had no
    slack, or since it would be longer than five quarters of the text.
    """
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
