"""Serve doubles of rented machines, whose jobs share a storage and may be processes here."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

from unitune.backends import registry
from unitune.backends.protocol import Launch
from unitune.job.job import Job
from unitune.testing.contract_base import sha256_of
from unitune.testing.vendor_setup import RoutedVendor, ServerBehavior, VendorSetup

Kind = TypeVar("Kind", bound="RentedVendor")

LAUNCHED = "r261201-000000000000-1"  # key of a launch


class RentedVendor(RoutedVendor):
    """A vendor whose storage is a folder.

    Args:
        storage: The folder that jobs and whoever launches share.
        behavior: How it behaves.
        adapter: What a training leaves behind; None: an empty folder.
        runs: Whether each job is a process that runs its command.
    """

    def __init__(
        self,
        storage: Path,
        behavior: ServerBehavior | None = None,
        adapter: Path | None = None,
        *,
        runs: bool = False,
    ) -> None:
        super().__init__(behavior)
        self.storage, self.adapter, self.runs = storage, adapter, runs
        self.processes: list[subprocess.Popen[bytes]] = []

    @property
    def files(self) -> list[Path]:
        """The uploaded files."""
        return list(self.storage.glob("files/*"))

    def run(
        self, command: Sequence[str], given: Mapping[str, str], name: str
    ) -> subprocess.Popen[bytes]:
        """Run a job here, with nothing but what it was given."""
        kept = {
            each: os.environ[each]
            for each in ("PATH", "TMPDIR", "PYTHONPATH", "HOME", "LD_LIBRARY_PATH")
            if each in os.environ
        }
        with (self.storage / f"{name}.log").open("wb") as log:
            made = subprocess.Popen([*command], env={**kept, **given}, stdout=log, stderr=log)
        self.processes.append(made)
        return made

    @classmethod
    @contextmanager
    def with_storage(
        cls,
        behavior: ServerBehavior | None = None,
        adapter: Path | None = None,
        *,
        runs: bool = False,
    ) -> Generator[Self]:
        """Give one with a storage of its own while the body runs; its processes then end."""
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as storage:
            vendor = cls(Path(storage), behavior, adapter, runs=runs)
            yield vendor
            for process in vendor.processes:
                process.kill()
                process.wait()


def rented_setup(
    kind: type[RentedVendor],
    environment: Callable[[str], dict[str, str]],
    create: str,
    adapter: Path | None = None,
    *,
    runs: bool = False,
) -> VendorSetup:
    """Return how a vendor is served whose trainings leave an adapter.

    `environment` takes the server's address; `create` is the path of the create call.
    """

    def variables(server: Any) -> dict[str, str]:
        return {**environment(server.url), "UNITUNE_STORAGE": str(server.vendor.storage)}

    return VendorSetup(
        vendor=lambda behavior: kind.with_storage(behavior, adapter, runs=runs),
        environment=variables,
        create=create,
        model="tiny",
        timeouts=("unitune.backends.kit.api.TIMEOUT_SECONDS",),
    )


def rented_launch(
    backend: str, folder: Path, key: str = LAUNCHED, rows: int = 100, **job: Any
) -> Launch:
    """Return a launch of a job on a rented machine, whose rows are uploaded."""
    path = folder / "train.jsonl"
    path.write_text("x" * 99 * rows, encoding="utf-8")
    given = {"name": "rented", "model": "Qwen/Qwen3-0.6B", "backend": backend}
    made = Job.model_validate({**given, "data": {"train": "train.jsonl"}, **job})
    return Launch(key, made, registry.backend(backend).upload(path, sha256_of(path)), None, folder)
