"""Rules of C4 and Gopher on both sides of their thresholds, worked by hand, and languages."""

import random
import subprocess
import sys
from collections import Counter

import pytest

from data_prep.cleaning.c4 import count_sentences
from data_prep.cleaning.cleaner import CleanConfig, Cleaner
from data_prep.cleaning.gopher import GopherConfig, quality_fault
from data_prep.cleaning.repetition import RepetitionConfig, duplicate_shares, ngram_fault, repetition_fault
from data_prep.documents import Document

PROSE = "It was the best of times, it was the worst of times, it was an age to have wisdom and foolishness with doubt. "


def clean(text, **config):
    cleaner = Cleaner(CleanConfig(**config))
    result = cleaner(Document(text, "here"))
    return (f"[{result}]" if isinstance(result, str) else result.text), dict(cleaner.counts)


@pytest.mark.parametrize(
    ("rule", "text", "expected", "counts"),
    [
        ("citations", "As[12][] here[edit][citation needed] a[b].", "As here a[b].", {"c4_citations_removed": 4}),
        (
            "terminal_punctuation",
            'End.\nEnd!  \nEnd?\n"End"\nno end\n\nand then...\nand so\u2026\n  kept.',
            'End.\nEnd!  \nEnd?\n"End"\n  kept.',
            {"c4_terminal_punctuation_lines_removed": 3},
        ),
        ("short_lines", "one two three four\n\na b c d e", "a b c d e", {"c4_short_lines_removed": 1}),
        ("javascript", "Enable JavaScript!\n\nJava, script.", "\nJava, script.", {"c4_javascript_lines_removed": 1}),
        (
            "policies",
            "This site Uses Cookies.\nRead our\nPrivacy Policy\nWe bake cookies.",
            "Read our\nWe bake cookies.",
            {"c4_policies_lines_removed": 2},
        ),
        ("lorem_ipsum", "x Lorem Ipsum dolor", "[c4_lorem_ipsum]", {}),
        ("lorem_ipsum", "lorem, ipsum", "lorem, ipsum", {}),
        ("curly_bracket", "f() {", "[c4_curly_bracket]", {}),
        ("curly_bracket", "f() }", "f() }", {}),
        ("sentences", "One. Two! and no third", "[c4_sentences]", {}),
        ("sentences", "One. Two! Three?", "One. Two! Three?", {}),
    ],
)  # fmt: skip
def test_each_rule_of_c4(rule, text, expected, counts):
    assert clean(text, c4={"rules": [rule]}) == (expected, counts)


def test_the_thresholds_of_c4_can_be_set():
    assert clean("one two", c4={"rules": ["short_lines"], "min_line_words": 2})[0] == "one two"
    assert clean("One. Two.", c4={"rules": ["sentences"], "min_sentences": 2})[0] == "One. Two."


def test_the_page_rules_of_c4_see_what_its_line_rules_left():
    text = "function() { javascript }\n" + "A sentence that has its five words. " * 3
    assert clean(text, c4={})[0] == text.split("\n")[1]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", 0),
        ("no end", 0),
        ("3.14 is pi", 0),
        ("Wait... what?", 2),
        ('He said "Go!" (Now.) And went.', 3),
        ("a.b", 0),
    ],
)
def test_sentences_are_counted(text, sentences):
    assert count_sentences(text, 10) == sentences
    assert count_sentences(text, 1) == min(sentences, 1)


def test_notices_and_patterns_remove_lines():
    text = "(c) no\nCopyright (C) X. All rights reserved.\n# SPDX-License-Identifier: MIT\n  Advert 12  \nAdvert\ntext"
    assert clean(text, remove_notices=True, remove_lines=[r"(?i)^advert \d+$", "^y"]) == (
        "(c) no\nAdvert\ntext",
        {"notices_lines_removed": 2, "pattern_lines_removed": 1},
    )


def quality(text, **config):
    return quality_fault(text, text.split(), GopherConfig(**config))


@pytest.mark.parametrize(
    ("rule", "good", "bad", "fault"),
    [
        ("words", "word " * 50, "word " * 49, "gopher_words"),
        ("words", "w " * 100_000, "w " * 100_001, "gopher_words"),
        ("word_length", "abc abc", "abc ab", "gopher_word_length"),
        ("word_length", "abcdefghij abcdefghij", "abcdefghij abcdefghijk", "gopher_word_length"),
        ("symbols", "# " + "w " * 9, "# " + "w " * 8, "gopher_symbols"),
        ("symbols", "w... " + "w " * 9, "w... " + "w " * 8, "gopher_symbols"),
        ("symbols", "w\u2026 # " + "w " * 8, "w\u2026 w... " + "w " * 9, "gopher_symbols"),
        ("bullets", "\u2022 a\n" * 9 + "a\n\n", " - a\n" * 10 + "a", "gopher_bullets"),
        ("ellipses", "a...\n" * 3 + "\na" * 7, "a\u2026 \n" * 3 + "\na" * 6, "gopher_ellipses"),
        ("letters", "a b c d8 5", "a b c d8 5 6", "gopher_letters"),
        ("stop_words", "The cat; (of) x", "the the thebe", "gopher_stop_words"),
    ],
)
def test_each_rule_of_gopher_on_both_sides_of_its_threshold(rule, good, bad, fault):
    assert quality(good, rules=[rule]) == ""
    assert quality(bad, rules=[rule]) == fault


def test_prose_passes_all_rules_and_thresholds_can_be_set():
    assert quality(PROSE * 3) == ""
    assert quality(PROSE) == "gopher_words"
    assert quality(PROSE, min_words=22) == ""
    assert quality("der Hund und die Katze", rules=["stop_words"], stop_words=["der", "und"]) == ""


def repetition(text, rule, **config):
    return repetition_fault(text, text.split(), RepetitionConfig(rules=[rule], **config))


def test_repeated_lines():
    seven, short = [f"line {i}" for i in range(7)], [f"a much longer line {i}" for i in range(8)]
    assert repetition("\n\n".join([*seven, *["line 0"] * 3]), "lines", line_characters=1) == ""
    assert repetition("\n\n".join([*seven[1:], *[" line 1"] * 3]), "lines", line_characters=1) == "repeated_lines"
    assert repetition("12345678\n" + "\n".join("ab"), "lines") == ""
    assert duplicate_shares(["1234", "1234", "abcdefgh", "x" * 4]) == (0.25, 0.2)
    assert repetition("1234\n1234\nabcdefgh\nxxxx", "lines") == ""
    assert repetition("12345\n12345\nabcdefgh\nxxxx", "lines") == "repeated_line_characters"
    assert repetition("\n".join(short), "lines") == ""


def test_repeated_paragraphs():
    assert repetition("one\ntwo\n \none\nthree", "paragraphs") == ""
    assert repetition("one\ntwo\n \none\ntwo\n\n\nx", "paragraphs") == "repeated_paragraphs"
    assert repetition("1234\n\n1234\n\nabcdefgh\n\nxxxx", "paragraphs") == ""
    assert repetition("12345\n\n12345\n\nabcdefgh\n\nxxxx", "paragraphs") == "repeated_paragraph_characters"


def test_the_most_frequent_ngram():
    rest = [f"{i:02d}" for i in range(8)]
    # "ab cd" twice: 8 of 8 + 16 + 16 characters are 20 %.
    words = ["ab", "cd", *rest, "ab", "cd", *(f"x{i}" for i in range(8))]
    assert repetition(" ".join(words), "top_ngrams") == ""
    assert repetition(" ".join(words[:-1]), "top_ngrams") == "top_2_gram"
    assert repetition("hello world", "top_ngrams") == ""  # what occurs once is no repetition
    assert repetition(" ".join(words[:-1]), "top_ngrams", top_ngrams={3: 0.0}) == ""


def test_duplicate_ngrams_count_every_character_once():
    five = list("abcde")
    rest = [f"{i:03d}" for i in range(10)]  # 30 characters
    assert ngram_fault([*five, *rest, *five], {}, {5: 5 / 40}) == ""
    assert ngram_fault([*five, *rest, *five], {}, {5: 4.9 / 40}) == "duplicate_5_grams"
    assert ngram_fault([*five, *rest, *five], {}, {6: 0.0}) == ""
    # Of eight equal words, all but the first are in 5-grams that occurred before.
    assert ngram_fault(["a"] * 8, {}, {5: 7 / 8}) == ""
    assert ngram_fault(["a"] * 8, {}, {5: 6.9 / 8}) == "duplicate_5_grams"
    assert repetition(" ".join(rest * 2), "duplicate_ngrams", duplicate_ngrams={10: 0.5}) == ""
    assert repetition(" ".join(rest * 2), "duplicate_ngrams", duplicate_ngrams={10: 0.49}) == "duplicate_10_grams"


def slow_shares(words, size):
    """(share of the most frequent n-gram, share of characters in n-grams seen before), by the definition."""
    grams = [tuple(words[i : i + size]) for i in range(len(words) - size + 1)]
    counts = Counter(grams)
    frequent, most = next(iter(counts.most_common(1)), ((), 1))
    top = most * len("".join(frequent))
    covered, seen = set(), set()
    for i, gram in enumerate(grams):
        if gram in seen:
            covered |= set(range(i, i + size))
        seen.add(gram)
    characters = len("".join(words))
    return (top / characters if most > 1 else 0), sum(len(words[i]) for i in covered) / characters


def test_ngram_shares_equal_those_by_the_definition():
    drawn, found = random.Random(3), 0
    for _ in range(200):
        words = drawn.choices(["a", "bb", "ccc", "dddd"][: drawn.randint(1, 4)], k=drawn.randint(1, 40))
        for size in range(1, 11):
            top, duplicate = slow_shares(words, size)
            assert ngram_fault(words, {size: top}, {size: duplicate}) == ""
            if top:
                assert ngram_fault(words, {size: top - 1e-9}, {}) == f"top_{size}_gram"
                assert ngram_fault(words, {}, {size: duplicate - 1e-9}) == f"duplicate_{size}_grams"
                found += 1
    assert found > 500


def test_faults_have_names_in_the_cleaner_and_the_first_counts():
    assert clean(PROSE * 3, gopher={})[0] == PROSE * 3
    # "times, it was" stands there six times: 66 of 261 characters.
    assert clean(PROSE * 3, gopher={}, repetition={})[0] == "[top_3_gram]"
    assert clean(PROSE, gopher={}, repetition={})[0] == "[gopher_words]"


def test_languages_that_are_not_wanted_are_dropped():
    pytest.importorskip("py3langid")
    german = "Der Hund läuft schnell durch den Wald und freut sich über den Regen."
    french = "Le chat est assis sur le tapis et il regarde la pluie par la fenêtre."
    wanted = {"languages": ["en", "de"]}
    assert clean(PROSE, language=wanted)[0] == PROSE
    assert clean(german, language=wanted)[0] == german
    assert clean(french, language=wanted)[0] == "[language]"
    assert clean("x = 3", language=wanted)[0] == "[language]"  # no language is likely
    assert clean(PROSE + french * 20, language={**wanted, "sample_characters": len(PROSE)})[0] != "[language]"
    assert clean(german, language={**wanted, "min_probability": 1.0})[0] == "[language]"


def test_without_the_package_the_error_names_the_extra():
    code = (
        "import sys; sys.modules['py3langid'] = sys.modules['py3langid.langid'] = None\n"
        "from data_prep.cleaning.cleaner import *\nCleaner(CleanConfig(gopher={}, personal={}))\n"
        "try: Cleaner(CleanConfig(language={'languages': ['en']}))\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "ConfigError language: py3langid is not installed; pip install 'rlpt[data]'\n"
