"""Texts as sets of pieces, which are runs of five letters: hashes, rarity and bitmaps of them.

Two texts are as similar as their sets of pieces (Jaccard: what both have, of all that either has).
Pieces are known by 48 bits of a hash. If two pieces of one text met in these, which happens to one
text of 60 pieces in some 10¹¹, a duplicate of it could be missed; none is ever made by it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Ints: TypeAlias = NDArray[np.int64]
Hashes: TypeAlias = NDArray[np.uint64]
Bitmaps: TypeAlias = NDArray[np.uint64]
Levels: TypeAlias = NDArray[np.uint8]

# As for short documents in Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, 3.2.2. Tried
# on banking77: of the near duplicates by 5 letters 96 % have the label of their double; words
# instead of letters find "change my name" beside "change my pin".
PIECE_LETTERS = 5

DIFFERENCE = 9  # two sets with 4 / 5 of their union in common differ in a ninth of their sizes' sum

# A piece is rare that no more texts have. Tried with 64 and 256 on 80,000 rows from a template.
RARE_TEXTS = 128

# The most that is looked up together: numpy takes some 60 bytes a letter
BATCH_TEXTS, BATCH_LETTERS = 1 << 10, 1 << 18

_RARITY_BITS, HASH_BITS = 6, 48  # beside 10 bits for a text of a batch
HASH = np.uint64(2**HASH_BITS - 1)
# Rarity is counted in levels, since its order alone matters: 63 of them reach to 2²¹ texts
_LEVELS_AN_OCTAVE = 3
_BUCKETS_BITS = range(8, 23)
_WORD_BITS, _FEWEST_WORDS, _MOST_WORDS = 64, 8, 256
FACTORS = np.random.default_rng().integers(2**63, size=PIECE_LETTERS, dtype=np.uint64) * 2 + 1


def pieces(text: str) -> frozenset[str]:
    """Return all runs of five letters of a text."""
    return frozenset(text[at : at + PIECE_LETTERS] for at in range(len(text) - PIECE_LETTERS + 1))


class HashedPieces(NamedTuple):
    """Pieces of some texts, text by text."""

    owners: Ints | NDArray[np.int16]
    hashes: Hashes


class PieceSets(NamedTuple):
    """The pieces of some texts, each once.

    Args:
        rarest: So many of the rare ones that near duplicates which have any in common have one
            of these: a fifth of all pieces, and one.
        frequent: Those that are not rare.
        sizes: How many pieces each text has.
        slack: The same less nine for each rare one. Two near duplicates without a common rare piece
            differ in at most a ninth of their slack in the frequent ones.
        bitmaps: Of each bit and text, whether an odd number of its pieces has it. (words, texts)
    """

    rarest: HashedPieces
    frequent: HashedPieces
    sizes: Ints
    slack: Ints
    bitmaps: Bitmaps


class PieceCounts:
    """How many of some texts have which piece.

    Args:
        texts: Those.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._words = _words_for(texts)
        letters = sum(map(len, texts))
        bits = min(max(letters.bit_length() + 1, _BUCKETS_BITS[0]), _BUCKETS_BITS[-1])
        counts = np.zeros(1 << bits, np.int64)
        self._shift = np.uint64(HASH_BITS - bits)
        for _, batch in batches(texts):
            np.add.at(counts, hashed_pieces(batch).hashes >> self._shift, 1)
        self._levels: Levels = np.minimum(_level(counts), 2**_RARITY_BITS - 1).astype(np.uint8)

    def sets(self, texts: Sequence[str]) -> PieceSets:
        """Return the pieces of some texts, which need not be the counted ones.

        Args:
            texts: No more than a batch.
        """
        owners, hashes = hashed_pieces(texts)
        levels = self._levels[hashes >> self._shift].astype(np.uint64)
        keys = owners.astype(np.uint64) << np.uint64(_RARITY_BITS) | levels
        keys = np.sort(keys << np.uint64(HASH_BITS) | hashes)
        keys = keys[np.append(True, keys[1:] != keys[:-1])[: len(keys)]]
        hashes, levels = keys & HASH, keys >> np.uint64(HASH_BITS)
        owners = (levels >> np.uint64(_RARITY_BITS)).astype(np.int64)
        rare = levels & np.uint64(2**_RARITY_BITS - 1) <= _level(np.array(RARE_TEXTS))
        sizes = np.bincount(owners, minlength=len(texts))
        rank = np.arange(len(owners)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        first = rare & (rank <= (sizes // 5)[owners])
        return PieceSets(
            HashedPieces(owners[first], hashes[first]),
            HashedPieces(owners[~rare].astype(np.int16), hashes[~rare]),
            sizes,
            sizes - DIFFERENCE * np.bincount(owners[rare], minlength=len(texts)),
            _bitmaps(owners, hashes, (len(texts), self._words)),
        )


def _level(counts: Ints) -> NDArray[np.float64]:
    return np.ceil(_LEVELS_AN_OCTAVE * np.log2(counts + 1))


def _bitmaps(owners: Ints, hashes: Hashes, shape: tuple[int, int]) -> Bitmaps:
    texts, words = shape
    bits = owners * (words * _WORD_BITS) + (hashes % np.uint64(words * _WORD_BITS)).astype(np.int64)
    odd = np.bincount(bits, minlength=texts * words * _WORD_BITS) & 1
    return np.packbits(odd.astype(np.bool_)).view(np.uint64).reshape(shape).T


def folded(bitmaps: Bitmaps) -> Bitmaps:
    """Return bitmaps of two words, in which no more bits differ; most pairs do so enough."""
    halves = bitmaps[::2], bitmaps[1::2]
    return np.stack([np.bitwise_xor.reduce(words, axis=0) for words in halves])


def _words_for(texts: Sequence[str]) -> int:
    """Return of how many words bitmaps are: about two bits a letter, for all but long texts."""
    letters = float(np.quantile([len(text) for text in texts], 0.95)) if texts else 0
    words = 1 << math.ceil(math.log2(max(2 * letters / _WORD_BITS, 1)))
    return min(max(words, _FEWEST_WORDS), _MOST_WORDS)


def hashed_pieces(texts: Sequence[str]) -> HashedPieces:
    """Return all runs of five letters of some texts, one as often as it stands there."""
    encoded = "".join(texts).encode("utf-32-le", "surrogatepass")
    letters = np.frombuffer(encoded, np.uint32).astype(np.uint64)
    owners = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
    windows = max(len(letters) - PIECE_LETTERS + 1, 0)
    hashes = np.zeros(windows, np.uint64)
    for at, factor in enumerate(FACTORS):
        hashes += letters[at : at + windows] * factor
    inside = owners[:windows] == owners[len(owners) - windows :]
    return HashedPieces(owners[:windows][inside], hashes[inside] >> np.uint64(64 - HASH_BITS))


def batches(texts: Sequence[str]) -> Iterator[tuple[int, Sequence[str]]]:
    """Yield texts that are looked up together, with the position of the first."""
    start = letters = 0
    for at, text in enumerate(texts):
        letters += len(text)
        if letters >= BATCH_LETTERS or at + 1 - start == BATCH_TEXTS:
            yield start, texts[start : at + 1]
            start, letters = at + 1, 0
    yield start, texts[start:]
