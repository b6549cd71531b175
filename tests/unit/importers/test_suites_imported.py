"""What was imported runs: verdicts over results of other tools, without asking anybody."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from unitune.data.example import Example, Message
from unitune.errors import DataError, JobError, UserError
from unitune.evaluate.compare import compare
from unitune.evaluate.inference.sources import read_recorded
from unitune.importers.import_suite import DEFAULT_MAX_TOKENS, ImportUnsupported, import_suite
from unitune.importers.suite import Answers, Suite, joined, kept_scores
from unitune.job.contenders import Tuned, ZeroShot
from unitune.job.job import Job
from unitune.planning.plan import plan
from unitune.run.run import launch

MADE = Path(__file__).parent / "made"
RESULTS = f"promptfoo:{MADE / 'promptfoo' / 'results.json'}"
ECHOED = f"promptfoo:{MADE / 'promptfoo' / 'echo.jsonl'}"


def lm_eval(name: str) -> str:
    return f"lm-eval:{next((MADE / 'lm-eval' / name).glob('samples_*.jsonl'))}"


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNITUNE_DIR", str(tmp_path / ".unitune"))


def paired(path: Path, scores: Mapping[str, Mapping[int, bool]]) -> str:
    """Write a results file of promptfoo, as many tests as there are scores; return its source."""
    rows = [
        {
            "testIdx": test,
            "promptIdx": column,
            "prompt": {"raw": f"Question {test}?", "label": "p"},
            "provider": {"id": f"custom:{name}"},
            "response": {"output": "yes" if passed else "no"},
            "success": passed,
            "vars": {},
            "testCase": {"assert": [{"type": "llm-rubric", "value": "good"}]},
        }
        for column, (name, answers) in enumerate(scores.items())
        for test, passed in answers.items()
    ]
    path.write_text(json.dumps({"results": {"version": 3, "results": rows}}), encoding="utf-8")
    return f"promptfoo:{path}"


def test_results_of_a_judge_get_their_paired_verdict(tmp_path: Path) -> None:
    old = {test: test % 3 == 0 for test in range(60)}
    new = {test: test % 3 != 1 for test in range(60)}
    result = import_suite(
        [paired(tmp_path / "r.json", {"old": old, "new": new})], tmp_path / "evals"
    )

    comparison = compare(Job.load(tmp_path / "evals" / "unitune.yaml"))

    assert (
        comparison.verdict,
        comparison.gained,
        comparison.lost,
        comparison.n,
    ) == ("better", 20, 0, 60)
    assert (comparison.candidate, comparison.baseline) == ("custom:new", "custom:old")
    assert pytest.approx(comparison.difference) == 1 / 3
    assert [contender.usd for contender in comparison.contenders] == [None, None]
    assert result.job == Job.load(tmp_path / "evals" / "unitune.yaml")
    assert (tmp_path / ".unitune" / "evaluations" / "evals" / "r" / "verdict.json").exists()


def test_swapping_the_files_turns_the_verdict_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    differences = {}
    for order in (("small", "big"), ("big", "small")):
        folder = tmp_path / order[0]
        monkeypatch.setenv("UNITUNE_DIR", str(folder / "ledger"))  # neither is a second candidate
        import_suite([lm_eval(name) for name in order], folder)
        found = compare(Job.load(folder / "unitune.yaml"), out=folder / "out")
        differences[order] = (found.difference, *found.interval)
    forth, back = differences.values()
    assert pytest.approx(forth) == (-back[0], -back[2], -back[1])
    assert forth[0] == 0.5, "lm-eval says 0.5 and 1.0"


def test_logs_of_inspect_are_compared_by_their_own_scores(tmp_path: Path) -> None:
    pytest.importorskip("backports.zstd", reason="needs the extra inspect")
    logs = [f"inspect:{MADE / 'inspect' / f'capitals-{name}.eval'}" for name in ("small", "big")]
    import_suite(logs, tmp_path / "evals")
    found = compare(Job.load(tmp_path / "evals" / "unitune.yaml"))
    assert {contender.name: contender.score for contender in found.contenders} == {
        "openai/small": 0.625,
        "openai/big": 1.0,
    }


def test_an_answer_that_the_provider_failed_to_give_is_an_error_and_no_wrong_answer(
    tmp_path: Path,
) -> None:
    import_suite([RESULTS], tmp_path)
    job = Job.load(tmp_path / "unitune.yaml")
    assert [contender.role for contender in job.evaluate.contenders] == [
        "baseline",
        "reference",
        "candidate",
    ]
    errors = {contender.name: contender.errors for contender in compare(job).contenders}
    assert errors == {"small": 0, "big": 0, "broken": 1}


def test_a_suite_without_answers_waits_for_rows_to_train_on(tmp_path: Path) -> None:
    with pytest.raises(ImportUnsupported, match="2 items have no counterpart") as caught:
        import_suite([ECHOED], tmp_path / "evals")
    assert len(caught.value.findings) == 2
    assert not (tmp_path / "evals").exists()

    result = import_suite([ECHOED], tmp_path / "evals", drop=True)

    assert len(result.suite.findings) == 2
    job = Job.load(tmp_path / "evals" / "unitune.yaml")
    assert job.evaluate.contenders == (ZeroShot(), Tuned())
    assert job.evaluate.max_tokens == DEFAULT_MAX_TOKENS
    with pytest.raises(JobError, match="has no training rows, which tuned needs"):
        compare(job)
    assert [one.code for one in plan(job.with_backend("fake")).errors] == ["no-training-rows"]
    with pytest.raises(UserError, match=r"has no training rows.*data\.train"):
        launch(job.with_backend("fake"))


def test_importing_again_changes_nothing_and_leaves_other_files_alone(tmp_path: Path) -> None:
    import_suite([RESULTS], tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    import_suite([RESULTS], tmp_path)
    assert before == {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    (tmp_path / "test.jsonl").write_text("mine\n")
    with pytest.raises(UserError, match=r"exists with other content\. Nothing was written"):
        import_suite([RESULTS], tmp_path)


def test_recorded_scores_cannot_score_who_is_asked_afresh(tmp_path: Path) -> None:
    import_suite([RESULTS], tmp_path)
    file = tmp_path / "unitune.yaml"
    file.write_text(file.read_text().replace("contenders:", "contenders:\n  - zero-shot"))
    with pytest.raises(
        JobError, match=r"'promptfoo' reads scores of .* zero-shot gives new answers"
    ):
        Job.load(file)


def suite(file: str, expected: Mapping[str, str], model: str = "m", score: float = 1.0) -> Suite:
    question = (Message(role="user", content="?"),)
    return Suite(
        name="s",
        file=file,
        cases=tuple(Example(messages=question, id=key, expected=v) for key, v in expected.items()),
        scorers=(),
        answers=(Answers(model, dict(expected), {key: {"k": score} for key in expected}),),
    )


def test_files_of_one_model_are_told_apart_by_their_names() -> None:
    both = joined([suite("before.json", {"1": "a"}), suite("after.json", {"1": "a"})])
    assert [one.model for one in both.answers] == ["m (before)", "m (after)"]


def test_cases_that_do_not_stand_in_all_files_are_told() -> None:
    both = joined([suite("a.json", {"1": "a", "2": "b"}), suite("b.json", {"1": "a", "3": "c"})])
    assert [case.id for case in both.cases] == ["1"]
    assert [(finding.file, finding.code) for finding in both.findings] == [
        ("a.json", "not-in-all"),
        ("b.json", "not-in-all"),
    ]


def test_repeats_of_a_question_that_were_answered_otherwise_are_told(tmp_path: Path) -> None:
    """`promptfoo eval --repeat 2` makes two tests of one."""
    source = paired(tmp_path / "r.json", {"old": {0: True, 1: True}, "new": {0: True, 1: False}})
    file = Path(source.partition(":")[2])
    file.write_text(file.read_text().replace("Question 1?", "Question 0?"))
    with pytest.raises(ImportUnsupported, match="case 'test-2' has the question of 'test-1'"):
        import_suite([source], tmp_path / "evals")
    result = import_suite([source], tmp_path / "evals", drop=True)
    assert [case.id for case in result.suite.cases] == ["test-1"]


def test_line_ends_of_unicode_in_an_answer_end_no_line(tmp_path: Path) -> None:
    source = paired(tmp_path / "r.json", {"old": {0: True}, "new": {0: True}})
    file = Path(source.partition(":")[2])
    rows = json.loads(file.read_text())["results"]["results"]
    for row in rows:
        row["response"]["output"] = "a\u2028b\x85c"
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (tmp_path / "r.jsonl").write_text(lines, encoding="utf-8")

    import_suite([f"promptfoo:{tmp_path / 'r.jsonl'}"], tmp_path / "evals")

    answers = read_recorded(tmp_path / "evals" / "answers-custom-old.jsonl")
    assert answers["test-1"].answer == "a\u2028b\x85c"


def test_files_of_other_cases_are_refused() -> None:
    with pytest.raises(
        DataError, match=r"b\.json expects 'z' in case '1', but a\.json expects 'a'"
    ):
        joined([suite("a.json", {"1": "a"}), suite("b.json", {"1": "z"})])
    with pytest.raises(DataError, match=r"a\.json and b\.json have no case in common"):
        joined([suite("a.json", {"1": "a"}), suite("b.json", {"2": "a"})])


def test_only_scores_that_are_shares_and_everywhere_decide() -> None:
    one = Answers("m", {"1": "a", "2": "b"}, {"1": {"x": 1, "y": 7}, "2": {"x": 0, "y": 1, "z": 1}})
    assert [scorer.key for scorer in kept_scores([one])] == ["x"]


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ([RESULTS, lm_eval("small")], "all must be files of one tool"),
        (["promptfoo:"], "does not name a file"),
        ([RESULTS, "openai:ftjob-1"], "all must be files of one tool"),
    ],
)
def test_sources_that_do_not_go_together_are_refused(
    sources: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        import_suite(sources, tmp_path)


def test_scores_stand_beside_the_answers(tmp_path: Path) -> None:
    import_suite([lm_eval("small"), lm_eval("big")], tmp_path)
    one = read_recorded(tmp_path / "answers-small.jsonl")["capitals-0"]
    assert (
        one.answer,
        one.scores,
    ) == ("I do not know.", {"exact_match,strip": 0.0, "exact_match,first-word": 0.0})
