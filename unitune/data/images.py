"""Read the images of rows: embed local files, and find type and size in the headers.

An image is a `data:` URI, or a reference (`https:`, `gs:`, `s3:`) that only a vendor opens. Files
are read once, with their row, and everything later depends on the row alone. Pixels are never
decoded, so a decompression bomb costs nothing here. Vendors that train only on stored images get a
copy of the training file with their places (`images_stored`).

Sources of the headers: PNG, W3C 2025, 11.2; JPEG, ITU-T T.81, B.2; GIF89a; WebP, RFC 9649.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import struct
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal
from urllib.parse import unquote

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as validated

from unitune.files.filesystem import content_of

MAX_BYTES = 20 << 20  # the highest limit of a vendor (Vertex)
MAX_PIXELS = 89_478_485  # above this, Pillow and programs built on it warn of a decompression bomb
REFERENCES = ("https", "gs", "s3")
# Text of a data URI whose base64 is canonical: nothing but an image, which no text search reads
DATA_URI = re.compile(r"data:image/[a-z+.-]+;base64,[A-Za-z0-9+/]+={0,2}")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")
_PNG_MODES = {0: "L", 2: "RGB", 3: "P", 4: "LA", 6: "RGBA"}
_JPEG_MODES = {1: "L", 3: "RGB", 4: "CMYK"}
_JPEG_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # markers of frame headers
_GIF_IMAGE, _GIF_TRAILER = 0x2C, 0x3B
_WEBP_BITS_14 = 0x3FFF
_WEBP_ANIMATED, _WEBP_ALPHA = 0x02, 0x10


class BadImage(ValueError):
    """An image that cannot be used; its text completes "messages[0].content[1] …"."""


@validated(frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ImageUrl:
    """An image of a message."""

    url: str = Field(min_length=1)
    """`data:` URI, reference, or before it is read a path relative to the data file."""
    detail: Literal["auto", "low", "high"] | None = None
    name: str | None = None
    """File name, for people; never sent."""

    @property
    def scheme(self) -> str:
        """`data`, or the scheme of a reference."""
        return self.url.partition(":")[0].lower()

    @property
    def key(self) -> str:
        """Hash of the bytes, or of the reference."""
        return hashlib.sha256(self.url.encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def image(self) -> Image | None:
        """Type and size; None for a reference. Raises `BadImage`."""
        return image_of(self.content) if self.scheme == "data" else None

    @property
    def content(self) -> bytes:
        """The bytes of an embedded image. Raises `BadImage`."""
        return _decoded(self.url)

    def __str__(self) -> str:
        """Return the image in words: ``[image: cat.png, 640x480]``."""
        if self.scheme != "data":
            host, _, path = self.url.partition("://")[2].partition("/")
            name = self.name or path.partition("?")[0].rpartition("/")[2] or self.url[:60]
            return f"[image: {name}{host and ' at '}{host.rpartition('@')[2]}]"
        try:
            image = image_of(self.content)
        except BadImage:
            return "[image: broken]"
        return f"[image: {self.name or image.media_type}, {image.width}\u00d7{image.height}]"


@validated(frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ImagePart:
    """An image part of a message."""

    type: Literal["image_url"]
    image_url: ImageUrl


@dataclass(frozen=True, slots=True)
class Image:
    """What the header of an image says."""

    media_type: str
    width: int
    height: int
    mode: str
    """Pillow's name of the colours: RGB, RGBA, L (grey), P (palette), CMYK …"""
    size: int
    """In bytes."""
    is_animated: bool = False


def embedded(image: ImageUrl, folder: Path | None) -> ImageUrl:
    """Return an image as a canonical data URI, or as the reference that it is.

    Args:
        image: As written in a row.
        folder: Folder of the data file; files outside it are refused. None if there is none.

    Raises:
        BadImage: The image is missing, outside the folder, broken, too large or of another type.
    """
    found = _SCHEME.match(image.url)
    scheme = found[1].lower() if found else ""
    if scheme in REFERENCES:
        return image
    if scheme not in ("", "data", "file"):
        allowed = "a path, or a data:, https:, gs: or s3: address"
        raise BadImage(f"has the address {image.url[:60]!r}; use {allowed}")
    name, content = image.name, b""
    if scheme == "data":
        content = _decoded(image.url)
    else:
        path = _inside(image.url, scheme, folder)
        name, content = name or path.name, _read(path, image.url)
    found_type = image_of(content).media_type
    url = f"data:{found_type};base64,{base64.b64encode(content).decode()}"
    return ImageUrl(url=url, detail=image.detail, name=name)


def image_of(content: bytes) -> Image:
    """Return what the header of a PNG, JPEG, GIF or WebP file says. Raises `BadImage`."""
    try:
        found = _header(content)
    except (struct.error, IndexError):
        found = None
    if found is None or not (found.width and found.height):
        raise BadImage("is broken: it ends early, or its header is damaged")
    if found.width * found.height > MAX_PIXELS:
        raise BadImage(
            f"has {found.width:,}\u00d7{found.height:,} pixels; at most {MAX_PIXELS:,} are allowed"
        )
    return found


def _header(data: bytes) -> Image | None:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        width, height, _, colours = struct.unpack(">IIBB", data[16:26])
        ends, animated = (
            b"IEND\xaeB`\x82" in data[-1024:],
            b"acTL" in data[: max(data.find(b"IDAT"), 0)],
        )
        mode = _PNG_MODES.get(colours, "?")
        return Image("image/png", width, height, mode, len(data), animated) if ends else None
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg(data)
    if data[:6] in (b"GIF87a", b"GIF89a"):
        width, height = struct.unpack("<HH", data[6:10])
        return Image("image/gif", width, height, "P", len(data), _gif_frames(data) > 1)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp(data)
    raise BadImage(f"begins with {data[:12]!r}; save it as PNG, JPEG, WebP or GIF")


def _jpeg(data: bytes) -> Image | None:
    at = 2
    while data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
            continue
        if marker in _JPEG_SIZES:
            height, width, components = struct.unpack(">HHB", data[at + 5 : at + 10])
            mode = _JPEG_MODES.get(components, "?")
            ends = data.rfind(b"\xff\xd9") > at
            return Image("image/jpeg", width, height, mode, len(data)) if ends else None
        at += 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]
    return None


def _gif_frames(data: bytes) -> int:
    """Return the number of images before the trailer; IndexError if the file ends early."""
    at, frames = 13 + _gif_colours(data[10]), 0
    while data[at] != _GIF_TRAILER:
        if data[at] == _GIF_IMAGE:
            frames += 1
            at += 11 + _gif_colours(data[at + 9])
        else:  # an extension
            at += 2
        while data[at]:  # blocks of data, each after its length
            at += data[at] + 1
        at += 1
    return frames


def _gif_colours(flags: int) -> int:
    """Return the bytes of a colour table."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _webp(data: bytes) -> Image | None:
    if struct.unpack("<I", data[4:8])[0] + 8 > len(data):
        return None
    animated, mode = False, "RGB"
    if data[12:16] == b"VP8X":
        width = int.from_bytes(data[24:27], "little") + 1
        height = int.from_bytes(data[27:30], "little") + 1
        animated = bool(data[20] & _WEBP_ANIMATED)
        mode = "RGBA" if data[20] & _WEBP_ALPHA else "RGB"
    elif data[12:16] == b"VP8L":
        bits = struct.unpack("<I", data[21:25])[0]
        width, height = (bits & _WEBP_BITS_14) + 1, (bits >> 14 & _WEBP_BITS_14) + 1
        mode = "RGBA" if bits >> 28 & 1 else "RGB"
    elif data[12:16] == b"VP8 ":
        width, height = (side & _WEBP_BITS_14 for side in struct.unpack("<HH", data[26:30]))
    else:
        return None
    return Image("image/webp", width, height, mode, len(data), animated)


def _decoded(url: str) -> bytes:
    head, _, text = url.partition(",")
    if not head.lower().endswith(";base64"):
        raise BadImage("is a data: URI without ;base64; encode it in base64")
    if len(text) > MAX_BYTES * 4 // 3 + 4:
        raise BadImage(f"has more than {MAX_BYTES >> 20} MiB; make it smaller")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as problem:
        raise BadImage(f"is not valid base64 ({problem})") from None


def _inside(url: str, scheme: str, folder: Path | None) -> Path:
    """Return a file in the folder of the data file, through no link that leaves it."""
    if folder is None:
        raise BadImage(f"is the file {url[:60]!r}, but the rows have no folder; use a data: URI")
    text = unquote(re.sub(r"^file:(//(localhost)?(?=/))?", "", url)) if scheme else url
    if "\0" in text:
        raise BadImage("has a NUL character in its path")
    base = folder.resolve()
    try:
        path = (base / text).resolve()
        exists = path.is_file()
    except (OSError, RuntimeError) as problem:  # a loop of links
        why = getattr(problem, "strerror", None) or problem
        raise BadImage(f"is the file {url[:60]!r}, which cannot be read: {why}") from None
    if not path.is_relative_to(base):
        raise BadImage(
            f"is the file {url[:60]!r}, which is outside the folder of the data file; copy it there"
        )
    if not exists:
        raise BadImage(f"is the file {url[:60]!r}, which the folder of the data file does not have")
    return path


def _read(path: Path, url: str) -> bytes:
    if path.stat().st_size > MAX_BYTES:
        raise BadImage(
            f"is the file {url[:60]!r}, which has {path.stat().st_size:,} bytes; make it smaller "
            f"than {MAX_BYTES >> 20} MiB"
        )
    try:
        return content_of(path, MAX_BYTES)
    except OSError as problem:
        raise BadImage(f"is the file {url[:60]!r}, which cannot be read: {problem}") from None


# Return an object of a row, with the place of its image if it has one
Store = Callable[[dict[str, Any]], dict[str, Any]]


def image_name(data: str, media_type: str) -> tuple[bytes, str]:
    """Return the bytes of an image in base64 and its name, which has its hash and type."""
    content = base64.b64decode(data)
    return content, f"images/{hashlib.sha256(content).hexdigest()}.{media_type.partition('/')[2]}"


@contextmanager
def images_stored(path: Path, marker: str, store: Store) -> Generator[Path]:
    """Yield a training file that names the places of its images.

    Args:
        path: The file; yielded unchanged if no line has `marker`.
        marker: JSON key of an embedded image.
        store: Uploads the image in an object. Called for every object of a row, inner ones first.
    """
    with path.open(encoding="utf-8") as lines:
        has_images = any(f'"{marker}":' in line for line in lines)
    if not has_images:
        yield path
        return
    with TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        with path.open(encoding="utf-8") as lines, copy.open("w", encoding="utf-8") as written:
            for line in lines:
                row = json.loads(line, object_hook=store)
                written.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")
        yield copy
