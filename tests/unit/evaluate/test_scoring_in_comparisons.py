"""Scorers in a comparison: rescoring, names, failures, fingerprints, what is missing."""

from __future__ import annotations

import html
import json
import subprocess
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from support.scoring import case
from support.told import PAIR, by_number

from unitune.errors import DataError, JobError, MissingExtra
from unitune.evaluate.compare import compare
from unitune.evaluate.documents.history import REPORTS
from unitune.evaluate.documents.records import Record
from unitune.evaluate.inference.journal import line_of, read_record
from unitune.evaluate.scoring.scorers import attempt_of, build, scorer_fingerprint
from unitune.job.job import Evaluate, Job
from unitune.render.terminal import view
from unitune.report import words
from unitune.report.comparison import describe
from unitune.report.files import write_report
from unitune.scorers import ScorerSpec, interface
from unitune.scorers.functions import PythonFunction, RecordedScore
from unitune.scorers.graders import OpenAIGrader
from unitune.scorers.interface import Scorer, Setting, leaves
from unitune.scorers.json_text import JsonSchema, ToolCalls
from unitune.scorers.labels import Choice
from unitune.scorers.overlap import Bleu, Chrf, Rouge, SentenceChrf, TokenF1
from unitune.scorers.text import Contains, EditDistance, Exact, Numeric
from unitune.workspace.install import install_command


@by_number
def rule(at: int, *, told: bool) -> str:
    """Zero-shot says yes in a sentence, instructed says it alone in half of the cases."""
    return "yes" if told and at % 2 else "I say yes"


def test_other_scorers_rescore_what_is_recorded_and_ask_nothing(
    make_job: Any, backend_of: Any
) -> None:
    backend = backend_of(rule)
    one = compare(make_job({"scorers": ["exact"], "contenders": PAIR}))
    asked = len(backend.requests)
    scorers = ["contains", "token_f1", {"type": "choice", "options": ["yes", "no"]}]
    other = compare(make_job({"scorers": scorers, "contenders": PAIR}))

    assert asked == len(backend.requests)
    assert [result.scores["exact"] for result in one.contenders] == [0.0, 0.5]
    zero_shot, instructed = (result.scores for result in other.contenders)
    assert zero_shot == {"contains": 1.0, "token_f1": 0.5, "choice": 1.0}
    assert instructed == {"contains": 1.0, "token_f1": 0.75, "choice": 1.0}


def test_two_scorers_of_one_type_have_names(make_job: Any, backend_of: Any) -> None:
    backend_of(rule)
    scorers = [
        {"type": "contains", "name": "strict"},
        {"type": "contains", "name": "lenient", "ignore_case": True},
    ]
    job = make_job({"scorers": scorers, "contenders": PAIR, "primary": "lenient"})
    found = compare(job)
    assert found.metric == "lenient"
    assert set(found.contenders[0].scores) == {"strict", "lenient"}
    with pytest.raises(ValueError, match="scorers names must be unique; repeated: contains"):
        Evaluate.model_validate({"scorers": ["contains", "contains"]})


BROKEN = "def f(answer, case):\n    return 1 / (answer != 'yes')\n"


def broken(make_job: Any, scorers: list[Any]) -> Job:
    job = make_job({"scorers": scorers, "contenders": PAIR})
    (job.folder / "f.py").write_text(BROKEN)
    return job


def test_a_scorer_that_fails_is_told_and_never_silently_a_zero(
    make_job: Any, backend_of: Any
) -> None:
    backend_of(rule)
    own = {"type": "python", "name": "own", "function": "f.py:f"}
    found = compare(broken(make_job, ["exact", own]))
    told = (
        "instructed: the scorer own failed on 30 answers, which count as 0. "
        "First reason: ZeroDivisionError: division by zero"
    )
    assert told in found.notes
    failed = found.cases[1].answers["instructed"]
    assert (failed.failed, failed.scores["own"], failed.error) == (("own",), 0.0, None)


def test_a_case_that_the_primary_scorer_cannot_score_is_a_case_in_error(
    make_job: Any, backend_of: Any
) -> None:
    backend_of(rule)
    found = compare(broken(make_job, [{"type": "python", "name": "own", "function": "f.py:f"}]))
    assert [result.errors for result in found.contenders] == [0, 30]
    assert found.cases[1].answers["instructed"].error == "ZeroDivisionError: division by zero"


def test_cases_that_can_never_be_right_are_refused_before_anybody_is_asked(
    make_job: Any, backend_of: Any
) -> None:
    backend = backend_of(rule)
    job = make_job({"scorers": ["numeric"], "contenders": PAIR}, test=[("test 1", "yes")])
    with pytest.raises(DataError, match=r"test\.jsonl:1: the expected answer 'yes' has no num"):
        compare(job)
    assert backend.requests == []


def test_tool_calls_are_recorded_and_scored() -> None:
    call = {"type": "function", "function": {"name": "stop", "arguments": "{}"}}
    row = case(
        None,
        messages=[
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
        ],
    )
    line = Record(contender="c", case="1", request_hash="h", tool_calls=(call,))
    read = read_record(line_of(line))
    scorer = build(ToolCalls())
    assert scorer.score(attempt_of(row, read)).value == 1
    failed = replace(read, error="down")
    assert scorer.score(attempt_of(row, failed)).value == 0


@pytest.mark.parametrize(
    ("spec", "fingerprint"),
    [
        (Exact(), "a1f6fef07709c27f"),
        (Numeric(tolerance=0.01), "5bf01c25b38b7bcb"),
        (Choice(options=("A", "B")), "3d3fc470c8d4abf5"),
        (Bleu(), "08d4148b3f55dc4f"),
    ],
)
def test_a_fingerprint_stays_what_it_is(spec: ScorerSpec, fingerprint: str) -> None:
    """A stored baseline is compared by it; only a raised `version` of a class may change one."""
    assert fingerprint == scorer_fingerprint(spec)


CHANGED: list[tuple[ScorerSpec, ScorerSpec]] = [
    (Exact(), Exact(ignore_case=True)),
    (Exact(), Contains()),
    (Numeric(), Numeric(tolerance=0.1)),
    (Rouge(), Rouge(variant="rouge1")),
]


@pytest.mark.parametrize(("one", "other"), CHANGED)
def test_a_changed_scorer_is_seen(one: ScorerSpec, other: ScorerSpec) -> None:
    assert scorer_fingerprint(one) != scorer_fingerprint(other)
    assert scorer_fingerprint(one) == scorer_fingerprint(one.model_copy(update={"name": "x"}))


def test_a_raised_version_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    before = scorer_fingerprint(Exact())
    monkeypatch.setattr(Exact, "version", 2)
    assert before != scorer_fingerprint(Exact())


def test_changed_labels_of_train_are_seen() -> None:
    one, other = Setting(labels=("a", "b")), Setting(labels=("a", "c"))
    assert scorer_fingerprint(Choice(), one) != scorer_fingerprint(Choice(), other)
    given = Choice(options=("a", "b"))
    assert scorer_fingerprint(given, one) == scorer_fingerprint(given, other)


@pytest.mark.parametrize(
    ("spec", "one", "other"),
    [
        (PythonFunction(function="file:f"), "def f(a, c): return 1", "def f(a, c): return 0"),
        (JsonSchema(definition="file"), {"type": "object"}, {"type": "array"}),
        (
            OpenAIGrader(grader="file"),
            {"type": "string_check", "input": "a", "reference": "b", "operation": "eq"},
            {"type": "string_check", "input": "a", "reference": "b", "operation": "ne"},
        ),
    ],
)
def test_a_changed_file_is_seen(tmp_path: Path, spec: Any, one: Any, other: Any) -> None:
    name = "file.py" if isinstance(spec, PythonFunction) else "file"
    spec = spec.model_copy(
        update={"function": "file.py:f"} if isinstance(spec, PythonFunction) else {}
    )

    def fingerprint(content: Any) -> str:
        (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
        return scorer_fingerprint(spec, Setting(tmp_path))

    assert fingerprint(one) == fingerprint(one) != fingerprint(other)


@pytest.mark.parametrize(
    ("spec", "package"),
    [
        (EditDistance(), "rapidfuzz"),
        (Rouge(), "rapidfuzz"),
        (SentenceChrf(), "sacrebleu"),
        (Bleu(), "sacrebleu"),
        (Chrf(), "sacrebleu"),
        (JsonSchema(definition={}), "jsonschema"),
    ],
)
def test_a_missing_package_gives_the_install_command(
    monkeypatch: pytest.MonkeyPatch, spec: Scorer, package: str
) -> None:
    monkeypatch.setattr(interface, "find_spec", lambda _name: None)
    with pytest.raises(MissingExtra, match=f"needs the package '{package}'") as caught:
        build(spec)
    assert install_command("metrics") in str(caught.value)


def test_scorers_of_a_plain_install_need_no_extra() -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['sacrebleu', 'rapidfuzz', 'jsonschema']))\n"
        "from unitune.evaluate.scoring.scorers import build\nfrom unitune.scorers import ENTRIES\n"
        "[build(ENTRIES[name]()) for name in ('exact', 'token_f1', 'json_fields')]\n"
        "build(ENTRIES['rouge'](variant='rouge2'))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_job_keeps_its_scorers_when_it_is_saved(make_job: Any, tmp_path: Path) -> None:
    scorers = [
        "exact",
        {"type": "numeric", "name": "sum", "tolerance": 0.01},
        {"type": "python", "function": "f.py:f"},
        {"type": "json_schema", "definition": {"type": "object"}},
        "length",
    ]
    job = make_job({"scorers": scorers, "contenders": PAIR})
    job.save(tmp_path / "saved.yaml")
    assert job == Job.load(tmp_path / "saved.yaml")
    assert "- exact\n" in (tmp_path / "saved.yaml").read_text()


def test_a_job_saved_elsewhere_still_names_its_scorers_files(make_job: Any, tmp_path: Path) -> None:
    scorers = [
        {"type": "python", "function": "f.py:f"},
        {"type": "json_schema", "definition": "s.json"},
        {"type": "grader", "grader": "g.json"},
    ]
    (tmp_path / "elsewhere").mkdir()
    make_job({"scorers": scorers, "contenders": PAIR}).save(tmp_path / "elsewhere/job.yaml")
    own, schema, grader = Job.load(tmp_path / "elsewhere/job.yaml").evaluate.scorers
    assert isinstance(own, PythonFunction)
    assert isinstance(schema, JsonSchema)
    assert isinstance(grader, OpenAIGrader)
    assert (
        own.function,
        schema.definition,
        grader.grader,
    ) == ("../f.py:f", "../s.json", "../g.json")


def test_the_jobs_schema_names_every_scorer_with_its_options() -> None:
    schema = Job.model_json_schema()["$defs"]
    assert {"tolerance", "relative", "take"} <= set(schema["Numeric"]["properties"])
    assert "Length" in schema


WORDING = "token_f1 measures closeness to the reference's wording."


def test_a_verdict_by_an_overlap_scorer_says_that_it_is_about_wording(compare_by: Any) -> None:
    """In every rendering: `better` alone would be believed of facts, which it cannot show."""
    gate = {"mode": "improve", "min_cases": 1}
    made = compare_by(rule, {"scorers": ["token_f1"], "contenders": PAIR, "gate": gate})
    assert made.gate is not None
    assert made.gate.passed
    headline = "“instructed” is closer to the reference's wording than the zero-shot prompt"
    assert headline == words.headline(made)
    assert made.folder is not None
    write_report(made)
    terminal = Console(width=400, file=StringIO(), record=True)
    terminal.print(view(describe(made)))
    renderings = {
        "terminal": terminal.export_text(),
        "gate": made.gate.reason,
        "notebook": html.unescape(made._repr_html_()),
        "JSON": json.loads((made.folder / "verdict.json").read_text())["caution"],
        **{name: html.unescape((made.folder / name).read_text()) for name in REPORTS},
    }
    assert [
        name
        for name, text in renderings.items()
        if WORDING not in text.replace("\\", "").replace("\u2019", "'").replace("\u00a0", " ")
    ] == []
    assert "CLOSER" in renderings["terminal"]
    assert "better by closeness to the reference's wording: instructed" in made.summary


def test_a_verdict_by_a_scorer_of_right_and_wrong_says_nothing_of_wording(compare_by: Any) -> None:
    made = compare_by(rule, {"scorers": ["exact", "token_f1"], "contenders": PAIR})
    assert "better than" in words.headline(made)
    assert made.caution == made.closeness == ""


@pytest.mark.parametrize("kind", leaves(Scorer), ids=lambda kind: kind.__name__)
def test_the_scorers_that_compare_wording_are_those_of_overlap(kind: type[Scorer]) -> None:
    alike = (Bleu, Chrf, EditDistance, Rouge, SentenceChrf, TokenF1)
    assert kind.compares_wording == issubclass(kind, alike)


def test_a_grader_of_text_similarity_compares_wording() -> None:
    grader = {"type": "text_similarity", "input": "{{sample.output_text}}", "reference": "x"}
    made = OpenAIGrader.model_validate({"grader": {**grader, "evaluation_metric": "gleu"}})
    assert made.ready(Setting(), "").closeness == "the reference's wording"


def test_scores_in_a_file_judge_answers_of_models_that_answer_afresh(
    make_job: Any, backend_of: Any, tmp_path: Path
) -> None:
    """A judge elsewhere scores every recorded answer, of a prompt chosen on dev too."""
    backend = backend_of(rule)
    contenders = [*PAIR, {"type": "few-shot", "role": "reference"}]
    first = compare(make_job({"scorers": ["exact"], "contenders": contenders}))
    asked = len(backend.requests)
    assert first.folder is not None
    files = sorted(first.folder.rglob("rows*.jsonl"))
    rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    judged = [{**row, "scores": {"judge": 0.8 if row["text"] == "yes" else 0.3}} for row in rows]
    lines = "".join(f"{json.dumps(row)}\n" for row in judged)
    (tmp_path / "judged.jsonl").write_text(lines)
    scorer = {"type": "recorded_score", "key": "judge", "file": "judged.jsonl"}
    made = compare(make_job({"scorers": [scorer], "contenders": contenders}))
    assert asked == len(backend.requests)
    scores = {each.name: each.score for each in made.contenders}
    assert pytest.approx((scores["zero-shot"], scores["instructed"])) == (0.3, 0.55)
    assert "few-shot" in scores
    assert not any(each.errors for each in made.contenders)


def test_a_score_counts_for_the_answer_that_it_was_given_for(tmp_path: Path) -> None:
    scored = case("yes")
    row = {"case": scored.case_id, "text": "yes", "scores": {"judge": 0.8}}
    (tmp_path / "judged.jsonl").write_text(json.dumps(row) + "\n")
    scorer = build(RecordedScore(key="judge", file="judged.jsonl"), Setting(tmp_path))
    same, other = (
        scorer.score(attempt_of(scored, Record(contender="c", case="", model="m", text=text,
                                               request_hash="h")))
        for text in ("yes", "no")
    )  # fmt: skip
    assert (same.value, same.failed) == (0.8, False)
    assert other.failed
    with pytest.raises(JobError, match=r"none\.jsonl: the scorer"):
        build(RecordedScore(key="judge", file="none.jsonl"), Setting(tmp_path))
    (tmp_path / "judged.jsonl").write_text('{"case": 1}\n')
    with pytest.raises(JobError, match="Each line needs case, text and scores"):
        build(RecordedScore(key="judge", file="judged.jsonl"), Setting(tmp_path))
