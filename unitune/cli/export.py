"""The command `unitune export`: a run's model for another program, and how it was verified."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from unitune.cli.options import NEWEST, Json, Quiet, RunId
from unitune.cli.output import console, facts, print_json

if TYPE_CHECKING:
    from unitune.backends.exports import Exported

SHOWN_FILES = 6


def export(
    run: RunId = NEWEST,
    *,
    to: Annotated[
        Literal["adapter", "merged", "gguf", "gguf-lora", "ollama", "mlx", "vllm"],
        typer.Option(metavar="FORM", help="adapter, merged, gguf, gguf-lora, ollama, mlx or vllm."),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="The folder; default JOB-FORM, here."),
    ] = None,
    quantization: Annotated[
        Literal["F32", "F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0"] | None,
        typer.Option(
            metavar="TYPE",
            help="F32, F16, BF16, Q8_0, Q5_1, Q5_0, Q4_1 or Q4_0; default 16 bits, merged as the "
            "base.",
        ),
    ] = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Write a run's model for llama.cpp, Ollama, vLLM, mlx-lm or transformers, verified.

    What was written is loaded again by the program that it is for, where that is installed, and
    answers the run's validation rows; the share of answers that are the run's own is printed. A
    model that would answer otherwise is refused, and no half export stays.

    [dim]$ unitune export --to gguf --quantization Q8_0
    $ unitune export r2611 --to ollama -o triage-ollama[/dim]
    """
    from unitune.cli.progress import working
    from unitune.run.run import find_run

    exported_run = find_run(run)
    with working("exporting", quiet=quiet or json):
        done = exported_run.export(to, output, quantization=quantization)
    if json:
        print_json({"schema_version": 1, **done.model_dump()})
    elif quiet:
        console().print(str(done.folder), soft_wrap=True)
    else:
        _print(done)


def _print(done: Exported) -> None:
    rows = {"folder": f"{done.folder}  {megabytes(sum(done.files.values()))}, {done.seconds:.0f} s"}
    largest = sorted(done.files, key=lambda name: -done.files[name])
    rows |= {f"  {name}": megabytes(done.files[name]) for name in largest[:SHOWN_FILES]}
    if done.rows:
        share = f"{done.equal} of {done.rows} greedy answers are the run's own"
        rows["verified"] = f"{share} ({done.equal / done.rows:.0%}), in {done.program}"
    else:
        rows["verified"] = "no"
    if done.notes:
        rows["note"] = "\n".join(done.notes)
    console().print(facts(rows))
    if done.use:
        console().print(f"Use it: {done.use}", soft_wrap=True)


def megabytes(count: int) -> str:
    """Return bytes in MB (10⁶ bytes); few of them in kB."""
    return f"{count / 10**6:,.1f} MB" if count >= 10**5 else f"{count / 1000:.1f} kB"
