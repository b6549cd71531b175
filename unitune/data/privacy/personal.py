"""Find personal data: e-mail addresses, phone numbers, accounts, cards and IP addresses.

Checksums and registries refute false matches. Example domains (RFC 2606), private IP addresses (RFC
6890) and version numbers are skipped. Names, postal addresses, birth dates and spelled-out data are
not found.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from itertools import chain
from typing import NamedTuple, TypeAlias

from unitune.data.privacy.secrets import plain

Span: TypeAlias = tuple[int, int]

NAMES: dict[str, str] = {  # kinds as in placeholders, in words
    "EMAIL": "an e-mail address",
    "IBAN": "a bank account (IBAN)",
    "CARD": "a card number",
    "IP": "an IP address",
    "PHONE": "a phone number",
}

_ANY = re.compile("[@0-9]")  # all personal data has one of these; few texts do
# After the first character: no letter before it, except the escape of a line break in JSON inside a
# string. As a prefix, it would be tried at every character.
_BEGINS = r"(?:(?<![\w.+-].)|(?<=\\[nrt].))"
_AT = re.compile(r"@((?:[\w-]{1,63}\.)+[a-z]{2,24})(?![\w@])", re.IGNORECASE)
_LOCAL_PART = re.compile(r"[\w.+%'-]{0,63}[\w+%-]\Z")
_NO_ADDRESS = re.compile(  # reserved domains, and file names such as icon@2x.png
    r"(.*\.)?(example(\.(com|net|org))?|test|invalid|localhost|png|jpe?g|gif|svg|webp|css|js|py)",
    re.IGNORECASE,
)

_IBAN = re.compile(
    r"[A-Z]" + _BEGINS + r"[A-Z][0-9]{2}(?:[ .\u00a0\u202f-]?[A-Z0-9]){11,30}", re.IGNORECASE
)
# Country codes and lengths. Source: SWIFT, IBAN registry (ISO 13616).
_IBAN_COUNTRIES = (
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 "
    "DK18 DO28 EE20 EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 "
    "IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 "
    "MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 "
    "SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30"
)
_IBAN_LENGTHS = {each[:2]: int(each[2:]) for each in _IBAN_COUNTRIES.split()}

_CARD = re.compile(
    r"[2-6]" + _BEGINS + r"[0-9]{3}(?:(?:[ -]?[0-9]){8,15}|(?:\.[0-9]{4}){3})(?![\w-]|\.[0-9])"
)
# Prefixes and digit counts: Visa, Mastercard, American Express, Diners Club, those of
# Discover, UnionPay and JCB, and Maestro. Source: ISO/IEC 7812, as listed in Wikipedia's "Payment
# card number" (2026-11).
_ISSUERS = (
    (re.compile("4"), (13, 16, 19)),
    (re.compile("5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720"), (16,)),
    (re.compile("3[47]"), (15,)),
    (re.compile("30[0-5]|3[689]"), (14,)),
    (re.compile("6011|64[4-9]|65|62|352[89]|35[3-8]"), (16, 17, 18, 19)),
    (re.compile("5018|5020|5038|6304|6759|676[1-3]"), (12, 13, 14, 15, 16, 17, 18, 19)),
)

_IPV4 = re.compile(r"[0-9]" + _BEGINS + r"[0-9]{0,2}(?:\.[0-9]{1,3}){3}(?![\w-]|\.[0-9])")
_IPV6 = re.compile(  # of 2000::/3, all that IANA allocates to internet hosts
    r"[23](?<![\w:.].)[0-9a-f]{3}(?::[0-9a-f]{0,4}){2,7}(?![\w:]|\.[0-9])", re.IGNORECASE
)
_VERSION = re.compile(
    r"(?:\b(?:version|versions|ver|release|build|firmware|driver|sections?|chapters?|clauses?|"
    r"paragraphs?|articles?|appendix)\W{0,3}|\u00a7\s?|[=<>~]=\s?|\^)\Z",
    re.IGNORECASE,
)

_DIGITS = re.compile(r"[0-9](?:[ \u00a0().\-\u2010-\u2013/]{0,3}[0-9]){6,}")
_CALL_WORD = (
    r"\b(?:phone|telephone|tel|mobile|cell|call|fax|text|sms|whatsapp|hotline|telefon|handy)\b"
)
_ANNOUNCES = _CALL_WORD + r"[^\n]{0,24}"
_CALL = re.compile(_ANNOUNCES + r"\Z", re.IGNORECASE)
# One of these must match, because matching all long numbers would be slow
_WORTH_MATCHING = (
    re.compile(r"\+"),
    re.compile(r"[0-9][^0-9\n]{1,7}[0-9]"),
    re.compile(_ANNOUNCES + r"[0-9(\[]", re.IGNORECASE),
)
CONTEXT = 40  # characters before a number that may announce it


class Datum(NamedTuple):
    """Personal data at a place in a text."""

    kind: str
    start: int
    end: int


def find_personal_data(text: str, region: str = "US", known: Iterable[Datum] = ()) -> list[Datum]:
    """Return a text's personal data and `known`, in order; the first of overlapping kinds wins."""
    text = plain(text)
    if not _ANY.search(text):
        return []
    found = (Datum(kind, *span) for kind, find in _FINDERS.items() for span in find(text, region))
    data, taken = list[Datum](), bytearray(len(text))
    for datum in chain(known, found):
        place = slice(datum.start, datum.end)
        if not any(taken[place]):
            taken[place] = b"\1" * (datum.end - datum.start)
            data.append(datum)
    return sorted(data, key=lambda datum: datum.start)


@cache
def finds_phones() -> bool:
    """Return whether `phonenumbers` is installed."""
    return find_spec("phonenumbers") is not None


def may_hold_phones(text: str) -> bool:
    """Return whether a text has digits that may be a phone number."""
    return _DIGITS.search(text) is not None


def _emails(text: str, _: str) -> Iterator[Span]:
    if "@" not in text:
        return
    for match in _AT.finditer(text):
        local = _LOCAL_PART.search(text[max(0, match.start() - 64) : match.start()])
        name = local[0].lstrip(".'") if local else ""
        if name in ("", "git") or _NO_ADDRESS.fullmatch(match[1]):
            continue
        if text.endswith("\\", 0, match.start() - len(name)):
            name = name[1:]  # an escape such as \n, in JSON inside a string
        yield match.start() - len(name), match.end()


def _ibans(text: str, _: str) -> Iterator[Span]:
    for match in _IBAN.finditer(text):
        length = _IBAN_LENGTHS.get(match[0][:2].upper(), 0)
        end = _end_of(match[0], length)
        compact = re.sub("[^A-Z0-9]", "", match[0][:end].upper())
        follows = text[match.start() + end : match.start() + end + 1]
        if length and len(compact) == length and not follows.isalnum() and is_iban(compact):
            yield match.start(), match.start() + end


def _end_of(text: str, characters: int) -> int:
    places = [at for at, character in enumerate(text, 1) if character.isalnum()]
    return places[characters - 1] if 0 < characters <= len(places) else len(text)


def is_iban(compact: str) -> bool:
    """Return whether an IBAN's check digits are right (ISO 7064, mod 97-10)."""
    return int("".join(str(int(each, 36)) for each in compact[4:] + compact[:4])) % 97 == 1


def _cards(text: str, _: str) -> Iterator[Span]:
    for match in _CARD.finditer(text):
        digits = re.sub("[ .-]", "", match[0])
        lengths = (some for prefix, some in _ISSUERS if prefix.match(digits))
        for length in sorted({each for some in lengths for each in some}, reverse=True):
            end = match.start() + _end_of(match[0], length)
            whole = length == len(digits) or (length < len(digits) and text[end] in " -")
            if whole and is_luhn(digits[:length]):
                yield match.start(), end
                break


def is_luhn(digits: str) -> bool:
    """Return whether the last digit is Luhn's check digit (ISO/IEC 7812-1)."""
    doubled = [int(each) * (1 + at % 2) for at, each in enumerate(reversed(digits))]
    return sum(each - 9 if each > 9 else each for each in doubled) % 10 == 0


def _addresses(text: str, _: str) -> Iterator[Span]:
    for match in _IPV4.finditer(text) if "." in text else ():
        version = _VERSION.search(text[max(0, match.start() - CONTEXT) : match.start()])
        if version is None and _is_global(match[0]):
            yield match.span()
    for match in _IPV6.finditer(text) if ":" in text else ():
        if _is_global(match[0]):
            yield match.span()


def _is_global(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:
        return False


def _phones(text: str, region: str) -> Iterator[Span]:
    """Yield phone numbers with +, in the region's grouping, or after a word such as call."""
    if not (finds_phones() and may_hold_phones(text)):
        return
    if not any(each.search(text) for each in _WORTH_MATCHING):
        return
    from phonenumbers import Leniency, PhoneNumberMatcher  # noqa: PLC0415 - an extra

    for match in PhoneNumberMatcher(text, region, leniency=Leniency.VALID):
        announced = _CALL.search(text[max(0, match.start - CONTEXT) : match.start])
        if match.raw_string.startswith("+") or announced or _is_grouped(match.raw_string, region):
            yield match.start, match.end


def _is_grouped(number: str, region: str) -> bool:
    from phonenumbers import Leniency, PhoneNumberMatcher  # noqa: PLC0415 - an extra

    groups = re.findall("[0-9]+", number)
    is_split = len(groups) > 2 or (len(groups) == 2 and number.startswith(("0", "(0")))
    strict = PhoneNumberMatcher(number, region, leniency=Leniency.STRICT_GROUPING)
    return is_split and any(strict)


_FINDERS: dict[str, Callable[[str, str], Iterator[Span]]] = {
    "EMAIL": _emails,
    "IBAN": _ibans,
    "CARD": _cards,
    "IP": _addresses,
    "PHONE": _phones,
}
