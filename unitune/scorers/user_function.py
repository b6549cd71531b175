"""Load the user's functions (scorers, callbacks), named ``FILE.py:NAME`` or ``MODULE:NAME``."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from unitune.errors import JobError

REFERENCE = r"^[^:]+:[A-Za-z_]\w*$"


def reference_to(value: Any) -> Any:
    """Return the reference to a function given in Python; raises `ValueError` if it has none."""
    if not callable(value):
        return value
    name, file = getattr(value, "__qualname__", ""), inspect.getsourcefile(inspect.unwrap(value))
    if file is None or not name.isidentifier() or not Path(file).is_file():
        raise ValueError(
            "the training is a separate process and cannot import this function. Define it with "
            "`def` at the top level of a .py file"
        )
    return f"{Path(file).resolve()}:{name}"


@dataclass(frozen=True, slots=True)
class UserFunction:
    """A function named in a job, relative to a folder; `owner` names its user in messages."""

    reference: str
    folder: Path
    owner: str

    def load(self) -> Callable[..., object]:
        """Import the function, which runs its module; raises `JobError`."""
        module, _, name = self.reference.rpartition(":")
        spec = self._spec(module)
        try:
            if module.endswith(".py"):
                assert spec.loader is not None, "a file has a loader"
                loaded = importlib.util.module_from_spec(spec)
                sys.modules[spec.name] = loaded  # dataclasses look up their module there
                spec.loader.exec_module(loaded)
            else:
                loaded = importlib.import_module(module)
        except (Exception, SystemExit) as error:
            raise self._no_import(error) from error
        function = getattr(loaded, name, None)
        if not callable(function):
            raise self._no_function()
        return function

    def source(self) -> str | None:
        """Return the text of the function's file; None if it has none."""
        spec = module_spec(self.reference.rpartition(":")[0], self.folder)
        source = Path(spec.origin) if spec and spec.origin else None
        if source is None or not source.is_file():
            return None
        # Python files may have other encodings, and an extension module is not text.
        return source.read_text(encoding="utf-8", errors="surrogateescape")

    def check(self) -> None:
        """Raise `JobError` for a missing function, without running any of its code.

        Modules inside packages are not checked, because finding them would run the package.
        """
        module, _, name = self.reference.rpartition(":")
        is_file = module.endswith(".py")
        self._spec(module if is_file else module.partition(".")[0])
        if not is_file:
            return
        try:
            code = compile((self.folder / module).read_bytes(), module, "exec")
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise self._no_import(error) from error
        if name not in code.co_names and ("*",) not in code.co_consts:  # `import *`
            raise self._no_function()

    def _no_import(self, error: BaseException) -> JobError:
        module = self.reference.rpartition(":")[0]
        return JobError(f"{self.owner} cannot import {module}: {type(error).__name__}: {error}")

    def _spec(self, module: str) -> ModuleSpec:
        if spec := module_spec(module, self.folder):
            return spec
        raise JobError(
            f"{self.owner} names {self.reference.rpartition(':')[0]!r}, which is "
            f"neither a Python file in {self.folder} nor an installed module."
        )

    def _no_function(self) -> JobError:
        module, _, name = self.reference.rpartition(":")
        return JobError(f"{self.owner}: {module} has no function {name!r}.")


def module_spec(module: str, folder: Path) -> ModuleSpec | None:
    """Return the location of a file or an installed module, or None."""
    if module.endswith(".py"):
        path = folder / module
        name = f"unitune_scorer_{path.stem}"
        return importlib.util.spec_from_file_location(name, path) if path.is_file() else None
    try:
        return importlib.util.find_spec(module)
    except (ModuleNotFoundError, ValueError):
        return None
