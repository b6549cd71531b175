"""A model's own chat template: conversations as the text that the model sees.

Templates come with models, from strangers, so they run in Jinja2's sandbox on plain data. The
environment is the one for which they are written: that of transformers.

Source: transformers 5.24, utils/chat_template_utils.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, cast

from pydantic import JsonValue

from unitune.data.example import Message
from unitune.workspace.today import today

if TYPE_CHECKING:
    import jinja2
    from jinja2.nodes import Node
    from jinja2.parser import Parser

SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token")
Tools = Sequence[Mapping[str, JsonValue]] | None


class CannotRender(ValueError):
    """The template refuses a conversation, or fails on it."""


class ChatTemplate:
    """A chat template in Jinja, with the special tokens that it writes by their names."""

    def __init__(self, source: str, special: Mapping[str, str]) -> None:
        self._source = source
        self._special = special

    def text(self, messages: Sequence[Message], tools: Tools = None, *, asks: bool) -> str:
        """Return a conversation as text; the model's answer is to follow where it `asks`.

        Raises:
            CannotRender: The template does not take it.
        """
        turns = [template_turn(message) for message in messages]
        given = {"messages": turns, "tools": tools, "documents": None}
        try:
            return self._template.render({**self._special, **given, "add_generation_prompt": asks})
        except Exception as problem:  # a template may raise whatever Python does
            raise CannotRender(str(problem)) from problem

    @cached_property
    def _template(self) -> jinja2.Template:
        return _environment().from_string(self._source)


def read_template(folder: Path) -> ChatTemplate | None:
    """Return the chat template that lies in a model's folder; None where there is none."""
    settings = _settings(folder / "tokenizer_config.json")
    file = folder / "chat_template.jinja"
    source = file.read_text(encoding="utf-8") if file.is_file() else settings.get("chat_template")
    if isinstance(source, list):  # several, by name
        named = (each for each in source if isinstance(each, dict))
        source = next(
            (each.get("template") for each in named if each.get("name") == "default"), None
        )
    if not isinstance(source, str):
        return None
    special = {name: _token(settings.get(name)) for name in SPECIAL_TOKENS}
    return ChatTemplate(source, {name: token for name, token in special.items() if token})


def template_turn(message: Message) -> dict[str, JsonValue]:
    """Return a message in the form that chat templates expect: arguments of calls as objects."""
    turn: dict[str, JsonValue] = {"role": message.role, "content": message.text}
    if message.name is not None:
        turn["name"] = message.name
    if message.tool_call_id is not None:
        turn["tool_call_id"] = message.tool_call_id
    if message.tool_calls is not None:
        turn["tool_calls"] = [_call(call) for call in message.tool_calls]
    return turn


def _call(call: dict[str, JsonValue]) -> dict[str, JsonValue]:
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = cast("JsonValue", json.loads(cast("str", function["arguments"])))
    except ValueError:
        return call
    return {**call, "function": {**function, "arguments": arguments}}


def _settings(file: Path) -> dict[str, JsonValue]:
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return cast("dict[str, JsonValue]", settings) if isinstance(settings, dict) else {}


def _token(value: JsonValue) -> str:
    """Return a special token, which stands as a text or as an object with its text."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else ""


def _environment() -> jinja2.Environment:
    import jinja2  # noqa: PLC0415 - heavy, and needed only where a template is rendered
    import jinja2.ext  # noqa: PLC0415
    import jinja2.sandbox  # noqa: PLC0415

    class Generation(jinja2.ext.Extension):
        """Lets ``{% generation %}``, which marks answers for training, stand without effect."""

        tags = {"generation"}  # noqa: RUF012 - as Jinja2 declares it

        def parse(self, parser: Parser) -> list[Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def refuse(message: str) -> NoReturn:
        raise jinja2.TemplateError(message)

    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = partial(json.dumps, ensure_ascii=False)
    functions = {"raise_exception": refuse, "strftime_now": _today}
    cast("dict[str, object]", environment.globals).update(functions)
    return environment


def _today(form: str) -> str:
    return datetime.combine(today(), datetime.min.time()).strftime(form)
