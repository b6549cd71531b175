"""The stranger's own test: all that a backend's author writes to hold it against the contract."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import JsonValue

from unitune.testing import BackendContract


class TestStrangerBackend(BackendContract):
    name = "stranger"
    model = "words"
    slow_options: ClassVar[Mapping[str, JsonValue]] = {"hold": True}
