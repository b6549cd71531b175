"""`data.test` as a share of the training file: which rows are kept for the test, and from whom."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.rows import job_on, write_rows

from unitune.data.check import JobRows, read_job
from unitune.data.dataset import Dataset
from unitune.data.split import Splits
from unitune.errors import DataError, JobError
from unitune.job.job import Job
from unitune.planning.preflight import preflight

Rows = list[dict[str, Any]]


def rows_of(inputs: list[str], **own: list[Any]) -> Rows:
    keys = [dict(zip(own, values, strict=True)) for values in zip(*own.values(), strict=True)]
    return [
        {"prompt": text, "completion": f"answer {text}", **(keys[at] if keys else {})}
        for at, text in enumerate(inputs)
    ]


def job_of(folder: Path, rows: Rows, share: float = 0.2, **more: Any) -> Job:
    write_rows(folder / "rows.jsonl", rows)
    return job_on(folder, {"train": "rows.jsonl", "test": share, **more.pop("data", {})}, **more)


def read(folder: Path, rows: Rows, share: float = 0.2, **more: Any) -> JobRows:
    return read_job(job_of(folder, rows, share, **more))


def asked(dataset: Dataset | None) -> list[str]:
    return [example.messages[0].text for example in dataset or ()]


def sides(splits: Splits) -> tuple[list[str], list[str], list[str]]:
    return asked(splits.train), asked(splits.validation), asked(splits.test)


INPUTS = [f"question number {at} about {at * 7919}" for at in range(200)]


def test_the_test_is_the_share_of_the_file_and_validation_a_tenth_of_the_rest(
    tmp_path: Path,
) -> None:
    train, validation, test = sides(read(tmp_path, rows_of(INPUTS), 0.2).splits)
    assert (len(train), len(validation), len(test)) == (130, 30, 40)
    assert sorted(INPUTS) == sorted(train + validation + test)


def test_the_cut_is_by_the_hash_of_the_input_the_same_on_every_machine(tmp_path: Path) -> None:
    """The rows are those with the smallest SHA-256 of the canonical JSON of the input."""

    def smallest(text: str) -> str:
        turns: list[Any] = [["user", text, []]]
        canonical = json.dumps([turns, None], separators=(",", ":"))
        input_key = hashlib.sha256(canonical.encode()).hexdigest()
        return hashlib.sha256(f"test:{input_key}".encode()).hexdigest()

    chosen = sorted(INPUTS, key=smallest)[:40]
    assert sorted(chosen) == sorted(asked(read(tmp_path, rows_of(INPUTS)).splits.test))


def test_case_and_white_space_move_no_row(tmp_path: Path) -> None:
    changed = [f"  {text.upper()}\u200b" for text in INPUTS]
    first, other = (read(tmp_path, rows_of(each)).splits for each in (INPUTS, changed))
    assert [INPUTS.index(text) for text in asked(first.test)] == [
        changed.index(text) for text in asked(other.test)
    ]


def test_the_cut_for_validation_keeps_clusters_whole(tmp_path: Path) -> None:
    customers = [at // 4 for at in range(200)]
    rows = rows_of(INPUTS, customer=customers)
    found = read(tmp_path, rows, evaluate={"clusters": "customer"}).splits
    parts = [
        {(row.model_extra or {})["customer"] for row in part or ()}
        for part in (found.train, found.validation, found.test)
    ]
    assert sum(map(len, parts)) == len(set(customers)) == 50


def test_the_cut_for_validation_keeps_near_duplicates_together(tmp_path: Path) -> None:
    texts = [hashlib.sha256(bytes([at])).hexdigest().replace("0", " ") for at in range(100)]
    inputs = [text for each in texts for text in (each, f"{each} please", f"so {each}")]
    splits = read(tmp_path, rows_of(inputs), data={"test": None}).splits
    held = set(asked(splits.validation))
    assert len(held) >= 30
    assert not {
        text for text in texts if 0 < len(held & {text, f"{text} please", f"so {text}"}) < 3
    }


def test_what_the_cut_for_validation_shares_with_train_is_left_out_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a file that is too large to look for near duplicates before the cut."""
    monkeypatch.setattr("unitune.data.split.MOST_ROWS", 10)
    texts = [hashlib.sha256(bytes([at])).hexdigest().replace("0", " ") for at in range(100)]
    inputs = [*texts, *(f"{text} please" for text in texts[:80])]
    rows = read(tmp_path, rows_of(inputs), data={"test": None})
    train, held = set(asked(rows.splits.train)), set(asked(rows.splits.validation))
    assert held
    assert not {text for text in held if {f"{text} please", text.removesuffix(" please")} & train}
    (left_out,) = rows.report.findings
    assert (left_out.severity, left_out.code) == ("note", "overlap")
    assert "of 30 rows held out for validation are also in the training rows" in (left_out.message)


def test_labels_that_the_test_lacks_are_named(tmp_path: Path) -> None:
    rows = rows_of(INPUTS)
    test = set(asked(read(tmp_path, rows).splits.test))
    for row in rows:
        row["completion"] = (
            "common" if row["prompt"] in test else "Rare" if "5" in row["prompt"] else "usual"
        )
    findings = read(tmp_path, rows).report.findings
    (missing,) = [each for each in findings if each.code == "missing-labels"]
    counts = Counter(row["completion"] for row in rows)
    assert missing.message == (
        f"the test has no case of 2 of 3 labels: 'rare' ({counts['Rare']} rows), 'usual' "
        f"({counts['usual']} rows)."
    )


def test_neither_the_seed_nor_the_order_of_the_file_moves_a_test_row(tmp_path: Path) -> None:
    first = read(tmp_path, rows_of(INPUTS)).splits
    other = read(tmp_path, rows_of(INPUTS[::-1]), tuning={"seed": 7}).splits
    assert sorted(asked(first.test)) == sorted(asked(other.test))
    assert sorted(asked(first.validation)) != sorted(asked(other.validation))


def test_a_larger_share_keeps_the_rows_of_a_smaller_one(tmp_path: Path) -> None:
    tests = [set(asked(read(tmp_path, rows_of(INPUTS), s).splits.test)) for s in (0.1, 0.2, 0.4)]
    assert [len(test) for test in tests] == [20, 40, 80]
    assert all(smaller < larger for smaller, larger in pairwise(tests))


def test_a_validation_share_is_of_what_the_test_leaves(tmp_path: Path) -> None:
    splits = read(tmp_path, rows_of(INPUTS), 0.5, data={"validation": 0.1}).splits
    assert [len(side) for side in sides(splits)] == [90, 10, 100]


def test_what_is_uploaded_and_fingerprinted_are_the_rows_to_train_on_alone(tmp_path: Path) -> None:
    job = job_of(tmp_path, rows_of(INPUTS))
    resolved = preflight(job)
    train, validation, _ = resolved.splits.train, resolved.splits.validation, resolved.splits.test
    sizes = {name: file.size for name, file in resolved.files.items()}
    assert sizes == {
        "train.jsonl": len(train.jsonl.encode()),
        "validation.jsonl": len(validation.jsonl.encode()),
    }
    (tmp_path / "left.jsonl").write_text(train.jsonl)
    (tmp_path / "held.jsonl").write_text(validation.jsonl)
    apart = {"train": "left.jsonl", "validation": "held.jsonl"}
    by_file = preflight(Job.model_validate({**job.model_dump(), "data": apart, "folder": tmp_path}))
    assert by_file.fingerprint == resolved.fingerprint
    another = preflight(job_of(tmp_path, rows_of(INPUTS), 0.3))
    assert another.fingerprint != resolved.fingerprint


@given(groups=st.lists(st.integers(0, 25), min_size=8, max_size=80), share=st.floats(0.05, 0.6))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
def test_equal_inputs_are_never_on_both_sides(
    tmp_path: Path, groups: list[int], share: float
) -> None:
    given_rows = rows_of([f"input {group}" for group in groups])
    found = read(tmp_path, given_rows, share, data={"validation": 0.1})
    if found.usable is None:
        assert "too-few-rows" in {each.code for each in found.report.errors}
        return
    train, validation, test = map(set, sides(found.splits))
    assert not (train | validation) & test
    assert not train & validation
    assert len(groups) * share - 0.5 <= len(asked(found.splits.test))


def test_whole_clusters_stay_on_one_side_with_the_inputs_that_join_them(tmp_path: Path) -> None:
    """Customers 0 to 9 have 10 rows each; one question is asked by customers 3 and 4."""
    customers = [at // 10 for at in range(100)]
    inputs = [f"the question of row {at * 7919}" for at in range(100)]
    inputs[35] = inputs[45]
    found = read(
        tmp_path,
        rows_of(inputs, customer=customers),
        0.3,
        data={"validation": 0.1},
        evaluate={"clusters": "customer"},
    ).splits
    assert found.test is not None
    learned = {(row.model_extra or {})["customer"] for row in (*found.train, *found.validation)}
    tested = {(row.model_extra or {})["customer"] for row in found.test}
    assert set(range(10)) == learned | tested
    assert not learned & tested
    assert {3, 4} <= learned or {3, 4} <= tested
    assert len(found.test) in (30, 40)


def test_near_doubles_across_the_cut_are_found_on_their_lines(tmp_path: Path) -> None:
    """Of each pair the second differs by one word, which is another input."""
    texts = [hashlib.sha256(bytes([at])).hexdigest().replace("0", " ") for at in range(60)]
    inputs = [text for each in texts for text in (each, f"{each} please")]
    found = read(tmp_path, rows_of(inputs), 0.3)
    test = set(asked(found.splits.test))
    apart = {text for text in texts if (text in test) != (f"{text} please" in test)}
    assert apart
    lines = {
        inputs.index(side) + 1
        for text in apart
        for side in (text, f"{text} please")
        if side in test
    }
    assert lines <= {leak.line for leak in found.leaks}
    errors = [each for each in found.report.errors if each.code == "leak"]
    assert {each.file for each in errors} == {str(tmp_path / "rows.jsonl")}
    assert "Remove one of the two rows" in errors[0].fix
    assert not read(tmp_path, rows_of(inputs), 0.3, evaluate={"leaks": "drop"}).report.errors


def test_the_check_says_how_many_rows_are_for_what(tmp_path: Path) -> None:
    report = read(tmp_path, rows_of(INPUTS)).report
    assert [(file.purpose, file.rows) for file in report.files] == [("train", 200), ("test", 40)]
    (cut,) = [each for each in report.findings if each.code == "test-cut"]
    expected = "40 of 200 rows are reserved for the test (data.test: 0.2), 30 are held"
    assert cut.message.startswith(expected)


def test_a_share_that_leaves_nothing_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot give 2 rows for test") as caught:
        _ = read(tmp_path, rows_of(["same"] * 10)).splits
    assert "`data.test`" in caught.value.findings[0].fix


def test_a_row_that_cannot_be_judged_by_is_an_error_where_it_is_cut_for_the_test(
    tmp_path: Path,
) -> None:
    """A reinforcement learns from rows without an answer, and exact needs one."""
    rows = [{"messages": [{"role": "user", "content": text}]} for text in INPUTS]
    report = read(tmp_path, rows, method="rft").report
    assert [len(report.errors), report.errors[0].code] == [40, "missing-answer"]


def test_an_id_given_twice_is_an_error_among_the_cases_alone(tmp_path: Path) -> None:
    rows = rows_of(INPUTS, id=[f"id-{at // 2}" for at in range(200)])
    test = set(asked(read(tmp_path, rows).usable and read(tmp_path, rows).splits.test))
    pairs = sum(INPUTS[at] in test and INPUTS[at + 1] in test for at in range(0, 200, 2))
    assert pairs
    assert pairs == len(read(tmp_path, rows).report.errors)


def test_a_share_needs_a_training_file(tmp_path: Path) -> None:
    path = tmp_path / "unitune.yaml"
    path.write_text("name: a\nmodel: m\nbackend: fake\ndata:\n  test: 0.2\n")
    with pytest.raises(JobError, match=r"test is 0\.2, a share of train, but train is not set"):
        Job.load(path)


def test_a_share_is_saved_as_one(tmp_path: Path) -> None:
    job = job_of(tmp_path, rows_of(INPUTS))
    (tmp_path / "elsewhere").mkdir()
    job.save(tmp_path / "elsewhere" / "unitune.yaml")
    assert Job.load(tmp_path / "elsewhere" / "unitune.yaml").data.test == 0.2
