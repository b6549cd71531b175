"""Examples of a kind, thrown one after the other: `throw`, and `table` of what came of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from hostile.attempts import Attempt, Tally, perform
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st


def throw(kind: str, attempts: st.SearchStrategy[Attempt], examples: int, tally: Tally) -> None:
    """Throw examples, the same each time, and fail at a fault with the smallest that has it.

    Args:
        kind: Their name in the tally.
        attempts: Where they come from.
        examples: How many.
        tally: Where they are counted.
    """

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    @given(attempts)
    def each(attempt: Attempt) -> None:
        found = perform(attempt, tally, kind)
        assert not found, "\n".join(found)

    each()


def throw_all(
    kind: str, attempts: st.SearchStrategy[Attempt], examples: int, tally: Tally, start: int
) -> None:
    """Throw examples whatever comes of them.

    Args:
        kind: Their name in the tally.
        attempts: Where they come from.
        examples: How many.
        tally: Where they are counted, and their faults.
        start: Another number, other examples.
    """

    @seed(start)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate,),
    )
    @given(attempts)
    def each(attempt: Attempt) -> None:
        perform(attempt, tally, kind)

    each()


def table(tally: Tally) -> str:
    """Return what was thrown and what came of it, for people."""
    lines = [f"{kind:22} {count:7,} examples" for kind, count in sorted(tally.thrown.items())]
    commands = Counter(name for name, _ in tally.codes.elements())
    for name, count in sorted(commands.items()):
        codes = _codes((code, n) for (command, code), n in tally.codes.items() if command == name)
        lines.append(f"{name:22} {count:7,} times     {codes}")
    bugs = sum(count for (_, code), count in tally.codes.items() if code == 70)
    lines.append(
        f"{tally.thrown.total():,} examples, {tally.codes.total():,} commands of {len(commands)} "
        f"kinds: {bugs} times exit 70, {tally.faults.total()} faults"
    )
    lines += [f"  {count:5} {name}: {fault}" for (name, fault), count in tally.faults.most_common()]
    return "\n".join(lines)


def _codes(counts: Iterable[tuple[int | None, int]]) -> str:
    return ", ".join(f"{code}: {count:,}" for code, count in sorted(counts, key=str))
