"""A promptfoo config as a suite: `read_config`.

Cases are written with the first prompt, since a case of unitune is one list of messages; further
prompts come along as recorded answers when results are imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import JsonValue

from unitune.data.example import Example, Message
from unitune.errors import DataError
from unitune.importers.foreign import text_file
from unitune.importers.promptfoo.prompts import NotText, asked, prompts_of
from unitune.importers.promptfoo.providers import base_of, max_tokens_of
from unitune.importers.promptfoo.scorers import LEAVE_OUT, Test, share
from unitune.importers.promptfoo.templates import NotPlain
from unitune.importers.promptfoo.tests import LET_PROMPTFOO, refusal, tests_of
from unitune.importers.promptfoo.yaml12 import parse_yaml
from unitune.importers.suite import Suite


def read_config(path: Path) -> Suite:
    """Read a promptfoo config.

    Args:
        path: ``promptfooconfig.yaml``, or the like in JSON.

    Raises:
        DataError: It cannot be read, or its cases are made by code.
    """
    text = text_file(path, "a promptfoo config")
    config = parse_yaml(text, path)
    if not isinstance(config, dict):
        raise DataError(
            f"{path} is no promptfoo config: it has no keys. Write `prompts`, `tests` …"
        )
    tests = tests_of(config, path, text)
    if not tests:
        raise refusal(path, "it has no tests")
    prompts = prompts_of(config, path)
    providers = config.get("providers", config.get("targets"))
    shared = share(tests)
    findings = list(shared.findings)
    cases: list[Example] = []
    for test in tests:
        try:
            messages = asked(prompts[0], test)
        except (NotPlain, NotText) as failure:
            fix = (
                LET_PROMPTFOO.format(file=path.name) if isinstance(failure, NotPlain) else LEAVE_OUT
            )
            findings.append(test.problem("prompt", f"{failure}.", fix))
            continue
        if test.number in shared.expected:
            cases.append(case_of(test, messages, shared.expected[test.number]))
    return Suite(
        name=str(config.get("description") or path.stem),
        file=str(path),
        cases=tuple(cases),
        scorers=shared.scorers,
        findings=tuple(findings),
        notes=tuple(_notes(len(prompts), shared.scorers, config)),
        base=base_of(providers),
        max_tokens=max_tokens_of(providers),
    )


def case_of(test: Test, messages: tuple[Message, ...], expected: str | None) -> Example:
    """Return a test as a case."""
    told = {"description": test.description} if test.description else {}
    return Example.model_validate(
        {"messages": messages, "id": test.case, "expected": expected, **told}
    )


def _notes(prompts: int, scorers: tuple[object, ...], config: Mapping[str, JsonValue]) -> list[str]:
    notes: list[str] = []
    if prompts > 1:
        notes.append(
            f"The cases have the first of {prompts} prompts. Import a results file of promptfoo to "
            "compare prompts."
        )
    if len(scorers) > 1:
        notes.append(
            "promptfoo passes a test when all its assertions hold; unitune tells each scorer by "
            "itself, and the first decides."
        )
    if "nunjucksFilters" in config or "extensions" in config:
        notes.append("`nunjucksFilters` and `extensions` of the config were not looked at.")
    return notes
