"""What vendors say of their prices by machine, read from servers that play them on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import JsonValue
from vendors.prices import (
    RETAIL_ITEM,
    RETAIL_PAGE,
    HardwareList,
    PriceList,
    RetailPrices,
    retail_item,
)

from unitune.backends import registry
from unitune.cost.prices.book import PriceBook
from unitune.cost.prices.refresh import changes
from unitune.errors import BackendError, NotFoundError, Unreachable, UserError
from unitune.testing.loopback import Fault, Server, serve
from unitune_providers import prices
from unitune_providers.prices import aws, azure

DAY = date(2026, 11, 25)
METERS = json.loads((Path(__file__).parent / "azure_meters.json").read_text())["meters"]
ITEMS: list[dict[str, JsonValue]] = [retail_item(*meter) for meter in METERS]
MACHINES: list[dict[str, JsonValue]] = [
    # huggingface_hub 2.4.0, docstring of JobHardwareInfo.
    {
        "name": "cpu-basic",
        "prettyName": "CPU Basic",
        "cpu": "2 vCPU",
        "ram": "16 GB",
        "ephemeralStorage": "20 GB",
        "accelerator": None,
        "unitCostMicroUSD": 167,
        "unitCostUSD": 0.000167,
        "unitLabel": "minute",
    },
    {
        "name": "a10g-small",
        "prettyName": "Nvidia A10G - small",
        "cpu": "4 vCPU",
        "ram": "15 GB",
        "ephemeralStorage": "110 GB",
        "accelerator": {
            "type": "gpu",
            "model": "A10G",
            "quantity": "1",
            "vram": "24 GB",
            "manufacturer": "Nvidia",
        },
        "unitCostMicroUSD": 16667,
        "unitCostUSD": 0.016667,
        "unitLabel": "minute",
    },
]


@pytest.fixture
def retail(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[RetailPrices, Server]]:
    vendor = RetailPrices(ITEMS)
    with serve(vendor) as server:
        monkeypatch.setenv(azure.URL_VARIABLE, f"{server.url}/api/retail/prices")
        yield vendor, server


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serve(HardwareList(MACHINES)) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.mark.usefixtures("retail")
def test_azures_offer_is_what_its_api_said_on_that_day() -> None:
    told = registry.price_reader("azure").read_prices(registry.offer("azure"), DAY)
    offered = [row for row in registry.offer("azure").price_rows() if row.model != "*"]
    assert {row.subject: row.usd for row in offered} == {row.subject: row.usd for row in told.rows}
    assert {row.source_kind for row in told.rows} == {"first-party-api"}
    confirmed = changes(PriceBook(), "azure", told)
    assert {change.changed for change in confirmed} == {False}


@pytest.mark.usefixtures("retail")
def test_azures_meters_that_contradict_themselves_are_left_out_and_told() -> None:
    told = registry.price_reader("azure").read_prices(registry.offer("azure"), DAY)
    wrong = ("gpt-4o-2024-08-06", "gpt-4o-mini-2024-07-18")
    assert {(model, "developer") for model in wrong} & {
        (row.model, row.tier) for row in told.rows if row.tuned
    } == set()
    assert all(any(model in note for note in told.notes) for model in wrong)


def test_the_double_of_azures_list_has_the_documented_fields(
    retail: tuple[RetailPrices, Server],
) -> None:
    """Source: learn.microsoft.com/rest/api/cost-management/retail-prices (its example)."""
    _, server = retail
    query = {"$filter": "startswith(productName, 'Azure OpenAI') and priceType eq 'Consumption'"}
    page: Any = prices.get("azure", f"{server.url}/api/retail/prices", query)
    assert tuple(page) == RETAIL_PAGE
    assert page["Count"] == len(page["Items"]) == 100
    for item in page["Items"]:
        assert item.keys() == RETAIL_ITEM.keys()
        for name, kind in RETAIL_ITEM.items():
            assert isinstance(item[name], int | Decimal if kind is float else kind)


def test_todays_price_is_neither_a_later_nor_an_earlier_one_nor_one_by_volume(
    retail: tuple[RetailPrices, Server],
) -> None:
    vendor, _ = retail
    meter = ("Azure OpenAI", "gpt-4.1-FT-Trng-glbl tkn Tokens", "1K")
    vendor.items = [
        retail_item(*meter, "0.021", "eastus", effectiveStartDate="2026-11-25T00:00:00Z"),
        retail_item(*meter, "0.025", "eastus", effectiveStartDate="2025-06-01T00:00:00Z"),
        retail_item(*meter, "0.099", "eastus", effectiveStartDate="2026-11-26T00:00:00Z"),
        retail_item(*meter, "0.001", "eastus", tierMinimumUnits=1000.0),
    ]
    (row,) = registry.price_reader("azure").read_prices(registry.offer("azure"), DAY).rows
    assert (row.usd, row.as_of) == (Decimal(21), DAY)


def test_azure_is_read_to_its_last_page(retail: tuple[RetailPrices, Server]) -> None:
    vendor, server = retail
    vendor.page = 7
    told = registry.price_reader("azure").read_prices(registry.offer("azure"), DAY)
    assert {row.usd for row in told.rows if row.model.startswith("gpt-4.1-2025")} >= {Decimal(25)}
    assert len(ITEMS) / 7 <= len(server.received("GET", "/api/retail/prices"))


def test_a_next_page_on_another_host_is_not_followed(retail: tuple[RetailPrices, Server]) -> None:
    vendor, _ = retail
    vendor.page, vendor.elsewhere = 7, "http://prices.example.com"
    with pytest.raises(BackendError, match="another host"):
        registry.price_reader("azure").read_prices(registry.offer("azure"), DAY)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gpt-4o-0806-FT-Trng-regnl tkn Tokens", "gpt-4o-2024-08-06 training regional -"),
        ("4.1 mini ft training Dz Tokens", "gpt-4.1-mini-2025-04-14 training data-zone -"),
        ("gpt-4.1-dev-ft cchd inpt glbl Tokens", "gpt-4.1-2025-04-14 cached-input developer -"),
        ("o4 mini dev RFT Training glb Unit", "o4-mini-2025-04-16 training developer rft"),
        ("GPT-OSS-20b-Out-FT Tokens", "gpt-oss-20b output - -"),
        ("OSS-20b FT Tokens", "gpt-oss-20b training - -"),
        ("3.3 70b FT regnl Deployment Hosting Unit", "Llama-3.3-70B-Instruct hosting regional -"),
        ("Mnstrl 3b Inp FT DZ Tokens", "Ministral-3B input data-zone -"),
        ("gpt-4.1-ft mdl grdr inpt Tokens", "gpt-4.1-2025-04-14 input grader -"),
        ("o3-mini-ft model grader output Tokens", "o3-mini-2025-01-31 output grader -"),
        ("text-embedding-3-large-grader Tokens", None),
        ("gpt 4.1 Inp glbl Tokens", None),
        ("babbage-002-FT-Inp-glbl Tokens", None),
    ],
)
def test_a_meters_name_says_what_it_measures(name: str, expected: str | None) -> None:
    meter = azure.meter_of(name)
    told = meter and f"{meter.model} {meter.kind} {meter.tier or '-'} {meter.method or '-'}"
    assert expected == told


def test_machines_by_the_minute_become_prices_of_an_hour(hub: Server) -> None:
    told = registry.price_reader("hf-jobs").read_prices(registry.offer("hf-jobs"), DAY)
    hours = {row.tier: f"{row.usd:f}" for row in told.rows}
    assert hours == {"cpu-basic": "0.01", "a10g-small": "1.00"}
    assert len(hub.received("GET", "/api/jobs/hardware")) == 1
    assert {one.changed for one in changes(PriceBook(), "hf-jobs", told)} == {False}


def test_hugging_faces_own_client_reads_the_same_list(
    hub: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    hf = pytest.importorskip("huggingface_hub", reason="needs the extra `local`")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # for loopback alone
    listed = hf.HfApi(endpoint=hub.url, token=False).list_jobs_hardware()
    assert [(one.name, one.unit_cost_micro_usd) for one in listed] == [
        ("cpu-basic", 167),
        ("a10g-small", 16667),
    ]


def test_a_rate_limit_is_waited_out_and_an_error_is_told(
    hub: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.inject_fault(Fault.RATE_LIMITED, "GET", "/api/jobs/hardware")
    monkeypatch.setattr("unitune.backends.retry.sleep", lambda _: None)
    reader, offer = registry.price_reader("hf-jobs"), registry.offer("hf-jobs")
    assert len(reader.read_prices(offer, DAY).rows) == 2
    hub.inject_fault(Fault.SERVER_ERROR, "GET", "/api/jobs/hardware", times=3)
    with pytest.raises(BackendError, match="HTTP 500"):
        reader.read_prices(offer, DAY)
    hub.inject_fault(Fault.CUT, "GET", "/api/jobs/hardware", times=3)
    with pytest.raises(Unreachable):
        reader.read_prices(offer, DAY)


def test_no_float_comes_out_of_a_price_list(hub: Server) -> None:
    answer = prices.get("huggingface", f"{hub.url}/api/jobs/hardware")
    assert isinstance(answer, list)
    costs = [machine["unitCostUSD"] for machine in answer]
    assert costs == [Decimal("0.000167"), Decimal("0.016667")]


def test_a_list_in_another_shape_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(HardwareList([{"name": "h200", "unitCostUSD": 0.1}])) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        with pytest.raises(BackendError, match="for 'h200'"):
            registry.price_reader("hf-jobs").read_prices(registry.offer("hf-jobs"), DAY)


def test_openai_says_when_its_models_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    from vendors.openai.vendor import KEY, OpenAIVendor  # noqa: PLC0415

    names = [model.name for model in registry.offer("openai").models]
    vendor = OpenAIVendor(bases=names[:-1], shutdown_dates={names[0]: "2027-02-28"})
    with serve(vendor) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        told = registry.price_reader("openai").read_prices(registry.offer("openai"), DAY)
    (update,) = told.models
    assert (names[0], date(2027, 2, 28)) == (update.model, update.retires_on)
    (change,) = changes(PriceBook(), "openai", told)
    assert (change.before, change.after) == ("2027-01-14", "2027-02-28")
    assert f"{names[1]}: no end date announced" in told.notes
    assert f"{names[-1]}: not in the list for this key" in told.notes


def test_openai_needs_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(UserError, match="OPENAI_API_KEY"):
        registry.price_reader("openai").read_prices(registry.offer("openai"), DAY)


def test_together_says_what_its_models_take(monkeypatch: pytest.MonkeyPatch) -> None:
    from vendors.together.jobs import MODELS  # noqa: PLC0415 - needs the SDK
    from vendors.together.vendor import KEY, TogetherVendor  # noqa: PLC0415 - likewise

    with serve(TogetherVendor()) as server:
        monkeypatch.setenv("TOGETHER_BASE_URL", server.url)
        monkeypatch.setenv("TOGETHER_API_KEY", KEY)
        told = registry.price_reader("together").read_prices(registry.offer("together"), DAY)
    assert set(MODELS) == {update.model for update in told.models}
    assert {
        (one.limits.epochs_most, one.limits.row_tokens) for one in told.models if one.limits
    } == {(20, 32768)}
    assert any("Qwen/Qwen3-14B: not tuned by Together" in note for note in told.notes)


def test_who_tells_nothing_by_machine_is_named_with_those_that_do() -> None:
    with pytest.raises(NotFoundError, match="azure, bedrock, hf-jobs, mantle, openai, together"):
        registry.price_reader("vertex")


BEDROCK_METERS = {
    "us-east-1": [
        # As public programs quote the list of 2026-08-02 and 2026-08-21.
        ("USE1-Nova2.0Lite-Customization-Training", "1K tokens", "0.0037800000"),
        ("USE1-Nova2.0Lite-Customization-Storage", "Model Month", "1.9500000000"),
        ("USE1-Nova2.0Lite-input-tokens-custom-model", "1K tokens", "0.0003000000"),
        ("USE1-Nova2.0Lite-output-tokens-custom-model", "1K tokens", "0.0025000000"),
        ("USE1-Nova2.0Lite-input-tokens", "1K tokens", "0.0003300000"),
        ("USE1-Nova2.0Lite-ProvisionedThroughput-NoCommit-ModelUnits", "hour", "60.50"),
        ("USE1-Nova2.0Lite-RFT-Training-Hours", "Hours", "100.00"),
        ("USE1-NovaMicro-Customization-Training", "1K tokens", "0.0010000000"),
        ("USE1-NovaCanvas-Customization-Training", "image", "0.005"),
        ("USE1-Guardrail-ContentPolicyUnitsConsumed", "1K text units", "0.15"),
    ],
    "us-west-2": [
        ("USW2-Llama3-3-70B-Customization-Training", "1K tokens", "0.0079900000"),
        ("USW2-Llama3-1-8B-Customization-Training", "1K tokens", "0.0014900000"),
        ("USW2-Nova2.0Lite-Customization-Training", "1K tokens", "0.0041600000"),
        ("USW2-gpt-oss-20b-RFT-Training-Hours", "Hours", "80.00"),
    ],
}


@pytest.fixture
def price_list(monkeypatch: pytest.MonkeyPatch) -> Iterator[PriceList]:
    vendor = PriceList(BEDROCK_METERS)
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with serve(vendor) as server:
        monkeypatch.setenv(aws.URL_VARIABLE, server.url)
        yield vendor


@pytest.mark.usefixtures("price_list")
def test_bedrocks_prices_of_customization_are_read_from_awss_price_list() -> None:
    told = registry.price_reader("bedrock").read_prices(registry.offer("bedrock"), DAY)
    known = {(row.model, row.kind, row.method): (row.written, row.per) for row in told.rows}
    assert known == {
        ("amazon.nova-2-lite-v1:0:256k", "training", None): ("3.78-4.16", "million-tokens"),
        ("amazon.nova-2-lite-v1:0:256k", "storage", None): ("1.95", "month"),
        ("amazon.nova-2-lite-v1:0:256k", "input", None): ("0.30", "million-tokens"),
        ("amazon.nova-2-lite-v1:0:256k", "output", None): ("2.50", "million-tokens"),
        ("amazon.nova-micro-v1:0:128k", "training", None): ("1.00", "million-tokens"),
        ("meta.llama3-3-70b-instruct-v1:0:128k", "training", None): ("7.99", "million-tokens"),
        ("meta.llama3-1-8b-instruct-v1:0:128k", "training", None): ("1.49", "million-tokens"),
    }
    assert {row.source_kind for row in told.rows} == {"first-party-api"}
    assert "amazon.nova-pro-v1:0:300k: no training price is listed" in told.notes
    assert any(note.startswith("end dates of models were not read") for note in told.notes)


@pytest.mark.usefixtures("price_list")
def test_mantles_hours_of_training_are_read_from_the_same_list() -> None:
    told = registry.price_reader("mantle").read_prices(registry.offer("mantle"), DAY)
    (row,) = told.rows
    assert (
        row.model,
        row.method,
        row.written,
        row.per,
    ) == ("openai.gpt-oss-20b", "rft", "80.00", "hour")


def test_a_price_list_in_another_shape_is_refused(price_list: PriceList) -> None:
    price_list.meters = {}
    with pytest.raises(BackendError, match="documented format"):
        registry.price_reader("bedrock").read_prices(registry.offer("bedrock"), DAY)


def test_bedrock_says_when_its_bases_stop(
    price_list: PriceList, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("boto3", reason="needs the extra `bedrock`")
    from vendors.bedrock.storage import S3Storage  # noqa: PLC0415 - needs the SDK
    from vendors.bedrock.vendor import BedrockVendor, environment  # noqa: PLC0415 - likewise

    name = "meta.llama3-3-70b-instruct-v1:0:128k"
    vendor = BedrockVendor(S3Storage("http://127.0.0.1:1"))
    vendor.ends[name] = "2027-03-30T00:00:00Z"
    assert price_list.meters
    with serve(vendor) as server:
        for variable, value in environment(server.url, server.url).items():
            monkeypatch.setenv(variable, value)
        told = registry.price_reader("bedrock").read_prices(registry.offer("bedrock"), DAY)
    assert [(update.model, update.retires_on) for update in told.models] == [
        (name, date(2027, 3, 30))
    ]
