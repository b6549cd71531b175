"""Export a run's model in a form of another program, and verify it with that program."""

from __future__ import annotations

import json
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias, cast

from safetensors import torch as safetensors
from torch import Tensor

from unitune.backends.local_capabilities import Exported, ExportForm, ExportSpec, describe_export
from unitune.errors import Mismatch, Unsupported, UserError
from unitune.files.filesystem import whole_folder
from unitune.models import TunedModel
from unitune.workspace.install import install_command
from unitune.workspace.progress import report
from unitune_local.data.chat_text import THOUGHT, has_template
from unitune_local.export import gguf_file, verify
from unitune_local.export.gguf_file import QUANTIZATIONS, Adapter, ModelTensors
from unitune_local.export.ollama import modelfile
from unitune_local.export.tuned import DTYPES, Tuned
from unitune_local.export.verify import ALIKE_CHARACTERS, LEAST_ALIKE, Answered, own_answers
from unitune_local.inference.chat import LocalChatModel
from unitune_local.models import store
from unitune_local.models.adapter import CONFIG, read_weights
from unitune_local.models.model import load_model, round_weights

# Values of vLLM's --max-lora-rank. Source: vllm/config/lora.py at 01230b4.
VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
Answer: TypeAlias = Callable[[Sequence[Answered]], list[str]]


@dataclass(frozen=True, slots=True)
class Written:
    """A written export."""

    program: str  # program that it was made for, or that reads it here, with its version
    # Answers with the program; None: it is not installed, as `notes` state
    answer: Answer | None
    use: str  # command that uses it, with ``{folder}`` for the folder
    notes: tuple[str, ...] = ()


def write_adapter(tuned: Tuned, folder: Path, spec: ExportSpec) -> Written:
    """Copy the adapter in peft's format."""
    del spec
    shutil.copytree(tuned.adapter, folder, dirs_exist_ok=True)
    tuned.write_template(folder)
    return Written(
        program=f"peft {version('peft')}",
        answer=lambda answered: verify.in_peft(
            tuned.base, folder, tuned.record.settings.quantization, answered
        ),
        use='python -c "from peft import AutoPeftModelForCausalLM as Model; '
        "Model.from_pretrained('{folder}')\"",
    )


def write_merged(tuned: Tuned, folder: Path, spec: ExportSpec) -> Written:
    """Write base and adapter as one model: added in float32, rounded once, embeddings tied."""
    tuned.refuse_unmergeable()
    model = tuned.merged()
    round_weights(model, DTYPES[spec.quantization or tuned.own_type])
    cast("Any", model).save_pretrained(folder)
    tuned.copy_tokenizer(folder)
    return Written(
        program=f"transformers {version('transformers')}",
        answer=lambda answered: verify.in_transformers(folder, answered),
        use="transformers serve --force-model {folder}",
        notes=tuned.merging_notes(),
    )


def write_gguf(tuned: Tuned, folder: Path, spec: ExportSpec) -> Written:
    """Write base and adapter as one GGUF file."""
    tuned.refuse_unmergeable()
    quantization = spec.quantization or _sixteen_bits(tuned)
    file = folder / f"{spec.name}.{quantization}.gguf"
    tensors = ModelTensors(tuned.config, tuned.merged().state_dict())
    gguf_file.write_model(file, tensors, tuned.tokenizer, tuned.base, quantization)
    again = ()
    if tuned.embedded and quantization not in DTYPES:
        what = f"The base was already rounded ({tuned.embedded.quantisation}), and {quantization}"
        again = (f"{what} rounds it again. --to gguf-lora keeps the base's own file.",)
    notes = (*tuned.merging_notes(), *gguf_file.differences(tuned.config), *again)
    return _for_llama_cpp(file, tensors, "llama-server -m {folder}/" + file.name, notes)


def write_gguf_lora(tuned: Tuned, folder: Path, spec: ExportSpec) -> Written:
    """Write the adapter as GGUF, and the base next to it."""
    tuned.refuse_dora("llama.cpp")
    tuned.refuse_vocabulary_layers("llama.cpp does not adapt embeddings. Use --to gguf")
    tuned.refuse_experts("llama.cpp")
    base = _base_file(tuned, folder, spec.quantization)
    file = folder / f"{spec.name}.lora.gguf"
    adapter = Adapter(tuned.config, read_weights(tuned.adapter), tuned.scale * tuned.shape.r)
    gguf_file.write_adapter(file, adapter)
    use = f"llama-server -m {{folder}}/{base.name} --lora {{folder}}/{file.name}"
    return _for_llama_cpp(base, adapter, use, lora=file)


def _base_file(tuned: Tuned, folder: Path, quantization: str | None) -> Path:
    embedded = tuned.embedded
    if embedded is None:
        chosen = quantization or _sixteen_bits(tuned)
        file = folder / f"base.{chosen}.gguf"
        tensors = ModelTensors(tuned.config, load_model(tuned.base, DTYPES["F32"]).state_dict())
        gguf_file.write_model(file, tensors, tuned.tokenizer, tuned.base, chosen)
        return file
    if quantization is not None:
        raise Unsupported(
            f"base model {embedded.name!r} came as a GGUF file, which is kept unchanged. Leave out "
            "--quantization, or use --to gguf."
        )
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        fetched = store.fetch(embedded, Path(scratch))
        return fetched.rename(folder / fetched.name)


def write_ollama(tuned: Tuned, folder: Path, spec: ExportSpec) -> Written:
    """Write a GGUF file, and a Modelfile with the settings of the evaluation."""
    text = modelfile(f"{spec.name}.{spec.quantization or _sixteen_bits(tuned)}.gguf", tuned, spec)
    written = write_gguf(tuned, folder, spec)
    (folder / "Modelfile").write_text(text, encoding="utf-8")
    use = f"ollama create {shlex.quote(spec.name)} -f {{folder}}/Modelfile"
    note = "Ollama itself was not run; llama.cpp answered from the file."
    return replace(written, use=use, notes=(*written.notes, note))


def write_mlx(tuned: Tuned, folder: Path, spec: ExportSpec) -> Written:
    """Write the adapter in mlx-lm's form."""
    del spec
    tuned.refuse_dora("this form for mlx-lm")
    tuned.refuse_vocabulary_layers("mlx-lm only adapts layers. Use --to merged")
    tuned.refuse_experts("this form for mlx-lm")
    weights: dict[str, Tensor] = {}
    for name, values in read_weights(tuned.adapter).items():
        module, _, part = name.removeprefix("base_model.model.").rpartition(".lora_")
        weights[f"{module}.lora_{part[0].lower()}"] = values.float().t().contiguous()
    modules = {name.rpartition(".lora_")[0].split(".", 3)[3] for name in weights}
    lora = {"rank": tuned.shape.r, "scale": tuned.scale, "dropout": 0.0, "keys": sorted(modules)}
    config = {"fine_tune_type": "lora", "num_layers": -1, "lora_parameters": lora}
    cast("Any", safetensors).save_file(weights, folder / "adapters.safetensors")
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    here = find_spec("mlx_lm") is not None
    return Written(
        program=f"mlx-lm {version('mlx-lm')}" if here else "mlx-lm",
        answer=(lambda answered: verify.in_mlx(tuned.base, folder, answered)) if here else None,
        use=f"mlx_lm.server --model {shlex.quote(tuned.base_address)} --adapter-path {{folder}}",
        notes=() if here else (_not_installed("mlx-lm", "mlx"),),
    )


def write_vllm(tuned: Tuned, folder: Path, spec: ExportSpec) -> Written:
    """Write the adapter, and a script that starts vLLM with it."""
    tuned.refuse_dora("vLLM")
    tuned.refuse_vocabulary_layers("vLLM does not adapt embeddings. Use --to merged")
    largest = tuned.shape.largest_rank
    rank = next((rank for rank in VLLM_RANKS if rank >= largest), None)
    if rank is None:
        raise Unsupported(f"vLLM supports ranks up to {VLLM_RANKS[-1]}, not {largest}.")
    adapter = folder / "adapter"
    written = write_adapter(tuned, adapter, spec)
    template = ' \\\n  --chat-template "$here/adapter/chat_template.jinja"'
    template = template if has_template(tuned.tokenizer) else ""
    base, name = shlex.quote(tuned.base_address), shlex.quote(spec.name)
    script = folder / "start.sh"
    text = VLLM_SCRIPT.format(base=base, rank=rank, name=name, template=template)
    script.write_text(text, encoding="utf-8")
    script.chmod(0o755)
    note = "vLLM itself was not run; peft answered with the adapter that vLLM will load."
    return replace(written, use="{folder}/start.sh", notes=(note,))


VLLM_SCRIPT = """\
#!/usr/bin/env bash
# Serves base and adapter at http://127.0.0.1:8000/v1. BASE names another copy of the same base;
# arguments are passed to vLLM. Evaluations use temperature 0; vLLM's default is the base's.
set -euo pipefail
here="$(cd "$(dirname "${{BASH_SOURCE[0]}}")" && pwd)"
name={name}
base={base}
exec vllm serve "${{BASE:-$base}}" --host 127.0.0.1 \\
  --enable-lora --max-lora-rank {rank} --lora-modules "$name=$here/adapter"{template} "$@"
"""


@dataclass(frozen=True, slots=True)
class Form:
    """One form of an export."""

    write: Callable[[Tuned, Path, ExportSpec], Written]  # writes it into an empty folder
    quantizations: tuple[str, ...] = ()  # allowed roundings of its weights
    is_whole: bool = False  # it has all weights, instead of an adapter


FORMS: Mapping[ExportForm, Form] = {
    "adapter": Form(write_adapter),
    "merged": Form(write_merged, tuple(DTYPES), is_whole=True),
    "gguf": Form(write_gguf, QUANTIZATIONS, is_whole=True),
    "gguf-lora": Form(write_gguf_lora, QUANTIZATIONS),
    "ollama": Form(write_ollama, QUANTIZATIONS, is_whole=True),
    "mlx": Form(write_mlx),
    "vllm": Form(write_vllm),
}


def _for_llama_cpp(
    file: Path,
    tensors: ModelTensors | Adapter,
    use: str,
    notes: tuple[str, ...] = (),
    lora: Path | None = None,
) -> Written:
    """Return a GGUF export; without llama.cpp, its stored weights are compared."""
    if find_spec("xllamacpp") is not None:
        program = f"llama.cpp (xllamacpp {version('xllamacpp')})"
        return Written(
            program, lambda answered: verify.in_llama_cpp(file, lora, answered), use, notes
        )
    difference = gguf_file.rounding(lora or file, tensors)
    stored = f"The stored weights differ from the trained ones by {difference:.2%} (RMS)."
    return Written("llama.cpp", None, use, (*notes, _not_installed("xllamacpp", "export"), stored))


def _not_installed(package: str, extra: str) -> str:
    return f"{package} is not installed, so it was not verified: {install_command('local', extra)}."


def _sixteen_bits(tuned: Tuned) -> str:
    """Return the 16-bit type that loses least of the base's weights."""
    return "BF16" if tuned.own_type == "BF16" else "F16"


def export(model: TunedModel, adapter: Path, spec: ExportSpec) -> Exported:
    """Write a tuned model in another program's form, and compare its answers with the run's.

    Raises:
        UserError: The form does not support the quantisation.
        Unsupported: The model cannot be written in this form.
        Mismatch: Base or template differ from the training's, or the answers differ.
    """
    form, begun = FORMS[spec.form], time.monotonic()
    if spec.quantization is not None and spec.quantization not in form.quantizations:
        allowed = ", ".join(form.quantizations) or "no quantization"
        raise UserError(
            f"--quantization is {spec.quantization}, but --to {spec.form} takes {allowed}."
        )
    tuned = Tuned(model, adapter)
    if tuned.is_full and not form.is_whole:
        raise Unsupported(
            f"every weight of this model was trained, but --to {spec.form} writes an adapter. Use "
            f"--to {', '.join(name for name, each in FORMS.items() if each.is_whole)}."
        )
    own = LocalChatModel(model.base, adapter)
    with whole_folder(spec.folder) as folder:
        written = form.write(tuned, folder, spec)
        seconds = time.monotonic() - begun
        compared = _compare(written, own, spec)
        describe_export(folder, model, spec.form, spec.quantization)
    files = {
        str(file.relative_to(spec.folder)): file.stat().st_size
        for file in sorted(spec.folder.rglob("*"))
        if file.is_file()
    }
    return Exported(
        form=spec.form,
        folder=spec.folder,
        files=files,
        seconds=seconds,
        program=written.program,
        rows=len(compared),
        equal=sum(compared),
        use=written.use.replace("{folder}", str(spec.folder)),
        notes=(*written.notes, *tuned.format_notes()),
    )


def _compare(written: Written, own: LocalChatModel, spec: ExportSpec) -> list[bool]:
    if written.answer is None or not spec.requests:
        return []
    report("answering with the run's own model")
    answered = own_answers(own, spec.requests)
    report(f"answering in {written.program}")
    texts = written.answer(answered)
    pairs = [(_whole(each.text), _whole(text)) for each, text in zip(answered, texts, strict=True)]
    alike = [a[:ALIKE_CHARACTERS] == b[:ALIKE_CHARACTERS] for a, b in pairs]
    if sum(alike) < LEAST_ALIKE * len(pairs):
        own_text, other = next(
            pair for pair, is_alike in zip(pairs, alike, strict=True) if not is_alike
        )
        raise Mismatch(
            f"{written.program} answers {len(pairs) - sum(alike)} of {len(pairs)} rows differently "
            f"from the run, such as {other[:60]!r} instead of {own_text[:60]!r}. The export was "
            "discarded. Use a finer --quantization, or --to merged."
        )
    return [a == b for a, b in pairs]


def _whole(text: str) -> str:
    """Return a text without reasoning, outer blanks and partial characters."""
    answer = text.rpartition(THOUGHT)[2]
    return answer.replace("\N{REPLACEMENT CHARACTER}", "").strip()
