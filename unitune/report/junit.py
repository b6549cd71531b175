"""A comparison as JUnit XML, which the test tabs of CI systems read: one test a rule of the gate.

Each check of the gate is a testcase, each required case too, and never a sample: what fails a build
is the gate, and a model is allowed to get cases wrong.

    exit code of the check   in the file
    0                        passed
    1                        <failure type="failed">
    3                        <failure type="inconclusive">: `compare` exits 3, which stops a build
                             too, and a skipped test would show green beside it
    4                        <error type="infrastructure">
    not judged               <skipped>

Without a gate there is one skipped test, because some readers take an empty suite for a mistake.
There is no official schema. This keeps to the elements and attributes that the tools share, as
https://github.com/testmoapp/junitxml collects them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.etree import ElementTree as ET

from unitune.evaluate.results import Comparison, GateCheck
from unitune.report import typography, words

_NOT_IN_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that no XML 1.0 file may hold, even escaped (W3C, section 2.2)."""


_OUTCOMES: Mapping[int | None, tuple[str, Mapping[str, str]]] = {
    1: ("failure", {"type": "failed"}),
    3: ("failure", {"type": "inconclusive"}),
    4: ("error", {"type": "infrastructure"}),
    None: ("skipped", {}),
}
"""The element for a check's exit code, with its attributes."""

NO_GATE = GateCheck(
    name="gate", exit_code=None, reason="The job has no gate, so nothing is judged."
)


def render(comparison: Comparison) -> str:
    """Return a comparison's gate as JUnit XML."""
    checks = comparison.gate.checks if comparison.gate else (NO_GATE,)
    suites = ET.Element("testsuites", {"name": "unitune", **_counts(checks)})
    suite = ET.SubElement(
        suites,
        "testsuite",
        {
            "name": _plain(f"unitune.{comparison.job}"),
            "timestamp": _plain(comparison.created[:19]),  # UTC; readers take no zone
            **_counts(checks),
        },
    )
    _properties(suite, comparison)
    for check in checks:
        _testcase(suite, check, comparison.job)
    ET.indent(suites)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(suites, encoding="unicode")}\n'


def _counts(checks: tuple[GateCheck, ...]) -> dict[str, str]:
    tags = [_OUTCOMES[check.exit_code][0] for check in checks if check.exit_code != 0]
    return {
        "tests": str(len(checks)),
        "failures": str(tags.count("failure")),
        "errors": str(tags.count("error")),
        "skipped": str(tags.count("skipped")),
        "time": "0",
    }


def _properties(suite: ET.Element, comparison: Comparison) -> None:
    """Write what the verdict rests on, for readers of nothing but this file."""
    properties = ET.SubElement(suite, "properties")
    for name, value in {
        "verdict": comparison.verdict,
        "metric": comparison.metric,
        "candidate": comparison.candidate,
        "baseline": comparison.baseline,
        "difference": typography.points(comparison.difference, sign=True),
        "interval": f"{typography.interval(comparison.interval)} points, {words.level(comparison)}",
        "cases": str(comparison.n),
    }.items():
        ET.SubElement(properties, "property", name=name, value=_plain(value))


def _testcase(suite: ET.Element, check: GateCheck, job: str) -> None:
    case = ET.SubElement(
        suite, "testcase", classname=_plain(f"unitune.{job}"), name=_plain(check.name), time="0"
    )
    if check.exit_code == 0:
        ET.SubElement(case, "system-out").text = _plain(check.reason)
        return
    tag, attributes = _OUTCOMES[check.exit_code]
    ET.SubElement(case, tag, {"message": _plain(check.reason), **attributes})


def _plain(text: str) -> str:
    return _NOT_IN_XML.sub("\ufffd", text)
