"""The command `unitune push`: a run's model with its card, on the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from unitune.cli.export import megabytes
from unitune.cli.options import NEWEST, Json, Quiet, RunId
from unitune.cli.output import console, facts, print_json
from unitune.errors import UserError

if TYPE_CHECKING:
    from unitune.publish.hub import Pushed

To = Annotated[Literal["hub"], typer.Option(metavar="hub", help="The Hugging Face Hub.")]
Repository = Annotated[
    str | None,
    typer.Option("--repo", metavar="OWNER/NAME", help="Default: your account, the job's name."),
]
Public = Annotated[
    bool, typer.Option("--public/--private", help="Whether everyone may see it; default private.")
]
Folder = Annotated[
    Path | None,
    typer.Option("--folder", metavar="DIR", help="One that `unitune export` wrote."),
]
Form = Annotated[
    Literal["adapter", "merged", "gguf", "gguf-lora", "ollama", "mlx", "vllm"],
    typer.Option(metavar="FORM", help="In which it is exported, where no folder is given."),
]


def push(
    run: RunId = NEWEST,
    *,
    to: To,
    repository: Repository = None,
    public: Public = False,
    folder: Folder = None,
    form: Form = "adapter",
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Send a run's model with its card to the Hugging Face Hub, in one commit.

    Without a folder the model is exported and verified first. A new repository is private. What is
    there already is not sent again, so a push that was interrupted goes on. The token is HF_TOKEN,
    or that of `hf auth login`.

    [dim]$ unitune push triage@production --to hub --repo acme/support-triage
    $ unitune push --to hub --folder triage-merged --public[/dim]
    """
    from unitune.cli.progress import working
    from unitune.publish.hub import push
    from unitune.run.run import find_run

    del to  # there is one
    if folder is not None and form != "adapter":
        raise UserError("--form is for a new export, and --folder names one. Leave one out.")
    with working("pushing", quiet=quiet or json):
        done = push(find_run(run), repository, public=public, folder=folder, form=form)
    if json:
        print_json({"schema_version": 1, **done.model_dump(mode="json")})
    elif quiet:
        console().print(done.url, soft_wrap=True)
    else:
        _print(done)


def _print(done: Pushed) -> None:
    visibility = "private" if done.is_private else "public"
    news = "" if done.is_new else "  nothing new: the same files are there"
    sizes = f"{len(done.files)} files, {megabytes(sum(done.files.values()))}"
    rows = {
        "repository": f"{done.url}  {visibility}",
        "commit": f"{done.commit[:8]}{f' ({done.tag})' if done.tag else ''}{news}",
        "files": sizes,
    }
    if done.notes:
        rows["note"] = "\n".join(done.notes)
    console().print(facts(rows))
