"""Runs that are looked at move on, although no other process may be watching them.

What the ledger knows of a run is what the last poll of its backend saw. A page that shows a run
which goes on has its backend polled, as `unitune show` does, in a thread, so that no page waits for
a vendor. A run whose launch is under way is not polled, and nothing is held while no poll goes on.
"""

from __future__ import annotations

import threading
import time

from unitune.errors import UnituneError
from unitune.ledger import Ledger
from unitune.run.handle import Run
from unitune.run.watching import goes_on

INTERVAL_SECONDS = 3.0
"""Between two polls of one run, however often its pages are looked at."""


class Poller:
    """Polls the backends of runs that are looked at."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._polls: dict[str, tuple[threading.Thread, float]] = {}
        self._problems: dict[str, str] = {}

    def look(self, run: Run) -> str:
        """Have a run polled soon, if it goes on; return why the last poll has failed, if it has."""
        thread, started = self._polls.get(run.id, (None, -INTERVAL_SECONDS))
        due = time.monotonic() - started >= INTERVAL_SECONDS
        if due and goes_on(run) and not (thread and thread.is_alive()):
            # Ctrl-C does not wait for a vendor: a poll that is cut off is made again.
            thread = threading.Thread(target=self._refresh, args=(run.id,), daemon=True)
            self._polls[run.id] = thread, time.monotonic()
            thread.start()
        return self._problems.get(run.id, "")

    def _refresh(self, run_id: str) -> None:
        try:
            Run(self._ledger, self._ledger.record(run_id)).refresh()
        except (UnituneError, OSError) as error:
            self._problems[run_id] = str(error)
        else:
            self._problems.pop(run_id, None)
