"""One example: files in a folder, and commands that are run there, with what must hold of them."""

from __future__ import annotations

import atexit
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from hostile.guards import faults
from hostile.sandbox import Sandbox
from typer.core import TyperGroup

from unitune.main import command_line


@dataclass(frozen=True, slots=True)
class Around:
    """What stands while the commands of an example run.

    Args:
        environment: Variables that lead there.
        words: What stands for a word in commands and files, such as the address of a server.
        begin: Called after the commands that only prepare.
    """

    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    words: Mapping[str, str] = field(default_factory=dict[str, str])
    begin: Callable[[], None] = lambda: None


@contextmanager
def nothing() -> Generator[Around]:
    """Let nothing stand around."""
    yield Around()


@dataclass(frozen=True, slots=True)
class Attempt:
    """What is thrown at the command line.

    Args:
        commands: Their arguments, run one after the other.
        files: Content by path in the folder; what cannot be a path is left out.
        environment: Variables besides those that any command has.
        stdin: What is typed.
        terminal: Whether the streams say that they are a terminal.
        encoding: Of the streams.
        setup: So many of the commands only prepare, and are not held to anything.
        around: What stands while they run, such as a vendor.
        note: What `around` does, for whoever reads of a failure.
    """

    commands: tuple[tuple[str, ...], ...]
    files: Mapping[str, bytes] = field(default_factory=dict[str, bytes], repr=False)
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    stdin: str = ""
    terminal: bool = False
    encoding: str = "utf-8"
    setup: int = 0
    around: Callable[[], AbstractContextManager[Around]] = field(default=nothing, repr=False)
    note: str = ""


@dataclass(slots=True)
class Tally:
    """What was thrown, and what came of it.

    Args:
        thrown: Examples by kind.
        codes: How often a command ended with an exit code.
        faults: How often a command had a fault.
    """

    thrown: Counter[str] = field(default_factory=Counter[str])
    codes: Counter[tuple[str, int | None]] = field(
        default_factory=Counter[tuple[str, "int | None"]]
    )
    faults: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])


GROUPS = {
    name: tuple(group.commands)
    for name, group in command_line().commands.items()
    if isinstance(group, TyperGroup)
}
"""Commands that have commands."""


def name_of(arguments: tuple[str, ...]) -> str:
    """Return the command's name: two words where it is a subcommand."""
    first = arguments[0] if arguments else ""
    second = arguments[1] if first in GROUPS and len(arguments) > 1 else ""
    return f"{first} {second}" if second in GROUPS.get(first, ()) else first


def perform(attempt: Attempt, tally: Tally | None = None, kind: str = "") -> list[str]:
    """Run an example in a new folder, and return what is wrong with how its commands ended."""
    found: list[str] = []
    tally = tally or Tally()
    tally.thrown[kind] += 1
    with attempt.around() as around, new_folder() as folder:
        put(folder, {name: _worded(one, around.words) for name, one in attempt.files.items()})
        box = sandbox(attempt, folder, around)
        for at, arguments in enumerate(attempt.commands):
            if at == attempt.setup:
                around.begin()
            words = {**around.words, "@job": _job_of(folder)}
            line = tuple(
                _worded(one.encode("utf-8", "surrogateescape"), words).decode(
                    "utf-8", "surrogateescape"
                )
                for one in arguments
            )
            ended = box.run(line)
            if at < attempt.setup:
                assert ended.code == 0, (line, ended.code, ended.err[-2000:])
                continue
            name = name_of(line)
            tally.codes[name, ended.code] += 1
            for fault in faults(line, ended):
                tally.faults[name, fault] += 1
                found.append(f"{name}: {fault}")
    return found


def _worded(content: bytes, words: Mapping[str, str]) -> bytes:
    for word, meaning in words.items():
        content = content.replace(word.encode(), meaning.encode())
    return content


def _job_of(folder: Path) -> str:
    """Return the vendor's job of the only run."""
    ledger = folder / "home" / "ledger.db"
    if not ledger.is_file():
        return "none"
    with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as database:
        try:
            return str(next(iter(database.execute("select job_id from runs")), ("none",))[0])
        except sqlite3.Error:
            return "none"


def sandbox(attempt: Attempt, folder: Path, around: Around) -> Sandbox:
    """Return where the commands of an example run."""
    environment = {**around.environment, **attempt.environment}
    return Sandbox(folder, environment, attempt.stdin, attempt.terminal, attempt.encoding)


@contextmanager
def new_folder() -> Generator[Path]:
    """Make an empty folder, and take it away; it has the same path each time.

    So what commands leave can be put into another example, absolute paths in it included.
    """
    folder = _place() / "folder"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@cache
def _place() -> Path:
    place = Path(tempfile.mkdtemp(prefix="hostile-")).resolve()
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    return place


def put(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files into a folder."""
    for name, content in files.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)


def left_by(commands: tuple[tuple[str, ...], ...], files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return all files of a folder after commands that must end well."""
    with new_folder() as folder:
        put(folder, files)
        box = Sandbox(folder)
        for arguments in commands:
            ended = box.run(arguments)
            assert ended.code == 0, (arguments, ended.code, ended.err[-2000:])
        return {
            str(file.relative_to(folder)): file.read_bytes()
            for file in folder.rglob("*")
            if file.is_file()
        }
