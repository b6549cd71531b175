"""Small real images of every kind, made from the formats' specifications without a library."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

Colour = tuple[int, int, int]
RED, GREEN, BLUE = (200, 40, 40), (40, 160, 60), (40, 70, 200)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int = 64, height: int = 48, colour: Colour = RED, *, grey: bool = False) -> bytes:
    """Return a PNG of one colour, RGB or grey."""
    pixels = bytes(colour[:1] if grey else colour) * width
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if grey else 2, 0, 0, 0)
    rows = zlib.compress((b"\0" + pixels) * height)
    chunks = _chunk(b"IHDR", header) + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def padded_png(bytes_: int) -> bytes:
    """Return a PNG with a text of this length beside its pixels."""
    return png()[:-12] + _chunk(b"tEXt", b"x" * bytes_) + png()[-12:]


def claimed_png(width: int, height: int) -> bytes:
    """Return a PNG whose header claims a size that its pixels do not have."""
    return png()[:16] + struct.pack(">II", width, height) + png()[24:]


def uri(content: bytes, kind: str = "png") -> str:
    """Return the data URI of an image."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def asked(url: str, text: str = "Which colour is this?", **image: str) -> dict[str, Any]:
    """Return a user's message with a text and an image."""
    picture = {"type": "image_url", "image_url": {"url": url, **image}}
    return {"role": "user", "content": [{"type": "text", "text": text}, picture]}


def row(url: str, answer: str = "red", text: str = "Which colour is this?", **more: Any) -> Any:
    """Return a row with an image."""
    return {"messages": [asked(url, text), {"role": "assistant", "content": answer}], **more}
