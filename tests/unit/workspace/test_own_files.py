"""Check which content of a file counts as written by this user's unitune."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from unitune.errors import Mismatch, UserError
from unitune.workspace.home import artifact_folder, home
from unitune.workspace.own_files import FOLDER, own_file


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with two lines that unitune wrote."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNITUNE_DIR", str(tmp_path / "state"))
    path = tmp_path / "rows.jsonl"
    for line in (b"one\n", b"two\n"):
        assert append(path, line) == (b"" if line == b"one\n" else b"one\n")
    return path


def append(path: Path, line: bytes = b"") -> bytes:
    """Append a line, and return what the file had before."""
    with own_file(path, "Do this.") as opened:
        opened.seek(0)
        before = opened.read()
        opened.write(line)
    return before


def test_own_content_is_read_again(file: Path) -> None:
    assert append(file) == b"one\ntwo\n"


@pytest.mark.parametrize(
    "content", [b"onE\ntwo\n", b"one\ntwO\n", b"one\ntwO\nthree\n", b"x" * 100]
)
def test_other_content_is_refused_and_left_alone(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(Mismatch, match=r"did not write here for you.* Do this\."):
        append(file)
    assert file.read_bytes() == content


def test_a_file_without_a_record_is_refused(file: Path) -> None:
    file.rename(file.with_name("moved.jsonl"))
    with pytest.raises(Mismatch, match="did not write here for you"):
        append(file.with_name("moved.jsonl"))


def test_a_write_that_was_not_recorded_is_cut_off(file: Path) -> None:
    """A process was killed between the write and its record."""
    with file.open("ab") as opened:
        opened.write(b"three\n")
    assert append(file, b"four\n") == b"one\ntwo\n"
    assert append(file) == b"one\ntwo\nfour\n"


@pytest.mark.parametrize("left", [b"one\n", b"one\ntw"])
def test_a_file_that_a_power_cut_shortened_is_used_as_far_as_it_goes(
    file: Path, left: bytes
) -> None:
    file.write_bytes(left)
    assert append(file, b"three\n") == b"one\n"
    assert append(file) == b"one\nthree\n"


def test_a_record_that_a_power_cut_shortened_is_used_as_far_as_it_goes(file: Path) -> None:
    (record,) = (home() / FOLDER).iterdir()
    record.write_bytes(record.read_bytes()[:-3])
    assert append(file, b"three\n") == b"one\n"
    assert append(file) == b"one\nthree\n"


@pytest.mark.parametrize("how", ["deleted", "emptied"])
def test_a_deleted_file_starts_again(file: Path, how: str) -> None:
    file.unlink() if how == "deleted" else file.write_bytes(b"")
    assert append(file, b"new\n") == b""
    assert append(file) == b"new\n"


def test_a_file_that_is_shortened_is_still_known(file: Path) -> None:
    with own_file(file, "") as opened:
        opened.truncate(4)
    assert append(file, b"three\n") == b"one\n"
    assert append(file) == b"one\nthree\n"


def test_a_record_that_a_checkout_brought_is_refused(file: Path, tmp_path: Path) -> None:
    """In CI the state folder may be inside the checkout."""
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    assert append(file) == b"one\ntwo\n"
    (record,) = (home() / FOLDER).iterdir()
    record.chmod(0o644)
    with pytest.raises(UserError, match="a clone or a pull may have written it"):
        append(file)


def test_a_file_of_a_project_is_known_in_every_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command on a run may be started in another project."""
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        path = artifact_folder("runs") / "rows.jsonl"
        append(path, b"one\n")
    first = tmp_path / "one" / ".unitune" / "runs" / "rows.jsonl"
    assert append(first) == b"one\n"
