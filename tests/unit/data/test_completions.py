"""Servers differ in what they take: what is learnt from a refusal, and from which it is not."""

from __future__ import annotations

from typing import Any

import pytest

from unitune.backends.kit.chat_completions import Dialect, Refusal, read_reply
from unitune.data.example import Message
from unitune.errors import JobError
from unitune.models import Request

ASKED = Request(messages=(Message(role="user", content="temperature of the sun?"),))


def openai(message: str, param: str | None, code: str) -> dict[str, Any]:
    return {"message": message, "type": "invalid_request_error", "param": param, "code": code}


NO_TEMPERATURE = (
    "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) "
    "value is supported."
)
LONG_PROMPT = (
    "'max_tokens' or 'max_completion_tokens' is too large: 256. This model's maximum context "
    "length is 300 tokens and your request has 200 input tokens."
)
REFUSALS: list[tuple[str, int, Any, str]] = [
    ("openai", 400, openai(NO_TEMPERATURE, "temperature", "unsupported_value"), "temperature"),
    # as users of litellm quote it
    (
        "litellm",
        400,
        {
            "error": openai(
                "litellm.UnsupportedParamsError: gpt-5 models don't support temperature=0.0. Only "
                "temperature=1 is supported.",
                None,
                "400",
            )
        },
        "temperature",
    ),
    # pydantic's own form, as FastAPI servers and Mistral answer it
    (
        "pydantic",
        422,
        {
            "detail": [
                {
                    "type": "extra_forbidden",
                    "loc": ["body", "seed"],
                    "msg": "Extra inputs are not permitted",
                }
            ]
        },
        "seed",
    ),
    (
        "anthropic",
        400,
        {"error": {"message": "`temperature` is deprecated for this model."}},
        "temperature",
    ),
]


@pytest.mark.parametrize(
    ("status", "told", "name"), [one[1:] for one in REFUSALS], ids=[one[0] for one in REFUSALS]
)
def test_a_refused_sampling_parameter_is_left_out_from_then_on(
    status: int, told: Any, name: str
) -> None:
    dialect = Dialect()
    body = dialect.body("m", ASKED)
    assert dialect.learn(body, ASKED, Refusal.read(status, told))
    assert name not in body
    assert body == dialect.body("m", ASKED)
    reply = dialect.read(body, {"choices": [{"message": {"content": "hot"}}]})
    assert reply.left_out == (name,)


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (400, openai("Invalid 'temperature': 0 to 2", "temperature", "decimal_above_max_value")),
        (400, openai("Unsupported value in 'temperature of the sun?'", "messages", "x")),
        (400, openai("the temperature is not supported by the weather tool", None, "x")),
        (400, openai("content refused: temperature of the sun", None, "content_filter")),
        (401, openai(NO_TEMPERATURE, "temperature", "unsupported_value")),
        (500, openai(NO_TEMPERATURE, "temperature", "unsupported_value")),
        (400, ["temperature"]),
    ],
)
def test_other_refusals_stay_refusals(status: int, told: Any) -> None:
    dialect = Dialect()
    body = dialect.body("m", ASKED)
    assert not dialect.learn(body, ASKED, Refusal.read(status, told))
    assert body == dialect.body("m", ASKED)
    assert set() == dialect.left_out


def test_what_the_job_has_set_is_never_left_out() -> None:
    fixed = ASKED.model_copy(update={"temperature": 0.5, "fixed": ("temperature",)})
    dialect = Dialect(left_out={"temperature"})
    body = dialect.body("m", fixed)
    assert body["temperature"] == 0.5
    told = Refusal.read(400, openai(NO_TEMPERATURE, "temperature", "unsupported_value"))
    with pytest.raises(JobError, match=r"evaluate.temperature is 0.5.*Remove evaluate.temperature"):
        dialect.learn(body, fixed, told)


def test_the_limit_has_two_names_and_each_is_tried_once() -> None:
    dialect = Dialect()
    body = dialect.body("m", ASKED)
    words = "Unsupported parameter: '{}' is not supported with this model. Use '{}' instead."
    old, new = "max_tokens", "max_completion_tokens"
    assert dialect.learn(body, ASKED, Refusal(400, words.format(old, new), old))
    assert (body[new], old in body) == (256, False)
    assert not dialect.learn(body, ASKED, Refusal(400, words.format(new, old), new))


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        # OpenAI, DeepSeek: what the model allows holds for every request
        ("max_tokens is too large: 256. This model supports at most 100 completion tokens.", 64),
        ("Invalid max_tokens value, the valid range of max_tokens is [1, 100]", 64),
        # vLLM's own words (its VLLMValidationError): it depends on the prompt
        (LONG_PROMPT, 256),
    ],
)
def test_an_automatic_limit_that_is_too_long_is_shortened(words: str, kept: int) -> None:
    dialect = Dialect()
    body = dialect.body("m", ASKED)
    assert dialect.learn(body, ASKED, Refusal(400, words))
    assert body["max_tokens"] == 64
    assert kept == dialect.body("m", ASKED)["max_tokens"]
    assert dialect.read(body, {}).max_tokens == 64
    fixed = ASKED.model_copy(update={"fixed": ("max_tokens",)})
    assert not dialect.learn(dialect.body("m", fixed), fixed, Refusal(400, words))


@pytest.mark.parametrize(
    "told",
    [
        None,
        [],
        {},
        {"choices": None},
        {"choices": ["x"]},
        {"choices": [{"index": 0, "finish_reason": "content_filter"}]},
    ],
)
def test_what_is_no_answer_is_an_error(told: object) -> None:
    reply = read_reply(told, None)
    assert reply.error is not None
    assert reply.finish_reason == "error"


@pytest.mark.parametrize(
    "finish", ["error", "abort", "insufficient_system_resource", "load", "network_error", "OTHER"]
)
def test_a_failure_named_as_the_finish_is_an_error_to_retry(finish: str) -> None:
    """vLLM, OpenRouter, DeepSeek, Ollama, Zhipu, Gemini: each with status 200."""
    choice = {"index": 0, "message": {"content": "whi"}, "finish_reason": finish}
    reply = read_reply({"choices": [choice]}, None)
    assert (reply.text, reply.finish_reason, reply.retryable) == ("", "error", True)
    assert finish in (reply.error or "")


def test_an_error_beside_a_choice_is_an_error_to_retry() -> None:
    """OpenRouter, where an upstream fails: openrouter.ai/docs, Errors."""
    error = {"code": 502, "message": "Upstream error"}
    choice = {"message": {"content": ""}, "finish_reason": "stop", "error": error}
    reply = read_reply({"choices": [choice]}, None)
    assert (reply.error, reply.status, reply.retryable) == ("Upstream error", 502, True)


@pytest.mark.parametrize(
    ("word", "ours"),
    [
        ("eos", "stop"),
        ("STOP", "stop"),
        ("end_turn", "stop"),
        ("MAX_TOKENS", "length"),
        ("tool_use", "tool_calls"),
        ("function_call", "function_call"),
        ("SAFETY", "content_filter"),
        ("repetition", "repetition"),
    ],
)
def test_other_words_for_the_same_end_are_answers(word: str, ours: str) -> None:
    choice = {"message": {"content": "white"}, "finish_reason": word}
    reply = read_reply({"choices": [choice]}, None)
    assert ("white", ours, None) == (reply.text, reply.finish_reason, reply.error)


def test_of_several_choices_the_first_by_index_counts() -> None:
    choices = [{"index": index, "message": {"content": str(index)}} for index in (1, 0)]
    assert read_reply({"choices": choices}, None).text == "0"


def test_an_answer_is_read_as_far_as_it_goes() -> None:
    message = {
        "content": [{"type": "text", "text": "Pa\ud800"}, {"type": "text", "text": "ris"}],
        "tool_calls": [{"type": "function"}, {"function": {"name": "f", "arguments": {"a": 1}}}],
        "reasoning_content": "Well.",
    }
    usage = {"prompt_tokens": "many", "completion_tokens": -4}
    reply = read_reply({"choices": [{"message": message}], "usage": usage}, None)
    assert (reply.text, reply.finish_reason, reply.thought) == ("Pa\ufffdris", "stop", True)
    assert (reply.prompt_tokens, reply.completion_tokens) == (None, None)
    calls = ({"type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}},)
    assert calls == reply.tool_calls


def test_thoughts_are_counted_where_the_vendor_counts_them() -> None:
    usage = {"completion_tokens": 12, "completion_tokens_details": {"reasoning_tokens": 9}}
    reply = read_reply({"choices": [{"message": {"content": "4"}}], "usage": usage}, None)
    assert (reply.completion_tokens, reply.reasoning_tokens, reply.thought) == (12, 9, True)


def test_variables_of_the_chat_template_are_sent_where_a_job_names_them() -> None:
    """vLLM and SGLang take them so."""
    kwargs = {"enable_thinking": False}
    named = ASKED.model_copy(update={"chat_template_kwargs": kwargs})
    assert kwargs == Dialect().body("m", named)["chat_template_kwargs"]
    assert "chat_template_kwargs" not in Dialect().body("m", ASKED)
