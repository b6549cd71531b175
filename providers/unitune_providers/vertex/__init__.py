"""Vertex AI of Google Cloud.

Its SDK is imported here first, as if aiohttp were not installed. google-genai would load it
wherever it is, and unitune brings it for another purpose: 8 MiB that nobody here uses.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import cast

_found = sys.modules.setdefault("aiohttp", cast("ModuleType", None))
try:
    import_module("google.genai")
finally:
    if _found is cast("ModuleType", None):
        del sys.modules["aiohttp"]
