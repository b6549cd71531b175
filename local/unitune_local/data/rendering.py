"""Turn conversations into token ids, the same ones in training and in inference.

In training, an answer follows exactly the tokens that inference would feed before it. Loss falls on
the answer and the token that ends it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, NamedTuple, cast

from transformers import PreTrainedTokenizerBase

from unitune.cost.tokens.by_tokenizer import TooSlow
from unitune.data.example import Example, Message
from unitune_local.data import chat_text
from unitune_local.data.batches import Fork
from unitune_local.data.chat_text import (
    PROBE_TOOL,
    SPLIT,
    THINK,
    THOUGHT,
    TemplateError,
    Tools,
    format_of,
    opening,
)
from unitune_local.data.turn_checks import check_answer, check_context, said_of

CONTEXT = 48  # characters before a piece; no role's header or token is longer


class Rendered(NamedTuple):
    """A conversation as token ids."""

    ids: list[int]
    trained: list[bool]  # loss mask: True for ids that are trained on
    # For a preference row, whose ids are prompt, better answer and worse answer
    fork: Fork | None = None


class _Piece(NamedTuple):
    text: str
    trained: bool = False
    is_answer: bool = False


@dataclass(frozen=True, slots=True)
class _Turn:
    prompt: str  # text that inference feeds before the answer
    answer: str  # text that the model should write, including the token that ends the turn
    tail: str  # text that the template writes after it
    masked: int  # characters at the beginning of the answer without loss

    @property
    def text(self) -> str:
        return self.prompt + self.answer

    @property
    def pieces(self) -> list[_Piece]:
        masked, learnt = self.answer[: self.masked], self.answer[self.masked :]
        own = [_Piece(masked, is_answer=True), _Piece(learnt, trained=True, is_answer=True)]
        return [piece for piece in own if piece.text]


def render(tokenizer: PreTrainedTokenizerBase, example: Example) -> list[Rendered]:
    """Return the samples of a training row; assistant turns of weight 0 carry no loss.

    Raises:
        TemplateError: The template cannot represent this row.
    """
    (made,) = render_all(tokenizer, [example])
    if isinstance(made, TemplateError):
        raise made
    return made


def render_all(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example]
) -> list[list[Rendered] | TemplateError]:
    """Render several rows with few tokenizer calls; each row yields samples or an error."""
    rows: list[list[list[_Piece]] | TemplateError] = []
    for example in examples:
        last = rows[-1] if rows else None
        if isinstance(last, TemplateError) and isinstance(last.__cause__, TooSlow):
            rows.append(last)
            continue
        try:
            rows.append(_texts(tokenizer, example))
        except TemplateError as error:
            rows.append(error)
    texts = list(chain(*(row for row in rows if not isinstance(row, TemplateError))))
    ids = iter(_encode_pieces(tokenizer, [[piece.text for piece in text] for text in texts]))
    return [
        row
        if isinstance(row, TemplateError)
        else _joined(example, row, list(islice(ids, len(row))))
        for row, example in zip(rows, examples, strict=True)
    ]


def _texts(tokenizer: PreTrainedTokenizerBase, example: Example) -> list[list[_Piece]]:
    """Return the texts of a row; those of a pair's two answers differ only in the answer."""
    messages, tools = example.messages, example.tools
    if example.non_preferred_output is not None or example.kto_tag is not None:
        answers = (messages[-1:], example.non_preferred_output or ())
        rows = [(*example.prompt, *answer) for answer in answers if answer]
        turns = [_turn(tokenizer, row, len(row) - 1, tools) for row in rows]
        return [_pieces(tokenizer, turn.text, [turn], tools) for turn in turns]
    trained = [
        place
        for place, message in enumerate(messages)
        if message.role == "assistant" and message.weight != 0
    ]
    if not trained:
        text = _with_tools(tokenizer, messages, tools, asks=False)
        check_context(text, messages)
        return [_pieces(tokenizer, text, [], tools)]
    samples: list[tuple[str, list[_Turn]]] = []
    for place in reversed(trained):
        turn = _turn(tokenizer, messages, place, tools)
        within = (turns for text, turns in samples if text.startswith(turn.text))
        if (others := next(within, None)) is not None:
            others.insert(0, turn)
        else:
            samples.insert(0, (turn.text + turn.tail, [turn]))
    return [_pieces(tokenizer, text, turns, tools) for text, turns in samples]


def _turn(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], place: int, tools: Tools
) -> _Turn:
    message, number = messages[place], place + 1
    prompt = chat_text.apply(tokenizer, messages[:place], tools, asks=True)
    text = _with_tools(tokenizer, messages[:number], tools, asks=False)
    check_context(prompt, messages[:place])
    opens = opening(tokenizer, tools)
    begun = _answer_begins(prompt, text, opens)
    if begun is None:
        # Some templates write the system message only while the last question is not answered.
        others = [each for each in messages[:place] if each.role not in ("system", "developer")]
        begun = _answer_begins(check_context(prompt, others), check_context(text, others), opens)
    if begun is None:
        raise TemplateError(
            f"the chat template changes the messages before message {number} once it follows, so "
            "training and inference would see different texts.",
            "Give that turn weight 0, or use a model whose template only appends.",
        )
    written = begun.written
    if _opens_thought(begun.unwritten) and THOUGHT not in written:
        # The model begins with its reasoning, which the template omits afterwards.
        written = f"{said_of(message).reasoning}\n{THOUGHT}\n\n{written}"
    content_end = check_answer(written, message, number)
    answer, tail = _ended(tokenizer, written, content_end, tools, calls=bool(message.tool_calls))
    return _Turn(prompt, answer, tail, _masked(tokenizer, answer, message))


class _Begun(NamedTuple):
    written: str  # answer as the template writes it
    unwritten: str  # end of the prompt that the template omits once the answer follows


def _answer_begins(prompt: str, text: str, opens: str) -> _Begun | None:
    """Return the answer in a text that begins like its prompt, or None if it does not.

    A template may open an answer with more than it keeps afterwards, such as ``<think>``.
    """
    parts = re.finditer(r"<[^<>]*>|\n+|[^<\n]+", opens)
    for place in (len(opens), *reversed([part.start() for part in parts])):
        shared = len(prompt) - len(opens) + place
        if text.startswith(prompt[:shared]):
            return _Begun(text[shared:], prompt[shared:])
    return None


def _ended(
    tokenizer: PreTrainedTokenizerBase, written: str, start: int, tools: Tools, *, calls: bool
) -> tuple[str, str]:
    """Split a turn after the token that ends it."""
    ends = chat_text.turn_ends(tokenizer, tools)
    places = [(written.rfind(end, start), end) for end in (ends.answer, ends.call)]
    place, end = max(places)
    if place >= 0:
        return written[: place + len(end)], written[place + len(end) :]
    added = ends.added_call if calls else ends.added_answer
    return written.removesuffix(ends.bare) + added, ""


def _masked(tokenizer: PreTrainedTokenizerBase, answer: str, message: Message) -> int:
    """Return how many characters of a turn are reasoning that is masked."""
    if format_of(tokenizer).reasoning != "mask" or not message.reasoning_content:
        return 0
    said = said_of(message)
    end = answer.find(said.reasoning) + len(said.reasoning)
    if said.answer:
        return answer.find(said.answer, end)
    closing = re.compile(rf"\s*{THOUGHT}\s*").match(answer, end)
    return closing.end() if closing else end


def _opens_thought(text: str) -> bool:
    return text.rfind(THINK) > text.rfind(THOUGHT)


def _pieces(
    tokenizer: PreTrainedTokenizerBase, text: str, turns: Sequence[_Turn], tools: Tools
) -> list[_Piece]:
    """Cut a text at the trained turns and before every other answer, as prompts are cut."""
    pieces: list[_Piece] = []
    done = 0
    for turn in turns:
        pieces += _openings_apart(tokenizer, text[done : len(turn.prompt)], tools)
        pieces += turn.pieces
        done = len(turn.text)
    return [*pieces, *_openings_apart(tokenizer, text[done:], tools)]


def _openings_apart(tokenizer: PreTrainedTokenizerBase, text: str, tools: Tools) -> list[_Piece]:
    opens = opening(tokenizer, tools)
    pieces = re.split(f"(?<={re.escape(opens)})", text) if opens else [text]
    return [_Piece(piece) for piece in pieces if piece]


def _joined(
    example: Example, texts: Sequence[Sequence[_Piece]], encoded: Sequence[Sequence[list[int]]]
) -> list[Rendered]:
    made: list[Rendered] = []
    for pieces, ids in zip(texts, encoded, strict=True):
        trained = [piece.trained for piece, own in zip(pieces, ids, strict=True) for _ in own]
        made.append(Rendered(list(chain(*ids)), trained))
    if example.non_preferred_output is None:
        return made
    better, worse = made
    prompts = zip(texts[0], encoded[0], strict=True)
    prompt = sum(len(ids) for piece, ids in prompts if not piece.is_answer)
    ids, trained = better.ids + worse.ids[prompt:], better.trained + worse.trained[prompt:]
    return [Rendered(ids, trained, Fork(prompt, len(better.ids)))]


def render_prompt(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], tools: Tools = None
) -> list[int]:
    """Return the ids after which the model's answer begins.

    The whole conversation is rendered, because a template may change earlier answers, for example
    by dropping their reasoning. Without a chat template, the model completes the text
    of the messages.

    Raises:
        TemplateError: The template omits a message of the user, the system or a tool.
    """
    if not chat_text.has_template(tokenizer):
        return text_ids(tokenizer, completed_text(messages, tools))
    text = _with_tools(tokenizer, messages, tools, asks=True)
    check_context(text, [each for each in messages if each.role != "assistant"])
    pieces = [piece.text for piece in _openings_apart(tokenizer, text, tools)]
    (ids,) = _encode_pieces(tokenizer, [pieces])
    return list(chain(*ids))


def result_ids(
    tokenizer: PreTrainedTokenizerBase,
    question: Sequence[Message],
    answer: Message,
    results: Sequence[Message],
    tools: Tools,
) -> list[int]:
    """Return the ids between the end of an answer that calls tools and the next answer.

    Raises:
        TemplateError: The template omits a result, or changes the answer's end.
    """
    turn = _turn(tokenizer, [*question, answer], len(question), tools)
    text = chat_text.apply(tokenizer, [*question, answer, *results], tools, asks=True)
    check_context(text, [*question, answer, *results])
    # Some templates drop the reasoning at the beginning of an answer once results follow.
    endings = (turn.answer[at:] for at in range(len(turn.answer)))
    kept = next((ending for ending in endings if ending in text), "")
    begun, _, rest = text.rpartition(kept)
    if len(kept) <= len(max(chat_text.turn_ends(tokenizer, tools)[:2], key=len)):
        raise TemplateError(
            "the chat template changes the end of an answer once results of its tool calls follow.",
            "Use a model whose template only appends.",
        )
    after = [piece.text for piece in _openings_apart(tokenizer, rest, tools)]
    ((_, *ids),) = _encode_pieces(tokenizer, [[begun + kept, *after]])
    return list(chain(*ids))


def completed_text(messages: Sequence[Message], tools: Tools = None) -> str:
    """Return what a model without a chat template completes: all messages, a blank line apart.

    Raises:
        TemplateError: The conversation has tools, or no text.
    """
    chat_text.refuse_images(messages)
    text = "\n\n".join(message.text for message in messages)
    if tools or any(message.role == "tool" or message.tool_calls for message in messages):
        raise TemplateError(
            "the model has no chat template, so it completes texts and cannot be given tools.",
            "Use an instruct model, or name a template in data.chat_template.",
        )
    if not text.strip():
        raise TemplateError("the messages hold no text to complete.", "Write a beginning.")
    return text


def text_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the ids of a raw text, without the token of the text's end."""
    ids = cast("list[int]", cast("Any", tokenizer)(text, verbose=False)["input_ids"])
    return ids[:-1] if ids[-1:] == [tokenizer.eos_token_id] else ids


def turn_end(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the id of the token that ends an assistant turn; raises TemplateError without one."""
    return _id_of(tokenizer, chat_text.turn_ends(tokenizer).answer)


def turn_ends(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the ids of the tokens that end an answer or a tool call; raises as `turn_end`."""
    ends = [chat_text.turn_ends(tokenizer)]
    with suppress(TemplateError):  # a template may refuse tools
        ends.append(chat_text.turn_ends(tokenizer, [PROBE_TOOL]))
    return frozenset(
        _id_of(tokenizer, token) for each in ends for token in (each.answer, each.call)
    )


def _id_of(tokenizer: PreTrainedTokenizerBase, token: str) -> int:
    return cast("int", cast("Any", tokenizer).convert_tokens_to_ids(token))


def _with_tools(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], tools: Tools, *, asks: bool
) -> str:
    text = chat_text.apply(tokenizer, messages, tools, asks=asks)
    if tools and text == chat_text.apply(tokenizer, messages, None, asks=asks):
        raise TemplateError(
            "the chat template ignores tools, so the model would never see them.",
            "Set data.chat_template to a template with tools, such as hermes, or describe the "
            "tools in the system message.",
        )
    return text


class _Part(NamedTuple):
    place: tuple[int, int]  # number of the text, and of the piece in it
    context: str
    text: str


def _encode_pieces(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[Sequence[str]]
) -> list[list[list[int]]]:
    """Return the ids of each piece of each text, as the whole text would be tokenised.

    A piece is tokenised after the end of the preceding text, since tokenizers treat the beginning
    of a text, and blanks after some special tokens, differently. It is tokenised alone only where
    a token would cross the cut.
    """
    parts = list(chain(*(_parts(number, pieces) for number, pieces in enumerate(texts))))
    contexts = list(dict.fromkeys(part.context for part in parts))
    known = dict(zip(contexts, _encode(tokenizer, contexts), strict=True))
    behind = _encode(tokenizer, [part.context + part.text for part in parts])
    crossed = [
        part
        for part, ids in zip(parts, behind, strict=True)
        if ids[: len(known[part.context])] != known[part.context]
    ]
    alone = iter(_encode(tokenizer, [part.text for part in crossed]))
    made: list[list[list[int]]] = [[[] for _ in pieces] for pieces in texts]
    for part, ids in zip(parts, behind, strict=True):
        before = known[part.context]
        own = ids[len(before) :] if ids[: len(before)] == before else next(alone)
        made[part.place[0]][part.place[1]] += own
    return made


def _parts(number: int, pieces: Sequence[str]) -> list[_Part]:
    parts: list[_Part] = []
    context = ""
    for place, piece in enumerate(pieces):
        for text in filter(None, piece.split(SPLIT)):
            parts.append(_Part((number, place), context, text))
            context = (context + text)[-CONTEXT:]
            # Mostly a role's header, which is the same for all rows.
            context = context[max(context.rfind("<"), context.rfind("["), 0) :]
    return parts


def _encode(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    if not texts:
        return []
    encode = cast("Any", tokenizer)
    made = encode(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)
    return cast("list[list[int]]", made["input_ids"])
