"""Read, count and write a job's rows once, and check them against a backend's limits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from unitune.backends.formats import wire_lines
from unitune.backends.offer import Limits, Terms
from unitune.cost.billing import Lengths, Workload, measure
from unitune.cost.tokens import TokenCounter, counter_for
from unitune.cost.tokens.counter import ApproximateCounter
from unitune.cost.tokens.images import ImageCounter
from unitune.data.check import JobRows
from unitune.data.dataset import Dataset
from unitune.data.split import Splits
from unitune.findings import Finding, error, note, warning
from unitune.workspace.progress import counted


@dataclass(frozen=True, slots=True)
class WireFile:
    """Hash, size and findings of a file as it would be uploaded."""

    findings: tuple[Finding, ...]  # an error for each row that the format cannot represent
    size: int  # in bytes
    sha256: str


def wire_file(rows: Dataset, format_name: str | None) -> WireFile:
    """Write rows in a wire format (None: canonical JSON Lines) and describe the file."""
    content, size, findings = hashlib.sha256(), 0, list[Finding]()
    for item in counted(wire_lines(rows, format_name), "writing rows", len(rows)):
        if isinstance(item, Finding):
            findings.append(item)
            continue
        line = item.encode()
        content.update(line)
        size += len(line)
    return WireFile(tuple(findings), size, content.hexdigest())


@dataclass
class Rows:
    """Rows of a job, with a cache of their token counts and files."""

    read: JobRows
    # Counters of vendors that counted tokens themselves, by model
    counters: Mapping[str, TokenCounter] = field(default_factory=dict[str, TokenCounter])
    _counted: dict[object, Workload] = field(default_factory=dict[object, Workload])
    _written: dict[str | None, dict[str, WireFile]] = field(
        default_factory=dict[str | None, dict[str, WireFile]]
    )

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Hashes of the training and validation rows."""
        splits = self.read.splits
        return {"train": splits.train.fingerprint, "validation": splits.validation.fingerprint}

    def counted_for(self, model: str, aliases: Iterable[str] = ()) -> Workload:
        """Return the rows with a model's token counts."""
        counter = self.counters.get(model) or counter_for(model, aliases=aliases)
        # The approximate count is the same for every missing tokenizer.
        rule, texts = None, counter
        if isinstance(counter, ImageCounter):
            rule, texts = counter.rule, counter.own
        alike = isinstance(texts, ApproximateCounter)
        key = (counter.basis, rule, () if alike else counter.assumptions)
        if key not in self._counted:
            self._counted[key] = measure(self.read.splits, counter, self.read.dialogue)
        work = self._counted[key]
        return replace(work, assumptions=(*counter.assumptions, *work.turns.assumptions))

    def written_in(self, format_name: str | None) -> dict[str, WireFile]:
        """Return the files as they would be uploaded, by name."""
        if format_name not in self._written:
            splits = self.read.splits
            parts = {"train.jsonl": splits.train, "validation.jsonl": splits.validation}
            self._written[format_name] = {
                name: wire_file(part, format_name) for name, part in parts.items() if len(part)
            }
        return self._written[format_name]


def row_findings(
    vendor: str,
    terms: Terms,
    splits: Splits,
    files: Mapping[str, WireFile],
    lengths: Lengths | None = None,
) -> tuple[Finding, ...]:
    """Return findings about rows that a backend's format or limits do not allow.

    `files` are the same rows as uploaded, by name; `lengths` are None if not counted.
    """
    findings = [finding for file in files.values() for finding in file.findings]
    limits = terms.limits
    findings += _count_findings(vendor, limits, splits)
    size = files["train.jsonl"].size
    if limits.file_bytes is not None and size > limits.file_bytes:
        what = f"the training file has {size:,} bytes; {vendor} accepts {limits.file_bytes:,}."
        fix = "Leave rows out, or choose a backend with a higher limit."
        findings.append(error("file-too-large", what, fix))
    if limits.row_tokens is not None and lengths is not None:
        fate = terms.billing.overlength
        findings += _long_rows(vendor, fate, limits.row_tokens, splits.train, lengths)
    return tuple(findings)


def _count_findings(vendor: str, limits: Limits, splits: Splits) -> Iterator[Finding]:
    least, most = limits.min_rows, limits.max_rows
    count = len(splits.train)
    if least is not None and count < least:
        yield _count(vendor, splits.train, f"at least {least:,}", "Add rows.")
    if most is not None and count > most:
        yield _count(vendor, splits.train, f"at most {most:,}", "Leave rows out.")
    held_out = limits.validation_rows_most
    if held_out == 0 and len(splits.validation):
        yield note(
            "no-validation",
            f"{vendor} does not accept validation rows for this training; they are kept here to "
            "choose prompts.",
        )
    elif held_out is not None and len(splits.validation) > held_out:
        yield _count(vendor, splits.validation, f"at most {held_out:,}", "Hold fewer rows out.")


def _long_rows(
    vendor: str, fate: str | None, most: int, rows: Dataset, lengths: Lengths
) -> Iterator[Finding]:
    if lengths.longest.high <= most:
        return
    for row, count in zip(rows.rows, lengths, strict=True):
        if count.high <= most:
            continue
        kind = error if count.low > most and fate in (None, "refused") else warning
        finding = kind(
            "row-too-long",
            f"the row has about {count.expected:,} tokens; {vendor} accepts "
            f"{most:,}{f', and longer rows are {fate}' if fate else ''}.",
            "Shorten it, split it, or leave it out.",
        )
        yield rows.located(finding, row)


def _count(vendor: str, rows: Dataset, allowed: str, fix: str) -> Finding:
    return error(
        "row-count", f"{rows.name} has {len(rows):,} rows; {vendor} accepts {allowed}.", fix
    )
