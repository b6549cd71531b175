"""Implement `unitune comparisons`, and `unitune review`: judge answers blind, on a local page."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from unitune.cli.options import NEWEST, Json, complete_comparison
from unitune.cli.output import aside, console, new_table, print_json, print_json_text, print_table
from unitune.cli.serve import Browser, Port, show_pages
from unitune.errors import UnreadableRecord, UserError

if TYPE_CHECKING:
    from unitune.evaluate.documents.diff import ComparisonDiff
    from unitune.evaluate.documents.results import Comparison
    from unitune.evaluate.review.queue import Review


SHOWN_CASES = 10  # gained cases shown, and lost cases; `--json` has them all
SHORT = 24  # characters of a version or setting that is shown; longer ones are hashes


def _comparison(metavar: str, meaning: str) -> Any:
    return typer.Argument(metavar=metavar, help=meaning, autocompletion=complete_comparison)


First = Annotated[
    str | None, _comparison("ID", "Comparison to show: id, its first letters, or newest.")
]
Second = Annotated[str | None, _comparison("ID2", "Comparison to compare the first one with.")]


def comparisons(
    first: First = None,
    second: Second = None,
    *,
    limit: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Number of comparisons to list (default: 20)."),
    ] = None,
    all_comparisons: Annotated[bool, typer.Option("--all", help="List every comparison.")] = False,
    json: Json = False,
) -> None:
    """List finished comparisons, show one, or show what changed between two.

    [dim]$ unitune comparisons
    $ unitune comparisons newest
    $ unitune comparisons c261120 c261127[/dim]
    """
    from unitune.evaluate.documents.history import REPORTS, find_comparison, history_folder
    from unitune.render.terminal import view
    from unitune.report.comparison import describe

    if first is None:
        if all_comparisons and limit is not None:
            raise UserError("pass --limit N or --all, not both.")
        _list(limit, everything=all_comparisons, json=json)
        return
    if all_comparisons or limit is not None:
        raise UserError(
            "--limit and --all apply to the list; leave out either them or the comparison id."
        )
    comparison = find_comparison(first)
    if second is not None:
        _print_diff(comparison, find_comparison(second), json=json)
    elif json:
        print_json_text(comparison.verdict_json())
    else:
        page = history_folder(comparison.id or "") / REPORTS[0]
        console().print(view(describe(comparison), [page]))


def _list(limit: int | None, *, everything: bool, json: bool) -> None:
    from unitune.evaluate.documents.history import (
        SHOWN_COMPARISONS,
        comparison_ids,
        comparison_listing,
    )

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
            console().print(f"Newest {shown:,} of {total:,}. For more: --limit N or --all.")
    for problem in unreadable:
        aside().print(str(problem))
    if unreadable:
        raise typer.Exit(UnreadableRecord.exit_code)


def _print_list(listed: list[Comparison]) -> None:
    from unitune.render.terminal import STYLES
    from unitune.render.typography import counted, dollars, interval, percent, points
    from unitune.report.comparison import TONES
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
            Text.assemble(
                (each.verdict, f"bold {STYLES[TONES[each.verdict]]}"), f"\n{gate}\n{cost}\n"
            ),
        )
    print_table(table)
    console().print(
        f"Reports: {artifacts() / COMPARISONS}/ID/report.html", soft_wrap=True, style="dim"
    )


def _when(comparison: Comparison) -> str:
    return f"{datetime.fromisoformat(comparison.created).astimezone():%Y-%m-%d %H:%M}"


def _print_diff(then: Comparison, now: Comparison, *, json: bool) -> None:
    from unitune.evaluate.documents.diff import diff

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
        console().print(f"\nDifferent: {', '.join(changed)}.")


def _print_contenders(made: ComparisonDiff, now: Comparison) -> None:
    from unitune.render.typography import interval, p_value, percent, points
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
    from unitune.render.typography import counted
    from unitune.report.cases import question, shared_system_prompt
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
        console().print(f"  … and {more:,} more; --json lists all", style="dim")


LABELS = Path("labels.jsonl")
AUTO = "auto"


def review(
    comparison: Annotated[
        str, _comparison("COMPARISON", "Comparison to review: id, its first letters, or newest.")
    ] = NEWEST,
    *,
    cases: Annotated[
        str,
        typer.Option(metavar="N|auto", help="Cases to review; auto: as many as the margin needs."),
    ] = AUTO,
    reviewer: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name of the reviewer (default: your user name)."),
    ] = None,
    labels: Annotated[
        Path, typer.Option(metavar="FILE", help="JSON Lines file that verdicts are added to.")
    ] = LABELS,
    export: Annotated[
        tuple[str, Path] | None,
        typer.Option(metavar="dpo FILE", help="Write the verdicts as preference rows, and end."),
    ] = None,
    port: Port = 0,
    browser: Browser = True,
) -> None:
    """Review the answers to each case blind, on a local page, with the keyboard.

    You compare two answers or, if the judge has a rubric, decide each clause for one answer.
    The contenders are hidden, the cases are drawn at random, and every verdict is saved at once.
    Run the command again to continue.

    [dim]$ unitune review
    $ unitune review newest --cases 60 --reviewer ana
    $ unitune review --export dpo pairs.jsonl[/dim]
    """
    from unitune.evaluate.documents.history import find_comparison
    from unitune.evaluate.review.queue import Review
    from unitune.ledger.audit import current_user

    if export is not None and not labels.exists():
        raise UserError(f"{labels}: no such file. Review first: unitune review {comparison}")
    opened = Review(find_comparison(comparison), labels, reviewer or current_user(), _cases(cases))
    if export is not None:
        _export(opened, *export)
        return
    show_pages(port, browser=browser, review=opened)


def _cases(text: str) -> int | None:
    if text == AUTO:
        return None
    if not text.isascii() or not text.isdecimal() or len(text) > 9 or int(text) < 1:
        raise UserError(f"--cases is {text!r}. Pass a number from 1, or {AUTO}.")
    return int(text)


def _export(opened: Review, method: str, output: Path) -> None:
    from unitune.cli.output import Kind, check_output, replacing
    from unitune.evaluate.review.figures import preference_rows
    from unitune.render.typography import counted

    if method != "dpo":
        raise UserError(f"--export writes preference rows for dpo, not for {method!r}.")
    check_output(output, Kind.ROWS, [opened.file])
    rows = list(preference_rows(opened.look()))
    if not rows:
        raise UserError(
            f"{opened.file} has no preference between answers of {opened.comparison.id} that can "
            "be trained on, so nothing was written. Answers after tool calls cannot be."
        )
    with replacing(output) as file:
        file.writelines(f"{row}\n".encode() for row in rows)
    aside().print(
        f"{output}: {counted(len(rows), 'preference row')} for method: dpo. Their questions are "
        "test cases of this comparison: test the new model on other cases."
    )
