"""Define what local training reads of a job: its options and its chat format.

This module is read without torch; `unitune_local.settings` resolves `auto`.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue

from unitune.documents import Closed, Spec
from unitune.errors import JobError
from unitune.job.job import Auto, Job


class LocalOptions(Spec):
    """Settings of this machine, not of the training's result."""

    device: Literal["cpu", "cuda", "mps"] | Auto = "auto"
    """Device to train on; `auto`: the best one available."""
    dtype: Literal["float32", "bfloat16", "float16"] | Auto = "auto"
    """Dtype of the frozen weights; `auto`: the faster one. On a GPU that is bfloat16 where it is
    native (compute capability 8.0 or higher), else float16 with a scaled loss. Trained weights stay
    float32; with ``tuning.full`` this is the dtype of the computation (autocast)."""
    quantization: Literal["4bit", "8bit"] | None = None
    """Quantization of the frozen weights: 4bit (NF4, QLoRA, arXiv 2305.14314) or 8bit (arXiv
    2208.07339). Requires the extra `4bit`. The tuned model answers with these weights, too."""
    threads: Annotated[int, Field(ge=1)] | Auto = "auto"
    """CPU threads of each process; `auto`: the available cores, divided among the processes."""
    processes: Annotated[int, Field(ge=1)] | Auto = "auto"
    """Processes that share the rows of each batch, each with its own copy of the model; `auto`: the
    number of GPUs, or 1."""
    shard: bool | Auto = "auto"
    """Spread the frozen weights of each layer over the processes and gather a layer when it is
    computed. This saves memory and takes more time. `auto`: when several processes would not fit
    otherwise."""
    deterministic: bool = False
    """Use GPU kernels that compute the same sums on every run. They are slower. A CPU is always
    deterministic."""
    micro_batch_tokens: Annotated[int, Field(ge=16)] | Auto = "auto"
    """Maximum number of tokens computed at once; larger batches are accumulated. `auto`: what fits
    into memory."""
    share_prefix: bool = True
    """Compute the tokens that all rows of a batch begin with only once."""
    gradient_checkpointing: bool | Auto = "auto"
    """Keep only the input of each layer and recompute the rest in the backward pass. This saves
    memory and takes a third more time. `auto`: when the training would not fit into memory
    otherwise."""
    chunked_cross_entropy: bool | Auto = "auto"
    """Keep no logits; recompute those of some hundred tokens at a time in the backward pass.
    `auto`: when the training would not fit into memory otherwise."""
    checkpoint_seconds: Annotated[float, Field(ge=0)] = 20.0
    """Minimum time between two checkpoints, in seconds."""
    checkpoint_every_steps: Annotated[int, Field(ge=1)] | None = None
    """Number of steps after which a checkpoint is written, regardless of the time."""
    keep_checkpoints: Annotated[int, Field(ge=1)] = 2
    """Number of newest checkpoints to keep, in addition to the one with the best evaluation."""


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
        """Return the chat format of a job; raises JobError if its template cannot be read."""
        return cls(
            template=job.chat_template,
            kwargs=job.data.chat_template_kwargs,
            reasoning="mask" if job.data.reasoning == "mask" else "train",
        )


def refuse_judges(job: Job) -> None:
    """Raise `JobError` if a judge rewards, whose key and judgements stay on this machine."""
    if judge := next(iter(job.judged_rewards), None):
        why = "is a judge, whose key and judgements stay on this machine"
        raise JobError(f"the reward {judge.name!r} {why}. Train with the backend local.")
