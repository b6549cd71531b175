"""`check JOB`, `plan` and `run` find what `compare` would refuse, before a training is paid for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.command_line import Command
from support.job_files import change, write_rows

from unitune.job.job import Job

JOB = """
name: demo
model: any
backend: fake
data: {train: train.jsonl, test: test.jsonl, validation: 0.2}
evaluate: {EVALUATE}
"""


def write(folder: Path, evaluate: str) -> Path:
    for name, count, what in (
        ("train", 120, "May one do this"),
        ("test", 30, "Was that ever so with you"),
    ):
        answers = ("yes", "no", "maybe")
        rows = (
            {"prompt": f"{what} {n}?", "completion": answers[n % 3], "lang": "cs", "who": n}
            for n in range(count)
        )
        write_rows(folder / f"{name}.jsonl", rows)
    (folder / "old.jsonl").write_text('{"case": "elsewhere", "answer": "yes"}\n')
    (folder / "checks.py").write_text('raise SystemExit("it ran")\ndef polite(a, c): return 1\n')
    file = folder / "unitune.yaml"
    file.write_text(JOB.replace("{EVALUATE}", evaluate))
    return file


BROKEN = {
    "{slices: [nokey]}": "evaluate.slices names 'nokey', but no test case has this key",
    "{clusters: nokey}": "evaluate.clusters is 'nokey', but test case",
    '{scorers: [{type: python, function: "nope.py:score"}]}': "names 'nope.py', which is neither",
    '{scorers: [{type: python, function: "checks.py:rude"}]}': "checks.py has no function 'rude'",
    "{scorers: [numeric]}": "so the scorer numeric could never accept an answer",
    "{scorers: [json_equal]}": "so the scorer json_equal could never accept an answer",
    '{scorers: [{type: choice, options: ["A", "B"]}]}': "names none of the 2 options",
    "{scorers: [tool_calls]}": "could never reject an answer to",
    "{gate: {mode: improve, required_cases: [nobody]}}": "There is no case 'nobody'",
    "{contenders: [tuned]}": "'tuned' has no baseline",
    "{contenders: [{type: few-shot, shots: 500}, tuned]}": "only 96 distinct questions",
    "{contenders: [{type: recorded, answers: old.jsonl}, tuned]}": "has no answer to any of the 30",
    "{scorers: [bleu], gate: {mode: no-regress, baseline: b.jsonl}}": "stores a score per case",
    "{contenders: [{type: model, backend: lokal, model: m, prompt: zero-shot}, tuned]}": "'lokal'",
}

UNPRICED = """{budget: {usd: 1}, contenders: [tuned, zero-shot,
    {type: model, backend: openai, model: own, prompt: zero-shot}]}"""


@pytest.mark.parametrize("evaluate", BROKEN)
@pytest.mark.parametrize("command", ["check", "plan", "run", "compare"])
def test_what_compare_refuses_is_found_before(
    unitune: Command, tmp_path: Path, command: str, evaluate: str
) -> None:
    told = unitune(command, str(write(tmp_path, evaluate)))
    assert told.code == 2
    assert BROKEN[evaluate] in " ".join((told.out + told.err).split())
    assert "No runs in this project yet" in unitune("runs").out


def test_the_scorers_own_code_does_not_run(unitune: Command, tmp_path: Path) -> None:
    file = write(tmp_path, '{scorers: [{type: python, function: "checks.py:polite"}]}')
    for command in ("check", "plan"):
        told = unitune(command, str(file))
        assert told.code == 0, told.out + told.err


@pytest.mark.parametrize(
    ("evaluate", "said"),
    [
        ("{gate: {mode: improve, min_cases: 31}}", "the gate can only be inconclusive"),
        ("{contenders: [{type: recorded, answers: nope.jsonl}, tuned]}", "nope.jsonl cannot be"),
        ("{gate: {mode: no-regress, baseline: baseline.jsonl}}", "--update-baseline"),
        (UNPRICED, "the price of own is unknown"),
    ],
)
def test_what_may_still_be_put_right_is_a_warning(
    unitune: Command, tmp_path: Path, evaluate: str, said: str
) -> None:
    told = unitune("check", str(write(tmp_path, evaluate)))
    assert told.code == 0
    assert said in " ".join(told.out.split())


def test_cases_with_another_system_prompt_than_the_training_are_found(
    unitune: Command, tmp_path: Path
) -> None:
    file = write(tmp_path, "{}")
    for name, system in (("train", "Say yes or no."), ("test", "Be brief.")):
        path = tmp_path / f"{name}.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        write_rows(path, ({**row, "system": system} for row in rows))
    told = unitune("check", str(file))
    assert told.code == 2
    assert "not trained with the system prompt of 30 test cases" in " ".join(told.out.split())


def test_required_cases_that_would_be_dropped_are_found(unitune: Command, tmp_path: Path) -> None:
    file = write(tmp_path, "{leaks: drop, gate: {mode: improve, required_cases: [same]}}")
    first = json.loads((tmp_path / "train.jsonl").read_text().splitlines()[0])
    with (tmp_path / "test.jsonl").open("a") as test:
        test.write(json.dumps({**first, "id": "same"}) + "\n")
    told = unitune("check", str(file))
    assert told.code == 2
    assert "the case same is required but also occurs in training" in " ".join(told.out.split())


def test_a_job_without_test_cases_is_told_that_it_cannot_be_compared(
    unitune: Command, tmp_path: Path
) -> None:
    file = write(tmp_path, "{}")
    change(file, "test: test.jsonl, ", "")
    told = unitune("check", str(file))
    assert told.code == 0
    assert "It can be trained, but `unitune compare` refuses it" in " ".join(told.out.split())


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("backend: fake", "backend: lokal", "There is no backend 'lokal'"),
        ("backend: fake", "backend: nebius\nmethod: rft", "nebius cannot do rft"),
        (
            "model: any\nbackend: fake",
            "model: {fake: any}\nbackend: openai",
            "for backend 'openai'",
        ),
    ],
)
def test_check_finds_what_the_backend_cannot_do(
    unitune: Command, tmp_path: Path, old: str, new: str, said: str
) -> None:
    file = write(tmp_path, "{}")
    change(file, old, new)
    told = unitune("check", str(file))
    assert told.code == 2
    assert said in " ".join((told.out + told.err).split())


def test_a_job_that_is_ready_is_found_so(unitune: Command, tmp_path: Path) -> None:
    file = write(tmp_path, "{scorers: [choice], slices: [lang], clusters: who}")
    assert Job.load(file).evaluate.slices
    assert unitune("check", str(file)).code == 0


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("options: {local: {liger: true}}", "options.local.liger is not a known key"),
        ("options: {local: {packing: true}}", "Rows are always packed"),
        ("options: {local: {quantization: fp8}}", "options.local.quantization is 'fp8'"),
        ("options: {local: {dtype: bf16}}", "Write `bfloat16`"),
        ("tuning: {callbacks: [gone.py:log]}", "gone.py"),
        ("model: ./none.gguf", "'./none.gguf'"),
    ],
)
def test_check_refuses_the_options_that_plan_would_refuse(
    unitune: Command, tmp_path: Path, section: str, said: str
) -> None:
    file = write(tmp_path, "{scorers: [exact]}")
    change(file, "model: any\nbackend: fake", "backend: local")
    model = "" if section.startswith("model") else "model: x/any\n"
    file.write_text(f"{file.read_text()}{model}{section}\n")
    shown = unitune("check", str(file))
    assert shown.code == 2
    assert said in " ".join(shown.out.split())
