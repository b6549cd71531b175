"""Bodies of answers within bounds, however they are compressed: 99 KiB of gzip may hold 100 MiB.

`Body` takes a body as it comes and never decompresses more than it may hold. `hooks` and
`async_hooks` put it into the clients of httpx and of its successor httpx2, by which vendors' SDKs
speak:

    httpx.Client(event_hooks=hooks(), headers=GZIP_ONLY)

`GZIP_ONLY` asks for the one compression that is known here; an answer in another is refused.
Not here: files that are written to the disk as they come.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import cache
from typing import Any

LARGEST_ANSWER = 16 << 20
"""Bytes of an answer: 128,000 tokens, the longest that models give, are some 0.5 MiB, and 64
embeddings of 4,096 numbers 6 MiB."""
LARGEST_FILE = 1 << 30
"""Bytes of a list or of a batch's results; OpenAI takes 200 MB of requests in one batch."""
MOST_RATIO = 100
"""Of decompressed to compressed bytes, beyond `LARGEST_ANSWER`: lines of JSON that are much
alike come to some 20, and gzip itself to 1,032."""
PIECE = 1 << 20
"""Bytes that are decompressed at a time."""
GZIP_ONLY = {"Accept-Encoding": "gzip"}
_PLAIN = ("", "identity")
_GZIP = ("gzip", "x-gzip")
_GZIP_BITS = 31
"""Largest window, with gzip's own head and end (zlib's manual, inflateInit2)."""


class BodyError(ValueError):
    """A body that is longer than it may be, or that cannot be decompressed."""


class Body:
    """A body as it comes.

    Args:
        encoding: The header Content-Encoding.
        most: Bytes that it may have, decompressed.
    """

    def __init__(self, encoding: str | None, most: int = LARGEST_ANSWER) -> None:
        encoding = (encoding or "").strip().lower()
        if encoding not in (*_PLAIN, *_GZIP):
            raise BodyError(f"it is compressed as {encoding[:30]!r}, and only gzip was asked for")
        self._is_compressed = encoding in _GZIP
        self._decompressor = zlib.decompressobj(_GZIP_BITS)
        self._ended = True
        self._most = most
        self._came = self._size = 0

    def decompressed(self, data: bytes) -> Iterator[bytes]:
        """Yield what the next piece holds, in pieces of at most `PIECE` bytes.

        Raises:
            BodyError: The body is too long, or cannot be decompressed.
        """
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
        """Say that nothing more comes.

        Raises:
            BodyError: The end is missing.
        """
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


def hooks(most: int = LARGEST_ANSWER) -> dict[str, list[Callable[[Any], None]]]:
    """Return what bounds the answers of a client that waits for each.

    Args:
        most: Bytes of a body, decompressed.
    """
    return {"response": [lambda response: _bound(response, most)]}


def async_hooks(most: int = LARGEST_ANSWER) -> dict[str, list[Callable[[Any], Awaitable[None]]]]:
    """Return what bounds the answers of an asynchronous client.

    Args:
        most: Bytes of a body, decompressed.
    """

    async def bound(response: Any) -> None:
        _bound(response, most)

    return {"response": [bound]}


def _bound(response: Any, most: int) -> None:
    """Replace a response's stream, not begun yet, by one that decompresses within bounds."""
    body = Body(response.headers.get("content-encoding"), most)
    library = sys.modules[type(response).__module__.partition(".")[0]]
    response.stream = _stream_class(library)(response.stream, body)
    response.headers.pop("content-encoding", None)


@cache
def _stream_class(library: Any) -> Callable[[Any, Body], object]:
    """Return a stream of bytes of httpx, or of httpx2, which take none but their own."""
    return type("Stream", (_Stream, library.SyncByteStream, library.AsyncByteStream), {})


class _Stream:
    def __init__(self, source: Any, body: Body) -> None:
        self._source = source
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        for data in self._source:
            yield from self._body.decompressed(data)
        self._body.end()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for data in self._source:
            for piece in self._body.decompressed(data):
                yield piece
        self._body.end()

    def close(self) -> None:
        self._source.close()

    async def aclose(self) -> None:
        await self._source.aclose()
