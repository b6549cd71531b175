"""With no extra installed, offers are read, jobs planned and rows converted for every vendor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from unitune.workspace.install import install_command

BLOCKED = (
    "anthropic",
    "azure",
    "boto3",
    "botocore",
    "google",
    "httpx2",
    "openai",
    "peft",
    "pyarrow",
    "together",
    "torch",
    "transformers",
)
ROWS = "".join(
    json.dumps(
        {
            "messages": [
                {"role": "user", "content": f"What is {number} times two?"},
                {"role": "assistant", "content": str(2 * number)},
            ]
        }
    )
    + "\n"
    for number in range(200)
)
READ_ALL = """
from unitune.backends import registry
from unitune.backends.formats import format_names, wire_format
for name in registry.backend_names():
    assert registry.offer(name).name == name
for name in format_names():
    assert wire_format(name).encode
print(len(format_names()))
"""
OPEN = """
from unitune.backends import registry
from unitune.errors import MissingExtra
try:
    registry.backend(sys.argv[1])
except MissingExtra as missing:
    print(missing)
"""
TALK = """
import contextlib, io, json
from unitune.backends import registry
from unitune.main import main
registry._is_installed = lambda package: False
heard = []
for sys.argv in json.loads(sys.argv[1]):
    out, code = io.StringIO(), 0
    with contextlib.redirect_stdout(out):
        try:
            main()
        except SystemExit as end:
            code = end.code
    heard.append([code, out.getvalue()])
print(json.dumps(heard))
"""
"""Runs command lines, in a process in which no extra is installed, and prints what each said."""
MODELS = {
    "azure": "gpt-4.1",
    "bedrock": "amazon.nova-micro-v1:0",
    "nebius": "meta-llama/Llama-3.3-70B-Instruct",
    "openai": "gpt-4.1",
    "vertex": "gemini-3.5-flash",
}
WITH_SDK = ("bedrock", "vertex")
FORMATS = ("bedrock-nova", "bedrock-prompt", "openai-chat", "together-chat", "vertex-sft")


def blocked(code: str, folder: Path, *arguments: str, packages: tuple[str, ...] = BLOCKED) -> str:
    """Run code in a process of its own in which no vendor's SDK can be imported."""
    block = f"import sys; sys.modules.update(dict.fromkeys({packages!r}))\n"
    done = subprocess.run(
        [sys.executable, "-c", block + code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, "UNITUNE_DIR": str(folder / "home"), "UNITUNE_TODAY": "2026-11-25"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def said(folder: Path, *commands: str) -> list[str]:
    """Return what command lines print; each must end well."""
    lines = json.dumps([["unitune", *command.split()] for command in commands])
    heard = json.loads(blocked(TALK, folder, lines))
    assert [0] * len(commands) == [code for code, _ in heard], heard
    return [text for _, text in heard]


@pytest.mark.parametrize(("backend", "package"), [("bedrock", "boto3"), ("vertex", "google.auth")])
def test_a_package_that_is_imported_late_is_missed_at_once(
    tmp_path: Path, backend: str, package: str
) -> None:
    pytest.importorskip(package, reason="needs the vendors' extras")
    said = blocked(OPEN, tmp_path, backend, packages=(package,))
    assert install_command(backend) in said


@pytest.mark.parametrize("backend", ["azure", "fireworks", "mantle", "nebius", "openai"])
def test_a_backend_without_a_package_of_its_own_opens(tmp_path: Path, backend: str) -> None:
    assert blocked(OPEN, tmp_path, backend) == ""


def test_every_offer_and_every_format_is_read(tmp_path: Path) -> None:
    assert int(blocked(READ_ALL, tmp_path)) >= 9


def test_jobs_are_planned_for_every_vendor_and_what_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(ROWS)
    for backend, model in MODELS.items():
        job = f"name: a\nmodel: {model}\nbackend: {backend}\ndata: {{train: train.jsonl}}\n"
        (tmp_path / f"{backend}.yaml").write_text("version: 1\n" + job)
    plans = said(tmp_path, *(f"plan {backend}.yaml --json" for backend in MODELS))
    for backend, text in zip(MODELS, plans, strict=True):
        found = json.loads(text)
        assert backend == found["backend"]
        if backend in WITH_SDK:
            assert "missing-extra" in {finding["code"] for finding in found["findings"]}


def test_rows_are_checked_and_converted_to_every_vendors_format(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(ROWS)
    converts = [f"data convert train.jsonl --to {name} -o {name}.jsonl" for name in FORMATS]
    said(tmp_path, "check train.jsonl", *converts)
    for name in FORMATS:
        assert len((tmp_path / f"{name}.jsonl").read_text().splitlines()) == 200, name


def test_backends_are_listed_as_not_installed(tmp_path: Path) -> None:
    (text,) = said(tmp_path, "backends --json")
    views = {view["offer"]["name"]: view for view in json.loads(text)["backends"]}
    assert set(MODELS) <= set(views)
    assert not any(views[name]["installed"] for name in WITH_SDK)
