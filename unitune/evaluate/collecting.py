"""Run requests of an evaluation in an event loop that Ctrl-C interrupts without a loss."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from contextvars import copy_context
from functools import partial
from typing import TypeVar

from unitune.errors import Interrupted
from unitune.evaluate.grading import Answered
from unitune.evaluate.inference.engine import (
    EvaluationProgress,
    Notify,
)
from unitune.evaluate.inference.journal import (
    ResponseCache,
    open_response_cache,
)
from unitune.evaluate.runner import EvaluationConfig, EvaluationRunner, Journals
from unitune.workspace.home import home, make_home

T = TypeVar("T")


def collect_responses(config: EvaluationConfig, journals: Journals) -> tuple[Answered, ...]:
    """Request every answer that is not recorded; return the contenders with their answers.

    Raises:
        UnituneError: See `with_runner`.
    """
    answered = with_runner(config, journals, EvaluationRunner.run)
    in_order = {
        name: each
        for contender in config.contenders
        for name, each in answered.items()
        if name == contender.name or name.startswith(f"{contender.name}: ")
    }
    return tuple(in_order.values())


def with_runner(
    config: EvaluationConfig, journals: Journals, work: Callable[[EvaluationRunner], T]
) -> T:
    """Return the result of work that sends requests.

    If an event loop is running, as in a notebook, a separate thread sends the requests.

    Raises:
        Interrupted: The user pressed Ctrl-C; existing answers are kept.
        BackendError: A batch was refused or failed, or its state is unknown.
    """
    stopped = threading.Event()
    kept = f"every answer so far is saved in {config.folder}."
    more = "Run the same command to resume."
    if config.options.batch:
        more = (
            "Submitted batches continue at their vendors; run the same command again to collect "
            "them."
        )
    interrupted = Interrupted(f"{kept} {more}")

    def notify_or_stop(progress: EvaluationProgress) -> None:
        if stopped.is_set():
            raise interrupted
        config.options.progress(progress)

    try:
        return _outside_any_loop(partial(_run, config, journals, notify_or_stop, work), stopped)
    except KeyboardInterrupt:
        raise interrupted from None


def _outside_any_loop(work: Callable[[], T], stopped: threading.Event) -> T:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return work()
    with ThreadPoolExecutor(max_workers=1) as thread:
        try:
            return thread.submit(copy_context().run, work).result()
        finally:
            stopped.set()


def _run(
    config: EvaluationConfig,
    journals: Journals,
    notify: Notify,
    work: Callable[[EvaluationRunner], T],
) -> T:
    cached: AbstractContextManager[ResponseCache | None] = nullcontext()
    if not config.options.replay:
        make_home(home())
        cached = open_response_cache(home(), use_cache=config.options.use_cache)
    with cached as cache, asyncio.Runner() as loop:
        sources = {**config.sources, **(config.retention.untuned if config.retention else {})}
        return work(EvaluationRunner(config, loop, journals, cache, notify, sources))
