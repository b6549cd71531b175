"""A job's rows as a plan looks at them: read once, whatever is asked of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from unitune.cost.tokens import TokenCounter, counter_for
from unitune.cost.tokens.by_characters import CharacterCounter
from unitune.cost.workload import Workload, measure
from unitune.data.split import Splits
from unitune.planning.feasibility import Rendered, rendered


@dataclass(slots=True)
class Rows:
    """A job's rows, read once, written once in each format, and counted once by each tokenizer.

    Args:
        splits: The rows; the same for all backends.
        asked: The counters of models whose vendor was asked.
    """

    splits: Splits
    asked: Mapping[str, TokenCounter] = field(default_factory=dict[str, TokenCounter])
    _counted: dict[object, Workload] = field(default_factory=dict[object, Workload])
    _rendered: dict[str | None, dict[str, Rendered]] = field(
        default_factory=dict[str | None, dict[str, Rendered]]
    )

    def counted_for(self, model: str, aliases: Iterable[str] = ()) -> Workload:
        """Return the rows as a model counts them."""
        counter = self.asked.get(model) or counter_for(model, aliases=aliases)
        # Characters are counted alike for all models, whichever tokenizer is missing.
        alike = isinstance(counter, CharacterCounter)
        key = counter.basis if alike else (counter.basis, counter.assumptions)
        if key not in self._counted:
            self._counted[key] = measure(self.splits, counter)
        return replace(self._counted[key], assumptions=counter.assumptions)

    def rendered_in(self, format_name: str | None) -> dict[str, Rendered]:
        """Return the files as they would be handed over, by name."""
        if format_name not in self._rendered:
            parts = {"train.jsonl": self.splits.train, "validation.jsonl": self.splits.validation}
            self._rendered[format_name] = {
                name: rendered(part, format_name) for name, part in parts.items() if len(part)
            }
        return self._rendered[format_name]
