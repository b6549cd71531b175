"""Notify the user of the end of a run by a command or webhook of their configuration.

The process that sees a run end sends the notification, once, as recorded in the ledger. A training
on this machine watches its own end (`unitune.run.watching`). A failed notification is a warning
event of the run. The settings come from the user's own configuration only, because a job may be
someone else's. The command gets no keys from the environment.
"""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from functools import partial

from pydantic import JsonValue

from unitune.backends.protocol import Event, State
from unitune.errors import LockTimeout, UnituneError, UserError
from unitune.ledger import Ledger, RunRecord
from unitune.security.redaction import without_secrets
from unitune.workspace import user_config, user_settings
from unitune.workspace.user_config import Notify

NOTIFIED = "run.notified"
FAILED = "run.notification-failed"
COMMAND_SECONDS = 30.0
WEBHOOK_SECONDS = 10.0


def notify_end(ledger: Ledger, record: RunRecord) -> None:
    """Notify the user of a run's end, if configured and not done by another process."""
    if not record.state.ended:
        return
    try:
        notify = user_config.read().notify
        if notify is None or not ledger.note(record, Event(NOTIFIED, "message", time.time())):
            return
        problems = [*notification_problems(notify, message_of(record))]
    except LockTimeout:
        return  # another process sends it
    except UnituneError as error:
        problems = [str(error)]
    for number, problem in enumerate(problems):
        warning: dict[str, JsonValue] = {"text": f"no notification was sent: {problem}"}
        ledger.note(record, Event(f"{FAILED}.{number}", "warning", time.time(), warning))


def send_test() -> list[str]:
    """Send a test notification and return the problems; raise `UserError` without a `notify`."""
    notify = user_config.read().notify
    if notify is None or not (notify.command or notify.webhook):
        raise UserError(
            f"{user_config.folder() / user_config.FILE} has no `notify`. Add notify.command (a "
            "program and its arguments), notify.webhook (an address), or both."
        )
    test = RunRecord(
        id="test",
        name="a test",
        state=State.SUCCEEDED,
        backend="local",
        base_model="any",
        method="sft",
        fingerprint="",
        created=time.time(),
        updated=time.time(),
    )
    return [*notification_problems(notify, message_of(test))]


def message_of(record: RunRecord) -> dict[str, JsonValue]:
    """Return the notification of a run; its `text` is for people and Slack."""
    why = f": {record.error}" if record.error else ""
    text = f"unitune: {record.name} ({record.id}) has {record.state} on {record.backend}{why}"
    if record.state is State.CANCELLED:
        text = f"unitune: {record.name} ({record.id}) was cancelled on {record.backend}"
    return {
        "schema_version": 1,
        "event": "run.ended",
        "run": record.id,
        "name": record.name,
        "state": str(record.state),
        "backend": record.backend,
        "base_model": record.base_model,
        "model": record.model and record.model.name,
        "error": record.error,
        "host": socket.gethostname(),
        "text": text,
    }


def notification_problems(notify: Notify, message: Mapping[str, JsonValue]) -> Iterator[str]:
    """Send a message by each configured way, and yield the problems."""
    ways = [partial(_run_command, notify.command)] if notify.command else []
    ways += [partial(_post, notify.webhook)] if notify.webhook is not None else []
    for send in ways:
        try:
            send(message)
        except UnituneError as error:
            yield str(error)


def _run_command(command: tuple[str, ...], message: Mapping[str, JsonValue]) -> None:
    named = {f"UNITUNE_{key.upper()}": str(value or "") for key, value in message.items()}
    told = f"notify.command {command[0]!r}"
    try:
        ended = subprocess.run(  # noqa: S603 - command from the user's own configuration
            command,
            input=json.dumps(message).encode(),
            capture_output=True,
            check=False,
            timeout=COMMAND_SECONDS,
            env={**without_secrets(user_settings.environment()), **named},
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"{told} took longer than {COMMAND_SECONDS:.0f} s.") from None
    except OSError as error:
        raise UserError(f"{told} cannot be run: {error.strerror}.") from error
    if ended.returncode != 0:
        last = ended.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise UserError(f"{told} ended with {ended.returncode}: {last or 'no message'}.")


def _post(webhook: str, message: Mapping[str, JsonValue]) -> None:
    from unitune.backends.kit.api import Api  # noqa: PLC0415 - loads httpx
    from unitune.backends.kit.errors import Endpoint, Vendor  # noqa: PLC0415 - loads httpx

    endpoint = Endpoint(Vendor("notify.webhook", secrets=(webhook,)), webhook)
    action, content = "take a notification", dict(message)
    Api(endpoint).request("POST", action=action, json=content, timeout=WEBHOOK_SECONDS)
