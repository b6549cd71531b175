"""The audit log: what the ledger did, who did it and when, each entry hashed with the one before.

An entry is written in the transaction of what it records: both are there, or neither. Nothing ever
changes or deletes one. Who changes an entry behind the ledger's back breaks the chain there; who
changes it from there to its end is found by any older export (`held_against`).
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import sqlalchemy as sa
from pydantic import JsonValue, TypeAdapter, ValidationError
from pydantic_core import to_json

from unitune.errors import DataError, Mismatch
from unitune.ledger.database import Database
from unitune.ledger.records import METADATA, Time

AUDIT_LOG = sa.Table(
    "audit_log",
    METADATA,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("time", sa.Double, nullable=False),
    sa.Column("who", sa.Text, nullable=False),
    sa.Column("action", sa.String(32), nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("data", sa.JSON, nullable=False),
    sa.Column("previous", sa.String(64), nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
)
BEGINNING = "0" * 64  # what the first entry has in place of the hash of one before
END = "entries"  # key of an export's last line


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One thing that the ledger did.

    Args:
        number: Counted from 1, without gaps.
        time: Seconds since 1970, UTC.
        who: ``UNITUNE_USER``, or the account and its machine.
        action: Such as ``run.launched``.
        subject: Id of the run or deployment, or name of the alias or version.
        data: What else is known of it.
        previous: Hash of the entry before; of the first, zeros.
        sha256: Hash of all this; empty while it is not known.
    """

    number: int
    time: Time
    who: str
    action: str
    subject: str
    data: dict[str, JsonValue]
    previous: str
    sha256: str = ""

    def hashed(self) -> AuditEntry:
        """Return the entry with its hash: of its JSON without that, keys sorted, no blanks."""
        content = {name: value for name, value in asdict(self).items() if name != "sha256"}
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return replace(self, sha256=hashlib.sha256(text.encode()).hexdigest())


def current_user() -> str:
    """Return who acts: as ``UNITUNE_USER`` says, else the account on this machine."""
    if named := os.environ.get("UNITUNE_USER", "").strip():
        return named
    try:
        account = getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        account = f"user {os.getuid()}"
    return f"{account}@{socket.gethostname()}"


def record(
    database: Database,
    connection: sa.Connection,
    action: str,
    subject: str,
    data: Mapping[str, Any],
) -> None:
    """Add an entry to the log, as the last thing of a transaction.

    Args:
        database: Whose log it is.
        connection: Of the transaction that does what is recorded.
        action: What is done.
        subject: To what.
        data: What JSON has no type for is written as its text; what is None is left out.
    """
    database.lock(connection, "audit log")  # always the last lock of a transaction
    newest = sa.select(AUDIT_LOG.c.number, AUDIT_LOG.c.sha256).order_by(AUDIT_LOG.c.number.desc())
    last = connection.execute(newest.limit(1)).one_or_none()
    known = {name: value for name, value in data.items() if value is not None}
    entry = AuditEntry(
        number=last.number + 1 if last else 1,
        time=connection.execute(sa.select(database.clock())).scalar_one(),
        who=current_user(),
        action=action,
        subject=subject,
        data=json.loads(json.dumps(known, default=str)),
        previous=last.sha256 if last else BEGINNING,
    )
    connection.execute(AUDIT_LOG.insert().values(asdict(entry.hashed())))


def check_chain(entries: Iterable[AuditEntry], source: str) -> list[AuditEntry]:
    """Return the entries of a log, or of its newer part, whose hashes all fit.

    Raises:
        Mismatch: One was changed, left out or put in; the message names the first.
    """
    checked: list[AuditEntry] = []
    for entry in entries:
        before = checked[-1] if checked else None
        if entry.hashed().sha256 != entry.sha256:
            raise Mismatch(f"{source}: entry {entry.number} was changed: its hash does not fit.")
        if before and (entry.number, entry.previous) != (before.number + 1, before.sha256):
            raise Mismatch(
                f"{source}: entry {entry.number} does not follow entry {before.number}: one was "
                "changed, left out or put in between them."
            )
        checked.append(entry)
    return checked


def export_lines(entries: Sequence[AuditEntry]) -> Iterator[str]:
    """Yield a log as JSON Lines, and at the end how many there are: a file that was cut shows."""
    for entry in entries:
        yield f"{to_json(entry).decode()}\n"
    yield f"{to_json({END: len(entries)}).decode()}\n"


def read_export(content: bytes, source: str) -> Iterator[AuditEntry]:
    """Yield the entries of an export, as it was written to the byte.

    Raises:
        DataError: A line is no entry.
        Mismatch: A line was written otherwise, or lines are missing.
    """
    *lines, end, _ = content.split(b"\n") if content.count(b"\n") else (b"", b"")
    for number, line in enumerate(lines, 1):
        try:
            entry = TypeAdapter(AuditEntry).validate_json(line)
        except ValidationError as error:
            raise DataError(
                f"{source}:{number}: this is no entry of an audit log. Give a file that `unitune "
                "audit --output` wrote, as it was written."
            ) from error
        if to_json(entry) != line:
            raise Mismatch(f"{source}:{number}: the line was changed since it was written.")
        yield entry
    if end != to_json({END: len(lines)}):
        raise Mismatch(f"{source}: the end does not fit: lines were left out, put in or cut off.")


def held_against(exported: Iterable[AuditEntry], ledger: Iterable[AuditEntry]) -> None:
    """Refuse a ledger that does not have the entries of an export any more.

    Raises:
        Mismatch: One is gone, or another stands in its place.
    """
    known = {entry.number: entry.sha256 for entry in ledger}
    for entry in exported:
        if known.get(entry.number) != entry.sha256:
            state = "has changed since" if entry.number in known else "is gone"
            raise Mismatch(f"the ledger's entry {entry.number} ({entry.action}) {state}.")
