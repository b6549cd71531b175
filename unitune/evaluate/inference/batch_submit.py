"""Who answers in batches, and handing in a batch exactly once, whatever becomes of the call.

A call without a clear answer may have made the batch, and a vendor's list may show it only some
time later. So the batch is looked for by its key for the backend's settle time, counted from now:
only this process, which holds the answers' file, can have handed it in since. Found once, it is
adopted; found several times, only the user can say which one counts; not found, the call has made
none, and is sent again under the same key.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial

from unitune.backends import registry
from unitune.backends.capabilities import Batches
from unitune.backends.retry import delays, retry_delay, retry_rate_limited
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

CREATE_CALLS = 2
"""Calls without a clear answer before the user is told to come back later, as for a launch."""
CONFLICT = 409
"""Where a proxy has sent a call twice, the second may conflict with the first, which was taken."""
CREATE_PATIENCE_SECONDS = 120.0
"""How long handing in bears that the vendor is asked too often; it has done nothing then."""
FIND_PATIENCE_SECONDS = 60.0
"""Likewise one search."""


def supports_batches(name: str) -> bool:
    """Return whether a backend answers in batches."""
    return isinstance(registry.backend(name), Batches)


def batching_backend(name: str) -> Batches:
    """Return a backend that answers in batches.

    Raises:
        Unsupported: This one does not; the message names those that do.
    """
    found = registry.backend(name)
    if isinstance(found, Batches):
        return found
    raise Unsupported(
        f"backend {name!r} does not answer in batches; of those installed here, "
        f"{', '.join(_able()) or 'none'} can. Without --batch its models are asked one question at "
        "a time."
    )


def _able() -> list[str]:
    able: list[str] = []
    for name in registry.backend_names():
        with suppress(MissingExtra):
            if name != "fake" and isinstance(registry.backend(name), Batches):
                able.append(name)
    return able


@dataclass(frozen=True, slots=True)
class BatchSubmitter:
    """Where batches are handed in.

    Args:
        backend: Who takes them.
        name: Its name.
        batches: Where each is written down before it is handed in.
        rest: Does nothing for so many seconds; Ctrl-C ends it.
    """

    backend: Batches
    name: str
    batches: BatchFile
    rest: Callable[[float], None]

    def send(self, batch: Batch, model: str | TunedModel, requests: Mapping[str, Request]) -> None:
        """Hand in a batch that is written down, and that no earlier call has made.

        Raises:
            Unreachable: What became of it is not known yet; the next process looks for it.
            UnituneError: It was refused, which is on record.
        """
        submit = partial(self.backend.submit_batch, batch.key, model, requests)
        until = time.monotonic() + CREATE_PATIENCE_SECONDS
        with _nothing_lost():
            for left in reversed(range(CREATE_CALLS)):
                try:
                    batch_id = self._unless_shown(batch, submit, until)
                except UnituneError as error:
                    if not error.is_ambiguous and getattr(error, "status", None) != CONFLICT:
                        self.batches.change(batch, end="refused")
                        raise
                    if self._adopted(batch):
                        return
                    if not error.is_ambiguous:
                        self.batches.change(batch, end="refused")
                    if not (left and error.is_ambiguous):
                        raise
                else:
                    self.batches.change(batch, batch_id=batch_id)
                    return

    def _unless_shown(self, batch: Batch, submit: Callable[[], str], until: float) -> str:
        """Hand in, again and again while the vendor is asked too often, and return the id.

        Such a refusal is no proof: a proxy may have sent the call twice, and told of the second
        one. So what is listed by then is taken.
        """
        for pause in delays():
            try:
                return submit()
            except BackendError as error:
                longer = retry_delay(error, pause)
                if not error.is_rate_limited or time.monotonic() + longer > until:
                    raise
            self.rest(longer)
            find = partial(self.backend.find_batch, batch.key, batch.announced)
            shown = retry_rate_limited(find, FIND_PATIENCE_SECONDS)
            if found := [one for one in shown if one not in self.batches.ids()]:
                return self._only(batch, found)
        raise AssertionError("delays never end")

    def adopted(self, batch: Batch) -> bool:
        """Look for a batch that another process may have handed in, and write its id down.

        Returns:
            Whether the backend has it.

        Raises:
            UserError: It has several.
            Unreachable: The backend does not say.
        """
        with _nothing_lost():
            return self._adopted(batch)

    def _adopted(self, batch: Batch) -> bool:
        found = self._search(batch)
        if found:
            self.batches.change(batch, batch_id=self._only(batch, found))
        return bool(found)

    def _only(self, batch: Batch, found: list[str]) -> str:
        if len(found) > 1:
            raise UserError(
                f"any of several batches at {self.name} may be the one with the key "
                f"{batch.key!r}: {', '.join(found)}. Compare again when they have ended, which may "
                "tell. If all are this comparison's, one is enough: cancel the others there. The "
                "one to collect can be written down, and is then looked for no more: "
                f"""echo '{{"key":"{batch.key}","batch_id":"ITS_ID"}}' >> {self.batches.path}"""
            )
        return found[0]

    def _search(self, batch: Batch) -> list[str]:
        """Return what may be the batch; some vendors do not tell of a batch at work whose it is."""
        known = self.batches.ids()
        find = partial(self.backend.find_batch, batch.key, batch.announced)
        end = time.monotonic() + registry.offer(self.name).settle_seconds
        for pause in delays():
            over = time.monotonic() >= end  # looked at first: the last search is after the window
            longer = pause
            try:
                shown = retry_rate_limited(find, FIND_PATIENCE_SECONDS)
            except BackendError as error:
                if over or not error.is_retryable:
                    raise
                longer = retry_delay(error, pause)
            else:
                found = [batch_id for batch_id in shown if batch_id not in known]
                if found or over:
                    return found
            self.rest(min(longer, max(end - time.monotonic(), 0.0)))
        raise AssertionError("delays never end")


@contextmanager
def _nothing_lost() -> Generator[None]:
    """Say what to do when what became of a batch is not known."""
    try:
        yield
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
