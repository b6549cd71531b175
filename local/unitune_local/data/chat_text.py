"""Render conversations as text with a model's chat template.

Special tokens in texts of users and tools are cut by `SPLIT`, so that they stay text. Otherwise
such a text could end its turn and open a system turn.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, NamedTuple, cast

from pydantic import JsonValue
from transformers import PreTrainedTokenizerBase

from unitune.cost.tokens.by_tokenizer import CannotRender, ChatTemplate, template_turn
from unitune.data.example import Message, digest
from unitune.errors import Mismatch
from unitune_local.options import ChatFormat

Tools = Sequence[dict[str, JsonValue]] | None
# Cut in a text before it is tokenised; a noncharacter, which Unicode reserves for internal use
SPLIT = "\ufdd0"
# Contents of the turns that examine a template; no token contains them
SAID, ASKED = "\ufdd1", "\ufdd2"
PROBE_TOOL: dict[str, JsonValue] = {
    "type": "function",
    "function": {
        "name": "probe",
        "description": "probe",
        "parameters": {"type": "object", "properties": {"x": {"type": "string"}}},
    },
}
_FORMAT = "unitune_chat_format"
_PLAIN = ChatFormat()
# Tags around reasoning in the templates of most models that reason
THINK, THOUGHT = "<think>", "</think>"


class TemplateError(Mismatch):
    """Conversation that the chat template cannot represent."""

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(f"{problem} {fix}")
        self.problem = problem
        self.fix = fix


def refuse_images(messages: Sequence[Message]) -> None:
    """Raise TemplateError if a message has an image."""
    if any(message.images for message in messages):
        raise TemplateError(
            "the conversation has an image, but models that run or train here see text only.",
            "Choose a vendor that trains on images (`unitune plan --all`), or remove the image.",
        )


def format_of(tokenizer: PreTrainedTokenizerBase) -> ChatFormat:
    """Return the format that a tokenizer renders conversations in."""
    return getattr(tokenizer, _FORMAT, _PLAIN)


def set_format(tokenizer: PreTrainedTokenizerBase, form: ChatFormat) -> PreTrainedTokenizerBase:
    """Make a tokenizer render conversations in a format, and return it."""
    if form.template is not None:
        cast("Any", tokenizer).chat_template = form.template
    setattr(tokenizer, _FORMAT, form)
    return tokenizer


def with_request(
    tokenizer: PreTrainedTokenizerBase, template: str | None, kwargs: Mapping[str, JsonValue]
) -> PreTrainedTokenizerBase:
    """Return a tokenizer for one request, with the request's own template and variables."""
    if template is None and not kwargs:
        return tokenizer
    return _with_request(tokenizer, template, json.dumps(dict(kwargs), sort_keys=True))


@lru_cache(maxsize=8)
def _with_request(
    tokenizer: PreTrainedTokenizerBase, template: str | None, kwargs: str
) -> PreTrainedTokenizerBase:
    form = format_of(tokenizer)
    own = {**form.kwargs, **json.loads(kwargs)}
    changed = form.model_copy(update={"kwargs": own, "template": template or form.template})
    return set_format(copy.copy(tokenizer), changed)


def template_of(tokenizer: PreTrainedTokenizerBase, tools: Tools = None) -> str:
    """Return the chat template; of several named ones, the one for tools if there are any.

    Raises:
        TemplateError: The tokenizer has no chat template.
    """
    template = cast("Any", tokenizer).chat_template
    if isinstance(template, dict):
        named = cast("dict[str, str]", template)
        template = (named.get("tool_use") if tools else None) or named.get("default")
    if isinstance(template, str):
        return template
    raise TemplateError(
        "the model's tokenizer has no chat template.",
        "Use an instruct model, or name a template in data.chat_template.",
    )


def knows_thought(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether the chat template writes reasoning between ``<think>`` and ``</think>``."""
    template = cast("str | dict[str, str]", cast("Any", tokenizer).chat_template)
    named = template.values() if isinstance(template, dict) else [template]
    return any(THOUGHT in each for each in named if each)


def has_template(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether a tokenizer has a chat template; a model without one completes texts."""
    return bool(cast("Any", tokenizer).chat_template)


def template_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the SHA-256 of the chat template, or of all named ones; "" without any."""
    if not has_template(tokenizer):
        return ""
    template: JsonValue = cast("Any", tokenizer).chat_template
    return digest(template if isinstance(template, dict) else template_of(tokenizer))


def apply(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    tools: Tools = None,
    *,
    asks: bool,
) -> str:
    """Return a conversation as text, with `SPLIT` inside special tokens of users and tools.

    With `asks`, the text ends where the model's answer begins. An empty conversation gives "".

    Raises:
        TemplateError: The template refuses the conversation.
    """
    if not messages:
        return ""
    refuse_images(messages)
    form, source = format_of(tokenizer), template_of(tokenizer, tools)
    special = cast("Any", tokenizer).special_tokens_map
    template = ChatTemplate(source, special, form.kwargs, form.day)
    turns = [_guarded(tokenizer, template_turn(message)) for message in messages]
    try:
        return template.render(turns, tools, asks=asks)
    except CannotRender as error:
        refused = error
    if any(message.tool_calls for message in messages):
        # DeepSeek's templates require arguments as text, as in OpenAI's API.
        wired: list[dict[str, JsonValue]] = [
            {**turn, **({"tool_calls": [*each.tool_calls]} if each.tool_calls else {})}
            for turn, each in zip(turns, messages, strict=True)
        ]
        with suppress(CannotRender):
            return template.render(wired, tools, asks=asks)
    raise TemplateError(
        f"the chat template refuses the conversation: {refused}.",
        "Use roles and an order that this model's template accepts.",
    ) from refused


def _guarded(
    tokenizer: PreTrainedTokenizerBase, turn: dict[str, JsonValue]
) -> dict[str, JsonValue]:
    if turn["role"] not in ("user", "tool"):
        return turn
    inside = _special_tokens(tokenizer)
    return {**turn, "content": inside.sub(SPLIT, cast("str", turn["content"]))}


@lru_cache(maxsize=4)
def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    """Match the place after the first letter of each special token."""
    added = tokenizer.added_tokens_decoder.values()
    tokens = {*tokenizer.all_special_tokens, *(str(each) for each in added if each.special)}
    places = (f"(?<={re.escape(each[0])})(?={re.escape(each[1:])})" for each in tokens if each[1:])
    return re.compile("|".join(places) or "(?!)")


def opening(tokenizer: PreTrainedTokenizerBase, tools: Tools = None) -> str:
    """Return the text with which the template opens an answer, or "" if it writes none."""
    return _opening(tokenizer, *_key(tokenizer, tools))


class TurnEnds(NamedTuple):
    """Tokens that end an assistant's turn, and the text that adds them where a template does not.

    Some templates end a turn with the next role's token, which is missing after the last turn.
    Others write no end; then the end-of-text token ends the turn.
    """

    answer: str
    call: str  # ends a turn that calls tools
    # Text that the template writes after an answer instead of its end, or ""
    bare: str
    added_answer: str
    added_call: str


def turn_ends(tokenizer: PreTrainedTokenizerBase, tools: Tools = None) -> TurnEnds:
    """Return the tokens with which the template ends a turn; raises TemplateError without one."""
    return _turn_ends(tokenizer, *_key(tokenizer, tools))


def _key(tokenizer: PreTrainedTokenizerBase, tools: Tools) -> tuple[bool, str]:
    """Return what else the template's text depends on, as a cache key."""
    form = format_of(tokenizer)
    return bool(tools), template_of(tokenizer, tools) + json.dumps(form.kwargs, sort_keys=True)


@lru_cache(maxsize=8)
def _opening(tokenizer: PreTrainedTokenizerBase, has_tools: bool, template: str) -> str:  # noqa: FBT001
    del template
    turns, tools = [Message(role="user", content="x")], [PROBE_TOOL] if has_tools else None
    without = apply(tokenizer, turns, tools, asks=False)
    text = apply(tokenizer, turns, tools, asks=True)
    return text[len(without) :] if text.startswith(without) else ""


@lru_cache(maxsize=8)
def _turn_ends(tokenizer: PreTrainedTokenizerBase, has_tools: bool, template: str) -> TurnEnds:  # noqa: FBT001
    del template
    turns = [Message(role="user", content="x"), Message(role="assistant", content=SAID)]
    tools = [PROBE_TOOL] if has_tools else None
    bare = apply(tokenizer, turns, tools, asks=False).rpartition(SAID)[2]
    following = _following(tokenizer, turns, Message(role="user", content=ASKED), tools)
    written, later = _tokens_in(tokenizer, bare), _tokens_in(tokenizer, following)
    # Some templates write the end-of-text token after the last turn's own end.
    common = [token for token in written if token in later]
    if end := (common or written)[-1:]:
        return TurnEnds(end[0], _call_end(tokenizer, end[0]), "", end[0], end[0])
    if later:
        after_call = _after_call(tokenizer)
        added = following[: following.index(later[0]) + len(later[0])]
        calls = _tokens_in(tokenizer, after_call)[:1]
        added_call = after_call[: after_call.index(calls[0]) + len(calls[0])] if calls else added
        return TurnEnds(later[0], (calls or later)[0], bare, added, added_call)
    if end := cast("str | None", tokenizer.eos_token):
        return TurnEnds(end, end, bare, end, end)
    raise TemplateError(
        "the chat template ends an assistant turn without a special token, and the tokenizer has "
        "no eos_token.",
        "Use a model whose template ends turns with one, as instruct models do.",
    )


def _following(
    tokenizer: PreTrainedTokenizerBase, turns: Sequence[Message], then: Message, tools: Tools
) -> str:
    """Return the text between a turn's content and the next one's, or "" if either is missing."""
    try:
        text = apply(tokenizer, [*turns, then], tools, asks=False)
    except TemplateError:
        return ""
    after, found, _ = text.rpartition(SAID)[2].partition(ASKED)
    return after if found else ""


_CALL = Message(
    role="assistant",
    tool_calls=(
        {
            "id": "callprobe",
            "type": "function",
            "function": {"name": "probe", "arguments": json.dumps({"x": SAID}, ensure_ascii=False)},
        },
    ),
)


def _call_end(tokenizer: PreTrainedTokenizerBase, answer_end: str) -> str:
    """Return the token that ends a call: the answer's, or the template's last other one."""
    turns = [Message(role="user", content="x"), _CALL]
    try:
        text = apply(tokenizer, turns, [PROBE_TOOL], asks=False)
    except TemplateError:
        return answer_end
    tokens = _tokens_in(tokenizer, text.rpartition(SAID)[2]) if SAID in text else []
    return answer_end if answer_end in tokens or not tokens else tokens[-1]


def _after_call(tokenizer: PreTrainedTokenizerBase) -> str:
    turns = [Message(role="user", content="x"), _CALL]
    result = Message(role="tool", tool_call_id="callprobe", content=ASKED)
    try:
        alone = apply(tokenizer, turns, [PROBE_TOOL], asks=False)
    except TemplateError:
        return ""
    following = _following(tokenizer, turns, result, [PROBE_TOOL])
    return following.removeprefix(alone.rpartition(SAID)[2])


def _tokens_in(tokenizer: PreTrainedTokenizerBase, text: str) -> list[str]:
    if not text:
        return []
    encoder = cast("Any", tokenizer)
    ids = cast("list[int]", encoder.encode(text, add_special_tokens=False))
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    return [cast("str", encoder.convert_ids_to_tokens(each)) for each in ids if each in special]
