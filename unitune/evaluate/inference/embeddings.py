"""Embeddings of texts from an endpoint, for the scorer `embedding`.

Texts are sent, in batches, to any endpoint that speaks OpenAI's ``POST /embeddings``; the vectors
are kept on disk, so that rescoring requests nothing twice, and a replay nothing at all. The
endpoint is paid like a model, out of the same budget, and it sees answers and expected answers.
When it fails for good, scoring stops with its error and nothing is lost: the answers are recorded,
and the same command goes on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from unitune.backends.credentials import key_for
from unitune.backends.kit.api import Api
from unitune.backends.kit.errors import Endpoint, Vendor
from unitune.backends.retry import retry_read
from unitune.errors import BackendError, Mismatch
from unitune.evaluate.inference.budget import ScorerBudget
from unitune.evaluate.inference.response_cache import ValueFile
from unitune.scorers.embedding import Embedding
from unitune.security.json_fields import Fields

Vector: TypeAlias = NDArray[np.float32]

BATCH = 64
"""Texts in one request. OpenAI takes 2,048, many servers of one machine 32 to 256; beyond some
dozens a request's own cost no longer counts."""
AROUND_TEXT = 8
"""Tokens that a model may put around a text: begin and end, and a word or two on what it is for."""


class EmbeddingsClient:
    """An embeddings endpoint with a cache on disk.

    Args:
        spec: Endpoint and model.
        cache: Folder of the cache, made when there is something to keep.
        paid: Pays for the requests; None: they are not counted.
        replay: Whether no request may be sent.

    Raises:
        UserError: The key may not be sent there, or is not set.
    """

    def __init__(
        self,
        spec: Embedding,
        cache: Path,
        paid: ScorerBudget | None = None,
        *,
        replay: bool = False,
    ) -> None:
        variable = None if replay else spec.api_key_variable
        key = key_for(variable, spec.base_url, f"the scorer {spec.name!r}")
        self._where = f"the embeddings endpoint {spec.base_url}"
        vendor = Vendor(self._where, variable, secrets=(key,))
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._api = Api(Endpoint(vendor, spec.base_url.rstrip("/"), headers))
        self._spec = spec
        self._file = cache / "embeddings.sqlite"
        self._known: dict[str, Vector] = {}
        self._paid = paid
        self._replay = replay

    def vectors(self, texts: Sequence[str]) -> list[Vector]:
        """Return the embeddings of texts, requesting only those that are not known.

        Raises:
            BackendError: The endpoint gave none, after several attempts.
            OverBudget: They may cost more than is left.
            Mismatch: They are not known, and no request may be sent.
        """
        wanted = [text for text in dict.fromkeys(texts) if text not in self._known]
        if wanted:
            with closing(ValueFile(self._file)) as file:
                for text in wanted:
                    if content := file.get(self._key(text)):
                        self._known[text] = np.frombuffer(content, dtype="<f4")
                missing = [text for text in wanted if text not in self._known]
                if missing and self._replay:
                    raise Mismatch(
                        f"{self._spec.name}: of {len(wanted)} texts {len(missing)} have no "
                        "recorded embedding on this machine, and a replay asks for none. Compare "
                        "once without --replay here, or leave the scorer out."
                    )
                for at in range(0, len(missing), BATCH):
                    batch = missing[at : at + BATCH]
                    vectors = dict(
                        zip(batch, retry_read(partial(self._request, batch)), strict=True)
                    )
                    self._known.update(vectors)
                    file.put({self._key(t): v.astype("<f4").tobytes() for t, v in vectors.items()})
                    file.commit()
        return self._same_length([self._known[text] for text in texts])

    def _key(self, text: str) -> str:
        """Return the hash of what determines an embedding: endpoint, model and text."""
        parts = json.dumps([self._spec.base_url, self._spec.model, text])
        return hashlib.sha256(parts.encode()).hexdigest()

    def _request(self, texts: Sequence[str]) -> list[Vector]:
        """Request a batch once; without a clear answer the most that it may have cost is paid."""
        spec, most = self._spec, sum(len(text.encode()) + AROUND_TEXT for text in texts)
        if self._paid is not None:
            self._paid.afford(spec.name, most)
        counted: int | None = None
        try:
            response = self._api.post(
                "embeddings",
                action=f"embed texts by {spec.model!r}",
                body={"model": spec.model, "input": [*texts], "encoding_format": "float"},
            )
            counted = response.fields("usage").whole("prompt_tokens")
        except BackendError as error:
            if error.status is not None:
                most = 0  # refused
            raise
        finally:
            if self._paid is not None and most:
                self._paid.pay(spec.name, self._key(" ".join(texts)), most, counted)
        return self._read(response, len(texts))

    def _read(self, response: Fields, count: int) -> list[Vector]:
        try:
            rows = response.items("data")
            vectors = {row.whole("index"): _vector(row.values("embedding")) for row in rows}
        except ValueError as error:
            raise BackendError(f"{self._where} gave no embeddings: {error}.") from error
        missing = [index for index in range(count) if index not in vectors]
        if missing:
            raise BackendError(
                f"{self._where} gave no embeddings: of {count} texts {len(missing)} have none, the "
                f"first with the index {missing[0]}."
            )
        return self._same_length([vectors[index] for index in range(count)])

    def _same_length(self, vectors: list[Vector]) -> list[Vector]:
        lengths = sorted({len(vector) for vector in vectors})
        if len(lengths) > 1:
            raise BackendError(
                f"{self._where} gave embeddings of {lengths[0]} and of {lengths[1]} numbers, which "
                f"cannot be compared. If the model there has changed, remove {self._file}."
            )
        return vectors


def _vector(numbers: Sequence[object]) -> Vector:
    """Return an embedding.

    Raises:
        ValueError: It is no list of numbers.
    """
    if not numbers or not all(isinstance(number, int | float) for number in numbers):
        raise ValueError("one is no list of numbers")
    try:
        with np.errstate(over="ignore"):  # infinite then
            vector = np.array(numbers, np.float32)
    except OverflowError as error:
        raise ValueError("one is no list of numbers that a float holds") from error
    if not np.isfinite(vector).all():
        raise ValueError("one is no list of numbers that a float holds")
    return vector
