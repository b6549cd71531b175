"""Read data sets of the Hugging Face Hub through the package `datasets`.

    hf://owner/name                    its train split
    hf://owner/name/test               another split
    hf://owner/name/config/test        a split of a configuration
    hf://owner/name@revision/test      at a commit, a tag or a branch

A data set is downloaded once into the cache of `datasets`, which runs no code of it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from unitune.data.binary_tables import BATCH_ROWS, arrow_rows, package
from unitune.data.records import Record, bad
from unitune.text import clip
from unitune.workspace.progress import counted

SCHEME = "hf://"
_NAME = re.compile(
    r"hf://(?P<path>[\w.-]+/[\w.-]+)(@(?P<revision>[^/]+))?(/(?P<config>[^/]+))??(/(?P<split>[^/]+))?"
)


def source_name(path: str | os.PathLike[str]) -> str:
    """Return a file or data set name; a `Path` has lost a slash of ``hf://``."""
    return re.sub(r"^hf:/+", SCHEME, os.fspath(path))


def hub_records(name: str) -> Iterator[Record]:
    """Read a split of a data set; raises `BadRow` if it cannot be loaded."""
    match = _NAME.fullmatch(name)
    if match is None:
        forms = "hf://owner/name, hf://owner/name/split or hf://owner/name/config/split"
        raise bad("wrong-name", f"{clip(name)} is not the name of a data set.", f"Write {forms}.")
    path, revision, config, split = match.group("path", "revision", "config", "split")
    datasets = package("datasets", "data sets of the Hub")
    if Path(path).exists():  # `datasets` would read it instead
        what = f"the name is ambiguous: there is also a folder {path!r} here."
        raise bad("two-meanings", what, "Name a file in it, or work in another folder.")
    try:
        loaded = datasets.load_dataset(path, config, split=split or "train", revision=revision)
    except Exception as failure:
        reason = str(failure).partition("\n")[0].rstrip(".")
        raise bad(
            "unreachable-dataset",
            f"the data set could not be loaded: {reason}.",
            "Check the name, its split and your connection to huggingface.co. A private data set "
            "needs HF_TOKEN. A folder written by `save_to_disk` is read offline.",
        ) from failure
    batches = loaded.with_format("arrow").iter(batch_size=BATCH_ROWS)
    rows = arrow_rows(batches, loaded.features.arrow_schema, "a data set of the Hub")
    yield from counted(rows, f"reading {name}", loaded.num_rows)
