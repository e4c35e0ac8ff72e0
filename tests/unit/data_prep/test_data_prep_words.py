"""Words and hashes of runs of words: against plain Python, across batches and pieces."""

import random
import re
import unicodedata

import numpy as np
import pytest

from data_prep.overlap.words import BATCH, batches, pieces, words_of


def plain_words(text):
    return re.findall(r"[a-zäöü0-9]+", text.lower())


def random_text(rng, words):
    return "".join(rng.choice(("Ab", "b", "ab", "C7", "ä", "zz")) + rng.choice((" ", "\n", ", ")) for _ in range(words))


@pytest.mark.parametrize("n", [1, 2, 5])
def test_runs_are_equal_exactly_where_their_words_are(n):
    rng = random.Random(n)
    texts = [random_text(rng, size) for size in (0, 1, n - 1, n, 200, 3)] + ["...", "ab C", "abc", "a bc"]
    hashes, offsets = words_of(texts).runs(n)
    runs = []
    for text, begin, end in zip(texts, offsets, offsets[1:]):
        words = plain_words(text)
        assert end - begin == max(len(words) - n + 1, 0)
        runs += [tuple(words[at : at + n]) for at in range(end - begin)]
    pairs = set(zip(runs, hashes.tolist(), strict=True))
    assert len(pairs) == len(set(runs)) == len(np.unique(hashes))


def test_a_texts_own_hash_is_that_of_the_run_of_all_its_words():
    words = words_of(["One two-THREE", "", "one  two three!", "one two"])
    assert words.counts().tolist() == [3, 0, 3, 2]
    whole = words.whole()
    assert whole[0] == whole[2] == words.runs(3)[0][0]
    assert len(set(whole.tolist())) == 3


def test_each_character_of_a_script_without_spaces_is_a_word_and_marks_belong_to_letters():
    assert words_of(["ab漢字cd かな", "हिन्दी भाषा", "naïve “quoted”", "e\u0301t\u00e9"]).counts().tolist() == [
        6,
        2,
        2,
        1,
    ]
    assert unicodedata.category("\u093f") == "Mc"


def test_pieces_hold_each_run_of_words_once():
    rng = random.Random(5)
    text = " ".join(str(rng.randrange(10**9)) for _ in range(60_000))
    assert len(text) > 4 * BATCH
    for n in (1, 5, 13):
        parts = list(pieces(text, n))
        assert len(parts) > 3
        assert max(map(len, parts)) <= BATCH
        hashes = np.concatenate([words_of([part]).runs(n)[0] for part in parts])
        words = text.split()
        assert len(hashes) == len(words) - n + 1
        for at in (0, 1, 20_000, len(words) - n):
            assert hashes[at] == words_of([" ".join(words[at : at + n])]).runs(n)[0][0]


def test_a_text_without_words_or_of_one_giant_word_comes_to_an_end():
    for text in ("." * (3 * BATCH), "x" * (3 * BATCH), "漢" * (2 * BATCH + 5)):
        parts = list(pieces(text, 5))
        assert all(len(part) <= BATCH for part in parts)
        assert sum(map(len, parts)) >= len(text)


def test_batches_keep_order_and_size():
    texts = ["a" * size for size in (10, BATCH, 5, 2 * BATCH, 0, 7)]
    grouped = list(batches(texts))
    assert [text for batch in grouped for text in batch] == texts
    assert all(len(batch) == 1 or sum(len(text) + 1 for text in batch) <= BATCH for batch in grouped)
