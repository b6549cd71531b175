"""What a job may say under ``options.vertex``; read without Google's packages."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from unitune.security.spec import Spec


class VertexOptions(Spec):
    """Settings of Vertex AI's own."""

    learning_rate_multiplier: Annotated[float, Field(gt=0)] | None = None
    """Factor on the model's own learning rate; 1 when left out."""
    export_last_checkpoint_only: bool = False
    """Keep no checkpoints but the last; else each epoch's gets an endpoint."""
    beta: Annotated[float, Field(gt=0)] | None = None
    """For dpo: how closely the tuned model stays with its base."""
    pre_tuned_model_checkpoint_id: str | None = None
    """When a tuned model is tuned on: the checkpoint to begin with; its default when left out."""
