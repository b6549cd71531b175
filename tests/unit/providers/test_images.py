"""Images reach each vendor: checked against its rules, uploaded, asked about, and shown."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("google.auth", reason="needs the vendors' extras")
pytest.importorskip("boto3", reason="needs the vendors' extras")

from support.images import BLUE, GREEN, RED, asked, padded_png, png, row, uri
from support.rows import write_rows
from vendors.serving import VENDORS

from unitune.backends import registry
from unitune.backends.judge_requests import request_of
from unitune.data.check import read_job
from unitune.data.example import Example
from unitune.errors import DataError
from unitune.evaluate.compare import compare
from unitune.evaluate.readiness import readiness_findings
from unitune.findings import Finding
from unitune.job.job import Job
from unitune.models import Request
from unitune.planning.plan import plan
from unitune.report.files import write_report
from unitune.run.run import launch
from unitune.scorers.judge import Judge
from unitune.testing.vendor_setup import ServerBehavior, serve_vendor
from unitune_providers.anthropic import message_body
from unitune_providers.bedrock.chat import converse_request
from unitune_providers.vertex.chat import question

COLOURS = {"red": RED, "green": GREEN, "blue": BLUE}
MODELS = {
    "openai": "gpt-4o-2024-08-06",
    "azure": "gpt-4.1-2025-04-14",
    "together": "Qwen/Qwen3-VL-8B-Instruct",
    "fireworks": "accounts/fireworks/models/qwen3-vl-8b-instruct",
    "vertex": "gemini-3.5-flash",
    "bedrock": "amazon.nova-lite-v1:0:300k",
}


def job(folder: Path, backend: str, rows: list[Any], model: str | None = None, **more: Any) -> Job:
    write_rows(folder / "train.jsonl", rows)
    apart = [{"prompt": "What is the capital of Peru?", "completion": "Lima"}]
    write_rows(folder / "validation.jsonl", apart)
    content = {
        "name": "colours",
        "backend": backend,
        "model": {backend: model or MODELS.get(backend, "m")},
        "data": {"train": "train.jsonl", "validation": "validation.jsonl", **more.pop("data", {})},
        "folder": folder,
        **more,
    }
    return Job.model_validate(content)


def pictures(count: int = 12) -> list[Any]:
    """Return rows about squares of as many different colours."""
    return [row(uri(png(colour=(at, 9 * at, 200))), f"shade {at}") for at in range(count)]


def errors(job: Job) -> list[Finding]:
    return [each for each in plan(job).findings if each.code in CODES]


CODES = ("no-images", "unfit-image", "too-many-images")


@pytest.mark.parametrize("backend", MODELS)
def test_rows_with_images_are_planned_at_each_vendor_that_sees(
    tmp_path: Path, backend: str
) -> None:
    made = plan(job(tmp_path, backend, pictures()))
    assert [each for each in made.findings if each.code in CODES] == []
    (note,) = (each for each in made.findings if each.code == "images")
    assert "images in training rows: 12 in 12," in note.message
    assert re.search(r"\(20\d\d-\d\d\)", note.message), "the rules have a source and a date"


@pytest.mark.parametrize(
    ("backend", "wrong", "words"),
    [
        ("openai", row("https://example.com/a.png"), None),
        ("together", row("https://example.com/a.png"), "has a https: address; together accepts"),
        ("fireworks", row("https://example.com/a.png"), "has a https: address; fireworks accepts"),
        ("openai", row("gs://b/a.png"), "has a gs: address; openai accepts embedded images and"),
        ("openai", row(uri(png(grey=True))), "has the colour mode L; openai accepts RGB and RGBA"),
        ("together", row(uri(png(grey=True))), None),
        ("openai", row(uri(padded_png(10 << 20))), "bytes; openai accepts 10,485,760"),
        ("azure", row(uri(padded_png(10 << 20))), "bytes; azure accepts 10,485,760"),
        ("together", row(uri(padded_png(10 << 20))), "bytes; together accepts 10,485,760"),
        ("vertex", row(uri(padded_png(10 << 20))), None),
        ("fireworks", row("a.gif"), "is gif; fireworks accepts jpeg, png"),
        ("openai", row("a.gif"), "a.gif, 1\u00d71], is gif; openai accepts jpeg, png, webp"),
        ("bedrock", row("a.gif"), None),
    ],
)
def test_an_image_that_a_vendor_does_not_take_is_refused_by_line(
    tmp_path: Path, backend: str, wrong: Any, words: str | None
) -> None:
    gif = b"GIF89a\1\0\1\0\x80\0\0" + bytes(6) + b",\0\0\0\0\1\0\1\0\0\2\2D\1\0;"
    (tmp_path / "a.gif").write_bytes(gif)
    found = errors(job(tmp_path, backend, [*pictures(), wrong]))
    if words is None:
        assert found == []
        return
    (finding,) = found
    assert (finding.code, finding.line, finding.file) == ("unfit-image", 13, "train.jsonl")
    assert words in finding.message
    assert finding.message.startswith("messages[0].content[1], [image: ")


@pytest.mark.parametrize(("backend", "most"), [("openai", 10), ("azure", 64), ("vertex", 30)])
def test_more_images_in_a_row_than_a_vendor_takes(tmp_path: Path, backend: str, most: int) -> None:
    part = asked(uri(png()))["content"][1]
    answer = {"role": "assistant", "content": "red"}
    rows = [
        {"messages": [{"role": "user", "content": [part] * count}, answer]}
        for count in (most, most + 1)
    ]
    (finding,) = errors(job(tmp_path, backend, [*pictures(), *rows]))
    assert (finding.code, finding.line) == ("too-many-images", 14)
    assert finding.message.startswith(f"the row has {most + 1} images; {backend} accepts {most} ")


@pytest.mark.parametrize("backend", ["openai", "vertex", "together"])
def test_a_vendor_without_detail_is_named(tmp_path: Path, backend: str) -> None:
    rows = [
        *pictures(),
        {"messages": [asked(uri(png()), detail="low"), pictures()[0]["messages"][1]]},
    ]
    found = [
        each for each in plan(job(tmp_path, backend, rows)).findings if each.code == "image-detail"
    ]
    assert len(found) == (backend != "openai")
    assert all("set for 1 of the images" in each.message for each in found)


def test_images_of_the_test_are_refused_for_models_that_run_here(tmp_path: Path) -> None:
    write_rows(tmp_path / "test.jsonl", [{"prompt": "q", "completion": "a"}, *pictures()])
    server = {"type": "server", "url": "http://127.0.0.1:1/v1", "model": "m", "role": "candidate"}
    server["prompt"] = "zero-shot"

    def of(*contenders: Any, scorers: Any = ("exact",)) -> Job:
        data = {"train": None, "validation": None, "test": "test.jsonl"}
        own = job(tmp_path, "local", [], "smollm2-135m-instruct", data=data)
        evaluate = {"scorers": scorers, "contenders": contenders}
        return Job.model_validate({**own.model_dump(), "evaluate": evaluate, "folder": tmp_path})

    with pytest.raises(
        DataError, match=r"test\.jsonl:2: .*image, but 'zero-shot' runs on your own"
    ):
        compare(of("zero-shot", server))
    judge = {"type": "judge", "backend": "local", "model": "m", "rubric": ["It is right."]}
    served = of({**server, "name": "b", "role": "baseline"}, server, scorers=["exact", judge])
    with pytest.raises(DataError, match=r"but 'judge' runs .* Set `images: false` for this judge"):
        compare(served)
    own = of({**server, "name": "b", "role": "baseline"}, server)
    assert "no-images" not in {each.code for each in readiness_findings(own, read_job(own))}


@pytest.mark.parametrize(
    ("backend", "model"),
    [
        ("openai", "gpt-4.1-mini-2025-04-14"),
        ("azure", "gpt-4.1-mini-2025-04-14"),
        ("together", "Qwen/Qwen3-8B"),
        ("fireworks", "accounts/fireworks/models/qwen3-8b"),
        ("bedrock", "amazon.nova-micro-v1:0:128k"),
        ("nebius", "meta-llama/Meta-Llama-3.1-8B-Instruct"),
        ("local", "smollm2-135m-instruct"),
        ("tinker", "Qwen/Qwen3-8B"),
        ("hf-jobs", "Qwen/Qwen3-0.6B"),
    ],
)
def test_a_model_that_sees_no_images_is_named_with_those_that_do(
    tmp_path: Path, backend: str, model: str
) -> None:
    (finding,) = errors(job(tmp_path, backend, pictures(), model))
    assert (finding.code, finding.line) == ("no-images", 1)
    assert f"{backend} does not train {model} on images" in finding.message
    assert "vertex (gemini-3.5-flash" in finding.fix
    assert ("see text only" in finding.fix) == registry.offer(backend).is_own


def test_images_cost_their_tokens(tmp_path: Path) -> None:
    texts = [
        {"messages": [{"role": "user", "content": "Which colour is this?"}, each["messages"][1]]}
        for each in pictures()
    ]
    with_images = plan(job(tmp_path, "openai", pictures())).estimate
    without = plan(job(tmp_path, "openai", texts)).estimate
    assert with_images is not None
    assert without is not None
    assert with_images.epoch_tokens is not None
    assert without.epoch_tokens is not None
    assert with_images.launch_usd is not None
    assert without.launch_usd is not None
    added = with_images.epoch_tokens.expected - without.epoch_tokens.expected
    assert added == 12 * (85 + 170)  # of 64 x 48 pixels, a tile each
    assert with_images.launch_usd.expected > without.launch_usd.expected


def test_requests_show_the_same_image_to_each_vendor() -> None:
    example = Example.model_validate(row(uri(png()), detail="low"))
    request = Request(messages=example.messages[:1], max_tokens=5)
    data = uri(png()).partition(",")[2]
    anthropic: Any = message_body("claude-haiku-4-5", request)
    assert anthropic["messages"][0]["content"] == [
        {"type": "text", "text": "Which colour is this?"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}},
    ]
    converse = converse_request("nova", request)["messages"][0]["content"]
    assert converse[1] == {"image": {"format": "png", "source": {"bytes": png()}}}
    plain = Request(messages=Example.model_validate(row(uri(png()))).messages[:1], max_tokens=5)
    gemini: Any = question(plain)
    assert gemini["contents"][0]["parts"][1]["inlineData"] == {
        "mimeType": "image/png",
        "data": data,
    }
    linked = Example.model_validate(row("https://example.com/a.png")).messages[:1]
    body: Any = message_body("claude", Request(messages=linked, max_tokens=5))
    assert body["messages"][0]["content"][1]["source"]["type"] == "url"
    types = pytest.importorskip("anthropic.types", reason="needs anthropic")
    from pydantic import TypeAdapter  # noqa: PLC0415 - with the package above

    TypeAdapter(types.MessageParam).validate_python(anthropic["messages"][0])


@pytest.mark.parametrize("backend", ["bedrock", "vertex"])
def test_stored_images_are_uploaded_once_beside_the_training_file(
    tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNITUNE_DIR", str(tmp_path / "home"))
    form = {"bedrock": "bedrock-nova", "vertex": "vertex-sft"}[backend]
    from unitune.backends.formats import wire_format  # noqa: PLC0415 - for this test alone

    rows = [wire_format(form).encode(Example.model_validate(each)) for each in pictures(3)]
    file = write_rows(tmp_path / "train.jsonl", [*rows, rows[0]])
    with serve_vendor(VENDORS[backend]) as vendor:
        uploaded = registry.backend(backend).upload(file, "ab" * 32)
        text = _stored(vendor, uploaded.ref).decode()
        scheme = {"bedrock": "s3", "vertex": "gs"}[backend]
        places = re.findall(rf'"({scheme}://[^"]*/images/[0-9a-f]{{64}}\.png)"', text)
        assert len(places) == 4
        assert len(set(places)) == 3
        assert '"bytes"' not in text
        assert "inlineData" not in text
        assert _stored(vendor, places[1]) == png(colour=(1, 9, 200))
        back = [wire_format(form).decode(json.loads(line)) for line in text.splitlines()]
        assert [each.messages[0].images[0].url for each in back] == places


def _stored(vendor: Any, address: str) -> bytes:
    storage = vendor.server.vendor.storage
    if address.startswith("gs:"):
        return storage.objects[address].content
    return storage.read(address)


@pytest.mark.parametrize("backend", ["openai", "together"])
def test_from_rows_to_a_report_with_thumbnails(
    tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNITUNE_DIR", str(tmp_path / "home"))
    monkeypatch.setattr("vendors.together.jobs.MODELS", ("Qwen/Qwen3-VL-8B-Instruct",))
    monkeypatch.setattr("vendors.together.vendor.MODELS", ("Qwen/Qwen3-VL-8B-Instruct",))
    for name, colour in COLOURS.items():
        (tmp_path / f"{name}.png").write_bytes(png(320, 240, colour))
    tests = [row(f"{name}.png", name, f"Square {name[0]}?", id=name) for name in COLOURS]
    write_rows(tmp_path / "test.jsonl", tests)
    contenders = [{"type": "zero-shot"}, {"type": "tuned"}]
    demo = job(
        tmp_path,
        backend,
        pictures(),
        data={"test": "test.jsonl"},
        evaluate={"contenders": contenders, "scorers": ["exact"]},
    )
    replies = {f"Square {name[0]}?": name for name in COLOURS}
    setup = VENDORS[backend]
    behavior = ServerBehavior(queued_polls=0, steps=1, replies=replies)
    with serve_vendor(setup, behavior) as vendor:
        run = launch(demo, allow_unpriced=True).wait(0.01)
        assert run.state == "succeeded", run.error
        found = compare(
            demo,
            run,
            out=tmp_path / "out",
            deploy_seconds=3600,
            deploy_options={"config": "cr_one"} if backend == "together" else None,
            allow_unpriced=True,
        )
        requests = vendor.server.received("POST", r"chat/completions")
    sent = [json.loads(each.body)["messages"][-1]["content"] for each in requests]
    assert {part["image_url"]["url"] for content in sent for part in content[1:]} == {
        uri(png(320, 240, colour)) for colour in COLOURS.values()
    }
    answers = {each.id: each.answers[found.candidate].text for each in found.cases}
    assert answers == {name: name for name in COLOURS}
    page = write_report(found, tmp_path / "out").read_text(encoding="utf-8")
    for name, colour in COLOURS.items():
        assert f'<img class="thumbnail" src="{uri(png(320, 240, colour))}"' in page
        assert f"[image: {name}.png, 320\u00d7240]" in page
    assert "https://" not in "".join(re.findall(r'<img[^>]*src="([^"]*)"', page))
    assert "img-src data:" in page


def test_models_on_this_machine_refuse_images() -> None:
    rendering = pytest.importorskip(
        "unitune_local.data.rendering", reason="needs the extra `local`"
    )
    text = pytest.importorskip("unitune_local.data.chat_text")
    turns = Example.model_validate(row(uri(png()))).messages[:1]
    with pytest.raises(text.TemplateError, match="see text only"):
        rendering.completed_text(turns)
    with pytest.raises(text.TemplateError, match="see text only"):
        text.refuse_images([replace(turns[0])])


def test_a_judge_sees_images_unless_told_otherwise() -> None:
    image = {"type": "image_url", "image_url": {"url": uri(png()), "name": "cat.png"}}
    question = {"role": "user", "content": [{"type": "text", "text": "What is it?"}, image]}
    case = Example.model_validate({"messages": [question, {"role": "assistant", "content": "A"}]})
    judge = Judge(model="m", backend="openai", rubric=("It is right.",))
    sent = request_of(judge, case, ["A cat."]).messages[-1]
    assert "What is it? [image: cat.png, " in sent.text
    assert [each.url for each in sent.images] == [uri(png())]
    (text,) = request_of(judge.model_copy(update={"images": False}), case, ["A cat."]).messages[1:]
    assert text.content == sent.text
