"""Counting tokens against tiktoken's plain loop, and the memory that it takes on a large file.

    python benchmarks/token_counting.py [--short 50000] [--long 2000] [--repeats 3]
                                        [--memory-mb 2000] [--seed 0]

Both read the same files and frame the same rows, in turn, in one process, with one encoding
(o200k_base) that is loaded before:

    ours     `count_rows`, from the file to the tokens of each row: prompt, answer and total
    checked  `unitune.data.load.read`, which checks each row, and the same counter
    plain    json.loads, 3 tokens a message and len(encode_ordinary(…)) of each value, as the
             cookbook of OpenAI counts; the total alone

The ratio is plain's CPU-seconds over ours; ours must be at least 0.95. Files: short rows of 3
messages, once with one of 5 system prompts a row, as files have them, and once with one of its own
each, which nothing can be remembered of; long rows of 9 messages. They are prose and code of
Python's standard library, twelve languages, and emoji.

With --memory-mb, a file of that size is counted in a process of its own, and so is one of a tenth:
what a counter needs must not grow with the file. Exit code 0 when ratios and memory hold.
"""
# ruff: noqa: RUF001 - letters of other scripts are what is counted

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from pydoc_data.topics import topics

from unitune.cost.tokens import count_rows, counter_for
from unitune.cost.tokens.encoding import tiktoken_encoding
from unitune.data.dataset import Row
from unitune.data.load import read

MODEL, ENCODING = "gpt-4o-mini", "o200k_base"
LEAST_RATIO = 0.95
MOST_GROWTH_MB = 5.0
"""More memory for ten times the file: what the allocator may keep."""
SYSTEM_PROMPTS = 5
LANGUAGES = (
    "Alle Menschen sind frei und gleich an Würde und Rechten geboren.",
    "Tous les êtres humains naissent libres et égaux en dignité et en droits.",
    "Todos los seres humanos nacen libres e iguales en dignidad y derechos.",
    "Все люди рождаются свободными и равными в своём достоинстве и правах.",
    "人人生而自由，在尊严和权利上一律平等。",
    "すべての人間は、生まれながらにして自由であり、尊厳と権利について平等である。",
    "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.",
    "يولد جميع الناس أحراراً متساوين في الكرامة والحقوق.",
    "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।",
    "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα.",
    "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ",
    "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar.",
)
EMOJI = "😀🎉👍🏽👩‍👩‍👧🇩🇪✨🚀"

Message = dict[str, str]


class Texts:
    """Pieces of text by the seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._words = " ".join(" ".join(topics[name].split()) for name in sorted(topics)).split(" ")
        library = Path(json.__file__).parent.parent
        files = sorted(library.glob("[a-h]*.py"))
        self._code = "\n".join(file.read_text(encoding="utf-8") for file in files)

    def prose(self, words: int) -> str:
        """Return about so many words of English, now and then with another script."""
        start = self._random.randrange(len(self._words) - words)
        text = " ".join(self._words[start : start + words])
        kind = self._random.random()
        if kind < 0.1:
            return f"{text} {self._random.choice(LANGUAGES)}"
        return f"{text} {self._random.choice(EMOJI)}" if kind < 0.15 else text

    def code(self, characters: int) -> str:
        """Return so many characters of Python."""
        start = self._random.randrange(len(self._code) - characters)
        return self._code[start : start + characters]


def turn(role: str, content: str) -> Message:
    """Return a message."""
    return {"role": role, "content": content}


def short_rows(texts: Texts, count: int, *, prompts: int) -> Iterator[list[Message]]:
    """Yield rows of 3 messages with so many different system prompts."""
    kept = [texts.prose(14) for _ in range(min(prompts, count))]
    for number in range(count):
        system = turn("system", kept[number % len(kept)])
        yield [system, turn("user", texts.prose(30)), turn("assistant", texts.prose(20))]


def long_rows(texts: Texts, count: int) -> Iterator[list[Message]]:
    """Yield rows of 9 messages, half of them code."""
    for _ in range(count):
        answers = [(texts.prose(450), texts.code(2500) + texts.prose(150)) for _ in range(4)]
        pairs = [(turn("user", asked), turn("assistant", said)) for asked, said in answers]
        yield [turn("system", texts.prose(100)), *(one for pair in pairs for one in pair)]


def write(path: Path, rows: Iterator[list[Message]]) -> Path:
    """Write rows as JSON Lines."""
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps({"messages": row}, ensure_ascii=False) + "\n")
    return path


def ours(path: Path) -> int:
    """Count as a file is counted."""
    return sum(row.total.expected for row in count_rows(path, counter_for(MODEL)))


def checked(path: Path) -> int:
    """Count as a file is counted that is checked row by row too."""
    counter = counter_for(MODEL)
    rows = (item.example for item in read(path, use="sft") if isinstance(item, Row))
    return sum(counter.row(row).total.expected for row in rows)


def plain(path: Path) -> int:
    """Count as the cookbook does."""
    encoding, total = tiktoken_encoding(ENCODING), 0
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            for message in json.loads(line)["messages"]:
                total += 3
                for value in message.values():
                    total += len(encoding.encode_ordinary(value))
    return total


def compare(name: str, path: Path, repeats: int) -> float:
    """Print and return the ratio of a file: the best of the repeats, each way in turn."""
    ways: dict[str, Callable[[Path], int]] = {"plain": plain, "ours": ours, "checked": checked}
    seconds = dict.fromkeys(ways, float("inf"))
    counts = dict.fromkeys(ways, 0)
    for _ in range(repeats):
        for way, count in ways.items():
            began = time.process_time()
            counts[way] = count(path)
            seconds[way] = min(seconds[way], time.process_time() - began)
    if len(set(counts.values())) != 1:
        raise SystemExit(f"{name}: the ways do not agree: {counts}")
    megabytes = path.stat().st_size / 1e6
    ratios = {way: seconds["plain"] / spent for way, spent in seconds.items()}
    told = ", ".join(f"{way} {spent:.2f} s" for way, spent in seconds.items())
    print(f"{name:28} {megabytes:6.1f} MB {counts['ours']:11,} tokens   {told}")
    print(f"{'':28} ratio {ratios['ours']:.2f}, checked {ratios['checked']:.2f}")
    return ratios["ours"]


def memory_mb(path: Path) -> float:
    """Count a file in a process of its own and return its peak memory."""
    peak = Path(__file__).parent / "harnesses" / "peak.py"
    command = [sys.executable, str(peak), sys.executable, __file__, "--count", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.rpartition("PEAK")[2])


def compare_memory(folder: Path, megabytes: int) -> bool:
    """Print the memory for a file and for a tenth of it, and return whether it stays the same."""
    part = write(folder / "part.jsonl", short_rows(Texts(1), 20_000, prompts=20_000)).read_bytes()
    peaks: list[float] = []
    for size in (megabytes // 10, megabytes):
        path = folder / "large.jsonl"
        with path.open("wb") as file:
            for _ in range(max(1, round(size * 1e6 / len(part)))):
                file.write(part)
        began = time.perf_counter()
        peaks.append(memory_mb(path))
        wall = time.perf_counter() - began
        size_mb = path.stat().st_size / 1e6
        print(f"{size_mb:28,.0f} MB counted: peak memory {peaks[-1]:.0f} MB, {wall:.0f} s")
        path.unlink()
    return peaks[1] - peaks[0] <= MOST_GROWTH_MB


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--short", type=int, default=50_000)
    parser.add_argument("--long", type=int, default=2_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory-mb", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.count:
        print(ours(options.count))
        return 0
    began = time.process_time()
    tiktoken_encoding(ENCODING)
    print(f"{ENCODING} loaded in {time.process_time() - began:.2f} CPU-seconds")
    texts = Texts(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shared = short_rows(texts, options.short, prompts=SYSTEM_PROMPTS)
        own = short_rows(texts, options.short, prompts=options.short)
        files = {
            "short, 5 system prompts": write(folder / "short.jsonl", shared),
            "short, a system prompt each": write(folder / "own.jsonl", own),
            "long": write(folder / "long.jsonl", long_rows(texts, options.long)),
        }
        ratios = [compare(name, path, options.repeats) for name, path in files.items()]
        holds = min(ratios) >= LEAST_RATIO
        if options.memory_mb:
            holds = compare_memory(folder, options.memory_mb) and holds
    return 0 if holds else 1


if __name__ == "__main__":
    raise SystemExit(main())
