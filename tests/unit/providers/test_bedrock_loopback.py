"""The server that plays Bedrock refuses what AWS refuses, and filters lists as AWS does."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

pytest.importorskip("boto3", reason="needs the extra `bedrock`")

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from vendors.bedrock.vendor import KEY, ROLE, BedrockVendor

from unitune.testing.loopback import serve
from unitune.testing.vendor_setup import ServerBehavior

GOOD: dict[str, Any] = {
    "jobName": "job-1",
    "customModelName": "model-1",
    "roleArn": ROLE,
    "baseModelIdentifier": "amazon.nova-micro-v1:0:128k",
    "trainingDataConfig": {"s3Uri": "s3://bucket/rows.jsonl"},
    "outputDataConfig": {"s3Uri": "s3://bucket/out"},
}
LLAMA = "meta.llama3-1-8b-instruct-v1:0:128k"


class Storage:
    """An S3 in which every file is there."""

    def read(self, uri: str) -> bytes | None:
        return uri.encode()

    def write(self, uri: str, content: bytes) -> None:
        del uri, content


@pytest.fixture
def url() -> Iterator[str]:
    with serve(BedrockVendor(Storage(), ServerBehavior(queued_polls=0, steps=1))) as server:
        yield server.url


def client(url: str, region: str = "us-east-1", service: str = "bedrock") -> Any:
    session = boto3.Session(KEY, "secret", region_name=region)
    once = Config(retries={"total_max_attempts": 1}, parameter_validation=False)
    return session.client(service, endpoint_url=url, config=once)


@pytest.fixture
def bedrock(url: str) -> Any:
    return client(url)


def refused(bedrock: Any, code: str = "ValidationException", **wrong: Any) -> str:
    with pytest.raises(ClientError) as caught:
        bedrock.create_model_customization_job(**{**GOOD, **wrong})
    assert code == caught.value.response["Error"]["Code"]
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    return str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"roleArn": "me"},
        {"baseModelIdentifier": "amazon.nova-unknown-v1:0:128k"},
        {"baseModelIdentifier": "anthropic.claude-3-haiku-20240307-v1:0:200k"},
        {"baseModelIdentifier": LLAMA},
        {"customizationType": "MAGIC"},
        {"jobName": "two words"},
        {"jobName": "x" * 70},
        {"trainingDataConfig": {"s3Uri": "bucket/rows.jsonl"}},
        {"hyperParameters": {"epochCount": "many"}},
        {"hyperParameters": {"epochCount": "99"}},
        {"hyperParameters": {"epochCount": 2}},
        {"hyperParameters": {"learningRate": "1"}},
        {"hyperParameters": {"nonsense": "1"}},
        {"validationDataConfig": {"validators": [{"s3Uri": "s3://bucket/v"}] * 11}},
        {"outputDataConfig": {}},
        {
            "baseModelIdentifier": "amazon.nova-2-lite-v1:0:256k",
            "validationDataConfig": {"validators": [{"s3Uri": "s3://bucket/v"}]},
        },
    ],
    ids=str,
)
def test_what_aws_refuses_is_refused_and_makes_no_job(bedrock: Any, wrong: dict[str, Any]) -> None:
    assert refused(bedrock, **wrong)
    assert bedrock.list_model_customization_jobs()["modelCustomizationJobSummaries"] == []


def test_llama_is_tuned_in_its_own_region_alone(url: str) -> None:
    hyper = {"epochCount": "3", "batchSize": "1"}
    request = {**GOOD, "baseModelIdentifier": LLAMA, "hyperParameters": hyper}
    assert client(url, "us-west-2").create_model_customization_job(**request)["jobArn"]
    wrong = {**request, "jobName": "job-2", "customModelName": "m2"}
    wrong["hyperParameters"] = {"junk": "1"}
    with pytest.raises(ClientError, match="junk"):
        client(url, "us-west-2").create_model_customization_job(**wrong)


def test_names_are_taken_once_and_a_token_is_the_first_job_whatever_is_said(bedrock: Any) -> None:
    """API reference: "If this token matches a previous request, Amazon Bedrock ignores it"."""
    first = bedrock.create_model_customization_job(**GOOD, clientRequestToken="token-1")["jobArn"]
    other = {**GOOD, "jobName": "another", "hyperParameters": {"epochCount": "2"}}
    again = bedrock.create_model_customization_job(**other, clientRequestToken="token-1")
    assert first == again["jobArn"]
    assert "job-1" in refused(bedrock, "ConflictException", customModelName="model-2")
    assert "model-1" in refused(bedrock, "ConflictException", jobName="job-2")


def test_lists_are_filtered_by_state_and_time(bedrock: Any) -> None:
    arns = [
        bedrock.create_model_customization_job(
            **{**GOOD, "jobName": f"job-{number}", "customModelName": f"model-{number}"}
        )["jobArn"]
        for number in (1, 2)
    ]
    for _ in range(4):
        bedrock.get_model_customization_job(jobIdentifier=arns[0])

    def listed(**query: Any) -> list[str]:
        page = bedrock.list_model_customization_jobs(**query)
        return [job["jobArn"] for job in page["modelCustomizationJobSummaries"]]

    assert arns[:1] == listed(statusEquals="Completed")
    assert arns[1:] == listed(statusEquals="InProgress")
    assert arns == listed(sortBy="CreationTime", sortOrder="Ascending")
    hour = timedelta(hours=1)
    assert listed(creationTimeAfter=datetime.now(UTC) + hour) == []
    assert arns[::-1] == listed(creationTimeAfter=datetime.now(UTC) - hour)
    assert listed(creationTimeBefore=datetime.now(UTC) - hour) == []


def test_an_answer_is_cut_at_its_limit_and_odd_settings_are_refused(url: str) -> None:
    runtime = client(url, service="bedrock-runtime")
    request: dict[str, Any] = {
        "modelId": "amazon.nova-micro-v1:0",
        "messages": [{"role": "user", "content": [{"text": "Why?"}]}],
    }
    response = runtime.converse(**request, inferenceConfig={"maxTokens": 2})
    assert response["stopReason"] == "max_tokens"
    assert len(response["output"]["message"]["content"][0]["text"].split()) == 2
    for wrong in ({"temperature": 5}, {"maxTokens": 0}):
        with pytest.raises(ClientError, match="ValidationException"):
            runtime.converse(**request, inferenceConfig=wrong)
