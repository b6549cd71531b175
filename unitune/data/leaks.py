"""Test cases that a model may have seen in training: what `evaluate.leaks` does about them.

All three kinds of `unitune.data.overlap` count alike, exact or not: a tuned model recalls a row
that differs by a letter as well as the row itself, and a refusal shows each double and how near it
is, so that a person can decide for `drop` or `allow`. The check runs before a training is paid for
and again before a comparison.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from unitune.data.dataset import Dataset
from unitune.data.overlap import Kind, Search, SharedCase
from unitune.errors import Leak

SHOWN_CASES = 5
"""Leaking cases named in a refusal; `unitune check` names all."""

NAMES: dict[Kind, tuple[str, str]] = {
    "exact": ("exact", "exact"),
    "near-duplicate": ("near duplicate", "near duplicates"),
    "n-gram": ("by n-grams", "by n-grams"),
}
"""Kinds in words, for one case and for several."""


def leaks(seen: Iterable[Dataset], test: Dataset) -> tuple[SharedCase, ...]:
    """Return the test cases that stand in any of several sets of rows.

    Args:
        seen: Every row that the model or its prompt was made from, held-out rows included.
        test: The cases.

    Returns:
        In the order of the cases, each with its nearest double.
    """
    some = [rows for rows in seen if len(rows)]
    if not some:
        return ()
    search = Search(test.rows)
    for rows in some:
        search.look_in(rows.rows, rows.name)
    return search.found()


def refuse(shared: Sequence[SharedCase], test: Dataset) -> None:
    """Raise when test cases leak.

    Args:
        shared: From `leaks`.
        test: The cases.

    Raises:
        Leak: There are any.
    """
    if not shared:
        return
    first = ", ".join(f"{test.name}:{leak.line} (as {leak})" for leak in shared[:SHOWN_CASES])
    more = ", …" if len(shared) > SHOWN_CASES else ""
    raise Leak(
        f"{len(shared)} of {len(test)} test cases stand in training or validation rows, "
        f"{by_kind(leak.kind for leak in shared)}: {first}{more}. Take them out of one of the "
        "files, or set evaluate.leaks to `drop` (they are left out and counted) or `allow` (they "
        "count, and the report says so). `unitune check` shows them all."
    )


def by_kind(kinds: Iterable[Kind]) -> str:
    """Return how many cases there are of each kind, in words: ``7 exact, 1 near duplicate``."""
    counts = Counter(kinds)
    return ", ".join(
        f"{counts[kind]:,} {names[counts[kind] > 1]}"
        for kind, names in NAMES.items()
        if counts[kind]
    )
