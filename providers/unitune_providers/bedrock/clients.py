"""AWS as the bedrock backend reaches it, and botocore's errors as ours.

Clients are made on first use and shared by all threads. Region, keys and endpoints come from AWS's
own chain (environment, profile, role); what is unitune's own, the bucket, stands in
`unitune_providers.bedrock.options`. Create calls are sent once; whatever may be repeated safely is,
by botocore's standard mode.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ChecksumError,
    ClientError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    PaginationError,
)
from botocore.exceptions import ConnectionError as AwsConnectionError
from botocore.parsers import ResponseParserError
from botocore.session import Session

from unitune.backends.credentials import environment_address
from unitune.backends.rate_limits import parse_retry_after
from unitune.errors import BackendError, UnituneError, Unreachable, UserError
from unitune.security.redaction import redacted
from unitune_providers.bedrock.descriptions import Lean

if TYPE_CHECKING:
    from botocore.awsrequest import AWSResponse
    from botocore.model import OperationModel
    from mypy_boto3_bedrock import BedrockClient
    from mypy_boto3_bedrock_runtime import BedrockRuntimeClient
    from mypy_boto3_s3 import S3Client

if find_spec("boto3") is None:  # imported late, but missed before a launch begins
    raise ModuleNotFoundError("No module named 'boto3'", name="boto3")

CONNECT_SECONDS = 10.0
READ_SECONDS = 60.0
ANSWER_SECONDS = 300.0
"""Longest wait for a model's answer. AWS allows Nova an hour; an evaluation should not."""
ATTEMPTS = 3
"""Of calls that may be repeated, the first included."""
CHAT_THREADS = 32
"""Requests to one model at once; botocore has no asynchronous client."""

NO_ANSWER = (
    AwsConnectionError,
    ChecksumError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    ResponseParserError,
)
"""No answer, or none that is whole."""
SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_BEARER_TOKEN_BEDROCK")
SETUP = (
    "Set AWS_DEFAULT_REGION, and AWS_ACCESS_KEY_ID with AWS_SECRET_ACCESS_KEY, AWS_PROFILE or "
    "another of AWS's ways to sign in (docs.aws.amazon.com, boto3 credentials)."
)
ADVICE = {
    "AccessDenied": "Allow this to the user or role that you are signed in as.",
    "AccessDeniedException": "Allow this to the user or role that you are signed in as.",
    "ExpiredToken": "Sign in to AWS again.",
    "ExpiredTokenException": "Sign in to AWS again.",
    "InvalidSignatureException": "Check AWS_SECRET_ACCESS_KEY, and the machine's clock.",
    "UnrecognizedClientException": "Check AWS_ACCESS_KEY_ID and AWS_SESSION_TOKEN.",
    "ThrottlingException": "Wait, or ask AWS for a higher quota.",
}
"""What to do next, by AWS's error code."""
SIGN_IN_AGAIN = 401
BAD = 300
"""Statuses from here on are no success."""
UNREADABLE = (403, 404)
"""S3 answers 403 for a file that is not there to whoever may not list the bucket."""


class Clients:
    """botocore's clients, one of each; what boto3 adds to them is of use for uploads alone."""

    @cached_property
    def creating(self) -> BedrockClient:
        """Bedrock's control plane for create calls, which are sent once."""
        return self._new("bedrock", 1, READ_SECONDS)

    @cached_property
    def bedrock(self) -> BedrockClient:
        """Bedrock's control plane for everything that may be repeated."""
        return self._new("bedrock", ATTEMPTS, READ_SECONDS)

    @cached_property
    def s3(self) -> S3Client:
        """Where training files go and results come from."""
        return self._new("s3", ATTEMPTS, READ_SECONDS)

    @cached_property
    def runtime(self) -> BedrockRuntimeClient:
        """Where models answer; each question is sent once."""
        return self._new("bedrock-runtime", 1, ANSWER_SECONDS)

    @cached_property
    def _session(self) -> Session:
        session = Session()
        session.get_component("data_loader").file_loader = Lean()
        return session

    def _new(self, service: str, attempts: int, read_seconds: float) -> Any:
        for name in os.environ:
            if name.startswith("AWS_ENDPOINT_URL"):
                environment_address(name)  # botocore reads it, and repeats it in its errors
        config = Config(
            connect_timeout=CONNECT_SECONDS,
            read_timeout=read_seconds,
            max_pool_connections=CHAT_THREADS,
            retries={"mode": "standard", "total_max_attempts": attempts},
        )
        with our_errors(f"open {service}"):
            client = self._session.create_client(service, config=config)
            client.meta.events.register("after-call", refuse_part)
        return client


def refuse_part(
    http_response: AWSResponse,
    parsed: Mapping[str, Any],
    model: OperationModel,
    **_: object,
) -> None:
    """Refuse an answer that did not come whole, before anyone reads it.

    botocore asks urllib3 not to compare a body with its announced length, and reads a body that is
    no JSON as an empty answer: a list that was cut would be an empty list.

    Args:
        http_response: As it came.
        parsed: As botocore reads it.
        model: Of the operation.

    Raises:
        IncompleteReadError: Something of it is missing.
    """
    if model.has_streaming_output:
        return  # its reader compares
    announced = http_response.headers.get("content-length")
    expected = int(announced) if announced and model.http["method"] != "HEAD" else 0
    found = len(http_response.content)
    needed = model.output_shape.required_members if model.output_shape else []
    bare = http_response.status_code < BAD and any(name not in parsed for name in needed)
    nameless = "RequestId" not in parsed.get("ResponseMetadata", {})
    if found < expected or bare or (nameless and http_response.status_code < BAD):
        raise IncompleteReadError(actual_bytes=found, expected_bytes=expected)


@contextmanager
def our_errors(doing: str) -> Generator[None]:
    """Turn what botocore raises into our errors.

    Args:
        doing: What is being done, as in "AWS could not DOING".

    Raises:
        BackendError: AWS answered with an error.
        Unreachable: It did not answer, or its answer was cut short.
        UserError: Region, keys or another setting are missing or wrong.
    """
    try:
        yield
    except (ClientError, BotoCoreError, ResponseParserError) as error:
        raise ours(error, doing) from error


def ours(error: ClientError | BotoCoreError | ResponseParserError, doing: str) -> UnituneError:
    """Return our error for one of botocore's.

    Args:
        error: As botocore raised it.
        doing: What was being done, as in "AWS could not DOING".
    """
    if isinstance(error, ClientError):
        return _said_no(error, doing)
    if isinstance(error, NO_ANSWER):
        # The text of a parser's error holds the body, which is nobody's business.
        return Unreachable(f"AWS could not {doing}: no whole answer ({type(error).__name__}).")
    if isinstance(error, PaginationError):
        return BackendError(f"AWS could not {doing}: its list does not end ({error}).")
    return UserError(f"AWS could not be asked to {doing}: {error}. {SETUP}")


@contextmanager
def gone_is_fine() -> Generator[None]:
    """Let a 404 pass: what should go away is not there."""
    try:
        yield
    except BackendError as error:
        if not is_missing(error):
            raise


def is_missing(error: BackendError) -> bool:
    """Return whether AWS said that there is no such thing."""
    return error.status == 404


def is_in_bucket(s3: S3Client, bucket: str, key: str) -> bool:
    """Return whether a bucket holds a file.

    Args:
        s3: How it is reached.
        bucket: Its name.
        key: The file's.
    """
    try:
        with our_errors(f"look for {key} in {bucket}"):
            s3.head_object(Bucket=bucket, Key=key)
    except BackendError as error:
        if error.status in UNREADABLE:
            return False
        raise
    return True


def put_file(s3: S3Client, path: Path, bucket: str, key: str) -> None:
    """Write a file to a bucket, a large one in parts.

    Args:
        s3: How it is reached.
        path: The file.
        bucket: Its name.
        key: Where the file goes.
    """
    from boto3.s3.transfer import (  # noqa: PLC0415 - who only watches trainings uploads nothing
        TransferConfig,
        create_transfer_manager,
    )

    with path.open("rb") as content, create_transfer_manager(s3, TransferConfig()) as transfers:
        transfers.upload(content, bucket, key).result()


def content_of(s3: S3Client, uri: str) -> bytes | None:
    """Return a file's content; None when it is gone, or not ours to read.

    Args:
        s3: How it is reached.
        uri: ``s3://BUCKET/KEY``.
    """
    bucket, key = split_uri(uri)
    try:
        with our_errors(f"read {uri}"):
            return s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    except BackendError as error:
        if error.status in UNREADABLE:
            return None
        raise


def split_uri(uri: str) -> tuple[str, str]:
    """Return bucket and key of an ``s3://`` address."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def _said_no(error: ClientError, doing: str) -> BackendError:
    said, answer = error.response.get("Error", {}), error.response.get("ResponseMetadata", {})
    status, code = answer.get("HTTPStatusCode"), said.get("Code", "error")
    # After its first line, a complaint about a signature repeats the request's headers.
    words = _safe((said.get("Message") or "no reason given").partition("\n")[0].rstrip(". "))
    advice = ADVICE.get(code, ADVICE["ExpiredToken"] if status == SIGN_IN_AGAIN else "")
    return BackendError(
        f"AWS could not {doing}: {words} [{code}] (HTTP {status}).{' ' + advice if advice else ''}",
        status=status,
        request_id=answer.get("RequestId"),
        retry_after=parse_retry_after(answer.get("HTTPHeaders", {})),
    )


def _safe(words: str) -> str:
    """Take the environment's keys out, in case that AWS or a proxy repeats one."""
    return redacted(words, map(os.environ.get, SECRETS))
