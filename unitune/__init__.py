"""One fine-tuning job for every backend: planned, launched once, and proven against the prompt.

    job = Job(name="triage", model="smollm2-135m-instruct", backend="local",
              data=Data(train="train.jsonl", test="test.jsonl"))
    print(plan(job))
    run = launch(job).wait()
    print(run.model.ask("Where is my parcel?"))
    print(compare(job, run).verdict)

The stub ``__init__.pyi`` lists every public name. Each is imported on first use, so that
``import unitune`` stays fast and needs neither a vendor SDK nor torch. All functions work where an
event loop is running, as in a notebook.
"""

import ast
import importlib

__version__ = "0.1.0"


def _modules() -> dict[str, str]:
    """Return the module of each public name, as the stub lists them."""
    with open(f"{__file__}i", encoding="utf-8") as stub:  # noqa: PTH123 - pathlib takes 4 ms
        imports = (node for node in ast.parse(stub.read()).body if isinstance(node, ast.ImportFrom))
        return {name.name: f"unitune.{node.module}" for node in imports for name in node.names}


_MODULES = _modules()
__all__ = sorted(_MODULES)  # noqa: PLE0605  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'unitune' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
