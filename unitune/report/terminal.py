"""A comparison in the terminal, as rich renderables: verdict, contenders, what else, the report.

Everything fits 80 columns and needs no colour to be understood. Texts out of a job are never read
as markup, and their control characters never reach the terminal.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.style import Style
from rich.table import Table
from rich.text import Text

from unitune.evaluate.result_files import REPORTS
from unitune.evaluate.results import Comparison, ContenderResult
from unitune.report import typography, words
from unitune.security.redaction import one_line

COLOURS = {
    "better": "bold green",
    "worse": "bold red",
    "equivalent": "bold cyan",
    "non-inferior": "bold cyan",
    "inconclusive": "bold yellow",
}

MOST_ROWS, MOST_CONFUSIONS = 12, 5
LEAST_BAR, MOST_BAR = 16, 40  # columns: fewer show nothing, more show nothing new


def comparison_view(comparison: Comparison, folder: Path) -> Group:
    """Return all that a comparison says in the terminal, and where its report is, if it is there.

    Beside the report stand the verdict as JSON, the summary and every answer.
    """
    return Group(
        verdict_lines(comparison),
        Text(),
        comparison_table(comparison),
        *(part for group in _more_tables(comparison) for part in (Text(), group)),
        Text(),
        *file_lines([folder / REPORTS[0]]),
    )


def verdict_lines(comparison: Comparison) -> Group:
    """Return the verdict with its figures, in words, with its caveats, and the gate's line."""
    lines = [
        _verdict_line(comparison),
        plain(f"{' ' * len(words.verdict(comparison))}  {words.figures(comparison)}"),
        Text(),
        plain(f"{words.headline(comparison)}. {words.reason(comparison)}"),
        *(Text.assemble(("Note: ", "yellow"), plain(note)) for note in words.caveats(comparison)),
    ]
    if comparison.gate is not None:
        style = "bold green" if comparison.gate.passed else "bold red"
        lines += [Text(), plain(words.gate(comparison), style)]
        lines += [plain(line) for line in [words.regressions(comparison)] if line]
    return Group(*lines)


def comparison_table(comparison: Comparison) -> Table:
    """Return the contenders with their intervals drawn on one axis from 0 to 100 %."""
    priced = any(result.usd is not None for result in comparison.contenders)
    cut, usd = ["\ncut"] * words.any_cut(comparison), ["\nUSD"] * priced
    table = table_of("\ncontender", numbers=["\nscore", f"\n{words.level(comparison)}"])
    table.add_column(IntervalScale(), ratio=1)
    for header in ("\nerrors", *cut, "tokens\n/case", "s\n/case", *usd):
        table.add_column(header, justify="right", no_wrap=True)
    for result in comparison.contenders:
        table.add_row(*_cells(comparison, result, priced=priced, cut=bool(cut)))
    return table


def _more_tables(comparison: Comparison) -> Iterator[Table]:
    if comparison.sweep:
        yield _sweep_table(comparison)
    names = (comparison.baseline, comparison.candidate)
    for group in words.contrast_groups(comparison):
        reference = group.rows is comparison.references
        table = table_of(group.title)
        for name in ("its score" if reference else names[0], names[1]):
            table.add_column(plain(name), justify="right", max_width=12, overflow="ellipsis")
        for header in ("difference", words.level(comparison), "p"):
            table.add_column(header, justify="right", no_wrap=True)
        for row in group.rows[:MOST_ROWS]:
            table.add_row(
                plain(row.name),
                plain(typography.percent(row.baseline)),
                plain(typography.percent(row.candidate)),
                plain(typography.points(row.difference, sign=True).split(" ")[0]),
                plain(typography.interval(row.interval)),
                plain(typography.p_value(row.p_adjusted)),
            )
        if (more := len(group.rows) - MOST_ROWS) > 0:
            table.add_row(plain(f"… {more} more in the report", "dim"))
        yield table
    if confused := words.confusions(comparison, MOST_CONFUSIONS):
        title = f"{plain(comparison.candidate)} confused"
        table = table_of(title, "with", numbers=["cases"], max_width=30)
        for each in confused:
            answered = plain(each.answered) if each.answered else Text("no label", "yellow")
            table.add_row(plain(each.expected), answered, plain(f"{each.cases:,}"))
        yield table


def _sweep_table(comparison: Comparison) -> Table:
    table = table_of("run of the sweep", numbers=["on dev", "errors"], max_width=None)
    table.add_column("", no_wrap=True)
    table.caption, table.caption_justify = plain(words.swept(comparison)), "left"
    for run in comparison.sweep:
        score = "no model" if run.score is None else typography.percent(run.score)
        last = plain(f"chosen, {run.run}") if run.chosen else plain(run.run or "", "dim")
        table.add_row(
            plain(run.name, "bold" if run.chosen else ""),
            plain(score),
            plain(f"{run.errors:,}" if run.rows else "", "red" if run.errors else ""),
            last,
        )
    return table


def table_of(*names: str, numbers: Iterable[str] = (), max_width: int | None = 24) -> Table:
    """Return an empty table without rules: columns of names, which fold, then those of numbers."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for name in names:
        table.add_column(name, max_width=max_width, overflow="fold")
    for number in numbers:
        table.add_column(number, justify="right", no_wrap=True)
    return table


def bullet(mark: str, sentence: str) -> Table:
    """Return a sentence behind a mark, whose further lines stand below its first."""
    line = Table.grid(padding=(0, 1))
    line.add_column(width=1)
    line.add_column(overflow="fold")
    line.add_row(mark, plain(sentence))
    return line


def file_lines(paths: Iterable[Path]) -> list[Text]:
    """Return one line for each file that exists, seen from here where it lies below.

    Terminals that know links open it at a click.
    """
    here = Path.cwd()
    return [
        plain(
            str(path.relative_to(here) if path.is_relative_to(here) else path),
            Style(dim=True, link=path.absolute().as_uri()),
        )
        for path in paths
        if path.exists()
    ]


def plain(text: str, style: str | Style = "") -> Text:
    """Return text on one line, its control characters and line breaks visible as U+FFFD."""
    return Text(one_line(text), style=style)


class _Bar:
    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(LEAST_BAR, max(LEAST_BAR, min(MOST_BAR, options.max_width)))


@dataclass(frozen=True)
class IntervalBar(_Bar):
    """A score with its interval, from 0 to 1, drawn over the width that its column has."""

    score: float
    low: float
    high: float
    style: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        last = options.max_width - 1
        left, middle, right = (round(end * last) for end in (self.low, self.score, self.high))
        style = console.get_style(self.style)
        faint = Style(dim=True)
        yield Segment("\u00b7" * left, faint)
        yield Segment("\u2501" * (middle - left) + "\u25cf" + "\u2501" * (right - middle), style)
        yield Segment("\u00b7" * (last - right), faint)


class IntervalScale(_Bar):
    """The ends of the axis on which `IntervalBar` draws."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Segment.line()
        yield Segment("0 %" + "100 %".rjust(options.max_width - 3))


def _verdict_line(comparison: Comparison) -> Text:
    candidate = words.contender(comparison, comparison.candidate)
    baseline = words.contender(comparison, comparison.baseline)
    difference = typography.points(comparison.difference, sign=True)
    ends = typography.interval(comparison.interval, ", ")
    return Text.assemble(
        (words.verdict(comparison).upper(), COLOURS[comparison.verdict]),
        plain(
            f"  {candidate.name} {candidate.score:.3f} vs {baseline.name} {baseline.score:.3f}: "
            f"{difference} [{ends}] ({words.level(comparison)})"
        ),
    )


def _cells(
    comparison: Comparison, result: ContenderResult, *, priced: bool, cut: bool
) -> list[Text | IntervalBar]:
    low, high = result.interval
    style = COLOURS[comparison.verdict] if result.name == comparison.candidate else ""
    compared = result.name in (comparison.candidate, comparison.baseline)
    cells: list[Text | IntervalBar] = [
        plain(result.name, "bold" if compared else ""),
        plain(typography.percent(result.score), style),
        plain(typography.interval(result.interval, "-")),
        IntervalBar(result.score, low, high, style),
        plain(f"{result.errors:,}", "red" if result.errors else ""),
        *([plain(f"{result.cut:,}", "yellow" if result.cut else "")] if cut else []),
        plain(typography.per_case(words.tokens(result), result.n)),
        plain(typography.per_case(result.seconds, result.n, "{:.2f}".format)),
    ]
    if priced:
        cells.append(plain("-" if result.usd is None else f"{result.usd:.4f}"))
    return cells
