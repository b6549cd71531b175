"""The pages as HTML: each method makes one, out of what stands in the ledger and its folder.

They are made in threads, so nothing here waits on anything but files and the ledger's database.

What the ledger knows of a run is what the last poll of its backend saw. A page that shows a run
which goes on has its backend polled by `Poller`, as `unitune show` does, in a thread of its own, so
that no page waits for a vendor. A run whose launch is under way is not polled.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple, cast

from jinja2 import ChoiceLoader, Environment, PackageLoader

from unitune.errors import NotFoundError, UnituneError, UnreadableRecord
from unitune.evaluate.notes import LONGEST_NOTE, read_notes, write_note
from unitune.evaluate.results import Comparison
from unitune.ledger import Ledger, RunRecord
from unitune.report import html
from unitune.report.cases import shared_system_prompt
from unitune.report.runs import duplicate_lines
from unitune.report.typography import dollars
from unitune.run.handle import Run
from unitune.run.watching import goes_on
from unitune.security.json_fields import whole_text
from unitune.ui import queries
from unitune.ui.cases import PAGE_CASES, Chosen, browse
from unitune.ui.comparisons import kept_comparison, kept_comparisons, under_way
from unitune.workspace import yaml_file
from unitune.workspace.home import artifacts

INTERVAL_SECONDS = 3.0  # between two polls of one run, however often its pages are looked at


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


PAGE_RUNS = 50
PACKAGE = "unitune.ui"


class Visit(NamedTuple):
    """What an address says: the parts of its path, its query, and of a form its fields."""

    path: Mapping[str, str]
    query: Mapping[str, str]
    form: Mapping[str, str] = {}


class Pages:
    """The pages of one ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._poller = Poller(ledger)

    def runs(self, visit: Visit) -> str:
        """The newest runs, those that go on with their losses."""
        page = Chosen.of(visit.query).page
        listed = self._ledger.newest(page * PAGE_RUNS)[(page - 1) * PAGE_RUNS :]
        runs = [Run(self._ledger, each) for each in listed if isinstance(each, RunRecord)]
        shown = [queries.shown_run(run, problem=self._poller.look(run)) for run in runs]
        total = self._ledger.run_count()
        return _render(
            "runs.html.j2",
            "Runs",
            live=any(each.is_live for each in shown),
            shown=shown,
            unreadable=[each for each in listed if isinstance(each, UnreadableRecord)],
            total=total,
            folder=self._ledger.folder,
            page=page,
            more=page * PAGE_RUNS < total,
        )

    def run(self, visit: Visit) -> str:
        """One run: its losses, plan and bill, deployments, comparisons, settings and events."""
        run = Run(self._ledger, self._ledger.record(visit.path["run"]))
        shown = queries.shown_run(run, whole=True, problem=self._poller.look(run))
        bill, job = run.reconciliation, ""
        with suppress(UnreadableRecord):
            job = yaml_file.dump(run.job.model_dump(mode="json", exclude_defaults=True))
        return _render(
            "run.html.j2",
            "Runs",
            here=False,
            live=shown.is_live,
            shown=shown,
            facts=list(queries.run_facts(shown)),
            duplicates=duplicate_lines(run),
            estimate=run.estimate,
            rows=list(queries.estimate_rows(run.estimate)) if run.estimate else (),
            bill=bill,
            bill_facts=list(queries.bill_facts(bill)) if bill else (),
            deployments=queries.deployments_of(self._ledger, run.id),
            comparisons=kept_comparisons(run.id),
            under_way=under_way(artifacts(), run.id),
            settings=list(queries.setting_facts(run)),
            provenance=list(queries.provenance_facts(self._ledger, run)),
            job=job,
            happenings=queries.happenings(shown),
        )

    def deployments(self, _visit: Visit) -> str:
        """Deployments: those that stand, with what they cost and when they end, and the others."""
        listed = queries.deployments_of(self._ledger)
        prices = [each.usd_per_hour for each in listed if each.stands]
        known = [price for price in prices if price is not None]
        unknown = " and what has no known price" if len(known) < len(prices) else ""
        return _render(
            "deployments.html.j2",
            "Deployments",
            live=bool(prices),
            deployments=listed,
            an_hour=f"{dollars(sum(known, Decimal(0)))}{unknown}" if known else "an unknown price",
        )

    def comparisons(self, _visit: Visit) -> str:
        """Comparisons under way, in counts, and those that are kept."""
        going_on = under_way(artifacts())
        return _render(
            "comparisons.html.j2",
            "Comparisons",
            live=bool(going_on),
            under_way=going_on,
            comparisons=kept_comparisons(),
        )

    def comparison(self, visit: Visit) -> str:
        """One comparison: its verdict, and its cases as the address asks for them."""
        comparison, chosen = kept_comparison(visit.path["comparison"]), Chosen.of(visit.query)
        shown = browse(comparison, chosen, read_notes(_folder(comparison)))
        return _render(
            "comparison.html.j2",
            "Comparisons",
            here=False,
            comparison=comparison,
            chosen=chosen,
            address=chosen.query(),
            counts=[(name, count, chosen.query(show=name)) for name, count in shown.counts],
            slices=sorted({name for case in comparison.cases for name in case.slices}),
            cases=shown.cases,
            total=shown.total,
            pages=max(1, ceil(shown.total / PAGE_CASES)),
            system_prompt=shared_system_prompt(comparison.cases),
            longest_note=LONGEST_NOTE,
        )

    def report(self, visit: Visit) -> str:
        """The full report, with the notes."""
        comparison = kept_comparison(visit.path["comparison"])
        return html.render(comparison, read_notes(_folder(comparison)))

    def write_note(self, visit: Visit) -> str:
        """Keep a note on a case, and return the address of that case.

        Raises:
            NotFoundError: There is no such case.
        """
        comparison, case = kept_comparison(visit.path["comparison"]), visit.form.get("case", "")
        known = [each.id for each in comparison.cases]
        if case not in known:
            raise NotFoundError("case", case, (), "Open its comparison again.")
        write_note(_folder(comparison), case, visit.form.get("text", ""))
        chosen = Chosen.of(visit.query)
        address = f"/comparisons/{comparison.id}?{chosen.query()}page={chosen.page}"
        return f"{address}#case-{known.index(case) + 1}"


def problem(title: str, text: str) -> str:
    """Return a page that says what is wrong."""
    return _render("problem.html.j2", "", title=title, problem=text)


def _folder(comparison: Comparison) -> Path:
    assert comparison.folder is not None, "it is kept in one"
    return comparison.folder


def _render(
    template: str, section: str, *, live: bool = False, here: bool = True, **content: Any
) -> str:
    page = _environment().get_template(template)
    now = f"{datetime.now():%H:%M:%S}"  # noqa: DTZ005 - of the clock beside the reader
    text = page.render(section=section, live=live, here=here, now=now, **content)
    return whole_text(text)


@cache
def _environment() -> Environment:
    """Return the report's templates and filters, with the pages' own templates beside them."""
    loaders = [PackageLoader(PACKAGE), PackageLoader(html.PACKAGE, package_path="")]
    environment = html.environment().overlay(loader=ChoiceLoader(loaders))
    cast("dict[str, object]", environment.globals)["seconds_until"] = _seconds_until
    return environment


def _seconds_until(time: datetime) -> float:
    return max(0.0, (time - datetime.now(UTC)).total_seconds())
