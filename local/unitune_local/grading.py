"""Grade sampled answers with scorers and rewards, also by a judge: a language model on a server.

HTTP graders, judges and asynchronous functions grade several groups concurrently. Everything else
runs in the calling thread, one group at a time, because a user's function may not be thread-safe.

Judgements are kept in a file of the training. A resumed training, which samples the same answers
again, reads them there, and equal answers are judged once. All processes of a training append to
the file and read their common cost in it.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from pydantic import JsonValue, TypeAdapter, ValidationError

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
from unitune.data.tools import Tools
from unitune.documents import Closed
from unitune.errors import BackendError, Mismatch
from unitune.job.job import TokenPrice
from unitune.models import ChatModel, Reply, Request
from unitune.scorers import RewardSpec
from unitune.scorers.functions import HttpGrader, RewardFunction, grade, read_scores
from unitune.scorers.interface import Score, Scorer, Setting, Unscorable
from unitune.scorers.judge import Judge
from unitune.scorers.labels import labels_of
from unitune.security.json_fields import Fields

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


# Requests to judges and groups graded at the same time; vendors rarely allow more requests
AT_ONCE = 16
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


class Group(NamedTuple):
    """Sampled answers to one prompt."""

    case: Example
    texts: Sequence[str]
    trajectories: Sequence[Sequence[Message]] = ()  # turns after a question that offers tools


@dataclass(frozen=True, slots=True)
class Grader:
    """A scorer, with the tokenizer that decodes answers."""

    tokenizer: PreTrainedTokenizerBase
    scorer: Scorer


@dataclass(frozen=True, slots=True)
class Reward:
    """A reward, ready to grade."""

    name: str
    grade: Callable[..., list[Score]]  # of the fields of a `Group`
    weight: float = 1.0
    # Whether grading mostly waits for something else, so that groups are graded concurrently
    waits: bool = False

    @classmethod
    def of(cls, scorer: Scorer, weight: float = 1.0, judgements: Judgements | None = None) -> Self:
        """Return a reward that grades with a scorer that is ready; a judge needs `judgements`."""
        if isinstance(scorer, Judge) and judgements is not None:
            return cls(scorer.name, judgements.grading(scorer), weight, waits=True)
        if isinstance(scorer, HttpGrader):
            return cls(scorer.name, http_grading(scorer), weight, waits=True)
        waits = isinstance(scorer, RewardFunction) and inspect.iscoroutinefunction(scorer.loaded)
        return cls(scorer.name, partial(grade, scorer), weight, waits)


@dataclass(frozen=True, slots=True)
class RewardGrader:
    """The rewards of a training, with the tokenizer that decodes answers."""

    tokenizer: PreTrainedTokenizerBase
    rewards: Sequence[Reward]
    judgements: Judgements | None = None  # of judges among them
    tools: Tools | None = None  # of dialogues; None if prompts have one answer

    def grade(self, groups: Sequence[Group]) -> list[list[list[Score]]]:
        """Return the scores of each group of answers, by reward and then by answer.

        Raises:
            BackendError: An HTTP grader or judge does not respond, or has received all requests
                that its limit allows.
        """
        work = [(reward, group) for group in groups for reward in self.rewards]
        threads = ThreadPoolExecutor(AT_ONCE, "unitune-reward")
        try:
            started = {
                at: threads.submit(reward.grade, *group)
                for at, (reward, group) in enumerate(work)
                if reward.waits
            }
            scores = [
                started[at].result() if at in started else reward.grade(*group)
                for at, (reward, group) in enumerate(work)
            ]
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
        size = len(self.rewards)
        return [scores[at : at + size] for at in range(0, len(scores), size)]


class Grading(Closed):
    """A scorer as it was when a run was submitted."""

    scorer: RewardSpec
    folder: Path
    """Folder that the paths in its options are relative to."""
    fingerprint: str
    """Hash of its options and of the files that they name."""
    weight: float = 1.0

    @classmethod
    def of(cls, scorer: Scorer, folder: Path, weight: float = 1.0) -> Self:
        """Return the grading of a scorer with the current hash of its files.

        Raises:
            JobError: A file that its options name cannot be read.
        """
        material = scorer.material(Setting(folder))
        fingerprint = digest([scorer.model_dump(mode="json"), material])
        return cls(scorer=scorer, folder=folder, fingerprint=fingerprint, weight=weight)

    def ready(self, cases: Iterable[Example]) -> Scorer:
        """Return the scorer ready to score answers to these cases.

        Raises:
            Mismatch: A file that it names has changed.
            JobError: Its function cannot be imported.
        """
        if Grading.of(self.scorer, self.folder, self.weight) != self:
            raise Mismatch(
                f"a file that the scorer {self.scorer.name!r} names has changed since the run was "
                "submitted. Start a new run."
            )
        return self.scorer.ready(Setting(self.folder, labels_of(cases)), self.fingerprint)

    def grader(self, tokenizer: PreTrainedTokenizerBase, cases: Iterable[Example]) -> Grader:
        """Return a grader with this tokenizer; raises as `ready` does."""
        return Grader(tokenizer, self.ready(cases))


def http_grading(grader: HttpGrader) -> Callable[..., list[Score]]:
    """Return a function that has a user's server grade a group and counts the requests.

    Requests are retried. The function raises BackendError where the server refuses a request or its
    response cannot be used, and Unreachable where it does not respond.
    """
    from unitune.backends.kit.api import Api  # noqa: PLC0415 - only for HTTP graders
    from unitune.backends.kit.errors import Endpoint, Vendor  # noqa: PLC0415 - only for HTTP graders
    from unitune.backends.retry import ATTEMPTS, retry_read  # noqa: PLC0415 - only for HTTP graders

    name, most = f"the HTTP grader {grader.name!r}", grader.max_requests
    api = Api(Endpoint(Vendor(name, url=grader.url), grader.url))
    numbers = count(1)  # threads draw from it, each number once

    def send(body: dict[str, JsonValue]) -> Fields:
        if most is not None and next(numbers) > most:
            raise BackendError(f"{name} has been sent {most} requests (max_requests).")
        sent: dict[str, Any] = {"json": body, "timeout": grader.timeout_seconds}
        return api.request("POST", action="grade answers", **sent).fields

    def grade(
        case: Example, texts: Sequence[str], trajectories: Sequence[Sequence[Message]] = ()
    ) -> list[Score]:
        own = case.model_extra or {}
        body: dict[str, JsonValue] = {
            "messages": [message.wire for message in case.prompt],
            "expected": case.answer,
            "row": {key: value for key, value in case.content.items() if key in own},
            "answers": list(texts),
        }
        if any(trajectories):
            body["trajectories"] = [[turn.wire for turn in each] for each in trajectories]
        reply = retry_read(partial(send, body), ATTEMPTS)
        try:
            return read_scores(reply.all.get("scores"), len(texts))
        except Unscorable as error:
            raise BackendError(
                f"{name} sent a response that cannot be used: {error}. It must be "
                '{"scores": [...]} with one entry for each answer.'
            ) from error

    return grade
