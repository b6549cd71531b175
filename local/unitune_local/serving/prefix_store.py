"""Store keys and values of recent prompts for requests with the same beginning.

They are stored in blocks, each under a hash of all tokens up to its end. The least recently used
blocks are dropped; of one prompt, the last ones first, since a block needs those before it.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import takewhile

from unitune_local.inference.prefix_cache import KeysValues, PrefixCache

# Up to one block less one token of a shared beginning is computed again
BLOCK_TOKENS = 32

_Block = dict[int, KeysValues]  # by layer index (1, G, BLOCK_TOKENS, D)


class PrefixStore:
    """Keys and values of the beginnings of prompts, in at most `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        self.bytes = 0
        self._max_bytes = max_bytes
        self._blocks = OrderedDict[bytes, _Block]()  # the least recently used first

    def length(self, ids: Sequence[int]) -> int:
        """Return the number of stored tokens of a prompt's beginning."""
        return len(self._kept(ids)) * BLOCK_TOKENS

    def longest(self, ids: Sequence[int]) -> PrefixCache | None:
        """Return the cache of a prompt's beginning, as one row without its last token, if any."""
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
        """Store the whole blocks of a row."""
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
        for key in reversed(keys):  # the last block of a prompt goes before the first
            self._blocks.move_to_end(key)


def _keys(ids: Sequence[int]) -> Iterator[bytes]:
    hashed = hashlib.blake2b(digest_size=16)
    for end in range(BLOCK_TOKENS, len(ids) + 1, BLOCK_TOKENS):
        hashed.update(array("q", ids[end - BLOCK_TOKENS : end]).tobytes())
        yield hashed.digest()


def _copied(places: KeysValues, start: int) -> KeysValues:
    """Return a block of places that keeps nothing else in memory."""
    return places.changed(lambda part: part[:, :, start : start + BLOCK_TOKENS].clone())


def _size(block: _Block) -> int:
    return sum(places.keys.nbytes + places.values.nbytes for places in block.values())
