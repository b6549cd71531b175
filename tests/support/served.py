"""A run whose model answers from deployments only, at a vendor on loopback."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from vendors.serving import VENDORS, ServedVendor

from unitune.backends import registry
from unitune.backends.capabilities import Deploys
from unitune.job.job import Data, Job
from unitune.run.run import Run, launch

PATIENCE_SECONDS = 30


def trained(vendor: ServedVendor, folder: Path) -> Run:
    """Return a succeeded run, whose rows are in a folder."""
    return launch(served_job(vendor, folder)).wait(0.01)


def served_job(vendor: ServedVendor, folder: Path) -> Job:
    """Return a job for a vendor, and write its rows into a folder."""
    rows = (
        {
            "messages": [
                {"role": "user", "content": f"{number}?"},
                {"role": "assistant", "content": "yes"},
            ]
        }
        for number in range(60)
    )
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "train.jsonl").write_text(lines, encoding="utf-8")
    return Job(
        name="served",
        model=vendor.setup.model,
        backend=next(name for name, part in VENDORS.items() if part is vendor.setup),
        data=Data(train="train.jsonl"),
        folder=folder,
    )


def at_the_vendor(run: Run, name: str) -> str | None:
    """Return the vendor's id of a deployment; None where it has none of this name."""
    host = registry.backend(run.backend_name)
    assert isinstance(host, Deploys)
    return host.find_deployment(name)


def wait_until(true: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
    """Wait until something holds, and fail where it does not in time."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)
