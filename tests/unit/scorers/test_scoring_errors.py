"""Whatever an answer does to a scorer, it is that case's error: never the command's, never a hang.

Patterns and schemas come from job files and suites of others, and texts from models.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import JsonValue
from support.recorded_jobs import RECORDED, write_answers, write_lines
from support.scoring import attempt, score
from support.warm import warm_run

from unitune.errors import DataError, JobError
from unitune.evaluate.scoring.scorers import build
from unitune.evaluate.verdict import baseline
from unitune.scorers.interface import Score
from unitune.scorers.json_text import JsonSchema
from unitune.scorers.text import Exact, Numeric, Regex, find_number

SLOW = "(a+)+$"
"""The standard example of exponential backtracking (OWASP, "Regular expression Denial of
Service"): some 2^n steps on n letters with another behind."""
VICTIM = "a" * 40 + "!"


def compare(folder: Path, scorers: list[Any], answers: list[str], expected: str = "x") -> Any:
    """Compare two recorded contenders, of which the candidate gave these answers."""
    cases = [f"c{number}" for number in range(len(answers))]
    rows = [{"id": case, "prompt": f"{case}?", "completion": expected} for case in cases]
    write_lines(folder / "test.jsonl", rows)
    write_answers(folder, dict.fromkeys(cases, expected), dict(zip(cases, answers, strict=True)))
    job = {
        "name": "odd",
        "model": "m",
        "backend": "openai",
        "data": {"test": "test.jsonl"},
        "evaluate": {"scorers": scorers, "contenders": RECORDED},
    }
    (folder / "unitune.yaml").write_text(json.dumps(job))
    compare = [sys.executable, "-m", "unitune", "compare", "unitune.yaml", "--output", "out"]
    return warm_run(compare, cwd=folder)


def errors_of(folder: Path) -> dict[str, str | None]:
    cases = json.loads((folder / "out" / "verdict.json").read_text())["contenders"]
    return {one["name"]: one["errors"] for one in cases}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e99999999999999999999", None),
        ("-1e99999999999999999999", None),
        ("0e99999999999999999999", Decimal(0)),
        ("1e-99999999999999999999", Decimal(0)),
        ("1e999999999999999999", Decimal("1e999999999999999999")),
        ("9" * 10_000, Decimal("9" * 10_000)),
    ],
)
def test_a_number_of_any_length_is_read(text: str, value: Decimal | None) -> None:
    assert value == find_number(text)


def test_a_number_beyond_all_measure_is_a_wrong_answer(tmp_path: Path) -> None:
    done = compare(tmp_path, ["numeric"], ["5", "1e99999999999999999999", "5"], "5")
    assert done.returncode == 0, done.stderr
    assert errors_of(tmp_path) == {"old": 0, "new": 0}
    assert score(Numeric(), "1e99999999999999999999", "1e9").value == 0


@pytest.mark.parametrize(
    "error",
    [
        ArithmeticError("x"),
        RecursionError("deep"),
        UnicodeError("no text"),
        MemoryError(),
        AssertionError(),
    ],
)
def test_what_a_scorer_raises_fails_that_case(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def judge(_self: object, _attempt: object) -> float:
        raise error

    monkeypatch.setattr(Exact, "judge", judge)
    found = build(Exact()).score(attempt("a", "a"))
    assert Score(0.0, f"{type(error).__name__}: {error}", failed=True) == found


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.5, 1.5, 10**400])
def test_a_score_that_is_no_share_fails_that_case(
    value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def judge(_self: object, _attempt: object) -> float:
        return value

    monkeypatch.setattr(Exact, "judge", judge)
    found = build(Exact()).score(attempt("a", "a"))
    assert (found.value, found.failed) == (0.0, True)


def test_scoring_errors_are_the_gates_to_judge_and_the_same_again(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "def judge(answer, case):\n"
        "    if 'bad' in answer:\n"
        "        raise RecursionError('\\ud800')\n"
        "    return {'score': 1, 'reason': 'half \\ud800'}\n"
    )
    scorers = [{"type": "python", "function": "own.py:judge"}]
    for _ in range(2):
        done = compare(tmp_path, scorers, ["x", "bad", "x"])
        assert done.returncode == 0, done.stderr
        assert errors_of(tmp_path) == {"old": 0, "new": 1}
    assert len((tmp_path / "out" / "rows.jsonl").read_text().splitlines()) - 2 == 4


def limited(make: Callable[[], Score]) -> Score:
    """Return a score that took little more than the limit."""
    since = time.monotonic()
    found = make()
    assert time.monotonic() - since < 15, "a busy machine, and no hang"
    return found


SCHEMAS: dict[str, JsonSchema] = {
    "a pattern": JsonSchema(definition={"pattern": SLOW}),
    "a pattern of keys": JsonSchema(definition={"patternProperties": {SLOW: {}}}),
    "a pattern of other keys": JsonSchema(
        definition={"additionalProperties": False, "patternProperties": {SLOW: {}}}
    ),
}


@pytest.mark.parametrize("name", list(SCHEMAS))
def test_a_slow_pattern_in_a_schema_fails_that_case(name: str) -> None:
    answer = json.dumps(VICTIM if name == "a pattern" else {VICTIM: 1})
    found = limited(lambda: score(SCHEMAS[name], answer, "x"))
    assert found.failed
    assert "longer than 1 s" in found.reason


def test_a_schema_that_doubles_with_each_reference_is_refused() -> None:
    parts: dict[str, JsonValue] = {
        f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}, {"$ref": f"#/$defs/d{n + 1}"}]}
        for n in range(40)
    }
    schema: dict[str, JsonValue] = {"$defs": {**parts, "d40": {}}, "$ref": "#/$defs/d0"}
    with pytest.raises(JobError, match="longer than 1 s"):
        build(JsonSchema(definition=schema))


def test_a_slow_pattern_fails_its_cases_alone(tmp_path: Path) -> None:
    done = compare(tmp_path, [{"type": "regex", "pattern": SLOW}], ["aaa", VICTIM, "aa"], "a")
    assert done.returncode == 0, done.stderr
    assert errors_of(tmp_path) == {"old": 0, "new": 1}
    assert "longer than 1 s" in (tmp_path / "out" / "report.html").read_text()


def test_a_pattern_that_cannot_be_compiled_is_the_jobs_fault(tmp_path: Path) -> None:
    for pattern in ("(" * 1000 + ")" * 1000, "a{99999999999999999999}", "("):
        done = compare(tmp_path, [{"type": "regex", "pattern": pattern}], ["a"])
        assert done.returncode == 2, done.stderr
        assert "not a regular expression" in " ".join(done.stderr.split())


def test_patterns_are_limited_in_any_thread_and_serve_on_afterwards() -> None:
    found: list[Score] = []
    threads = [
        threading.Thread(target=lambda: found.append(score(Regex(pattern=SLOW), VICTIM, "x")))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.failed for one in found] == [True, True]
    assert score(Regex(pattern="^é+$"), "éé", "x").value == 1


@pytest.mark.parametrize("score", ["7", "-1", "1e999", '"x"', "[" * 100_000])
def test_a_baseline_with_a_score_that_is_none_is_refused(score: str, tmp_path: Path) -> None:
    path = tmp_path / "baseline.jsonl"
    head = '{"schema_version":1,"metric":"exact","scorers":{"exact":"a"}}'
    path.write_text(f'{head}\n{{"id":"a","content":"b","scores":{{"exact":{score}}}}}\n')
    with pytest.raises(DataError, match=r"baseline\.jsonl:2 is not a line of a baseline"):
        baseline.read(path)
