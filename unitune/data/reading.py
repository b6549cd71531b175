"""Record how a file was read (format, shapes and keys) for the line in `unitune check`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from unitune.data.example import Example
from unitune.data.mapping import Mapping
from unitune.data.privacy.redaction import masked
from unitune.data.records import Record
from unitune.data.rows import is_mapped
from unitune.data.shapes import Shape, shape_of

MOST_KEYS = 20  # keys kept and listed, because a file may have any number


@dataclass(slots=True)
class Reading:
    """Form of a file, as far as it has been read."""

    mapping: Mapping | None = None
    shape: Shape | None = None
    _formats: Counter[str] = field(default_factory=Counter[str])
    _shapes: Counter[str] = field(default_factory=Counter[str])
    _keys: dict[str, dict[str, None]] = field(default_factory=dict[str, dict[str, None]])
    _own: dict[str, None] = field(default_factory=dict[str, None])

    def add(self, record: Record, example: Example) -> None:
        """Add a row that was read."""
        shape = self.shape or shape_of(record.value)
        mapped = self.mapping is not None and is_mapped(record, self.mapping)
        label = "rows mapped by the job" if mapped or shape is None else shape.label
        self._formats[record.file_format] += 1
        self._shapes[label] += 1
        own = (example.model_extra or {}).keys()
        beside = {*own, "id"}
        if len(self._own) < MOST_KEYS:
            self._own |= dict.fromkeys(own)
        if len(keys := self._keys.setdefault(label, {})) < MOST_KEYS:
            keys |= dict.fromkeys(key for key in record.value if key not in beside)

    def __str__(self) -> str:
        """Return one line for people."""
        shapes = (
            f"{label} from {', '.join(map(masked, self._keys[label]))}"
            for label, _ in self._shapes.most_common()
        )
        own = f"; metadata {', '.join(map(masked, self._own))}" if self._own else ""
        return f"{' and '.join(self._formats)}: {' and '.join(shapes)}{own}" if self._shapes else ""
