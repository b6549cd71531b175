"""The job file: what it accepts, what it refuses and how it says so."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from unitune.errors import JobError
from unitune.job.contenders import FewShot, Instructed, Tuned, ZeroShot
from unitune.job.job import Data, Evaluate, Gate, Job, Lora, Tuning
from unitune.scorers.json_text import JsonEqual
from unitune.scorers.text import Contains, Exact, Regex

SHORTEST = """\
name: support-triage
model: smollm2-135m-instruct
backend: local
method: sft
data: {train: train.jsonl, test: test.jsonl}
tuning: {epochs: 3, seed: 0}
evaluate: {scorers: [exact]}
"""


def written(folder: Path, text: str) -> Path:
    file = folder / "unitune.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def complaint(folder: Path, text: str) -> str:
    with pytest.raises(JobError) as caught:
        Job.load(written(folder, text))
    return str(caught.value)


def test_shortest_job_takes_all_other_values_from_defaults(tmp_path: Path) -> None:
    job = Job.load(written(tmp_path, SHORTEST))

    assert Tuning(epochs=3, seed=0) == job.tuning
    assert job.evaluate.contenders == (ZeroShot(), Instructed(), FewShot(), Tuned())
    assert job.evaluate.primary_scorer == "exact"
    assert tmp_path / "train.jsonl" == job.path(job.data.train)


def test_scorers_of_rows_without_options_survive_saving(tmp_path: Path) -> None:
    job = Job.load(written(tmp_path, SHORTEST.replace("[exact]", "[row_scorers]")))
    job.save(tmp_path / "saved.yaml")
    assert Job.load(tmp_path / "saved.yaml").evaluate.scorers == job.evaluate.scorers


def test_yaml_and_python_are_the_same_job(tmp_path: Path) -> None:
    built = Job(
        name="support-triage",
        model="smollm2-135m-instruct",
        backend="local",
        data=Data(train="train.jsonl", test="test.jsonl"),
        tuning=Tuning(epochs=3, seed=0),
        folder=tmp_path,
    )

    assert built == Job.load(written(tmp_path, SHORTEST))


names = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
jobs = st.builds(
    Job,
    name=names,
    model=st.one_of(st.text(min_size=1), st.dictionaries(names, st.text(min_size=1), min_size=1)),
    backend=names,
    data=st.builds(
        Data,
        train=st.just("a.jsonl"),
        test=st.none() | st.just("b.jsonl"),
        validation=st.none() | st.just("v.csv") | st.floats(0.01, 0.99),
    ),
    tuning=st.builds(
        Tuning,
        epochs=st.just("auto") | st.integers(1, 99),
        learning_rate=st.just("auto") | st.floats(1e-9, 1, exclude_min=True),
        lora=st.builds(Lora, rank=st.integers(1, 256), dropout=st.floats(0, 0.9)),
    ),
    evaluate=st.builds(
        Evaluate,
        scorers=st.sampled_from(
            [(Exact(),), (JsonEqual(), Exact(ignore_case=True)), (Regex(pattern="a|ü"), Contains())]
        ),
        instructions=st.none() | st.text(),
        gate=st.none() | st.just(Gate(mode="absolute", threshold=0.5, min_cases=7)),
    ),
)


@given(jobs)
def test_a_saved_job_loads_as_the_same_job(
    tmp_path_factory: pytest.TempPathFactory, job: Job
) -> None:
    folder = tmp_path_factory.getbasetemp()
    job = job.model_copy(update={"folder": folder})

    job.save(folder / "saved.yaml")

    assert job == Job.load(folder / "saved.yaml")


def test_a_job_saved_elsewhere_still_means_the_same_files(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    job = Job.load(written(tmp_path, SHORTEST))

    job.save(tmp_path / "elsewhere" / "job.yaml")

    moved = Job.load(tmp_path / "elsewhere" / "job.yaml")
    assert os.path.realpath(job.path("train.jsonl")) == os.path.realpath(
        moved.path(moved.data.train)
    )


def test_every_file_of_a_job_is_moved_with_it(tmp_path: Path) -> None:
    files = {
        "data": {"train": [{"files": "a.jsonl"}, {"files": ["b.jsonl", "hf://owner/name"]}],
                 "test": {"hard": "c.jsonl", "files": ["d.jsonl"]}, "validation": "e.jsonl",
                 "chat_template": "f.jinja"},
        "evaluate": {"scorers": [{"type": "json_schema", "definition": "g.json"},
                                 {"type": "python", "function": "h.py:good"},
                                 {"type": "judge", "model": "m", "backend": "openai",
                                  "rubric": ["Is it good?"]}],
                     "contenders": ["tuned", {"type": "recorded", "answers": "i.jsonl"}],
                     "gate": {"mode": "no-regress", "baseline": "j.jsonl"}, "labels": "k.csv"},
    }  # fmt: skip
    (tmp_path / "elsewhere").mkdir()
    job = Job.load(written(tmp_path, yaml.safe_dump(yaml.safe_load(SHORTEST) | files)))

    job.save(tmp_path / "elsewhere" / "job.yaml")

    saved = (tmp_path / "elsewhere" / "job.yaml").read_text(encoding="utf-8")
    named = re.findall(r"(?<![\w/])(?:\.\./)?[a-k]\.[a-z]+", saved)
    assert sorted(named) == sorted(f"../{name}" for name in (
        "a.jsonl", "b.jsonl", "c.jsonl", "d.jsonl", "e.jsonl", "f.jinja", "g.json", "h.py",
        "i.jsonl", "j.jsonl", "k.csv",
    ))  # fmt: skip
    assert "- hf://owner/name" in saved


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            SHORTEST + "tunning: {}\n",
            "unitune.yaml:8: tunning is not a known key. Did you mean 'tuning'?",
        ),
        (
            SHORTEST.replace("epochs", "epoch"),
            ":6: tuning.epoch is not a known key. Did you mean 'epochs'?",
        ),
        (
            SHORTEST.replace("epochs: 3", "epochs: many"),
            ":6: tuning.epochs is 'many'; it must be a number or auto.",
        ),
        (SHORTEST.replace("backend: local\n", ""), ":1: backend is missing; it must be given."),
        (
            SHORTEST.replace("[exact]", "[exat]"),
            ":7: evaluate.scorers.0 is 'exat', which is not known. Did you mean 'exact'?",
        ),
        (
            SHORTEST.replace("support-triage", "Support Triage"),
            ":1: name is 'Support Triage'; it must be lower-case letters, digits and dashes",
        ),
        (SHORTEST + "name: again\n", ":8: 'name' is a duplicate of line 1. Keep one."),
        (
            SHORTEST.replace("[exact]", "[{type: choice, options: [maybe, yes]}]"),
            ":7: evaluate.scorers.0.options.1 is yes, which YAML reads as true (it has yes, no, on",
        ),
        (
            SHORTEST.replace("backend: local", "backend: no"),
            "backend is no, which YAML reads as false (it has yes, no, on and off for true and",
        ),
        (
            SHORTEST.replace("[exact]", "[{type: choice, options: [0, 1]}]"),
            'options.0 is 0, which YAML reads as a number. For a text, quote it: "0".',
        ),
        (
            SHORTEST.replace("support-triage", "2026-11-26"),
            'name is 2026-11-26, which YAML reads as a date. For a text, quote it: "2026-11-26"',
        ),
        (SHORTEST + "folder: /tmp\n", ":8: folder is not a key of a job"),
        ("- a\n- b\n", ":1: a job must be a mapping of keys to values"),
        ("name: [\n", "not valid YAML: "),
        ("name: x\n\tmodel: y\n", "tab character that violates indentation. Indent with spaces."),
        ("", ":1: a job must be a mapping of keys to values"),
        (
            SHORTEST.replace("[exact]", "[{type: regex, pattern: '('}]"),
            ":7: evaluate.scorers.0.pattern is '(': not a regular expression: ",
        ),
        (
            SHORTEST.replace("scorers: [exact]", "gate: {mode: absolute}"),
            ":7: evaluate.gate is not valid: mode absolute needs a threshold",
        ),
        (
            SHORTEST.replace("[exact]", "[exact], primary: contains"),
            "primary is 'contains', but the scorers are exact",
        ),
        (
            SHORTEST.replace(
                "test.jsonl}",
                "test.jsonl, columns: {user: a, assistant: b}, template: {user: a, assistant: b}}",
            ),
            ":5: data is not valid: give either columns or template, not both.",
        ),
    ],
)
def test_a_wrong_job_is_refused_with_file_line_value_and_what_is_allowed(
    tmp_path: Path, text: str, expected: str
) -> None:
    assert expected in complaint(tmp_path, text)


def test_every_complaint_is_told_at_once(tmp_path: Path) -> None:
    text = SHORTEST.replace("epochs: 3", "epochs: many").replace("[exact]", "[exat]")

    assert len(complaint(tmp_path, text).splitlines()) == 2


def test_a_missing_job_file_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"no such file\. To write an example, run `unitune init`"):
        Job.load(tmp_path / "unitune.yaml")


def test_a_job_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "unitune.yaml").write_bytes(b"\xff\xfe\x00")

    with pytest.raises(JobError, match="cannot be read as UTF-8 text"):
        Job.load(tmp_path / "unitune.yaml")


def test_yaml_cannot_build_python_objects(tmp_path: Path) -> None:
    told = complaint(tmp_path, "name: !!python/object/apply:os.getcwd []\n")
    assert ":1: !!python/object/apply:os.getcwd is a YAML tag" in told


def test_a_model_map_names_the_base_of_the_jobs_backend(tmp_path: Path) -> None:
    text = SHORTEST.replace(
        "model: smollm2-135m-instruct", "model: {local: small, together: large}"
    )

    assert Job.load(written(tmp_path, text)).base_model == "small"


def test_a_model_map_without_the_backend_says_what_to_add(tmp_path: Path) -> None:
    text = SHORTEST.replace("model: smollm2-135m-instruct", "model: {together: large}")

    with pytest.raises(JobError, match="Add `local: MODEL` to model"):
        _ = Job.load(written(tmp_path, text)).base_model


@given(st.binary(max_size=300))
def test_no_bytes_make_the_reader_fail_in_another_way(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_bytes(content)

    with pytest.raises(JobError):
        Job.load(file)
