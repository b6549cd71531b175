"""Implement the commands for this installation: notify, doctor, keys, and its models."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from unitune._version import __version__
from unitune.cli.options import NEWEST, Json, Quiet, RunId, backend_option
from unitune.cli.output import console, facts, new_table, print_json
from unitune.errors import BackendError, UnituneError, Unsupported, UserError
from unitune.render.typography import gigabytes

NETWORK = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")
keys = typer.Typer(name="keys", no_args_is_help=False, invoke_without_command=True)
Address = Annotated[
    str, typer.Argument(metavar="ADDRESS", help="Address, e.g. https://llm.example.com.")
]


@dataclass(frozen=True, slots=True)
class BackendStatus:
    """Readiness of a backend and the facts it reports about its environment."""

    name: str
    ready: bool
    problem: str | None = None
    facts: Mapping[str, str] = field(default_factory=dict[str, str])


def notify() -> None:
    """Send a test of the notification for finished runs.

    Configure it in ~/.config/unitune/config.yaml, not in a job, as
    `notify: {command: [PROGRAM, ARGUMENT, ...], webhook: ADDRESS}`. When a run ends, the program
    gets the run as JSON and the webhook gets JSON with a `text`. The process that sees the run end
    sends it once; for a training on this machine, that can be the training itself.

    [dim]$ unitune runs notify[/dim]
    """
    from unitune.run.notifying import send_test

    for problem in send_test():
        raise BackendError(problem)
    console().print("Sent.")


def doctor(*, json: Json = False) -> None:
    """Show the installation: Python, ledger, backends and devices.

    [dim]$ unitune doctor[/dim]
    """
    from unitune.backends import registry
    from unitune.cli.deployments import unwatched
    from unitune.run.deploying import without_reaper
    from unitune.workspace.home import artifacts, home

    ledger = project = ledger_problem = None
    warnings = list[str]()
    try:
        ledger, project = str(home()), str(artifacts())
    except UserError as error:
        ledger_problem = str(error)
    else:
        try:
            warnings = list(map(unwatched, without_reaper()))
        except UnituneError as error:  # the ledger cannot be read
            warnings = [str(error)]
    named = {name: os.environ.get(name) or os.environ.get(name.lower(), "") for name in NETWORK}
    network = {name: value.rpartition("@")[2] for name, value in named.items() if value}
    installation = {
        "unitune": __version__,
        "python": f"{platform.python_version()} at {sys.executable}",
        "system": platform.platform(),
        **network,
    }
    backends = [_backend_status(name) for name in registry.backend_names() if name != "fake"]
    if json:
        state = {"ledger": ledger, "project": project, "ledger_problem": ledger_problem}
        print_json(
            {
                "schema_version": 1,
                **installation,
                **state,
                "warnings": warnings,
                "backends": backends,
            }
        )
        return
    folders = {"ledger": ledger or ledger_problem or "", "project": project or ""}
    console().print(facts({**installation, **folders}))
    for warning in warnings:
        console().print(f"\n{warning}", soft_wrap=True)
    for backend in backends:
        state = ("installed", "green") if backend.ready else ("not installed", "yellow")
        console().print(Text.assemble("\n", (backend.name, "bold"), "  ", state))
        if backend.problem:
            console().print(f"  {backend.problem}")
        if backend.facts:
            console().print(facts({f"  {key}": value for key, value in backend.facts.items()}))


def _backend_status(name: str) -> BackendStatus:
    """Check a backend's packages and environment without calling a vendor."""
    from unitune.backends import registry
    from unitune.backends.capabilities import ReportsEnvironment

    try:
        backend = registry.backend(name)
        if isinstance(backend, ReportsEnvironment):
            return BackendStatus(name, ready=True, facts=backend.report_environment())
        needs = registry.offer(name).needs
    except UnituneError as error:
        return BackendStatus(name, ready=False, problem=str(error))
    return BackendStatus(name, ready=True, facts={"needs": "\n".join(needs)} if needs else {})


@keys.callback()
def list_keys(context: typer.Context, *, json: Json = False) -> None:
    """List, allow or remove keys that jobs may send to custom addresses.

    A job may come from someone else, so it cannot decide where a key is sent. You decide it here,
    once per address and environment variable with a key. Vendors' own addresses and addresses set
    in your environment need no permission.

    [dim]$ unitune keys
    $ unitune keys allow https://llm.example.com LLM_API_KEY
    $ unitune keys remove https://llm.example.com[/dim]
    """
    if context.invoked_subcommand is not None:
        return
    from unitune.backends.credentials import permissions

    allowed = list(permissions())
    if json:
        print_json({"schema_version": 1, "keys": allowed})
    elif allowed:
        headings = ("address", "key in", "allowed by")
        table = new_table(*headings, fold=headings)
        for permission in allowed:
            table.add_row(permission.address, permission.variable, permission.source)
        console().print(table)
    else:
        console().print("Jobs may not send keys to any custom address.")


@keys.command()
def allow(
    address: Address,
    variable: Annotated[
        str, typer.Argument(metavar="VARIABLE", help="Environment variable with the key.")
    ],
) -> None:
    """Let jobs send a key to an address (its scheme, host and port).

    [dim]$ unitune keys allow https://llm.example.com LLM_API_KEY[/dim]
    """
    from unitune.backends import credentials

    origin = credentials.allow(address, variable)
    console().print(f"Jobs may send the key in {variable} to {origin}.")


@keys.command()
def remove(
    address: Address,
    variable: Annotated[
        str | None,
        typer.Argument(
            metavar="[VARIABLE]", help="Variable of the key (default: all).", show_default=False
        ),
    ] = None,
) -> None:
    """Stop jobs from sending a key to an address.

    [dim]$ unitune keys remove https://llm.example.com LLM_API_KEY[/dim]
    """
    from unitune.backends import credentials

    origin = credentials.origin_of(address)
    if not credentials.disallow(origin, variable):
        raise UserError(
            f"your configuration allows no such key for {origin}. `unitune keys` lists the allowed "
            "keys and the files that allow them."
        )
    console().print(f"Jobs may no longer send {variable or 'any key'} to {origin}.")


BackendName = Annotated[str, backend_option("Backend that stores base models on this machine.")]


def base_models(*, backend: BackendName = "local", json: Json = False) -> None:
    """List the base models that can be tuned here and those already downloaded.

    [dim]$ unitune models base
    $ unitune models pull smollm2-135m-instruct[/dim]
    """
    from unitune.backends import registry
    from unitune.backends.capabilities import Stores

    keeper = registry.backend(backend)
    stored = list(keeper.stored()) if isinstance(keeper, Stores) else []
    offered = registry.offer(backend).models
    if json:
        lists = {"offered": offered, "stored": stored}
        print_json({"schema_version": 1, "backend": backend, **lists})
        return
    others = {model.name: model for model in stored}
    headings = ("model", "parameters", "licence", "on this machine", "note")
    table = new_table(*headings, fold=headings)
    for model in offered:
        here = others.pop(model.name, None)
        table.add_row(
            model.name,
            f"{model.parameters / 1e6:.0f} M" if model.parameters else "?",
            model.licence or "?",
            gigabytes(here.bytes) if here else "no",
            model.note,
        )
    for model in others.values():
        table.add_row(model.name, "", "", gigabytes(model.bytes), str(model.path))
    console().print(table)


def pull(
    name: Annotated[str, typer.Argument(help="Offered model, name on the hub, or folder.")],
    *,
    backend: BackendName = "local",
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Download a base model, unless it is already stored.

    [dim]$ unitune models pull smollm2-135m-instruct[/dim]
    """
    from unitune.backends import registry
    from unitune.backends.capabilities import Stores
    from unitune.cli.progress import download_progress

    keeper = registry.backend(backend)
    if not isinstance(keeper, Stores):
        raise Unsupported(f"backend {backend!r} does not store models on this machine.")
    with download_progress(quiet=quiet or json):
        stored = keeper.pull(name)
    if json:
        print_json(stored)
    else:
        console().print(f"{stored.name}: {gigabytes(stored.bytes)} in {stored.path}")


def checkpoints(run: RunId = NEWEST, *, json: Json = False) -> None:
    """List the models saved during a run's training.

    [dim]$ unitune models checkpoints r2611[/dim]
    """
    from unitune.run.run import find_run

    saved = find_run(run).checkpoints()
    if json:
        rows = [
            {"step": point.step, "model": point.model.name, "metrics": point.metrics}
            for point in saved
        ]
        print_json({"schema_version": 1, "checkpoints": rows})
        return
    if not saved:
        console().print("No checkpoints.")
        return
    lines: dict[str, str] = {}
    for point in saved:
        metrics = [f"{key} {value}" for key, value in point.metrics.items() if key != "step"]
        lines[f"step {point.step}"] = "  ".join([point.model.name, *metrics])
    console().print(facts(lines))


def download(
    run: RunId = NEWEST,
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the weights.")
    ] = Path(),
    step: Annotated[
        int | None,
        typer.Option(help="Step of a checkpoint (see `unitune models checkpoints RUN`)."),
    ] = None,
) -> None:
    """Download the weights of a run's model, if its vendor provides them.

    [dim]$ unitune models download r2611 -o weights[/dim]
    """
    from unitune.run.run import find_run

    file = find_run(run).download(output, step=step)
    console().print(f"{file}  {file.stat().st_size:,} bytes", soft_wrap=True)
