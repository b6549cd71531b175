"""Implement `unitune schema` and write the JSON Schema next to a job for editors.

A job's first line refers to that schema for the YAML language server (VS Code, JetBrains, Neovim,
Helix), which completes and checks keys and options.
"""

from __future__ import annotations

import json
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from unitune.cli.output import print_json, replacing

if TYPE_CHECKING:
    from pydantic import BaseModel

READ_DOCUMENTS = ("job", "offer", "prices")  # written by people; the others are printed
DocumentName = Literal[
    "job",
    "plan",
    "check",
    "run",
    "model",
    "verification",
    "verdict",
    "comparison-diff",
    "learning-curve",
    "decision",
    "cost",
    "budget",
    "offer",
    "prices",
    "price-list",
]
# Import paths of the models, loaded when a schema is requested
MODELS: dict[DocumentName, str] = {
    "job": "unitune.job.job:Job",
    "plan": "unitune.planning.plan:Plan",
    "check": "unitune.data.report:DataReport",
    "run": "unitune.cli.run_view:RunView",
    "model": "unitune.cli.model_registry_view:ModelView",
    "verification": "unitune.registry.verification:Verification",
    "verdict": "unitune.evaluate.results:Comparison",
    "comparison-diff": "unitune.evaluate.diff:ComparisonDiff",
    "learning-curve": "unitune.curve.documents:LearningCurve",
    "decision": "unitune.decision.evidence:Decision",
    "cost": "unitune.tco.documents:TotalCostList",
    "budget": "unitune.cost.budget:ProjectBudget",
    "offer": "unitune.backends.offer:Offer",
    "prices": "unitune.cost.prices.book:PricesFile",
    "price-list": "unitune.cli.price_view:PriceList",
}
DRAFT = "https://json-schema.org/draft/2020-12/schema"
BESIDE = "unitune.schema.json"
# First line of a job: github.com/redhat-developer/yaml-language-server, "Using inlined schema"
EDITOR_LINE = f"# yaml-language-server: $schema={BESIDE}\n"


def schema(
    name: Annotated[
        DocumentName, typer.Argument(metavar="NAME", help="Document: job, plan, verdict etc.")
    ],
) -> None:
    """Print the JSON Schema of a document that unitune reads or writes.

    [dim]$ unitune schema job > unitune.schema.json[/dim]
    """
    print_json(document_schema(name))


def write_beside(job: Path) -> Path:
    """Write the job schema next to a job, unless it exists, and return its path."""
    target = job.parent / BESIDE
    if not target.exists():
        with replacing(target) as file:
            file.write(json.dumps(document_schema("job"), indent=1).encode())
    return target


def document_schema(name: DocumentName) -> dict[str, Any]:
    """Return the JSON Schema of a document; a job's includes the options of every backend."""
    mode = "validation" if name in READ_DOCUMENTS else "serialization"
    content = document_model(name).model_json_schema(mode=mode)
    if name == "job":
        _describe_options(content)
    return {"$schema": DRAFT, "$id": f"urn:unitune:{name}:1", **content}


def _describe_options(job: dict[str, Any]) -> None:
    """Add the options of each installed backend; other backends accept anything."""
    from unitune.backends import registry

    known: dict[str, Any] = {}
    for offer in map(registry.offer, registry.offer_names()):
        if offer.options is not None and offer.name != "fake":
            model = registry.options_of(offer.options)
            part = model.model_json_schema(ref_template=f"#/$defs/{offer.name}.{{model}}")
            inner = part.pop("$defs", {})
            job["$defs"] |= {f"{offer.name}.{key}": value for key, value in inner.items()}
            known[offer.name] = part
    job["properties"]["options"]["properties"] = known


def document_model(name: DocumentName) -> type[BaseModel]:
    """Return the pydantic model of a document."""
    model: type[BaseModel] = resolve_name(MODELS[name])
    return model
