"""Whatever is printed is text: no markup, no escape sequence, whoever wrote it."""

from __future__ import annotations

import ast
import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text
from support.command_line import Command, Outcome
from support.job_files import distinct_rows, recorded, write_job, write_rows

import unitune
from unitune.backends.protocol import Event
from unitune.cli import output, progress, watch
from unitune.evaluate.inference.engine import EvaluationProgress
from unitune.security.redaction import CONTROLS

NASTY = {
    "closing-tag": "llama [/INST]",
    "tags": "[red]x[/red]",
    "link": "[link=x]y",
    "emoji": ":smile:",
    "title": "\x1b]0;title\x07",
    "c1": "\x9b31m",
    "carriage-return": "a\rb",
    "bidi": "\u202egnp",
    "format": "%s{0}{task}",
}
nasty = pytest.mark.parametrize("name", [*NASTY.values()], ids=[*NASTY])


def obeyed(text: str) -> set[str]:
    """Return the characters of an output that a terminal would obey."""
    return {character for character in text if ord(character) in CONTROLS}


def seen(text: str) -> str:
    """Return a text without its control characters and what stands for them."""
    return "".join(c for c in text if ord(c) not in CONTROLS and c != "\ufffd")


def is_harmless(told: Outcome, name: str, *, codes: tuple[int, ...] = (0,)) -> None:
    assert told.code in codes, told.err
    assert set() == obeyed(told.out + told.err)
    assert "Traceback" not in told.err
    assert seen(name) in " ".join(seen(told.out + told.err).split())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with rows to train on, to test by, and recorded answers."""
    write_rows(tmp_path / "train.jsonl", distinct_rows(40))
    cases = [{"id": f"c{i}", "prompt": f"q{i}?", "completion": "Paris"} for i in range(3)]
    write_rows(tmp_path / "test.jsonl", cases)
    answers = [{"case": f"c{i}", "answer": "Paris"} for i in range(3)]
    write_rows(tmp_path / "answers.jsonl", answers)
    return tmp_path


@nasty
def test_a_base_model_of_any_name_is_planned_trained_listed_and_shown(
    unitune: Command, folder: Path, name: str
) -> None:
    write_job(folder, model=f"m{name}", options={"fake": {"states": [], "steps": 1}})
    is_harmless(unitune("plan", "unitune.yaml"), name)
    is_harmless(unitune("run", "unitune.yaml"), name)
    is_harmless(unitune("runs"), name)
    run = json.loads(unitune("runs", "--json").out)["runs"][0]
    assert run["base_model"] == f"m{name}"
    is_harmless(unitune("runs", "show", run["id"]), name)
    is_harmless(unitune("runs", "watch", run["id"]), name)


@nasty
def test_an_answer_is_shown_on_a_terminal_and_kept_as_it_is_in_a_pipe(
    unitune: Command, folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = f"{name}\n\tnext"
    fake = {"states": [], "steps": 1, "tuned": {"otherwise": answer}}
    write_job(folder, options={"fake": fake})
    run = json.loads(unitune("run", "unitune.yaml", "--json").out)["id"]
    assert unitune("chat", run, "-m", "hi").out == f"{answer}\n"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    told = unitune("chat", run, "-m", "hi")
    assert set() == obeyed(told.out)
    assert seen(f"{answer}\n") == seen(told.out)


@nasty
def test_contenders_of_any_name_are_compared(unitune: Command, folder: Path, name: str) -> None:
    contenders = [recorded("a", "baseline"), recorded(name, "candidate")]
    write_job(folder, data={"test": "test.jsonl"}, evaluate={"contenders": contenders})
    told = unitune("compare", "unitune.yaml", "--output", "o")
    is_harmless(told, name)
    told = unitune("compare", "unitune.yaml", "--output", "o", "--json")
    assert set() == obeyed(told.out)
    assert name == json.loads(told.out)["candidate"]


@nasty
def test_keys_and_paths_of_any_name_are_told_in_errors(
    unitune: Command, folder: Path, name: str
) -> None:
    write_job(folder, **{f"k{name}": 1})
    is_harmless(unitune("check", "unitune.yaml"), "", codes=(2,))
    write_job(folder, data={"train": f"{name}.jsonl"})
    is_harmless(unitune("check", "unitune.yaml"), name, codes=(2,))
    is_harmless(unitune("plan", f"{name}.yaml"), name, codes=(2,))


@nasty
def test_folders_of_any_name_are_written_to(unitune: Command, name: str) -> None:
    is_harmless(unitune("init", name), name)
    rows = f"{name}/train.jsonl"
    is_harmless(
        unitune("data", "convert", rows, "--to", "openai-chat", "-o", f"{name}/o.jsonl"), name
    )
    is_harmless(unitune("check", f"{name}/unitune.yaml"), "", codes=(0,))


@nasty
@pytest.mark.parametrize(
    "arguments",
    [["plan", "unitune.yaml", "--{}"], ["plan", "x", "--rows", "{}"], ["{}"], ["schema", "{}"]],
    ids=["option", "value", "command", "choice"],
)
def test_usage_errors_repeat_what_was_given_as_text(
    unitune: Command, arguments: list[str], name: str
) -> None:
    told = unitune(*(argument.replace("{}", name) for argument in arguments))
    assert told.code == 2
    assert set() == obeyed(told.err)


@nasty
def test_what_a_vendor_says_of_a_training_is_text(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Watched:
        id, estimate = "r1", None

        def watch(self) -> list[Event]:
            return [Event("m", "message", 0.0, {"text": f"row 7: {name}"})]

    monkeypatch.setenv("COLUMNS", "100")
    watch._follow_plainly(Watched())  # pyright: ignore[reportArgumentType]
    monkeypatch.setattr(output.Terminal, "is_terminal", True)
    watch._follow_live(Watched())  # pyright: ignore[reportArgumentType]
    assert seen(capsys.readouterr().err).count(f"row 7: {seen(name)}") == 2


@nasty
def test_progress_names_contenders_as_they_are(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(output.Terminal, "is_terminal", True)
    monkeypatch.setattr(output.aside(), "is_interactive", True)
    with progress.evaluation_progress(quiet=False) as show:
        assert show is not None
        show(
            EvaluationProgress(
                phase="test", contender=f"{name}\nforged", prompt="p", done=1, total=2
            )
        )
    told = capsys.readouterr().err
    assert f"{seen(name)}forged" in seen(told)
    assert "\ufffdforged" in told


@pytest.mark.parametrize("terminal", [True, False])
def test_raw_text_is_as_it_is_unless_a_terminal_shows_it(
    *, terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal, raising=False)
    output.print_raw("a\n\tb \x1b[31m")
    assert ("a\n\tb \ufffd[31m\n" if terminal else "a\n\tb \x1b[31m\n") == capsys.readouterr().out


@nasty
def test_json_means_the_same_in_any_encoding(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for encoding in ("utf-8", "ascii", "latin-1"):
        buffer = io.BytesIO()
        monkeypatch.setattr("sys.stdout", io.TextIOWrapper(buffer, encoding=encoding))
        output.print_json({name: f"{name} é 日 \U0001f600 \x7f"})
        printed = buffer.getvalue().decode(encoding)
        assert json.loads(printed) == {name: f"{name} é 日 \U0001f600 \x7f"}
        assert set() == obeyed(printed)


def test_who_ends_the_input_instead_of_answering_says_no(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert not output.confirmed("Delete it?")


def test_texts_in_every_place_of_a_table_are_text() -> None:
    file, escape = io.StringIO(), "[b]\x1b[31m\x9b"
    table = Table(title=escape, caption=escape)
    table.add_column(escape)
    table.add_row(escape)
    table.add_row(Text(escape, "red"))
    output.Terminal(file=file, width=80, markup=False, color_system=None).print(table, escape)
    assert file.getvalue().count("[b]\ufffd[31m\ufffd") == 6
    assert set() == obeyed(file.getvalue())


ROOT = Path(unitune.__file__).parent
PRINTING = {"Console", "echo", "secho", "confirm", "prompt", "print_exception", "from_markup"}
ALLOWED = {
    ("cli/output.py", "confirm"),  # `confirmed`
    ("render/terminal.py", "Console"),  # of a text in memory
    ("testing/kills.py", "print_exception"),
}


@pytest.mark.parametrize("file", sorted(ROOT.rglob("*.py")), ids=lambda file: str(file.name))
def test_nothing_is_printed_around_the_one_place(file: Path) -> None:
    place = str(file.relative_to(ROOT))
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.module != "rich.markup", place
            assert node.module != "rich.prompt", place
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        called = getattr(function, "attr", None) or getattr(function, "id", "")
        assert called not in PRINTING or (place, called) in ALLOWED, f"{place}:{node.lineno}"
        if called == "TextColumn":
            markup = [one.value for one in node.keywords if one.arg == "markup"]
            assert [value.value for value in markup if isinstance(value, ast.Constant)] == [False]


def test_the_consoles_read_neither_markup_nor_emoji() -> None:
    for made in (output.console(), output.aside()):
        assert isinstance(made, Console)
        assert made.render_str("[b]:smile:[/b]").plain == "[b]:smile:[/b]"


def test_in_a_log_a_finding_is_a_line_and_on_a_terminal_it_is_folded(
    unitune: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What grep finds is whole; blanks that fill a table's lines are not in a log."""
    file = tmp_path / ("deeply/nested/" * 8) / "rows.jsonl"
    file.parent.mkdir(parents=True)
    write_rows(file, [{"messages": [{"role": "user", "content": "yes?"}]}])
    monkeypatch.delenv("COLUMNS")
    logged = unitune("check", str(file)).out
    (line,) = [line for line in logged.splitlines() if line.startswith("error")]
    assert (
        f"error   {file}:1 the last message is from 'user', and the row has no answer. End " in line
    )
    assert line.endswith("or as `expected`.")
    assert "".join(line for line in logged.splitlines() if line != line.rstrip()) == ""
    monkeypatch.setattr(output.Terminal, "is_terminal", True)
    monkeypatch.setenv("COLUMNS", "80")
    shown = Text.from_ansi(unitune("check", str(file)).out).plain
    assert len(shown.splitlines()) > len(logged.splitlines()) + 3
    assert max(map(len, shown.splitlines())) <= 80
