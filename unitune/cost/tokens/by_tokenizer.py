"""Counting for open models: by their own tokenizer and chat template, where these are here.

They are looked for where models lie already: in a folder that is named, in the store of a backend
that keeps models, and in the Hugging Face cache. Nothing is fetched.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from unitune.backends.capabilities import StoredModel
from unitune.cost.tokens.by_characters import assumed_row, framing_assumption
from unitune.cost.tokens.chat_template import CannotRender, ChatTemplate, read_template
from unitune.cost.tokens.count import Count, RowCount
from unitune.data.example import Example

TOKENIZER = "tokenizer.json"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def find_tokenizer(model: str, stored: Iterable[StoredModel] = ()) -> Path | None:
    """Return the folder on this machine that holds a model's tokenizer, or None.

    The model is a folder, one of the stored models, or a Hugging Face name.
    """
    kept = [each.path for each in stored if each.name.lower() == model.lower()]
    named = Path(os.path.expanduser(model))  # noqa: PTH111 - Path's own raises for ~nobody
    for folder in (named, *kept, *_hub_snapshots(model)):
        if (folder / TOKENIZER).is_file():
            return folder
    return None


class TokenizerCounter:
    """Counts with a model's own tokenizer, framed by its chat template if it has one.

    Args:
        folder: With ``tokenizer.json``.

    Raises:
        ValueError: The tokenizer cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._tokenizer = _load(folder / TOKENIZER)
        self._template = read_template(folder)

    @property
    def basis(self) -> str:
        """The tokenizer, and what frames."""
        framed = "its chat template" if self._template else "an assumed chat template"
        return f"the model's own tokenizer, framed by {framed}"

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What is not known of its framing."""
        if self._template is None:
            return (f"there is no chat template beside the tokenizer: {framing_assumption()}",)
        return (f"in rows that the chat template does not take, {framing_assumption()}",)

    def text(self, text: str) -> Count:
        """Return the tokens of a text without any framing."""
        return Count.of(self._tokens(text))

    def row(self, example: Example) -> RowCount:
        """Return the tokens of a row with its framing and tools."""
        if self._template is None:
            return assumed_row(example, self.text)
        try:
            return self._rendered(example, self._template)
        except CannotRender:
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
            answer = max(answer, whole - prompt)  # calls of tools as the template writes them
        return RowCount(Count.of(prompt), Count.of(answer), total)

    def _tokens(self, text: str) -> int:
        try:
            return len(self._tokenizer.encode(text, add_special_tokens=False))
        except (UnicodeEncodeError, TypeError):
            # Half of a character, as JSON may hold it, counts as its replacement.
            whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            return len(self._tokenizer.encode(whole, add_special_tokens=False))


def _load(file: Path) -> Any:
    from tokenizers import Tokenizer  # noqa: PLC0415 - of an extra

    try:
        tokenizer: Any = Tokenizer.from_file(str(file))  # pyright: ignore[reportUnknownMemberType]
    except Exception as problem:  # the package raises plain Exception
        raise ValueError(f"{file.name} cannot be read ({problem})") from problem
    # Settings of a training that its file may hold; they would hide what is long.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _hub_snapshots(model: str) -> Iterable[Path]:
    """Yield the snapshot of a model's main branch in the Hugging Face cache, if it is there.

    Source: huggingface_hub 2, docs/source/en/guides/manage-cache.md (layout and variables).
    """
    if _HUB_NAME.fullmatch(model) is None:
        return
    repository = _hub_cache() / f"models--{model.replace('/', '--')}"
    branch = repository / "refs" / "main"
    if branch.is_file():
        yield repository / "snapshots" / branch.read_text(encoding="utf-8").strip()


def _hub_cache() -> Path:
    if folder := os.environ.get("HF_HUB_CACHE"):
        return Path(folder).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or f"{cache}/huggingface"
    return Path(home).expanduser() / "hub"
