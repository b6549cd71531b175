"""Define the settings of a job that change how conversations become text."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import JsonValue

from unitune.job.job import Job
from unitune.security.spec import Closed


class ChatFormat(Closed):
    """Settings for rendering conversations, in addition to the model's chat template."""

    template: str | None = None
    """Chat template in Jinja; None: the model's own."""
    kwargs: dict[str, JsonValue] = {}  # noqa: RUF012 - pydantic copies it
    """Variables of the chat template, such as ``enable_thinking``."""
    reasoning: Literal["train", "mask"] = "train"
    """Treatment of an answer's reasoning: part of the loss, or masked."""
    day: str | None = None
    """Date that the template uses; None: today."""

    @classmethod
    def of(cls, job: Job) -> Self:
        """Return the chat format of a job.

        Raises:
            JobError: The chat template that the job names cannot be read.
        """
        return cls(
            template=job.chat_template,
            kwargs=job.data.chat_template_kwargs,
            reasoning="mask" if job.data.reasoning == "mask" else "train",
        )
