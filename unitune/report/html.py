"""A comparison as one self-contained page: `render` gives the whole of ``report.html``.

The page requests nothing: style and script stand in it, and a content security policy
that knows their hashes lets no other run, so that a model's answer can do no more than be read. It
is whole without JavaScript; `script.js` adds only filtering and search. The sentences are in
`unitune.report.words` and `facts`, what is drawn in `charts`, which cases are shown in `cases`;
here they are put into ``template.html.j2``.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import cast

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from unitune.evaluate.results import Comparison
from unitune.report import cases, charts, facts, typography, words

PACKAGE = "unitune.report"
MARKS = (("Errors", "error"), ("Required", "required"))
"""Filters across the outcomes: what they are called, and the class of the cases that they leave."""
MAX_CHECKS = 50
"""Checks of a gate shown; a job may pin hundreds of cases, and those not passed come first."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An error that a contender's answers ended in, and how many."""

    contender: str
    error: str
    count: int


@dataclass(frozen=True, slots=True)
class Mixup:
    """A label that was taken for another, by a scorer of labels; an empty answer is no label."""

    metric: str
    expected: str
    answered: str
    count: int


def render(comparison: Comparison) -> str:
    """Return a comparison as one HTML page that needs no other file and no network.

    Args:
        comparison: Without its cases the page says where they are.
    """
    return "".join(pieces(comparison))


def pieces(comparison: Comparison) -> Iterator[str]:
    """Return the page of `render` in pieces: whole, it would take many times its size to make."""
    style, script = resource("style.css"), resource("script.js")
    groups = cases.grouped(comparison)
    checks = comparison.gate.checks if comparison.gate else ()
    metrics = _names(result.scores for result in comparison.contenders)
    page = (
        environment()
        .get_template("template.html.j2")
        .generate(
            comparison=comparison,
            candidate=words.contender(comparison, comparison.candidate),
            baseline=words.contender(comparison, comparison.baseline),
            groups=groups,
            marks=[
                (name, mark, n) for name, mark in MARKS if (n := cases.count_marked(groups, mark))
            ],
            checks=sorted(checks, key=lambda check: check.exit_code == 0),
            max_checks=MAX_CHECKS,
            system_prompt=cases.shared_system_prompt(comparison.cases),
            metrics=[name for name in metrics if name != comparison.metric],
            measures=_names(result.measures for result in comparison.contenders),
            mixups=mixups(comparison),
            failures=failures(comparison),
            style=Markup(style),  # noqa: S704 - our own file
            script=Markup(script),  # noqa: S704 - our own file
            policy=policy(style, script),
        )
    )
    return map(_writable, page)


def failures(comparison: Comparison) -> list[Failure]:
    """Return the errors of each contender, the most frequent first."""
    counts = Counter(
        (name, answer.error)
        for case in comparison.cases
        for name, answer in case.answers.items()
        if answer.error is not None
    )
    return [Failure(name, error, count) for (name, error), count in counts.most_common()]


def mixups(comparison: Comparison) -> list[Mixup]:
    """Return the labels that the candidate took for others, the most frequent first."""
    confusion = words.contender(comparison, comparison.candidate).confusion
    counts = [
        Mixup(metric, expected, answered, count)
        for metric, matrix in confusion.items()
        for expected, row in matrix.counts.items()
        for answered, count in row.items()
        if answered != expected
    ]
    return sorted(counts, key=lambda mixup: -mixup.count)


@cache
def environment() -> Environment:
    """Return the templates of this package, which escape every value."""
    environment = Environment(
        loader=PackageLoader(PACKAGE, package_path=""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["typeset"] = typography.typeset
    modules = {"charts": charts, "facts": facts, "typography": typography, "words": words}
    cast("dict[str, object]", environment.globals).update(modules)
    return environment


def resource(name: str) -> str:
    """Return the text of a file of this package."""
    return files(PACKAGE).joinpath(name).read_text(encoding="utf-8")


def policy(style: str, script: str = "") -> str:
    """Return the content security policy that lets this style and this script run, and no other."""
    scripts = f"; script-src '{_hash(script)}'" if script else ""
    return (
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; "
        f"style-src '{_hash(style)}'{scripts}"
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _names(figures: Iterable[Mapping[str, float]]) -> tuple[str, ...]:
    """Return the names of all figures, each once, in their order."""
    return tuple(dict.fromkeys(name for each in figures for name in each))


def _writable(piece: str) -> str:
    """Replace lone surrogates, which a model's JSON may hold and no UTF-8 file can."""
    return piece.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
