"""Let a judge, a language model on a server, reward sampled answers.

Judgements are kept in a file of the training. A resumed training, which samples the same answers
again, reads them there, and equal answers are judged once. All processes of a training append to
the file and read their common cost in it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Self

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from unitune.backends import event_loop
from unitune.backends.credentials import key_for
from unitune.backends.judge_requests import (
    Opinion,
    SchemaOptional,
    opinion_of,
    request_of,
    transcript,
)
from unitune.backends.retry import retry_reply
from unitune.data.example import Example, Message, digest
from unitune.errors import BackendError
from unitune.job.job import TokenPrice
from unitune.models import ChatModel, Reply, Request
from unitune.scorers.interface import Score
from unitune.scorers.judge import Judge

AT_ONCE = 16  # requests in flight; vendors rarely allow more
AROUND_REQUEST = 100  # tokens that a chat template may add
FREE = TokenPrice(input=Decimal(0), output=Decimal(0))


@dataclass(frozen=True, slots=True)
class Judgement:
    """Judgement of one answer."""

    key: str  # hash of the judging model and the request; empty for a request without a reply
    usd: Decimal
    opinion: Opinion


_JUDGEMENT = TypeAdapter(Judgement)


class Judgements:
    """Judgements of a training, those in `paid`, files of other trainings, are free."""

    def __init__(
        self,
        file: Path,
        prices: Mapping[str, TokenPrice],  # by judge; others are free
        budget_usd: Decimal | None = None,
        paid: Iterable[Path] = (),
    ) -> None:
        self._file, self._prices, self._budget = file, prices, budget_usd
        self._reserved, self._free = Decimal(0), asyncio.Semaphore(AT_ONCE)
        self._models: list[ChatModel] = []
        self._asked: dict[str, asyncio.Task[Opinion]] = {}
        earlier = (each for path in paid if path != file for each in read_judgements(path)[0])
        self._known = {each.key: each.opinion for each in earlier}
        self._read, self._spent, self._count, self._failed = 0, Decimal(0), 0, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for model in self._models:
            event_loop.run(model.aclose())

    def figures(self) -> dict[str, float]:
        """Return the number of requests, their cost, and the share of them without a verdict."""
        self._update()
        usd, failed = float(self._spent), self._failed / max(self._count, 1)
        figures = {"judge_requests": self._count, "judge_usd": usd, "judge_failed": failed}
        return figures if self._models else {}

    def _update(self) -> None:
        """Read what all processes have added to the file."""
        made, self._read = read_judgements(self._file, self._read)
        self._known |= {each.key: each.opinion for each in made if each.key}
        self._spent += sum(each.usd for each in made)
        self._count += len(made)
        self._failed += sum(each.opinion.error is not None for each in made)

    def grading(self, judge: Judge) -> Callable[..., list[Score]]:
        """Return a function that has a judge score all answers to a prompt.

        It raises BackendError if the judge does not answer or the budget is spent.

        Raises:
            UserError: The judge's key is missing, or not allowed for its address.
        """
        from unitune.backends.kit.chat import open_server  # noqa: PLC0415 - loads aiohttp

        assert judge.url is not None, "the plan refuses a judge without a url"
        key_of = key_for(judge.api_key_variable, judge.url, f"the judge {judge.name}")
        self._models.append(open_server(judge.url, judge.model, key=key_of))
        model = SchemaOptional(self._models[-1])

        async def score(case: Example, text: str) -> Score:
            request = request_of(judge, case, [text])
            key = digest([judge.url, judge.model, request.model_dump(mode="json")])
            self._update()
            if (opinion := self._known.get(key)) is None:
                if key not in self._asked:
                    self._asked[key] = asyncio.ensure_future(self._ask(judge, model, request, key))
                opinion = await self._asked[key]
            if opinion.error is not None:
                return Score(0.0, opinion.error, failed=True)
            return Score(judge.reward(opinion.verdicts), "; ".join(opinion.reasons))

        async def group(case: Example, texts: Iterable[str]) -> list[Score]:
            return list(await asyncio.gather(*(score(case, text) for text in texts)))

        def grade(
            case: Example, texts: Sequence[str], trajectories: Sequence[Sequence[Message]] = ()
        ) -> list[Score]:
            return event_loop.run(
                group(case, map(transcript, trajectories) if any(trajectories) else texts)
            )

        return grade

    async def _ask(
        self, judge: Judge, model: SchemaOptional, request: Request, key: str
    ) -> Opinion:
        price = self._prices.get(judge.name, FREE)
        most = _usd(price, request, Reply())
        async with self._free:
            self._update()
            spent = self._spent + self._reserved
            if self._budget is not None and spent + most > self._budget:
                raise BackendError(
                    f"the next request to the judge {judge.name!r} may cost ${most:.6f}, and "
                    f"${spent:.6f} of the budget of ${self._budget} is spent or reserved. Launch "
                    "the job again with a larger budget and --allow-duplicate: judgements that "
                    "are paid are not requested again."
                )
            self._reserved += most
            reply = await retry_reply(lambda: model.reply(request))
            self._reserved -= most
            opinion = opinion_of(judge, reply.text, reply.finish_reason, reply.error)
            if reply.status is None:  # else the server has refused the request
                made = Judgement("" if reply.error else key, _usd(price, request, reply), opinion)
                with self._file.open("ab", buffering=0) as file:  # apart from a line cut off
                    file.write(b"\n" + _JUDGEMENT.dump_json(made) + b"\n")
        if reply.error is not None:
            why = f"the judge {judge.name!r} did not answer: {reply.error}"
            raise BackendError(why, status=reply.status)
        return opinion


def read_judgements(file: Path, start: int = 0) -> tuple[list[Judgement], int]:
    """Return the complete judgements in a file from a byte on, and where they end."""
    if not file.exists():
        return [], start
    with file.open("rb") as opened:
        opened.seek(start)
        content = opened.read()
    whole, kept = content[: content.rfind(b"\n") + 1], list[Judgement]()
    for line in whole.splitlines():
        with suppress(ValidationError):  # empty, or cut off
            kept.append(_JUDGEMENT.validate_json(line))
    return kept, start + len(whole)


def _usd(price: TokenPrice, request: Request, reply: Reply) -> Decimal:
    """Return the cost of a request, or its maximum without the reply's token counts."""
    read, written = reply.prompt_tokens, reply.completion_tokens
    if read is None or written is None:
        messages = json.dumps([message.wire for message in request.messages])
        read, written = len(messages) + AROUND_REQUEST, request.max_tokens
    return (price.input * read + price.output * written) / 1_000_000
