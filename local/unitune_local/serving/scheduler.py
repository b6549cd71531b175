"""Answer many requests at once with one model; they join and leave the batch between tokens.

One thread owns the model. In each turn it reads waiting prompts, at most `PROMPT_TOKENS` tokens, so
that running answers never pause for long. Then every running answer gets its next token. Models
whose attention is not plain answer batch by batch.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from array import array
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import nullcontext
from itertools import takewhile

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from unitune_local.data.batches import common_length
from unitune_local.inference.answers import Answer, Ending, Sampling, next_tokens
from unitune_local.inference.decoding import (
    CHUNK_TOKENS,
    PROMPT_TOKENS,
    CachedRows,
    PrefixCachedRows,
    Rows,
    prefix_caching,
)
from unitune_local.inference.generate import LEAST_DROPPED, bytes_per_token
from unitune_local.inference.prefix_cache import KeysValues, PrefixCache, is_plain
from unitune_local.serving.request import Closed, ModelFailed, Piece, ServedRequest, TokenTexts

# Maximum number of running answers: twice as many would give 1.2 times the tokens a second, each at
# little more than half the speed
MOST_ROWS = 64
# Free tokens needed before an answer joins, so that it is not set back after a few tokens
HEADROOM_TOKENS = 64


class Scheduler:
    """Thread that answers many requests with a model in evaluation mode, its own until `close`.

    Keys and values of running answers take at most `answer_bytes`, except for a single answer, and
    the prefix store at most `prefix_bytes`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        answer_bytes: int,
        prefix_bytes: int,
    ) -> None:
        self._model = model
        self._ending = Ending.of(model, tokenizer)
        self._texts = TokenTexts(tokenizer)
        self._most_places = answer_bytes // bytes_per_token(model)
        self._most_rows = MOST_ROWS
        self._is_plain = is_plain(model)
        self._store = PrefixStore(prefix_bytes)
        self._waiting = deque[ServedRequest]()
        self._reading: list[ServedRequest] = []
        self._running: list[ServedRequest] = []  # one for each row, in order
        self._rows: Rows | None = None
        self._changed = threading.Condition()
        self._closing = False
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="unitune-answers", daemon=True)
        self._thread.start()

    @property
    def load(self) -> int:
        """Number of requests that wait or are being answered."""
        return len(self._waiting) + len(self._reading) + len(self._running)

    async def answer(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        *,
        streamed: bool = False,
        top_logprobs: int | None = None,
    ) -> AsyncGenerator[Piece]:
        """Yield an answer in pieces or as a whole; closing the generator frees its place.

        Raises:
            Closed: The server ends.
            ModelFailed: The model cannot answer this request.
        """
        opened = self._ending.has_opened_thought(prompt)
        answer = Answer(0, list(prompt), sampling, self._ending, opened=opened)
        request = ServedRequest(answer, streamed, top_logprobs)
        with self._changed:
            if self._closing:
                raise Closed
            self._waiting.append(request)
            self._changed.notify()
        try:
            while True:
                piece = await request.pieces.get()
                if piece.error is not None:
                    raise piece.error
                yield piece
                if piece.finish_reason is not None:
                    return
        finally:
            request.abandoned = True

    async def close(self) -> None:
        """Fail all unfinished requests, and end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        switched = prefix_caching(self._model) if self._is_plain else nullcontext()
        with torch.inference_mode(), switched:
            while self._has_work():
                try:
                    self._turn()
                except Exception as error:  # noqa: BLE001 - the thread must outlive any request
                    self._retreat(error)
        self._fail([*self._reading, *self._running, *self._waiting], Closed())

    def _has_work(self) -> bool:
        """Wait for a request; return False when the server closes."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._running or self._closing)
            return not self._closing

    def _turn(self) -> None:
        with self._changed:
            self._waiting = deque(request for request in self._waiting if not request.abandoned)
        if self._is_plain:
            self._read()
        elif not self._running:
            self._begin_batch()
        self._step()

    def _read(self) -> None:
        """Read one forward's worth of waiting prompts; their answers begin and join the batch."""
        if not self._waiting:
            return
        first = self._waiting[0]
        prefix = first.read or self._store.longest(first.ids)
        start = prefix.used if prefix else 0
        if not self._fit(1, len(first.ids)):
            return
        group = self._reading = self._alike(start)
        prompts = [request.ids for request in group]
        if len(prompts[0]) - start > CHUNK_TOKENS:
            first.read = self._read_on(prefix, prompts[0][start : start + CHUNK_TOKENS])
            self._wait_again(group)
        else:
            common = common_length(prompts)
            if common - start >= BLOCK_TOKENS:
                prefix, start = self._read_on(prefix, prompts[0][start:common]), common
            rows = PrefixCachedRows(self._model, prefix)
            self._add_tokens(rows.begin([ids[start:] for ids in prompts]), group)
            self._join(rows, group)
        self._reading = []

    def _read_on(self, prefix: PrefixCache | None, ids: Sequence[int]) -> PrefixCache:
        rows = PrefixCachedRows(self._model, prefix)
        rows.begin([ids])
        return rows.row(0)

    def _alike(self, start: int) -> list[ServedRequest]:
        """Take waiting requests to read together with the first, after `start` known tokens."""
        head = self._waiting[0].ids[:start]
        group: list[ServedRequest] = []
        widest = 0
        while self._waiting:
            request, ids = self._waiting[0], self._waiting[0].ids
            widest = max(widest, len(ids))
            if group and not (
                request.read is None
                and self._store.length(ids) == start
                and ids[:start] == head
                and (len(group) + 1) * (widest - start) <= PROMPT_TOKENS
                and self._fit(len(group) + 1, widest)
            ):
                break
            if request.read is None and not request.answer.ids:
                request.cached_tokens = start
            group.append(self._waiting.popleft())
        return group

    def _join(self, rows: PrefixCachedRows, group: Sequence[ServedRequest]) -> None:
        alone = [rows.row(place) for place in range(len(group))]
        for request, row in zip(group, alone, strict=True):
            request.read = None
            self._store.add(request.answer.prompt, row)
        going = [place for place, request in enumerate(group) if not request.over]
        if not going:
            return
        self._drop_ended()
        if self._rows is None:
            self._rows = PrefixCachedRows(self._model)
        assert isinstance(self._rows, PrefixCachedRows)
        self._rows.join([alone[place] for place in going])
        self._running += [group[place] for place in going]

    def _begin_batch(self) -> None:
        count = min(len(self._waiting), self._most_rows)
        group = self._reading = [self._waiting.popleft() for _ in range(count)]
        if group:
            self._rows = CachedRows(self._model)
            self._add_tokens(self._rows.begin([request.ids for request in group]), group)
            self._running, self._reading = group, []

    def _step(self) -> None:
        while self._outgrown():
            self._set_back()
        ended = sum(request.over for request in self._running)
        if ended >= LEAST_DROPPED * len(self._running):
            self._drop_ended()
        if self._rows is None:
            return
        last = [request.answer.ids[-1] for request in self._running]
        logits = self._rows.add(torch.tensor(last, device=self._model.device))
        self._add_tokens(logits, self._running)

    def _add_tokens(self, logits: Tensor, requests: Sequence[ServedRequest]) -> None:
        step = [(row, request) for row, request in enumerate(requests) if not request.over]
        tokens = next_tokens(logits, [(row, request.answer) for row, request in step])
        grown: list[tuple[ServedRequest, Piece]] = []
        for (row, request), token in zip(step, tokens, strict=True):
            if request.top_logprobs is not None:
                begins = len(request.answer.text_so_far())
                chance = self._texts.chance(logits[row], token, request.top_logprobs)
                request.chances.append((begins, chance))
            request.answer.add(token)
            if (piece := request.grown()) is not None:
                grown.append((request, piece))
        self._deliver(grown)

    def _drop_ended(self) -> None:
        """Free the places of ended answers, and store their keys and values for others."""
        going = [row for row, request in enumerate(self._running) if not request.over]
        if self._rows is None or len(going) == len(self._running):
            return
        if isinstance(self._rows, PrefixCachedRows):
            for row, request in enumerate(self._running):
                if request.answer.done:
                    self._store.add(request.ids, self._rows.row(row))
        self._running = [self._running[row] for row in going]
        if going:
            self._rows.keep(torch.tensor(going, device=self._model.device))
        else:
            self._rows, self._most_rows = None, MOST_ROWS

    def _fit(self, more: int, longest: int) -> bool:
        """Return whether more rows, the longest of so many tokens, leave room for the next ones."""
        if more == 1 and not self._running:
            return True
        rows = len(self._running) + more
        wide = self._rows.cache.used if isinstance(self._rows, PrefixCachedRows) else 0
        places = rows * (max(longest, wide) + HEADROOM_TOKENS)
        return rows <= self._most_rows and places <= self._most_places

    def _outgrown(self) -> bool:
        if len(self._running) < 2 or not isinstance(self._rows, PrefixCachedRows):
            return False
        return len(self._running) * (self._rows.cache.used + 1) > self._most_places

    def _set_back(self) -> None:
        """Make the answer that joined last wait; it is read again with its tokens so far."""
        request = self._running.pop()
        assert isinstance(self._rows, PrefixCachedRows)
        self._store.add(request.ids, self._rows.row(len(self._running)))
        self._rows.keep(torch.arange(len(self._running), device=self._model.device))
        self._wait_again([request])

    def _retreat(self, error: Exception) -> None:
        """Retry with fewer rows after a failure, such as of memory; fail a request that is alone.

        A failure while reading leaves the running rows intact; one of a step spoils them.
        """
        failed, self._reading = self._reading, []
        if not failed:
            failed, self._running, self._rows = self._running, [], None
        if len(failed) > 1 or self._running:
            self._most_rows = len(self._running) or len(failed) // 2
            self._wait_again(failed)
        else:
            self._fail(failed, ModelFailed(str(error)))

    def _wait_again(self, requests: Sequence[ServedRequest]) -> None:
        with self._changed:
            self._waiting.extendleft(reversed(requests))

    def _fail(self, requests: Sequence[ServedRequest], error: Exception) -> None:
        self._deliver([(request, Piece(error=error)) for request in requests])

    def _deliver(self, pieces: Sequence[tuple[ServedRequest, Piece]]) -> None:
        def deliver() -> None:
            for request, piece in pieces:
                request.pieces.put_nowait(piece)

        if pieces:
            self._loop.call_soon_threadsafe(deliver)


# Up to one block less one token of a shared beginning is computed again
BLOCK_TOKENS = 32

_Block = dict[int, KeysValues]  # by layer index (1, G, BLOCK_TOKENS, D)


class PrefixStore:
    """Keys and values of the beginnings of recent prompts, in at most `max_bytes`.

    They are stored in blocks, each under a hash of all tokens up to its end. The least recently
    used blocks are dropped; of one prompt, the last ones first, as a block needs those before it.
    """

    def __init__(self, max_bytes: int) -> None:
        self.bytes = 0
        self._max_bytes = max_bytes
        self._blocks = OrderedDict[bytes, _Block]()  # the least recently used first

    def length(self, ids: Sequence[int]) -> int:
        """Return the number of stored tokens of a prompt's beginning."""
        return len(self._kept(ids)) * BLOCK_TOKENS

    def longest(self, ids: Sequence[int]) -> PrefixCache | None:
        """Return the cache of a prompt's beginning, as one row without its last token, if any."""
        keys = self._kept(ids)
        if not keys:
            return None
        self._touch(keys)
        first, *others = [self._blocks[key] for key in keys]
        layers = {
            layer: places.followed_by(*(block[layer] for block in others))
            for layer, places in first.items()
        }
        return PrefixCache(used=len(keys) * BLOCK_TOKENS, layers=layers)

    def add(self, ids: Sequence[int], seen: PrefixCache) -> None:
        """Store the whole blocks of a row."""
        keys = list(_keys(ids[: seen.used]))
        for place, key in enumerate(keys):
            if key not in self._blocks:
                start = place * BLOCK_TOKENS
                block = {layer: _copied(seen.seen(layer), start) for layer in seen.layers}
                self._blocks[key] = block
                self.bytes += _size(block)
        self._touch(keys)
        while self.bytes > self._max_bytes:
            _, block = self._blocks.popitem(last=False)
            self.bytes -= _size(block)

    def _kept(self, ids: Sequence[int]) -> list[bytes]:
        return list(takewhile(self._blocks.__contains__, _keys(ids[:-1])))

    def _touch(self, keys: Sequence[bytes]) -> None:
        for key in reversed(keys):  # the last block of a prompt goes before the first
            self._blocks.move_to_end(key)


def _keys(ids: Sequence[int]) -> Iterator[bytes]:
    hashed = hashlib.blake2b(digest_size=16)
    for end in range(BLOCK_TOKENS, len(ids) + 1, BLOCK_TOKENS):
        hashed.update(array("q", ids[end - BLOCK_TOKENS : end]).tobytes())
        yield hashed.digest()


def _copied(places: KeysValues, start: int) -> KeysValues:
    """Return a block of places that keeps nothing else in memory."""
    return places.changed(lambda part: part[:, :, start : start + BLOCK_TOKENS].clone())


def _size(block: _Block) -> int:
    return sum(places.keys.nbytes + places.values.nbytes for places in block.values())
