"""Suites and results of other evaluation tools, and jobs of vendors: what `import` reads."""

from __future__ import annotations

import io
import json
import sys
import zipfile
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from hostile.attempts import Attempt
from hostile.values import as_json, damaged, edited, spoilt, spoilt_lines
from hypothesis import strategies as st

MADE = Path(__file__).parents[1] / "unit" / "importers" / "made"
"""Files that the tools themselves wrote."""


@cache
def _files(folder: str) -> dict[str, bytes]:
    place = MADE / folder
    return {
        str(one.relative_to(place)): one.read_bytes()
        for one in sorted(place.rglob("*"))
        if one.is_file()
    }


@st.composite
def suites(draw: st.DrawFn) -> Attempt:
    """Return a file of another tool that is not as the tool wrote it."""
    tool = draw(st.sampled_from(("promptfoo", "inspect", "lm-eval")))
    files = dict(_files(tool))
    readable = [
        name for name in files if name.endswith((".yaml", ".json", ".jsonl", ".eval", ".csv"))
    ]
    name = draw(st.sampled_from(readable))
    files[name] = draw(_spoilt(name, files[name]))
    others = draw(st.lists(st.sampled_from(readable), max_size=1))
    sources = [f"{tool}:{one}" for one in (name, *others)]
    drop = draw(st.sampled_from(((), ("--drop",), ("--drop",))))
    commands = [("import", *sources, "--output", "d", *drop)]
    if draw(st.booleans()):
        commands.append(("compare", "d/unitune.yaml", "--quiet"))
    return Attempt(tuple(commands), files)


def _spoilt(name: str, whole: bytes) -> st.SearchStrategy[bytes]:
    match Path(name).suffix:
        case ".jsonl":
            return spoilt_lines([json.loads(line) for line in whole.splitlines()])
        case ".json":
            return spoilt(json.loads(whole))
        case ".yaml":
            try:
                tree = yaml.safe_load(whole)
            except yaml.YAMLError:  # tags of lm-eval's own
                return damaged(whole)
            return spoilt(tree) | damaged(whole)
        case ".eval":
            return _archives(whole)
        case _:
            return damaged(whole)


@st.composite
def _archives(draw: st.DrawFn, whole: bytes) -> bytes:
    if draw(st.integers(0, 4)) == 0:
        return draw(damaged(whole))
    members = _members(whole)
    name = draw(st.sampled_from(sorted(members)))
    tree: Any = json.loads(members[name])
    members[name] = draw(edited(tree).map(as_json) | damaged(members[name]))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for one, content in members.items():
            archive.writestr(one, content)
    return out.getvalue()


def _members(whole: bytes) -> dict[str, bytes]:
    archives = zipfile if sys.version_info >= (3, 14) else import_module("backports.zstd.zipfile")
    with archives.ZipFile(io.BytesIO(whole)) as archive:
        return {one: archive.read(one) for one in archive.namelist() if one.endswith(".json")}
