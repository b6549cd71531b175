"""Rows with images, held against what each vendor publishes, and back again."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import TypeAdapter
from support.images import asked, png, row, uri
from unit.data.formats.test_descriptions import SPEC, fits

from unitune.backends.formats import UnrepresentableRow, convert_file, wire_format
from unitune.data.example import Example

EMBEDDED = Example.model_validate(row(uri(png())))
DETAILED = Example.model_validate(
    {"messages": [asked(uri(png()), detail="low"), {"role": "assistant", "content": "red"}]}
)


def referring(url: str) -> Example:
    return Example.model_validate(row(url))


@pytest.mark.parametrize(
    ("name", "example"),
    [
        ("openai-chat", EMBEDDED),
        ("openai-chat", DETAILED),
        ("openai-chat", referring("https://example.com/a.png")),
        ("fireworks-chat", EMBEDDED),
        ("together-chat", EMBEDDED),
        ("vertex-sft", EMBEDDED),
        ("vertex-sft", referring("gs://bucket/a.jpg")),
        ("vertex-sft", referring("https://example.com/a.webp")),
        ("bedrock-nova", EMBEDDED),
        ("bedrock-nova", referring("s3://bucket/a.png")),
    ],
)
def test_a_row_with_an_image_comes_back_unchanged(name: str, example: Example) -> None:
    form = wire_format(name)
    wire = json.loads(json.dumps(form.encode(example)))
    assert form.encode(form.decode(wire)) == wire
    assert form.decode(wire).input_key == example.input_key


@pytest.mark.parametrize(
    ("name", "example", "words"),
    [
        ("openai-chat", referring("gs://bucket/a.png"), "embedded images .* and https:"),
        ("openai-chat", referring("cat.png"), "only embedded images"),
        ("together-chat", referring("https://example.com/a.png"), "only embedded images"),
        ("vertex-sft", referring("gs://bucket/a"), "must end in"),
        ("vertex-sft", referring("s3://bucket/a.png"), "embedded images"),
        ("bedrock-nova", referring("https://example.com/a.png"), "embedded images .* and s3:"),
        ("bedrock-nova", referring("s3://bucket/a.tiff"), "type must be one of"),
        ("bedrock-prompt", EMBEDDED, "has an image"),
        ("anthropic", EMBEDDED, "has an image"),
        ("sharegpt", EMBEDDED, "has an image"),
        ("alpaca", EMBEDDED, "has an image"),
        ("openai-chat", referring("data:image/png;base64,AAAA"), "begins with"),
    ],
)
def test_what_a_format_cannot_show_is_refused(name: str, example: Example, words: str) -> None:
    with pytest.raises(UnrepresentableRow, match=words):
        wire_format(name).encode(example)


def test_images_of_answers_and_of_preferences_at_google_are_refused() -> None:
    answer = {**asked(uri(png())), "role": "assistant"}
    drawn = Example.model_validate({"messages": [{"role": "user", "content": "?"}, answer]})
    for name in ("openai-chat", "together-chat", "vertex-sft", "bedrock-nova"):
        with pytest.raises(UnrepresentableRow, match="image"):
            wire_format(name).encode(drawn)
    pair = {
        "input": {"messages": [asked(uri(png()))]},
        "preferred_output": [{"role": "assistant", "content": "red"}],
        "non_preferred_output": [{"role": "assistant", "content": "blue"}],
    }
    with pytest.raises(UnrepresentableRow, match="has an image"):
        wire_format("vertex-preference").encode(Example.model_validate(pair))
    assert wire_format("together-dpo").encode(Example.model_validate(pair))


def test_openais_sdk_types_describe_the_parts() -> None:
    chat = pytest.importorskip("openai.types.chat", reason="needs openai")
    adapter: TypeAdapter[Any] = TypeAdapter(chat.ChatCompletionUserMessageParam)
    for example in (EMBEDDED, DETAILED, referring("https://example.com/a.png")):
        encoded: Any = wire_format("openai-chat").encode(example)
        adapter.validate_python(encoded["messages"][0])
        assert encoded["messages"][0]["content"][1]["image_url"].keys() <= {"url", "detail"}


@pytest.mark.skipif(not SPEC.exists(), reason="needs ../shared/specs/openai-openapi.json")
def test_openais_description_fits_the_parts() -> None:
    for example in (EMBEDDED, DETAILED):
        encoded: Any = wire_format("openai-chat").encode(example)
        assert fits(encoded["messages"][0], "ChatCompletionRequestMessage")


def test_fireworks_and_togethers_sdk_types_describe_the_parts() -> None:
    fireworks = pytest.importorskip("fireworks.types.shared", reason="needs fireworks-ai")
    encoded: Any = wire_format("fireworks-chat").encode(EMBEDDED)
    message = fireworks.ChatMessage.model_validate(encoded["messages"][0])
    assert message.content[1].image_url.url == uri(png())
    chat = pytest.importorskip("together.types.chat.chat_completion_user_message_param")
    encoded = wire_format("together-chat").encode(EMBEDDED)
    # together 2, lib/utils/files.py: a row is either of texts or of lists of parts
    assert all(isinstance(turn["content"], list) for turn in encoded["messages"])
    adapter: TypeAdapter[Any] = TypeAdapter(chat.ChatCompletionUserMessageParam)
    adapter.validate_python(encoded["messages"][0])


def test_googles_types_describe_the_parts() -> None:
    types = pytest.importorskip("google.genai.types", reason="needs google-genai")
    for example in (EMBEDDED, referring("gs://bucket/a.png")):
        encoded: Any = wire_format("vertex-sft").encode(example)
        types.Content.model_validate(encoded["contents"][0])
    part = types.Content.model_validate(
        wire_format("vertex-sft").encode(EMBEDDED)["contents"][0]  # type: ignore[index, call-overload]
    ).parts[1]
    assert (part.inline_data.mime_type, part.inline_data.data) == ("image/png", png())


def test_novas_blocks_are_what_converse_takes() -> None:
    loaders = pytest.importorskip("botocore.loaders", reason="needs the extra `bedrock`")
    from botocore.model import ServiceModel  # noqa: PLC0415 - an extra
    from botocore.validate import ParamValidator  # noqa: PLC0415 - an extra

    model = ServiceModel(loaders.Loader().load_service_model("bedrock-runtime", "service-2"))
    shape = model.operation_model("Converse").input_shape
    assert shape is not None
    for example in (EMBEDDED, referring("s3://bucket/a.png")):
        asked_for = {
            "modelId": "nova",
            "messages": wire_format("bedrock-nova").encode(example)["messages"],
        }
        assert not ParamValidator().validate(asked_for, shape).has_errors()


def test_a_file_is_converted_with_its_local_images(tmp_path: Any) -> None:
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / "rows.jsonl").write_text(json.dumps(row("a.png")) + "\n")
    (converted,) = convert_file(tmp_path / "rows.jsonl", to="openai-chat")
    assert json.loads(converted.text)["messages"][0]["content"][1] == {  # type: ignore[union-attr]
        "type": "image_url",
        "image_url": {"url": uri(png())},
    }
    (refused,) = convert_file(tmp_path / "rows.jsonl", to="bedrock-prompt")
    assert "has an image" in refused.message  # type: ignore[union-attr]
    (tmp_path / "wire.jsonl").write_text(json.dumps(row("../a.png")) + "\n")
    (outside,) = convert_file(tmp_path / "wire.jsonl", source="openai-chat")
    assert "outside the folder" in str(outside) or "only embedded" in str(outside)


@pytest.mark.parametrize("name", ["together-chat", "vertex-sft", "bedrock-nova"])
def test_detail_is_left_out_where_it_is_unknown_and_that_is_named(name: str, tmp_path: Any) -> None:
    assert "detail" not in json.dumps(wire_format(name).encode(DETAILED))
    (tmp_path / "rows.jsonl").write_text(DETAILED.line + "\n")
    (converted,) = convert_file(tmp_path / "rows.jsonl", to=name)
    assert converted.left_out == ("detail",)  # type: ignore[union-attr]
