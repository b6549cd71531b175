"""Mask texts, and replace personal data by placeholders that can be put back.

Text that already looks like a placeholder gets its own placeholder, so restoring is exact.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from unitune.data.example import Example
from unitune.data.privacy import personal
from unitune.data.privacy.personal import Datum, find_personal_data
from unitune.data.privacy.secrets import changed, find_secrets
from unitune.errors import DataError, MissingExtra
from unitune.files.filesystem import content_of, replacing
from unitune.workspace.install import install_command

_PLACEHOLDER = re.compile(rf"<({'|'.join(personal.NAMES)})_[0-9]+>")


class Redaction(BaseModel):
    """Map of placeholders to personal data.

    Examples:
        >>> redaction = Redaction()
        >>> redaction.redact("Write to jane@firma.de, not to joe@firma.de.")
        'Write to <EMAIL_1>, not to <EMAIL_2>.'
        >>> redaction.restore("<EMAIL_2> has the parcel.")
        'joe@firma.de has the parcel.'
    """

    model_config = ConfigDict(extra="forbid")
    schema_version: Literal[1] = 1
    region: str = Field(default="US", pattern="^[A-Z]{2}$")
    """Country whose phone numbers need no +."""
    values: dict[str, str] = {}
    """Value of each placeholder."""
    _placeholders: dict[str, str] = PrivateAttr(default_factory=dict[str, str])
    _counts: Counter[str] = PrivateAttr(default_factory=Counter[str])
    _replaced: Counter[str] = PrivateAttr(default_factory=Counter[str])

    def model_post_init(self, _: object) -> None:
        """Build the inverse map."""
        self._placeholders = {value: name for name, value in self.values.items()}
        self._counts = Counter(name[1:].rpartition("_")[0] for name in self.values)

    @property
    def replaced(self) -> Counter[str]:
        """Number of replacements by kind."""
        return self._replaced

    def redact(self, text: str) -> str:
        """Return a text with placeholders for its personal data, and count them.

        Raises:
            MissingExtra: `phonenumbers` is not installed, so phone numbers would remain.
        """
        self._count(new := self._redacted(text))
        return new

    def _redacted(self, text: str) -> str:
        if not personal.finds_phones():
            raise MissingExtra(
                "nothing was redacted: finding phone numbers needs phonenumbers. Install "
                f"with: {install_command('privacy')}"
            )
        known = (Datum(each[1], *each.span()) for each in _PLACEHOLDER.finditer(text))
        pieces, at = list[str](), 0
        for kind, start, end in personal.find_personal_data(text, self.region, known):
            value = text[start:end]
            if value not in self._placeholders:
                self._counts[kind] += 1
                self._placeholders[value] = f"<{kind}_{self._counts[kind]}>"
                self.values[self._placeholders[value]] = value
            pieces += text[at:start], self._placeholders[value]
            at = end
        return "".join((*pieces, text[at:]))

    def restore(self, text: str) -> str:
        """Return a text with its personal data; unknown placeholders stay."""
        return _PLACEHOLDER.sub(lambda match: self.values.get(match[0], match[0]), text)

    def redact_row(self, row: Example) -> Example:
        """Return a row with placeholders in all texts, tools and custom keys."""
        new = _changed(row, self._redacted)
        if new is not row:
            self._count(new.line)
        return new

    def _count(self, text: str) -> None:
        self._replaced.update(each[1] for each in _PLACEHOLDER.finditer(text))

    def restore_row(self, row: Example) -> Example:
        """Return a row with the personal data in all texts."""
        return _changed(row, self.restore)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a map.

        Raises:
            DataError: The file cannot be read or is not a map.
        """
        try:
            return cls.model_validate_json(content_of(Path(path)))
        except OSError as failure:
            raise DataError(
                f"{path}: the map cannot be read: {failure.strerror or failure}. Use the file "
                "that was written with the redacted rows."
            ) from failure
        except ValidationError as failure:
            raise DataError(
                f"{path} is not a redaction map. Use the file that was written with the redacted "
                "rows, such as redaction.json in the folder of a run."
            ) from failure

    @property
    def text(self) -> str:
        """The map as JSON, as written to a file."""
        return json.dumps(self.model_dump(), ensure_ascii=False, indent=1) + "\n"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the map, readable by the user only (mode 600)."""
        with replacing(Path(path), private=True) as file:
            file.write(self.text)


def replacements(replaced: Counter[str]) -> str:
    """Return the replacements in words: ``an e-mail address 7 times, a phone number once``."""
    return ", ".join(
        f"{personal.NAMES[kind]} {f'{count:,} times' if count > 1 else 'once'}"
        for kind, count in replaced.items()
    )


def _changed(row: Example, change: Callable[[str], str]) -> Example:
    content = row.content
    new = changed(content, change)
    return row if new == content else Example.model_validate(new)


@lru_cache(maxsize=1024)
def masked(text: str) -> str:
    """Return a text with secrets and personal data replaced by the names of rules and kinds.

    Examples:
        >>> masked("keys: 'jane@firma.de', 'label'")
        "keys: '[EMAIL]', 'label'"
    """
    text = without_secrets(text)
    for datum in reversed(find_personal_data(text)):
        text = f"{text[: datum.start]}[{datum.kind}]{text[datum.end :]}"
    return text


def without_secrets(text: str) -> str:
    """Return a text with secrets replaced by the names of their rules."""
    for secret in reversed(find_secrets(text)):
        text = f"{text[: secret.start]}[{secret.rule}]{text[secret.end :]}"
    return text
