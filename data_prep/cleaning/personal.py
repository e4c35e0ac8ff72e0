"""Marks instead of personal data: e-mail addresses, IBANs, credit cards, phone numbers, IP addresses.

What a checksum or a range can tell is checked: an IBAN's length and remainder, a card's Luhn digit, an IP's numbers.
Every pattern has bounded repeats and begins where its kind can begin only, so that the time is linear in the text's
length whatever the text."""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable
from typing import Literal, get_args

from pydantic import Field

from rlpt.config_objectives import Section

PersonalKind = Literal["email", "iban", "card", "phone", "ip"]
_MARKS: dict[PersonalKind, str] = {kind: f"<{kind}>" for kind in get_args(PersonalKind)}

_LETTERS = "A-Za-z\u00c0-\u024f"
_LOCAL_CHARACTERS = "".join(filter(re.compile(f"[{_LETTERS}0-9_.%+-]").match, map(chr, range(0x250))))
_MOST_LOCAL = 64  # characters before the @ (RFC 5321)
_DOMAIN = re.compile(
    rf"@(?:[{_LETTERS}0-9](?:[{_LETTERS}0-9-]{{0,61}}[{_LETTERS}0-9])?\.){{1,8}}[{_LETTERS}]{{2,24}}(?![{_LETTERS}0-9_-])"
)
_IBAN = re.compile(r"[A-Z](?<!\w.)[A-Z][0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?")
_COUNTRIES = (  # codes and lengths of the SWIFT registry
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 EG29 "
    "ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 "
    "LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 "
    "QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30"
)
_IBAN_LENGTHS = {code: int(length) for code, length in re.findall("([A-Z]+)([0-9]+)", _COUNTRIES)}
# 2 to 2720 is Mastercard, 3 travel, 4 Visa, 5 Mastercard, 6 Discover, UnionPay and Maestro; a year begins no card.
_CARD = re.compile(
    r"[2-6](?<![\w.+-].)(?<![0-9] .)(?:(?<=2)[2-7]|(?<!2)[0-9])[0-9]{2}"
    r"(?:[0-9]{9,15}|([ -])[0-9]{4}\1[0-9]{4}\1[0-9]{1,4}(?:\1[0-9]{1,3})?|([ -])[0-9]{6}\2[0-9]{4,5})"
    r"(?![ -]?[0-9]|\.[0-9]|\w)"
)
_SPACES = " .()\u00a0\u2011\u2013-"
_PHONE = re.compile(rf"\+(?<![\w)\]+.].)[1-9](?:[{_SPACES}]{{0,2}}[0-9]){{6,13}}[0-9](?![{_SPACES}]?[0-9]|\w)")
_IPV4 = re.compile(r"[0-9](?<![\w.].)[0-9]{0,2}(?:\.[0-9]{1,3}){3}(?!\.?[\w])")
_NUMBERED = ("section", "sections", "version", "versions", "release", "chapter", "clause", "\u00a7")  # 8.1.2.2 of these
_IPV6 = re.compile(r"[23fF](?<![\w:.].)[0-9A-Fa-f]{3}(?:::?[0-9A-Fa-f]{1,4}){1,7}(?:::)?(?!\w)")
_IPV6_MIDDLE = re.compile(":[0-9A-Fa-f]{0,4}:")  # of every IPv6 address; much faster to look for
_IPV6_USED = tuple(map(ipaddress.IPv6Network, ("2000::/3", "fc00::/7", "fe80::/10", "ff00::/8")))


class PersonalConfig(Section):
    """Personal data is replaced by marks. Names and postal addresses are not found."""

    marks: dict[PersonalKind, str] = Field(
        _MARKS,
        min_length=1,
        description="kind -> what stands in its place; kinds that are not named stay. email; iban (valid); card (13 to "
        "19 digits that pass the Luhn check); phone (international form: +49 30 ...); ip (version 4 and 6)",
    )
    private_ips: bool = Field(
        False, description="also addresses that lead nowhere in public: 127.0.0.1, 192.168.1.1, documentation's"
    )


class PersonalMarker:
    """Replaces personal data by marks. Picklable, without state."""

    def __init__(self, config: PersonalConfig) -> None:
        self._config = config

    def __call__(self, text: str, counts: Counter[str]) -> str:
        """`text` with marks; adds to `counts` how many of each kind, as KIND_marked.

        Kinds go in the order email, iban, card, phone, ip: an IBAN's digits are no card, an IP's no phone number."""
        for kind, find in _FINDERS.items():
            mark = self._config.marks.get(kind)
            if mark is None:
                continue
            spans = find(text, self._config.private_ips)
            if spans:
                counts[f"{kind}_marked"] += len(spans)
                text = _replace(text, spans, mark)
        return text


Spans = list[tuple[int, int]]


def _replace(text: str, spans: Spans, mark: str) -> str:
    pieces, done = [], 0
    for start, end in spans:
        pieces += [text[done:start], mark]
        done = end
    return "".join([*pieces, text[done:]])


def find_emails(text: str) -> Spans:
    """Spans of e-mail addresses with a name of letters, digits and _ . % + - before the @ and a dotted domain."""
    spans, done = [], 0
    for match in _DOMAIN.finditer(text):
        head = text[max(done, match.start() - _MOST_LOCAL - 1) : match.start()]
        local = head[len(head.rstrip(_LOCAL_CHARACTERS)) :]
        if len(local) > _MOST_LOCAL or local.endswith("."):
            continue
        local = local.lstrip(".%+-")
        if local:
            done = match.end()
            spans.append((match.start() - len(local), done))
    return spans


def find_ibans(text: str) -> Spans:
    """Spans of IBANs, together or in groups of four, of their country's length and with remainder 1 modulo 97."""
    spans = []
    for match in _IBAN.finditer(text):
        length = _IBAN_LENGTHS.get(match[0][:2], 0)
        end = match.start() + length + ((length - 1) // 4 if match[0][4:5] == " " else 0)
        number = text[match.start() : end].replace(" ", "")
        if length and len(number) == length and not text[end : end + 1].isalnum() and _is_iban(number):
            spans.append((match.start(), end))
    return spans


def _is_iban(number: str) -> bool:
    """ISO 13616: the first four characters go last, letters are 10 to 35, the remainder modulo 97 is 1."""
    return int("".join(str(int(character, 36)) for character in number[4:] + number[:4])) % 97 == 1


def find_cards(text: str) -> Spans:
    """Spans of card numbers: 13 to 19 digits, together or in the groups that are printed on cards, that pass the Luhn
    check."""
    return [match.span() for match in _CARD.finditer(text) if passes_luhn(re.sub("[ -]", "", match[0]))]


def passes_luhn(digits: str) -> bool:
    """ISO/IEC 7812-1: every second digit from the right doubled, digit sums added, divisible by 10."""
    doubled = (int(digit) * 2 for digit in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(value - 9 * (value > 9) for value in doubled)) % 10 == 0


def find_phones(text: str) -> Spans:
    """Spans of phone numbers in international form: +, then 8 to 15 digits (E.164) with spaces, dots, hyphens and
    parentheses between them."""
    return [match.span() for match in _PHONE.finditer(text)]


def find_ips(text: str, private: bool) -> Spans:
    """Spans of IPv4 and IPv6 addresses, `private`: also those that aren't globally reachable. Of
    IPv4, not the numbers of sections and versions that are called so; of IPv6, only the ranges in use: a::b is code."""
    spans = [
        match.span()
        for match in _IPV4.finditer(text)
        if _is_ip(match[0], private) and not _before(text, match.start()).endswith(_NUMBERED)
    ]
    if _IPV6_MIDDLE.search(text):
        spans += [match.span() for match in _IPV6.finditer(text) if _is_ip(match[0], private)]
    return sorted(spans)


def _before(text: str, start: int) -> str:
    return text[max(0, start - 12) : start].lower().rstrip(" \"'-:")


def _is_ip(text: str, private: bool) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and not any(address in network for network in _IPV6_USED):
        return False
    return private or address.is_global


_FINDERS: dict[PersonalKind, Callable[[str, bool], Spans]] = {
    "email": lambda text, _: find_emails(text),
    "iban": lambda text, _: find_ibans(text),
    "card": lambda text, _: find_cards(text),
    "phone": lambda text, _: find_phones(text),
    "ip": find_ips,
}
