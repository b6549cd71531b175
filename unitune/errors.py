"""Every error that unitune raises on purpose.

    UnituneError                     exit code
    ├── UserError                    2    configuration, usage or data; the user can correct it
    │   ├── JobError                      also ValueError
    │   ├── DataError                     also ValueError; carries its findings
    │   ├── NotFoundError                 also LookupError: unknown backend, model, run …
    │   ├── MissingExtra                  also ImportError: an optional package is not installed
    │   ├── Unsupported                   also ValueError: the backend cannot do what the job needs
    │   └── DuplicateRunError             also RuntimeError: the same training was launched before
    ├── BackendError                 4    vendor or machine failed
    │   ├── Unreachable                   also ConnectionError: no answer; the outcome is unknown
    │   └── RunFailed                     also RuntimeError: the training ended without a model
    ├── IntegrityError               5    the evidence cannot be trusted
    │   ├── Leak                          also ValueError: test cases are in the training file
    │   ├── Mismatch                      also ValueError: model, template, prompt or rows disagree
    │   └── UnstableJudge                 also ValueError: a judge that contradicts itself
    ├── GateNotPassed            1, 3 or 4    a promotion requires a passed gate
    ├── OverBudget                   6    also ValueError
    ├── UnreadableRecord             4    also ValueError: a record in the ledger is invalid
    ├── LockTimeout                  4    also TimeoutError: another process works on the same run
    ├── WaitTimeout                  4    also TimeoutError: the run continues after the wait
    └── Interrupted                  130  stopped by the user; can be resumed

Any other exception that reaches the command line is a bug: exit code 70, with a traceback.
A message states what is wrong (value and line), what is allowed, and what to do next.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from unitune.findings import Finding

NOT_FOUND, REQUEST_TIMEOUT, CONFLICT, RATE_LIMITED, SERVER_ERROR = 404, 408, 409, 429, 500


class UnituneError(Exception):
    """Base of every error that unitune raises on purpose."""

    code: ClassVar[str] = "unitune-error"
    """Stable code for programs: the name of the class in `unitune.errors`, such as
    ``over-budget``; other subclasses inherit it."""
    exit_code: int = 4

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if cls.__module__ == __name__:
            cls.code = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", cls.__name__).lower()

    @property
    def is_ambiguous(self) -> bool:
        """True if the failed request may have taken effect at the vendor."""
        return False

    @property
    def is_rate_limited(self) -> bool:
        """True if the vendor refused the request because of its rate limit and did nothing."""
        return False

    @property
    def is_retryable(self) -> bool:
        """True if the same request may succeed later."""
        return self.is_ambiguous or self.is_rate_limited


class UserError(UnituneError):
    """Error that the user can correct."""

    exit_code = 2


class JobError(UserError, ValueError):
    """Invalid job file, or a job that lacks a required setting."""


class DataError(UserError, ValueError):
    """Data file with unusable rows.

    Args:
        message: One line that names the file.
        findings: Problems found in the rows.
    """

    def __init__(self, message: str, findings: tuple[Finding, ...] = ()) -> None:
        super().__init__(message)
        self.findings = findings


class NotFoundError(UserError, LookupError):
    """Unknown name.

    Args:
        kind: Kind of object, such as "backend" or "run".
        name: Name that was not found.
        known: Existing names; the closest one is suggested.
        hint: What to do next. It replaces the list of known names.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        names = sorted(known)
        near = nearest(name, names)
        guess = f" Did you mean {near!r}?" if near else ""
        listed = f" Known: {', '.join(names)}." if names and not hint else ""
        super().__init__(f"There is no {kind} {name!r}.{guess}{listed}{' ' + hint if hint else ''}")


class MissingExtra(UserError, ImportError):
    """Packages required by a backend or feature that are not installed."""


class Unsupported(UserError, ValueError):
    """Feature that the backend does not support."""


class DuplicateRunError(UserError, RuntimeError):
    """The same training is already running or done.

    Args:
        message: One line that names the run.
        run_id: Id of the earlier run.
    """

    def __init__(self, message: str, run_id: str) -> None:
        super().__init__(message)
        self.run_id = run_id


class BackendError(UnituneError):
    """Failure of the vendor or the machine.

    Args:
        message: One line that states what failed.
        status: HTTP status, if there is one.
        request_id: The vendor's id of the request, if it sent one.
        retry_after: Seconds to wait before a retry, if the vendor sent them.
    """

    exit_code = 4

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.request_id = request_id
        self.retry_after = retry_after

    @property
    def is_ambiguous(self) -> bool:
        """True for 408 and from 500; any other 4xx proves that nothing was done."""
        return self.status is not None and (
            self.status >= SERVER_ERROR or self.status == REQUEST_TIMEOUT
        )

    @property
    def is_rate_limited(self) -> bool:
        """True for status 429."""
        return self.status == RATE_LIMITED

    @property
    def is_not_found(self) -> bool:
        """True if the object does not exist at the vendor."""
        return self.status == NOT_FOUND


class Unreachable(BackendError, ConnectionError):
    """No answer, so it is unknown whether the request took effect."""

    @property
    def is_ambiguous(self) -> bool:
        """Always true."""
        return True


class RunFailed(BackendError, RuntimeError):
    """Training that ended without a model."""


class IntegrityError(UnituneError):
    """Evidence that cannot be trusted."""

    exit_code = 5


class Leak(IntegrityError, ValueError):
    """Test cases in the training file of a model under test."""


class Mismatch(IntegrityError, ValueError):
    """Model, template, prompt or recorded rows that do not belong together."""


class UnstableJudge(IntegrityError, ValueError):
    """Judge that changes its judgement when it is asked again."""


class GateNotPassed(UnituneError, ValueError):
    """Promotion of a model that has not passed its gate.

    Args:
        message: Names the gate and why it was not passed.
        exit_code: Exit code of the gate: failed, inconclusive, or too few answers.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class OverBudget(UnituneError, ValueError):
    """Job whose cost exceeds its budget or is unknown."""

    exit_code = 6


class UnreadableRecord(UnituneError, ValueError):
    """Record that is damaged or was written by another version of unitune.

    Args:
        what: The record, such as "run r2611…".
        field: Name of the invalid field.
        problem: What is wrong with the value.
        store: Place that holds the record.
    """

    def __init__(self, what: str, field: str, problem: str, store: str = "the ledger") -> None:
        super().__init__(
            f"{what} cannot be read: its {field} in {store} is wrong: {problem}. The record is "
            f"damaged or was written by another version of unitune. Restore {store} from a backup "
            "or use that version. Other records still work."
        )
        self.what = what
        self.field = field
        self.problem = problem


class LockTimeout(UnituneError, TimeoutError):
    """Run or ledger that another process is working on."""


class WaitTimeout(UnituneError, TimeoutError):
    """Run that was not at rest within the timeout of a wait; it continues."""


class Interrupted(UnituneError):
    """Work that the user stopped and can resume."""

    exit_code = 130


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name closest to ``name``, or None when none is close."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None
