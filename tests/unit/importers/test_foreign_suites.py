"""Files of other tools are data of strangers: whatever stands in them, importing them is refused in
words (exit code 2) or works, within a bounded memory; it never fails as a bug of unitune's."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.command_line import Command

from unitune.errors import UserError
from unitune.evaluate.inference.sources import read_recorded
from unitune.importers.import_suite import import_suite

DEEP = "[" * 3000 + "]" * 3000
HALF = "\ud800"
CHOICES = {"x": {"arg_0": "q", "arg_1": " x"}, "y": {"arg_0": "q", "arg_1": " y"}}


def sample(**more: Any) -> dict[str, Any]:
    """A line of lm-eval's samples."""
    row = {"doc_id": 0, "target": "a", "arguments": {"gen": {"arg_0": "q", "arg_1": {}}}}
    return {**row, "resps": [["a"]], "metrics": ["acc"], "acc": 1.0, **more}


def chat(text: str) -> dict[str, Any]:
    return sample(arguments={"gen": {"arg_0": [text], "arg_1": {}}})


LM_EVAL: Mapping[str, tuple[Any, int, str]] = {
    "a chat that is no JSON": (chat("no json"), 2, "not a JSON list of messages"),
    "a deep chat": (chat(DEEP), 2, "not a JSON list of messages"),
    "an empty chat": (chat("[]"), 2, "but no question"),
    "a role that is none": (chat('[{"role": "alien"}]'), 2, "0.role"),
    "a likelihood that is none": (
        sample(arguments=CHOICES, resps=[["abc"], ["-1"]], target=1),
        2,
        "the likelihood 'abc'",
    ),
    "fewer likelihoods": (sample(arguments=CHOICES, resps=[], target=1), 2, "0 likelihoods for 2"),
    "the target ²": (sample(arguments=CHOICES, resps=[["-2"], ["-1"]], target="²"), 0, ""),
    "a target of many digits": (
        sample(arguments=CHOICES, resps=[["-2"], ["-1"]], target="9" * 5000),
        0,
        "",
    ),
    "half a surrogate": (sample(target=HALF, resps=[[HALF]]), 0, ""),
    "a score of 400 digits": (sample(acc=10**400), 2, "no score from 0 to 1"),
    "a score that is not finite": (sample(acc=float("nan")), 2, "no score from 0 to 1"),
    "a deep line": (DEEP, 2, ":1 is not JSON"),
    "a number of 5,000 digits": ("9" * 5000, 2, ":1 is not JSON"),
}


def lines(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("name", list(LM_EVAL))
def test_samples_of_lm_eval(name: str, unitune: Command, tmp_path: Path) -> None:
    content, code, words = LM_EVAL[name]
    file = "samples_t_2026-01-01T00-00-00.jsonl"
    text = content if isinstance(content, str) else json.dumps(content)
    (tmp_path / file).write_text(text + "\n")
    done = unitune("import", f"lm-eval:{file}", "--output", "made", "--drop")
    assert code == done.code, done.err
    assert words in lines(done.err)


def result(prompt: str, assertion: Any) -> str:
    """A results file of promptfoo with one test that was not run."""
    row = {"testIdx": 0, "promptIdx": 0, "prompt": {"raw": prompt}, "provider": {"id": "echo"}}
    case = {"testCase": {"assert": [assertion]}, "success": False}
    return json.dumps({"results": {"version": 3, "results": [{**row, **case}]}})


def equals(value: Any) -> dict[str, Any]:
    return {"type": "equals", "value": value}


ALIASES = "".join(f"  x{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9))
PROMPTFOO: Mapping[str, tuple[str, int, str]] = {
    "whole": (result("q", equals("x")), 0, ""),
    "aliases of aliases": (
        result(f"- role: user\n  content: x\n  x0: &a0 [x, x]\n{ALIASES}", equals("x")),
        0,
        "",
    ),
    "a deep prompt": (result("- role: " + DEEP, equals("x")), 0, ""),
    "a schema that is no JSON": (
        result("q", {"type": "is-json", "value": "{a: ["}),
        2,
        "no case is left",
    ),
    "a schema of aliases": (
        result("q", {"type": "is-json", "value": f"x0: &a0 [x, x]\n{ALIASES.replace('  x', 'x')}"}),
        2,
        "no case is left",
    ),
    "a pattern of 1,000 groups": (
        result("q", {"type": "regex", "value": f"{'(' * 1000}{')' * 1000}"}),
        2,
        "no case is left",
    ),
    "an assertion without a value": (result("q", {"type": "contains"}), 2, "no case is left"),
    "half a surrogate": (result(f"q {HALF}", equals(HALF)), 0, ""),
    "no assertion": (result("q", 5), 2, "no case is left"),
}


@pytest.mark.parametrize("name", list(PROMPTFOO))
def test_results_of_promptfoo(name: str, unitune: Command, tmp_path: Path) -> None:
    content, code, words = PROMPTFOO[name]
    (tmp_path / "r.json").write_text(content)
    done = unitune("import", "promptfoo:r.json", "--output", "made", "--drop")
    assert code == done.code, done.err
    assert words in lines(done.err)


@pytest.mark.parametrize("results", [5, "x", {}, [5], [[]]])
def test_results_of_promptfoo_of_another_shape(
    results: object, unitune: Command, tmp_path: Path
) -> None:
    (tmp_path / "r.json").write_text(json.dumps({"results": {"version": 3, "results": results}}))
    done = unitune("import", "promptfoo:r.json", "--output", "made")
    assert (done.code, "the format of promptfoo 0.121" in lines(done.err)) == (2, True)


def log(path: Path, samples: Mapping[str, bytes], **header: Any) -> None:
    """Write a log of inspect."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        begin = {"version": 2, "eval": {"task": "t", "model": "m", **header}}
        archive.writestr("header.json", json.dumps(begin))
        for name, content in samples.items():
            archive.writestr(f"samples/{name}", content)


def told(**more: Any) -> bytes:
    answer = {"role": "assistant", "content": "a", "source": "generate"}
    messages = [{"role": "user", "content": "q"}, answer]
    sample = {"id": 1, "input": "q", "target": "a", "messages": messages}
    output = {"output": {"completion": "a", "choices": [1]}, "scores": {"s": {"value": 1}}}
    return json.dumps({**sample, **output, **more}).encode()


LOGS: Mapping[str, tuple[bytes, int, str]] = {
    "whole": (told(), 0, ""),
    "deep": (DEEP.encode(), 2, "nested too deeply"),
    "half a surrogate": (told(input=HALF, target=HALF), 0, ""),
    "no UTF-8": (b'{"id": "\xff"}', 2, "is not JSON"),
    "no question": (told(input=[], messages=[]), 2, "no case is left"),
    "a score of 400 digits": (told(scores={"s": {"value": 10**400}}), 2, "no score"),
    "a list": (b"[]", 2, "not a sample"),
    "cut": (told()[:-5], 2, "is not JSON"),
}


@pytest.mark.parametrize("name", list(LOGS))
def test_logs_of_inspect(name: str, unitune: Command, tmp_path: Path) -> None:
    content, code, words = LOGS[name]
    log(tmp_path / "l.eval", {"1_epoch_1.json": content})
    done = unitune("import", "inspect:l.eval", "--output", "made", "--drop")
    assert code == done.code, done.err
    assert words in lines(done.err)


@pytest.mark.parametrize("damage", ["method", "encrypted", "cut", "bytes"])
def test_a_damaged_log_is_refused(damage: str, unitune: Command, tmp_path: Path) -> None:
    log(tmp_path / "l.eval", {"1_epoch_1.json": told()})
    content = bytearray((tmp_path / "l.eval").read_bytes())
    directory, local = content.rindex(b"PK\x01\x02"), content.index(b"PK\x03\x04", 4)
    match damage:
        case "method":  # PKWARE's APPNOTE 4.4.5: 97 is WavPack
            content[directory + 10] = content[local + 8] = 97
        case "encrypted":  # 4.4.4: bit 0
            content[directory + 8] |= 1
            content[local + 6] |= 1
        case "cut":
            del content[len(content) // 2 :]
        case _:
            content[local + 60 : local + 70] = b"\xff" * 10
    (tmp_path / "l.eval").write_bytes(content)
    done = unitune("import", "inspect:l.eval", "--output", "made", "--drop")
    assert (done.code, "l.eval" in lines(done.err)) == (2, True), done.err


PEAK = """
import pathlib, sys
from unitune import main
try:
    main.main()
finally:
    status = pathlib.Path("/proc/self/status").read_text()
    print(status.partition("VmHWM:")[2].split()[0], file=sys.stderr)
"""


def peak_mib(folder: Path, *arguments: str) -> tuple[int, str, int]:
    """Run a command in a process of its own: exit code, words, and its peak of memory in MiB."""
    if not Path("/proc/self/status").exists():
        pytest.skip("this system has no /proc to say how much memory a process took")
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    *said, peak = done.stderr.strip().split("\n")
    return done.returncode, lines(" ".join(said)), int(peak) // 1024


@pytest.mark.heavy
@pytest.mark.parametrize(("samples", "size"), [(1, 200 << 20), (30, 20 << 20)])
def test_a_log_that_unpacks_to_a_thousand_times_its_size_is_refused_unread(
    samples: int, size: int, tmp_path: Path
) -> None:
    content = b'{"id": 1, "input": "' + b"A" * size + b'"}'
    log(tmp_path / "bomb.eval", {f"{n}_epoch_1.json": content for n in range(samples)})
    del content
    code, words, peak = peak_mib(tmp_path, "import", "inspect:bomb.eval", "--output", "d", "--drop")
    assert (code, "decompress" in words) == (2, True), words
    assert peak < 200, "MiB; without the file a command takes some 80"


def test_files_of_two_models_have_two_names(tmp_path: Path) -> None:
    for at, model in enumerate(("a b", "a-b", "a-b-1"), start=1):
        log(tmp_path / f"l{at}.eval", {"1_epoch_1.json": told()}, model=model)
    made = import_suite([f"inspect:{tmp_path}/l{at}.eval" for at in (1, 2, 3)], tmp_path / "made")
    assert len(made.files) == 5, "the job, the cases, and the answers of three"


def test_recorded_answers_that_are_no_utf_8_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"case": "c", "answer": "\xff"}\n')
    with pytest.raises(UserError, match="in UTF-8"):
        read_recorded(tmp_path / "a.jsonl")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@given(data=st.data())
def test_any_value_in_any_place_is_read_or_refused(data: st.DataObject, tmp_path: Path) -> None:
    """A value of a file that is whole is exchanged for any other."""
    kind = data.draw(st.sampled_from(["inspect", "lm-eval"]))
    likelihoods = [["-2"], ["-1"]]
    choice = sample(arguments=deepcopy(CHOICES), resps=likelihoods)  # changed below
    row: Any = choice if kind == "lm-eval" else json.loads(told())
    spot, key = row, data.draw(st.sampled_from(sorted(row)))
    while isinstance(spot[key], dict | list) and spot[key] and data.draw(st.booleans()):
        spot = spot[key]
        key = data.draw(
            st.sampled_from(sorted(spot) if isinstance(spot, dict) else range(len(spot)))
        )
    spot[key] = data.draw(JSON)
    file = tmp_path / ("samples_t_2026-01-01T00-00-00.jsonl" if kind == "lm-eval" else "l.json")
    whole = (
        row
        if kind == "lm-eval"
        else {"version": 2, "eval": {"task": "t", "model": "m"}, "samples": [row]}
    )
    file.write_text(json.dumps(whole))
    folder = tmp_path / "made"
    for old in folder.glob("*"):
        old.unlink()
    with contextlib.suppress(UserError):
        import_suite([f"{kind}:{file}"], folder, drop=True)
