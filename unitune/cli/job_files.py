"""Implement `unitune check` and `unitune schema`, and write the schema next to a job for editors.

A job's first line refers to that schema for the YAML language server (VS Code, JetBrains, Neovim,
Helix), which completes and checks keys and options.
"""

from __future__ import annotations

import json
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from unitune.cli.options import JOB_FILE, Json
from unitune.cli.output import (
    Kind,
    aside,
    check_output,
    console,
    exit_for_errors,
    print_json,
    replacing,
)

if TYPE_CHECKING:
    from pydantic import BaseModel


def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Job file or data file.")] = JOB_FILE,
    *,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write an HTML page with all rows to review."),
    ] = None,
    json: Json = False,
) -> None:
    """Check a job and its data, or one data file.

    Reports what plan, run and compare would refuse, then training rows to review: near duplicates,
    contradictions, doubtful labels, odd answers. No model is called, and nothing is run or paid.

    [dim]$ unitune check unitune.yaml
    $ unitune check unitune.yaml --html check.html
    $ unitune check train.jsonl --json[/dim]
    """
    from unitune.cli.progress import working
    from unitune.evaluate.readiness import check
    from unitune.render.terminal import view
    from unitune.report.checked import describe

    check_output(html, Kind.PAGE, [file])
    with working("reading rows, looking for leaks", quiet=json):
        report = check(file)
    if json:
        print_json(report)
    else:
        more = "" if html else f"All of them: unitune check {file} --html check.html"
        console().print(view(describe(report, file.name, more)))
    if html:
        from unitune.report.checked import render

        with replacing(html) as page:
            page.write(render(report, file.name).encode())
        aside().print(f"Page: {html}")
    exit_for_errors(report.findings)


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
    "run": "unitune.cli.watch:RunView",
    "model": "unitune.cli.model_registry_view:ModelView",
    "verification": "unitune.registry.verification:Verification",
    "verdict": "unitune.evaluate.documents.results:Comparison",
    "comparison-diff": "unitune.evaluate.documents.diff:ComparisonDiff",
    "learning-curve": "unitune.curve.documents:LearningCurve",
    "decision": "unitune.decision.evidence:Decision",
    "cost": "unitune.ownership.serving:TotalCostList",
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
