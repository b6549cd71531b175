"""No connection but to this machine: loaded by every Python process that the tests start.

On `PYTHONPATH` of the tests' subprocesses, and imported by conftest.py for the tests themselves.
A connection to any other address raises at once, with the address.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Any


class ForbiddenConnection(RuntimeError):
    """A test tried to reach another machine."""


def _check(address: Any) -> None:
    if not isinstance(address, tuple) or address[0] in ("localhost", ""):
        return
    try:
        here = ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback
    except ValueError:
        here = False
    if not here:
        raise ForbiddenConnection(f"tests reach only this machine, not {address[0]!r}")


class GuardedSocket(socket.socket):
    """A socket that connects to loopback addresses alone."""

    def connect(self, address: Any) -> None:
        _check(address)
        super().connect(address)

    def connect_ex(self, address: Any) -> int:
        _check(address)
        return super().connect_ex(address)


socket.socket = GuardedSocket  # type: ignore[misc]  # the guard
