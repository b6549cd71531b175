"""A vendor's own price is asked with the very files of a launch, which are handed over for it."""

from __future__ import annotations

import hashlib
from decimal import Decimal
from pathlib import Path

import pytest

from unitune.backends import registry
from unitune.backends.protocol import Launch
from unitune.errors import Unsupported
from unitune.planning.forecasts import quote
from unitune.testing.fake import FakeBackend

from .conftest import MakeJob


class QuotingFake(FakeBackend):
    """The fake, as a vendor that asks a cent for each kilobyte that it was handed."""

    def quote(self, launch: Launch) -> Decimal:
        held = Path(launch.training.ref).read_bytes()
        assert hashlib.sha256(held).hexdigest() == launch.training.sha256
        return Decimal(len(held)) / 100_000


def test_a_quote_is_for_the_files_that_a_launch_hands_over(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "backend", {"fake": QuotingFake()}.__getitem__)
    job = make_job({})
    from_rows = Path(job.path("train.jsonl")).read_text(encoding="utf-8")
    assert Decimal(len(from_rows.replace(": ", ":").replace(", ", ","))) / 100_000 == quote(job)


def test_a_vendor_without_a_price_of_its_own_says_so(make_job: MakeJob) -> None:
    with pytest.raises(Unsupported, match="does not quote a price"):
        quote(make_job({}))
