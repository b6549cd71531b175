"""Upload the images of a training file, for vendors that train only on stored images."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

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
