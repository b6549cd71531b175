"""Continued pre-training: raw texts, each token of which is learnt, cut to what fits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.tiny_model import tiny_tokenizer
from support.tuned_here import job_for as tuned_job
from support.tuned_here import local_job, tune

from unitune.backends import event_loop, registry
from unitune.data.check import read_job
from unitune.data.example import Message
from unitune.data.load import load
from unitune.errors import DataError
from unitune.job.job import Job
from unitune.models import Request
from unitune.planning.feasibility import offer_findings
from unitune.workspace.user_settings import today
from unitune_local.backend import LocalBackend
from unitune_local.data.rows import masked, render_texts
from unitune_local.settings import Dimensions, resolve


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def job_for(path: Path, **changes: Any) -> Job:
    return local_job(method="cpt", data={"train": str(path)}, **changes)


def test_each_token_is_learnt_and_a_long_text_is_cut(tmp_path: Path) -> None:
    file = write(tmp_path / "raw.jsonl", [{"text": "abcdefg"}, {"text": "x", "weight": 2}])
    tokenizer = tiny_tokenizer()
    end = tokenizer.eos_token_id
    rows = render_texts(tokenizer, load(file, use="cpt"), 5).rows
    letters = tokenizer("abcdefgx")["input_ids"]
    expected = [[*letters[:5]], [*letters[5:7], end], [letters[7], end]]
    assert [list(row.ids) for row in rows] == expected
    expected_mask = [[0, 1, 1, 1, 1], [0, 1, 1], [0, 1]]
    assert [list(row.trained) for row in rows] == expected_mask
    assert [(row.weight, row.line) for row in rows] == [(1.0, 1), (1.0, 1), (2.0, 2)]


def test_the_mask_shows_all_tokens(tmp_path: Path) -> None:
    (row,) = load(write(tmp_path / "raw.jsonl", [{"text": "ab"}]), use="cpt").rows
    shown = masked(tiny_tokenizer(), row.example, raw_text=True)
    assert [(each.text, each.trained) for each in shown] == [
        ("a", False),
        ("b", True),
        ("<|im_end|>", True),
    ]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"messages": [{"role": "user", "content": "x"}]}, "needs raw text"),
        ({"prompt": "a", "completion": "b"}, "needs raw text"),
        ({"text": " "}, "the text is empty"),
        ({"text": 3}, "needs raw text"),
    ],
)
def test_other_rows_are_refused_by_line(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    file = write(tmp_path / "raw.jsonl", [{"text": "fine"}, row])
    with pytest.raises(DataError, match=said) as refused:
        load(file, use="cpt")
    assert refused.value.findings[0].line == 2


def test_for_other_methods_a_raw_text_names_the_method(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="method: cpt"):
        load(write(tmp_path / "raw.jsonl", [{"text": "fine"}]), use="sft")


def test_texts_are_held_out_and_equal_ones_found(tmp_path: Path) -> None:
    rows = [{"text": f"Document {at} is about number {at}."} for at in range(60)]
    report = read_job(job_for(write(tmp_path / "raw.jsonl", [*rows, rows[0]])))
    assert {each.code for each in report.report.findings if each.severity == "warning"} == {
        "duplicate"
    }
    assert len(report.splits.validation) == 30


def test_a_vendor_without_the_method_refuses_it(tmp_path: Path) -> None:
    job = job_for(tmp_path / "raw.jsonl", backend="openai", model="gpt-4.1-mini-2025-04-14")
    codes = [each.code for each in offer_findings(job, registry.offer("openai"), today())]
    assert "unsupported-method" in codes


@pytest.fixture
def bare_model(tiny_model: Path, tmp_path: Path) -> Path:
    """Return a base model without a chat template."""
    base = tmp_path / "base"
    base.mkdir()
    for file in tiny_model.iterdir():
        if file.name != "chat_template.jinja":
            (base / file.name).write_bytes(file.read_bytes())
    return base


def test_a_plan_needs_no_chat_template(bare_model: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "raw.jsonl", [{"text": f"Document {at}. " * 9} for at in range(40)])
    job = job_for(file, model=str(bare_model), tuning={"epochs": 0.5})
    rows = load(file, use="cpt")
    made = LocalBackend().forecast(job, rows, rows)
    assert not made.findings
    assert made.steps == 3, "half of 5 steps, rounded up as transformers does"
    assert resolve(job, Dimensions(context=8192, hidden=32)).sequence_length == 2048


def test_a_model_without_a_chat_template_is_trained_and_completes_texts(
    bare_model: Path, tmp_path: Path
) -> None:
    texts = write(tmp_path / "texts.jsonl", [{"text": "The sky is blue. " * 3}] * 8)
    content = "".join(row.example.line + "\n" for row in load(texts, use="cpt").rows)
    (tmp_path / "raw.jsonl").write_text(content, encoding="utf-8")
    job = tuned_job(bare_model, tmp_path / "raw.jsonl", epochs=20, learning_rate=2e-2)
    model = LocalBackend().chat(tune(job, tmp_path / "run"))
    asked = Request(messages=(Message(role="user", content="The sky is"),), max_tokens=6)
    reply = event_loop.run(model.reply(asked))
    assert (reply.error, reply.text, reply.prompt_tokens) == (None, " blue.", len("The sky is"))
