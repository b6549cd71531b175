"""Write train.jsonl and test.jsonl: requests to a home assistant, each with its tool call."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOMS = "kitchen hall attic office nursery garage bathroom cellar library balcony studio porch"
CITIES = "Oslo Porto Ghent Turin Basel Cork Nantes Tartu Bergen Brno Split Varna Leeds Graz"
THINGS = "pasta tram laundry bread call medicine match soup plants train yoga pizza"
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday"
LIGHT = (
    "It is too dark in the {room}, go to {n} percent.",
    "Dim the {room} down to {n}, please",
    "{room} lights at {n} %!",
    "Could you make the {room} a bit nicer, say brightness {n}?",
    "We are reading in the {room}: {n} percent light",
)
WEATHER = (
    "Do I need a coat in {city} on {day}?",
    "{city}, {day}: rain or sun?",
    "How warm will {day} be over in {city}",
    "We fly to {city}. What is it like there on {day}?",
)
TIMER = (
    "Remind me of the {thing} in {n} minutes",
    "{n} minutes for the {thing}, go",
    "Wake me in {n} because of the {thing}.",
    "Set something so that I do not forget the {thing}; {n} minutes should do",
)
TEXT, NUMBER = {"type": "string"}, {"type": "integer"}


def tool(name: str, **parameters: dict[str, str]) -> dict[str, Any]:
    """Return the declaration of a tool in OpenAI's form."""
    schema = {"type": "object", "properties": parameters}
    return {"type": "function", "function": {"name": name, "parameters": schema}}


TOOLS = [
    tool("set_light", room=TEXT, percent=NUMBER),
    tool("get_weather", city=TEXT, day=TEXT),
    tool("start_timer", label=TEXT, minutes=NUMBER),
]


def request(draw: random.Random, kind: int) -> tuple[str, dict[str, Any]]:
    """Return one request and its call."""
    n = draw.randint(5, 95)
    room, city, day, thing = (draw.choice(each.split()) for each in (ROOMS, CITIES, DAYS, THINGS))
    forms, name, arguments = (
        (LIGHT, "set_light", {"room": room, "percent": n}),
        (WEATHER, "get_weather", {"city": city, "day": day}),
        (TIMER, "start_timer", {"label": thing, "minutes": n}),
    )[kind]
    text = draw.choice(forms).format(room=room, city=city, day=day, thing=thing, n=n)
    return text, {"name": name, "arguments": json.dumps(arguments)}


def row(draw: random.Random) -> dict[str, Any]:
    """Return a message with one request, or with two different ones."""
    requests = [request(draw, kind) for kind in draw.sample(range(3), draw.randint(1, 2))]
    calls = [
        {"id": f"call_{at}", "type": "function", "function": function}
        for at, (_, function) in enumerate(requests, 1)
    ]
    text = " ".join(text for text, _ in requests)
    answer = {"role": "assistant", "tool_calls": calls}
    return {"messages": [{"role": "user", "content": text}, answer], "tools": TOOLS}


for file, count, seed in (("train", 100, 1), ("test", 40, 2)):
    chosen = random.Random(seed)
    lines = [*dict.fromkeys(json.dumps(row(chosen)) for _ in range(count))]
    (HERE / f"{file}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
