"""What vendors' batches of requests have in common: their refusals, and how they are cancelled."""

from __future__ import annotations

from collections.abc import Callable

from unitune.errors import CONFLICT, BackendError, Unsupported

BAD_REQUEST = 400


def check_size(vendor: str, requests: int, size: int, *, most: int, most_bytes: int) -> None:
    """Refuse a batch that is empty, or larger than a vendor takes.

    Raises:
        Unsupported: It is.
    """
    if not 1 <= requests <= most or size > most_bytes:
        raise Unsupported(
            f"A batch at {vendor} holds 1 to {most:,} requests and {most_bytes / 1e6:,.0f} MB, "
            f"and these are {requests:,} with {size / 1e6:,.1f} MB. Take fewer or shorter cases, "
            "or run without --batch."
        )


def cannot_take(model: str, request_id: str, problem: Exception) -> Unsupported:
    """Return the refusal of a request that a model's wire has no place for."""
    return Unsupported(
        f"{model} cannot take request {request_id}: {problem}. Leave that case out, or run "
        "without --batch, where it alone fails."
    )


def cancel_unless_ended(cancel: Callable[[], object], is_running: Callable[[], bool]) -> None:
    """Ask for the end of a batch; a refusal because it has ended is no error.

    Raises:
        BackendError: There is no such batch, or the vendor refused and the batch goes on.
    """
    try:
        cancel()
    except BackendError as error:
        if error.status not in (BAD_REQUEST, CONFLICT) or is_running():
            raise
