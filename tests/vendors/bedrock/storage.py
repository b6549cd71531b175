"""S3 on this machine, where training files are and results go: moto's, which is known to be right.

Bedrock itself is not moto's: its Bedrock never finishes a job.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from typing import Any, Protocol

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.loaders import JSONFileLoader

from unitune_providers.bedrock.clients import split_uri

REGION = "us-east-1"
_read = JSONFileLoader.load_file


@cache
def _read_once(path: str) -> Any:
    """Read a description of AWS's services: each session would read megabytes of JSON anew."""
    return _read(JSONFileLoader(), path)


def _load_file(self: JSONFileLoader, file_path: str) -> Any:
    del self
    return _read_once(file_path)


JSONFileLoader.load_file = _load_file


class Storage(Protocol):
    """Where training files are and results go."""

    def read(self, uri: str) -> bytes | None:
        """Return a file's content; None when there is none."""
        ...

    def write(self, uri: str, content: bytes) -> None:
        """Write a file."""
        ...


class S3Storage:
    """An S3 on this machine, as Bedrock's role would see it."""

    def __init__(self, url: str) -> None:
        self.url = url
        session: Any = boto3.Session("key", "secret", region_name=REGION)
        self._s3 = session.client("s3", endpoint_url=url, config=Config(connect_timeout=5))

    def create(self, bucket: str) -> None:
        """Create a bucket."""
        self._s3.create_bucket(Bucket=bucket)

    def read(self, uri: str) -> bytes | None:
        """Return a file's content; None when there is none."""
        bucket, key = split_uri(uri)
        try:
            return self._s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        except ClientError:
            return None

    def write(self, uri: str, content: bytes) -> None:
        """Write a file."""
        bucket, key = split_uri(uri)
        self._s3.put_object(Bucket=bucket, Key=key, Body=content)

    def count(self, bucket: str) -> int:
        """Return how many files are in a bucket."""
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return sum(page["KeyCount"] for page in pages)


@contextmanager
def s3_storage(bucket: str) -> Generator[S3Storage]:
    """Serve S3 with an empty bucket while the body runs."""
    from moto.server import ThreadedMotoServer  # noqa: PLC0415 - of the tests' packages

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        storage = S3Storage(f"http://{host}:{port}")
        storage.create(bucket)
        yield storage
    finally:
        server.stop()
