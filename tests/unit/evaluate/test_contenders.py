"""Contenders beyond the ladder: borrowed prompts, other models, servers; how prompts are bound."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from support.told import PAIR, number, told
from support.trained_runs import trained

from unitune.data.dataset import Dataset
from unitune.data.load import load
from unitune.errors import JobError, Mismatch, NotFoundError, UserError
from unitune.evaluate.compare import compare
from unitune.evaluate.prompts.prompts import check_prompts
from unitune.job.contenders import Server, Tuned
from unitune.job.job import Evaluate, Job
from unitune.models import Reply, Request
from unitune.report import words

TWO = [
    {"type": "zero-shot"},
    {"type": "instructed", "instructions": "TOLD"},
    "tuned",
]
WITH_PROMPT = {"type": "tuned", "name": "with-prompt", "role": "reference", "prompt": "baseline"}


def by_being_told(name: str, request: Request) -> str:
    """The base is right when told; the tuned model when told or not, but on no even case alone."""
    if name == "base":
        return "yes" if told(request) else "no"
    return "yes" if told(request) or number(request) % 2 else "no"


@pytest.mark.parametrize("contenders", [[WITH_PROMPT, *TWO], [*TWO, WITH_PROMPT]])
def test_a_tuned_model_is_asked_with_the_prompt_that_the_best_baseline_chose(
    contenders: list[Any], make_job: Any, backend_of: Any
) -> None:
    """Wherever it stands in the job, because all baselines choose before."""
    job = make_job({"contenders": contenders})
    run = trained(job)
    assert run.tuned_model is not None
    backend = backend_of(by_being_told)
    found = compare(job, run)
    assert found.baseline == "instructed"
    results = {result.name: result for result in found.contenders}
    assert (results["tuned"].score, results["with-prompt"].score) == (0.5, 1.0)
    assert results["with-prompt"].effort.endswith(
        "; prompted with the prompt of instructed: instructions"
    )
    assert "asked with" not in results["tuned"].effort
    tuned = run.tuned_model.name
    assert [line.split()[1] for line in backend.log if "load" in line] == [tuned, "base", tuned]


def test_a_borrowed_prompt_brings_its_shots(make_job: Any, backend_of: Any) -> None:
    few = {"type": "few-shot", "shots": 2, "choose": "nearest"}
    job = make_job({"contenders": [few, {**WITH_PROMPT, "role": "candidate"}]})
    run = trained(job)
    backend = backend_of(lambda _name, _request: "yes")
    compare(job, run)
    lengths = {len(request.messages) for request in backend.requests}
    assert lengths == {1 + 2 * 2 + 1}


def test_a_replay_borrows_the_same_prompt(make_job: Any, backend_of: Any) -> None:
    job = make_job({"contenders": [WITH_PROMPT, *TWO]})
    run = trained(job)
    backend_of(by_being_told)
    first = compare(job, run)
    again = compare(job, run, replay=True)
    assert first.contenders == again.contenders


def test_other_models_compete_with_prompts_of_their_own(make_job: Any, backend_of: Any) -> None:
    backend = backend_of(lambda name, request: "yes" if name == "gpt" and told(request) else "no")
    other = {"type": "model", "backend": "fake", "model": "gpt"}
    job = make_job(
        {
            "instructions": "TOLD",
            "contenders": [
                "zero-shot",
                {**other, "role": "candidate"},
                {**other, "name": "bare", "prompt": "zero-shot"},
                {**other, "name": "shown", "prompt": "few-shot", "shots": 4},
            ],
        }
    )
    found = compare(job)
    assert (found.candidate, found.run, found.verdict) == ("gpt", None, "better")
    assert {result.name: result.score for result in found.contenders} == {
        "zero-shot": 0.0,
        "gpt": 1.0,
        "bare": 0.0,
        "shown": 1.0,
    }
    assert [line for line in backend.log if line.startswith("load")] == ["load gpt", "load base"]
    shown = found.contenders[3]
    assert (shown.type, shown.role) == ("model", "reference")
    assert shown.effort.startswith("tried 4 prompts on 20 dev rows")
    assert found.provenance["Model of shown"] == "rule:gpt"


def test_the_best_of_baselines_may_be_another_model(compare_by: Any) -> None:
    other = {"type": "model", "backend": "fake", "model": "gpt", "role": "baseline"}
    contenders = [*PAIR, {**other, "instructions": "x"}]
    found = compare_by(
        lambda name, _request: "yes" if name == "gpt" else "no", {"contenders": contenders}
    )
    assert (found.baseline, found.verdict) == ("gpt", "worse")


def test_a_backend_that_nobody_brings_is_told_before_anything_is_asked(make_job: Any) -> None:
    other = {"type": "model", "backend": "locl", "model": "gpt", "role": "candidate"}
    job = make_job({"contenders": ["zero-shot", {**other, "prompt": "zero-shot"}]})
    with pytest.raises(NotFoundError, match="Did you mean 'local'"):
        compare(job)


class PlayedServer:
    """Stands in for the client of servers; the client has tests of its own."""

    made: list[tuple[str, str, str | None]] = []  # noqa: RUF012 - emptied by the fixture

    def __init__(
        self, url: str, model: str, *, key: Callable[[], str | None] | None = None
    ) -> None:
        self.made.append((url, model, key() if key else None))
        self.fingerprint = f"{url}:{model}"

    async def reply(self, request: Request) -> Reply:
        return Reply(text="yes" if told(request) else "no")

    async def aclose(self) -> None:
        pass


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str | None]]:
    monkeypatch.setattr("unitune.backends.kit.chat.open_server", PlayedServer)
    PlayedServer.made = []
    return PlayedServer.made


SERVER = {
    "type": "server",
    "url": "http://127.0.0.1:8000/v1",
    "model": "qwen",
    "role": "candidate",
    "instructions": "TOLD",
}


def test_a_server_is_asked_with_the_key_from_the_environment(
    make_job: Any,
    backend_of: Any,
    servers: list[tuple[str, str, str | None]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    backend_of(lambda _name, _request: "no")
    monkeypatch.setenv("QWEN_KEY", "very-secret")
    monkeypatch.setenv("UNITUNE_ALLOW_KEYS", "QWEN_KEY@http://127.0.0.1:8000")
    job = make_job({"contenders": ["zero-shot", {**SERVER, "api_key_variable": "QWEN_KEY"}]})
    found = compare(job)
    assert (found.candidate, found.verdict) == ("qwen", "better")
    assert servers == [("http://127.0.0.1:8000/v1", "qwen", "very-secret")]
    written = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert written
    assert [file for file in written if b"very-secret" in file.read_bytes()] == []


def test_a_key_that_is_not_set_is_told_before_anything_is_asked(
    make_job: Any, backend_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = backend_of(lambda _name, _request: "no")
    monkeypatch.delenv("QWEN_KEY", raising=False)
    monkeypatch.setenv("UNITUNE_ALLOW_KEYS", "QWEN_KEY@http://127.0.0.1:8000")
    job = make_job({"contenders": ["zero-shot", {**SERVER, "api_key_variable": "QWEN_KEY"}]})
    with pytest.raises(UserError, match="variable QWEN_KEY is not set"):
        compare(job)
    assert backend.requests == []


def test_names_default_to_those_of_the_models_and_survive_saving(tmp_path: Path) -> None:
    specs = [
        {"type": "model", "backend": "fake", "model": "gpt", "prompt": "few-shot", "shots": 3},
        {"type": "server", "url": "http://host/v1", "model": "qwen", "role": "candidate"},
        "zero-shot",
    ]
    evaluate = Evaluate.model_validate({"contenders": specs})
    assert [spec.name for spec in evaluate.contenders] == ["gpt", "qwen", "zero-shot"]
    job = Job(name="a", model="b", backend="fake", data={"train": "t.jsonl"}, evaluate=evaluate)  # pyright: ignore[reportArgumentType]
    job.save(tmp_path / "job.yaml")
    assert evaluate == Job.load(tmp_path / "job.yaml").evaluate


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"prompt": "zero-shot", "shots": 4}, "prompt zero-shot does not take shots or choose"),
        ({"choose": "nearest"}, "prompt instructed does not take shots or choose"),
        (
            {"prompt": "zero-shot", "instructions": "x"},
            "prompt zero-shot does not take instructions",
        ),
        ({"api_key_variable": "sk-123"}, "write the name of an environment variable"),
    ],
)
def test_settings_of_another_prompt_are_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        Server.model_validate({"url": "http://host/v1", "model": "qwen", **wrong})


def test_training_rows_are_asked_for_where_a_prompt_needs_them(make_job: Any) -> None:
    job = make_job({"contenders": ["zero-shot", SERVER | {"prompt": "few-shot"}]})
    without = job.model_copy(update={"data": job.data.model_copy(update={"train": None})})
    with pytest.raises(JobError, match="which qwen needs"):
        compare(without)


@pytest.mark.usefixtures("servers")
def test_in_batches_models_of_the_backend_are_batched_and_others_asked_one_by_one(
    make_job: Any, tmp_path: Path
) -> None:
    other = {"type": "model", "backend": "fake", "model": "gpt", "prompt": "zero-shot"}
    found = compare(
        make_job({"contenders": ["zero-shot", SERVER, other]}), out=tmp_path / "out", batch=True
    )
    assert {result.name: result.score for result in found.contenders} == {
        "zero-shot": 0.0,
        "qwen": 1.0,
        "gpt": 0.0,
    }
    batches = (tmp_path / "out" / "batches.jsonl").read_text()
    assert {
        json.loads(line)["contender"] for line in batches.splitlines() if "contender" in line
    } == {"zero-shot", "gpt"}


def test_a_case_with_another_system_prompt_than_training_is_a_mismatch(
    make_job: Any, tmp_path: Path
) -> None:
    job = make_job({"contenders": ["zero-shot", "tuned"]})
    run = trained(job)
    file = tmp_path / "test.jsonl"
    file.write_text(file.read_text().replace("You sort mail.", "You answer.", 7))
    with pytest.raises(
        Mismatch, match=r"system prompt of 7 test cases, such as 'You answer\.'"
    ) as caught:
        compare(job, run)
    assert "have 'You sort mail.'" in str(caught.value)
    assert caught.value.exit_code == 5


def test_a_contender_that_names_another_prompt_takes_cases_as_they_are(
    make_job: Any, tmp_path: Path
) -> None:
    job = make_job({"contenders": ["zero-shot", {**WITH_PROMPT, "role": "candidate"}]})
    run = trained(job)
    file = tmp_path / "test.jsonl"
    file.write_text(file.read_text().replace("You sort mail.", "You answer."))
    assert compare(job, run).candidate == "with-prompt"


def test_system_prompts_that_hold_content_bind_nothing(make_job: Any, tmp_path: Path) -> None:
    """Every row has its own, as where a document stands there."""
    job = make_job({"contenders": ["zero-shot", "tuned"]})
    for name in ("train", "test"):
        file = tmp_path / f"{name}.jsonl"
        lines = enumerate(file.read_text().splitlines())
        file.write_text(
            "".join(f"{line.replace('You sort mail.', f'{name} {at}')}\n" for at, line in lines)
        )
    assert compare(job, trained(job)).candidate == "tuned"


def test_a_run_whose_rows_are_not_kept_binds_nothing(make_job: Any, tmp_path: Path) -> None:
    """As of a job that is only compared: there is nothing to hold the cases against."""
    make_job({"contenders": ["zero-shot", "tuned"]})
    cases = load(tmp_path / "test.jsonl")
    check_prompts(Tuned(), (Dataset("train", ()),), cases)


FINALISTS = {
    "instructions": "RULES",
    "contenders": [
        {"type": "few-shot", "shots": 4, "choose": "random"},
        {"type": "instructed", "role": "candidate", "instructions": "TOLD"},
    ],
    "gate": {"mode": "improve"},
}


def dev_errs(_model: str, request: Request) -> str:
    """On dev the prompt without rules is one row behind; on the test it alone is always right."""
    system, question = request.messages[0].text, request.messages[-1].text
    at, plain = int(question.split()[1]), "RULES" not in system
    if question.startswith("dev"):
        return "no" if plain and at == 0 else "yes"
    return "yes" if plain or at % 2 else "no"


def test_every_finalist_of_few_shot_has_to_be_beaten(compare_by: Any) -> None:
    found = compare_by(dev_errs, FINALISTS)
    hardest = "few-shot: 4 shots without instructions"
    assert [each.name for each in found.contenders] == [
        "few-shot",
        hardest,
        "few-shot: 4 other shots with instructions",
        "instructed",
    ]
    assert {"few-shot": "better", hardest: "equivalent"}.items() <= {
        each.name: each.verdict for each in found.baselines
    }.items()
    assert [each.name for each in found.baselines if each.best_on_dev] == ["few-shot"]
    assert (hardest, "inconclusive", 3) == (found.baseline, found.verdict, found.exit_code)
    assert f"not shown to be better than {hardest}" in words.reason(found)
    assert {each.name for each in found.contenders} == set(found.cases[0].answers)


def test_finalists_are_replayed_and_cost_nothing_in_a_first_look(
    make_job: Any, backend_of: Any
) -> None:
    backend = backend_of(dev_errs)
    job = make_job(FINALISTS)
    assert len(compare(job, limit=10).contenders) == 2
    whole = compare(job)
    asked = len(backend.requests)
    assert len(whole.contenders) == 4
    again = compare(job, replay=True)
    assert (whole.baseline, whole.interval) == (again.baseline, again.interval)
    assert asked == len(backend.requests)
