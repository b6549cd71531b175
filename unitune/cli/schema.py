"""The command `unitune schema`: JSON Schemas of documents, and the one beside a job for editors.

A job's first line names the schema beside it, as the YAML language server reads it (VS Code,
JetBrains, Neovim, Helix): keys, scorers, contenders and the options of each backend are then
completed and checked while a job is written.
"""

from __future__ import annotations

import json
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from unitune.cli.output import print_json
from unitune.cli.output_files import replacing

if TYPE_CHECKING:
    from pydantic import BaseModel

READ_DOCUMENTS = ("job", "offer", "prices")  # documents that people write; the others are printed
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
# Where the model of each stands; loaded when its schema is asked for
MODELS: dict[DocumentName, str] = {
    "job": "unitune.job.job:Job",
    "plan": "unitune.planning.plan:Plan",
    "check": "unitune.data.report:DataReport",
    "run": "unitune.cli.run_view:RunView",
    "model": "unitune.cli.model_registry_view:ModelView",
    "verification": "unitune.model_registry.verify:Verification",
    "verdict": "unitune.evaluate.results:Comparison",
    "comparison-diff": "unitune.evaluate.diff:ComparisonDiff",
    "learning-curve": "unitune.evaluate.learning_curve_document:LearningCurve",
    "decision": "unitune.decision.evidence:Decision",
    "cost": "unitune.tco.documents:TotalCostList",
    "budget": "unitune.cost.budget:ProjectBudget",
    "offer": "unitune.backends.offer:Offer",
    "prices": "unitune.cost.prices.book:PricesFile",
    "price-list": "unitune.cli.price_view:PriceList",
}
DRAFT = "https://json-schema.org/draft/2020-12/schema"
BESIDE = "unitune.schema.json"
# First of a job: github.com/redhat-developer/yaml-language-server, "Using inlined schema"
EDITOR_LINE = f"# yaml-language-server: $schema={BESIDE}\n"


def schema(
    name: Annotated[DocumentName, typer.Argument(metavar="NAME", help="Which document.")],
) -> None:
    """Print the JSON Schema of a document that unitune reads or writes.

    [dim]$ unitune schema job > unitune.schema.json[/dim]
    """
    print_json(document_schema(name))


def write_beside(job: Path) -> Path:
    """Write the schema of jobs beside a job, unless one stands there, and return its path."""
    target = job.parent / BESIDE
    if not target.exists():
        with replacing(target) as file:
            file.write(json.dumps(document_schema("job"), indent=1).encode())
    return target


def document_schema(name: DocumentName) -> dict[str, Any]:
    """Return the JSON Schema of a document; of a job with the options of every backend."""
    mode = "validation" if name in READ_DOCUMENTS else "serialization"
    content = document_model(name).model_json_schema(mode=mode)
    if name == "job":
        _describe_options(content)
    return {"$schema": DRAFT, "$id": f"urn:unitune:{name}:1", **content}


def _describe_options(job: dict[str, Any]) -> None:
    """Say under `options` what each backend takes; of backends not installed here, anything."""
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
    """Return the model whose JSON Schema describes a document."""
    model: type[BaseModel] = resolve_name(MODELS[name])
    return model
