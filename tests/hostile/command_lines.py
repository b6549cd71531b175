"""Names on the command line: run ids, paths, models, backends, amounts, times, for every command.

The commands and what they take are read from the program itself. What a parameter means stands in
`MEANINGS`, by its name: whoever adds a parameter with a new name adds a line there, and a test says
so until it is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import typer
from hostile import examples
from hostile.attempts import Attempt
from hostile.values import texts
from hypothesis import strategies as st

from unitune.main import app

BACKENDS = ("fake", "openai", "together", "vertex", "bedrock", "anthropic", "local", "azure")
Words = st.SearchStrategy[str]


def argument(text: str) -> str:
    """Return a text as the operating system could hand it over: without NUL, halves as bytes."""
    return (
        text.replace("\0", "")
        .encode("utf-8", "surrogateescape" if _is_bytes(text) else "replace")
        .decode("utf-8", "surrogateescape")
    )


def _is_bytes(text: str) -> bool:
    return all(not "\ud800" <= mark <= "\udfff" or "\udc80" <= mark <= "\udcff" for mark in text)


def odd(*valid: str) -> Words:
    """Return valid words or odd ones."""
    return st.sampled_from(valid) | texts().map(argument) if valid else texts().map(argument)


@cache
def run_ids() -> tuple[str, ...]:
    """Return the ids of the runs that stand in the ledger."""
    folders = {name.split("/")[2] for name in examples.trained() if name.startswith("home/runs/")}
    return tuple(sorted(folders))


def runs() -> Words:
    """Return ids of runs, beginnings of them, and odd words."""
    ids = run_ids()
    return odd(*ids, ids[0][:3], ids[0].upper(), "r", f"{ids[0]}-d1")


def amounts() -> Words:
    """Return amounts of money."""
    return odd("5", "$2.50", "0", "1" * 400, "1e5", "٣")


def prices_given() -> Words:
    """Return prices of the command line."""
    return odd(
        "training=2",
        "openai:machine=0.85/hour",
        "hosting=1/x",
        "=",
        "training=",
        "training=1e999",
        "training=" + "9" * 5000,
    )


def sources() -> Words:
    """Return what `import` takes."""
    return odd(
        "openai:ftjob-1",
        "fake:x",
        "promptfoo:job.yaml",
        "inspect:train.jsonl",
        "lm-eval:samples_t.jsonl",
        "traces",
        "train.jsonl",
    ) | st.builds("{}:{}".format, st.sampled_from(BACKENDS), texts().map(argument))


def paths(*known: str) -> Words:
    """Return paths of files that stand there, of folders, and odd ones."""
    return odd(
        *known,
        "nowhere/x",
        ".",
        "..",
        "home",
        "/dev/full",
        "/dev/null",
        "/proc/self/mem",
        "job.yaml/x",
        "x" * 300,
    )


MEANINGS: Mapping[str, Callable[[], Words]] = {
    "address": lambda: odd("http://127.0.0.1:1", "https://llm.example.com/v1"),
    "adopt": lambda: odd("x", run_ids()[0]),
    "against": lambda: paths("plan.json", "job.yaml"),
    "new_answers": lambda: odd("a failed server", ""),
    "alias": lambda: odd("production", "staging", "latest", "v1", "demo@production"),
    "answers": lambda: paths("test.jsonl"),
    "assistant": lambda: odd("completion", "label"),
    "backend": lambda: odd(*BACKENDS, "nebius", "mantle", "cohere"),
    "budget": amounts,
    "cases": lambda: odd("auto", "40", "0", "9" * 30),
    "chat_template_kwargs": lambda: odd('{"a": 1}', "[]", "{", "[" * 9999),
    "comparison": lambda: odd("newest", "c26", ""),
    "data": lambda: paths("train.jsonl", "table.csv", "job.yaml", "home/ledger.db"),
    "deploy": lambda: odd("2h", "30m", "1d", "0h", "9" * 400 + "d", "٣h"),
    "deployment": runs,
    "directory": lambda: paths("new", "taken.txt"),
    "export": lambda: odd("dpo", "sft"),
    "file": lambda: paths("job.yaml", "train.jsonl", "plan.json", "home/ledger.db", "table.csv"),
    "feedback": lambda: odd("user-feedback", ""),
    "first": lambda: odd("newest", "c26", ""),
    "folder": lambda: paths("home", "new"),
    "form": lambda: odd("adapter", "gguf", "x"),
    "goal": lambda: odd("0.9", "1", "0", "nan", "-1", "90"),
    "good": lambda: odd("1", "nan", "up"),
    "host": lambda: odd("localhost", "::1", "0.0.0.0", "example.invalid"),  # noqa: S104 - a word
    "html": lambda: paths("out.html", "out.json", "job.yaml", "train.jsonl"),
    "job": lambda: odd("x"),
    "key_env": lambda: odd("MY_KEY", "PATH"),
    "labels": lambda: paths("labels.jsonl", "train.jsonl", "table.csv", "job.yaml"),
    "limit": lambda: odd("1", "0", "-1", "9" * 30),
    "max_tokens": lambda: odd("40", "0", "9" * 30),
    "message": lambda: odd("train 0?"),
    "model": lambda: odd("base", "smollm2-135m-instruct", "demo", "demo:1"),
    "name": lambda: odd("job", "verdict", *BACKENDS, "smollm2-135m-instruct", "org/model"),
    "option": lambda: odd("a=b", "hardware=x", "=", "a"),
    "output": lambda: paths("rows", "out.html", "out.json", "job.yaml", "train.jsonl"),
    "phone_region": lambda: odd("US", "DE", "XX", "us"),
    "plan": lambda: paths("plan.json", "job.yaml"),
    "points": lambda: odd("3", "4", "2", "9" * 30),
    "port": lambda: odd("0", "-1", "65536", "9" * 30),
    "price": prices_given,
    "prompt": lambda: odd("zero-shot", "instructed", "few-shot", "best"),
    "variants": lambda: odd("3", "0", "9" * 30),
    "questions": lambda: paths("train.jsonl", "table.csv", "test.jsonl"),
    "quantization": lambda: odd("F16", "Q8_0", "Q4_K_M"),
    "reason": lambda: odd("why not", ""),
    "redact": lambda: paths("map.json", "job.yaml", "train.jsonl"),
    "repository": lambda: odd("acme/demo", "demo", "../x", "a/b/c", ""),
    "requests": lambda: odd("1000", "1", "0", "9" * 40),
    "restore": lambda: paths("map.json", "job.yaml", "train.jsonl"),
    "reviewer": lambda: odd("ana", ""),
    "rows": lambda: odd("2", "0", "9" * 30),
    "run": runs,
    "second": lambda: odd("newest", "c26"),
    "seeds": lambda: odd("2", "3", "0", "9" * 30),
    "sign": lambda: paths("job.yaml", "home/ledger.db"),
    "since": lambda: odd("2026-11-28", "1970-01-01", "28.11.2026"),
    "source": lambda: odd("vertex-sft", "openai-chat", "bedrock-nova"),
    "sources": sources,
    "teacher": lambda: odd("fake:base", "fake:", ":", "recorded", "nobody"),
    "temperature": lambda: odd("0.7", "nan", "-1", "inf"),
    "test": lambda: odd("0.2", "0", "1", "-1", "nan", "1e-300"),
    "ttl": lambda: odd("2h", "30m", "1d", "9" * 400 + "d", "0.0000001m"),
    "step": lambda: odd("1", "-1", "9" * 30),
    "system": lambda: odd("You are."),
    "to": lambda: odd("vertex-sft", "openai-chat", "together-dpo", "adapter", "gguf", "hub"),
    "user": lambda: odd("prompt", "message"),
    "variable": lambda: odd("MY_KEY", "PATH"),
    "verify": lambda: paths("train.jsonl", "job.yaml", "home/ledger.db"),
    "version": lambda: odd("demo@production", "demo:1", "demo:0", "demo@", *run_ids()),
    "without_gate": lambda: odd("ticket 1", ""),
}
"""By the name of a parameter; flags need none."""
ENVIRONMENT = {
    "UNITUNE_TODAY": lambda: odd("2026-11-26", "9999-12-31", "0001-01-01", "2027-02-01"),
    "UNITUNE_DIR": lambda: paths("home", "job.yaml", "new"),
    "UNITUNE_LEDGER": lambda: odd(
        "postgresql+psycopg://u:p@127.0.0.1:1/x", "sqlite:///x", "mysql://x"
    ),
    "OPENAI_API_KEY": lambda: odd("sk-1"),
    "OPENAI_BASE_URL": lambda: odd("http://127.0.0.1:1/v1"),
    "TOGETHER_BASE_URL": lambda: odd("http://127.0.0.1:1/v1"),
    "TOGETHER_API_KEY": lambda: odd("sk-1"),
    "HTTPS_PROXY": lambda: odd("http://127.0.0.1:1"),
    "COLUMNS": lambda: odd("1", "20", "0", "-1", "9" * 20),
    "PIP_INDEX_URL": lambda: odd("http://127.0.0.1:1/simple"),
    "UNITUNE_FAKE_DIR": lambda: paths("home", "job.yaml"),
    "CI": lambda: odd("1"),
    "UNITUNE_LOG": lambda: odd("debug", "INFO"),
}
"""Variables that commands read."""
ENCODINGS = ("utf-8", "utf-8", "utf-8", "latin-1", "ascii", "utf-16", "cp1252")


def commands() -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the words and the description of every command of the program."""
    yield from _inside(typer.main.get_command(app), ())


def _inside(command: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    inner = getattr(command, "commands", {})
    if not inner or command.invoke_without_command:
        yield words, command
    for name, one in inner.items():
        yield from _inside(one, (*words, name))


def taken(command: Any) -> list[Any]:
    """Return the parameters of a command that take a word."""
    return [
        one for one in command.params if not getattr(one, "is_flag", False) and one.name != "help"
    ]


@st.composite
def _line(draw: st.DrawFn, words: tuple[str, ...], command: Any) -> tuple[str, ...]:
    line = list(words)
    for one in command.params:
        if one.name == "help":
            continue
        options = [name for name in one.opts if name.startswith("-")]
        wanted = one.param_type_name == "argument" or draw(st.integers(0, 3)) == 0
        if not wanted or (one.param_type_name == "argument" and draw(st.integers(0, 19)) == 0):
            continue
        if getattr(one, "is_flag", False):
            line.append(options[0])
            continue
        word = draw(MEANINGS[one.name]())
        line += [options[0], word] if options else [word]
    if draw(st.integers(0, 19)) == 0:
        line.insert(draw(st.integers(0, len(line))), draw(odd("--", "-h", "--version", "--jsn")))
    return tuple(line)


@st.composite
def command_lines(draw: st.DrawFn, only: tuple[str, ...] | None = None) -> Attempt:
    """Return a command with odd words, in a folder with runs, and odd variables sometimes."""
    known = dict(commands())
    words = only if only is not None else draw(st.sampled_from(sorted(known)))
    line = draw(_line(words, known[words]))
    files = {**examples.trained(), **examples.planned(), "taken.txt": b"mine"}
    if words == ("quickstart",):
        files |= examples.default_model()
    attempt = Attempt((line,), files)
    return draw(_somewhere(attempt))


@st.composite
def _somewhere(draw: st.DrawFn, attempt: Attempt) -> Attempt:
    """Return an example in odd surroundings, one time in three."""
    if draw(st.integers(0, 2)):
        return attempt
    names = draw(st.lists(st.sampled_from(sorted(ENVIRONMENT)), max_size=2, unique=True))
    return replace(
        attempt,
        environment={name: draw(ENVIRONMENT[name]()) for name in names},
        stdin=draw(st.sampled_from(("", "y\n", "n\n", "hello\n\n")) | texts()),
        terminal=draw(st.booleans()),
        encoding=draw(st.sampled_from(ENCODINGS)),
    )
