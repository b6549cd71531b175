"""What a job may say under ``options.bedrock``; read without AWS's packages."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from unitune.security.spec import Spec

ROLE_PATTERN = r"^arn:aws(-[^:]+)?:iam::([0-9]{12})?:role/.+$"
S3_PATTERN = (
    r"^s3://[a-z0-9][-.a-z0-9]{1,61}[a-z0-9]"
    r"(?:/[-!_*'().a-z0-9A-Z]+(?:/[-!_*'().a-z0-9A-Z]+)*)?/?$"
)
"""Source of both patterns: botocore 1.44.8, bedrock/2023-04-20, RoleArn and S3Uri."""


class BedrockOptions(Spec):
    """Settings of Bedrock's own."""

    role_arn: Annotated[str, Field(pattern=ROLE_PATTERN)] | None = None
    """Role that Bedrock takes on to read and write the bucket; else UNITUNE_BEDROCK_ROLE_ARN."""
    output: Annotated[str, Field(pattern=S3_PATTERN)] | None = None
    """``s3://BUCKET/FOLDER`` for metrics; else a folder of the bucket of the training file."""
    learning_rate_warmup_steps: Annotated[int, Field(ge=0)] | None = None
    """Nova only: steps in which the learning rate rises; Bedrock's default is 10."""
    kms_key: str | None = None
    """AWS KMS key that encrypts the tuned model."""
