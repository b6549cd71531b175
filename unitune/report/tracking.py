"""Send the results of a comparison to experiment trackers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from unitune.evaluate.documents.history import history_folder, newest_of_run
from unitune.evaluate.documents.results import Comparison
from unitune.ledger import Ledger
from unitune.run.run import Run, find_run
from unitune.tracking.feed import feeding
from unitune.tracking.interface import Outcome, Results
from unitune.workspace.home import home


def track(run: Run, trackers: Sequence[str] = ()) -> list[Outcome]:
    """Send all data of a run to experiment trackers, and wait for it.

    The data is its figures by step, its final state, and the newest comparison that evaluated its
    model. Data that a tracker already has is not sent again.

    Args:
        run: Active or finished run on any backend.
        trackers: Names of trackers; empty for those of the run's job.

    Returns:
        For each tracker, the address of the run or the error.

    Raises:
        UnreadableRecord: The job of the run is not recorded or cannot be read.
    """
    ledger = Ledger(home())
    names = tuple(trackers) or run.job.track
    comparison = newest_of_run(run.id) if names else None
    results = _results(comparison, run.id) if comparison else None
    with feeding(ledger, ledger.record(run.id), names, results) as outcomes:
        pass
    return outcomes


def track_comparison(comparison: Comparison, trackers: Sequence[str]) -> list[Outcome]:
    """Send a saved comparison to trackers, for each run that it evaluated; see `track`."""
    if not trackers or comparison.id is None:
        return []
    runs = {contender.run: None for contender in comparison.contenders if contender.run}
    return [outcome for run in runs for outcome in track(find_run(run), trackers)]


def _results(comparison: Comparison, run: str) -> Results:
    folder = history_folder(comparison.id or "")
    return Results(
        comparison=comparison.id or "",
        time=datetime.fromisoformat(comparison.created).timestamp(),
        values=dict(_values(comparison, run)),
        tags={"comparison/verdict": comparison.verdict, "comparison/id": comparison.id or ""},
        files=tuple(sorted(path for path in folder.iterdir() if path.is_file())),
    )


def _values(comparison: Comparison, run: str) -> Iterator[tuple[str, float]]:
    for contender in comparison.contenders:
        if contender.run == run:
            yield from ((f"comparison/{name}", score) for name, score in contender.scores.items())
        if contender.name == comparison.baseline:
            yield "comparison/baseline", contender.score
    if comparison.run == run:
        yield "comparison/difference", comparison.difference
        yield "comparison/difference_low", comparison.interval[0]
        yield "comparison/difference_high", comparison.interval[1]
