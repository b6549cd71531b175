"""Draw any document for notebooks and `print`."""

from __future__ import annotations

from textwrap import dedent

from unitune.data.report import DataReport
from unitune.evaluate.documents.results import Comparison
from unitune.files import yaml_file
from unitune.job.job import Job
from unitune.ownership import page as total_cost
from unitune.ownership.serving import TotalCost
from unitune.planning.plan import Plan
from unitune.render import html as html_renderer
from unitune.render import terminal
from unitune.render.sections import Document, Fact, Facts, Section
from unitune.report import checked, comparison, plan, run_document
from unitune.run.handle import Run


def draw(document: object, *, html: bool) -> str:
    """Return a document as HTML for a notebook, or as text."""
    described = describe(document)
    return html_renderer.fragment(described) if html else terminal.text(described)


def describe(document: object) -> Document:
    """Return the description of a document; raises `TypeError` for another value."""
    match document:
        case Comparison():
            return comparison.describe(document)
        case Plan():
            return plan.describe(document)
        case TotalCost():
            return total_cost.describe(document)
        case DataReport():
            return checked.describe(document)
        case Run():
            return run_document.describe(document)
        case Job():
            return _job(document)
        case _:
            raise TypeError(f"{type(document).__name__} is not a document")


def _job(job: Job) -> Document:
    content = job.model_dump(mode="json", exclude_defaults=True)
    texts = {key: yaml_file.dump({key: value}) for key, value in content.items() if key != "name"}
    facts = [Fact(key, dedent(text.removeprefix(f"{key}:")).strip()) for key, text in texts.items()]
    return Document(
        "A fine-tuning job", (f"Job {job.name}",), sections=(Section("", [Facts(facts)]),)
    )
