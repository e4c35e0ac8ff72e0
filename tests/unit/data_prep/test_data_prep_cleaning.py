"""Cleaning: off by default, the order of what it does, the form of texts, lengths, and wrong configurations."""

import pickle
import time
import unicodedata

import pytest

from data_prep.cleaning.cleaner import CleanConfig, Cleaner
from data_prep.cleaning.normalization import (
    cap_blank_lines,
    normalize_unicode,
    remove_controls,
    strip_line_ends,
    unify_newlines,
)
from data_prep.documents import Document
from rlpt.errors import ConfigError
from rlpt.registry import describe

FORM = {
    "unicode": "NFC",
    "newlines": "lf",
    "control_characters": "remove",
    "trailing_space": "remove",
    "max_blank_lines": 1,
}


def clean(text, **config):
    """The cleaned text, or the reason in brackets, and the counts."""
    cleaner = Cleaner(CleanConfig(**config))
    result = cleaner(Document(text, "here", "a thing"))
    return (f"[{result}]" if isinstance(result, str) else result.text), dict(cleaner.counts)


@pytest.mark.parametrize(
    "text", ["", " \r\n\t", "e\u0301 \x00\ufeff a@b.co 4111111111111111 { lorem ipsum", "x" * 10**6]
)
def test_nothing_is_changed_or_dropped_by_default(text):
    document, cleaner = Document(text, "here"), Cleaner(CleanConfig())
    assert cleaner(document) is document
    assert not cleaner.counts
    assert cleaner.config.is_off


def test_a_document_that_is_clean_already_stays_the_same_object():
    document = Document("A line.\n\nAnother é.\n", "here")
    cleaner = Cleaner(CleanConfig(**FORM, remove_notices=True, c4={"rules": ["javascript"]}, personal={}))
    assert cleaner(document) is document
    assert not cleaner.counts


def test_origin_and_subject_stay_with_a_changed_text():
    cleaned = Cleaner(CleanConfig(trailing_space="remove"))(Document("a \nb", "file:3", "a thing"))
    assert cleaned == Document("a\nb", "file:3", "a thing")


def test_counts_are_of_documents_that_stay():
    cleaner = Cleaner(CleanConfig(trailing_space="remove", min_characters=3))
    assert cleaner(Document("a \n", "here")) == "too_short"
    assert not cleaner.counts
    cleaner(Document("long \nenough \n", "here"))
    assert cleaner.counts == {"lines_stripped": 2}


def test_a_pickled_cleaner_does_the_same_with_counts_of_its_own():
    cleaner = Cleaner(CleanConfig(**FORM, personal={}))
    document = Document("a@b.co \r\n", "here")
    first = cleaner(document)
    again = pickle.loads(pickle.dumps(cleaner))
    assert not again.counts
    assert again(document) == first == Document("<email>\n", "here")
    assert again.counts == cleaner.counts == {"line_ends_unified": 1, "lines_stripped": 1, "email_marked": 1}


@pytest.mark.parametrize(
    ("config", "text", "expected"),
    [
        # Line ends before Unicode and controls: NEL is a control character, and a line end first.
        ({"newlines": "lf", "control_characters": "remove"}, "a\x85b", "a\nb"),
        ({"control_characters": "remove"}, "a\x85b", "ab"),
        # Unicode before white space: NFKC makes a space of what rstrip would take too, and a digit of a full-width one.
        ({"unicode": "NFKC", "trailing_space": "remove"}, "a\u00b4\nb", "a \u0301\nb"),
        ({"unicode": "NFKC", "personal": {}}, "\uff14111 1111 1111 1111", "<card>"),
        # Controls before white space: what stood before a NUL is at the line's end then.
        ({"control_characters": "remove", "trailing_space": "remove"}, "a \x00\nb", "a\nb"),
        # White space before lines, lines before blank lines: the removed line's neighbours become one run.
        ({"remove_lines": ["^ad$"], "max_blank_lines": 1}, "a\n\nad \n\nb", "a\n\nb"),
        # Lines before dropping: what is left is judged.
        ({"remove_lines": ["ad"], "min_words": 3}, "ad two\nthree four", "[too_short]"),
        ({"remove_lines": ["ad"]}, "ad\n \n", "[empty]"),
        # Dropping before marks: a mark is no word of the text.
        ({"personal": {"marks": {"email": "a b c"}}, "max_words": 1}, "x@y.org", "a b c"),
    ],
)
def test_the_order_of_operations(config, text, expected):
    assert clean(text, **config)[0] == expected


def test_the_order_of_keys_plays_no_part():
    text = "\ufeffA\u030a \r\nad\x00\r\n\r\n\r\nb"
    forwards, backwards = (clean(text, **dict(items)) for items in (FORM.items(), reversed(FORM.items())))
    assert forwards == backwards == ("\u00c5\nad\n\nb", forwards[1])
    assert forwards[1] == {
        "line_ends_unified": 4,
        "documents_to_NFC": 1,
        "control_characters_removed": 2,
        "lines_stripped": 1,
        "blank_lines_removed": 1,
    }


def test_unicode_forms():
    assert normalize_unicode("e\u0301", "NFC") == ("é", 1)
    assert normalize_unicode("ﬁ \u00b2", "NFC") == ("ﬁ \u00b2", 0)
    assert normalize_unicode("ﬁ \u00b2", "NFKC") == ("fi 2", 1)


def test_a_long_run_of_combining_marks_is_parted_and_takes_linear_time():
    text = "a" + "\u0315\u0300" * 500_000
    start = time.process_time()
    result, changed = normalize_unicode(text, "NFC")
    assert time.process_time() - start < 20
    assert changed
    assert unicodedata.is_normalized("NFC", result)
    assert result.count("\u034f") == (10**6 - 1) // 30
    just_fits = "a" + "\u0315\u0300" * 15
    assert normalize_unicode(just_fits, "NFC") == (unicodedata.normalize("NFC", just_fits), 1)


def test_line_ends_become_lf():
    assert unify_newlines("a\r\nb\rc\u2028d\n\r\ne\u2029") == ("a\nb\nc\nd\n\ne\n", 5)
    assert unify_newlines("a\nb\x0cc") == ("a\nb\x0cc", 0)


def test_controls_go_and_tabs_and_line_ends_stay():
    assert remove_controls("\x00a\tb\r\n\x1b[0m\x7f\x9f\ufeffé") == ("a\tb\r\n[0mé", 5)


def test_white_space_at_line_ends_goes_and_carriage_returns_stay():
    assert strip_line_ends("  a \t\n\n b\u00a0\nc") == ("  a\n\n b\nc", 2)
    assert strip_line_ends("a \r\nb\r\n \r\n") == ("a\r\nb\r\n\r\n", 2)


@pytest.mark.parametrize(
    ("text", "most", "expected"),
    [
        ("a\n\n\nb", 2, ("a\n\n\nb", 0)),
        ("a\n\n\n\nb", 2, ("a\n\n\nb", 1)),
        ("a\n\n\n\nb\n\n\n\n\nc", 1, ("a\n\nb\n\nc", 5)),
        ("a\n \t\n\n  b", 0, ("a\n  b", 2)),
        ("\n\n\na", 1, ("\na", 2)),
        ("a\n\n\n\n", 1, ("a\n\n", 2)),
        ("a\r\n\r\n\r\n\r\nb", 1, ("a\r\n\r\nb", 2)),
        ("    a\n    b", 0, ("    a\n    b", 0)),
    ],
)
def test_blank_lines_are_capped(text, most, expected):
    assert cap_blank_lines(text, most) == expected


@pytest.mark.parametrize("text", [" " * 10**6 + "x", "\n" * 10**6, "\n " * 500_000 + "x", "\r" * 10**6, "\x00" * 10**6])
def test_the_form_of_hostile_text_takes_linear_time(text):
    start = time.process_time()
    clean(text, **FORM, c4={}, remove_notices=True, repetition={}, gopher={"min_words": 0})
    assert time.process_time() - start < 20


@pytest.mark.parametrize(
    ("config", "text", "expected"),
    [
        ({"min_characters": 5}, "1234", "[too_short]"),
        ({"min_characters": 5}, "12345", "12345"),
        ({"max_characters": 5}, "12345", "12345"),
        ({"max_characters": 5}, "123456", "[too_long]"),
        ({"min_words": 2}, "one", "[too_short]"),
        ({"min_words": 2}, "one\ntwo", "one\ntwo"),
        ({"max_words": 2}, " one  two ", " one  two "),
        ({"max_words": 2}, "one two three", "[too_long]"),
        ({"max_words": 2}, " \n", "[empty]"),
    ],
)
def test_lengths(config, text, expected):
    assert clean(text, **config)[0] == expected


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"remove_lines": ["ok", "("]}, r"clean.remove_lines.1: '(' is no regular expression: missing ), unterminated"),
        ({"remove_lines": ["x*"]}, "clean.remove_lines.0: 'x*' matches an empty line"),
        ({"min_words": 3, "max_words": 2}, "min_words=3 is above max_words=2"),
        ({"unicode": "NFD"}, "clean.unicode:"),
        ({"max_blank_lines": -1}, "clean.max_blank_lines:"),
        ({"gopher": {"rules": ["word"]}}, "clean.gopher.rules.0:"),
        ({"gopher": {"min_word_length": 4, "max_word_length": 3}}, "min_word_length=4.0 is above"),
        ({"gopher": {"stop_words": ["a", "a"]}}, "min_stop_words=2 is above the 1 stop_words"),
        ({"repetition": {"top_ngrams": {0: 0.5}}}, "clean.repetition.top_ngrams: 0: 0.5: sizes are 1 or more"),
        ({"repetition": {"duplicate_ngrams": {5: 1.5}}}, "clean.repetition.duplicate_ngrams: 5: 1.5"),
        ({"c4": {"rules": []}}, "clean.c4.rules:"),
        ({"language": {"languages": []}}, "clean.language.languages:"),
        ({"personal": {"marks": {"name": "x"}}}, "clean.personal.marks.name"),
        ({"lenght": 3}, "clean.lenght:"),
    ],
)
def test_wrong_configurations_are_named(config, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the message is what is looked at
        CleanConfig(**config)
    assert message in describe(caught.value, "clean")


def test_an_unknown_language_is_named():
    pytest.importorskip("py3langid")
    with pytest.raises(ConfigError, match=r"language\.languages\.1: unknown language 'eng'.*'en'"):
        Cleaner(CleanConfig(language={"languages": ["de", "eng"]}))
