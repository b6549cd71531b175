"""Every error that unitune raises on purpose.

    UnituneError                     exit code
    ├── UserError                    2    configuration, usage or data; the user can correct it
    │   ├── JobError                      also ValueError
    │   ├── DataError                     also ValueError; carries its findings
    │   ├── NotFoundError                 also LookupError: no such backend, model, run …
    │   ├── MissingExtra                  also ImportError: an optional package is not installed
    │   ├── Unsupported                   also ValueError: the backend cannot do what the job needs
    │   └── DuplicateRunError             also RuntimeError: the same training was launched before
    ├── BackendError                 4    vendor or machine failed
    │   ├── Unreachable                   also ConnectionError: no answer; the outcome is open
    │   └── RunFailed                     also RuntimeError: the training ended without a model
    ├── IntegrityError               5    the evidence cannot be trusted
    │   ├── Leak                          also ValueError: test cases are in the training file
    │   └── Mismatch                      also ValueError: model, template, prompt or rows disagree
    ├── GateNotPassed            1, 3 or 4    that of the gate, which a promotion needs
    ├── OverBudget                   6    also ValueError
    ├── UnreadableRecord             4    also ValueError: the ledger holds what it cannot mean
    ├── LockTimeout                  4    also TimeoutError: another process is at the same run
    └── Interrupted                  130  stopped by the user, resumable

Anything else that reaches the command line is a bug of ours: exit code 70, with a traceback.
A message says what was wrong, with the value and the line; what is allowed; what to do next.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unitune.findings import Finding

NOT_FOUND, REQUEST_TIMEOUT, CONFLICT, RATE_LIMITED, SERVER_ERROR = 404, 408, 409, 429, 500


class UnituneError(Exception):
    """Base of every error that unitune raises on purpose."""

    exit_code: int = 4

    @property
    def is_ambiguous(self) -> bool:
        """Whether the request that failed may have taken effect at the vendor."""
        return False

    @property
    def is_rate_limited(self) -> bool:
        """Whether the vendor has refused a request because there were too many, and did nothing."""
        return False

    @property
    def is_retryable(self) -> bool:
        """Whether the same request may succeed later."""
        return self.is_ambiguous or self.is_rate_limited


class UserError(UnituneError):
    """Something in what the user wrote must change."""

    exit_code = 2


class JobError(UserError, ValueError):
    """The job file is not valid, or the job lacks what it needs."""


class DataError(UserError, ValueError):
    """A data file holds rows that cannot be used.

    Args:
        message: One line that names the file.
        findings: What is wrong, row by row.
    """

    def __init__(self, message: str, findings: tuple[Finding, ...] = ()) -> None:
        super().__init__(message)
        self.findings = findings


class NotFoundError(UserError, LookupError):
    """A name that stands for nothing here.

    Args:
        kind: What was looked for ("backend", "run", …).
        name: The name as given.
        known: The names that exist; the nearest one is suggested.
        hint: What to do next; the known names by default.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        names = sorted(known)
        near = nearest(name, names)
        guess = f" Did you mean {near!r}?" if near else ""
        listed = f" Known: {', '.join(names)}." if names and not hint else ""
        super().__init__(f"There is no {kind} {name!r}.{guess}{listed}{' ' + hint if hint else ''}")


class MissingExtra(UserError, ImportError):
    """A backend or feature needs packages that are not installed."""


class Unsupported(UserError, ValueError):
    """The backend cannot do what the job asks for."""


class DuplicateRunError(UserError, RuntimeError):
    """The same training is going on or done already.

    Args:
        message: One line that names the run.
        run_id: The earlier run.
    """

    def __init__(self, message: str, run_id: str) -> None:
        super().__init__(message)
        self.run_id = run_id


class BackendError(UnituneError):
    """The vendor or the machine failed.

    Args:
        message: What failed, in one line.
        status: HTTP status, when there was one.
        request_id: The vendor's id for the request, when it gave one.
        retry_after: Seconds after which the vendor says to try again, where it does.
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
        """As of `UnituneError`; a 4xx but 408 proves that nothing was done."""
        return self.status is not None and (
            self.status >= SERVER_ERROR or self.status == REQUEST_TIMEOUT
        )

    @property
    def is_rate_limited(self) -> bool:
        """As of `UnituneError`."""
        return self.status == RATE_LIMITED

    @property
    def is_not_found(self) -> bool:
        """Whether there is no such object at the vendor."""
        return self.status == NOT_FOUND


class Unreachable(BackendError, ConnectionError):
    """Nothing came back, so whether the request took effect is not known."""

    @property
    def is_ambiguous(self) -> bool:
        """As of `UnituneError`: always."""
        return True


class RunFailed(BackendError, RuntimeError):
    """The training ended without a model."""


class IntegrityError(UnituneError):
    """The evidence cannot be trusted."""

    exit_code = 5


class Leak(IntegrityError, ValueError):
    """Test cases stand in the training file of a model under test."""


class Mismatch(IntegrityError, ValueError):
    """Model, template, prompt or recorded rows do not belong together."""


class GateNotPassed(UnituneError, ValueError):
    """A model is to be promoted whose gate was not passed.

    Args:
        message: Which gate, and why it was not.
        exit_code: Of the gate: failed on evidence, inconclusive, or without enough answers.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class OverBudget(UnituneError, ValueError):
    """The job would cost more than its budget, or its price is not known."""

    exit_code = 6


class UnreadableRecord(UnituneError, ValueError):
    """Something in the ledger or the history is damaged, or another unitune wrote it.

    Args:
        what: The record, as "run r2611…".
        field: Which of its fields.
        problem: What is wrong with it, with the value.
        store: What holds it.
    """

    def __init__(self, what: str, field: str, problem: str, store: str = "the ledger") -> None:
        super().__init__(
            f"{what} cannot be read: in {store} its {field} is wrong: {problem}. It was "
            f"damaged, or written by another version of unitune. Restore {store} from a backup, "
            "or use that version; what is not about it works as before."
        )
        self.what = what
        self.field = field
        self.problem = problem


class LockTimeout(UnituneError, TimeoutError):
    """Another process works on the same run or ledger."""


class Interrupted(UnituneError):
    """Stopped by the user; the work can be resumed."""

    exit_code = 130


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name closest to ``name``, or None when none is close."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None
