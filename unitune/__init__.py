"""Plan one fine-tuning job for any backend, launch it once and compare it with the prompt.

    job = Job(name="triage", model="smollm2-135m-instruct", backend="local",
              data=Data(train="train.jsonl", test="test.jsonl"))
    print(plan(job))
    run = launch(job).wait()
    print(run.model.ask("Where is my parcel?"))
    print(compare(job, run).verdict)

The stub ``__init__.pyi`` lists every public name. Each is imported on first use, so that
``import unitune`` stays fast and needs neither a vendor SDK nor torch. All functions also work
inside a running event loop, as in a notebook.
"""

from unitune import _shown
from unitune._lazy import lazy
from unitune._version import __version__ as __version__

__getattr__, __all__ = lazy(__name__, __file__)  # pyright: ignore[reportUnsupportedDunderAll]


def _draw(document: object, *, html: bool) -> str:
    from unitune.report.documents import draw  # noqa: PLC0415 - brings rich

    return draw(document, html=html)


_shown.renderer = _draw


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
