"""What every backend must do whose vendor counts tokens; part of `unitune.testing.contract`.

Skipped for a backend that is no `unitune.backends.capabilities.CountsTokens`.
"""

from __future__ import annotations

import asyncio
from typing import ClassVar

import pytest

from unitune.backends import registry
from unitune.backends.capabilities import CountsTokens
from unitune.data.example import Message
from unitune.errors import UnituneError
from unitune.models import Reply, Request

SHORT = Request(messages=(Message(role="user", content="What is the colour of snow?"),))
LONG = Request(
    messages=(
        Message(role="system", content="Say one word."),
        Message(role="user", content="What is the colour of snow in the light of the moon?"),
        Message(role="assistant", content="silver"),
        Message(role="user", content="And of coal?"),
    )
)


class CountingContract:
    """The tests; a subclass names the backend."""

    name: ClassVar[str]
    model: ClassVar[str]

    @pytest.fixture
    def counting(self) -> CountsTokens:
        """The backend, if its vendor counts tokens."""
        found = registry.backend(self.name)
        if not isinstance(found, CountsTokens):
            pytest.skip(f"{self.name} does not count tokens")
        return found

    @pytest.mark.parametrize("request_", [SHORT, LONG], ids=["short", "long"])
    def test_count_is_what_an_answer_says_it_was_asked(
        self, counting: CountsTokens, request_: Request
    ) -> None:
        """The count is of what is billed as input, so an answer's usage has the same."""
        reply = self.answered(request_)
        assert reply.error is None
        assert counting.count_tokens(self.model, request_) == reply.prompt_tokens

    def test_longer_request_has_more_tokens(self, counting: CountsTokens) -> None:
        """Every message counts, not the last alone."""
        counts = [counting.count_tokens(self.model, request) for request in (SHORT, LONG)]
        assert 0 < counts[0] < counts[1]

    def test_limit_of_the_answer_does_not_count(self, counting: CountsTokens) -> None:
        """How a request is to be answered is no part of its input."""
        longer = SHORT.model_copy(update={"max_tokens": 4000, "stop": ("END",)})
        counts = {counting.count_tokens(self.model, request) for request in (SHORT, longer)}
        assert len(counts) == 1

    def test_unknown_model_is_an_error_of_ours(self, counting: CountsTokens) -> None:
        """A model that is not there is said to be so, in our words."""
        with pytest.raises(UnituneError):
            counting.count_tokens("no-such-model", SHORT)

    def answered(self, request: Request) -> Reply:
        """Ask the model."""
        chat = registry.backend(self.name).chat(self.model)
        try:
            return asyncio.run(chat.reply(request))
        finally:
            chat.close()
