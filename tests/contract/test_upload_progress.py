"""Uploads show their bytes as they are sent, at every vendor on loopback."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("together", reason="needs the vendors' extras")
pytest.importorskip("google.genai", reason="needs the vendors' extras")
pytest.importorskip("boto3", reason="needs the vendors' extras")

from vendors.serving import VENDORS, serve_vendor

from unitune.backends import registry
from unitune.backends.formats import wire_text
from unitune.data.dataset import Dataset, Row
from unitune.data.example import Example
from unitune.testing.contract_base import sha256_of
from unitune.workspace.progress import shown_by

LONG = "a question that is long enough to be sent in several pieces " * 40
SHOWN = ["uploading train.jsonl"]


@pytest.mark.parametrize("name", sorted(VENDORS))
def test_an_upload_shows_its_bytes_and_a_second_one_sends_none(name: str, tmp_path: Path) -> None:
    setup = VENDORS[name]
    messages = [{"role": "user", "content": LONG}, {"role": "assistant", "content": "yes"}]
    example = Example.model_validate({"messages": messages})
    rows = Dataset("train.jsonl", tuple(Row(line, example) for line in range(1, 201)))
    terms = registry.offer(name).terms(setup.model)
    file = tmp_path / "train.jsonl"
    file.write_text(wire_text(rows, terms.formats.get("sft")), encoding="utf-8")
    size, seen = file.stat().st_size, list[tuple[str, int, int]]()
    with serve_vendor(name), shown_by(lambda *step: seen.append(step)):
        backend = registry.backend(name)
        backend.upload(file, sha256_of(file))
        assert (SHOWN, {size}) == ([*{what for what, _, _ in seen}], {total for *_, total in seen})
        assert [done for _, done, _ in seen][-1:] == [size]
        assert len({done for _, done, _ in seen}) > (1 if name == "bedrock" else 5)
        seen.clear()
        backend.upload(file, sha256_of(file))
    assert seen == []
