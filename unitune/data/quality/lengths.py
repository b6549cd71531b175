"""Rows that take much of the bill for tokens by their length alone.

Characters stand for tokens, which depend on the model; `unitune plan` counts those, and says which
rows are over the model's own limit.
"""

from __future__ import annotations

from collections.abc import Sequence

from unitune.data.quality.findings import QualityRow, RowIssue, RowIssues

BILL_SHARE, ROWS_SHARE = 0.2, 0.02
"""A fiftieth of the rows that has a fifth of all characters weighs ten times what others do."""
FEWEST_ROWS = 50


def longest(rows: Sequence[QualityRow]) -> RowIssues:
    """Return the few longest rows where they make much of the file, the longest first."""
    total = sum(row.characters for row in rows)
    by_length = sorted(range(len(rows)), key=lambda at: -rows[at].characters)
    reached, taken = 0, 0
    while len(rows) >= FEWEST_ROWS and reached < BILL_SHARE * total:
        reached += rows[by_length[taken]].characters
        taken += 1
    few = taken if taken <= ROWS_SHARE * len(rows) else 0
    return RowIssues(
        "long-rows",
        f"Few rows with {100 * reached / total:.0f} % of all characters" if few else "Long rows",
        "Shorten them or leave them out if they are no better than others: training is paid by "
        "the token.",
        [
            RowIssue(
                at,
                f"{rows[at].characters:,} characters, "
                f"{100 * rows[at].characters / total:.2g} % of all.",
            )
            for at in by_length[:few]
        ],
    )
