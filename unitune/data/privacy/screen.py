"""Screen a job's rows for secrets and personal data as they are read.

Findings name the kind and the place, never the value.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from pydantic import JsonValue

from unitune.data.dataset import Row
from unitune.data.privacy import personal
from unitune.data.privacy.redaction import Redaction, masked, replacements
from unitune.data.privacy.secrets import find_secrets, strings
from unitune.findings import Finding, error, note, warning
from unitune.job.job import Data
from unitune.text import clip
from unitune.workspace.install import install_command

if TYPE_CHECKING:
    from unitune.data.load import Files

_REVOKE = "Remove it and revoke it, because it was in a file"
_REDACT = "Set `data.personal_data` to `redact` (replace it in a copy) or `allow` (ignore it)."
_Texts: TypeAlias = list[tuple[str, str]]


class Screen:
    """Screen for the rows of a job, which may continue an earlier redaction."""

    def __init__(self, data: Data | None = None, redaction: Redaction | None = None) -> None:
        self._data = data or Data()
        self.redaction = redaction
        """Map of replacements in all files; None if nothing is redacted."""
        if self._data.personal_data == "redact" and redaction is None:
            self.redaction = Redaction(region=self._data.phone_region)

    def rows(self, items: Iterable[Row | Finding], files: Files) -> Iterator[Row | Finding]:
        """Yield a file's rows and findings, with findings about each row."""
        undecided = redacted = 0
        before = Counter(self.redaction.replaced) if self.redaction else Counter[str]()
        for item in items:
            if isinstance(item, Finding):
                yield item
                continue
            texts = list(_texts(item.example.content))
            for finding in (*self._secrets(texts), *self._personal_data(texts)):
                yield files.placed(finding.at(line=item.line))
            row = item
            if not personal.finds_phones():
                undecided += any(personal.may_hold_phones(text) for _, text in texts)
            elif self.redaction:
                example = self.redaction.redact_row(item.example)
                row = item if example is item.example else replace(item, example=example)
                redacted += row is not item
            yield row
        findings = [*self._without_phones(undecided)]
        if self.redaction and redacted:
            replaced = replacements(self.redaction.replaced - before)
            what = f"personal data in {redacted:,} rows was replaced: {replaced}."
            fix = "Training and evaluation use the redacted copy. The file is unchanged."
            findings.append(note("redacted", what, fix))
        yield from map(files.placed, findings)

    def _secrets(self, texts: _Texts) -> Iterator[Finding]:
        if self._data.secrets == "allow":
            return
        severity, fix = warning, f"{_REVOKE}."
        if self._data.secrets == "refuse":
            severity, fix = error, f"{_REVOKE}. If it is not a secret, set `data.secrets: warn`."
        seen = set[str]()
        for place, text in texts:
            for secret in find_secrets(text):
                if secret.rule not in seen:
                    seen.add(secret.rule)
                    begins = f", beginning with {secret.prefix!r}" if secret.prefix else ""
                    what = f"{secret.rule} ({secret.end - secret.start} characters{begins})"
                    message = f"{place!r} appears to hold a secret: {what}."
                    yield severity("secret", message, fix)

    def _personal_data(self, texts: _Texts) -> Iterator[Finding]:
        if self._data.personal_data not in ("warn", "refuse"):
            return
        severity = error if self._data.personal_data == "refuse" else warning
        seen = set[str]()
        for place, text in texts:
            for datum in personal.find_personal_data(text, self._data.phone_region):
                if datum.kind not in seen:
                    seen.add(datum.kind)
                    name = personal.NAMES[datum.kind]
                    message = f"{place!r} holds personal data: {name}."
                    yield severity("personal-data", message, _REDACT)

    def _without_phones(self, rows: int) -> Iterator[Finding]:
        policy = self._data.personal_data
        if policy == "allow" or personal.finds_phones():
            return
        what = f"phone numbers were not searched, but {rows:,} rows have digits that may be some."
        fix = f"Install with: {install_command('privacy')}"
        if policy != "warn":
            what = f"`data.personal_data: {policy}` needs phonenumbers to find phone numbers."
            yield error("missing-extra", what, fix)
        elif rows:
            yield note("missing-extra", what, fix)


def _texts(content: dict[str, JsonValue]) -> Iterator[tuple[str, str]]:
    """Yield the texts of a row with their place, such as ``messages[1] (assistant)``."""
    for key, value in content.items():
        name = clip(masked(key))[1:-1]
        yield name, key
        if not isinstance(value, list):
            yield from ((name, text) for text in strings(value))
            continue
        for at, each in enumerate(value):
            role = each.get("role") if isinstance(each, dict) else None
            place = f"{name}[{at}] ({role})" if role else f"{name}[{at}]"
            yield from ((place, text) for text in strings(each))
