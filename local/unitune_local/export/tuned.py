"""Read a tuned model for exports: its base, its adapter, and both merged."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from unitune.errors import Unsupported
from unitune.models import TunedModel
from unitune_local.data.chat_text import has_template
from unitune_local.inference.chat import merged
from unitune_local.models import store
from unitune_local.models.adapter import AdapterRecord, is_full, read_record, read_shape
from unitune_local.models.model import config_of, load_model, load_tokenizer
from unitune_local.models.model_folder import OTHERS, TOKENIZERS
from unitune_local.models.store import EmbeddedModel
from unitune_local.settings import AdapterShape

# Dtypes of weights that are not rounded in blocks, by GGUF's names
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
COMPLETES = (
    "The model has no chat template: it completes texts, sent to /v1/completions. A program that "
    "writes turns would use a template that the model was not trained with."
)
VARIABLES = (
    "It was trained with chat_template_kwargs {}. The exported chat template sets them, whatever a "
    "request says. Pass them to a program that takes the base's template, such as mlx-lm."
)
# vLLM and transformers need these to load a multimodal model
PROCESSORS = ("preprocessor_config.json", "processor_config.json")


@dataclass(frozen=True)
class Tuned:
    """Files written by a training."""

    model: TunedModel
    adapter: Path

    @cached_property
    def base(self) -> Path:
        """Folder of the base model."""
        return store.resolve(self.model.base)

    @cached_property
    def config(self) -> PreTrainedConfig:
        """Configuration of the base model."""
        return config_of(self.base)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Tokenizer with the training's chat template, which sets the variables of the job."""
        chat = self.record.settings.chat
        tokenizer = cast("Any", load_tokenizer(self.base, chat))
        for name, value in chat.kwargs.items():
            if isinstance(tokenizer.chat_template, str) and name.isidentifier():
                tokenizer.chat_template = (
                    f"{{%- set {name} = {value!r} %}}{tokenizer.chat_template}"
                )
        return tokenizer

    @cached_property
    def shape(self) -> AdapterShape:
        """Shape of the adapter."""
        return read_shape(self.adapter)

    @cached_property
    def record(self) -> AdapterRecord:
        """Record that is stored with the adapter."""
        return read_record(self.adapter)

    @property
    def is_full(self) -> bool:
        """True if every weight was trained instead of an adapter."""
        return is_full(self.adapter)

    @property
    def scale(self) -> float:
        """Scaling factor of the adapter's update."""
        return self.shape.lora_alpha / self.shape.r ** (0.5 if self.shape.use_rslora else 1)

    @property
    def own_type(self) -> str:
        """Type, of 16 or 32 bits, of the base model's stored weights."""
        kept = cast("torch.dtype | None", cast("Any", self.config).dtype)
        return next((name for name, dtype in DTYPES.items() if dtype is kept), "F32")

    @property
    def embedded(self) -> EmbeddedModel | None:
        """GGUF file that the base was made from, if any."""
        came_so = (self.base / store.ORIGIN).exists()
        return store.EMBEDDED.get(self.model.base) if came_so else None

    @property
    def base_address(self) -> str:
        """Address of the base for other programs: its name on the hub, or its folder here."""
        name = self.model.base
        is_here = name in store.EMBEDDED or Path(name).expanduser().is_dir()
        return str(self.base) if is_here else name

    def merged(self) -> PreTrainedModel:
        """Return the base with the adapter's update added, all in float32."""
        if self.is_full:
            return load_model(self.adapter, torch.float32)
        whole = merged(load_model(self.base, torch.float32), self.adapter)
        if cast("Any", self.config).tie_word_embeddings:
            given = cast("Any", whole)
            head = given.get_output_embeddings()
            assert head.weight is given.get_input_embeddings().weight, "they were tied"
        return whole

    def copy_tokenizer(self, folder: Path) -> None:
        """Copy the files of tokenizer, chat template and image processor unchanged."""
        for name in {*TOKENIZERS, *OTHERS, *PROCESSORS} - {"config.json", "generation_config.json"}:
            if (self.base / name).exists():
                shutil.copyfile(self.base / name, folder / name)
        self.write_template(folder)

    def write_template(self, folder: Path) -> None:
        """Write the chat template of the training, if it had one."""
        if has_template(self.tokenizer):
            cast("Any", self.tokenizer).save_chat_templates(folder, {}, None, save_jinja_files=True)

    def format_notes(self) -> tuple[str, ...]:
        """Return what a user must know of the text that the model is given."""
        if not has_template(self.tokenizer):
            return (COMPLETES,)
        kwargs = self.record.settings.chat.kwargs
        return (VARIABLES.format(json.dumps(kwargs)),) if kwargs else ()

    def refuse_dora(self, program: str) -> None:
        """Raise Unsupported for a DoRA adapter, whose magnitudes the program would ignore."""
        if self.shape.use_dora:
            raise Unsupported(
                f"{program} does not read the magnitudes of this DoRA adapter. Export it merged: "
                "--to merged or --to gguf."
            )

    def refuse_experts(self, program: str) -> None:
        """Raise Unsupported for an adapter of experts, or with several ranks."""
        if self.shape.target_parameters or self.shape.rank_pattern or self.shape.alpha_pattern:
            raise Unsupported(
                "the adapter changes experts or has several ranks, which "
                f"{program} does not read. Export it merged: --to merged or --to gguf."
            )

    def refuse_vocabulary_layers(self, why: str) -> None:
        """Raise Unsupported for an adapter of embeddings or output head."""
        if self.is_full:
            return
        changed = {*self.shape.target_names, *(self.shape.modules_to_save or ())}
        if tuned := sorted({"embed_tokens", "lm_head"} & changed):
            raise Unsupported(f"the adapter changes {' and '.join(tuned)}, but {why}.")

    def refuse_unmergeable(self) -> None:
        """Raise Unsupported if a merged model would differ from the trained one."""
        if getattr(self.config, "quantization_config", None) is not None:
            raise Unsupported(
                f"the files of base model {self.model.base!r} are quantised, so a merged model "
                "would be rounded a second time. Export it with --to adapter, or tune the "
                "unquantised base."
            )
        if cast("Any", self.config).tie_word_embeddings:
            why = "the model has one matrix for both, which merging would split. Use --to adapter"
            self.refuse_vocabulary_layers(why)

    def merging_notes(self) -> tuple[str, ...]:
        """Return notes on a merged model's weights."""
        if quantization := self.record.settings.quantization:
            what = f"It was trained with {quantization} weights but merged into finer ones"
            return (f"{what}, so its answers may differ.",)
        return ()
