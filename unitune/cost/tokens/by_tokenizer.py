"""Count for open models with their own tokenizer and chat template, if they are installed.

Templates may be a stranger's, so they run in a sandbox with limits (`unitune.scorers.bounded`).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from pydantic import JsonValue

from unitune.backends.capabilities import StoredModel
from unitune.cost.tokens.count import Count, RowCount, assumed_row, framing_assumption
from unitune.data.example import Example, Message
from unitune.scorers.bounded import OUT_OF_TIME, CheckFailed, rendered
from unitune.workspace.user_settings import today

TOKENIZER = "tokenizer.json"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def find_tokenizer(model: str, stored: Iterable[StoredModel] = ()) -> Path | None:
    """Return the local folder with the tokenizer of a folder, stored model or hub name."""
    kept = [each.path for each in stored if each.name.lower() == model.lower()]
    named = Path(os.path.expanduser(model))  # noqa: PTH111 - Path.expanduser raises for ~nobody
    for folder in (named, *kept, *_hub_snapshots(model)):
        if (folder / TOKENIZER).is_file():
            return folder
    return None


class TokenizerCounter:
    """Counter with a model's own tokenizer and chat template. Raises ValueError if unreadable."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = _load(folder / TOKENIZER)
        self._template = read_template(folder)

    @property
    def basis(self) -> str:
        framed = "its chat template" if self._template else "an assumed chat template"
        return f"the model's own tokenizer, framed by {framed}"

    @property
    def assumptions(self) -> tuple[str, ...]:
        if self._template is None:
            return (f"no chat template was found with the tokenizer: {framing_assumption()}",)
        return (f"for rows that the chat template rejects, {framing_assumption()}",)

    def text(self, text: str) -> Count:
        return Count.of(self._tokens(text))

    def row(self, example: Example) -> RowCount:
        if self._template is None:
            return assumed_row(example, self.text)
        try:
            return self._rendered(example, self._template)
        except CannotRender as failure:
            if isinstance(failure, TooSlow):
                self._template = None
            return assumed_row(example, self.text)

    def _rendered(self, example: Example, template: ChatTemplate) -> RowCount:
        turns = example.prompt
        whole = self._tokens(template.text(example.messages, example.tools, asks=False))
        prompt = self._tokens(template.text(turns, example.tools, asks=True)) if turns else 0
        total = Count.of(whole)
        if example.non_preferred_output:
            pair = (*turns, *example.non_preferred_output)
            worse = self._tokens(template.text(pair, example.tools, asks=False))
            once = whole + worse - prompt
            total = Count(once, once, whole + worse)
        answer = self._tokens(example.answer or "")
        if example.messages[-1].tool_calls and example.expected is None:
            answer = max(answer, whole - prompt)  # tool calls as the template writes them
        return RowCount(Count.of(prompt), Count.of(answer), total)

    def _tokens(self, text: str) -> int:
        try:
            return len(self._tokenizer.encode(text, add_special_tokens=False))
        except (UnicodeEncodeError, TypeError):
            # JSON may contain an unpaired surrogate, which counts as its replacement character.
            whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            return len(self._tokenizer.encode(whole, add_special_tokens=False))


def _load(file: Path) -> Any:
    from tokenizers import Tokenizer  # noqa: PLC0415 - from an extra

    try:
        tokenizer: Any = Tokenizer.from_file(str(file))  # pyright: ignore[reportUnknownMemberType]
    except Exception as problem:  # the package raises plain Exception
        raise ValueError(f"{file.name} cannot be read ({problem})") from problem
    # The file may contain truncation and padding settings of a training.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _hub_snapshots(model: str) -> Iterable[Path]:
    """Yield the snapshot of a model's main branch in the Hugging Face cache, if it exists.

    Source: huggingface_hub 2, docs/source/en/guides/manage-cache.md (layout and variables).
    """
    if _HUB_NAME.fullmatch(model) is None:
        return
    user = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or f"{user}/huggingface"
    cache = Path(os.environ.get("HF_HUB_CACHE") or f"{home}/hub").expanduser()
    repository = cache / f"models--{model.replace('/', '--')}"
    branch = repository / "refs" / "main"
    if branch.is_file():
        yield repository / "snapshots" / branch.read_text(encoding="utf-8").strip()


SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token")
Tools = Sequence[Mapping[str, JsonValue]] | None
_ROLES: Mapping[JsonValue, JsonValue] = {"developer": "system"}


class CannotRender(ValueError):
    """The template rejects a conversation or fails on it."""


class TooSlow(CannotRender):
    """The template took too long and would do so for other conversations."""


class ChatTemplate:
    """Chat template in Jinja, with special tokens by name and additional variables (`kwargs`).

    `day` is the date that the template sees, as YYYY-MM-DD; None for today.
    """

    def __init__(
        self,
        source: str,
        special: Mapping[str, str],
        kwargs: Mapping[str, JsonValue] | None = None,
        day: str | None = None,
    ) -> None:
        self._source = source
        self._special = {**special, **(kwargs or {})}
        self._day = day

    def text(self, messages: Sequence[Message], tools: Tools = None, *, asks: bool) -> str:
        """Return a conversation as text, ending with the start of an answer if it `asks` for one.

        Raises:
            CannotRender: The template rejects it or takes too long.
        """
        turns = [template_turn(message) for message in messages]
        return self.render(turns, tools, asks=asks)

    def render(
        self, turns: Sequence[Mapping[str, JsonValue]], tools: Tools = None, *, asks: bool
    ) -> str:
        """Return messages in the form of `template_turn` as text. Raises CannotRender."""
        day = self._day or str(today())
        template: dict[str, JsonValue] = {"template": self._source, "today": day}
        # OpenAI's newer name of the system role
        if not re.search("['\"]developer['\"]", self._source):
            turns = [{**turn, "role": _ROLES.get(turn["role"], turn["role"])} for turn in turns]
        given = {"messages": turns, "tools": tools, "documents": None}
        values = cast("dict[str, JsonValue]", {**self._special, **given})
        try:
            return rendered(template, {**values, "add_generation_prompt": asks})
        except CheckFailed as problem:
            kind = TooSlow if problem.kind == OUT_OF_TIME else CannotRender
            raise kind(problem.message) from problem


def read_template(folder: Path) -> ChatTemplate | None:
    """Return the chat template in a model's folder, or None."""
    settings = _settings(folder / "tokenizer_config.json")
    file = folder / "chat_template.jinja"
    source = file.read_text(encoding="utf-8") if file.is_file() else settings.get("chat_template")
    if isinstance(source, list):  # several templates, by name
        named = (each for each in source if isinstance(each, dict))
        source = next(
            (each.get("template") for each in named if each.get("name") == "default"), None
        )
    if not isinstance(source, str):
        return None
    special = {name: _token(settings.get(name)) for name in SPECIAL_TOKENS}
    return ChatTemplate(source, {name: token for name, token in special.items() if token})


def template_turn(message: Message) -> dict[str, JsonValue]:
    """Return a message in the form that chat templates expect: call arguments as objects."""
    turn: dict[str, JsonValue] = {"role": message.role, "content": message.text}
    if message.name is not None:
        turn["name"] = message.name
    if message.tool_call_id is not None:
        turn["tool_call_id"] = message.tool_call_id
    if message.reasoning_content:
        # gpt-oss calls it thinking.
        turn |= dict.fromkeys(("reasoning_content", "thinking"), message.reasoning_content)
    if message.tool_calls is not None:
        turn["tool_calls"] = [_call(call) for call in message.tool_calls]
    return turn


def _call(call: dict[str, JsonValue]) -> dict[str, JsonValue]:
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = cast("JsonValue", json.loads(cast("str", function["arguments"])))
    except (ValueError, RecursionError):
        return call
    return {**call, "function": {**function, "arguments": arguments}}


def _settings(file: Path) -> dict[str, JsonValue]:
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return cast("dict[str, JsonValue]", settings) if isinstance(settings, dict) else {}


def _token(value: JsonValue) -> str:
    """Return a special token, which is a text or an object with its text."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else ""
