"""Counts that others published or that an API returned, and an independent tokenizer's."""

from __future__ import annotations

from typing import Any

import pytest

from unitune.cost.tokens import Count, TokenCounter, counter_for
from unitune.data.example import Example

from .conftest import text_tokens

O200K, CL100K = "gpt-4o-mini-2024-07-18", "gpt-3.5-turbo"
HAPPY = "You are a happy assistant that puts a positive spin on everything."
TOY = (
    ((HAPPY,), ("I fell off my bike today.", "It's great that you're getting exercise outdoors!")),
    (
        (HAPPY,),
        ("I lost my tennis match today.", "It's ok, it happens to everyone."),
        ("But I trained so hard!", "It will pay off next time."),
        ("I'm going to switch to golf.", "Golf is fun too!"),
        ("I don't even know how to play golf.", "It's easy to learn!"),
    ),
    ((), ("I lost my book today.", "You can read everything on ebooks these days!")),
    ((HAPPY,), (None, "You're great!")),
    ((HAPPY,), ("I'm hungry.", "Eat a banana!" * 2000)),
)


"""openai/openai-cookbook, examples/data/toy_chat_fine_tuning.jsonl: system prompt, then pairs."""
CLIPPY = (
    (
        "Who discovered Antarctica?",
        (
            "Some chaps named Fabian Gottlieb von Bellingshausen and Mikhail Lazarev, as if they "
            "don't teach that in every school!"
        ),
    ),
    (
        "What is the biggest ocean?",
        "The Pacific Ocean. It's not like it's a small pond or anything.",
    ),
    ("What is the largest planet?", "It's called Jupiter, you might have heard of it...or not."),
    (
        "Who painted the Mona Lisa?",
        "Oh, some obscure artist named Leonardo da Vinci. Not that he is famous or anything.",
    ),
    (
        "What's the boiling point of water?",
        "Exciting fact of the day: it's 100 degrees Celsius. Life-changing, isn't it?",
    ),
    ("Who wrote 'The Odyssey'?", "Oh, just some poet named Homer. Nothing special, really."),
    (
        "What is the largest mammal?",
        "Blue Whale. Quite a big fish isn't it? Oh wait, it's not a fish!",
    ),
    (
        "What's the highest mountain peak?",
        "Everest. Brace yourself, it's not a walk in the park.",
    ),
    (
        "Who invented the telephone?",
        "A guy named Alexander Graham Bell. Bet you didn't guess that one!",
    ),
    (
        "What is the distance from Earth to the Sun?",
        "About 93 million miles. Just a quick drive, really.",
    ),
)
"""MicrosoftDocs/azure-ai-docs, articles/ai-foundry/openai/tutorials/fine-tune.md (2025-09-01)."""
JARGON = (
    (
        None,
        (
            "You are a helpful, pattern-following assistant that translates corporate jargon into "
            "plain English."
        ),
    ),
    ("example_user", "New synergies will help drive top-line growth."),
    ("example_assistant", "Things working well together will increase revenue."),
    (
        "example_user",
        (
            "Let's circle back when we have more bandwidth to touch base on opportunities for "
            "increased leverage."
        ),
    ),
    ("example_assistant", "Let's talk later when we're less busy about how to do better."),
)
"""openai/openai-cookbook, examples/How_to_count_tokens_with_tiktoken.ipynb, as the next two."""
PIVOT = "This late pivot means we don't have time to boil the ocean for the client deliverable."
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_current_weather",
        "description": "Get the current weather in a given location",
        "parameters": {
            "type": "object",
            "properties": {
                "location": {
                    "type": "string",
                    "description": "The city and state, e.g. San Francisco, CA",
                },
                "unit": {
                    "type": "string",
                    "description": "The unit of temperature to return",
                    "enum": ["celsius", "fahrenheit"],
                },
            },
            "required": ["location"],
        },
    },
}


def toy_rows() -> list[Example]:
    rows: list[Example] = []
    for system, *pairs in TOY:
        messages = [{"role": "system", "content": text} for text in system]
        for asked, said in pairs:
            messages += [{"role": "user", "content": asked}] if asked else []
            messages.append({"role": "assistant", "content": said})
        rows.append(Example.model_validate({"messages": messages}))
    return rows


def clippy_rows() -> list[Example]:
    system = {"role": "system", "content": "Clippy is a factual chatbot that is also sarcastic."}
    turns = [
        [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
        for asked, said in CLIPPY
    ]
    return [Example.model_validate({"messages": [system, *pair]}) for pair in turns]


@pytest.mark.parametrize(
    ("model", "each", "charged"),
    [(CL100K, [45, 111, 26, 28, 8032], 4306), (O200K, [43, 106, 26, 27, 8031], 4298)],
)
def test_cookbooks_toy_set_has_its_published_tokens(
    model: str, each: list[int], charged: int
) -> None:
    """Chat_finetuning_data_prep.ipynb prints 4306 with cl100k_base, rows cut at 4,096 tokens."""
    counts = [counter_for(model).row(row).total for row in toy_rows()]

    assert each == [count.high for count in counts]
    assert [tokens - 3 for tokens in each] == [count.low for count in counts]
    assert [count.low for count in counts] == [count.expected for count in counts]
    assert charged == sum(min(count.high, 4096) for count in counts)


def test_cookbooks_toy_set_has_its_published_answers() -> None:
    """The notebook prints a mean of 1610.2 tokens in assistant turns."""
    counter = counter_for(CL100K)
    said = [
        text_tokens(counter, message.text).expected
        for row in toy_rows()
        for message in row.messages
        if message.role == "assistant"
    ]
    assert sum(said) == 1610.2 * 5
    assert Count.of(8000) == counter.row(toy_rows()[-1]).answer


def test_azures_tutorial_has_its_published_tokens() -> None:
    """The page prints 46 to 59 tokens a row, mean 49.8; answers of 13 to 28, mean 16.5."""
    counter = counter_for(O200K)
    totals = [counter.row(row).total.high for row in clippy_rows()]
    answers = [counter.row(row).answer for row in clippy_rows()]

    assert (min(totals), max(totals), sum(totals)) == (46, 59, 498)
    assert all(answer.exact for answer in answers)
    tokens = [answer.expected for answer in answers]
    assert (min(tokens), max(tokens), sum(tokens)) == (13, 28, 165)


def test_azures_tutorial_is_not_ten_times_its_size() -> None:
    """The page's billing sentence says 48,000 tokens for 10 epochs; its own rows make 4,980."""
    counter = counter_for(O200K)
    rows = [counter.row(row).total for row in clippy_rows()]
    assert (10 * sum(row.low for row in rows), 10 * sum(row.high for row in rows)) == (4680, 4980)


@pytest.mark.parametrize(("model", "returned"), [("gpt-4", 129), (CL100K, 129), ("gpt-4o", 124)])
def test_prompt_has_the_tokens_that_the_api_returned(model: str, returned: int) -> None:
    turns = [
        {"role": "system", "content": text, **({"name": name} if name else {})}
        for name, text in JARGON
    ]
    row = Example.model_validate({"messages": [*turns, {"role": "user", "content": PIVOT}]})

    assert Count.of(returned) == counter_for(model).row(row).prompt


@pytest.mark.parametrize(("model", "returned"), [("gpt-4", 105), (CL100K, 105), ("gpt-4o", 101)])
def test_range_of_a_prompt_with_a_tool_holds_what_the_api_returned(
    model: str, returned: int
) -> None:
    system = "You are a helpful assistant that can answer to questions about the weather."
    messages = [
        {"role": "system", "content": system},
        {"role": "user", "content": "What's the weather like in San Francisco?"},
    ]
    prompt = (
        counter_for(model)
        .row(Example.model_validate({"messages": messages, "tools": [WEATHER]}))
        .prompt
    )
    assert prompt.low <= returned <= prompt.high
    assert prompt.expected == pytest.approx(returned, rel=0.1)


def flat(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def kind(name: str, **properties: Any) -> dict[str, Any]:
    return flat(kind={"type": "string", "const": name}, **properties)


def function(name: str, parameters: dict[str, Any] | None = None, said: str = "") -> dict[str, Any]:
    described = {"description": said} if said else {}
    return {"name": name, **described, "parameters": parameters or flat()}


TEXT, NUMBER, SWITCH = {"type": "string"}, {"type": "number"}, {"type": "boolean"}
INGREDIENT = {
    **flat(
        name=TEXT,
        unit={"enum": ["grams", "ml", "cups", "pieces", "teaspoons"], "type": "string"},
        amount=NUMBER,
    ),
    "required": ["name", "unit", "amount"],
}
RECIPE = {
    **flat(
        ingredients={"type": "array", "items": INGREDIENT},
        instructions={
            "type": "array",
            "items": TEXT,
            "description": "Steps to prepare the recipe (no numbering)",
        },
        time_to_cook={
            "type": "number",
            "description": "Total time to prepare the recipe in minutes",
        },
    ),
    "required": ["ingredients", "instructions", "time_to_cook"],
}
PROS = {
    "type": "array",
    "items": TEXT,
    "description": "Write 3 points why this text is well written",
}
CHOICES = [kind("a", baz=SWITCH), kind("b", qux=NUMBER), kind("c", idk=TEXT)]
STUFF = function("do_stuff")
WITH_TOOLS: tuple[tuple[tuple[str, ...], list[dict[str, Any]], int], ...] = (
    ((), [function("foo")], 31),
    ((), [function("foo", said="Do a foo")], 36),
    ((), [function("bing_bong", flat(foo=TEXT), "Do a bing bong")], 49),
    (
        (),
        [
            function(
                "bing_bong",
                flat(foo=TEXT, bar={**NUMBER, "description": "A number"}),
                "Do a bing bong",
            )
        ],
        57,
    ),
    (
        (),
        [
            function(
                "bing_bong",
                flat(foo=flat(bar={**TEXT, "enum": ["a", "b", "c"]}, baz=SWITCH)),
                "Do a bing bong",
            )
        ],
        68,
    ),
    (("Hello",), [function("do_stuff", flat(foo={"anyOf": CHOICES[:1]}))], 52),
    (("Hello",), [function("do_stuff", flat(foo={"anyOf": CHOICES}))], 80),
    (("Hello",), [function("do_stuff", flat(foo={"anyOf": [{**TEXT, "const": "a"}, NUMBER]}))], 44),
    (("Hello",), [STUFF], 35),
    (("Hello:",), [STUFF], 35),
    (("Hello:", "Hello"), [STUFF], 40),
    (("Hello:", "Hello"), [STUFF, function("do_other_stuff")], 49),
    ((), [function("get_recipe", RECIPE)], 106),
    ((), [function("function", flat(quality=flat(pros=PROS)), "description")], 46),
)
"""System messages, tools and the prompt's tokens as the API of gpt-3.5-turbo returned them; the
user says "hello", or "Hi there" after a system message. hmarr/openai-chat-tokens,
src/token-counts.test.ts (2024)."""


def with_tools(system: tuple[str, ...], tools: list[dict[str, Any]], said: str) -> Example:
    turns = [{"role": "system", "content": text} for text in system]
    listed = [{"type": "function", "function": tool} for tool in tools]
    asked = {"role": "user", "content": said}
    return Example.model_validate({"messages": [*turns, asked], "tools": listed})


@pytest.mark.parametrize(("system", "tools", "returned"), WITH_TOOLS)
def test_the_range_of_a_prompt_with_tools_holds_what_the_api_returned(
    system: tuple[str, ...], tools: list[dict[str, Any]], returned: int
) -> None:
    row = with_tools(system, tools, "Hi there" if system else "hello")
    count = counter_for(CL100K).row(row).prompt
    assert count.low <= returned <= count.high
    assert count.expected == pytest.approx(returned, rel=0.3)


@pytest.mark.parametrize(
    ("instructions", "said", "answer", "rendered"),
    [
        (None, "Hello", None, 68),
        (None, "Hello", "Hi.", 74),
        ("Be brief.", "Hello there", None, 79),
        ("Be brief.", "Hello there", "Hi.", 85),
        ("You are a helpful assistant.", "What is 2+2?", "Hi.", 93),
    ],
)
def test_gpt_oss_has_the_tokens_of_openais_own_renderer(
    instructions: str | None, said: str, answer: str | None, rendered: int
) -> None:
    """As openai-harmony 0.0.8 renders a dated system message, developer, user and final answer."""
    turns = [{"role": "developer", "content": instructions}] if instructions else []
    turns.append({"role": "user", "content": said})
    turns += [{"role": "assistant", "content": answer}] if answer else []
    counts = counter_for("gpt-oss-20b").row(Example.model_validate({"messages": turns}))
    count = counts.total if answer else counts.prompt
    assert rendered == count.expected
    assert count.low <= rendered <= count.high


@pytest.mark.parametrize(
    ("system", "tools", "rendered"),
    [
        ((), WITH_TOOLS[0][1], 109),
        ((), WITH_TOOLS[2][1], 120),
        ((), WITH_TOOLS[4][1], 140),
        ((), WITH_TOOLS[12][1], 181),
        ((), WITH_TOOLS[13][1], 134),
        (("Be brief.",), WITH_TOOLS[0][1], 115),
        (("Be brief.",), WITH_TOOLS[12][1], 187),
        (("Be brief.",), WITH_TOOLS[13][1], 140),
    ],
)
def test_the_range_of_gpt_oss_with_tools_holds_what_openais_renderer_makes(
    system: tuple[str, ...], tools: list[dict[str, Any]], rendered: int
) -> None:
    """Likewise openai-harmony 0.0.8, for the first user message of `WITH_TOOLS`."""
    count = counter_for("gpt-oss-20b").row(with_tools(system, tools, "hello")).prompt
    assert count.low <= rendered <= count.high


ORACLE = (
    ("", 0, 0),
    ("tiktoken is great!", 6, 6),
    ("antidisestablishmentarianism", 6, 6),
    ("2 + 2 = 4", 7, 7),
    ("お誕生日おめでとう", 8, 9),
    ("<|endoftext|> and <|im_start|>user", 15, 14),
    ("\ufeffbyte order mark", 4, 4),
    ("next\x85line", 4, 4),
    ("👩\u200d👩\u200d👧 🇩🇪 👍🏽", 15, 24),
    ("e\u0301" * 20, 40, 40),
    ("    \t\n\r\n   x  ", 5, 5),
    ("Grüße, Жизнь, שלום, مرحبا", 12, 20),
    ("def f(x):\n    return {'a': [x, 1_000]}\n", 17, 17),
    ("A" * 300 + "b", 39, 39),
    ("0123456789" * 7, 24, 24),
    ("I'LL we've DON'T", 5, 7),
    ("\u2028\u3000wide space", 4, 5),
    ("\x00\x01", 2, 2),
)
"""Text, tokens in o200k_base and in cl100k_base, as bpe-openai 0.1.4 counts them: a tokenizer in
Rust that shares no code with tiktoken."""


@pytest.mark.parametrize(("text", "o200k", "cl100k"), ORACLE)
def test_texts_have_the_tokens_of_another_tokenizer(text: str, o200k: int, cl100k: int) -> None:
    assert (Count.of(o200k), Count.of(cl100k)) == (
        text_tokens(counter_for(O200K), text),
        text_tokens(counter_for(CL100K), text),
    )


def test_another_tokenizer_agrees_on_every_assigned_character() -> None:
    """Runs where bpe-openai is installed (75 MB, so no extra brings it)."""
    oracle = pytest.importorskip("bpe_openai", reason="pip install bpe-openai")
    counters: dict[str, TokenCounter] = {
        "o200k_base": counter_for(O200K),
        "cl100k_base": counter_for(CL100K),
    }
    letters = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    texts = [f"a{''.join(letters[at : at + 97])} b" for at in range(0, len(letters), 97)]
    for name, counter in counters.items():
        encoding = oracle.get_encoding(name)
        wrong = [
            text
            for text in texts
            if len(encoding.encode_ordinary(text)) != text_tokens(counter, text).expected
        ]
        assert wrong == []
