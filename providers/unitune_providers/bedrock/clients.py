"""Call AWS: clients, errors and files in S3.

Region, keys and endpoints come from AWS's chain (environment, profile, role). Create calls are sent
once; other calls are repeated in botocore's standard mode.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import botocore.session
from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
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

from unitune.backends.credentials import environment_address
from unitune.backends.kit.connection import certificate_file
from unitune.backends.kit.errors import ErrorResponse, ErrorTable, Vendor, vendor_errors
from unitune.errors import BackendError, UnituneError, UserError
from unitune.security.json_fields import Fields, Unreadable
from unitune.workspace.progress import counter
from unitune.workspace.user_settings import current

if TYPE_CHECKING:
    from botocore.awsrequest import AWSResponse
    from botocore.model import OperationModel
    from mypy_boto3_bedrock import BedrockClient
    from mypy_boto3_bedrock_runtime import BedrockRuntimeClient
    from mypy_boto3_s3 import S3Client

CONNECT_SECONDS = 10.0
READ_SECONDS = 60.0
# Longest wait for a model's answer. AWS allows Nova an hour; an evaluation should not.
ANSWER_SECONDS = 300.0
ATTEMPTS = 3  # of calls that may be repeated
CHAT_THREADS = 32  # concurrent requests to one model
NO_SUCCESS = 300
# S3 answers 403 for a missing file if the user may not list the bucket
MISSING_FILE = (403, 404)
KEY_HOST, KEY_SECONDS = "bedrock.amazonaws.com", 12 * 3600

AWS = Vendor(
    "AWS",
    advice={
        401: "Sign in to AWS again.",
        403: "Check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN: they may have "
        "expired or lack permissions.",
        429: "Wait, or request a higher quota from AWS.",
    },
)
SETUP = (
    "Set AWS_DEFAULT_REGION, and AWS_ACCESS_KEY_ID with AWS_SECRET_ACCESS_KEY, AWS_PROFILE or "
    "another way to sign in to AWS (docs.aws.amazon.com, boto3 credentials)."
)


class Clients:
    """botocore's clients, created on first use and shared by all threads."""

    @cached_property
    def creating(self) -> BedrockClient:
        """Bedrock client for create calls, which are sent once."""
        return self._new("bedrock", 1, READ_SECONDS)

    @cached_property
    def bedrock(self) -> BedrockClient:
        """Bedrock client for calls that may be repeated."""
        return self._new("bedrock", ATTEMPTS, READ_SECONDS)

    @cached_property
    def s3(self) -> S3Client:
        """S3 client for training files and results."""
        return self._new("s3", ATTEMPTS, READ_SECONDS)

    @cached_property
    def runtime(self) -> BedrockRuntimeClient:
        """Client for inference; each request is sent once."""
        return self._new("bedrock-runtime", 1, ANSWER_SECONDS)

    @cached_property
    def _session(self) -> Any:
        return boto3.Session(botocore_session=aws_session())

    def _new(self, service: str, attempts: int, read_seconds: float) -> Any:
        for name in os.environ:
            if name.startswith("AWS_ENDPOINT_URL"):
                environment_address(name)  # checked, because botocore repeats it in its errors
        config = Config(
            connect_timeout=CONNECT_SECONDS,
            read_timeout=read_seconds,
            max_pool_connections=CHAT_THREADS,
            retries={"mode": "standard", "total_max_attempts": attempts},
        )
        with aws_errors(f"open {service}"):
            client = self._session.client(service, config=config)
        client.meta.events.register("after-call", refuse_part)
        return client


def aws_session() -> botocore.session.Session:
    """Return AWS's settings and credentials, with the certificates in SSL_CERT_FILE."""
    session = botocore.session.get_session()
    trusted = certificate_file("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE")
    if trusted and not session.get_config_variable("ca_bundle"):
        session.set_config_variable("ca_bundle", trusted)
    given = current().variables  # botocore itself reads the environment
    if "AWS_ACCESS_KEY_ID" in given:
        secret, token = given.get("AWS_SECRET_ACCESS_KEY", ""), given.get("AWS_SESSION_TOKEN")
        session.set_credentials(given["AWS_ACCESS_KEY_ID"], secret, token)
    return session


def short_lived_key(region: str) -> Callable[[], str] | None:
    """Return a function that makes a valid Bedrock key; None without AWS credentials.

    A key is a presigned call in base64, made without a request. It expires with the credentials
    that signed it, after at most 12 hours.

    Source: aws/aws-bedrock-token-generator-python 1.1.0, ``token_generator.py``.
    """
    with aws_errors("sign in"):
        credentials = aws_session().get_credentials()
    if credentials is None:
        return None

    def key() -> str:
        query, url = {"Action": "CallWithBearerToken"}, f"https://{KEY_HOST}/"
        call = AWSRequest("POST", url, {"host": KEY_HOST}, params=query)
        with aws_errors("sign in"):
            frozen = credentials.get_frozen_credentials()
        SigV4QueryAuth(frozen, "bedrock", region, expires=KEY_SECONDS).add_auth(call)
        presigned = f"{call.url}&Version=1".removeprefix("https://")
        return f"bedrock-api-key-{base64.b64encode(presigned.encode()).decode()}"

    return key


def refuse_part(
    http_response: AWSResponse, parsed: Mapping[str, Any], model: OperationModel, **_: object
) -> None:
    """Raise IncompleteReadError for an incomplete response, which botocore reads as an empty one.

    A response without AWS's request id lost its headers or comes from a proxy.
    """
    if model.has_streaming_output or model.has_event_stream_output:
        return  # its reader checks the length
    announced = http_response.headers.get("content-length") or "0"
    expected = 0 if model.http["method"] == "HEAD" else int(announced)
    actual = len(http_response.content)
    is_success = http_response.status_code < NO_SUCCESS
    if actual < expected or (is_success and "RequestId" not in parsed["ResponseMetadata"]):
        raise IncompleteReadError(actual_bytes=actual, expected_bytes=expected)


def call(action: str, method: Callable[..., Mapping[str, object]], **parameters: object) -> Fields:
    """Return AWS's response to a call; `action` completes "AWS could not …"."""
    with aws_errors(action):
        return Fields(method(**parameters))


def call_or_none(
    action: str, method: Callable[..., Mapping[str, object]], **parameters: object
) -> Fields | None:
    """Return the response as `call` does, or None if the resource does not exist."""
    try:
        return call(action, method, **parameters)
    except BackendError as error:
        if error.status == 404:
            return None
        raise


def list_all(action: str, client: Any, operation: str, **parameters: object) -> Iterator[Fields]:
    """Yield the pages of a list; raises as `call` does."""
    with aws_errors(action):
        yield from map(Fields, client.get_paginator(operation).paginate(**parameters))


def arn_of(response: Fields, name: str, action: str) -> str:
    """Return the ARN in a response; raise `Unreachable` without one, as the outcome is unknown."""
    if not (arn := response.text(name)):
        raise AWS.unreachable(action, Unreadable(f"the response has no {name}"))
    return arn


def _error_response(error: ClientError) -> ErrorResponse:
    response = Fields(error.response)
    answer, refusal = response.fields("ResponseMetadata"), response.fields("Error")
    headers = {name: str(value) for name, value in answer.fields("HTTPHeaders").all.items()}
    headers["x-request-id"] = answer.text("RequestId") or ""
    # Messages about signatures repeat the request's headers after the first line.
    message = (refusal.text("Message") or "no reason given").partition("\n")[0].rstrip(". ")
    words = f"{message} [{refusal.text('Code') or 'error'}]"
    # An error in the middle of a stream has no status.
    return ErrorResponse(answer.whole("HTTPStatusCode") or 500, headers, words)


SILENT = (
    AwsConnectionError,
    ChecksumError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    ResponseParserError,
)
ERRORS = ErrorTable({ClientError: _error_response}, SILENT, (PaginationError,))
# Exceptions of botocore's parser for a body of an unexpected form
UNREADABLE = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


@contextmanager
def aws_errors(action: str) -> Generator[None]:
    """Map botocore's exceptions to ours; `action` completes "AWS could not …"."""
    try:
        with vendor_errors(AWS, action, ERRORS):
            yield
    except UnituneError:
        raise
    except BotoCoreError as error:  # raised before anything is sent
        raise UserError(f"AWS could not be called to {action}: {error}. {SETUP}") from error
    except UNREADABLE as error:
        raise AWS.unreachable(action, error) from error


def split_uri(uri: str) -> tuple[str, str]:
    """Return bucket and key of an ``s3://`` address."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def put_file(s3: S3Client, path: Path, uri: str) -> None:
    """Upload a file to S3, a large one in parts, unless it exists."""
    bucket, key = split_uri(uri)
    with aws_errors(f"upload {path.name} to {bucket}"):
        if not _exists(s3, bucket, key):
            with path.open("rb") as content:
                add = counter(f"uploading {path.name}", path.stat().st_size)
                s3.upload_fileobj(content, bucket, key, Callback=add)


def put_image(s3: S3Client, content: bytes, uri: str) -> None:
    """Upload an image to S3, unless it exists."""
    bucket, key = split_uri(uri)
    with aws_errors(f"upload an image to {bucket}"):
        if not _exists(s3, bucket, key):
            s3.put_object(Bucket=bucket, Key=key, Body=content)


def _exists(s3: S3Client, bucket: str, key: str) -> bool:
    try:
        s3.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if _error_response(error).status not in MISSING_FILE:
            raise
        return False
    return True


def content_of(s3: S3Client, uri: str) -> bytes | None:
    """Return a file's content; None if it is missing or not readable."""
    bucket, key = split_uri(uri)
    try:
        with aws_errors(f"read {uri}"):
            return s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    except BackendError as error:
        if error.status in MISSING_FILE:
            return None
        raise
