"""Run one event loop in a background thread, for code that waits for asynchronous code.

A model's connections belong to one loop, but a script has none, a notebook has a running one, and a
program may start several. So all requests are sent from this loop: `run` blocks, `in_background` is
awaited.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

Result = TypeVar("Result")
CLOSING_SECONDS = 2.0  # time for closing connections when the process ends


class _LoopThread(threading.Thread):
    def __init__(self) -> None:
        super().__init__(name="unitune-event-loop", daemon=True)
        self.loop = asyncio.new_event_loop()

    def run(self) -> None:
        self.loop.run_forever()
        pending = asyncio.all_tasks(self.loop)
        if pending:  # models that are being closed
            self.loop.run_until_complete(asyncio.wait(pending, timeout=CLOSING_SECONDS))
        self.loop.close()


_starting = threading.Lock()
_thread: _LoopThread | None = None


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine and wait for its result; Ctrl-C cancels it."""
    future = submit(work)
    try:
        return future.result()
    finally:
        future.cancel()


async def in_background(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine and await its result; cancelling the caller cancels it."""
    return await asyncio.wrap_future(submit(work))


def submit(work: Coroutine[Any, Any, Result]) -> Future[Result]:
    """Start a coroutine without waiting for it."""
    global _thread  # noqa: PLW0603 - one for the process
    with _starting:
        if _thread is None or not _thread.is_alive():  # a forked process does not have the thread
            _thread = _LoopThread()
            _thread.start()
        loop = _thread.loop
    return asyncio.run_coroutine_threadsafe(work, loop)


@atexit.register  # at import, so that handlers registered later still have the loop
def _stop() -> None:
    if _thread is not None and _thread.is_alive():
        _thread.loop.call_soon_threadsafe(_thread.loop.stop)
        _thread.join()
