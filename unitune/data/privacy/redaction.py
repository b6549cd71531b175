"""Personal data replaced by placeholders, and put back: `Redaction`, the map between the two.

`jane@firma.de` becomes ``<EMAIL_1>`` wherever it stands, spelled alike, so that rows that are about
one person still are, and what a model answers can be given its data again. The map holds what the
copy must not, so it is written for the user alone, and never uploaded.

Putting back is exact: what looks like a placeholder before is given one of its own.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from unitune.data.example import Example
from unitune.data.privacy import personal
from unitune.data.privacy.personal import Datum
from unitune.data.privacy.texts import changed
from unitune.errors import DataError, MissingExtra
from unitune.workspace.filesystem import content_of, replacing
from unitune.workspace.install import install_command

_PLACEHOLDER = re.compile(rf"<({'|'.join(personal.NAMES)})_[0-9]+>")


class Redaction(BaseModel):
    """Which placeholder stands for what.

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
    """Country whose phone numbers are known without +."""
    values: dict[str, str] = {}
    """What each placeholder stands for."""
    _placeholders: dict[str, str] = PrivateAttr(default_factory=dict[str, str])
    _counts: Counter[str] = PrivateAttr(default_factory=Counter[str])
    _replaced: Counter[str] = PrivateAttr(default_factory=Counter[str])

    def model_post_init(self, _: object) -> None:
        """Turn the map round, too."""
        self._placeholders = {value: name for name, value in self.values.items()}
        self._counts = Counter(name[1:].rpartition("_")[0] for name in self.values)

    @property
    def replaced(self) -> Counter[str]:
        """How often something was replaced, by its kind."""
        return self._replaced

    def redact(self, text: str) -> str:
        """Return a text with placeholders for the personal data in it, and count them.

        Raises:
            MissingExtra: `phonenumbers` is not installed, and phone numbers would stay.
        """
        self._count(new := self._redacted(text))
        return new

    def _redacted(self, text: str) -> str:
        if not personal.finds_phones():
            raise MissingExtra(
                "nothing was redacted: phone numbers cannot be known without phonenumbers. Install "
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
        """Return a text with the personal data; a placeholder that is not known stays."""
        return _PLACEHOLDER.sub(lambda match: self.values.get(match[0], match[0]), text)

    def redact_row(self, row: Example) -> Example:
        """Return a row with placeholders in all of its texts, tools and custom keys too."""
        new = _changed(row, self._redacted)
        if new is not row:
            self._count(new.line)
        return new

    def _count(self, text: str) -> None:
        self._replaced.update(each[1] for each in _PLACEHOLDER.finditer(text))

    def restore_row(self, row: Example) -> Example:
        """Return a row with the personal data in all of its texts."""
        return _changed(row, self.restore)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a map.

        Raises:
            DataError: The file cannot be read, or is none.
        """
        try:
            return cls.model_validate_json(content_of(Path(path)))
        except OSError as failure:
            raise DataError(
                f"{path}: the map cannot be read: {failure.strerror or failure}. Name the file "
                "that was written with the redacted rows."
            ) from failure
        except ValidationError as failure:
            raise DataError(
                f"{path} is no map of a redaction. Name the file that was written with the "
                "redacted rows, such as redaction.json in the folder of a run."
            ) from failure

    @property
    def text(self) -> str:
        """The map as it stands in a file."""
        return json.dumps(self.model_dump(), ensure_ascii=False, indent=1) + "\n"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the map, for the user alone (mode 600)."""
        with replacing(Path(path)) as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(self.text)


def replacements(replaced: Counter[str]) -> str:
    """Return what was replaced in words: ``an e-mail address 7 times, a phone number once``."""
    return ", ".join(
        f"{personal.NAMES[kind]} {f'{count:,} times' if count > 1 else 'once'}"
        for kind, count in replaced.items()
    )


def _changed(row: Example, change: Callable[[str], str]) -> Example:
    content = row.content
    new = changed(content, change)
    return row if new == content else Example.model_validate(new)
