"""For tests of unitune and of backends written elsewhere: a scripted backend and the contract.

Imported on first use: the fake's offer stands in this package, and is read without the fake.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unitune.testing.contract import BackendContract as BackendContract
    from unitune.testing.fake import FakeBackend as FakeBackend
    from unitune.testing.script import Answers as Answers
    from unitune.testing.script import BatchScript as BatchScript
    from unitune.testing.script import Script as Script
    from unitune.testing.vendor_setup import VendorSetup as VendorSetup

_HOMES = {
    "Answers": "unitune.testing.script",
    "BackendContract": "unitune.testing.contract",
    "BatchScript": "unitune.testing.script",
    "FakeBackend": "unitune.testing.fake",
    "Script": "unitune.testing.script",
    "VendorSetup": "unitune.testing.vendor_setup",
}

__all__ = ["Answers", "BackendContract", "BatchScript", "FakeBackend", "Script", "VendorSetup"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'unitune.testing' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
