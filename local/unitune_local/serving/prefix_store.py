"""Keys and values of prompts that were read lately, for requests that begin alike.

They are kept in blocks of tokens. A block is found by a hash of all tokens up to its end, so that
what a thousand prompts begin with is kept once, and an entry can only be used after the very tokens
that it was computed after. Beyond a bound of memory the blocks that were used least lately go; of
one prompt the last ones first, since a block is of no use without those before it.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import takewhile

from unitune_local.inference.prefix_cache import KeysValues, PrefixCache

# Of a beginning that two prompts share, up to one block less one token is computed again
BLOCK_TOKENS = 32

_Block = dict[int, KeysValues]  # by layer index (1, G, BLOCK_TOKENS, D)


class PrefixStore:
    """Beginnings of prompts.

    Args:
        max_bytes: Most that all blocks together may take.
    """

    def __init__(self, max_bytes: int) -> None:
        self.bytes = 0
        self._max_bytes = max_bytes
        self._blocks = OrderedDict[bytes, _Block]()  # the one that was used least lately first

    def length(self, ids: Sequence[int]) -> int:
        """Return how many tokens of a prompt's beginning are kept."""
        return len(self._kept(ids)) * BLOCK_TOKENS

    def longest(self, ids: Sequence[int]) -> PrefixCache | None:
        """Return what is kept of a prompt's beginning, as one row; at least one token is left."""
        keys = self._kept(ids)
        if not keys:
            return None
        self._touch(keys)
        first, *others = [self._blocks[key] for key in keys]
        layers = {
            layer: places.followed_by(*(block[layer] for block in others))
            for layer, places in first.items()
        }
        return PrefixCache(used=len(keys) * BLOCK_TOKENS, layers=layers)

    def add(self, ids: Sequence[int], seen: PrefixCache) -> None:
        """Keep the whole blocks of a row."""
        keys = list(_keys(ids[: seen.used]))
        for place, key in enumerate(keys):
            if key not in self._blocks:
                start = place * BLOCK_TOKENS
                block = {layer: _copied(seen.seen(layer), start) for layer in seen.layers}
                self._blocks[key] = block
                self.bytes += _size(block)
        self._touch(keys)
        while self.bytes > self._max_bytes:
            _, block = self._blocks.popitem(last=False)
            self.bytes -= _size(block)

    def _kept(self, ids: Sequence[int]) -> list[bytes]:
        return list(takewhile(self._blocks.__contains__, _keys(ids[:-1])))

    def _touch(self, keys: Sequence[bytes]) -> None:
        for key in reversed(keys):  # so that the last block of a prompt goes before the first
            self._blocks.move_to_end(key)


def _keys(ids: Sequence[int]) -> Iterator[bytes]:
    """Yield the key of each whole block of tokens: a hash of all tokens up to its end."""
    hashed = hashlib.blake2b(digest_size=16)
    for end in range(BLOCK_TOKENS, len(ids) + 1, BLOCK_TOKENS):
        hashed.update(array("q", ids[end - BLOCK_TOKENS : end]).tobytes())
        yield hashed.digest()


def _copied(places: KeysValues, start: int) -> KeysValues:
    """Return a block of places that keeps nothing else in memory."""
    return places.changed(lambda part: part[:, :, start : start + BLOCK_TOKENS].clone())


def _size(block: _Block) -> int:
    return sum(places.keys.nbytes + places.values.nbytes for places in block.values())
