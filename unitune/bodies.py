"""Bodies of answers within bounds, however they are packed: 99 KiB of gzip may hold 100 MiB.

`Body` takes a body as it comes and never unpacks more than it may hold. `hooks` and `async_hooks`
put it into the clients of httpx and of its successor httpx2, by which vendors' SDKs speak:

    httpx.Client(event_hooks=hooks(), headers=PACKED)

`PACKED` asks for the one packing that is undone here; a server that packs otherwise is refused.
Not here: files that are written to the disk as they come.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

LARGEST_ANSWER = 16 << 20
"""Bytes of an answer: 128,000 tokens, the longest that models give, are some 0.5 MiB, and 64
embeddings of 4,096 numbers 6 MiB."""
LARGEST_FILE = 1 << 30
"""Bytes of a list or of a batch's results; OpenAI takes 200 MB of requests in one batch."""
MOST_RATIO = 100
"""Of unpacked to packed bytes, beyond `LARGEST_ANSWER`: lines of JSON that are much alike come to
some 20, and gzip itself to 1,032."""
PACKED = {"Accept-Encoding": "gzip"}
_PLAIN = ("", "identity")
_GZIP = ("gzip", "x-gzip")
_GZIP_BITS = 31
"""Largest window, with gzip's own head and end (zlib's manual, inflateInit2)."""


class BodyError(ValueError):
    """A body that is longer than it may be, or packed in a way that cannot be undone."""


class Body:
    """A body as it comes.

    Args:
        packing: The header Content-Encoding.
        most: Bytes that it may have, unpacked.
    """

    def __init__(self, packing: str | None, most: int = LARGEST_ANSWER) -> None:
        packing = (packing or "").strip().lower()
        if packing not in (*_PLAIN, *_GZIP):
            raise BodyError(f"it is packed as {packing[:30]!r}, and only gzip was asked for")
        self._packed = packing in _GZIP
        self._unpacker = zlib.decompressobj(_GZIP_BITS)
        self._most = most
        self._ended = True
        self._came = 0
        self._content = bytearray()

    def take(self, data: bytes) -> None:
        """Take the next piece, as it came.

        Raises:
            BodyError: The body is too long, or packed badly.
        """
        self._came += len(data)
        if not self._packed:
            self._keep(data)
            return
        while data:
            # One byte more than there is room for shows that there is more.
            room = self._most - len(self._content) + 1
            try:
                self._keep(self._unpacker.decompress(data, room))
            except zlib.error as error:
                raise BodyError(f"its gzip is damaged: {error}") from error
            data = self._unpacker.unconsumed_tail
            self._ended = self._unpacker.eof
            if self._ended:
                data = self._unpacker.unused_data
                self._unpacker = zlib.decompressobj(_GZIP_BITS)

    def whole(self) -> bytes:
        """Return the body.

        Raises:
            BodyError: Its end is missing.
        """
        if not self._ended:
            raise BodyError("its gzip ends in the middle")
        return bytes(self._content)

    def _keep(self, piece: bytes) -> None:
        self._content += piece
        size = len(self._content)
        if size > self._most:
            raise BodyError(f"it is longer than {self._most:,} bytes")
        if size > LARGEST_ANSWER and size > MOST_RATIO * self._came:
            raise BodyError(f"{self._came:,} bytes unpack to more than {MOST_RATIO} times as many")


def hooks(most: int = LARGEST_ANSWER) -> dict[str, list[Callable[..., None]]]:
    """Return what bounds the answers of a client that waits for each.

    Args:
        most: Bytes of a body, unpacked.
    """

    def bound(response: Any) -> None:
        body = Body(response.headers.get("content-encoding"), most)
        for piece in response.stream:
            body.take(piece)
        response.stream.close()
        _replace(response, body)

    return {"response": [bound]}


def async_hooks(most: int = LARGEST_ANSWER) -> dict[str, list[Callable[..., Awaitable[None]]]]:
    """Return what bounds the answers of an asynchronous client.

    Args:
        most: Bytes of a body, unpacked.
    """

    async def bound(response: Any) -> None:
        body = Body(response.headers.get("content-encoding"), most)
        async for piece in response.stream:
            body.take(piece)
        await response.stream.aclose()
        _replace(response, body)

    return {"response": [bound]}


def _replace(response: Any, body: Body) -> None:
    """Put the body back, unpacked, as the library's own stream of bytes."""
    library = sys.modules[type(response).__module__.partition(".")[0]]
    response.stream = library.ByteStream(body.whole())
    response.headers.pop("content-encoding", None)
