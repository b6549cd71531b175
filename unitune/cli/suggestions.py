"""What was probably meant by a command or an option that there is not: the words of other tools.

The names are those of TRL, axolotl, LLaMA-Factory, promptfoo, Terraform, git and pytest, as far as
they have a command for the same thing; what a job file says is in `unitune.job.job.other_tools`.
"""

from __future__ import annotations

from collections.abc import Iterable

from unitune.errors import nearest

COMMANDS = {
    "run": ("train", "finetune", "fine-tune", "fit", "sft", "dpo", "tune", "launch", "start"),
    "compare": ("eval", "evaluate", "evaluation", "test", "judge", "benchmark", "score"),
    "check": ("validate", "lint"),
    "plan": ("estimate", "preview", "forecast", "diff"),
    "runs": ("list", "ls", "jobs", "history"),
    "show": ("status", "describe", "info"),
    "watch": ("logs", "follow", "tail"),
    "cancel": ("stop", "kill", "abort"),
    "delete": ("rm", "remove", "destroy"),
    "chat": ("predict", "infer", "generate", "inference", "ask", "talk"),
    "download": ("pull", "fetch"),
    "deploy": ("host", "endpoint"),
    "serve": ("server", "api"),
    "export": ("merge", "fuse", "save"),
    "init": ("new", "create", "template"),
    "ui": ("view", "dashboard", "open", "studio"),
    "doctor": ("env", "version", "config"),
}
"""By our command, those of other tools."""
OPTIONS = {
    "--dry-run": "`unitune plan FILE` says what would happen and cost, and starts nothing",
    "--config": "name the job file alone, as in `unitune run unitune.yaml`",
    "--file": "name the job file alone, as in `unitune run unitune.yaml`",
    "--verbose": "give no --quiet",
    "--output-dir": "name the folder with `-o`",
}
"""By an option of other tools, what there is instead."""


def command_for(name: str, known: Iterable[str]) -> str | None:
    """Return the command that was meant by one that there is not."""
    words = {other: ours for ours, others in COMMANDS.items() for other in others}
    words |= {ours: ours for ours in known}
    near = nearest(name.lower(), words)
    return words[near] if near else None


def advice_for(option: str) -> str | None:
    """Return what there is instead of an option that there is not."""
    from unitune.job.job import Job, other_tools
    from unitune.workspace.validation import dotted_keys

    if option in OPTIONS:
        return OPTIONS[option]
    key = option.lstrip("-").replace("-", "_")
    where = {**dotted_keys(Job), **other_tools()}.get(key)
    return f"say it in the job file, under `{where}`" if where else None
