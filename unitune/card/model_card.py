"""Render the model card (``README.md``) for the Hugging Face Hub and the training summary.

Source: https://github.com/huggingface/hub-docs/blob/main/modelcard.md (metadata) and
huggingface_hub 2.4 (sections); European Commission, C(2025) 8311 (template of the summary).

Whoever modifies a general-purpose model with a third of its computation becomes its provider. If
the base's compute is unknown, 10^23 floating-point operations (FLOP) count instead. Not legal
advice. Source: European Commission, Guidelines on the scope of the obligations for general-purpose
AI models, 2025-07-18.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from pydantic import TypeAdapter

from unitune.card.facts import Base, CardFacts, RowFile, digest_of
from unitune.card.provenance import rows_of
from unitune.documents import Closed
from unitune.evaluate.documents.results import Comparison, ContenderResult
from unitune.files import yaml_file
from unitune.job.job import Method
from unitune.render import typography
from unitune.render.html import environment
from unitune.render.markdown import escaped
from unitune.report import words
from unitune.report.runs import registered_names
from unitune.security.json_fields import flat

FALLBACK_FLOP = 1e23
THRESHOLD = 1 / 3
# FLOP per parameter and token if all weights are trained: 2 in the forward and 4 in the backward
# pass, half of these for weight gradients (Kaplan et al. 2020, arXiv 2001.08361, 2.1).
TRAINED_WHOLE = 6
# FLOP if only adapters are trained: no gradients of the frozen weights, and little for the adapters
# (Schulman et al. 2025, LoRA Without Regret: slightly more than two thirds).
FROZEN = 4
FORWARD = 2
# Maximum extra forward passes per token: dpo runs the starting model on the rows, and rft samples
# the answers and runs that model on them
EXTRA_PASSES = {"sft": 0, "dpo": 1, "rft": 2, "cpt": 0}


class Pretraining(Closed):
    """Pre-training tokens of a family of base models."""

    pattern: str
    tokens: float
    source: str


class Compute(NamedTuple):
    """Computation of a training and of its base model."""

    factor: int  # FLOP per parameter and token
    reason: str
    flop: float | None  # None if unknown
    pretraining: Pretraining | None
    base_flop: float | None

    @property
    def threshold_flop(self) -> float:
        """A third of the base's training compute, or of the fallback."""
        return THRESHOLD * (self.base_flop or FALLBACK_FLOP)

    @property
    def share(self) -> float | None:
        """Share of the base's training compute, or of the fallback."""
        return None if self.flop is None else THRESHOLD * self.flop / self.threshold_flop


def compute_of(base: Base, method: Method, tokens: int | None, *, trains_adapter: bool) -> Compute:
    """Return the computation of a training on a number of tokens, and that of its base model."""
    trained = FROZEN if trains_adapter else TRAINED_WHOLE
    reason = (
        "an adapter was trained, and the base's weights were frozen"
        if trains_adapter
        else "at most: the vendor does not state whether all weights were trained"
    )
    if extra := EXTRA_PASSES[method]:
        reason += f"; {FORWARD * extra} of them for extra passes of {method}, at most"
    factor = trained + FORWARD * extra
    size, name = base.parameters, (base.hub_name or "").rpartition("/")[2].lower()
    known = next((each for each in _pretrained() if re.match(each.pattern, name)), None)
    return Compute(
        factor=factor,
        reason=reason,
        flop=factor * size * tokens if size and tokens else None,
        pretraining=known,
        base_flop=TRAINED_WHOLE * size * known.tokens if size and known else None,
    )


@cache
def _pretrained() -> list[Pretraining]:
    text = Path(__file__).with_name("pretraining.yaml").read_text(encoding="utf-8")
    return TypeAdapter(list[Pretraining]).validate_python(yaml_file.parse(text))


UNKNOWN = "not stated"


class Form(NamedTuple):
    """Form of a model's files."""

    library: str | None = None  # the Hub's name of its library
    relation: str | None = None  # the Hub's name of its relation to the base
    command: str = ""  # command that uses it, in its folder


FORMS = {  # by export form
    "adapter": Form("peft", "adapter"),
    "merged": Form("transformers", "finetune"),
    "gguf": Form("gguf", "quantized", "llama-server -m *.gguf"),
    "gguf-lora": Form("gguf", "adapter", "llama-server -m BASE.gguf --lora *.lora.gguf"),
    "ollama": Form("gguf", None, "ollama create NAME -f Modelfile"),
    "mlx": Form("mlx", "adapter", "mlx_lm.server --model BASE --adapter-path ."),
    "vllm": Form(None, "adapter", "./start.sh"),
}


def render(facts: CardFacts, form: str | None) -> str:
    """Render the model card; `form` is None if a vendor keeps the files."""
    command = FORMS.get(form or "", Form()).command
    template = _environment().get_template("model_card.md.j2")
    text = template.render(**_values(facts), form=form, command=_as_it_is(command))
    return f"---\n{yaml_file.dump(metadata(facts, form))}---\n\n{text}"


def render_summary(facts: CardFacts) -> str:
    """Render the summary of the training content, for this modification only."""
    return _environment().get_template("training_summary.md.j2").render(**_values(facts))


def metadata(facts: CardFacts, form: str | None) -> dict[str, Any]:
    """Return a card's metadata in the Hub's format, without missing values."""
    library, relation, _ = FORMS.get(form or "", Form())
    known = {
        "license": facts.base.licence and facts.base.licence.lower(),
        "base_model": facts.base.hub_name,
        "base_model_relation": facts.base.hub_name and relation,
        "library_name": library,
        "pipeline_tag": "text-generation",
        "datasets": facts.hub_data,
        "tags": ["unitune", facts.run.job.method, *(["lora"] if facts.is_own else [])],
        "model-index": _model_index(facts),
    }
    return {name: value for name, value in known.items() if value}


def _model_index(facts: CardFacts) -> list[dict[str, Any]]:
    comparison, result = facts.comparison, facts.result
    if comparison is None or result is None:
        return []
    cases = f"{typography.counted(comparison.n, 'test case')} of {comparison.job}"
    fingerprint = {"fingerprint": comparison.provenance.get("Test cases", UNKNOWN)}
    dataset = {"type": comparison.job, "name": cases, "split": "test", "args": fingerprint}
    metrics = [_metric(comparison, result, name) for name in result.scores]
    task = {"type": "text-generation", "name": "Text Generation"}
    results = [{"task": task, "dataset": dataset, "metrics": metrics}]
    return [{"name": facts.run.job.name, "results": results}]


def _metric(comparison: Comparison, result: ContenderResult, name: str) -> dict[str, Any]:
    about = {"type": name, "value": round(result.scores[name], 6), "name": name}
    if name != comparison.metric:
        return about
    low, high = (round(end, 6) for end in result.interval)
    about["name"] = f"{name} ({words.level(comparison)} interval {low:.3f} to {high:.3f})"
    args = {"interval": [low, high], "level": comparison.level, "n": result.n}
    return about | {"args": args | {"errors": result.errors}}


def not_stated(facts: CardFacts) -> Iterator[str]:
    """Yield missing information for a person to add."""
    yield from ("developer and contact", "intended use", "languages")
    yield "origin and licence of the rows"
    if facts.base.licence is None:
        yield "licence"
    if facts.comparison is None:
        yield "results"
    if _compute(facts).flop is None:
        yield "computation"


def _values(facts: CardFacts) -> dict[str, object]:
    compute, share, hours = _compute(facts), UNKNOWN, UNKNOWN
    if compute.share is not None:
        share = "more than a third" if compute.share > 1 / 3 else f"{compute.share:.1e}"
    if facts.finished is not None:
        hours = typography.duration((facts.finished - facts.run.created).total_seconds())
    return {
        "facts": facts,
        "run": facts.run,
        "words": words,
        "job": facts.run.job,
        "version": next(iter(registered_names(facts.run)), None),
        "comparison": facts.comparison,
        "hub_name": facts.base.hub_name and _as_it_is(facts.base.hub_name),
        "hub_data": [*map(_as_it_is, facts.hub_data)],
        "settings": dict(flat(facts.settings)),
        "rows": [(file.name, _count(file), digest_of(file)) for file in facts.rows],
        "compute": compute,
        "fallback_flop": FALLBACK_FLOP,
        "share": share,
        "hours": hours,
    }


def _compute(facts: CardFacts) -> Compute:
    job = facts.run.job
    trains_adapter = facts.is_own and not job.tuning.full
    return compute_of(facts.base, job.method, facts.tokens, trains_adapter=trains_adapter)


def _count(file: RowFile) -> str:
    return f"{sum(1 for _ in rows_of(file)):,}" if file.path else UNKNOWN


@cache
def _environment() -> Environment:
    markdown = environment().overlay(
        loader=PackageLoader("unitune.card", package_path=""),
        autoescape=False,
        keep_trailing_newline=True,
        finalize=_finalized,
    )
    markdown.filters = dict(markdown.filters)  # overlays share them
    markdown.filters["code"] = _code
    return markdown


def _finalized(value: object) -> Markup:
    if value is None or value == "":
        return Markup(UNKNOWN)  # noqa: S704 - our own text
    return value if isinstance(value, Markup) else Markup(escaped(str(value)))  # noqa: S704 - escaped


def _as_it_is(text: str) -> Markup:
    """Return a Hub name or a command of ours unescaped; they contain no Markdown."""
    return Markup(text)  # noqa: S704 - checked by `HUB_NAME`, or ours


def _code(text: str | None) -> Markup:
    """Return a name as code, without links and without bars, which would end a table cell."""
    shown = "".join(mark for mark in text or "" if mark.isprintable() and mark not in "`|")
    return Markup(f"`{shown}`" if shown.strip() else UNKNOWN)  # noqa: S704 - code that cannot end early
