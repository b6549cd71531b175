"""Write train.jsonl and test.jsonl: notes of a hotel, and replies to guests in its style."""

from __future__ import annotations

import json
import random
from pathlib import Path

HERE = Path(__file__).parent
# Topic: the note of a colleague, the sentence of the reply, the team that signs
TOPICS = {
    "breakfast": (
        "{a}-{b}h, {place}",
        "breakfast is served in the {place} from {a} to {b}",
        "kitchen",
    ),
    "dinner": (
        "last order {b}h, {n} eur menu",
        "we take orders until {b}, and the menu is {n} euros",
        "kitchen",
    ),
    "the sauna": (
        "{a}-{b}h, towel {n} eur",
        "the sauna is open from {a} to {b}, with towels for {n} euros",
        "spa",
    ),
    "massages": (
        "{m} min {n} eur, book by {a}h",
        "a massage of {m} minutes is {n} euros if you book by {a}",
        "spa",
    ),
    "parking": (
        "{n} eur/night, gate shuts {b}h",
        "parking is {n} euros a night, and the gate closes at {b}",
        "desk",
    ),
    "the shuttle": (
        "to {city} every {m} min",
        "our shuttle leaves for {city} every {m} minutes",
        "desk",
    ),
    "late check-out": (
        "till {b}h, {n} eur",
        "you are welcome to stay until {b} for {n} euros",
        "desk",
    ),
    "bikes": (
        "{n} left, back by {b}h",
        "we have {n} bikes left, which we need back by {b}",
        "desk",
    ),
}
ASKED = (
    "{name} asks about {topic}. Note: {note}",
    "Mail of {name}: how is it with {topic}? ({note})",
    "{topic}, {name}, room {room}. {note}",
    "Please answer {name}, {topic}: {note}",
)
NAMES = "Anna Joao Mia Ken Lea Omar Ruth Ivo Tess Paul Sara Noel Vera Hugo Edith Karl Nina Luis"
SURNAMES = "Weber Prata Olsen Doyle Fontaine Haddad Klein Marin Jansen Nowak Lind Byrne Conti"
CITIES = "Oslo Porto Ghent Turin Basel Cork Nantes Tartu Bergen Brno Split Varna Leeds Graz"
PLACES = ("winter garden", "old mill", "rose room", "library")


def row(draw: random.Random) -> dict[str, str]:
    """Return what a colleague writes, and the reply to the guest."""
    topic, (note, sentence, team) = draw.choice([*TOPICS.items()])
    first, last = draw.choice(NAMES.split()), draw.choice(SURNAMES.split())
    facts = {
        "a": draw.randint(6, 11),
        "b": draw.randint(12, 23),
        "n": draw.randint(3, 79),
        "m": draw.choice(range(15, 95, 5)),
        "city": draw.choice(CITIES.split()),
        "place": draw.choice(PLACES),
    }
    request = draw.choice(ASKED).format(
        name=f"{first} {last}", topic=topic, room=draw.randint(101, 420), note=note.format(**facts)
    )
    reply = f"Dear {first}, {sentence.format(**facts)}. Warmly, your {team} team"
    return {"prompt": request, "completion": reply}


for file, count, seed in (("train", 110, 1), ("test", 45, 2)):
    chosen = random.Random(seed)
    rows = "".join(json.dumps(row(chosen)) + "\n" for _ in range(count))
    (HERE / f"{file}.jsonl").write_text(rows, encoding="utf-8")
