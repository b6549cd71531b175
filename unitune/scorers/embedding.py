"""The scorer `embedding`: how near two texts are in the space of an embedding model.

Not here: the endpoint (`unitune.evaluate.inference.embeddings`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr

from unitune.scorers.interface import Attempt, Case, Embedder, Kind, Scorer, Setting
from unitune.scorers.text import refuse_empty
from unitune.security.addresses import Address, NotAnAddress, VariableName, as_origin

EMBEDDINGS_URL = "https://api.openai.com/v1"
EMBEDDINGS_KEY = "OPENAI_API_KEY"
"""The one key that needs no permission to be sent to `EMBEDDINGS_URL`: it is that vendor's."""


def cosine(first: Any, second: Any) -> float:
    """Return the cosine of the angle between two vectors of numpy, 0 where it is negative."""
    import numpy as np  # noqa: PLC0415 - slow to import

    a, b = first.astype(np.float64), second.astype(np.float64)
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return min(1.0, max(0.0, float(a @ b) / length)) if length else 0.0


def _default_key(options: dict[str, Any]) -> str | None:
    """Return the variable of the key that an embeddings endpoint gets unless the job names one."""
    try:
        vendor = as_origin(str(options.get("base_url"))) == as_origin(EMBEDDINGS_URL)
    except NotAnAddress:
        return None
    return EMBEDDINGS_KEY if vendor else None


class Embedding(Scorer):
    """Cosine similarity of embeddings, from any OpenAI-compatible endpoint.

    Why: models say the same in other words, and no overlap of words sees that. Near 1 is near in
    meaning, as the embedding model understands it; what counts as near differs between models, so
    compare contenders, not figures of two models. It leaves out negation and numbers, which most
    embedding models hardly notice, and everything beyond the model's longest input. Identical texts
    have 1 and the order of the two does not matter. An empty answer has 0, and is never sent.
    """

    kind = Kind.GRADED
    type: Literal["embedding"] = "embedding"
    name: str = "embedding"
    base_url: Address = EMBEDDINGS_URL
    """Where ``/embeddings`` is requested; answers and expected answers are sent there."""
    model: str
    """The endpoint's name of the embedding model."""
    api_key_variable: Annotated[VariableName | None, Field(default_factory=_default_key)]
    """Environment variable that holds the key; the user must have allowed it for another
    `base_url` than the default (`unitune keys allow`), which gets none unless it is named."""
    _embedder: Embedder | None = PrivateAttr(None)

    def prepare(self, setting: Setting) -> None:
        if setting.embedder is not None:
            self._embedder = setting.embedder(self)

    def judge(self, attempt: Attempt) -> float:
        if not attempt.text.strip():
            return 0.0
        first, second = self._vectors([attempt])
        return cosine(first, second)

    def fetch(self, attempts: Sequence[Attempt]) -> None:
        self._vectors([attempt for attempt in attempts if attempt.text.strip()])

    def refusal(self, case: Case) -> str | None:
        return refuse_empty(case)

    def _vectors(self, attempts: Sequence[Attempt]) -> Sequence[Any]:
        assert self._embedder is not None, "`build` opens the endpoint"
        return self._embedder.vectors(
            [text for attempt in attempts for text in (attempt.text, attempt.expected)]
        )
