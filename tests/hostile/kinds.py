"""All that is thrown, by kind: `KINDS`. A new generator of `Attempt`s is one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from hostile import command_lines, documents, ledgers, rows, suites, vendors
from hostile.attempts import Attempt
from hypothesis import strategies as st

KINDS: Mapping[str, Callable[[], st.SearchStrategy[Attempt]]] = {
    "job files": documents.job_files,
    "budget files": documents.budgets,
    "price files": documents.prices,
    "saved plans": documents.plans,
    "recorded rows": documents.recorded,
    "own configuration": documents.own_files,
    "rows": rows.rows,
    "tables": rows.tables,
    "suites": suites.suites,
    "command lines": command_lines.command_lines,
    "ledger rows": ledgers.rows_of_the_ledger,
    "files of runs": ledgers.files_of_runs,
    "answers of vendors": vendors.backends,
    "answers of servers": vendors.servers,
}
