"""Write the rows of traces with a job that trains on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from unitune.errors import DataError
from unitune.findings import Finding
from unitune.importers.new_job import Wishes, draft_job
from unitune.importers.traces.calls import read_traces
from unitune.importers.traces.rows import CONVERSATION, TraceRows, rows_of
from unitune.importers.vendor_jobs import moved

FEWEST_ROWS = 10


@dataclass(frozen=True, slots=True)
class ImportedTraces:
    """Files written, their rows, and findings about them."""

    files: tuple[Path, ...]
    rows: TraceRows
    findings: tuple[Finding, ...]


def import_traces(
    files: Sequence[Path], folder: Path, *, feedback: str | None = None, good: str | None = None
) -> ImportedTraces:
    """Write the calls in exports of tracing tools as rows, with a job that trains on them.

    The folder gets ``train.jsonl``, ``test.jsonl`` and ``unitune.yaml``; with feedback also
    ``ratings.jsonl`` and ``pairs.jsonl``.

    Args:
        files: OTLP JSON, Phoenix's spans and annotations, Langfuse's observations and scores, or
            LangSmith's runs and feedback.
        folder: Folder for the files; files there with other content are not overwritten.
        feedback: Name of the scores that rate answers; the only name by default.
        good: Lowest good score or the good label.

    Raises:
        DataError: A file cannot be read, or too few calls can be used.
        UserError: The feedback is not clear, or another file is in the way.
    """
    rows = rows_of(read_traces(files), feedback, good)
    if len(rows.train) + len(rows.test) < FEWEST_ROWS:
        counts = ", ".join(f"{count:,} {what}" for what, count in rows.counts.items())
        raise DataError(
            f"{', '.join(map(str, files))}: {len(rows.train) + len(rows.test)} conversations are "
            f"left to train on, but at least {FEWEST_ROWS} are needed ({counts}). Nothing was "
            "written. Export a longer period."
        )
    with TemporaryDirectory() as temporary:
        folder_of_drafts = Path(temporary)
        parts = {"train": rows.train, "test": rows.test}
        parts |= {"ratings": rows.ratings, "pairs": rows.pairs}
        for name, examples in parts.items():
            if examples:
                lines = "".join(f"{example.line}\n" for example in examples)
                (folder_of_drafts / f"{name}.jsonl").write_text(lines, encoding="utf-8")
        target = folder_of_drafts / "unitune.yaml"
        wishes = Wishes(test="test.jsonl", clusters=CONVERSATION, drop=True, name=files[0].stem)
        draft = draft_job(folder_of_drafts / "train.jsonl", target, wishes)
        target.write_text(draft.text, encoding="utf-8")
        findings = tuple(
            each.model_copy(update={"file": each.file and Path(each.file).name})
            for each in draft.findings
        )
        return ImportedTraces(moved(folder_of_drafts, folder), rows, findings)
