"""What the local backend alone understands: ``options: {local: {…}}`` of a job.

Read by the offer without torch. `auto` is resolved in `unitune_local.settings`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from unitune.job.job import Auto
from unitune.security.spec import Spec


class LocalOptions(Spec):
    """Settings of this machine, not of the training's result."""

    device: Literal["cpu", "cuda", "mps"] | Auto = "auto"
    """Where to train; `auto`: the best that is there."""
    dtype: Literal["float32", "bfloat16", "float16"] | Auto = "auto"
    """Of the frozen weights; `auto`: the type that multiplies faster: on a GPU bfloat16 where it is
    native (compute capability 8.0 or higher), else float16, whose loss is scaled. Trained weights
    stay float32; with ``tuning.full`` the type is that of the computation (autocast)."""
    quantization: Literal["4bit", "8bit"] | None = None
    """Of the frozen weights: 4bit (NF4, QLoRA, arXiv 2305.14314) or 8bit (arXiv 2208.07339). Needs
    the extra `4bit`. The tuned model answers with them, too."""
    threads: Annotated[int, Field(ge=1)] | Auto = "auto"
    """CPU threads of each process; `auto`: the cores that are really there, divided among them."""
    processes: Annotated[int, Field(ge=1)] | Auto = "auto"
    """Processes that share the rows of each batch, with one model each; `auto`: the number of
    GPUs, or 1."""
    shard: bool | Auto = "auto"
    """Spread the frozen weights of each layer over the processes, and gather a layer when it is
    computed: less memory, more time. `auto`: when several processes would not fit otherwise."""
    deterministic: bool = False
    """Use GPU kernels that compute the same sums on every run, which are slower. A CPU always
    does."""
    micro_batch_tokens: Annotated[int, Field(ge=16)] | Auto = "auto"
    """Most tokens computed at once; more are accumulated. `auto`: what fits into memory."""
    share_prefix: bool = True
    """Compute the tokens that all rows of a batch begin with once."""
    gradient_checkpointing: bool | Auto = "auto"
    """Keep of each layer its input alone and compute the rest again in the backward pass: less
    memory, a third more time. `auto`: when the training would not fit into memory otherwise."""
    chunked_cross_entropy: bool | Auto = "auto"
    """Keep no logits, and compute those of some hundred tokens at a time again in the backward
    pass. `auto`: likewise."""
    checkpoint_seconds: Annotated[float, Field(ge=0)] = 20.0
    """Least time between two checkpoints."""
    checkpoint_every_steps: Annotated[int, Field(ge=1)] | None = None
    """Checkpoint after so many steps, whatever the time."""
    keep_checkpoints: Annotated[int, Field(ge=1)] = 2
    """Newest checkpoints that are kept, beside the one of the best evaluation."""
