"""Implement `unitune serve` (an OpenAI-compatible server) and `unitune ui` (a local web page)."""

from __future__ import annotations

import ipaddress
import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from unitune.cli.options import NEWEST, complete_served
from unitune.cli.output import aside, print_raw
from unitune.errors import NotFoundError, Unsupported, UserError

if TYPE_CHECKING:
    from pydantic import JsonValue

    from unitune.evaluate.review.queue import Review
    from unitune.models import TunedModel

LOOPBACK = "127.0.0.1"
PORT = 8000
HERE = "local"  # the backend that stores base models on this machine
MOST_SHOWN = 500  # characters of the longest system message shown in the example


class _Served(NamedTuple):
    name: str
    backend: str
    model: str | TunedModel
    title: str
    system: str | None = None  # the system message shared by all its training rows


def serve(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Run id, newest, NAME:3, NAME@ALIAS, or a local base model or folder.",
            autocompletion=complete_served,
        ),
    ] = NEWEST,
    *,
    port: Annotated[
        int, typer.Option(metavar="N", min=0, max=65535, help="Port; 0 chooses a free one.")
    ] = PORT,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address to bind; 0.0.0.0 allows other machines.")
    ] = LOOPBACK,
    key_env: Annotated[
        str | None,
        typer.Option(
            metavar="VARIABLE",
            help="Variable with the key that requests must have; required by --host 0.0.0.0.",
        ),
    ] = None,
    chat_template_kwargs: Annotated[
        str,
        typer.Option(
            metavar="JSON",
            help="Variables of the chat template, e.g. '{\"enable_thinking\": false}'.",
            show_default=False,
        ),
    ] = "{}",
) -> None:
    """Serve a tuned or base model on this machine with an OpenAI-compatible API.

    Any client of OpenAI's chat completions can use it, with streaming, log probabilities and tools.
    Concurrent requests are batched. A request may set its own chat template variables. Ctrl-C stops
    the server after the answers in progress.

    [dim]$ unitune serve
    $ unitune serve r2611 --port 8080
    $ unitune serve r2611 --host 0.0.0.0 --key-env SERVE_KEY[/dim]
    """
    from unitune.backends import registry
    from unitune.backends.capabilities import ServerSettings, Serves

    key = _key(host, key_env)
    served = _find(model)
    backend = registry.backend(served.backend)
    if not isinstance(backend, Serves):
        raise Unsupported(
            f"{served.name} is at {served.backend}, which serves it; unitune only serves models on "
            "this machine. If it needs a deployment: unitune deployments up."
        )
    kwargs = _kwargs(chat_template_kwargs)
    settings = ServerSettings(served.name, host, port, key, kwargs)
    aside().print(f"loading {served.title} …", style="dim")
    backend.serve(served.model, settings, lambda url: _announce(url, served, key_env))
    aside().print("stopped", style="dim")


def _find(name: str) -> _Served:
    """Return the base model of this name, or the model of a run; raises `NotFoundError`."""
    from unitune.backends import registry
    from unitune.backends.capabilities import Stores
    from unitune.run.run import find_run

    keeper = registry.backend(HERE)
    stored = [each.name for each in keeper.stored()] if isinstance(keeper, Stores) else []
    if name in stored:
        return _Served(name, HERE, name, name)
    if name and Path(name).is_dir():
        return _Served(Path(name).resolve().name, HERE, name, name)
    try:
        run = find_run(name)
    except NotFoundError as error:
        here = ", ".join(stored) or "none"
        hint = f"Base models here: {here}; download others with: unitune models pull NAME"
        raise NotFoundError(
            "run or base model on this machine", name, stored, f"`unitune runs` lists runs. {hint}"
        ) from error
    client = run.model
    assert run.tuned_model is not None, "it has a client"
    title = f"{run.id}, {run.name} on {run.base_model}"
    # For clients, a version's name or alias stays the same when its run changes.
    known_as = run.id if name == NEWEST or run.id.startswith(name) else name
    return _Served(known_as, run.backend_name, run.tuned_model, title, client.system)


def _key(host: str, variable: str | None) -> str | None:
    """Return the key that requests must have; without one, only this machine may send them."""
    if variable is None:
        if not _is_loopback(host):
            raise UserError(
                f"--host {host} lets other machines send requests, so a key is required. Set an "
                "environment variable, such as SERVE_KEY=$(openssl rand -hex 24), and pass "
                f"--key-env SERVE_KEY. Or leave out --host to use {LOOPBACK}."
            )
        return None
    key = os.environ.get(variable, "").strip()
    if not (key and key.isascii() and key.isprintable()):
        raise UserError(
            f"--key-env is {variable}, which "
            + ("has characters that a header cannot have." if key else "is unset or empty.")
            + f" Set it, e.g. export {variable}=$(openssl rand -hex 24)."
        )
    return key


def _kwargs(text: str) -> dict[str, JsonValue]:
    try:
        value: JsonValue = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise UserError(
            f"--chat-template-kwargs is {text!r}; it must be a JSON object such as "
            "'{\"enable_thinking\": false}'."
        )
    return value


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _announce(url: str, served: _Served, key_env: str | None) -> None:
    print_raw(url)
    system = served.system if served.system and len(served.system) <= MOST_SHOWN else None
    first = [{"role": "system", "content": system}] if system else []
    body = {"model": served.name, "messages": [*first, {"role": "user", "content": "Hello"}]}
    header = f' -H "Authorization: Bearer ${key_env}"' if key_env else ""
    key = f'os.environ["{key_env}"]' if key_env else '"none"'
    curl = [
        f"curl {url}/chat/completions -H 'Content-Type: application/json'{header} \\",
        f"  -d {shlex.quote(json.dumps(body, ensure_ascii=False))}",
    ]
    client = [
        f'client = openai.OpenAI(base_url="{url}", api_key={key})',
        f'client.chat.completions.create(model="{served.name}", messages=[…])',
    ]
    note = " Its training rows begin with a system message; send the same one."
    aside().print(f"{served.title}.{note if served.system else ''}", style="dim")
    for example in (curl, client):
        aside().print("", *example, sep="\n", soft_wrap=True)
    aside().print("\nPress Ctrl-C to stop.", style="dim")


Port = Annotated[
    int,
    typer.Option(
        metavar="N",
        min=0,
        max=65535,
        show_default=False,
        help="Port on 127.0.0.1 (default: any free port).",
    ),
]
Browser = Annotated[
    bool,
    typer.Option("--browser/--no-browser", help="Open the page in a browser.", show_default=False),
]


def ui(*, port: Port = 0, browser: Browser = True) -> None:
    """Show runs, comparisons with their cases, and deployments on a local page.

    Prints the page's address, which only you can open, and updates the page until Ctrl-C. You can
    add notes to cases there, but change nothing else.

    [dim]$ unitune ui
    $ unitune ui --port 8700 --no-browser[/dim]
    """
    show_pages(port, browser=browser)


def show_pages(port: int, *, browser: bool, review: Review | None = None) -> None:
    """Serve the pages, and a review first if there is one, until Ctrl-C."""
    from unitune.ledger import Ledger
    from unitune.ui import app
    from unitune.workspace.home import home

    def announce(address: str) -> None:
        print_raw(address)
        aside().print("Open this address on this machine. Press Ctrl-C to stop.", style="dim")

    # Without a screen, a text browser could take over the terminal.
    screens = (os.environ.get("DISPLAY"), os.environ.get("WAYLAND_DISPLAY"))
    has_screen = sys.platform == "darwin" or any(screens)
    app.serve(Ledger(home()), port, announce, browser=browser and has_screen, review=review)
