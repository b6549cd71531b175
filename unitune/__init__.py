"""One fine-tuning job for every backend: planned, launched once, and proven against the prompt.

Everything public is imported on first use, so that ``import unitune`` stays fast and needs no
vendor SDK and no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unitune.data.dataset import Dataset as Dataset
    from unitune.data.example import Example as Example
    from unitune.data.load import load as load
    from unitune.evaluate.compare import compare as compare
    from unitune.evaluate.results import Comparison as Comparison
    from unitune.findings import Finding as Finding
    from unitune.job.job import Job as Job
    from unitune.models import Reply as Reply
    from unitune.models import Request as Request
    from unitune.models import TunedModel as TunedModel
    from unitune.planning.documents import Plan as Plan
    from unitune.planning.plan import plan as plan
    from unitune.run.run import Run as Run
    from unitune.run.run import launch as launch
    from unitune.tco.documents import TotalCost as TotalCost
    from unitune.tco.total_cost import total_cost as total_cost

__version__ = "0.1.0"

_HOMES = {
    "Comparison": "unitune.evaluate.results",
    "Dataset": "unitune.data.dataset",
    "Example": "unitune.data.example",
    "Finding": "unitune.findings",
    "Job": "unitune.job.job",
    "TotalCost": "unitune.tco.documents",
    "Plan": "unitune.planning.documents",
    "Reply": "unitune.models",
    "Request": "unitune.models",
    "Run": "unitune.run.run",
    "TunedModel": "unitune.models",
    "compare": "unitune.evaluate.compare",
    "launch": "unitune.run.run",
    "load": "unitune.data.load",
    "total_cost": "unitune.tco.total_cost",
    "plan": "unitune.planning.plan",
}

__all__ = [
    "Comparison",
    "Dataset",
    "Example",
    "Finding",
    "Job",
    "Plan",
    "Reply",
    "Request",
    "Run",
    "TotalCost",
    "TunedModel",
    "compare",
    "launch",
    "load",
    "plan",
    "total_cost",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'unitune' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
