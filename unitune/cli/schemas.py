"""Which model describes which document: what `unitune schema` prints."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from unitune.backends.offer import Offer
from unitune.cli.pricelist import PriceList
from unitune.cli.runviews import RunView
from unitune.cost.budget import ProjectBudget
from unitune.cost.prices.files import PricesFile
from unitune.data.check import DataReport
from unitune.evaluate.results import Comparison
from unitune.job.job import Job
from unitune.planning.documents import Plan
from unitune.tco.documents import TotalCostList


def document_model(
    name: Literal[
        "job", "plan", "check", "run", "verdict", "cost", "budget", "offer", "prices", "price-list"
    ],
) -> type[BaseModel]:
    """Return the model whose JSON Schema describes a document."""
    models: dict[str, type[BaseModel]] = {
        "job": Job,
        "plan": Plan,
        "check": DataReport,
        "run": RunView,
        "verdict": Comparison,
        "cost": TotalCostList,
        "budget": ProjectBudget,
        "offer": Offer,
        "prices": PricesFile,
        "price-list": PriceList,
    }
    return models[name]
