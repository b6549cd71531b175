"""Export a run's model in the form of another program, and verify it."""

from __future__ import annotations

import time
from pathlib import Path

from unitune.backends.exports import Exported, ExportSpec, describe_export
from unitune.errors import Mismatch, Unsupported, UserError
from unitune.files.filesystem import whole_folder
from unitune.models import TunedModel
from unitune.workspace.progress import report
from unitune_local.data.chat_text import THOUGHT
from unitune_local.export.forms import FORMS, Written
from unitune_local.export.tuned import Tuned
from unitune_local.export.verify import ALIKE_CHARACTERS, LEAST_ALIKE, own_answers
from unitune_local.inference.chat import LocalChatModel


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
