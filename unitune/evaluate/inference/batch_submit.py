"""Which backends answer in batches, and submitting a batch exactly once.

A batch is on record before its create call is sent (`unitune.backends.exactly_once`). Only this
process, which holds the file of answers, can have submitted it since.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial

from unitune.backends import registry
from unitune.backends.capabilities import Batches
from unitune.backends.exactly_once import CreateCall, Uncertain, exactly_once, recover
from unitune.errors import (
    BackendError,
    MissingExtra,
    UnituneError,
    Unreachable,
    Unsupported,
    UserError,
)
from unitune.evaluate.inference.batch_file import Batch, BatchFile
from unitune.models import Request, TunedModel


def supports_batches(name: str) -> bool:
    """Return whether a backend answers in batches."""
    return isinstance(registry.backend(name), Batches)


def batching_backend(name: str) -> Batches:
    """Return a backend that answers in batches.

    Raises:
        Unsupported: This one does not; the message names those that do.
    """
    backend = registry.backend(name)
    if isinstance(backend, Batches):
        return backend
    raise Unsupported(
        f"backend {name!r} does not answer in batches; of those installed here, "
        f"{', '.join(_able()) or 'none'} can. Without --batch, requests are sent to its models one "
        "at a time."
    )


def _able() -> list[str]:
    able: list[str] = []
    for name in registry.backend_names():
        with suppress(MissingExtra):
            if name != "fake" and isinstance(registry.backend(name), Batches):
                able.append(name)
    return able


class _BatchCall(CreateCall):
    """The create call of a batch."""

    def __init__(
        self, submitter: BatchSubmitter, batch: Batch, create: Callable[[], str] | None = None
    ) -> None:
        self.settle_seconds = registry.offer(submitter.name).settle_seconds
        self._submitter = submitter
        self._batch = batch
        self._create = create

    def create(self) -> str:
        assert self._create is not None, "a batch that is only searched for has no requests"
        return self._create()

    def find(self) -> list[str]:
        """Return what may be the batch; a vendor may not say whose a batch is before it ends."""
        submitter, batch = self._submitter, self._batch
        ids = submitter.backend.find_batch(batch.key, batch.announced)
        return [batch_id for batch_id in ids if batch_id not in submitter.batches.ids()]

    def sleep(self, seconds: float) -> None:
        self._submitter.sleep(seconds)

    def refuse(self, error: UnituneError) -> None:
        del error
        self._submitter.batches.change(self._batch, end="refused")


@dataclass(frozen=True, slots=True)
class BatchSubmitter:
    """Where batches are submitted.

    Args:
        backend: Who takes them.
        name: Its name.
        batches: Where each is written down before it is submitted.
        sleep: Waits for so many seconds; Ctrl-C ends it.
    """

    backend: Batches
    name: str
    batches: BatchFile
    sleep: Callable[[float], None]

    def submit(
        self, batch: Batch, model: str | TunedModel, requests: Mapping[str, Request]
    ) -> None:
        """Submit a batch that is written down, and that no earlier call has created.

        Raises:
            Unreachable: What became of it is not known yet; the next process searches for it.
            UserError: The backend has several batches of its key.
            UnituneError: It was refused, which is written down.
        """
        create = partial(self.backend.submit_batch, batch.key, model, requests)
        with self._explained(batch):
            batch_id = exactly_once(_BatchCall(self, batch, create))
        self.batches.change(batch, batch_id=batch_id)

    def recover(self, batch: Batch) -> bool:
        """Search for a batch that another process may have submitted, and write its id down.

        Returns:
            Whether the backend has it.

        Raises:
            UserError: It has several.
            Unreachable: The search got no response.
        """
        with self._explained(batch):
            batch_id = recover(_BatchCall(self, batch), "")
        if batch_id is not None:
            self.batches.change(batch, batch_id=batch_id)
        return batch_id is not None

    @contextmanager
    def _explained(self, batch: Batch) -> Generator[None]:
        """Say what to do when what became of a batch is not known."""
        try:
            yield
        except Uncertain as error:
            raise UserError(
                f"any of several batches at {self.name} may be the one with the key "
                f"{batch.key!r}: {', '.join(error.ids)}. Compare again when they have ended, which "
                "may tell. If all are this comparison's, one is enough: cancel the others there. "
                "The one to collect can be written down, and is then looked for no more: "
                f"""echo '{{"key":"{batch.key}","batch_id":"ITS_ID"}}' >> {self.batches.path}"""
            ) from error
        except BackendError as error:
            if not error.is_ambiguous:
                raise
            raise Unreachable(
                f"{error} Nothing is lost: the same command finds out what became of the batch and "
                "goes on.",
                status=error.status,
                request_id=error.request_id,
                retry_after=error.retry_after,
            ) from error
