"""What sampled answers earn: a job's scorer, as a run keeps it, and as it is used."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self, cast

from unitune.data.example import Example, digest
from unitune.errors import Mismatch
from unitune.scorers import ScorerSpec
from unitune.scorers.interface import Scorer, Setting
from unitune.scorers.labels import labels_of
from unitune.security.spec import Closed

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Grader:
    """What makes texts of sampled answers, and says what they earn."""

    tokenizer: PreTrainedTokenizerBase
    scorer: Scorer


class Grading(Closed):
    """A scorer as it was when a run was submitted."""

    scorer: ScorerSpec
    folder: Path
    """Where the paths in its options start."""
    fingerprint: str
    """Of its options and the files that they name."""

    @classmethod
    def of(cls, scorer: Scorer, folder: Path) -> Self:
        """Return a scorer as it is now.

        Raises:
            JobError: A file that its options name cannot be read.
        """
        material = scorer.material(Setting(folder))
        fingerprint = digest([scorer.model_dump(mode="json"), material])
        return cls(scorer=scorer, folder=folder, fingerprint=fingerprint)

    def grader(self, tokenizer: PreTrainedTokenizerBase, cases: Iterable[Example]) -> Grader:
        """Return it ready to score answers to these cases.

        Raises:
            Mismatch: A file that it names is another one now.
        """
        scorer = cast("Scorer", self.scorer)
        if Grading.of(scorer, self.folder) != self:
            raise Mismatch(
                f"a file that the scorer {scorer.name!r} names has changed since the run was "
                "submitted. Start a new run."
            )
        setting = Setting(self.folder, labels_of(cases))
        return Grader(tokenizer, scorer.ready(setting, self.fingerprint))
