"""The schema of jobs says what a job may say, and stands beside every job that init writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest
import yaml
from support.command_line import Command

from unitune.cli.job_files import BESIDE, DocumentName, document_schema
from unitune.job.evaluate import Evaluate

JOB: dict[str, Any] = {
    "name": "demo",
    "model": "m",
    "backend": "local",
    "data": {"train": "a.jsonl"},
}


@pytest.fixture(scope="module")
def schema() -> jsonschema.Draft202012Validator:
    content = document_schema("job")
    jsonschema.Draft202012Validator.check_schema(content)
    return jsonschema.Draft202012Validator(content)


@pytest.mark.parametrize("name", get_args(DocumentName))
def test_every_document_has_a_schema(name: DocumentName) -> None:
    jsonschema.Draft202012Validator.check_schema(document_schema(name))


def test_init_writes_a_job_that_names_the_schema_beside_it(
    unitune: Command, tmp_path: Path
) -> None:
    assert unitune("init", "mine").code == 0
    text = (tmp_path / "mine" / "unitune.yaml").read_text()
    assert text.startswith(f"# yaml-language-server: $schema={BESIDE}\n")
    beside = json.loads((tmp_path / "mine" / BESIDE).read_text())
    assert document_schema("job") == beside
    jsonschema.validate(yaml.safe_load(text), beside)
    assert beside["$id"] == "urn:unitune:job:1"


def test_a_schema_that_stands_there_is_kept(unitune: Command, tmp_path: Path) -> None:
    (tmp_path / BESIDE).write_text("{}")
    assert unitune("init", ".").code == 0
    assert (tmp_path / BESIDE).read_text() == "{}"


def test_names_that_the_schema_completes_are_whole_entries() -> None:
    parts = document_schema("job")["$defs"]["Evaluate"]["properties"]
    scorers = parts["scorers"]["items"]["anyOf"][0]["enum"]
    contenders = parts["contenders"]["items"]["anyOf"][0]["enum"]
    assert {"exact", "choice", "json_equal"} <= set(scorers)
    assert {"regex", "python", "grader"}.isdisjoint(scorers)  # need options
    for name in scorers:
        turns = {"dialogue": {"tools": {}}} if name == "trajectory" else {}
        Evaluate.model_validate({"scorers": sorted({"exact", name}), "repeats": 2, **turns})
    for name in contenders:
        Evaluate.model_validate({"contenders": [name]})


@pytest.mark.parametrize(
    ("change", "allowed"),
    [
        ({"evaluate": {"scorers": ["exact"]}}, True),
        ({"evaluate": {"scorers": ["exakt"]}}, False),
        ({"evaluate": {"scorers": [{"type": "choice", "labels": ["a"]}]}}, False),
        ({"evaluate": {"contenders": ["zeroshot"]}}, False),
        ({"options": {"local": {"threads": 1}}}, True),
        ({"options": {"local": {"thread": 1}}}, False),
        ({"options": {"strange": {"anything": 1}}}, True),
        ({"tuning": {"lr": 1}}, False),
    ],
)
def test_what_is_wrong_is_seen_in_an_editor(
    schema: jsonschema.Draft202012Validator,
    change: dict[str, Any],
    allowed: bool,  # noqa: FBT001 - a case
) -> None:
    assert allowed is schema.is_valid({**JOB, **change})
