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
from functools import cache
from importlib.resources import files
from typing import cast

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from unitune.evaluate.results import Comparison, ContenderResult
from unitune.report import cases, charts, curves, facts, typography, words
from unitune.report.curves import DrawnCurve, drawn_curve, drawn_rates
from unitune.security.json_fields import whole_text

PACKAGE = "unitune.report"
# Filters across the outcomes: their names, and the class of the cases that they leave.
MARKS = (("Errors", "error"), ("Cut off", "cut"), ("Required", "required"))
LONG_EFFORT = 90  # characters; of longer ones the beginning is shown
MAX_CHECKS = 50  # of a gate; a job may require hundreds of cases, and those not passed come first
MAX_FAILURES, MAX_MIXUPS = 20, 10


def render(comparison: Comparison, notes: Mapping[str, str] = cases.NO_NOTES) -> str:
    """Return a comparison as one HTML page that needs no other file and no network.

    Args:
        comparison: Without its cases the page says where they are.
        notes: What a person noted on cases, by their ids.
    """
    return "".join(pieces(comparison, notes))


def pieces(comparison: Comparison, notes: Mapping[str, str] = cases.NO_NOTES) -> Iterator[str]:
    """Return the page of `render` in pieces: whole, it would take many times its size to make."""
    style, script = resource("style.css"), resource("script.js")
    groups = cases.grouped(comparison, notes=notes)
    marks = Counter(mark for group in groups for case in group.cases for mark in case.marks.split())
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
            marks=[(name, mark, marks[mark]) for name, mark in MARKS if marks[mark]],
            checks=sorted(checks, key=lambda check: check.exit_code == 0),
            max_checks=MAX_CHECKS,
            long_effort=LONG_EFFORT,
            outcomes=[cases.outcome(comparison, case) for case in comparison.cases],
            by_score=sorted(comparison.contenders, key=lambda each: -each.score),
            system_prompt=cases.shared_system_prompt(comparison.cases),
            metrics=[name for name in metrics if name != comparison.metric],
            measures=_names(result.measures for result in comparison.contenders),
            mixups=words.confusions(comparison, MAX_MIXUPS),
            curves=_curves(comparison),
            failures=_failures(comparison),
            style=Markup(style),  # noqa: S704 - our own file
            script=Markup(script),  # noqa: S704 - our own file
            policy=policy(style, script),
        )
    )
    return map(whole_text, page)  # of a model's JSON, which may hold lone surrogates


def _curves(
    comparison: Comparison,
) -> list[tuple[ContenderResult, DrawnCurve, DrawnCurve | None]]:
    """Return each training that can be drawn, with the contender whose it is; each run once.

    Its losses, and its learning rates where they are known.
    """
    by_run = {each.run: (each, each.curve) for each in comparison.contenders[::-1] if each.curve}
    pairs = [(each, curve) for each, curve in by_run.values() if curve]
    drawn = [(each, drawn_curve(curve), drawn_rates(curve)) for each, curve in pairs]
    return [(each, losses, rates) for each, losses, rates in drawn if losses][::-1]


def _failures(comparison: Comparison) -> list[tuple[tuple[str, str], int]]:
    return Counter(
        (name, answer.error)
        for case in comparison.cases
        for name, answer in case.answers.items()
        if answer.error is not None
    ).most_common(MAX_FAILURES)


def page(template: str, style: str, **values: object) -> str:
    """Return a template as one HTML page that needs no other file and no network."""
    filled = environment().get_template(template)
    return filled.render(style=Markup(style), policy=policy(style), **values)  # noqa: S704 - ours


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
    modules = {
        "charts": charts,
        "curves": curves,
        "facts": facts,
        "typography": typography,
        "words": words,
    }
    cast("dict[str, object]", environment.globals).update(modules)
    return environment


def resource(name: str, package: str = PACKAGE) -> str:
    """Return the text of a file of a package."""
    return files(package).joinpath(name).read_text(encoding="utf-8")


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
    return tuple(dict.fromkeys(name for each in figures for name in each))
