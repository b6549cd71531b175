"""Import the public names of a package on first use."""

import ast
import importlib
import sys
from collections.abc import Callable


def lazy(package: str, file: str) -> tuple[Callable[[str], object], list[str]]:
    """Return ``__getattr__`` and ``__all__`` of a package whose stub lists its public names."""
    with open(f"{file}i", encoding="utf-8") as stub:  # noqa: PTH123 - importing pathlib takes 4 ms
        imports = [node for node in ast.parse(stub.read()).body if isinstance(node, ast.ImportFrom)]
    modules = {
        name.name: "." * node.level + (node.module or name.name)
        for node in imports
        for name in node.names
    }

    def get(name: str) -> object:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = importlib.import_module(modules[name], package)
        value = module if modules[name] == f".{name}" else getattr(module, name)
        setattr(sys.modules[package], name, value)
        return value

    return get, sorted(modules)
