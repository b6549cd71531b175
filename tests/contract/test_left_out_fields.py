"""Every vendor on loopback leaves out whatever it may, and more: no poll crashes."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("together", reason="needs the vendors' extras")
pytest.importorskip("google.genai", reason="needs the vendors' extras")
pytest.importorskip("boto3", reason="needs the vendors' extras")
pytest.importorskip("anthropic", reason="needs the vendors' extras")

from support.sparse_vendors import BATCHED, STAGES

from unitune.testing.omissions import Omissions

POLLS = 150


@pytest.mark.parametrize("name", sorted(STAGES))
def test_a_vendor_may_leave_out_every_optional_field(name: str, tmp_path: Path) -> None:
    omits = Omissions(seed=1)
    with STAGES[name]() as stage:
        tally = stage.polled(tmp_path, omits, POLLS)
    assert dict(tally.crashes) == {}
    assert tally.polls >= POLLS
    assert len(omits.met) > 15


@pytest.mark.parametrize("name", sorted(STAGES))
def test_a_server_of_that_wire_may_leave_out_any_field(name: str, tmp_path: Path) -> None:
    """Servers that imitate a vendor answer less than its description requires."""
    with STAGES[name]() as stage:
        tally = stage.polled(tmp_path, Omissions(seed=2, share=0.15, required=True), POLLS)
    assert dict(tally.crashes) == {}


@pytest.mark.parametrize("required", [False, True], ids=["optional", "any"])
@pytest.mark.parametrize("name", sorted(BATCHED))
def test_batches_survive_it_too(name: str, required: bool) -> None:  # noqa: FBT001
    with BATCHED[name]() as stage:
        tally = stage.batches_polled(Omissions(seed=3, share=0.2, required=required), POLLS)
    assert dict(tally.crashes) == {}
