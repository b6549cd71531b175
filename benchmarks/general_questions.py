"""Write the general questions of `evaluate.retention`, ``unitune/data/general/questions.jsonl``.

Facts are written by hand: long known, undisputed and in every encyclopedia. All other questions are
generated with a fixed seed. Questions of one category follow each other at equal distance, so the
first N questions have all categories in nearly equal shares. Run it after a change:

    python benchmarks/general_questions.py
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[1] / "unitune" / "data" / "general" / "questions.jsonl"
EACH = 30  # questions of a category
Row = dict[str, Any]

GEOGRAPHY = """
What is the capital of France? | Paris
What is the capital of Japan? | Tokyo
What is the capital of Italy? | Rome, Roma
What is the capital of Canada? | Ottawa
What is the capital of Egypt? | Cairo
What is the capital of Australia? | Canberra
What is the capital of Spain? | Madrid
What is the capital of Russia? | Moscow
What is the capital of Greece? | Athens
What is the capital of Ireland? | Dublin
What is the capital of Cuba? | Havana
What is the capital of Peru? | Lima
What is the capital of Portugal? | Lisbon
What is the capital of Austria? | Vienna
What is the capital of Kenya? | Nairobi
What is the capital of the United Kingdom? | London
Which country has Berlin as its capital? | Germany
Which country has Beijing as its capital? | China
Which country has New Delhi as its capital? | India
Which ocean lies between Europe and North America? | Atlantic
Which ocean lies between Asia and North America? | Pacific
On which continent is Nigeria? | Africa
On which continent is Brazil? | South America, Americas
On which continent is Thailand? | Asia
On which continent is Poland? | Europe
What is the highest mountain on Earth above sea level? | Everest
In which country are the pyramids of Giza? | Egypt
In which city is the Eiffel Tower? | Paris
Which desert covers much of northern Africa? | Sahara
Which country lies directly south of Canada? | United States, USA, America
"""
SCIENCE = """
Which planet is closest to the Sun? | Mercury
Which planet is known as the Red Planet? | Mars
What is the largest planet of the Solar System? | Jupiter
Which planet is famous for its large rings? | Saturn
What is the chemical formula of water? | H2O, H₂O
What is the chemical symbol of gold? | Au
What is the chemical symbol of iron? | Fe
What is the chemical symbol of oxygen? | O, O2, O₂
Which gas do plants take in for photosynthesis? | carbon dioxide, CO2, CO₂
Which gas do people need to breathe to live? | oxygen, O2, O₂
At how many degrees Celsius does water freeze at sea level? | 0, zero
At how many degrees Celsius does water boil at sea level? | 100, hundred
How many legs does a spider have? | 8, eight
How many legs does an insect have? | 6, six
Which organ pumps blood through the body? | heart
Which organ do people think with? | brain
Which organs do people breathe with? | lungs, lung
What do bees make that people eat? | honey
Which force makes an apple fall from a tree? | gravity, gravitation, gravitational
What does the Earth travel around once a year? | Sun
What is frozen water called? | ice
What is the natural satellite of the Earth called? | Moon
What do caterpillars turn into? | butterfly, butterflies, moth, moths
What is a baby cat called? | kitten
What is a baby dog called? | puppy, pup
Which animal gives us wool? | sheep
Which metal is liquid at room temperature? | mercury
Which sense do people have with their eyes? | sight, vision, seeing
Which star gives the Earth light and warmth? | Sun
What is the hardest natural mineral? | diamond
"""
EVERYDAY = """
How many minutes are in an hour? | 60, sixty
How many seconds are in a minute? | 60, sixty
How many days are in a week? | 7, seven
How many months are in a year? | 12, twelve
How many hours are in a day? | 24, twenty-four
How many years are in a century? | 100, hundred
How many days are in a leap year? | 366
How many items are in a dozen? | 12, twelve
How many sides does a triangle have? | 3, three
How many sides does a square have? | 4, four
How many degrees has a right angle? | 90, ninety
How many wheels does a bicycle have? | 2, two
How many letters are in the English alphabet? | 26, twenty-six
How many fingers are on one human hand? | 5, five
How many centimetres are in a metre? | 100, hundred
How many grams are in a kilogram? | 1000, 1,000, thousand
How many metres are in a kilometre? | 1000, 1,000, thousand
Which colour do you get by mixing blue and yellow? | green
Which colour do you get by mixing red and white? | pink
Which colour is a ripe banana? | yellow
Which colour is fresh snow? | white
Which colour is grass? | green
What do you use to open a locked door? | key
Which tool do you use to drive a nail into wood? | hammer
What do you call the meal that people eat in the morning? | breakfast
Which season comes after winter? | spring
Which season comes after summer? | autumn, fall
In which direction does the Sun rise? | east, eastern
Which liquid do cows give? | milk
Which language do most people in Spain speak? | Spanish, Castilian
"""
WORDS = """
What is the opposite of hot? | cold, cool
What is the opposite of up? | down
What is the opposite of empty? | full
What is the opposite of big? | small, little, tiny
What is the opposite of early? | late
What is the opposite of light? | dark, darkness, heavy
What is the opposite of true? | false, untrue
What is the opposite of open? | closed, close, shut
What is the opposite of old? | young, new
What is the opposite of buy? | sell
What is the opposite of fast? | slow
What is the opposite of rich? | poor
What is the opposite of north? | south
What is the opposite of love? | hate, hatred
What is the opposite of begin? | end, finish, stop
What is the plural of the word mouse? | mice
What is the plural of the word child? | children
What is the plural of the word foot? | feet
What is the plural of the word tooth? | teeth
What is the plural of the word man? | men
What is the plural of the word knife? | knives
What is the past tense of the verb go? | went
What is the past tense of the verb eat? | ate
What is the past tense of the verb write? | wrote
What is the past tense of the verb see? | saw
What is the past tense of the verb take? | took
What is the Spanish word for house? | casa
What is the French word for cat? | chat
What is the German word for water? | Wasser
What is the Spanish word for red? | rojo, roja
"""
KINDS = {
    "animal": "horse tiger eagle rabbit wolf goat salmon camel",
    "fruit": "apple pear cherry banana grape peach orange plum",
    "tool": "hammer saw screwdriver drill wrench axe shovel pliers",
    "vehicle": "car bus train truck tram bicycle lorry taxi",
    "piece of furniture": "table chair sofa wardrobe bench desk shelf cupboard",
    "musical instrument": "piano violin guitar flute trumpet drum cello harp",
}
PEOPLE = ["Anna", "Tom", "Maria", "Peter", "Clara", "Henry", "Emma", "Paul"]
COLOURS = ["red", "blue", "green", "yellow", "black", "white", "brown", "grey"]
THINGS = ["bag", "coat", "hat", "cup", "bicycle", "kite", "pencil", "umbrella"]
NOUNS = [
    "lantern",
    "garden",
    "window",
    "bridge",
    "candle",
    "forest",
    "harbour",
    "pillow",
    "mirror",
    "basket",
]
SENTENCES = """
The cat sleeps on the warm stove
My sister plays the violin every evening
Seven boats left the harbour before dawn
The baker sells bread and cakes
We walked along the river to the mill
A small bird sang in the old tree
The train to the coast leaves at noon
Our teacher told us a funny story
Fresh snow covered the roof of the barn
He put the letter into a blue box
""".strip().splitlines()
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
LENGTHS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
NUMBERS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
]


def main() -> None:
    """Write the questions to the package's file."""
    draw = random.Random(0)
    categories = {
        "geography": listed(GEOGRAPHY),
        "science": listed(SCIENCE),
        "everyday": listed(EVERYDAY),
        "words": listed(WORDS),
        "arithmetic": [*arithmetic(draw)],
        "calendar": [*calendar(draw)],
        "letters": [*letters(draw)],
        "choosing": [*choosing(draw)],
        "reading": [*reading(draw)],
        "instructions": [*instructions(draw)],
    }
    for category, rows in categories.items():
        assert len(rows) == len({row["ask"] for row in rows}) == EACH, (category, len(rows))
        draw.shuffle(rows)
    lines = [
        json.dumps({"id": f"{category}-{at + 1:02}", **rows[at]}, ensure_ascii=False)
        for at in range(EACH)
        for category, rows in categories.items()
    ]
    FILE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def row(ask: str, *accept: str, options: tuple[str, ...] = ()) -> Row:
    """Return a question with its accepted answers, and options if it has any."""
    return {"ask": ask, "accept": [*accept]} | ({"options": [*options]} if options else {})


def listed(text: str) -> list[Row]:
    """Return the questions of lines with a question and its answers, separated by a bar."""
    pairs = (line.split(" | ") for line in text.strip().splitlines())
    return [row(ask, *answers.split(", ")) for ask, answers in pairs]


def number(value: int) -> tuple[str, ...]:
    """Return the accepted spellings of a number."""
    return (str(value), *NUMBERS[value : value + 1])


def arithmetic(draw: random.Random) -> Iterator[Row]:
    """Yield sums, differences, products and quotients."""
    for a, b in draw.sample([(a, b) for a in range(3, 50) for b in range(2, 50)], 10):
        yield row(f"What is {a} plus {b}?", *number(a + b))
    for a, b in draw.sample([(a, b) for a in range(5, 30) for b in range(2, 15) if a > b + 1], 10):
        yield row(f"What is {a} minus {b}?", *number(a - b))
    for a, b in draw.sample([(a, b) for a in range(2, 13) for b in range(2, 11) if a >= b], 6):
        yield row(f"What is {a} times {b}?", *number(a * b))
    for a, b in draw.sample([(a, b) for a in range(2, 10) for b in range(3, 11)], 4):
        yield row(f"What is {a * b} divided by {a}?", *number(b))


def calendar(draw: random.Random) -> Iterator[Row]:
    """Yield questions about days and months."""
    for at in range(7):
        yield row(f"Which day of the week comes after {DAYS[at]}?", DAYS[(at + 1) % 7])
    for at in draw.sample(range(7), 4):
        yield row(f"Which day of the week comes before {DAYS[at]}?", DAYS[at - 1])
    for at in draw.sample(range(12), 7):
        yield row(f"Which month comes after {MONTHS[at]}?", MONTHS[(at + 1) % 12])
    for at in draw.sample(range(12), 4):
        yield row(f"Which month comes before {MONTHS[at]}?", MONTHS[at - 1])
    for at in draw.sample([at for at in range(12) if at != 1], 4):
        yield row(f"How many days are in {MONTHS[at]}?", str(LENGTHS[at]))
    for year, years in draw.sample([(y, n) for y in range(1900, 2000) for n in (1, 2, 10)], 4):
        yield row(f"Which year comes {years} years after {year}?", str(year + years))


def letters(draw: random.Random) -> Iterator[Row]:
    """Yield questions about the letters of words."""
    for word in draw.sample(NOUNS, 8):
        yield row(f'What is the first letter of the word "{word}"?', word[0])
    for word in draw.sample(NOUNS, 4):
        yield row(f'What is the last letter of the word "{word}"?', word[-1])
    for sentence in draw.sample(SENTENCES, 7):
        yield row(f'What is the last word of this sentence? "{sentence}"', sentence.split()[-1])
    for sentence in draw.sample(SENTENCES, 5):
        yield row(f'What is the first word of this sentence? "{sentence}"', sentence.split()[0])
    for sentence in draw.sample(SENTENCES, 3):
        asked = f'How many words are in this sentence? "{sentence}"'
        yield row(asked, *number(len(sentence.split())))
    for at in draw.sample(range(25), 3):
        letter = chr(65 + at)
        yield row(f"Which letter of the alphabet comes after {letter}?", chr(66 + at))


def choosing(draw: random.Random) -> Iterator[Row]:
    """Yield questions with options."""
    for at in range(18):
        kind = [*KINDS][at % len(KINDS)]
        others = draw.sample([name for name in KINDS if name != kind], 2)
        (right,) = draw.sample(KINDS[kind].split(), 1)
        options = [right, *(draw.choice(KINDS[name].split()) for name in others)]
        draw.shuffle(options)
        article = "an" if kind[0] in "aeiou" else "a"
        text = f"Which of these is {article} {kind}: {options[0]}, {options[1]} or {options[2]}?"
        yield row(text, right, options=tuple(options))
    for superlative, best in (("largest", max), ("smallest", min)):
        for _ in range(6):
            values = draw.sample(range(2, 100), 3)
            text = f"Which number is the {superlative}: {values[0]}, {values[1]} or {values[2]}?"
            yield row(text, str(best(values)), options=tuple(map(str, values)))


def reading(draw: random.Random) -> Iterator[Row]:
    """Yield questions about a short text."""
    for thing in (*THINGS, *THINGS[:4]):
        one, other = draw.sample(PEOPLE, 2)
        first, second = draw.sample(COLOURS, 2)
        text = f"{one} has a {first} {thing}, and {other} has a {second} {thing}."
        options = (first, second)
        yield row(f"{text} Which colour is the {thing} of {one}?", first, options=options)
    for thing in THINGS:
        one, other = draw.sample(PEOPLE, 2)
        first, second = draw.sample(COLOURS, 2)
        text = f"The {first} {thing} belongs to {one}, and the {second} {thing} to {other}."
        yield row(f"{text} Who owns the {second} {thing}?", other, options=(one, other))
    for at in range(5):
        older, middle, younger = draw.sample(PEOPLE, 3)
        text = f"{older} is older than {middle}, and {middle} is older than {younger}."
        asked, right = (("youngest", younger), ("oldest", older))[at % 2]
        yield row(f"{text} Who is the {asked}?", right, options=(older, middle, younger))
    for thing in THINGS[:5]:
        (who,) = draw.sample(PEOPLE, 1)
        a, b = draw.randint(2, 5), draw.randint(2, 5)
        text = f"{who} has {a} {thing}s and buys {b} more."
        yield row(f"{text} How many {thing}s does {who} have now?", *number(a + b))


def instructions(draw: random.Random) -> Iterator[Row]:
    """Yield instructions whose result is exact."""
    for word in draw.sample(NOUNS, 8):
        yield row(f'Repeat this word: "{word}"', word)
    for word in draw.sample(NOUNS, 6):
        yield row(f'Write the word "{word}" in capital letters.', word.upper()) | {"case": True}
    for at in draw.sample(range(1, 11), 4):
        text = ", ".join(str(each) for each in range(at, at + 4))
        yield row(f"Which number comes next: {text}?", *number(at + 4))
    for step in (2, 5, 10):
        text = ", ".join(str(step * each) for each in range(1, 5))
        yield row(f"Which number comes next: {text}?", *number(5 * step))
    for value in draw.sample(range(3, 13), 5):
        yield row(f'Write the number "{NUMBERS[value]}" in digits.', str(value))
    for a, b in (("peace", "war"), ("salt", "pepper")):
        yield row(
            f'Complete the pair with one word: "{a} and …"', b, *(("quiet",) * (a == "peace"))
        )
    for text, last in (
        ("Better late than …", "never"),
        ("An apple a day keeps the doctor …", "away"),
    ):
        yield row(f'Complete the saying: "{text}"', last)


if __name__ == "__main__":
    main()
