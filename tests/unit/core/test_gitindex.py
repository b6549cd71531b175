"""What git tracks is read from its index as git itself lists it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from unitune.workspace import git_index

NAMES = ("a", "b/c", "b/cc", "b/ccd/e", "ü/ß", "x" * 250, "y/" + "z" * 200, ".unitune/ledger.db")
LONG = "/".join(["d" * 200] * 19 + ["f" * 200])
"""3,819 characters; with 4,095 and more, an index does not know how long a path is."""


def git(folder: Path, *arguments: str) -> bytes:
    done = subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True)
    return done.stdout


def cached(folder: Path, name: str) -> None:
    """Put a path into the index, without a file."""
    blob = git(folder, "hash-object", "-w", "-t", "blob", "/dev/null").decode().strip()
    git(folder, "update-index", "--add", "--cacheinfo", f"100644,{blob},{name}")


@pytest.mark.parametrize("version", [2, 3, 4])
@pytest.mark.parametrize("objects", ["sha1", "sha256"])
def test_the_paths_are_those_that_git_lists(tmp_path: Path, version: int, objects: str) -> None:
    git(tmp_path, "init", "--quiet", f"--object-format={objects}")
    for name in (*NAMES, LONG, f"{LONG}{'g' * 55}/{'h' * 250}"):
        cached(tmp_path, name)
    if version == 3:  # has entries with further flags
        (tmp_path / "later").touch()
        git(tmp_path, "add", "--intent-to-add", "later")
    git(tmp_path, "update-index", "--index-version", str(version), "--force-write-index")
    listed = git(tmp_path, "ls-files", "-z").split(b"\0")[:-1]
    index = tmp_path / ".git" / "index"
    assert version == index.read_bytes()[7]
    assert listed == list(git_index._paths(index, ".unitune", 0, 0))  # pyright: ignore[reportPrivateUsage]
    assert ".unitune/ledger.db" == git_index.tracked_in(tmp_path / ".unitune")
    assert ".unitune/ledger.db" == git_index.tracked_in(tmp_path / ".unitune" / "ledger.db")
    assert git_index.tracked_in(tmp_path / ".unitune" / "ledger") is None
    assert git_index.tracked_in(tmp_path / "other") is None


@pytest.mark.parametrize("name", [".unitune2/x", "x.unitune/y", "b/.unitune/z"])
def test_other_places_are_none_of_it(tmp_path: Path, name: str) -> None:
    git(tmp_path, "init", "--quiet")
    cached(tmp_path, name)
    assert git_index.tracked_in(tmp_path / ".unitune") is None


def test_case_is_no_way_round(tmp_path: Path) -> None:
    """On macOS and Windows .UNITUNE is the same folder."""
    git(tmp_path, "init", "--quiet")
    cached(tmp_path, ".UniTune/ledger.db")
    assert ".UniTune/ledger.db" == git_index.tracked_in(tmp_path / ".unitune")


@pytest.mark.parametrize(
    "content", [b"", b"DIRC", b"DIRC\0\0\0\2\xff\xff\xff\xff.unitune", b"x" * 99]
)
def test_what_is_no_index_lists_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "index").write_bytes(content)
    assert git_index.tracked_in(tmp_path / ".unitune") is None


@pytest.mark.parametrize("content", [b"", b"gitdir: nowhere", b"\xff\0"])
def test_a_git_file_that_leads_nowhere_lists_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".git").write_bytes(content)
    assert git_index.tracked_in(tmp_path / ".unitune") is None


@pytest.mark.parametrize("name", ["sharedindex.tmp", "sharedindex.", "sharedindex.00"])
def test_odd_files_beside_an_index_are_left_alone(tmp_path: Path, name: str) -> None:
    git(tmp_path, "init", "--quiet")
    cached(tmp_path, "a")
    os.mkfifo(tmp_path / ".git" / name)  # an archive can hold one; who reads it waits for ever
    assert git_index.tracked_in(tmp_path / ".unitune") is None
