"""What a job file may get wrong is said in plain words, never in pydantic's own."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from pydantic_core.core_schema import ErrorType

from unitune.backends.options import validated
from unitune.errors import JobError
from unitune.files.validation import WANTED, by_location, keys_of, part_at, sentence
from unitune.files.yaml_file import Document, explain
from unitune.job.job import Job, other_tools
from unitune.job.tuning import Tuning
from unitune.scorers import ENTRIES
from unitune_local.options import LocalOptions

FOREIGN = (
    "Input should",
    "Input tag",
    "Value error",
    "valid tuple",
    "valid dictionary",
    "discriminator",
    "should match pattern",
    "Field required",
    "Extra inputs",
    "another value",
    "instance of",
    "errors.pydantic.dev",
)
WHOLE: dict[str, Any] = {
    "version": 1,
    "name": "demo",
    "model": {"fake": "any"},
    "backend": "fake",
    "method": "sft",
    "data": {
        "train": "train.csv",
        "test": "test.csv",
        "validation": 0.2,
        "columns": {"user": "question", "assistant": "answer", "system": "role"},
    },
    "tuning": {
        "epochs": 3,
        "batch_size": 8,
        "learning_rate": 0.0001,
        "lora": {"rank": 8, "alpha": 16, "dropout": 0.1, "targets": ["q_proj"]},
        "sequence_length": 512,
        "seed": 0,
    },
    "evaluate": {
        "scorers": [
            "exact",
            {"type": "choice", "options": ["a", "b"], "ignore_case": True},
            {"type": "regex", "pattern": "a+", "name": "r"},
            {"type": "python", "function": "checks.py:polite"},
            {"type": "json_schema", "definition": "schema.json"},
            {
                "type": "grader",
                "grader": {
                    "type": "string_check",
                    "name": "g",
                    "operation": "eq",
                    "input": "{{ sample.output_text }}",
                    "reference": "{{ item.expected }}",
                },
            },
            {"type": "length", "unit": "tokens"},
        ],
        "contenders": [
            "zero-shot",
            {"type": "few-shot", "shots": 4, "choose": "nearest"},
            {"type": "server", "url": "http://127.0.0.1:1/v1", "model": "m", "prompt": "zero-shot"},
            {"type": "model", "backend": "openai", "model": "gpt-4o", "instructions": "Be brief."},
            {"type": "recorded", "answers": "old.jsonl", "role": "reference"},
            "tuned",
        ],
        "margin": 0.05,
        "slices": ["lang"],
        "clusters": "customer",
        "max_tokens": 64,
        "prices": {"m": {"input": 1, "output": 2}},
        "budget": {"usd": 5},
        "economics": {"fixed_cost_usd": 100, "requests": 10, "value_per_correct_usd": 1},
        "gate": {
            "mode": "no-regress",
            "required_cases": ["a"],
            "constraints": [{"metric": "exact", "at_least": 0.9}],
        },
    },
    "budget": {"usd": 20, "hours": 3},
    "usage": {"requests_month": 1000, "alternative": {"model": "gpt-4o", "backend": "openai"}},
    "prices": [{"backend": "fake", "training": "2.40", "as_of": "2026-11-25"}],
    "options": {"fake": {"steps": 3}},
}
"""A job that says a little of everything."""
WRONG = (None, True, -1, 0, 1.5, 10**30, "", "x", "yes", [], [[1]], {}, {"lr": 1}, [{"a": None}])


def paths(value: object, at: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    if isinstance(value, list):
        items = enumerate(value)
    for key, inner in items:
        yield (*at, key)
        yield from paths(inner, (*at, key))


def changed(at: tuple[str | int, ...], value: object) -> dict[str, Any]:
    job = copy.deepcopy(WHOLE)
    holder: Any = job
    for part in at[:-1]:
        holder = holder[part]
    holder[at[-1]] = value
    return job


def refusal(job: dict[str, Any]) -> str:
    """Return why a job is refused; nothing where it is not."""
    try:
        Job.model_validate(job)
    except ValidationError as error:
        return explain(Document(Path("unitune.yaml"), job, {}, {}), error, Job, other_tools())
    return ""


def test_the_whole_job_is_a_job() -> None:
    assert refusal(WHOLE) == ""


@pytest.mark.parametrize("at", list(paths(WHOLE)), ids=lambda at: ".".join(map(str, at)))
def test_wrong_values_at_every_path_are_refused_in_plain_words(
    at: tuple[str | int, ...],
) -> None:
    refused = [text for value in WRONG if (text := refusal(changed(at, value)))]
    assert refused or at[:2] == ("options", "fake")  # held against the backend's own model
    for text in refused:
        assert [words for words in FOREIGN if words in text] == [], text


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates()
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


@settings(max_examples=150)
@given(st.sampled_from(list(paths(WHOLE))), values)
def test_any_value_at_any_path_is_refused_in_plain_words(
    at: tuple[str | int, ...], value: object
) -> None:
    text = refusal(changed(at, value))
    words = [words for words in FOREIGN if words in text]
    assert words == [], text


def test_the_types_of_errors_that_have_words_are_pydantics() -> None:
    types = {re.sub("_(type|parsing)$", "", kind) for kind in get_args(ErrorType)}
    assert sorted(WANTED.keys() - types) == ["invalid-json-value"]  # of JsonValue, beside the core


@pytest.mark.parametrize(
    ("at", "key", "meant"),
    [
        (("tuning",), "lr", "'learning_rate'"),
        (("tuning",), "num_epochs", "'epochs'"),
        (("tuning",), "n_epochs", "'epochs'"),
        (("tuning",), "iters", "'max_steps'"),
        (("tuning",), "lr_scheduler_type", "'schedule'"),
        (("tuning",), "eval_steps", "'evaluate_every'"),
        (("tuning",), "early_stopping_patience", "'early_stopping'"),
        (("tuning",), "load_best_model_at_end", "'keep'"),
        (("tuning",), "per_device_train_batch_size", "'batch_size'"),
        (("tuning",), "lora_r", "'tuning.lora.rank'"),
        (("tuning", "lora"), "lora_alpha", "'alpha'"),
        (("tuning", "lora"), "r", "'rank'"),
        ((), "eval", "'evaluate'"),
        ((), "learning_rate", "'tuning.learning_rate'"),
        ((), "batch_size", "'tuning.batch_size'"),
        ((), "scorers", "'evaluate.scorers'"),
        (("evaluate",), "metrics", "'scorers'"),
        (("data",), "training_file", "'train'"),
    ],
)
def test_the_words_of_other_tools_are_understood(at: tuple[str, ...], key: str, meant: str) -> None:
    text = refusal(changed((*at, key), 1))
    assert f"{'.'.join((*at, key))} is not a known key. Did you mean {meant}?" in text
    assert "Known: " in text


def test_the_table_of_other_tools_names_keys_that_there_are() -> None:
    ours = {meant for meant in other_tools().values() if " " not in meant}
    options = {f"options.local.{name}" for name in LocalOptions.model_fields}
    assert sorted(ours - {*all_keys(Job), *options}) == []
    assert sorted(set(other_tools()) & set(Tuning.model_fields)) == []


def all_keys(
    model: type[BaseModel], before: str = "", outer: tuple[type[BaseModel], ...] = ()
) -> Iterator[str]:
    """Yield the dotted names of all keys of a model; a model inside itself is not repeated."""
    for name in keys_of(model):
        yield f"{before}{name}"
        for inner in part_at(model, {name: {}}, (name,)).inner:
            if inner not in (*outer, model):
                yield from all_keys(inner, f"{before}{name}.", (*outer, model))


@pytest.mark.parametrize(
    ("at", "key", "said"),
    [
        (("tuning",), "adam_beta2", "Did you mean 'beta2'?"),
        (("tuning",), "save_total_limit", "Did you mean 'options.local.keep_checkpoints'?"),
        (("tuning",), "full_finetuning", "Did you mean 'full'?"),
        (("tuning",), "cosine_min_lr_ratio", "Did you mean 'min_lr_ratio'?"),
        (("tuning", "lora"), "additional_target", "Did you mean 'modules_to_save'?"),
        (("tuning",), "sample_packing", "Rows are always packed"),
        (("tuning",), "train_on_inputs", "Only assistant turns are trained on"),
        ((), "flash_attention", "The attention kernel depends"),
        ((), "output_dir", "Runs and their files are stored in the ledger"),
        (("tuning",), "use_galore", "unitune does not support this."),
    ],
)
def test_keys_of_other_trainers_say_what_is_here(at: tuple[str, ...], key: str, said: str) -> None:
    text = refusal(changed((*at, key), 1))
    assert f"{'.'.join((*at, key))} is not a known key. {said}" in text


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("load_in_4bit", "Did you mean 'quantization'?"),
        ("lr", "Did you mean 'tuning.learning_rate'?"),
        ("liger", "unitune has its own training kernels"),
        ("deepspeed", "Did you mean 'shard'?"),
    ],
)
def test_so_do_they_among_the_options_of_a_backend(key: str, said: str) -> None:
    with pytest.raises(JobError, match=r"options\.local\." + key) as refused:
        validated(LocalOptions, {key: 1}, "options.local")
    assert f"is not a known key. {said}" in str(refused.value)


@pytest.mark.parametrize(
    ("at", "word", "said"),
    [
        (("method",), "kto", "`tuning.preference.loss: kto`"),
        (("method",), "grpo", "Write `rft`"),
        (("tuning", "schedule"), "warmup_stable_decay", "Write `wsd`"),
        (("tuning", "optimizer"), "adamw_torch", "Write `adamw`"),
    ],
)
def test_values_of_other_trainers_say_what_to_write(
    at: tuple[str, ...], word: str, said: str
) -> None:
    assert said in refusal(changed(at, word))


@pytest.mark.parametrize("name", ENTRIES)
def test_an_unknown_option_of_a_scorer_lists_the_known_ones(name: str) -> None:
    text = refusal(changed(("evaluate", "scorers", 0), {"type": name, "nosuch": 1}))
    (line,) = (line for line in text.splitlines() if "nosuch" in line)
    assert "evaluate.scorers.0.nosuch is not a known key. Known: " in line
    assert "name" in line


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        ({"method": "lora"}, "LoRA is how sft trains. Write `sft`."),
        ({"evaluate": {"scorers": ["accuracy"]}}, "For labels, write `choice` or `exact`."),
    ],
)
def test_values_of_other_tools_are_understood(change: dict[str, Any], advice: str) -> None:
    content = {"name": "a", "model": "m", "backend": "local", "data": {"train": "t"}, **change}
    with pytest.raises(ValidationError) as refused:
        Job.model_validate(content)
    words = [
        sentence(details, part_at(Job, content, at))
        for at, details in by_location(content, refused.value).items()
    ]
    assert any(advice in each for each in words), words
