"""Personal data in texts: known answers, and what looks alike and is no person's."""

from __future__ import annotations

import pytest

from unitune.data.privacy import personal
from unitune.data.privacy.personal import find_personal_data, is_iban, is_luhn


def found(text: str, region: str = "US") -> list[tuple[str, str]]:
    return [(each.kind, text[each.start : each.end]) for each in find_personal_data(text, region)]


@pytest.mark.parametrize(
    "digits",
    ["4111111111111111", "5555555555554444", "378282246310005", "6011111111111117", "79927398713"],
)
def test_the_last_digit_of_a_card_is_luhns(digits: str) -> None:
    """Source: the test numbers of Stripe and PayPal; ISO/IEC 7812-1's example."""
    assert is_luhn(digits)
    assert not is_luhn(digits[:-1] + str((int(digits[-1]) + 1) % 10))


@pytest.mark.parametrize(
    "iban", ["GB82WEST12345698765432", "DE89370400440532013000", "FR1420041010050500013M02606"]
)
def test_the_check_digits_of_an_account_are_mod_97(iban: str) -> None:
    """Source: the examples of the SWIFT IBAN registry."""
    assert is_iban(iban)
    assert not is_iban(iban[:-1] + str((int(iban[-1]) + 1) % 10))


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("mail jane.doe+x@firma.co.uk.", "EMAIL", "jane.doe+x@firma.co.uk"),
        ("'jane@firma.de'", "EMAIL", "jane@firma.de"),
        (r'{"to": "a\njane@firma.de"}', "EMAIL", "jane@firma.de"),
        ("GB82 WEST 1234 5698 7654 32 PLEASE", "IBAN", "GB82 WEST 1234 5698 7654 32"),
        ("DE89370400440532013000.", "IBAN", "DE89370400440532013000"),
        ("to de89 3704 0044 0532 0130 00", "IBAN", "de89 3704 0044 0532 0130 00"),
        ("DE89.3704.0044.0532.0130.00.", "IBAN", "DE89.3704.0044.0532.0130.00"),
        ("DE89\u00a03704\u00a00044 0532 0130 00", "IBAN", "DE89\u00a03704\u00a00044 0532 0130 00"),
        ("5555 5555 5555 4444", "CARD", "5555 5555 5555 4444"),
        ("card 4111 1111 1111 1111 12/27", "CARD", "4111 1111 1111 1111"),
        ("3782-822463-10005", "CARD", "3782-822463-10005"),
        ("30569309025904", "CARD", "30569309025904"),
        ("from 8.8.8.8, twice", "IP", "8.8.8.8"),
        ("HOST=8.8.8.8", "IP", "8.8.8.8"),
        ("2606:4700:4700::1111.", "IP", "2606:4700:4700::1111"),
        ("(212) 736-5000", "PHONE", "(212) 736-5000"),
        ("tel. +49 30 123456", "PHONE", "+49 30 123456"),
        ("+4930123456", "PHONE", "+4930123456"),
        ("call me at 2027365000", "PHONE", "2027365000"),
    ],
)
def test_it_is_found_where_it_stands(text: str, kind: str, value: str) -> None:
    assert found(text) == [(kind, value)]


@pytest.mark.parametrize(
    "text",
    [
        *("jane@example.com", "jane@mail.example.org", "git@github.com:a/b", "icon@2x.png", "a@b"),
        *("@app.route('/')", "GB82WEST12345698765433", "XX82WEST12345698765432"),
        *("4111111111111112", "1234567812345670", "order 4111111111111111000"),
        *("see section 8.7.4.28", "\u00a7 8.7.4.28", "GB82.WEST.1234.5698.7654.33"),
        *("version 1.2.3.4", "torch==8.8.8.8", "1.2.3.4.5", "10.0.0.1", "192.168.1.1", "127.0.0.1"),
        *("300.1.1.1", "::1", "std::vector a::b", "12:30:45", "fe80::1", "2001:db8::1"),
        *("order 2027365000", "2019-2020", "3.14159265358", "1,234,567,890", "448.8347409"),
        *("2026-11-28 10:15:30", "(2147483647"),
    ],
)
def test_what_looks_alike_is_none(text: str) -> None:
    assert found(text) == []


def test_phone_numbers_without_plus_are_those_of_the_region() -> None:
    assert found("030 1234567", "US") == []
    assert found("030 1234567", "DE") == [("PHONE", "030 1234567")]


def test_without_phonenumbers_all_else_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(personal, "finds_phones", lambda: False)
    assert found("+49 30 123456, jane@firma.de") == [("EMAIL", "jane@firma.de")]
