"""The command `unitune comparisons`: the history, one comparison of it, or two side by side."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from unitune.cli.completion import complete_comparison
from unitune.cli.options import Json
from unitune.cli.output import aside, console, new_table, print_json, print_json_text, print_table
from unitune.errors import UnreadableRecord, UserError

if TYPE_CHECKING:
    from unitune.evaluate.diff import ComparisonDiff
    from unitune.evaluate.results import Comparison

SHOWN_CASES = 10  # cases gained, and lost, that a difference shows; `--json` has them all
SHORT = 24  # characters of a version or setting that is shown; what is longer is a hash


def _comparison(metavar: str, meaning: str) -> Any:
    return typer.Argument(metavar=metavar, help=meaning, autocompletion=complete_comparison)


First = Annotated[
    str | None, _comparison("ID", "Show this one: its id, the first letters, or newest.")
]
Second = Annotated[str | None, _comparison("ID2", "And what changed from the first to this one.")]


def comparisons(
    first: First = None,
    second: Second = None,
    *,
    limit: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="How many, the newest first; 20 by default."),
    ] = None,
    all_comparisons: Annotated[bool, typer.Option("--all", help="Every comparison.")] = False,
    json: Json = False,
) -> None:
    """List the finished comparisons, newest first; show one; or what changed between two.

    [dim]$ unitune comparisons
    $ unitune comparisons newest
    $ unitune comparisons c261120 c261127[/dim]
    """
    from unitune.evaluate.history import find_comparison, history_folder
    from unitune.report.terminal import comparison_view

    if first is None:
        if all_comparisons and limit is not None:
            raise UserError("give --limit N or --all, not both.")
        _list(limit, everything=all_comparisons, json=json)
        return
    if all_comparisons or limit is not None:
        raise UserError(
            "--limit and --all are for the list; leave them out, or name no comparison."
        )
    comparison = find_comparison(first)
    if second is not None:
        _print_diff(comparison, find_comparison(second), json=json)
    elif json:
        print_json_text(comparison.verdict_json())
    else:
        console().print(comparison_view(comparison, history_folder(comparison.id or "")))


def _list(limit: int | None, *, everything: bool, json: bool) -> None:
    from unitune.evaluate.history import SHOWN_COMPARISONS, comparison_ids, comparison_listing

    listed, unreadable = comparison_listing(None if everything else limit or SHOWN_COMPARISONS)
    shown = len(listed) + len(unreadable)
    total = max(len(comparison_ids()), shown)
    if json:
        shown_ones = [
            {**each.model_dump(exclude={"cases"}), "folder": each.folder} for each in listed
        ]
        messages, counts = list(map(str, unreadable)), {"total": total, "left_out": total - shown}
        print_json(
            {"schema_version": 1, "comparisons": shown_ones, "unreadable": messages, **counts}
        )
    elif not shown:
        console().print("No comparisons in this project yet. Run: unitune compare unitune.yaml")
    else:
        _print_list(listed)
        if total > shown:
            console().print(f"The newest {shown:,} of {total:,}. More: --limit N, or --all.")
    for problem in unreadable:
        aside().print(str(problem))
    if unreadable:
        raise typer.Exit(UnreadableRecord.exit_code)


def _print_list(listed: list[Comparison]) -> None:
    from unitune.report.terminal import COLOURS
    from unitune.report.typography import counted, dollars, interval, percent, points
    from unitune.report.words import contender
    from unitune.workspace.home import COMPARISONS, artifacts

    headings = ("comparison", "candidate, baseline", "", "difference", "verdict")
    table = new_table(*headings, right=("",), fold=headings[:2])
    for each in listed:
        sides = [contender(each, name) for name in (each.candidate, each.baseline)]
        gate = "" if each.gate is None else f"gate {'' if each.gate.passed else 'not '}passed"
        cost = "" if each.spent_usd is None else dollars(each.spent_usd)
        table.add_row(
            f"{each.job}\n{each.id}\n{_when(each)}",
            "\n".join(side.name for side in sides),
            "\n".join(percent(side.score) for side in sides),
            f"{points(each.difference, sign=True)}\n{interval(each.interval)}\n"
            f"{counted(each.n, 'case')}",
            Text.assemble((each.verdict, COLOURS[each.verdict]), f"\n{gate}\n{cost}\n"),
        )
    print_table(table)
    console().print(
        f"Reports: {artifacts() / COMPARISONS}/ID/report.html", soft_wrap=True, style="dim"
    )


def _when(comparison: Comparison) -> str:
    return f"{datetime.fromisoformat(comparison.created).astimezone():%Y-%m-%d %H:%M}"


def _print_diff(then: Comparison, now: Comparison, *, json: bool) -> None:
    from unitune.evaluate.diff import diff

    made = diff(then, now)
    if json:
        print_json(made)
        return
    table = new_table("", "comparison", "job", "made", "verdict", fold=("job",))
    for name, each in (("then", then), ("now", now)):
        table.add_row(Text(name, "dim"), each.id or "", each.job, _when(each), each.verdict)
    print_table(table)
    console().print()
    _print_contenders(made, now)
    if made.unpaired:
        console().print(f"\nNot compared case by case: {made.unpaired}.")
    for each in made.contenders:
        if each.name == now.candidate and each.paired is not None:
            _print_cases("gained", each.name, each.paired.gained, now)
            _print_cases("lost", each.name, each.paired.lost, now)
    changed = [
        f"{each.name} ({each.then}, {each.now})"
        if each.then and each.now and max(len(each.then), len(each.now)) <= SHORT
        else each.name
        for each in made.changes
    ]
    if changed:
        console().print(f"\nNot the same in both: {', '.join(changed)}.")


def _print_contenders(made: ComparisonDiff, now: Comparison) -> None:
    from unitune.report.typography import interval, p_value, percent, points
    from unitune.report.words import level

    names = ("then", "now", "difference", level(now), "gained", "lost", "p")
    table = new_table("contender", *names, right=names, fold=("contender",))
    for each in made.contenders:
        scores = ("-" if score is None else percent(score) for score in (each.then, each.now))
        cells = ["-"] * 5
        if (paired := each.paired) is not None:
            cells = [
                points(paired.difference, sign=True).split(" ")[0],
                interval(paired.interval),
                f"{len(paired.gained):,}",
                f"{len(paired.lost):,}",
                p_value(paired.p_adjusted),
            ]
        table.add_row(each.name, *scores, *cells)
    print_table(table)
    if sum(each.paired is not None for each in made.contenders) > 1:
        console().print("p is adjusted for the number of contenders (Holm).", style="dim")


def _print_cases(what: str, name: str, ids: tuple[str, ...], now: Comparison) -> None:
    from unitune.report.cases import question, shared_system_prompt
    from unitune.report.typography import counted
    from unitune.security.redaction import one_line

    if not ids:
        return
    console().print(f"\n{name} {what} {counted(len(ids), 'case')}:")
    prompt, by_id = shared_system_prompt(now.cases), {case.id: case for case in now.cases}
    for id_ in ids[:SHOWN_CASES]:
        text = one_line(" ".join(question(by_id[id_], prompt).split()))
        line = Text.assemble((f"  {id_}  ", "dim"), text)
        console().print(line, no_wrap=True, overflow="ellipsis")
    if (more := len(ids) - SHOWN_CASES) > 0:
        console().print(f"  … and {more:,} more; --json lists them all", style="dim")
