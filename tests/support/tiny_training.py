"""Trainings of the tiny model in this process, what they note, and the adapters that they save."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from pydantic import JsonValue

from support.tiny_model import SETTINGS
from unitune_local.data.batches import TrainingRow
from unitune_local.data.chat_text import template_fingerprint
from unitune_local.data.rows import read_rows, render_rows
from unitune_local.job_folder import Kind
from unitune_local.models import store
from unitune_local.models.adapter import save_adapter, trained_model
from unitune_local.models.model import load_model, load_tokenizer, use_attention
from unitune_local.models.start import load_start
from unitune_local.options import ChatFormat
from unitune_local.settings import Settings
from unitune_local.spec import DataFile, Spec
from unitune_local.training.loop import TrainingContext, train

NOT_REPEATED = {"tokens_per_second", "seconds_left"}


@dataclass
class Trained:
    """One call of `train` with what it noted."""

    model: PeftModel
    events: list[tuple[Kind, dict[str, JsonValue]]] = field(default_factory=list)
    finished: bool = False

    def note(self, kind: Kind, data: dict[str, JsonValue]) -> None:
        self.events.append((kind, data))

    def noted(self, kind: Kind) -> list[dict[str, Any]]:
        """Return the events of a kind, without the figures that differ each time."""
        return [
            {name: value for name, value in data.items() if name not in NOT_REPEATED}
            for each, data in self.events
            if each == kind
        ]

    def figures(self, kind: Kind, name: str = "loss") -> dict[int, Any]:
        return {data["step"]: data[name] for data in self.noted(kind)}

    @property
    def steps(self) -> dict[int, dict[str, Any]]:
        return {data["step"]: data for data in self.noted("step")}

    @property
    def validations(self) -> list[dict[str, Any]]:
        return self.noted("validation")

    @property
    def losses(self) -> dict[int, Any]:
        return self.figures("step")


def fresh(base: Path, settings: Settings = SETTINGS) -> PeftModel:
    """Return a model that is ready to be trained, the same each time."""
    torch.manual_seed(settings.seed)
    return trained_model(load_model(base, settings.torch_dtype), settings)


def tuned(base: Path, settings: Settings = SETTINGS, spread: float = 0.1) -> PeftModel:
    """Return a model whose adapters change what it computes, the same each time."""
    model = fresh(base, settings)
    _spread(model, spread)
    return model.eval()


def _spread(model: PeftModel, spread: float) -> None:
    """Change the matrices B of adapters, which are zero at first."""
    for name, weights in model.named_parameters():
        if "lora_B" in name or "lora_embedding_B" in name:
            torch.nn.init.normal_(weights, std=spread)


def run(
    base: Path,
    rows: Sequence[TrainingRow],
    validation: Sequence[TrainingRow],
    folder: Path,
    settings: Settings = SETTINGS,
    *,
    start: Path | None = None,
    stop_after: int | None = None,
    **context: Any,
) -> Trained:
    """Train from the newest checkpoint in a folder, and stop after so many steps."""
    done = Trained(fresh(base, settings))
    if start is not None:
        load_start(done.model, start)
    given = TrainingContext(folder, done.note, lambda: len(done.steps) == stop_after, **context)
    done.finished = train(done.model, rows, validation, settings, given)
    return done


def rows_in(file: Path, base: Path) -> tuple[TrainingRow, ...]:
    return render_rows(load_tokenizer(base), read_rows(file), 512).rows


def spec_for(base: Path, settings: Settings = SETTINGS) -> Spec:
    return Spec(
        base="tiny",
        base_path=base,
        base_fingerprint=store.fingerprint(base),
        training=DataFile(path=base, sha256=""),
        validation=None,
        data_fingerprint="1" * 64,
        settings=settings,
    )


def save(model: PeftModel, base: Path, folder: Path, settings: Settings = SETTINGS) -> Spec:
    """Save the adapter of a training into a folder, and return its specification."""
    spec = spec_for(base, settings)
    save_adapter(model, load_tokenizer(base), spec, folder)
    return spec


def logits(model: Any, row: TrainingRow) -> torch.Tensor:
    use_attention(model, None)
    with torch.no_grad():
        return model.eval()(input_ids=torch.tensor([row.ids])).logits


def peft_adapter(base: Path, folder: Path, *, spread: float = 0.2, **config: Any) -> Path:
    """Write an adapter that changes answers, as peft makes it by itself."""
    torch.manual_seed(1)
    chosen = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    with warnings.catch_warnings():  # of an attribute that is read, and of layers that are tied
        warnings.simplefilter("ignore")
        model = get_peft_model(load_model(base, torch.float32), LoraConfig(**{**chosen, **config}))
    _spread(model, spread)
    model.save_pretrained(folder, save_embedding_layers=False)
    return folder


def write_record(folder: Path, base: Path, chat: ChatFormat | None = None) -> None:
    """Write the record that a training stores with its adapter."""
    form = chat or ChatFormat()
    record = {
        "base_fingerprint": store.fingerprint(base),
        "template_fingerprint": template_fingerprint(load_tokenizer(base, form)),
        "settings": {"chat": form.model_dump(mode="json")},
        "more": "is allowed",
    }
    (folder / "unitune.json").write_text(json.dumps(record), encoding="utf-8")
