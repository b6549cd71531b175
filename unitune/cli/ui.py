"""The command `unitune ui`: a local page about runs, comparisons, deployments and cases."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from unitune.cli.output import aside, print_raw

Port = Annotated[
    int,
    typer.Option(
        metavar="N",
        min=0,
        max=65535,
        show_default=False,
        help="Port of 127.0.0.1; by default any that is free.",
    ),
]
Browser = Annotated[
    bool,
    typer.Option(
        "--browser/--no-browser", help="Open it, where there is a screen.", show_default=False
    ),
]


def ui(*, port: Port = 0, browser: Browser = True) -> None:
    """Show runs, comparisons with their cases, and deployments on a local page.

    It prints the page's address, which only its owner can open, and follows
    what goes on until Ctrl-C. Only notes on cases can be written there.

    [dim]$ unitune ui
    $ unitune ui --port 8700 --no-browser[/dim]
    """
    from unitune.ledger import Ledger
    from unitune.ui.app import serve
    from unitune.workspace.home import home

    def announce(address: str, for_browser: str) -> None:
        print_raw(address)
        aside().print("Open this address here. Ctrl-C ends it.", style="dim")
        if browser and _has_display():
            import webbrowser

            webbrowser.open(for_browser)

    serve(Ledger(home()), port, announce)


def _has_display() -> bool:
    """Whether a browser would open a window: elsewhere one may take over the terminal."""
    screens = (os.environ.get("DISPLAY"), os.environ.get("WAYLAND_DISPLAY"))
    return sys.platform == "darwin" or any(screens)
