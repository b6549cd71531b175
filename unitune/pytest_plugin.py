"""Run comparisons as pytest tests: the fixture `unitune_compare` and `assert_gate`.

    from unitune.pytest_plugin import assert_gate

    def test_tuned_model_beats_the_best_prompt(unitune_compare):
        comparison = unitune_compare("evals/unitune.yaml")
        assert comparison.verdict == "better"
        assert_gate(comparison)

A failing test shows the verdict, the first lost cases and the path of the report. A failure of the
vendor or the machine is an error, or a skip with ``--unitune-infrastructure=skip``, because it is
not evidence about the model. ``-p no:unitune`` disables the plugin.
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
    from unitune.evaluate.documents.records import CaseResult
    from unitune.evaluate.documents.results import Comparison
    from unitune.job.job import Job
    from unitune.run.run import Run

Infrastructure = Literal["error", "skip", "fail"]
OPTION = "--unitune-infrastructure"
INI = "unitune_infrastructure"
SHOWN_CASES = 3  # lost cases shown by a failure; the report has them all
LONGEST_TEXT = 200  # characters of a question or an answer shown by a failure


class InfrastructureFailed(Exception):
    """Failure of a vendor or the machine that prevented the test."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option to the command line and the configuration."""
    what = "outcome of a test when a vendor or the machine fails: error (default), skip or fail"
    group = parser.getgroup("unitune")
    group.addoption(OPTION, choices=("error", "skip", "fail"), default=None, help=what)
    parser.addini(INI, what, default="error")


class Reported(NamedTuple):
    """A comparison of the running test, with its report."""

    comparison: Comparison
    report: Path


@dataclass(slots=True)
class Comparer:
    """Runs comparisons in tests and collects those of the running test.

    Args:
        root: Folder that paths of job files are relative to: pytest's rootdir.
        infrastructure: Outcome of a test when a vendor or the machine fails.
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
        """Compare the candidate of a job, as `unitune.compare` does.

        Args:
            job: A job, or the path of its file, relative to pytest's rootdir.
            run: Run with the tuned model; by default the newest that succeeded.
            out: Folder for the files; same default as `unitune.compare`.
            batch: Send the cases as a batch, if the backend supports it.

        Raises:
            UnituneError: As in `unitune.compare`. A failure of a vendor or the machine makes the
                test an error or skips it.
        """
        from unitune.evaluate.compare import compare  # noqa: PLC0415 - numpy …
        from unitune.job.job import Job  # noqa: PLC0415 - only when a test compares
        from unitune.report.files import write_report  # noqa: PLC0415 - only when a test compares

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
        reason = printable(reason)
        if self.infrastructure == "skip":
            pytest.skip(f"unitune: {reason}")
        if self.infrastructure == "fail":
            pytest.fail(f"unitune: {reason}", pytrace=False)
        return InfrastructureFailed(reason)


@pytest.fixture(scope="session")
def unitune_compare(pytestconfig: pytest.Config) -> Comparer:
    """Compare a job's candidate: ``unitune_compare("evals/unitune.yaml")``; see `Comparer`."""
    chosen = pytestconfig.getoption(OPTION) or pytestconfig.getini(INI)
    if chosen not in ("error", "skip", "fail"):
        raise pytest.UsageError(f"{INI} is {chosen!r}; it must be error, skip or fail.")
    comparer = Comparer(pytestconfig.rootpath, chosen)
    pytestconfig.stash[COMPARER] = comparer
    return comparer


COMPARER = pytest.StashKey[Comparer]()


def assert_gate(comparison: Comparison) -> None:
    """Fail the test unless the job's gate is passed.

    Args:
        comparison: Result of `unitune_compare`.

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
            f"the gate {comparison.gate.mode} was not passed (exit code "
            f"{comparison.gate.exit_code}): {printable(comparison.gate.reason)}",
            pytrace=False,
        )


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the comparisons of a failing test; count infrastructure failures as errors."""
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
    """Return the verdict, the first lost cases and the report's path for a failed test."""
    from unitune.report.cases import Outcome, outcome  # noqa: PLC0415 - only when a test fails

    lines = [comparison.summary]
    if comparison.gate is not None:
        lines.append(f"gate {comparison.gate.mode}: {comparison.gate.reason}")
    lost = [each for each in comparison.cases if outcome(comparison, each) is Outcome.LOST]
    for case in lost[:SHOWN_CASES]:
        lines += _shown(comparison, case)
    lines.append(f"report: {report}")
    return printable("\n".join(lines))


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
