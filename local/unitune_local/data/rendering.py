"""Conversations as token ids, the same ids in training and in inference.

The model's own chat template makes the text. The text is cut at the start and at the end of every
assistant turn, each piece is tokenised by itself, and the ids are joined. A merge can never cross
such a cut, and prompts are cut before each answer like training rows, so what inference feeds is
exactly the beginning of what training saw, whatever the tokenizer merges. Special tokens in texts
of users and tools are cut, too, and stay text. Otherwise such a text could open a system turn.

Loss falls on assistant turns up to and with the token that ends the turn, found by position in the
turn's own piece, because elsewhere the same id may mean padding. A template that is not a growing
text (each turn a continuation of the text before it), that leaves a turn out, or that ignores tools
is refused: a model tuned through it would not see in use what it saw in training.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain, islice
from typing import Any, NamedTuple, cast

from pydantic import JsonValue
from transformers import PreTrainedTokenizerBase

from unitune.cost.tokens.by_tokenizer import (
    CannotRender,
    ChatTemplate,
    TooSlow,
    template_turn,
)
from unitune.data.example import Example, Message, digest
from unitune.errors import Mismatch
from unitune_local.data.batches import Fork

Tools = Sequence[dict[str, JsonValue]] | None
SPLIT = "\ufdd0"
"""Where a text is cut before it is tokenised; a noncharacter, for internal use by Unicode."""


class TemplateError(Mismatch):
    """The chat template cannot carry this conversation."""

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(f"{problem} {fix}")
        self.problem = problem
        self.fix = fix


class Rendered(NamedTuple):
    """A conversation as the model sees it."""

    ids: list[int]
    trained: list[bool]
    """For each id, whether it carries loss."""
    fork: Fork | None = None
    """Of a preference row, whose ids are prompt, better answer and worse answer."""


class TextPiece(NamedTuple):
    """A stretch of the rendered text."""

    text: str
    turn: Message | None = None
    """The assistant turn that it is; None for what stands between turns."""


def render(tokenizer: PreTrainedTokenizerBase, example: Example) -> Rendered:
    """Return a training row's ids, and which of them carry loss.

    Args:
        tokenizer: With a chat template.
        example: The row; assistant turns of weight 0 carry no loss.

    Raises:
        TemplateError: The template cannot carry this row.
    """
    (made,) = render_all(tokenizer, [example])
    if isinstance(made, TemplateError):
        raise made
    return made


def render_all(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example]
) -> list[Rendered | TemplateError]:
    """Return what `render` does of each of some rows, or raises; tokenised in one go."""
    cut: list[list[TextPiece] | TemplateError] = []
    for example in examples:
        last = cut[-1] if cut else None
        if isinstance(last, TemplateError) and isinstance(last.__cause__, TooSlow):
            cut.append(last)
        else:
            cut.append(_cut(tokenizer, example))
    texts = [piece.text for made in cut if not isinstance(made, TemplateError) for piece in made]
    ids = iter(_encode_all(tokenizer, texts))
    return [
        made
        if isinstance(made, TemplateError)
        else _joined(example, made, list(islice(ids, len(made))), turn_end(tokenizer))
        for made, example in zip(cut, examples, strict=True)
    ]


def _cut(tokenizer: PreTrainedTokenizerBase, example: Example) -> list[TextPiece] | TemplateError:
    """Return the pieces of a row; those of a pair's two answers, or of a rated one, stand last."""
    try:
        turn_end(tokenizer)
        pieces = _pieces(tokenizer, example.messages, example.tools)
        if example.non_preferred_output is None:
            return pieces if example.kto_tag is None else pieces[:-1]
        messages = (*example.prompt, *example.non_preferred_output)
        *opening, worse, _ = _pieces(tokenizer, messages, example.tools)
    except TemplateError as error:
        return error
    if opening != pieces[:-2]:
        return TemplateError(
            "the chat template writes the prompt differently before its two answers.",
            "Use a model whose template appends.",
        )
    return [*pieces[:-1], worse]


def _joined(
    example: Example, pieces: Sequence[TextPiece], encoded: Sequence[list[int]], stop: int
) -> Rendered:
    if example.non_preferred_output is not None:
        return _answers_alone(encoded, 2, stop)
    if example.kto_tag is not None:
        return _answers_alone(encoded, 1, stop)
    ids: list[int] = []
    trained: list[bool] = []
    for piece, piece_ids in zip(pieces, encoded, strict=True):
        learnt = 0
        if piece.turn is not None and piece.turn.weight != 0:
            learnt = _length_to(stop, piece_ids)
        ids += piece_ids
        trained += [True] * learnt + [False] * (len(piece_ids) - learnt)
    return Rendered(ids, trained)


def _answers_alone(encoded: Sequence[list[int]], count: int, stop: int) -> Rendered:
    """Join a prompt, of which nothing is trained, and one or two answers up to their ends."""
    prompt = list(chain(*encoded[:-count]))
    answers = [ids[: _length_to(stop, ids)] for ids in encoded[-count:]]
    fork = Fork(len(prompt), len(prompt) + len(answers[0])) if count == 2 else None
    ids = [*prompt, *chain(*answers)]
    trained = [False] * len(prompt) + [True] * (len(ids) - len(prompt))
    return Rendered(ids, trained, fork)


def render_prompt(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], tools: Tools = None
) -> list[int]:
    """Return the ids after which the model's answer begins.

    The conversation is rendered as a whole: a template may write earlier answers differently, as
    those that drop thoughts do.

    Raises:
        TemplateError: The template leaves out a message of the user, the system or a tool.
    """
    text = _with_tools(tokenizer, messages, tools, asks=True)
    _check_complete(text, [each for each in messages if each.role != "assistant"])
    opening = _opening(tokenizer, _template(tokenizer))
    # Training rows are cut before each answer, too.
    pieces = re.split(f"(?<={re.escape(opening)})", text) if opening else [text]
    return list(chain(*_encode_all(tokenizer, pieces)))


def turn_end(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the id of the token with which the template ends an assistant turn.

    Raises:
        TemplateError: There is none, so a model tuned with it would not know when to stop.
    """
    return _turn_end(tokenizer, _template(tokenizer))


@lru_cache(maxsize=4)
def _opening(tokenizer: PreTrainedTokenizerBase, template: str) -> str:
    """Return the text with which the template opens an answer; "" where it writes none."""
    del template
    turns = [Message(role="user", content="x")]
    without = _apply(tokenizer, turns, None, asks=False)
    text = _apply(tokenizer, turns, None, asks=True)
    return text[len(without) :] if text.startswith(without) else ""


@lru_cache(maxsize=4)
def _turn_end(tokenizer: PreTrainedTokenizerBase, template: str) -> int:
    del template  # another template, another token
    turns = [Message(role="user", content="x"), Message(role="assistant", content="x")]
    prompt = _apply(tokenizer, turns[:1], None, asks=True)
    text = _apply(tokenizer, turns, None, asks=False)
    (tail,) = _encode_all(tokenizer, [text[len(prompt) :].rpartition("x")[2]])
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    for index in tail:
        if index in special:
            return index
    raise TemplateError(
        "the chat template ends an assistant turn without a special token.",
        "Use a model whose template ends turns with one, as instruct models do.",
    )


def template_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the SHA-256 of the chat template."""
    return digest(_template(tokenizer))


def _length_to(stop: int, ids: list[int]) -> int:
    """Return the number of ids up to and with the last stop token."""
    return len(ids) - ids[::-1].index(stop) if stop in ids else len(ids)


def _pieces(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], tools: Tools
) -> list[TextPiece]:
    """Cut the rendered text at the start and the end of every assistant turn."""
    text = _with_tools(tokenizer, messages, tools, asks=False)
    _check_complete(text, messages)
    pieces: list[TextPiece] = []
    done = 0
    for place, message in enumerate(messages):
        if message.role != "assistant":
            continue
        prompt = _apply(tokenizer, messages[:place], tools, asks=True)
        last = place == len(messages) - 1
        through = text if last else _apply(tokenizer, messages[: place + 1], tools, asks=False)
        if not (text.startswith(through) and through.startswith(prompt)):
            raise TemplateError(
                f"the chat template writes the conversation up to message {place + 1} differently "
                "when more follows, so training would not see what inference sees.",
                "Keep only the last assistant turn as an answer, or use a model whose template "
                "appends.",
            )
        pieces += [
            TextPiece(text[done : len(prompt)]),
            TextPiece(text[len(prompt) : len(through)], message),
        ]
        done = len(through)
    return [*pieces, TextPiece(text[done:])]


def _with_tools(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], tools: Tools, *, asks: bool
) -> str:
    text = _apply(tokenizer, messages, tools, asks=asks)
    if tools and text == _apply(tokenizer, messages, None, asks=asks):
        raise TemplateError(
            "the chat template ignores tools, so the model would never see them.",
            "Describe the tools in the system message, or use a model whose template has tools.",
        )
    return text


def _check_complete(text: str, messages: Sequence[Message]) -> None:
    text, place = text.replace(SPLIT, ""), 0
    for number, message in enumerate(messages, start=1):
        content = message.text.strip()
        if message.role == "tool" or not content:
            continue  # tool results may be quoted, and an empty turn leaves no trace
        place = text.find(content, place)
        if place < 0:
            raise TemplateError(
                f"the chat template leaves out message {number}, {message.role}: {content[:40]!r}.",
                "Move its text into another message, or use a model whose template has that role.",
            )
        place += len(content)


def _apply(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], tools: Tools, *, asks: bool
) -> str:
    if not messages:
        return ""
    template = ChatTemplate(_template(tokenizer), cast("Any", tokenizer).special_tokens_map)
    turns = [_guarded(tokenizer, template_turn(message)) for message in messages]
    try:
        return template.render(turns, tools, asks=asks)
    except CannotRender as error:
        raise TemplateError(
            f"the chat template refuses the conversation: {error}.",
            "Change the roles or their order to what this model knows.",
        ) from error


def _template(tokenizer: PreTrainedTokenizerBase) -> str:
    template = cast("Any", tokenizer).chat_template
    if isinstance(template, str):
        return template
    raise TemplateError(
        "the model's tokenizer has no chat template.",
        "Use an instruct model, or add a chat_template.jinja to the model's folder.",
    )


def _guarded(
    tokenizer: PreTrainedTokenizerBase, turn: dict[str, JsonValue]
) -> dict[str, JsonValue]:
    """Split special tokens in texts that others write, so that such a text cannot end its turn."""
    if turn["role"] not in ("user", "tool"):
        return turn
    inside = _special_tokens(tokenizer)
    return {**turn, "content": inside.sub(SPLIT, cast("str", turn["content"]))}


@lru_cache(maxsize=4)
def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    """Return a pattern for the place after the first letter of each special token."""
    added = tokenizer.added_tokens_decoder.values()
    tokens = {*tokenizer.all_special_tokens, *(str(each) for each in added if each.special)}
    places = (f"(?<={re.escape(each[0])})(?={re.escape(each[1:])})" for each in tokens if each[1:])
    return re.compile("|".join(places) or "(?!)")


def _encode_all(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    """Return the ids of texts; one call for many takes half the time of one for each."""
    parts = [text.split(SPLIT) for text in texts]
    if not parts:
        return []
    encode = cast("Any", tokenizer)
    made = encode(
        list(chain(*parts)), add_special_tokens=False, return_attention_mask=False, verbose=False
    )
    ids = iter(cast("list[list[int]]", made["input_ids"]))
    return [list(chain(*islice(ids, len(part)))) for part in parts]
