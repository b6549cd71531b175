"""A comparison as a test, for pytest: the fixture `unitune_compare`, and `assert_gate`.

    from unitune.pytest_plugin import assert_gate

    def test_tuned_model_beats_the_best_prompt(unitune_compare):
        comparison = unitune_compare("evals/unitune.yaml")
        assert comparison.verdict == "better"
        assert_gate(comparison)

A test that fails shows the verdict, the first lost cases and the path of the report, whichever
assertion it was. A failure of the vendor or the machine says nothing about the model: such a test
is an error, or is skipped (``--unitune-infrastructure=skip``), and never failed.

Nothing heavy is imported before a test compares. ``-p no:unitune`` switches the plugin off.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import pytest

from unitune.errors import BackendError, JobError, LockTimeout, OverBudget
from unitune.security.redaction import printable

if TYPE_CHECKING:
    from unitune.evaluate.records import CaseResult
    from unitune.evaluate.results import Comparison
    from unitune.job.job import Job
    from unitune.run.run import Run

Infrastructure = Literal["error", "skip", "fail"]
OPTION = "--unitune-infrastructure"
INI = "unitune_infrastructure"
SHOWN_CASES = 3  # lost cases that a failure shows; the report has them all
LONGEST_TEXT = 200  # characters of a question or an answer that a failure shows


class InfrastructureFailed(Exception):
    """A vendor or the machine failed, so the test could not be held."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option, on the command line and in the configuration."""
    what = "what a test is when a vendor or the machine fails: error (default), skip or fail"
    group = parser.getgroup("unitune")
    group.addoption(OPTION, choices=("error", "skip", "fail"), default=None, help=what)
    parser.addini(INI, what, default="error")


class Reported(NamedTuple):
    """A comparison of the test that runs, with its report."""

    comparison: Comparison
    report: Path


@dataclass(slots=True)
class Comparer:
    """Compares for tests, and remembers the comparisons of the test that runs.

    Args:
        root: Where relative paths of job files start: pytest's rootdir.
        infrastructure: What a test is when a vendor or the machine fails.
    """

    root: Path
    infrastructure: Infrastructure
    reported: list[Reported] = field(default_factory=list[Reported])

    def __call__(
        self,
        job: Job | str | os.PathLike[str],
        *,
        run: Run | None = None,
        out: str | os.PathLike[str] | None = None,
        batch: bool = False,
    ) -> Comparison:
        """Judge the candidate of a job, as `unitune.compare` does.

        Args:
            job: A job, or the path of its file from pytest's rootdir.
            run: Whose model is the tuned one; by default the newest succeeded run of the training.
            out: Folder for the files; the default of `unitune.compare`.
            batch: Have cases answered in batches, where the backend can.

        Raises:
            UnituneError: As `unitune.compare`; what a vendor or the machine failed at makes the
                test an error, or skips it.
        """
        from unitune.evaluate.compare import compare  # noqa: PLC0415 - numpy …
        from unitune.job.job import Job  # noqa: PLC0415 - only when a test compares
        from unitune.report.files import write_report  # noqa: PLC0415 - likewise

        loaded = job if isinstance(job, Job) else Job.load(self.root / job)
        try:
            comparison = compare(loaded, run, out=out, batch=batch)
        except (BackendError, LockTimeout, OverBudget) as failure:
            raise self._stopped(str(failure)) from failure
        self.reported.append(Reported(comparison, write_report(comparison)))
        gate = comparison.gate
        if gate is not None and gate.exit_code == BackendError.exit_code:
            raise self._stopped(gate.reason)
        return comparison

    def _stopped(self, reason: str) -> Exception:
        """Return what ends the test when it is an error; skip or fail it when that was chosen."""
        reason = printable(reason)
        if self.infrastructure == "skip":
            pytest.skip(f"unitune: {reason}")
        if self.infrastructure == "fail":
            pytest.fail(f"unitune: {reason}", pytrace=False)
        return InfrastructureFailed(reason)


@pytest.fixture(scope="session")
def unitune_compare(pytestconfig: pytest.Config) -> Comparer:
    """Judge a job's candidate: ``unitune_compare("evals/unitune.yaml")``; see `Comparer`."""
    chosen = pytestconfig.getoption(OPTION) or pytestconfig.getini(INI)
    if chosen not in ("error", "skip", "fail"):
        raise pytest.UsageError(f"{INI} is {chosen!r}; it is error, skip or fail.")
    comparer = Comparer(pytestconfig.rootpath, chosen)
    pytestconfig.stash[COMPARER] = comparer
    return comparer


COMPARER = pytest.StashKey[Comparer]()


def assert_gate(comparison: Comparison) -> None:
    """Fail the test unless the gate of its job is met.

    Args:
        comparison: What `unitune_compare` returned.

    Raises:
        JobError: The job has no gate.
    """
    __tracebackhide__ = True
    if comparison.gate is None:
        raise JobError(
            f"job {comparison.job!r} has no gate, so nothing can be asserted. "
            "Write `gate: {mode: improve}` under `evaluate`, or assert comparison.verdict."
        )
    if not comparison.gate.passed:
        pytest.fail(
            f"the gate {comparison.gate.mode} is not met (exit code "
            f"{comparison.gate.exit_code}): {printable(comparison.gate.reason)}",
            pytrace=False,
        )


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the comparisons of a test that fails; count failures of infrastructure as errors."""
    report = yield
    comparer = item.config.stash.get(COMPARER, None)
    if call.when != "call" or comparer is None:
        return report
    if report.failed:
        for each in comparer.reported:
            report.sections.append((f"unitune {each.comparison.job}", describe(*each)))
    comparer.reported.clear()
    if call.excinfo is not None and call.excinfo.errisinstance(InfrastructureFailed):
        report.when = "setup"  # pytest counts a failure outside of the call as an error
    return report


def describe(comparison: Comparison, report: Path) -> str:
    """Return what a failed test shows of a comparison: verdict, first lost cases, the report."""
    lines = [comparison.summary]
    if comparison.gate is not None:
        lines.append(f"gate {comparison.gate.mode}: {comparison.gate.reason}")
    for case in _lost(comparison)[:SHOWN_CASES]:
        lines += _shown(comparison, case)
    lines.append(f"report: {report}")
    return printable("\n".join(lines))


def _lost(comparison: Comparison) -> list[CaseResult]:
    """Return the cases in which the candidate does worse than the baseline."""
    return [
        case
        for case in comparison.cases
        if case.answers[comparison.candidate].scores[comparison.metric]
        < case.answers[comparison.baseline].scores[comparison.metric]
    ]


def _shown(comparison: Comparison, case: CaseResult) -> list[str]:
    answers = case.answers
    texts = {
        "question": case.messages[-1].text if case.messages else "",
        "expected": case.expected,
        comparison.baseline: answers[comparison.baseline].text,
        comparison.candidate: answers[comparison.candidate].error
        or answers[comparison.candidate].text,
    }
    return [f"lost: case {case.id}", *(f"  {name}: {_cut(text)}" for name, text in texts.items())]


def _cut(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= LONGEST_TEXT else f"{plain[:LONGEST_TEXT]}…"
