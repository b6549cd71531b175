"""Represent texts as sets of pieces (runs of five letters): hashes, rarity and bitmaps.

Similarity is the Jaccard index of two sets. A piece is known by a 48-bit hash; a collision, in one
of 10¹¹ texts, can hide a duplicate but never create one.
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

# As for short documents in Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, 3.2.2. On
# banking77, 96 % of the near duplicates by 5 letters share a label; by words, "change my name"
# would match "change my pin".
PIECE_LETTERS = 5

DIFFERENCE = 9  # sets that share 4/5 of their union differ in a ninth of their sizes' sum

# Pieces in at most this many texts are rare. Tried with 64 and 256 on 80,000 template rows.
RARE_TEXTS = 128

# Texts and letters processed together; numpy takes some 60 bytes per letter
BATCH_TEXTS, BATCH_LETTERS = 1 << 10, 1 << 18

_RARITY_BITS, HASH_BITS = 6, 48  # the other 10 bits number a text in a batch
HASH = np.uint64(2**HASH_BITS - 1)
# Rarity is kept in levels, because only its order matters: 63 of them reach 2²¹ texts
_LEVELS_AN_OCTAVE = 3
_BUCKETS_BITS = range(8, 23)
_WORD_BITS, _FEWEST_WORDS, _MOST_WORDS = 64, 8, 256
FACTORS = np.random.default_rng().integers(2**63, size=PIECE_LETTERS, dtype=np.uint64) * 2 + 1


def pieces(text: str) -> frozenset[str]:
    """Return all five-letter runs of a text."""
    return frozenset(text[at : at + PIECE_LETTERS] for at in range(len(text) - PIECE_LETTERS + 1))


class HashedPieces(NamedTuple):
    """Hashed pieces of some texts, text by text."""

    owners: Ints | NDArray[np.int16]
    hashes: Hashes


class PieceSets(NamedTuple):
    """Distinct pieces of some texts.

    Args:
        rarest: Rare pieces, up to a fifth of all pieces plus one. Near duplicates that share any
            rare piece share one of these.
        frequent: Pieces that are not rare.
        sizes: Number of pieces per text.
        slack: Sizes minus nine per rare piece. Near duplicates without a common rare piece differ
            in at most a ninth of their slack in frequent pieces.
        bitmaps: Parity of the pieces per bit and text. (words, texts)
    """

    rarest: HashedPieces
    frequent: HashedPieces
    sizes: Ints
    slack: Ints
    bitmaps: Bitmaps


class PieceCounts:
    """Number of texts that have each piece."""

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
        """Return the pieces of at most a batch of texts, counted or not."""
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
    """Return bitmaps folded to two words, which differ in no more bits than before."""
    halves = bitmaps[::2], bitmaps[1::2]
    return np.stack([np.bitwise_xor.reduce(words, axis=0) for words in halves])


def _words_for(texts: Sequence[str]) -> int:
    """Return the words per bitmap: about two bits a letter, except for long texts."""
    letters = float(np.quantile([len(text) for text in texts], 0.95)) if texts else 0
    words = 1 << math.ceil(math.log2(max(2 * letters / _WORD_BITS, 1)))
    return min(max(words, _FEWEST_WORDS), _MOST_WORDS)


def hashed_pieces(texts: Sequence[str]) -> HashedPieces:
    """Return all five-letter runs of some texts, with repeats."""
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
    """Yield batches of texts, each with the position of its first."""
    start = letters = 0
    for at, text in enumerate(texts):
        letters += len(text)
        if letters >= BATCH_LETTERS or at + 1 - start == BATCH_TEXTS:
            yield start, texts[start : at + 1]
            start, letters = at + 1, 0
    yield start, texts[start:]
