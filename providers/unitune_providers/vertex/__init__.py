"""Vertex AI of Google Cloud.

Its SDK is imported here first, as if aiohttp were not installed. google-genai would load it
wherever it is, and unitune brings it for another purpose: 8 MiB that nobody here uses.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import cast

_is_loaded = "aiohttp" in sys.modules
sys.modules.setdefault("aiohttp", cast("ModuleType", None))
try:
    import_module("google.genai")
finally:
    if not _is_loaded:
        del sys.modules["aiohttp"]
