"""Bound bodies of answers, also when compressed: 99 KiB of gzip may hold 100 MiB.

`Body` never decompresses more than allowed. `GZIP_ONLY` requests the only supported compression;
answers in another are refused. Files written to disk as they arrive are not bounded here.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

# Bytes of an answer: 128,000 tokens, the longest that models give, are about 0.5 MiB
LARGEST_ANSWER = 16 << 20
# Bytes of a list or of a batch's results; OpenAI accepts 200 MB of requests in one batch
LARGEST_FILE = 1 << 30
# Ratio of decompressed to compressed bytes, beyond `LARGEST_ANSWER`: similar lines of JSON reach
# about 20, and gzip itself 1,032
MOST_RATIO = 100
PIECE = 1 << 20  # bytes decompressed at a time
GZIP_ONLY = {"Accept-Encoding": "gzip"}
_PLAIN = ("", "identity")
_GZIP = ("gzip", "x-gzip")
_GZIP_BITS = 31  # largest window, with gzip's header and trailer (zlib's manual, inflateInit2)


class BodyError(ValueError):
    """A body that is too long or cannot be decompressed."""


class Body:
    """A body that arrives in pieces.

    Args:
        encoding: The header Content-Encoding.
        most: Maximum size in bytes, decompressed.
    """

    def __init__(self, encoding: str | None, most: int = LARGEST_ANSWER) -> None:
        encoding = (encoding or "").strip().lower()
        if encoding not in (*_PLAIN, *_GZIP):
            raise BodyError(f"it is compressed as {encoding[:30]!r}, but only gzip was requested")
        self._is_compressed = encoding in _GZIP
        self._decompressor = zlib.decompressobj(_GZIP_BITS)
        self._ended = True
        self._most = most
        self._came = self._size = 0

    def decompressed(self, data: bytes) -> Iterator[bytes]:
        """Decompress the next piece into pieces of at most `PIECE` bytes, or raise `BodyError`."""
        self._came += len(data)
        if not self._is_compressed:
            yield self._counted(data)
            return
        while data:
            try:
                piece = self._decompressor.decompress(data, PIECE)
            except zlib.error as error:
                raise BodyError(f"its gzip is damaged: {error}") from error
            yield self._counted(piece)
            data = self._decompressor.unconsumed_tail
            self._ended = self._decompressor.eof
            if self._ended:
                data = self._decompressor.unused_data
                self._decompressor = zlib.decompressobj(_GZIP_BITS)

    def end(self) -> None:
        """Mark the end of the body; raise `BodyError` if it is incomplete."""
        if not self._ended:
            raise BodyError("its gzip ends in the middle")

    def _counted(self, piece: bytes) -> bytes:
        self._size += len(piece)
        if self._size > self._most:
            raise BodyError(f"it is longer than {self._most:,} bytes")
        if self._size > LARGEST_ANSWER and self._size > MOST_RATIO * self._came:
            raise BodyError(
                f"{self._came:,} bytes decompress to more than {MOST_RATIO} times as many"
            )
        return piece


def unpacked(pieces: Iterable[bytes], encoding: str | None, most: int) -> Iterator[bytes]:
    """Decompress a whole body of at most `most` bytes, or raise `BodyError`."""
    body = Body(encoding, most)
    for piece in pieces:
        yield from body.decompressed(piece)
    body.end()
