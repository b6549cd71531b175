"""Measure the detection of secrets and personal data: recall, false alarms and speed.

    python benchmarks/privacy.py [--seed 0] [--texts FOLDER]      (half a minute on one core)

    planted      300 rows with one secret or one piece of personal data each, as documented by the
                 issuers (`_secrets`, `_personal_data`), in sentences, code and JSON
    decoys       300 rows with look-alikes: stand-ins of documentation, digits with a wrong
                 checksum, private addresses, versions, order numbers
    texts        every text of the .jsonl, .json and .csv files of a folder, assumed to be free of
                 both; alarms are printed with their places
    round trip   all planted rows redacted and restored, byte by byte
    speed        characters a second, and seconds of `unitune check` on 10,000 rows with and without

The exit code is 0 when at least 98 % of the planted and at most 1 % of the decoys are found, and
the round trip is exact.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import string
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import phonenumbers as pn

from unitune.data.check import read_job
from unitune.data.example import Example
from unitune.data.privacy.personal import find_personal_data, is_iban, is_luhn
from unitune.data.privacy.redaction import Redaction
from unitune.data.privacy.secrets import find_secrets
from unitune.job.job import Data, Job

ALNUM, LOWER = string.ascii_letters + string.digits, string.ascii_lowercase + string.digits
HEX, BASE32, URL = "0123456789abcdef", string.ascii_uppercase + "234567", ALNUM + "_-"
SENTENCES = (
    "My request fails with 401, and I use {} as the docs say. What is wrong?",
    "export KEY={}\ncurl -s https://api.internal.io/v1/items",
    '{{"name": "prod", "value": "{}"}}',
    "client = Client(\n    '{}',\n    timeout=30,\n)",
    "Hi, please change it to {} from Monday on. Thanks, M.",
)


def _secrets(r: random.Random) -> dict[str, str]:
    """Return a secret of each format, as its issuer documents it."""

    def some(letters: str, count: int) -> str:
        return "".join(r.choices(letters, k=count))

    uuid = "-".join(some(HEX, n) for n in (8, 4, 4, 4, 12))
    pem = "\n".join(some(ALNUM + "+/", 64) for _ in range(12))
    jwt = ".".join(("eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9", "eyJ" + some(URL, 60), some(URL, 43)))
    return {
        "openai": f"sk-proj-{some(URL, 74)}T3BlbkFJ{some(URL, 74)}",
        "openai-old": f"sk-{some(ALNUM, 20)}T3BlbkFJ{some(ALNUM, 20)}",
        "anthropic": f"sk-ant-api03-{some(URL, 93)}AA",
        "huggingface": f"hf_{some(string.ascii_letters, 34)}",
        "google": f"AIza{some(URL, 35)}",
        "aws": f"AKIA{some(BASE32, 16)}",
        "bedrock": f"ABSK{some(ALNUM + '+/', 120)}=",
        "github": f"ghp_{some(ALNUM, 36)}",
        "github-fine": f"github_pat_{some(ALNUM + '_', 82)}",
        "gitlab": f"glpat-{some(URL, 20)}",
        "slack-bot": f"xoxb-{some(string.digits, 12)}-{some(string.digits, 12)}-{some(ALNUM, 24)}",
        "slack-hook": "https://hooks.slack.com/services/"
        f"T{some(LOWER.upper(), 8)}/B{some(LOWER.upper(), 8)}/{some(ALNUM, 24)}",
        "stripe": f"sk_live_{some(ALNUM, 24)}",
        "sendgrid": f"SG.{some(URL, 22)}.{some(URL, 43)}",
        "twilio": f"SK{some(HEX, 32)}",
        "npm": f"npm_{some(LOWER, 36)}",
        "pypi": f"pypi-AgEIcHlwaS5vcmc{some(URL, 120)}",
        "digitalocean": f"dop_v1_{some(HEX, 64)}",
        "databricks": f"dapi{some(HEX, 32)}",
        "perplexity": f"pplx-{some(ALNUM, 48)}",
        "notion": f"ntn_{some(string.digits, 11)}{some(ALNUM, 35)}",
        "linear": f"lin_api_{some(LOWER, 40)}",
        "postman": f"PMAK-{some(HEX, 24)}-{some(HEX, 34)}",
        "shopify": f"shpat_{some(HEX, 32)}",
        "grafana": f"glsa_{some(ALNUM, 32)}_{some(HEX, 8)}",
        "jwt": jwt,
        "private-key": f"-----BEGIN RSA PRIVATE KEY-----\n{pem}\n-----END RSA PRIVATE KEY-----",
        "generic": f'api_key = "{some(ALNUM, 32)}"',
        "heroku": f"HEROKU_API_KEY={uuid}",
        "password": f"db_password: {some(ALNUM, 18)}1",
    }


def _personal_data(r: random.Random) -> Iterator[str]:
    """Yield 30 pieces of personal data of several kinds."""
    for _ in range(6):
        name = r.choice(("jane.doe", "m_mueller", "li-wei", "o'neil", "anna+news"))
        yield f"{name}{r.randrange(100)}@{r.choice(('gmail.com', 'firma.de', 'mail.co.uk'))}"
    for prefix, length in (
        ("4", 16),
        ("51", 16),
        ("37", 15),
        ("6011", 16),
        ("36", 14),
        ("2221", 16),
    ):
        body = prefix + "".join(r.choices(string.digits, k=length - len(prefix) - 1))
        digits = next(body + each for each in string.digits if is_luhn(body + each))
        yield r.choice(("", " ", "-")).join(digits[at : at + 4] for at in range(0, length, 4))
    for country, bank in (("DE", 18), ("GB", 18), ("FR", 23), ("NL", 14), ("ES", 20), ("CH", 17)):
        letters = "WEST" if country == "GB" else "ABNA" if country == "NL" else ""
        body = letters + "".join(r.choices(string.digits, k=bank - len(letters)))
        iban = next(text for n in range(100) if is_iban(text := f"{country}{n:02}{body}"))
        yield r.choice((iban, " ".join(iban[at : at + 4] for at in range(0, len(iban), 4))))
    for _ in range(3):
        yield ".".join(
            map(str, (r.choice((8, 52, 81, 185)), *(r.randrange(256) for _ in range(3))))
        )
        yield f"2a01:4f8:{r.randrange(16**4):x}:{r.randrange(16**4):x}::{r.randrange(1, 16**4):x}"
    for region in ("US", "DE", "GB", "FR", "IN", "JP"):
        number = pn.example_number(region)
        assert number is not None
        style = pn.PhoneNumberFormat.INTERNATIONAL
        if region == "US":
            style = r.choice((style, pn.PhoneNumberFormat.NATIONAL))
        yield pn.format_number(number, style)


def _decoys(r: random.Random) -> Iterator[str]:
    """Yield look-alikes of secrets and personal data."""

    def digits(count: int) -> str:
        return "".join(r.choices(string.digits, k=count))

    card = next(each for each in iter(lambda: "4" + digits(15), "") if not is_luhn(each))
    iban = next(each for each in iter(lambda: "DE" + digits(20), "") if not is_iban(each))
    yield from ("sk-...", "sk-YOUR_API_KEY", "hf_" + "x" * 34, "AKIAIOSFODNN7EXAMPLE", "$API_KEY")
    yield from ('api_key = os.environ["OPENAI_API_KEY"]', "password: ********", "token: <TOKEN>")
    yield from (f"sha256:{r.randbytes(32).hex()}", f"commit {r.randbytes(20).hex()}", card, iban)
    yield from (
        f"order {digits(10)}",
        f"invoice {digits(13)}",
        f"{digits(4)}-{digits(4)}-{digits(4)}",
    )
    yield from (
        f"version {r.randrange(9)}.{r.randrange(9)}.{digits(2)}.1",
        "192.168.17.4",
        "10.1.2.3",
    )
    yield from ("127.0.0.1:8000", "fe80::1ff:fe23:4567:890a", "std::vector::at", "12:30:45")
    yield from ("jane@example.com", "git@github.com:acme/app.git", "icon@2x.png", "@app.route('/')")
    yield from (f"{r.random():.12f}", f"2026-11-{r.randrange(10, 30)} 10:15:30", "1,234,567,890")
    yield from (f"ISBN 978-3-16-1484{digits(2)}-0", f"id {r.randbytes(16).hex()}")


def _rows(r: random.Random, values: Callable[[random.Random], Any], times: int) -> list[str]:
    """Return sentences that contain the values, each so many times."""
    texts: list[str] = []
    for at in range(times):
        drawn = values(r)
        for value in drawn.values() if isinstance(drawn, dict) else drawn:
            texts.append(SENTENCES[(at + len(texts)) % len(SENTENCES)].format(value))
    return texts


def _found(text: str) -> list[str]:
    secrets = [each.rule for each in find_secrets(text)]
    return [*secrets, *(each.kind for each in find_personal_data(text))]


def _texts(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield every text of the data files in a folder, with its file."""
    for file in sorted(folder.rglob("*")):
        if file.suffix == ".csv":
            with file.open(encoding="utf-8", newline="") as lines:
                yield from ((file.name, text) for row in csv.reader(lines) for text in row)
        elif file.suffix in (".json", ".jsonl"):
            content = file.read_text(encoding="utf-8")
            try:
                values = [json.loads(content)]
            except ValueError:
                values = [json.loads(line) for line in content.splitlines() if line]
            yield from ((file.name, text) for value in values for text in _strings(value))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _strings(each)


def _round_trip(texts: list[str]) -> bool:
    redaction = Redaction()
    rows = [Example.model_validate({"messages": [{"role": "user", "content": t}]}) for t in texts]
    redacted = [redaction.redact_row(row) for row in rows]
    again = Redaction.model_validate_json(redaction.text)
    return [again.restore_row(row).line for row in redacted] == [row.line for row in rows]


def _check_seconds(texts: list[str], **policies: Any) -> float:
    """Return the seconds of reading and checking 10,000 rows of these texts."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "train.jsonl"
        turns = ("user", "assistant")
        rows = (
            [
                {"role": role, "content": f"{texts[(at + n) % len(texts)]} {at}"}
                for n, role in enumerate(turns)
            ]
            for at in range(10_000)
        )
        file.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows), "utf-8")
        job = Job(
            name="speed",
            model="m",
            backend="fake",
            data=Data(train=file.name, **policies),
            folder=Path(folder),
        )
        begin = time.process_time()
        read_job(job)
        return time.process_time() - begin


def main() -> int:
    """Measure everything, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--texts", type=Path)
    options = parser.parse_args()
    r = random.Random(options.seed)
    planted = [*_rows(r, _secrets, 5), *_rows(r, _personal_data, 5)]
    decoys = _rows(r, lambda r: list(_decoys(r))[:30], 10)
    missed = [text for text in planted if not _found(text)]
    false = [text for text in decoys if _found(text)]
    exact = _round_trip(planted)
    print(f"planted     {len(planted) - len(missed)} of {len(planted)} found")
    print(f"decoys      {len(false)} of {len(decoys)} taken for some")
    print(f"round trip  {'exact' if exact else 'not exact'}")
    for text in (*missed, *false):
        print(
            f"            {'missed' if text in missed else 'false'}: {text[:90]!r} {_found(text)}"
        )
    plain = [text.format("nothing") for text in SENTENCES]
    if options.texts:
        named = list(_texts(options.texts))
        begin = time.process_time()
        hits = Counter((file, what) for file, text in named for what in _found(text))
        seconds, size = time.process_time() - begin, sum(len(text) for _, text in named)
        print(f"texts       {sum(hits.values())} alarms in {len(named):,} texts: {dict(hits)}")
        print(f"speed       {size / seconds / 1e6:.1f} million characters a second")
        plain = [text for _, text in named if len(text) > 20]
    off, on, redacted = (
        _check_seconds(plain, secrets=secrets, personal_data=personal)
        for secrets, personal in (("allow", "allow"), ("refuse", "warn"), ("refuse", "redact"))
    )
    print(
        f"check       10,000 rows: {off:.2f} s without, {on:.2f} s with, {redacted:.2f} s redacted"
    )
    good = len(missed) <= 0.02 * len(planted) and len(false) <= 0.01 * len(decoys) and exact
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
