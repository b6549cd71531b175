"""Every finished comparison is kept, and two of them can be held against one another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binom
from support.sample_comparison import Counts, gated, measured, sample_comparison
from support.told import PROMPTED, by_number

from unitune.errors import NotFoundError, UnreadableRecord, UserError
from unitune.evaluate.compare import compare
from unitune.evaluate.documents import history
from unitune.evaluate.documents.diff import diff
from unitune.evaluate.documents.history import (
    CASES,
    comparisons,
    find_comparison,
    keep,
    read_comparison,
    write_verdict,
)
from unitune.evaluate.documents.results import Comparison
from unitune.job.job import Gate, Job
from unitune.report.files import write_report


def right_from(first: int) -> Any:
    return by_number(lambda at, *, told: "yes" if told and at >= first else "no")


def test_each_comparison_of_a_job_is_kept_with_its_cases_and_report(
    make_job: Any, backend_of: Any, tmp_path: Path
) -> None:
    job = make_job(PROMPTED)
    backend_of(right_from(10))
    first = compare(job)
    backend_of(right_from(20))
    second = compare(job, out=tmp_path / "elsewhere")
    page = write_report(second)
    assert tmp_path / "elsewhere" / "report.html" == page
    assert [each.id for each in comparisons()] == [second.id, first.id]
    assert [each.id for each in comparisons(1)] == [second.id]
    kept = find_comparison(second.id or "")
    assert kept.folder is not None
    assert page.read_bytes() == (kept.folder / "report.html").read_bytes()
    same = {"cases", "contenders", "verdict", "interval", "gate", "provenance"}
    assert second.model_dump(include=same) == kept.model_dump(include=same)
    assert first.id == find_comparison((first.id or "")[:-1]).id
    assert second.id == find_comparison().id


def test_a_replay_into_a_folder_of_the_users_own_needs_no_history(
    make_job: Any, backend_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend_of(right_from(10))
    compare(make_job(PROMPTED), out=tmp_path / "rows")
    monkeypatch.setenv("UNITUNE_DIR", str(tmp_path / "none"))
    assert None is compare(make_job(PROMPTED), out=tmp_path / "rows", replay=True).id
    assert not (tmp_path / "none").exists()


def in_folder(job: Job, folder: Path) -> Job:
    folder.mkdir()
    for name in ("train", "dev", "test"):
        (folder / f"{name}.jsonl").write_bytes((job.folder / f"{name}.jsonl").read_bytes())
    return job.model_copy(update={"folder": folder})


def test_two_jobs_of_one_name_do_not_share_a_folder(
    make_job: Any, backend_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend_of(right_from(10))
    job = make_job(PROMPTED)
    folders = [compare(in_folder(job, tmp_path / name)).folder for name in ("a", "b")]
    kept = tmp_path / ".unitune" / "evaluations"
    assert folders == [kept / "a" / "demo", kept / "b" / "demo"]
    monkeypatch.setenv("UNITUNE_DIR", str(tmp_path / "away" / "home"))
    outside = [compare(job.model_copy(update={"folder": tmp_path / name})) for name in ("a", "b")]
    assert len({each.folder for each in outside}) == 2


@pytest.fixture
def two() -> tuple[Comparison, Comparison]:
    """The same 180 cases; of tuned's right answers then, the first three are wrong now."""
    then = sample_comparison(Counts(88, 4, 17, 71))
    cases, left = list(then.cases), 3
    for at, case in enumerate(cases):
        if left and case.answers["tuned"].scores["json_equal"]:
            answers = {**case.answers, "tuned": case.answers["few-shot"]}
            if not answers["tuned"].scores["json_equal"]:
                cases[at] = replace(case, answers=answers)
                left -= 1
    now = then.model_copy(update={"cases": tuple(cases)})
    return keep(then), keep(now)


def test_a_contender_is_paired_with_itself(two: tuple[Comparison, Comparison]) -> None:
    """3 lost and none gained: mid-p is 2 x 1/2 x (1/2)^3; difference -3/180."""
    made = diff(*(find_comparison(each.id or "") for each in two))
    paired = {each.name: each.paired for each in made.contenders}
    tuned, base = paired["tuned"], paired["zero-shot"]
    assert tuned is not None
    assert base is not None
    assert (tuned.gained, len(tuned.lost), tuned.n, tuned.left_out) == ((), 3, 180, 0)
    assert pytest.approx(-3 / 180) == tuned.difference
    assert pytest.approx(float(binom.pmf(0, 3, 0.5))) == tuned.p_value
    assert pytest.approx(min(1, 4 * tuned.p_value)) == tuned.p_adjusted
    assert tuned.interval[0] < tuned.difference < tuned.interval[1]
    assert (base.difference, base.gained, base.lost) == (0.0, (), ())


def test_answers_in_error_are_neither_gained_nor_lost() -> None:
    then, now = sample_comparison(), sample_comparison(errors=5)
    few_shot = next(each.paired for each in diff(then, now).contenders if each.name == "few-shot")
    assert few_shot is not None
    assert (few_shot.left_out, few_shot.n, few_shot.lost) == (5, 175, ())


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"metric": "exact"}, "scored by json_equal, the second by exact"),
        ({"provenance": {"Scorer json_equal": "f"}}, "the scorer json_equal has changed"),
        ({"per_case": False}, "computed over all cases together"),
        ({"cases": ()}, "180 cases and the second 0, but only 0 are the same"),
    ],
)
def test_what_cannot_be_paired_says_why(changes: dict[str, Any], why: str) -> None:
    then = sample_comparison()
    made = diff(then, then.model_copy(update=changes))
    assert why in (made.unpaired or "")
    assert all(each.paired is None for each in made.contenders)


def test_what_only_one_comparison_has_is_shown_alone() -> None:
    then = sample_comparison()
    fewer = then.model_copy(update={"contenders": then.contenders[1:], "provenance": {"Seed": "1"}})
    made = diff(then, fewer)
    assert [
        (each.name, each.then, each.now) for each in made.contenders if each.paired is None
    ] == [("zero-shot", 0.0, None)]
    changes = {each.name: (each.then, each.now) for each in made.changes}
    assert changes["Seed"] == ("0", "1")


def test_a_damaged_comparison_does_not_hide_the_others() -> None:
    kept = [keep(sample_comparison()) for _ in range(2)]
    verdict = history.history_folder(kept[0].id or "") / "verdict.json"
    verdict.write_text("{")
    listing = history.comparison_listing()
    assert [each.id for each in listing.comparisons] == [kept[1].id]
    assert [each.what for each in listing.unreadable] == [f"the comparison {kept[0].id}"]
    with pytest.raises(UnreadableRecord, match="in the history is wrong"):
        find_comparison(kept[0].id or "")


def test_a_comparison_that_is_not_there_is_said_to_be_so() -> None:
    with pytest.raises(UserError, match="the history has no comparison yet"):
        find_comparison()
    kept = [keep(sample_comparison()) for _ in range(2)]
    with pytest.raises(NotFoundError, match="unitune comparisons"):
        find_comparison("c9")
    with pytest.raises(UserError, match="matches several comparisons: c") as several:
        find_comparison("c2")
    assert all(str(each.id) in str(several.value) for each in kept)


def test_nothing_half_written_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(history, "write_verdict", full)
    with pytest.raises(OSError, match="No space"):
        keep(sample_comparison())
    assert list((tmp_path / ".unitune" / "comparisons").iterdir()) == []


def test_a_comparison_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = gated(measured(sample_comparison(errors=2)), Gate(mode="improve"), required=3)

    write_verdict(written, tmp_path)

    assert written == read_comparison(tmp_path)


def test_without_its_cases_a_comparison_is_its_verdict(tmp_path: Path) -> None:
    """An earlier version wrote none, and a user may have deleted them."""
    written = sample_comparison(Counts(1, 1, 1, 1))
    write_verdict(written, tmp_path)
    (tmp_path / CASES).unlink()

    assert written.model_copy(update={"cases": ()}) == read_comparison(tmp_path)


def test_a_reason_that_quotes_half_a_character_is_written_all_the_same(tmp_path: Path) -> None:
    """A model's JSON may hold a lone surrogate, which no file of UTF-8 can."""
    written = sample_comparison(Counts(1, 1, 1, 1))
    first = written.cases[0]
    quoting = replace(first.answers["tuned"], reasons={"json_equal": "it says \ud800\u2028"})
    case = replace(first, answers={**first.answers, "tuned": quoting})
    write_verdict(written.model_copy(update={"cases": (case,)}), tmp_path)

    (read,) = read_comparison(tmp_path).cases
    assert read.answers["tuned"].reasons == {"json_equal": "it says \ufffd\u2028"}
