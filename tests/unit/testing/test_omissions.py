"""Fields that an answer may leave out are left out, and no others; known from its description."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import BaseModel, JsonValue
from vendors.shapes import schema_of

from unitune.testing.omissions import Omissions

WHOLE: JsonValue = {
    "id": "job-1",
    "model": "tiny",
    "events": [{"at": 1, "text": "begun"}, {"at": 2, "text": "done"}],
    "labels": {"a": "1"},
}


class Happened(BaseModel):
    at: int
    text: str | None


class Told(BaseModel):
    id: str
    model: str | None = None
    events: list[Happened]
    labels: dict[str, str]


def thinned(omits: Omissions) -> Mapping[str, Any]:
    content = omits.thinned(WHOLE, schema_of(Told))
    assert isinstance(content, dict)
    return content


def test_required_fields_stay_and_optional_ones_may_go() -> None:
    kept = [thinned(Omissions(seed=seed, share=1.0)) for seed in range(20)]
    assert set(kept[0]) - {"model"} == {"id", "events", "labels"}
    assert {"model" in one for one in kept} == {True, False}, "gone in some, null in others"
    assert {one.get("model") for one in kept} == {None}


def test_a_required_field_that_may_be_null_is_null() -> None:
    events = thinned(Omissions(share=1.0))["events"]
    assert events == [{"at": 1, "text": None}, {"at": 2, "text": None}]


def test_entries_of_a_map_may_go() -> None:
    assert thinned(Omissions(share=1.0))["labels"] == {}


def test_required_fields_may_go_where_that_is_asked_for() -> None:
    kept = [thinned(Omissions(seed=seed, share=0.5, required=True)) for seed in range(20)]
    assert any("id" not in one for one in kept)
    assert any("id" in one and one["id"] is None for one in kept)


@pytest.mark.parametrize("seed", [0, 7])
def test_the_same_seed_leaves_out_the_same(seed: int) -> None:
    assert thinned(Omissions(seed=seed)) == thinned(Omissions(seed=seed))


def test_what_can_be_left_out_is_told() -> None:
    omits = Omissions(share=0.0)
    assert thinned(omits) == WHOLE
    assert omits.met == {"model", "events[].text", "labels.a"}
    assert omits.omitted == 0
