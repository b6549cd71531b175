"""Training rows of several sources are mixed by weight; named test sets are scored separately."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from support.command_line import Command
from support.rows import job_on, write_rows

from unitune.data.check import JobRows, read_job
from unitune.data.load import source_of
from unitune.evaluate.inference.sources import answer_line
from unitune.job.data import Data, Source
from unitune.job.job import Job

ANSWERS = ("yes", "no")
SIZES = {"a": 700, "b": 400, "c": 90}


def write(folder: Path, sizes: dict[str, int] = SIZES) -> None:
    for name, size in sizes.items():
        rows = (
            {"prompt": f"{name} {at}?", "completion": ANSWERS[at % 2], "id": f"{name}-{at}"}
            for at in range(size)
        )
        write_rows(folder / f"{name}.jsonl", rows)


def job(folder: Path, train: Any, **data: Any) -> Job:
    data = {"train": train, "validation": 0.05} | data
    return job_on(folder, data, model="base", evaluate={"leaks": "allow"})


def weighted(**weights: float) -> list[dict[str, Any]]:
    return [{"files": f"{name}.jsonl", "weight": weight} for name, weight in weights.items()]


def used(rows: JobRows) -> Counter[str | None]:
    return Counter(source_of(row) for row in rows.splits.train)


@pytest.mark.parametrize(
    "weights",
    [{"a": 5, "b": 3, "c": 2}, {"a": 0.61, "b": 0.28, "c": 0.11}, {"a": 1, "b": 1, "c": 1}],
)
def test_shares_are_the_weights_within_a_hundredth(
    tmp_path: Path, weights: dict[str, float]
) -> None:
    write(tmp_path)
    rows = read_job(job(tmp_path, weighted(**weights)))

    counts = used(rows)
    for name, weight in weights.items():
        share = counts[name] / counts.total()
        assert share == pytest.approx(weight / sum(weights.values()), abs=0.01)
    assert len({row.messages[0].text for row in rows.splits.train}) == counts.total()
    assert {each.name: each.used for each in rows.report.files[0].sources} == counts


def test_another_process_with_other_hashes_chooses_the_same_rows(tmp_path: Path) -> None:
    write(tmp_path)
    mixed = job(tmp_path, weighted(a=5, b=3, c=2))
    here = [row.messages[0].text for row in read_job(mixed).splits.train]
    mixed.save(tmp_path / "unitune.yaml")
    code = (
        "from unitune.data.check import read_job; from unitune import Job; "
        f"rows = read_job(Job.load({str(tmp_path / 'unitune.yaml')!r})).splits.train; "
        "print(*(row.messages[0].text for row in rows), sep='\\n')"
    )
    for seed in ("1", "2"):
        environment = {"PYTHONHASHSEED": seed, "HOME": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            env=environment,
            check=True,
        )
        assert done.stdout.splitlines() == here


def test_another_seed_chooses_other_rows(tmp_path: Path) -> None:
    write(tmp_path)
    mixed = job(tmp_path, weighted(a=1, c=1))
    other = mixed.model_copy(update={"tuning": mixed.tuning.model_copy(update={"seed": 7})})
    texts = [
        {row.messages[0].text for row in read_job(each).splits.train} for each in (mixed, other)
    ]
    assert texts[0] != texts[1]


def test_max_rows_limits_a_source(tmp_path: Path) -> None:
    write(tmp_path)
    train = [
        {"files": "a.jsonl", "max_rows": 50, "name": "first"},
        {"files": ["b.jsonl", "c.jsonl"]},
    ]
    counts = used(read_job(job(tmp_path, train)))
    assert counts["first"] == 50
    assert 440 < counts["b"] <= 490


@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=4),
    weights=st.lists(st.floats(0.01, 100), min_size=4, max_size=4),
)
def test_no_source_gives_more_rows_than_it_has(sizes: list[int], weights: list[float]) -> None:
    import numpy as np  # noqa: PLC0415 - only this test needs it

    from unitune.data.split import mixed  # noqa: PLC0415

    sources = [Source(files=f"{at}", weight=weights[at]) for at in range(len(sizes))]
    origins = [at for at, size in enumerate(sizes) for _ in range(size)]
    chosen, shares = mixed(sources, origins, np.arange(len(origins)), 0)
    assert len(set(chosen.tolist())) == len(chosen) == sum(share.used for share in shares)
    assert all(1 <= share.used <= share.rows for share in shares)
    assert any(share.used == share.rows for share in shares), "the scarcest source is used whole"


@pytest.mark.parametrize(
    ("train", "reason"),
    [
        ([{"files": "a.jsonl"}, {"files": "x/a.jsonl"}], "two sources of train are named 'a'"),
        (
            [{"files": "a.jsonl", "weight": 1}, {"files": "b.jsonl"}],
            "every source of train a weight",
        ),
        ([{"files": "a.jsonl", "weight": 0}], "greater than 0"),
        ([], "at least 1 item"),
    ],
)
def test_a_mixture_that_means_nothing_is_refused(train: list[Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        Data(train=train)  # pyright: ignore[reportArgumentType]


def test_a_constraint_names_a_test_set_that_exists(tmp_path: Path) -> None:
    constraint = {"metric": "exact", "at_least": 0.5, "test": "laws"}
    gate = {"mode": "improve", "constraints": [constraint]}
    content = job(tmp_path, "a.jsonl", test={"law": "b.jsonl"}).model_dump()
    with pytest.raises(ValidationError, match="names the test set 'laws'; data has: law"):
        Job.model_validate(content | {"evaluate": {"gate": gate}})


def test_the_plan_shows_rows_tokens_and_shares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unitune: Command
) -> None:
    write(tmp_path)
    monkeypatch.chdir(tmp_path)
    job(tmp_path, weighted(a=5, b=3, c=2)).save(tmp_path / "unitune.yaml")
    planned = json.loads(unitune("plan", "--json").out)
    shares = {each["name"]: each["rows"] for each in planned["sources"]}
    assert sum(shares.values()) == planned["train_rows"]
    assert all(each["tokens"] > each["rows"] for each in planned["sources"])
    assert f"c: {shares['c']} of {shares['c']} rows (20.0%)" in unitune("plan").out


def test_named_test_sets_have_scores_and_floors_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unitune: Command
) -> None:
    """The recorded candidate is right on every case of one set and on none of the other."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path, {"good": 30, "poor": 30})
    for name in ("old", "new"):
        lines = [
            answer_line(f"{test}-{at}", ANSWERS[at % 2] if (name, test) == ("new", "good") else "?")
            for test in ("good", "poor")
            for at in range(30)
        ]
        Path(f"{name}.jsonl").write_text("".join(lines))
    floor = {"metric": "exact", "at_least": 0.5}
    contenders = [
        {"type": "recorded", "name": name, "role": role, "answers": f"{name}.jsonl"}
        for name, role in (("old", "baseline"), ("new", "candidate"))
    ]
    floors = [floor | {"test": "good"}, floor | {"test": "poor"}]
    evaluate = {
        "scorers": ["exact"],
        "leaks": "allow",
        "contenders": contenders,
        "gate": {"mode": "improve", "constraints": floors},
    }
    data = {"test": {"good": "good.jsonl", "poor": "poor.jsonl"}}
    job_on(tmp_path, data, evaluate=evaluate).save("unitune.yaml")
    outcome = unitune("compare", "--json")
    assert outcome.out, outcome
    found = json.loads(outcome.out)
    assert {each["name"]: each["candidate"] for each in found["slices"]} == {
        "good": 1.0,
        "poor": 0.0,
    }
    checks = {check["name"]: check["exit_code"] for check in found["gate"]["checks"]}
    assert checks["exact at least 0.5 on good"] == 0
    assert checks["exact at least 0.5 on poor"] == 1
