"""Personal data: what is marked, what only looks like it, and hostile texts."""

import re
import time
from collections import Counter

import pytest

from data_prep.cleaning.personal import PersonalConfig, PersonalMarker, passes_luhn

KINDS = ("email", "iban", "card", "phone", "ip")


def mark(text, **config):
    counts = Counter()
    return PersonalMarker(PersonalConfig(**config))(text, counts), counts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Mail jane.doe+x@mail.example.co.uk.", "Mail <email>."),
        ("<a@b.org>,'c_d@e-f.com'", "<<email>>,'<email>'"),
        ("müller@köln.de und请写abc@x.com", "<email> und请写<email>"),
        (".a@b.org", ".<email>"),
        ("a" * 64 + "@b.org", "<email>"),
        ("IBAN DE89 3704 0044 0532 0130 00 BIC COBADEFF", "IBAN <iban> BIC COBADEFF"),
        ("DE89370400440532013000", "<iban>"),
        ("ES91 2100 0418 4502 0005 1332 OK", "<iban> OK"),
        ("NO9386011117947, MT84MALT011000012345MTLCAST001S", "<iban>, <iban>"),
        ("4111 1111 1111 1111", "<card>"),
        ("4111111111111111.", "<card>."),
        ("5500-0000-0000-0004 and 378282246310005", "<card> and <card>"),
        ("3782 822463 10005", "<card>"),
        ("2223003122003222", "<card>"),
        ("+49 30 901820", "<phone>"),
        ("tel:+1-555-123-4567, +44 (0)20 7946 0958", "tel:<phone>, <phone>"),
        ("+1.5551234567", "<phone>"),
        ("from 8.8.8.8:53, 93.184.216.34.", "from <ip>:53, <ip>."),
        ("2606:2800:220:1:248:1893:25c8:1946 2a00:1450::8a: ok", "<ip> <ip>: ok"),
        ("2A00:1450:4001::/48", "<ip>/48"),
    ],
)
def test_personal_data_is_marked(text, expected):
    result, counts = mark(text)
    assert result == expected
    assert counts == {f"{kind}_marked": expected.count(f"<{kind}>") for kind in KINDS if f"<{kind}>" in expected}


@pytest.mark.parametrize(
    "text",
    [
        "a@b",
        "@functools.wraps(f)\n@property",
        "user@host.c",
        "x = a @ b.T",
        "a" * 65 + "@b.org",
        "a.@b.org",
        "DE89 3704 0044 0532 0130 01",  # wrong checksum
        "DE893704004405320130001",  # one digit too many
        "XDE89370400440532013000",
        "XX89370400440532013000",  # no such country
        "4111 1111 1111 1112",  # fails Luhn
        "1234567812345670",  # passes Luhn, begins with 1
        "0.4111111111111111",
        "4111 1111 1111 1111 1111 1111",
        "41111 111111 11111",
        "2014 2015 2016 2003",  # years that pass Luhn
        "id_4111111111111111 4111111111111111a",
        "1 + 49301234 = x",
        "a+4930901820 (1)+4930901820",
        "+1234567",  # too short
        "+1234567890123456",  # too long
        "+35236450.6",
        "256.1.2.3 1.2.3.400 1.2.3",
        "v1.2.3.4 1.2.3.4.5 1.2.3.4a",
        "version 3.1.1.6, Section 8.1.2.2",
        "01.02.03.04",
        "127.0.0.1 10.0.0.1 192.168.1.1 169.254.1.1 ::1 fe80::1 2001:db8::1",
        "std::vector<int> a::b x[a::2] face::book dead::beef 12:34:56 00:1a:2b:3c:4d:5e",
        "2023:10:15:30",
    ],
)
def test_what_only_looks_personal_stays(text):
    result, counts = mark(text)
    assert result is text
    assert not counts


def test_the_years_of_the_list_above_pass_luhn():
    assert passes_luhn("2014201520162003")
    assert passes_luhn("1234567812345670")
    assert not passes_luhn("4111111111111112")


def test_private_addresses_are_marked_on_demand():
    text = "127.0.0.1 192.168.1.1 fe80::1 2001:db8::1 a::b"
    assert mark(text, private_ips=True) == ("<ip> <ip> <ip> <ip> a::b", {"ip_marked": 4})


def test_only_the_kinds_that_are_named_are_marked_by_the_text_that_is_chosen():
    text = "a@b.org 8.8.8.8 c@d.org"
    assert mark(text, marks={"email": "\\1 [e-mail]"}) == ("\\1 [e-mail] 8.8.8.8 \\1 [e-mail]", {"email_marked": 2})
    assert mark(text, marks={"ip": ""}) == ("a@b.org  c@d.org", {"ip_marked": 1})


UNITS = re.findall(r"\S+", "a @ . a@ a. @a. @a- -@ 4 4- + +1 1. 1.1.1. 2 f 2: 2000: ffff: : :: A AA00 ( é aaaa@b.org")
SPACED = ["4 ", "4111 ", "+1 ", "AA00 ", "DE89 ", "A0 ", " "]


@pytest.mark.parametrize("unit", [*UNITS, *SPACED])
def test_a_megabyte_of_hostile_text_takes_linear_time(unit):
    text = unit * (10**6 // len(unit))
    start = time.process_time()
    mark(text)
    mark(text + "!" + text[:1000])
    assert time.process_time() - start < 20
