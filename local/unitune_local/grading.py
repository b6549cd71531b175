"""Grade sampled answers with scorers and rewards.

HTTP graders, judges and asynchronous functions grade several groups concurrently. Everything else
runs in the calling thread, one group at a time, because a user's function may not be thread-safe.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from pydantic import JsonValue

from unitune.data.example import Example, Message, digest
from unitune.data.tools import Tools
from unitune.documents import Closed
from unitune.errors import BackendError, Mismatch
from unitune.scorers import RewardSpec
from unitune.scorers.interface import Score, Scorer, Setting, Unscorable
from unitune.scorers.judge import Judge
from unitune.scorers.labels import labels_of
from unitune.scorers.rewards import HttpGrader, RewardFunction, grade, read_scores
from unitune.security.json_fields import Fields
from unitune_local.judgements import Judgements

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Groups graded at the same time by rewards that wait; vendors rarely allow more requests
AT_ONCE = 16


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
