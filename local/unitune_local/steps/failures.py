"""Decide what a failure at a vendor of steps means: a failed run, or one that can be resumed."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

from unitune.backends.kit.errors import ErrorTable, Vendor, vendor_errors
from unitune.errors import BackendError, RunFailed, UserError
from unitune.workspace.install import install_command

# Words of a vendor that refuses its own SDK
TOO_OLD = "SDK version is no longer supported"
ROW_TOO_LONG = "Set tuning.sequence_length, and tuning.overlength to drop or truncate."
# What to do next, by HTTP status
ADVICE = {
    402: "Add credit, then run `unitune runs resume`; it continues from the newest checkpoint.",
    410: "The session has ended. Run `unitune runs resume`, which begins another.",
    429: "Run `unitune runs resume` later, or ask for a higher limit.",
}


@contextmanager
def step_errors(
    vendor: Vendor, doing: str, table: ErrorTable, is_final: Callable[[BaseException | None], bool]
) -> Generator[None]:
    """Map an SDK's exceptions.

    Args:
        vendor: Vendor that is called.
        doing: Completes "VENDOR could not DOING".
        table: Exceptions of the SDK.
        is_final: Returns whether the same request would fail again.

    Raises:
        UserError: The SDK is too old.
        RunFailed: The same request would fail again.
        BackendError: Another failure; a resume continues.
    """
    try:
        with vendor_errors(vendor, doing, table):
            yield
    except BackendError as error:
        refuse_old_sdk(error, vendor.name)
        if is_final(error.__cause__):
            advice = f" {ROW_TOO_LONG}" if "context window" in str(error) else ""
            raise RunFailed(f"{error}{advice}") from error
        raise


def refuse_old_sdk(error: BackendError, name: str) -> None:
    """Raise `UserError` with the command that helps, if a vendor refuses the version of its SDK."""
    if TOO_OLD in str(error):
        command = install_command(name).replace("pip install", "pip install -U", 1)
        raise UserError(f"{error} Run `{command} {name}`, and launch or resume again.") from error
