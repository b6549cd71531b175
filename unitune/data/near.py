"""Which texts are near duplicates of one another: an index that misses none.

Two texts are as similar as their sets of pieces (Jaccard: what both have, of all that either has).
A near duplicate of a text with n pieces lacks at most n / 5 of them. So of its rarest 2 n / 5 + 1
pieces it has more than half: texts that do are counted by a product of sparse matrices, and the few
that are left are compared piece by piece. (Prefix filtering with several matches: Chaudhuri, Ganti
and Kaushik, ICDE 2006; Wang, Li and Feng, SIGMOD 2012.)

Pieces are known by 52 bits of a hash. If two pieces of one text met in these, which happens to one
text in some 10¹², a duplicate of it could be missed; none is ever made by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Ints: TypeAlias = NDArray[np.int64]
Hashes: TypeAlias = NDArray[np.uint64]

PIECE_LETTERS = 5
"""As for short documents in Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, 3.2.2.

Tried on banking77: of the near duplicates by 5 letters 96 % have the label of their double;
words instead of letters find "change my name" beside "change my pin".
"""

NEAR_SIMILARITY = 0.8
"""Jaccard similarity from which two texts are near duplicates; customary in deduplication."""

BATCH_TEXTS, BATCH_LETTERS = 1 << 12, 1 << 18
"""The most that is looked up together: numpy takes some 60 bytes a letter."""

MOST_HITS = 1 << 21
"""Pieces that texts of one product share with indexed ones: some 30 MB."""

_HASH_BITS, _OWNER_BITS = np.uint64(52), np.uint64(12)
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
        batches = [(start, _hashed(batch)) for start, batch in _batches(texts)]
        owners = np.concatenate([start + hashed.owners for start, hashed in batches])
        hashes = np.concatenate([hashed.hashes for _, hashed in batches])
        self._known, columns, self._counts = np.unique(
            hashes, return_inverse=True, return_counts=True
        )
        self._holders = _incidence(columns, owners, (len(self._known), len(texts)))

    def doubles(self, texts: Sequence[str]) -> Iterator[Double]:
        """Yield the indexed texts that are near duplicates of some others, text by text.

        Args:
            texts: Those others; some thousand take hardly longer than one.
        """
        for start, batch in _batches(texts):
            for text, indexed in sorted(self._candidates(batch)):
                pieces, others = self._pieces(batch[text]), self._pieces(self._texts[indexed])
                similarity = len(pieces & others) / len(pieces | others)
                if similarity >= NEAR_SIMILARITY:
                    yield Double(start + text, indexed, similarity)

    def _candidates(self, texts: Sequence[str]) -> Iterator[tuple[int, int]]:
        """Yield which of some texts have most of their rarest pieces in which indexed ones."""
        if not len(self._known):
            return
        owners, hashes = _hashed(texts)
        columns = np.minimum(np.searchsorted(self._known, hashes), len(self._known) - 1)
        counts = np.where(self._known[columns] == hashes, self._counts[columns], 0)
        sizes = np.bincount(owners, minlength=len(texts))
        lacking = sizes // 5  # the most that a near duplicate has not
        rarest_first = np.argsort(owners * (len(self._texts) + 1) + counts)
        rank = np.arange(len(owners)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        chosen = rarest_first[rank <= 2 * lacking[owners]]
        chosen = chosen[counts[chosen] > 0]
        hits = np.bincount(owners[chosen], counts[chosen], minlength=len(texts))
        part = np.cumsum(hits) // MOST_HITS
        for number in np.unique(part[owners[chosen]]):
            some = chosen[part[owners[chosen]] == number]
            rare = _incidence(owners[some], columns[some], (len(texts), len(self._known)))
            shared = (rare @ self._holders).tocoo()
            enough = shared.data > lacking[shared.row]
            yield from zip(shared.row[enough].tolist(), shared.col[enough].tolist(), strict=True)


def pieces(text: str) -> frozenset[str]:
    """Return all runs of five letters of a text."""
    return frozenset(text[at : at + PIECE_LETTERS] for at in range(len(text) - PIECE_LETTERS + 1))


class _Hashed(NamedTuple):
    """The pieces of some texts, text by text, each once for each text."""

    owners: Ints
    hashes: Hashes


def _hashed(texts: Sequence[str]) -> _Hashed:
    encoded = "".join(texts).encode("utf-32-le", "surrogatepass")
    letters = np.frombuffer(encoded, np.uint32).astype(np.uint64)
    owners = np.repeat(np.arange(len(texts), dtype=np.uint64), [len(text) for text in texts])
    windows = max(len(letters) - PIECE_LETTERS + 1, 0)
    hashes = np.zeros(windows, np.uint64)
    for at, factor in enumerate(_FACTORS):
        hashes += letters[at : at + windows] * factor
    inside = owners[:windows] == owners[len(owners) - windows :]
    keys = np.sort(owners[:windows][inside] << _HASH_BITS | hashes[inside] >> _OWNER_BITS)
    keys = keys[np.append(True, keys[1:] != keys[:-1])[: len(keys)]]
    return _Hashed((keys >> _HASH_BITS).astype(np.int64), keys & np.uint64(2**52 - 1))


def _batches(texts: Sequence[str]) -> Iterator[tuple[int, Sequence[str]]]:
    """Yield texts that are looked up together, with the position of the first."""
    start = letters = 0
    for at, text in enumerate(texts):
        letters += len(text)
        if letters >= BATCH_LETTERS or at + 1 - start == BATCH_TEXTS:
            yield start, texts[start : at + 1]
            start, letters = at + 1, 0
    yield start, texts[start:]


def _incidence(rows: Ints, columns: Ints, shape: tuple[int, int]) -> Any:
    """Return a sparse matrix of ones."""
    return sparse.csr_array((np.ones(len(rows), np.int32), (rows, columns)), shape=shape)
