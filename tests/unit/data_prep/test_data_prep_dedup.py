"""Duplicates: which are found, that the first stays, and that parts, partitions and order change nothing."""

import random
import tracemalloc

import numpy as np
import pytest

from data_prep.documents import Document
from data_prep.overlap import dedup
from data_prep.overlap.dedup import DedupConfig, document_id, duplicates_in, match_partition, num_partitions, sign_part
from data_prep.overlap.minhash import band_hashes, chance_of_a_match, minima
from data_prep.overlap.planted import EDITS, edited, jaccard, measure, table
from data_prep.overlap.words import BATCH
from rlpt.errors import DataError

NEAR = DedupConfig(near=True)


def random_text(rng, words=200):
    return " ".join(f"w{rng.randrange(5000)}" for _ in range(words))


def corpus():
    """300 documents, and rows -> what is planted there."""
    rng = random.Random(1)
    texts = [random_text(rng) for _ in range(300)]
    texts[120] = texts[5]
    texts[250] = texts[5]
    texts[130] = texts[7].upper().replace(" ", "\n\t")
    texts[299] = " ".join(["other", *texts[40].split()[1:100], "words", *texts[40].split()[101:]])
    texts[10], texts[11], texts[200] = "yes", "no", "yes"
    return texts


def duplicates(texts, folder, config=NEAR, sizes=(300,), partitions=1, shuffled=False):
    """Row in the corpus -> (kind, row of the first), by the real files."""
    folder.mkdir()
    begins = np.cumsum([0, *sizes]).tolist()
    order = list(range(len(sizes)))
    if shuffled:
        order.reverse()
    signed = {}
    for part in order:
        signed[part] = folder / f"signed-{part}"
        documents = (Document(text, "") for text in texts[begins[part] : begins[part + 1]])
        figures = sign_part(documents, part, signed[part], config)
        assert figures["documents"] == sizes[part]
        assert figures["records"] * 16 == signed[part].stat().st_size
    matches = [folder / f"matches-{partition}" for partition in range(partitions)]
    for partition in reversed(range(partitions)) if shuffled else range(partitions):
        match_partition(list(signed.values()), partition, partitions, matches[partition])
    found = {}
    for part, begin in enumerate(begins[:-1]):
        for row, (kind, first) in duplicates_in(matches[::-1] if shuffled else matches, part).items():
            found[begin + row] = (kind, begins[first >> 32] + (first & 0xFFFFFFFF))
    return found


def test_planted_duplicates_are_found_and_the_first_stays(tmp_path):
    texts = corpus()
    assert jaccard(texts[40], texts[299], 5) > 0.8
    exact = {120: ("exact", 5), 250: ("exact", 5), 200: ("exact", 10)}
    assert duplicates(texts, tmp_path / "near") == exact | {130: ("near", 7), 299: ("near", 40)}
    assert duplicates(texts, tmp_path / "exact", DedupConfig()) == exact
    normalised = DedupConfig(exact="normalised")
    assert duplicates(texts, tmp_path / "normalised", normalised) == exact | {130: ("exact", 7)}


def test_parts_partitions_and_order_change_nothing(tmp_path):
    texts = corpus()
    wanted = duplicates(texts, tmp_path / "one")
    assert len(wanted) == 5
    for index, (sizes, partitions) in enumerate([((300,), 7), ((1, 99, 0, 150, 50), 1), ((100,) * 3, 20)]):
        for shuffled in (False, True):
            folder = tmp_path / f"{index}-{shuffled}"
            assert duplicates(texts, folder, NEAR, sizes, partitions, shuffled) == wanted


def test_files_are_the_same_to_the_byte_and_nothing_is_left_beside_them(tmp_path):
    documents = [Document(text, "") for text in corpus()]
    for name in ("a", "b"):
        sign_part(documents, 3, tmp_path / name / "signed", NEAR)
        match_partition([tmp_path / name / "signed"], 0, 1, tmp_path / name / "matches")
    for name in ("signed", "matches"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"signed", "matches"}


def test_a_part_that_fails_leaves_no_file(tmp_path):
    def broken():
        yield Document("text", "")
        raise DataError("a.jsonl:2: malformed")

    with pytest.raises(DataError, match="malformed"):
        sign_part(broken(), 0, tmp_path / "signed", NEAR)
    assert not list(tmp_path.iterdir())


def test_a_document_is_dropped_for_one_that_is_dropped_itself(tmp_path):
    """a, b and c in a chain: c shares words with b, b with a, c hardly with a."""
    rng = random.Random(2)
    words = [f"w{rng.randrange(10**6)}" for _ in range(800)]
    texts = [" ".join(words[begin : begin + 400]) for begin in (0, 40, 80, 120, 160, 200)]
    found = duplicates(texts, tmp_path / "chain", NEAR, (6,))
    assert jaccard(texts[0], texts[5], 5) < 0.35
    assert sorted(found) == [1, 2, 3, 4, 5]


def test_documents_below_the_ngram_are_compared_exactly_only(tmp_path):
    texts = ["one two three four", "One two three four", "one two three four five", "ONE two three four five", "", "."]
    assert duplicates(texts, tmp_path / "short", NEAR, (6,)) == {3: ("near", 2)}
    figures = sign_part((Document(text, "") for text in texts), 0, tmp_path / "signed", NEAR)
    assert figures == {"documents": 6, "utf8_bytes": sum(map(len, texts)), "records": 6 + 2 * 14, "short": 4}


def test_a_document_longer_than_a_batch_is_found_like_any_other(tmp_path):
    rng = random.Random(3)
    long = random_text(rng, 60_000)
    assert len(long) > 2 * BATCH
    texts = ["short but with enough words", long, "another one of the short ones", edited(long, 0.005, "key")]
    assert duplicates(texts, tmp_path / "long", NEAR, (4,)) == {3: ("near", 1)}
    values, _ = minima([long], NEAR)
    again, _ = minima([f"{'-' * 1000} {long.upper()}"], NEAR)
    assert np.array_equal(values, again)


def test_minima_agree_as_often_as_the_sets_overlap():
    config = DedupConfig(near=True, ngram=1, bands=64, rows=8)
    words = [f"w{index}" for index in range(1500)]
    for shared in (0, 100, 300, 450, 500):
        pairs = [(words[:500], words[500 - shared : 1000 - shared]), (words[500:1000], words[1000 - shared :][:500])]
        for one, other in pairs:
            true = len(set(one) & set(other)) / len(set(one) | set(other))
            values, is_long = minima([" ".join(one), " ".join(other)], config)
            assert is_long.all()
            equal = (values[:, 0] == values[:, 1]).mean()
            assert abs(equal - true) <= 4 * (true * (1 - true) / len(values)) ** 0.5


def test_order_and_repetition_of_ngrams_and_neighbours_in_a_batch_do_not_matter():
    config = DedupConfig(near=True, ngram=1)
    values, _ = minima(["b a c", "a b c a a", "d"], config)
    assert np.array_equal(values[:, 0], values[:, 1])
    alone, _ = minima(["a b c"], config)
    assert np.array_equal(alone[:, 0], values[:, 0])
    other, _ = minima(["a b c"], DedupConfig(near=True, ngram=1, seed=2))
    assert not np.array_equal(alone, other)


def test_bands_are_equal_exactly_where_all_their_rows_are():
    config = DedupConfig(near=True, ngram=1, bands=40, rows=2)
    rng = random.Random(4)
    texts = [" ".join(rng.sample("abcdef", 4)) for _ in range(40)]
    values, _ = minima(texts, config)
    hashes, _ = band_hashes(texts, config)
    rows = values.reshape(40, 2, -1).transpose(2, 0, 1)
    same_rows = (rows[:, None] == rows[None]).all(axis=3)
    assert np.array_equal(hashes[:, None] == hashes[None], same_rows)
    assert 0 < same_rows.mean() < 1
    assert len(np.unique(hashes[0])) == 40  # equal rows in different bands are different hashes


def test_memory_does_not_grow_with_the_part_and_results_do_not_hang_on_it(tmp_path):
    sign_part([Document("some words to make the tables", "")], 0, tmp_path / "signed", NEAR)
    peaks = []
    for count in (5000, 20_000):
        rng = random.Random(5)
        tracemalloc.start()
        sign_part((Document(random_text(rng, 12), "") for _ in range(count)), 0, tmp_path / "signed", NEAR, 4000)
        match_partition([tmp_path / "signed"], 0, 1, tmp_path / "matches", 4000)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (tmp_path / "signed").stat().st_size == 20_000 * 15 * 16
    assert peaks[1] < 1.2 * peaks[0]
    rng = random.Random(5)
    again = (Document(random_text(rng, 12), "") for _ in range(20_000))
    sign_part(again, 0, tmp_path / "again", NEAR)
    assert (tmp_path / "again").read_bytes() == (tmp_path / "signed").read_bytes()


def test_partitions_are_as_many_as_memory_asks_for():
    assert num_partitions(0) == num_partitions(dedup.BUDGET) == 1
    assert num_partitions(dedup.BUDGET + 1) == 2
    assert document_id(2, 3) == 2 << 32 | 3
    with pytest.raises(ValueError, match="31 and 32 bits"):
        document_id(1 << 31, 0)


def test_recall_on_planted_duplicates_is_what_minhash_promises():
    rng = random.Random(6)
    texts = [random_text(rng, 150) for _ in range(200)]
    rows = measure(texts, NEAR, copies=200)
    assert [row.edits for row in rows] == [None, *EDITS]
    nothing, exact, *_ = rows
    assert (nothing.dropped, nothing.wrong) == (0, 0)
    assert (exact.recall, exact.kinds, exact.similarity) == (1.0, {"exact": 200}, 1.0)
    for row in rows[1:]:
        share = row.expected / row.documents
        assert abs(row.recall - share) <= 4 * (share * (1 - share) / row.documents) ** 0.5 + 0.01
        assert row.similarity == pytest.approx((1 - row.edits) ** 5 / (2 - (1 - row.edits) ** 5), abs=0.07)
    assert rows[2].recall > 0.95
    assert "precision 1.0000: 0 of" in table([rows[1]])
    assert chance_of_a_match(np.array([0.0, 1.0]), NEAR).tolist() == [0.0, 1.0]


def test_measuring_needs_documents_with_words():
    with pytest.raises(DataError, match="none of 1 documents has 50 words"):
        measure(["too short"], NEAR)
