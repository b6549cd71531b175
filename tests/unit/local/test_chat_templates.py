"""Published chat templates, and kinds of rows: each works, or the refusal says why not.

The templates, and the refusals, are listed in ``tests/chat_templates/templates.yaml``. They are
tried with the tokenizer of the embedded model, which gets their special tokens. What inference
feeds is taken from transformers' own rendering.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import AutoTokenizer

from unitune.data.example import Example
from unitune_local.data.chat_text import TemplateError, opening
from unitune_local.data.rendering import Rendered, render, render_prompt, result_ids, turn_ends

FOLDER = Path(__file__).parents[2] / "chat_templates"
TEMPLATES: dict[str, dict[str, Any]] = yaml.safe_load((FOLDER / "templates.yaml").read_text())
ALWAYS = {"qwen3", "deepseek-r1-distill", "gpt-oss", "glm-4.6", "mistral-nemo", "granite-3.3"}
"""Templates that are tried each time; the others take a minute."""

TOOL = {
    "name": "get_weather",
    "description": "Weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}
TOOLS = [{"type": "function", "function": TOOL}]


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def says(text: str | None, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def call(city: str, number: str) -> dict[str, Any]:
    arguments = json.dumps({"city": city})
    return {
        "id": number,
        "type": "function",
        "function": {"name": "get_weather", "arguments": arguments},
    }


OSLO, BERGEN = call("Oslo", "call12345"), call("Bergen", "call67890")
RESULT = {"role": "tool", "tool_call_id": "call12345", "content": "TR1"}


def thought(text: str, answer: str) -> dict[str, Any]:
    return says(f"<think>\n{text}\n</think>\n\n{answer}")


KINDS: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]] | None]] = {
    "one turn": ([user("UQ1"), says("AQ1 answer")], None),
    "two turns": (
        [
            {"role": "system", "content": "SYS text"},
            *(user("UQ1"), says("AQ1 first"), user("UQ2"), says("AQ2 second")),
        ],
        None,
    ),
    "empty system": (
        [{"role": "system", "content": ""}, user("UQ1"), says("AQ1 answer")],
        None,
    ),
    "weight 0": (
        [user("UQ1"), says("AQ1 first", weight=0), user("UQ2"), says("AQ2 second")],
        None,
    ),
    "blanks": ([user("UQ1"), says("  AQ1 indented\n  code\n\n")], None),
    "trajectory": ([user("UQ1"), says(None, tool_calls=[OSLO]), RESULT, says("AQ2 done")], TOOLS),
    "call": ([user("UQ1"), says(None, tool_calls=[OSLO])], TOOLS),
    "two calls": ([user("UQ1"), says(None, tool_calls=[OSLO, BERGEN])], TOOLS),
    "thought": ([user("UQ1"), thought("THINK reason", "AQ1 answer")], None),
    "two thoughts": (
        [
            *(user("UQ1"), thought("THINK one", "AQ1 first")),
            *(user("UQ2"), thought("THINK two", "AQ2 second")),
        ],
        None,
    ),
    "reasoning": ([user("UQ1"), says("AQ1 answer", reasoning_content="THINK reason")], None),
    "developer": (
        [{"role": "developer", "content": "DEV text"}, user("UQ1"), says("AQ1 answer")],
        None,
    ),
    "two questions": ([user("UQ1"), user("UQ2"), says("AQ1 answer")], None),
}
OTHERS = ("UQ1", "UQ2", "SYS", "TR1", "DEV")


@pytest.fixture(scope="module")
def embedded(default_model: Path) -> Any:
    return AutoTokenizer.from_pretrained(default_model)


def tokenizer_of(embedded: Any, name: str) -> Any:
    """Return the embedded model's tokenizer with a template, and with its tokens."""
    entry = TEMPLATES[name]
    tokenizer = copy.deepcopy(embedded)
    tokenizer.add_tokens(entry.get("words", []))
    special = [*entry.get("special", []), entry["bos"], entry["eos"]]
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    tokenizer.bos_token, tokenizer.eos_token = entry["bos"], entry["eos"]
    tokenizer.chat_template = (FOLDER / f"{name}.jinja").read_text(encoding="utf-8")
    return tokenizer


def feeds(tokenizer: Any, messages: Sequence[dict[str, Any]], tools: Any) -> str:
    """Return what transformers would feed before an answer."""
    knows = re.search("['\"]developer['\"]", tokenizer.chat_template)
    turns = [
        {**turn, "role": "system"} if turn["role"] == "developer" and not knows else turn
        for turn in ({**message, "content": message["content"] or ""} for message in messages)
    ]
    parsed: list[dict[str, Any]] = copy.deepcopy(turns)
    for turn in parsed:
        for each in turn.get("tool_calls", ()):
            each["function"]["arguments"] = json.loads(each["function"]["arguments"])
    with suppress(Exception):  # some templates want arguments as text
        return tokenizer.apply_chat_template(
            parsed, tools=tools, tokenize=False, add_generation_prompt=True
        )
    return tokenizer.apply_chat_template(
        turns, tools=tools, tokenize=False, add_generation_prompt=True
    )


def spans_of(sample: Rendered) -> Iterator[tuple[int, int]]:
    """Yield where trained tokens begin and end."""
    edges = pairwise([False, *sample.trained, False])
    places = [at for at, (before, after) in enumerate(edges) if before != after]
    yield from zip(places[::2], places[1::2], strict=True)


def parts_of(message: dict[str, Any]) -> list[str]:
    """Return all that a model must learn to write in a turn."""
    parts = [message.get("reasoning_content") or ""]
    text = (message["content"] or "").strip()
    inline = re.fullmatch(r"<think>(.*)</think>(.*)", text, re.DOTALL)
    parts += [each.strip() for each in (inline.groups() if inline else (text,))]
    for each in message.get("tool_calls", ()):
        function = each["function"]
        parts += [function["name"], *json.loads(function["arguments"]).values()]
    return [part for part in parts if part]


def check_ids(tokenizer: Any, sample: Rendered, tools: Any) -> None:
    """Ids equal those of the whole text, but where a token would cross the start of an answer."""
    text = tokenizer.decode(sample.ids)
    whole = tokenizer(text, add_special_tokens=False)["input_ids"]
    if whole == sample.ids:
        return
    opens = opening(tokenizer, tools)
    starts = {start for start, _ in spans_of(sample)}
    if opens:
        pieces = re.split(f"(?<={re.escape(opens)})", text)
        ids = [tokenizer(piece, add_special_tokens=False)["input_ids"] for piece in pieces]
        starts |= {sum(map(len, ids[:at])) for at in range(1, len(ids))}
    cuts = sorted({0, *starts, len(sample.ids)})
    assert any(whole[:start] != sample.ids[:start] for start in cuts), "a cut that was not needed"
    assert sample.ids == [
        index
        for start, end in pairwise(cuts)
        for index in tokenizer(tokenizer.decode(sample.ids[start:end]), add_special_tokens=False)[
            "input_ids"
        ]
    ]


def check_row(tokenizer: Any, messages: list[dict[str, Any]], tools: Any) -> None:
    """Each trained turn is learnt once, whole, after what inference feeds; and nothing else is."""
    example = Example.model_validate({"messages": messages, "tools": tools})
    trained: list[int] = []
    for sample in render(tokenizer, example):
        check_ids(tokenizer, sample, tools)
        for start, end in spans_of(sample):
            learnt = tokenizer.decode(sample.ids[start:end])
            assert not [text for text in OTHERS if text in learnt]
            assert sample.ids[end - 1] in turn_ends(tokenizer)
            before = tokenizer.decode(sample.ids[:start])
            (place,) = (
                at
                for at, message in enumerate(messages)
                if message["role"] == "assistant"
                and before == feeds(tokenizer, messages[:at], tools)
            )
            prompt = render_prompt(tokenizer, example.messages[:place], tools)
            assert prompt == sample.ids[:start]
            trained.append(place)
            at = 0
            for part in parts_of(messages[place]):
                assert part in learnt[at:]
                at = learnt.index(part, at) + len(part)
    assert sorted(trained) == [
        at
        for at, message in enumerate(messages)
        if message["role"] == "assistant" and message.get("weight") != 0
    ]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in ALWAYS else pytest.mark.slow)
        for name in sorted(TEMPLATES)
    ],
)
def test_each_kind_of_row_is_learnt_as_inference_feeds_it_or_refused_by_name(
    name: str, embedded: Any
) -> None:
    tokenizer, outcomes = tokenizer_of(embedded, name), dict[str, str]()
    for kind, (messages, tools) in KINDS.items():
        try:
            check_row(tokenizer, messages, tools)
        except TemplateError as refusal:
            outcomes[kind] = refusal.problem
    refused = TEMPLATES[name].get("refused", {})
    assert refused.keys() == outcomes.keys()
    for kind, words in refused.items():
        assert words in outcomes[kind]


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_results_of_tools_are_fed_between_sampled_answers_as_rows_have_them(
    name: str, embedded: Any
) -> None:
    tokenizer = tokenizer_of(embedded, name)
    messages, tools = KINDS["trajectory"]
    example = Example.model_validate({"messages": messages, "tools": tools})
    question, call, *results, _ = example.messages
    if "trajectory" in TEMPLATES[name].get("refused", {}):
        with pytest.raises(TemplateError):
            result_ids(tokenizer, [question], call, results, tools)
        return
    if name == "apertus":  # it ends an answer with another token once results follow
        with pytest.raises(TemplateError, match="changes the end of an answer"):
            result_ids(tokenizer, [question], call, results, tools)
        return
    between = result_ids(tokenizer, [question], call, results, tools)
    fed = render_prompt(tokenizer, example.messages[:-1], tools)
    assert between == fed[-len(between) :]
    assert fed[-len(between) - 1] in turn_ends(tokenizer), "it begins where the answer ends"
    assert "TR1" in tokenizer.decode(between)
    assert "Oslo" not in tokenizer.decode(between)


def test_there_are_at_least_forty_templates_each_with_its_source() -> None:
    assert {path.stem for path in FOLDER.glob("*.jinja")} == TEMPLATES.keys()
    assert len(TEMPLATES) >= 40
    sources = (FOLDER / "SOURCES.md").read_text(encoding="utf-8")
    repositories = {entry["source"].partition(":")[0] for entry in TEMPLATES.values()}
    assert not [name for name in repositories if f"| {name} |" not in sources]
