"""Write train.jsonl and test.jsonl: orders as people type them, and the order as JSON."""

from __future__ import annotations

import json
import random
from pathlib import Path

HERE = Path(__file__).parent
ITEMS = (
    "green tea|oak chairs|desk lamps|wool blankets|copper wire|garden hoses|steel bolts|"
    "notebooks|rubber boots|"
    "paper cups|candles|hammers|bicycle bells|olive oil|mirrors|pillows|tent pegs|padlocks|"
    "door mats|umbrellas"
).split("|")
CITIES = (
    "Lisbon|Oslo|Graz|Leeds|Porto|Malmö|Ghent|Turin|Kraków|Basel|Cork|Nantes|Tartu|Bergen|"
    "Seville|Aarhus|Brno|"
    "Utrecht|Split|Varna"
).split("|")
NAMES = (
    "Anna Weber|Joao Prata|Mia Olsen|Ken Doyle|Lea Fontaine|Omar Haddad|Ruth Klein|Ivo Marin|"
    "Tess Jansen|Paul Nowak|"
    "Sara Lind|Noel Byrne|Vera Conti|Hugo Blanc|Edith Moor|Karl Benz|Nina Petrov|Luis Vega|"
    "Greta Holm|Amir Saleh"
).split("|")
FORMS = (
    "Please send {n} {item} to {name} in {city}.",
    "{name} from {city} here. We ran out, so {n} more {item} as soon as you can!",
    "Hi, could I order {item}? Make it {n}. Deliver to {city}, attention {name}.",
    "Purchase request: {item}, pieces: {n}, site: {city}, contact: {name}",
    "My colleague {name} needs {n} {item} at our {city} office before Friday.",
    "For the {city} branch: {n} x {item}. Invoice goes to {name}, thanks.",
    "Is it possible to get {n} {item} shipped to {city}? Regards, {name}",
    "We moved to {city}. Same as last time, {item}, but {n} of them. {name}",
    "{n} {item}. {city}. {name}.",
    "Dear team, kindly reserve {n} {item}; {name} will collect them in {city}.",
)


def rows(count: int, seed: int) -> list[str]:
    """Return rows as lines of JSON."""
    draw, lines = random.Random(seed), []
    for _ in range(count):
        order = {
            "item": draw.choice(ITEMS),
            "quantity": draw.randint(2, 90),
            "city": draw.choice(CITIES),
        }
        text = draw.choice(FORMS).format(name=draw.choice(NAMES), n=order["quantity"], **order)
        lines.append(
            json.dumps({"prompt": text, "completion": json.dumps(order, ensure_ascii=False)})
        )
    return lines


for name, count, seed in (("train", 200, 1), ("test", 80, 2)):
    (HERE / f"{name}.jsonl").write_text("\n".join(rows(count, seed)) + "\n", encoding="utf-8")
