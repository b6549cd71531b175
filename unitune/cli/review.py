"""Implement `unitune review`: judge a comparison's answers blind, on a local page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unitune.cli.completion import complete_comparison
from unitune.cli.options import NEWEST
from unitune.cli.output import aside
from unitune.cli.serve import Browser, Port, show_pages
from unitune.errors import UserError

if TYPE_CHECKING:
    from unitune.evaluate.review import Review

LABELS = Path("labels.jsonl")
AUTO = "auto"


def review(
    comparison: Annotated[
        str,
        typer.Argument(
            metavar="COMPARISON",
            help="Comparison to review: id, its first letters, or newest.",
            autocompletion=complete_comparison,
        ),
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
    """Judge the two answers to each case blind, on a local page, with the keyboard.

    The contenders are hidden, the cases are drawn at random, and every verdict is saved at once.
    Run the command again to continue.

    [dim]$ unitune review
    $ unitune review newest --cases 60 --reviewer ana
    $ unitune review --export dpo pairs.jsonl[/dim]
    """
    from unitune.evaluate.history import find_comparison
    from unitune.evaluate.review import Review
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
    from unitune.evaluate.review_figures import preference_rows
    from unitune.render.typography import counted

    if method != "dpo":
        raise UserError(f"--export writes preference rows for dpo, not for {method!r}.")
    check_output(output, Kind.ROWS, [opened.file])
    rows = list(preference_rows(opened.look()))
    if not rows:
        raise UserError(
            f"{opened.file} has no preference between the answers of "
            f"{opened.comparison.id}, so there is no row to write."
        )
    with replacing(output) as file:
        file.writelines(f"{row}\n".encode() for row in rows)
    aside().print(
        f"{output}: {counted(len(rows), 'preference row')} for method: dpo. Their questions are "
        "test cases of this comparison: test the new model on other cases."
    )
