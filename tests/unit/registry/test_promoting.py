"""Registered models: what promotion asks for, where rollback leads, which names stand for a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest
from support.trained_runs import IMPROVE, change_answers, trained, triage_job

from unitune.errors import GateNotPassed, LockTimeout, Mismatch, NotFoundError, UserError
from unitune.evaluate.compare import compare
from unitune.evaluate.documents.history import comparisons, find_comparison, history_folder
from unitune.files.filesystem import sha256
from unitune.job.evaluate import Evaluate
from unitune.job.job import Job
from unitune.ledger import Ledger
from unitune.ledger.model_versions import AliasMove, former_numbers
from unitune.planning.plan import plan
from unitune.planning.preflight import preflight
from unitune.planning.start import model_fingerprint
from unitune.registry.verification import verify
from unitune.registry.versions import (
    find_registered_model,
    promote,
    register,
    registered_models,
    remove_alias,
    rollback,
)
from unitune.run.run import Run, find_run, launch
from unitune.workspace.home import home

pytestmark = pytest.mark.usefixtures("workplace")


def production() -> str:
    return find_run("triage@production").id


def promoted(*rights: int) -> list[Run]:
    """Runs that were promoted one after the other, without a gate."""
    runs = [trained(triage_job(right)) for right in rights]
    for run in runs:
        promote(run, "production", without_gate="a test")
    return runs


def test_a_model_lives_from_promotion_to_rollback_and_verification(store: str) -> None:
    """The whole story, on each of the databases."""
    del store
    good, better, bad = (trained(triage_job(right, IMPROVE)) for right in (40, 50, 21))
    for run, right in ((good, 40), (better, 50)):
        judged = compare(triage_job(right, IMPROVE), run)
        move = promote(run, "production")
        verdict = history_folder(judged.id or "") / "verdict.json"
        assert (judged.id, sha256(verdict), "ana", None) == (
            *(move.comparison, move.verdict_sha256, move.moved_by),
            move.reason,
        )
        assert production() == run.id
    assert (move.previous, move.number) == (1, 2)

    refused = compare(triage_job(21, IMPROVE), bad)
    with pytest.raises(GateNotPassed, match=f"{refused.id}.*--without-gate") as error:
        promote(bad, "production")
    assert (refused.exit_code, 3) == (error.value.exit_code, 3)
    assert production() == better.id
    assert [each.number for each in find_registered_model("triage").versions] == [1, 2]

    assert rollback("triage@production", "wrong tone").kind == "rollback"
    assert production() == good.id

    change_answers(good, 15)
    verified = verify("triage@production", triage_job(40, IMPROVE))
    assert (verified.exit_code, verified.version) == (1, "triage:1")
    assert verified.change is not None
    assert verified.change.paired is not None
    assert len(verified.change.paired.lost) == 25
    with pytest.raises(GateNotPassed):
        promote(good, "production")
    moves = find_registered_model("triage").moves
    assert [(each.previous, each.number) for each in moves] == [(None, 1), (1, 2), (2, 1)]
    assert all(before.time <= after.time for before, after in pairwise(moves))


def test_promotion_needs_a_gate_that_has_judged_this_very_run() -> None:
    run = trained(triage_job(50))
    with pytest.raises(UserError, match="has no gate result"):
        promote(run, "production")
    compare(triage_job(50), run)
    with pytest.raises(UserError, match="has no gate result"):
        promote(run, "production")
    assert registered_models() == []
    compare(triage_job(50, IMPROVE), run)
    other = trained(triage_job(49))
    with pytest.raises(UserError, match="has no gate result"):
        promote(other, "production")
    assert promote(run, "production").number == 1


def test_a_first_look_and_a_replay_promote_nothing() -> None:
    run = trained(triage_job(50))
    compare(triage_job(50, IMPROVE), run, limit=30)
    with pytest.raises(UserError, match="has no gate result"):
        promote(run, "production")
    compare(triage_job(50), run)
    compare(triage_job(50, IMPROVE), run, replay=True)
    with pytest.raises(UserError, match="has no gate result"):
        promote(run, "production")


def test_the_newest_gate_decides() -> None:
    run = trained(triage_job(50))
    compare(triage_job(50, IMPROVE), run)
    compare(triage_job(50, {"mode": "absolute", "threshold": 0.99}), run)
    with pytest.raises(GateNotPassed) as error:
        promote(run, "production")
    assert error.value.exit_code == 1


@pytest.mark.parametrize("name", ["verdict.json", "cases.jsonl"])
def test_a_comparison_whose_files_were_changed_is_no_evidence(name: str) -> None:
    run = trained(triage_job(50))
    judged = compare(triage_job(50, IMPROVE), run)
    file = history_folder(judged.id or "") / name
    file.write_text(file.read_text("utf-8").replace("yes", "no ", 1) + "\n", encoding="utf-8")
    with pytest.raises(Mismatch, match=f"{name} was changed"):
        promote(run, "production")
    file.unlink()
    with pytest.raises(Mismatch, match=f"{name} was deleted"):
        promote(run, "production")


def test_a_verdict_written_by_hand_promotes_nothing() -> None:
    run = trained(triage_job(21))
    judged = compare(triage_job(21, IMPROVE), run)
    file = history_folder(judged.id or "") / "verdict.json"
    file.write_text(file.read_text("utf-8").replace('"passed": false', '"passed": true'))
    with pytest.raises(GateNotPassed):
        promote(run, "production")


def test_another_machine_that_shares_the_ledger_promotes_on_what_it_says(
    monkeypatch: pytest.MonkeyPatch, workplace: Path, store: str
) -> None:
    run = trained(triage_job(50))
    compare(triage_job(50, IMPROVE), run)
    monkeypatch.setattr("socket.gethostname", lambda: "elsewhere")
    if store == "sqlite":  # the file was copied there, without the history
        (home() / "comparisons").rename(workplace / "gone")
        with pytest.raises(Mismatch, match="was deleted"):
            promote(run, "production")
        return
    job = triage_job(50, IMPROVE)
    monkeypatch.delenv("UNITUNE_DIR")
    (workplace / "elsewhere").mkdir()
    monkeypatch.chdir(workplace / "elsewhere")
    (workplace / ".unitune").rename(workplace / "gone")
    assert promote(find_run(run.id), "production").number == 1
    verified = verify("triage@production", job.model_copy(update={"evaluate": allowed(job)}))
    assert (verified.exit_code, verified.since) == (0, None)
    assert [each.id for each in comparisons()] == [verified.comparison.id], "the home is marked"


def allowed(job: Job) -> Evaluate:
    """Where the rows of a run are not, they cannot be searched for test cases."""
    return job.evaluate.model_copy(update={"leaks": "allow"})


def test_without_a_gate_a_reason_is_recorded() -> None:
    run = trained(triage_job(50))
    with pytest.raises(UserError, match="needs a reason"):
        promote(run, "production", without_gate=" ")
    move = promote(run, "production", without_gate="ticket 812")
    assert (move.reason, move.comparison, move.verdict_sha256) == ("ticket 812", None, None)


def test_a_version_is_the_model_of_one_run_and_keeps_its_number() -> None:
    run, other = trained(triage_job(50)), trained(triage_job(49, name="second"))
    version = register(run)
    assert ("triage:1", run.id, "ana") == (str(version), version.run_id, version.created_by)
    assert run.tuned_model is not None
    assert model_fingerprint(run.tuned_model) == version.fingerprint
    assert version == register(run)
    assert str(register(other, "triage")) == "triage:2"
    with pytest.raises(UserError, match="registered as triage:2"):
        register(other, "second")
    with pytest.raises(UserError, match="lower-case letters"):
        register(trained(triage_job(48)), "Triage 1")


def test_a_run_without_a_model_is_no_version() -> None:
    failing = triage_job(50).model_copy(update={"options": {"fake": {"fail_at_step": 1}}})
    with pytest.raises(UserError, match="failed and has no model"):
        register(ended(failing))


def ended(job: Job) -> Run:
    run = launch(job)
    while not run.state.ended:
        run.refresh()
    return run


@pytest.mark.parametrize("alias", ["latest", "NEWEST", "v3", "", "3", "a b", "a@b", "x" * 41])
def test_words_that_would_be_mistaken_are_no_aliases(alias: str) -> None:
    """Source: MLflow's own rule, https://mlflow.org/docs/latest/ml/model-registry (2026-11-28)."""
    with pytest.raises(UserError, match="is not a valid alias"):
        promote(trained(triage_job(50)), alias, without_gate="a test")


@pytest.mark.parametrize(
    ("moves", "former"),
    [
        ("1", []),
        ("1 2", [1]),
        ("1 2 3", [2, 1]),
        ("1 2 3 <2", [1]),
        ("1 2 3 <2 <1", []),
        ("1 2 <1 3", [1]),
        ("1 2 <1 3 <1", []),
        ("1 2 2", [1]),
        ("1 2 1", [2, 1]),
        ("1 2 1 <2", [1]),
        ("1 2 3 <1", []),
        ("1 2 x 3", []),
    ],
)
def test_a_rollback_takes_back_promotions_and_never_a_rollback(
    moves: str, former: list[int]
) -> None:
    def move(word: str) -> AliasMove:
        kind = {"<": "rollback", "x": "remove"}.get(word[0], "promote")
        return AliasMove("m", "a", int(word.strip("<x") or 0), None, kind, datetime.now(UTC), "ana")  # type: ignore[arg-type]

    assert former == former_numbers(map(move, moves.split()))


def test_rollbacks_lead_back_one_by_one_and_pass_over_what_is_deleted() -> None:
    runs = promoted(40, 41, 42, 43)
    runs[2].delete(force=True)
    assert rollback("triage@production").number == 2
    assert rollback("triage@production").number == 1
    with pytest.raises(UserError, match="no former version"):
        rollback("triage@production")
    assert production() == runs[0].id


def test_who_rolls_back_from_where_an_alias_no_longer_is_changes_nothing() -> None:
    runs, ledger = promoted(40, 41), Ledger(home())
    seen = find_registered_model("triage").aliases["production"]
    promote(trained(triage_job(42)), "production", without_gate="another process")
    back = replace(seen, kind="rollback", number=1, previous=2)
    with ledger.acting(runs[0].id) as record, pytest.raises(LockTimeout, match="moved triage@pro"):
        ledger.move_alias(record, back)
    assert find_registered_model("triage").aliases["production"].number == 3


def test_a_run_that_an_alias_points_to_is_not_deleted() -> None:
    first, second = promoted(40, 41)
    with pytest.raises(UserError, match="while triage@production points to its model"):
        second.delete(force=True)
    assert any("triage:1" in line for line in first.inventory())
    remove_alias("triage@production")
    with pytest.raises(NotFoundError, match="triage@production"):
        find_run("triage@production")
    second.delete(force=True)
    with pytest.raises(NotFoundError, match="deleted"):
        find_run("triage:2")
    assert str(register(trained(triage_job(42)))) == "triage:3", "no number is used twice"


@pytest.mark.parametrize("name", ["triage@production", "triage:1"])
def test_a_version_stands_wherever_a_run_does(name: str) -> None:
    (run,) = promoted(40)
    new = trained(triage_job(55))
    job = triage_job(55).model_dump() | {"folder": Path.cwd()}
    contenders = [{"type": "tuned"}, {"type": "tuned", "run": name, "role": "baseline"}]
    job["evaluate"] = {"contenders": contenders, "gate": IMPROVE}
    judged = compare(Job.model_validate(job), new)
    assert (name, run.id) == (judged.baseline, judged.contenders[1].run)
    assert (judged.verdict, promote(new, "production").number) == ("better", 2)

    going_on = triage_job(50).model_copy(update={"start": name})
    start = preflight(going_on).start
    assert start is not None
    assert (new if "@" in name else run).id == start.run


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("triage@prod", "There is no alias 'triage@prod'. Did you mean 'triage@production'"),
        ("triage:7", "There is no version 'triage:7'. .*triage:1"),
        ("triag@production", "There is no registered model 'triag'. Did you mean 'triage'"),
    ],
)
def test_what_names_no_version_is_said_with_what_there_is(name: str, message: str) -> None:
    promoted(40)
    with pytest.raises(NotFoundError, match=message):
        find_run(name)
    findings = plan(triage_job(50).model_copy(update={"start": name})).findings
    assert any(each.code == "start-unknown" and repr(name) in each.message for each in findings)


def test_a_verification_asks_again_and_leaves_its_answers_to_the_history() -> None:
    run = trained(triage_job(50))
    judged = compare(triage_job(50, IMPROVE), run)
    promote(run, "production")
    verified = verify("triage@production", triage_job(50, IMPROVE))
    assert (0, judged.id) == (verified.exit_code, verified.since)
    assert list((home() / "verifications").iterdir()) == []
    assert find_comparison(verified.comparison.id or "").cases
    change_answers(run, 45)
    again = verify("triage:1", triage_job(50, IMPROVE))
    assert (again.exit_code, again.comparison.contenders[1].score) == (0, 45 / 60)
    assert again.change is not None
    assert again.change.paired is not None
    assert len(again.change.paired.lost) == 5, "seen, although the gate still passes"


def test_a_verification_needs_a_gate_and_a_candidate_whose_place_the_version_takes() -> None:
    promoted(40)
    with pytest.raises(UserError, match="has no gate to verify"):
        verify("triage@production", triage_job(40))
    other = trained(triage_job(41))
    job = triage_job(40).model_dump() | {"folder": Path.cwd()}
    for candidate, message in (
        ({"type": "tuned", "run": other.id}, "Remove the candidate's `run`"),
        ({"type": "instructed", "role": "candidate"}, "needs a tuned one"),
    ):
        job["evaluate"] = {"contenders": ["zero-shot", candidate], "gate": IMPROVE}
        with pytest.raises(UserError, match=message):
            verify("triage@production", Job.model_validate(job))
    with pytest.raises(UserError, match="is not a version"):
        verify(other.id, triage_job(40, IMPROVE))


def test_an_adapter_that_was_changed_is_not_promoted_and_not_verified() -> None:
    """Of a model in a folder the files are known, as one that was trained on this machine is."""
    run = trained(triage_job(50))
    assert run.tuned_model is not None
    weights = Path(run.tuned_model.name) / "adapter_model.safetensors"
    weights.write_bytes(b"as trained")
    compare(triage_job(50, IMPROVE), run)
    promote(run, "production")
    weights.write_bytes(b"something else")
    with pytest.raises(Mismatch, match="differs from the registered one"):
        verify("triage@production", triage_job(50, IMPROVE))
    with pytest.raises(Mismatch, match="is not the one in comparison c"):
        promote(run, "production")
    with pytest.raises(Mismatch, match="differs from the registered one"):
        promote(run, "staging", without_gate="a test")


EASY = {"mode": "absolute", "threshold": 0.0001, "min_cases": 1}


def with_gate(job: Job, gate: Mapping[str, object]) -> Job:
    """Return a job with another gate."""
    evaluate = Evaluate.model_validate({**job.evaluate.model_dump(), "gate": gate})
    return job.model_copy(update={"evaluate": evaluate})


def test_another_gate_than_that_of_the_launched_job_promotes_nothing() -> None:
    job = triage_job(15, IMPROVE)
    run = trained(job)
    assert compare(job, run).exit_code == 1
    assert compare(with_gate(job, EASY), run).exit_code == 0
    with pytest.raises(
        UserError, match=r"on 60 cases passed a different gate from that of the run's job"
    ):
        promote(run, "production")
    assert promote(run, "production", without_gate="a test").reason == "a test"


def test_a_job_launched_without_a_gate_goes_by_the_last_promotion_to_the_alias() -> None:
    first, second = (trained(triage_job(right)) for right in (40, 41))
    assert compare(with_gate(triage_job(40), IMPROVE), first).exit_code == 0
    promote(first, "production")
    assert compare(with_gate(triage_job(41), EASY), second).exit_code == 0
    with pytest.raises(UserError, match="that of the last promotion to triage@production"):
        promote(second, "production")
    promote(second, "staging")  # to which nothing was promoted yet


def test_a_failure_on_more_cases_outweighs_a_passed_gate(workplace: Path) -> None:
    job = triage_job(15, {**IMPROVE, "min_cases": 5})
    run = trained(job)
    assert compare(job, run).exit_code == 1
    change_answers(run, 60)
    lines = (workplace / "test.jsonl").read_text().splitlines()
    (workplace / "test.jsonl").write_text("\n".join(lines[20:50]) + "\n")
    assert compare(job, run, out=workplace / "elsewhere").exit_code == 0
    with pytest.raises(GateNotPassed, match="failed on 60: The candidate is worse"):
        promote(run, "production")


def test_a_candidate_must_still_be_better_when_later_ones_are_counted() -> None:
    job = triage_job(26, IMPROVE)
    run = trained(job)
    assert compare(job, run).verdict == "better"
    for right in (20, 19, 21):
        other = triage_job(right, IMPROVE)
        compare(other, trained(other))
    with pytest.raises(GateNotPassed, match="Counting all of them, its p-value is"):
        promote(run, "production")
