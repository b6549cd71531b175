"""Keep the audit log: an append-only chain of hashed entries.

An entry is written in the transaction of what it records. Changing an entry breaks the chain, and
changing the rest of the chain as well contradicts any older export (`held_against`).
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
from unitune.files.system import POSIX
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
BEGINNING = "0" * 64  # previous hash of the first entry
END = "entries"  # key of an export's last line


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One action of the ledger."""

    number: int  # from 1 without gaps
    time: Time  # seconds since 1970, UTC
    who: str  # ``UNITUNE_USER``, or the account and its machine
    action: str  # such as ``run.launched``
    subject: str  # id of the run or deployment, or name of the alias or version
    data: dict[str, JsonValue]
    previous: str  # hash of the previous entry; zeros for the first
    sha256: str = ""  # of all this; empty until it is computed

    def hashed(self) -> AuditEntry:
        """Return the entry with the hash of its JSON: sorted keys, no blanks, no ``sha256``."""
        content = {name: value for name, value in asdict(self).items() if name != "sha256"}
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return replace(self, sha256=hashlib.sha256(text.encode()).hexdigest())


def current_user() -> str:
    """Return ``UNITUNE_USER`` if set, else the account and this machine."""
    if named := os.environ.get("UNITUNE_USER", "").strip():
        return named
    try:
        account = getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container's user may have no name
        account = f"user {os.getuid()}" if POSIX else "unknown user"
    return f"{account}@{socket.gethostname()}"


def record(
    database: Database,
    connection: sa.Connection,
    action: str,
    subject: str,
    data: Mapping[str, Any],
) -> None:
    """Add an entry to the log as the last step of a transaction, without None values."""
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
    """Return the entries of a log, or of its newer part, after checking their hashes.

    Raises:
        Mismatch: An entry was changed, removed or inserted; the message names the first.
    """
    checked: list[AuditEntry] = []
    for entry in entries:
        before = checked[-1] if checked else None
        if entry.hashed().sha256 != entry.sha256:
            raise Mismatch(f"{source}: entry {entry.number} was changed: its hash does not match.")
        if before and (entry.number, entry.previous) != (before.number + 1, before.sha256):
            raise Mismatch(
                f"{source}: entry {entry.number} does not follow entry {before.number}: an entry "
                "was changed, removed or inserted between them."
            )
        checked.append(entry)
    return checked


def export_lines(entries: Sequence[AuditEntry]) -> Iterator[str]:
    """Yield a log as JSON Lines; the last line holds the number of entries."""
    for entry in entries:
        yield f"{to_json(entry).decode()}\n"
    yield f"{to_json({END: len(entries)}).decode()}\n"


def read_export(content: bytes, source: str) -> Iterator[AuditEntry]:
    """Yield the entries of an export that is unchanged to the byte.

    Raises:
        DataError: A line is not an entry.
        Mismatch: A line was changed, or lines are missing.
    """
    *lines, end, _ = content.split(b"\n") if content.count(b"\n") else (b"", b"")
    for number, line in enumerate(lines, 1):
        try:
            entry = TypeAdapter(AuditEntry).validate_json(line)
        except ValidationError as error:
            raise DataError(
                f"{source}:{number}: this line is not an entry of an audit log. Pass an unchanged "
                "file that `unitune runs audit --output` wrote."
            ) from error
        if to_json(entry) != line:
            raise Mismatch(f"{source}:{number}: the line was changed since it was written.")
        yield entry
    if end != to_json({END: len(lines)}):
        raise Mismatch(
            f"{source}: lines were removed, inserted or cut off: the last line does not match."
        )


def held_against(exported: Iterable[AuditEntry], ledger: Iterable[AuditEntry]) -> None:
    """Raise Mismatch if a ledger does not have all entries of an export."""
    known = {entry.number: entry.sha256 for entry in ledger}
    for entry in exported:
        if known.get(entry.number) != entry.sha256:
            state = "has changed since" if entry.number in known else "is missing"
            raise Mismatch(f"the ledger's entry {entry.number} ({entry.action}) {state}.")
