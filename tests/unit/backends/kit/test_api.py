"""`Api` holds the house's rules for every hosted backend; respx plays the vendor."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from itertools import count
from typing import Any

import httpx
import pytest
import respx

from unitune.backends.kit.api import Api, by_last_id, by_token, created_id, multipart
from unitune.backends.kit.errors import Endpoint, Vendor
from unitune.backends.kit.hosted import create_named
from unitune.errors import BackendError, Unreachable
from unitune.security.json_fields import Fields

URL = "https://api.example.com/v1"
KEY = "sk-secret-of-this-test"


@pytest.fixture
def api() -> Api:
    vendor = Vendor("mine", "MY_KEY", secrets=(KEY,))
    return Api(Endpoint(vendor, URL, {"Authorization": f"Bearer {KEY}"}))


@pytest.fixture
def vendor() -> Iterator[respx.MockRouter]:
    with respx.mock(base_url=URL, assert_all_called=False) as router:
        yield router


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    slept = list[float]()
    monkeypatch.setattr("unitune.backends.retry.sleep", slept.append)
    return slept


def test_get_sends_the_key_and_reads_json(api: Api, vendor: respx.MockRouter) -> None:
    job = vendor.get("/jobs/j1").respond(json={"state": "running"})
    assert api.get("jobs", "j1", action="read job j1").text("state") == "running"
    assert job.calls.last.request.headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_read_is_repeated(api: Api, vendor: respx.MockRouter, status: int) -> None:
    job = vendor.get("/jobs/j1").mock(
        side_effect=[
            httpx.Response(status),
            httpx.ConnectError("away"),
            httpx.Response(200, json={}),
        ]
    )
    api.get("jobs", "j1", action="read job j1")
    assert job.call_count == 3


def test_read_is_given_up_with_the_vendors_own_words(api: Api, vendor: respx.MockRouter) -> None:
    body = {"error": {"message": f"overloaded, {KEY}", "code": "busy"}}
    vendor.get("/jobs").respond(503, json=body, headers={"x-request-id": "req-1"})
    with pytest.raises(BackendError) as error:
        api.get("jobs", action="list jobs")
    assert error.value.status == 503
    assert error.value.request_id == "req-1"
    assert "could not list jobs: overloaded" in str(error.value)
    assert KEY not in str(error.value)


def test_retry_after_is_waited_for(api: Api, vendor: respx.MockRouter, waits: list[float]) -> None:
    vendor.get("/jobs").mock(
        side_effect=[
            httpx.Response(429, headers={"retry-after": "7"}),
            httpx.Response(200, json={}),
        ]
    )
    api.get("jobs", action="list jobs")
    assert waits == [7.0]


def test_wait_of_an_hour_is_an_error_at_once(
    api: Api, vendor: respx.MockRouter, waits: list[float]
) -> None:
    vendor.get("/jobs").respond(429, headers={"retry-after": "3600"})
    with pytest.raises(BackendError) as error:
        api.get("jobs", action="list jobs")
    assert error.value.retry_after == 3600
    assert waits == []


@pytest.mark.parametrize(
    "failure", [httpx.Response(500), httpx.ReadTimeout("slow"), httpx.Response(200, text="{broken")]
)
def test_write_is_sent_once_and_its_outcome_is_open(
    api: Api, vendor: respx.MockRouter, failure: Any
) -> None:
    create = vendor.post("/jobs").mock(side_effect=[failure])
    with pytest.raises(BackendError) as error:
        api.post("jobs", action="create the job", body={})
    assert error.value.is_ambiguous
    assert create.call_count == 1


def test_refused_write_created_nothing(api: Api, vendor: respx.MockRouter) -> None:
    vendor.post("/jobs").respond(400, json={"message": "no such model"})
    with pytest.raises(BackendError, match="no such model") as error:
        api.post("jobs", action="create the job", body={})
    assert not error.value.is_ambiguous


def test_redirect_is_not_followed(api: Api, vendor: respx.MockRouter) -> None:
    elsewhere = vendor.get("https://evil.example.org/").respond(json={})
    vendor.get("/jobs").respond(307, headers={"location": "https://evil.example.org/"})
    with pytest.raises(BackendError, match="redirects are not followed"):
        api.get("jobs", action="list jobs")
    assert not elsewhere.called


def test_what_is_gone_is_none_and_no_error(api: Api, vendor: respx.MockRouter) -> None:
    vendor.get("/jobs/j1").respond(404)
    vendor.delete("/jobs/j1").respond(404)
    assert api.find("jobs", "j1", action="find job j1") is None
    api.delete("jobs", "j1", action="delete job j1")


@pytest.mark.parametrize("name", ["..", ".", ""])
def test_name_that_leads_elsewhere_is_refused(
    api: Api, vendor: respx.MockRouter, name: str
) -> None:
    anything = vendor.route().respond(json={})
    with pytest.raises(BackendError, match="not a valid path"):
        api.get("jobs", name, action="read the job")
    assert not anything.called


def test_name_is_encoded(api: Api, vendor: respx.MockRouter) -> None:
    vendor.get(url=f"{URL}/jobs/a%2Fb%3Fc").respond(json={"id": "x"})
    assert api.get("jobs", "a/b?c", action="read the job").text("id") == "x"


def test_pages_yield_each_item_once(api: Api, vendor: respx.MockRouter) -> None:
    pages = [("a", "b"), ("b", "c"), ("c",)]
    vendor.get("/jobs").mock(
        side_effect=[
            httpx.Response(200, json={"data": [{"id": name} for name in page], "has_more": True})
            for page in pages
        ]
    )
    listed = api.pages("jobs", action="list jobs", next_page=by_last_id())
    assert [item.text("id") for item in listed] == ["a", "b", "c"]


def test_pages_follow_tokens(api: Api, vendor: respx.MockRouter) -> None:
    vendor.get("/jobs", params={"pageToken": "two"}).respond(json={"jobs": [{"name": "b"}]})
    vendor.get("/jobs").respond(json={"jobs": [{"name": "a"}], "nextPageToken": "two"})
    listed = api.pages("jobs", action="list jobs", next_page=by_token(), items="jobs")
    assert [item.text("name") for item in listed] == ["a", "b"]


def test_empty_page_that_names_another_is_not_the_last(api: Api, vendor: respx.MockRouter) -> None:
    vendor.get("/jobs", params={"pageToken": "two"}).respond(json={"jobs": [{"name": "b"}]})
    vendor.get("/jobs").respond(json={"jobs": [], "nextPageToken": "two"})
    listed = api.pages("jobs", action="list jobs", next_page=by_token(), items="jobs")
    assert [item.text("name") for item in listed] == ["b"]


def test_list_whose_pages_go_round_ends(api: Api, vendor: respx.MockRouter) -> None:
    page = vendor.get("/jobs").respond(json={"jobs": [{"name": "a"}], "nextPageToken": "again"})
    listed = api.pages("jobs", action="list jobs", next_page=by_token(), items="jobs")
    assert [item.text("name") for item in listed] == ["a"]
    assert page.call_count == 2


def test_list_of_empty_pages_without_end_ends(api: Api, vendor: respx.MockRouter) -> None:
    names = count()
    vendor.get("/jobs").mock(
        side_effect=lambda _: httpx.Response(200, json={"nextPageToken": f"t{next(names)}"})
    )
    listed = api.pages("jobs", action="list jobs", next_page=by_token(), items="jobs")
    assert list(listed) == []


def test_line_without_end_is_refused(api: Api, vendor: respx.MockRouter) -> None:
    vendor.get("/files/f1").respond(content=b"x" * (20 << 20))
    with pytest.raises(Unreachable, match="a line of more than"):
        list(api.lines("files", "f1", action="read file f1"))


def test_time_without_a_zone_is_utc() -> None:
    told = Fields({"at": "2026-11-27T00:00:00", "zoned": "2026-11-27T01:00:00+01:00"})
    assert told.time("at") == told.time("zoned") == 1795737600.0


def test_body_without_end_is_refused(api: Api, vendor: respx.MockRouter) -> None:
    bomb = gzip.compress(b"0" * (64 << 20))
    vendor.get("/jobs").respond(content=bomb, headers={"content-encoding": "gzip"})
    with pytest.raises(Unreachable, match="longer than"):
        api.get("jobs", action="list jobs")


def test_compressed_content_is_whole(api: Api, vendor: respx.MockRouter) -> None:
    rows = b'{"a": 1}\n' * 1000
    packed = gzip.compress(rows)
    vendor.get("/files/f1").respond(content=packed, headers={"content-encoding": "gzip"})
    assert api.content("files", "f1", action="read file f1") == rows


def test_file_is_sent_once_as_a_form(api: Api, vendor: respx.MockRouter) -> None:
    upload = vendor.post("/files").respond(500)
    form = {"data": {"purpose": "fine-tune"}, **multipart("a.jsonl", io.BytesIO(b"{}\n"))}
    with pytest.raises(BackendError):
        api.request("POST", "files", action="take the file", **form)
    assert upload.call_count == 1
    sent = upload.calls.last.request.content
    assert b'name="purpose"' in sent
    assert b'filename="a.jsonl"' in sent


def test_resource_that_is_there_already_is_the_same(api: Api, vendor: respx.MockRouter) -> None:
    vendor.post("/jobs", params={"jobId": "r1"}).respond(409, json={"message": "exists"})
    vendor.get("/jobs/r1").respond(json={"name": "r1"})
    create_named(api, "jobs", parameter="jobId", name="r1", action="create r1", body={})


def test_conflict_with_something_else_is_an_error(api: Api, vendor: respx.MockRouter) -> None:
    vendor.post("/jobs", params={"jobId": "r1"}).respond(409, json={"message": "account is busy"})
    vendor.get("/jobs/r1").respond(404)
    with pytest.raises(BackendError, match="account is busy"):
        create_named(api, "jobs", parameter="jobId", name="r1", action="create r1", body={})


def test_create_call_whose_answer_names_nothing_is_open(api: Api) -> None:
    with pytest.raises(Unreachable, match="without the field"):
        created_id(Fields({"object": "job"}), api.endpoint)


def test_file_may_lie_elsewhere_and_the_key_stays_here(api: Api, vendor: respx.MockRouter) -> None:
    elsewhere = "https://storage.example.org/f1?signature=1"
    stored = vendor.get(elsewhere).respond(content=b"rows", headers={"content-type": "x-tar"})
    vendor.get("/files/f1").respond(302, headers={"location": elsewhere})
    assert api.content("files", "f1", action="read file f1") == b"rows"
    file = io.BytesIO()
    assert api.download("files", "f1", action="read file f1", file=file) == "x-tar"
    assert file.getvalue() == b"rows"
    assert "authorization" not in stored.calls.last.request.headers


def test_redirect_at_the_vendor_itself_gets_the_key(api: Api, vendor: respx.MockRouter) -> None:
    vendor.get("/files/f1").respond(302, headers={"location": "/v1/files/f2"})
    moved = vendor.get("/files/f2").respond(content=b"rows")
    assert api.content("files", "f1", action="read file f1") == b"rows"
    assert moved.calls.last.request.headers["authorization"] == f"Bearer {KEY}"


def test_redirects_without_end_are_an_error(api: Api, vendor: respx.MockRouter) -> None:
    vendor.get("/files/f1").respond(302, headers={"location": "/v1/files/f1"})
    with pytest.raises(BackendError, match="too many redirects"):
        api.content("files", "f1", action="read file f1")


def test_expected_status_is_returned(api: Api, vendor: respx.MockRouter) -> None:
    vendor.post("/files").respond(302, headers={"location": "https://s.example.org/1"})
    response = api.request("POST", "files", action="take it", expected=(302,))
    assert (response.status, response.headers["location"]) == (302, "https://s.example.org/1")
    with pytest.raises(BackendError, match="redirects are not followed"):
        api.request("POST", "files", action="take it")


def test_file_for_an_endpoint_without_key_is_sent_as_it_is(
    api: Api, vendor: respx.MockRouter
) -> None:
    stored = vendor.put("https://s.example.org/1").respond(text="stored, not JSON")
    signed = Api(Endpoint(api.endpoint.vendor, "https://s.example.org/1"))
    signed.request("PUT", action="take it", content=io.BytesIO(b"rows"))
    sent = stored.calls.last.request
    assert (sent.content, sent.headers["content-length"]) == (b"rows", "4")
    assert "authorization" not in sent.headers


def test_of_a_traceback_the_last_error_is_shown(api: Api, vendor: respx.MockRouter) -> None:
    """As Ray 2.60.0 answers where a submission id is taken."""
    text = (
        "Traceback (most recent call last):\n"
        '  File "job_head.py", line 134, in _raise_error\n'
        "RuntimeError: Request failed with status code 400: Traceback (most recent call last):\n"
        '  File "job_manager.py", line 553, in submit_job\n'
        "    raise ValueError(\n"
        "ValueError: Job with submission_id r1-1 already exists.\n.\n"
    )
    vendor.post("/jobs").respond(500, text=text)
    with pytest.raises(BackendError) as error:
        api.post("jobs", action="create job r1-1", body={})
    shown = (
        "could not create job r1-1: ValueError: Job with submission_id r1-1 already exists (HTTP"
    )
    assert shown in str(error.value)
    assert "Traceback" not in str(error.value)
