"""Passages: what follows the cut really follows it in the corpus, cuts obey their rule, numbers alone decide."""

import numpy as np
import pytest
from helpers.rollouts import TableScorer, source_context
from helpers.shards import write_shards, write_tokenizer

from rlpt.data.blend import BlendEntry
from rlpt.data.corpus import ShardStream
from rlpt.data.indexed import open_shard
from rlpt.errors import ConfigError, DataError
from rlpt.rollout.passages import PassageOptions, Passages
from rlpt.tasks.base import is_evaluation_seed

T, SEED = 24, 5
MARKER = "7"


class Corpus:
    """Shards of random tokens: "text" of documents of 1 to 40 tokens, "short" of documents of 1, "other" of other
    tokens, each document with its end-of-text token."""

    def __init__(self, folder):
        self.tokenizer, self.folder = write_tokenizer(folder / "tokenizer"), folder / "data"
        (self.marker,) = self.tokenizer.encode_characters(MARKER)
        rng, eos = np.random.default_rng(1), self.tokenizer.eos_id
        ids = [i for i in range(100, 300) if i != self.marker]

        def text(low, high, lengths):
            return [[*(int(ids[j]) for j in rng.integers(low, high, n)), eos] for n in lengths]

        self.documents = {
            "text": text(0, 100, rng.integers(1, 40, 150)),
            "short": text(0, 100, [1] * 60),
            "other": text(100, 190, rng.integers(8, 30, 40)),
        }
        for document in self.documents["text"]:
            for place in rng.integers(0, len(document), 2):
                if place < len(document) - 1:
                    document[place] = self.marker
        write_shards(self.folder, self.tokenizer, self.documents)

    def passages(self, blend=("text",), least_future=1, score=None, seed=SEED, **options):
        entries = [BlendEntry(self.folder / name, weight) for name, weight in _weighted(blend)]
        context = source_context(
            tokenizer=self.tokenizer, sequence_length=T, seed=seed, score=score, micro_batch_size=3
        )
        return Passages(PassageOptions(entries, **options), context, least_future)

    def rows(self, count, name="text"):
        """The rows that problems of one shard are cut from, unless nothing in them fits."""
        stream = ShardStream(open_shard(self.folder / name, self.tokenizer), SEED, T)
        return [stream.row(index) for index in range(count)]


def _weighted(blend):
    return blend.items() if isinstance(blend, dict) else [(name, 1.0) for name in blend]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return Corpus(tmp_path_factory.mktemp("corpus"))


def is_within(part, document):
    return any(document[at : at + len(part)] == list(part) for at in range(len(document) - len(part) + 1))


def open_places(ids, ordinals, least_context, least_future, eos):
    """{place: where its document begins in the row}, place by place from the definition."""
    found = {}
    for place in range(len(ids)):
        first = min(i for i in range(len(ids)) if ordinals[i] == ordinals[place])
        future = range(place, place + least_future)
        if place - first >= least_context and all(
            i < len(ids) and ordinals[i] == ordinals[place] and ids[i] != eos for i in future
        ):
            found[place] = first
    return found


def place_of(problem, ids, starts, most_context):
    """Where a row was cut for this problem; None where it is not from this row."""
    context, future = list(problem.meta["context"]), list(problem.meta["future"])
    for place, first in starts.items():
        begin = max(first, place - most_context)
        if ids[begin:place].tolist() == context and ids[place : place + len(future)].tolist() == future:
            return place
    return None


@pytest.mark.parametrize(("least_context", "least_future"), [(1, 1), (4, 3), (2, 6)])
def test_context_and_future_stand_side_by_side_in_one_document(corpus, least_context, least_future):
    drawn = corpus.passages(least_future=least_future, least_context=least_context, context=9, future=6).draw(
        range(300)
    )
    lengths = set()
    for problem in drawn:
        context, future = problem.meta["context"], problem.meta["future"]
        assert least_context <= len(context) <= 9
        assert least_future <= len(future) <= 6
        assert corpus.tokenizer.eos_id not in (*context, *future)
        assert any(is_within((*context, *future), document) for document in corpus.documents["text"])
        assert (problem.prompt, problem.answer) == (corpus.tokenizer.decode(context), corpus.tokenizer.decode(future))
        assert (problem.task, problem.level, is_evaluation_seed(problem.seed)) == ("passage", 0, False)
        lengths.add((len(context), len(future)))
    assert len({problem.seed for problem in drawn}) == 300
    assert {future for _, future in lengths} == set(range(least_future, 7)), "short where a document ends"
    assert {context for context, _ in lengths} == set(range(least_context, 10))


def test_all_that_may_stand_in_a_passage_does(corpus):
    """Context and future are cut only by their limits, the document and the row."""
    drawn, eos = corpus.passages(context=9, future=6).draw(range(60)), corpus.tokenizer.eos_id
    checked = 0
    for problem, (ids, ordinals) in zip(drawn, corpus.rows(60)):
        starts = open_places(ids, ordinals, 1, 1, eos)
        if not starts:
            continue
        place = place_of(problem, ids, starts, 9)
        assert place is not None, "problem i is cut from row i"
        after = place + len(problem.meta["future"])
        assert len(problem.meta["future"]) == 6 or after == len(ids) or ids[after] == eos
        assert all(ordinals[i] == ordinals[place] for i in range(place, after))
        checked += 1
    assert checked > 50


def cuts(corpus, count=150, score=None, **options):
    """(place, {open place: its document's beginning}, ids) of problems that were cut from their first row."""
    drawn, found = corpus.passages(score=score, context=9, future=3, **options).draw(range(count)), []
    for problem, (ids, ordinals) in zip(drawn, corpus.rows(count)):
        starts = open_places(ids, ordinals, 1, 1, corpus.tokenizer.eos_id)
        if starts:
            found.append((place_of(problem, ids, starts, 9), starts, ids))
    assert len(found) > 0.9 * count
    return found


def test_random_cuts_are_anywhere(corpus):
    found = cuts(corpus)
    assert {place for place, _, _ in found} == set(range(1, T + 1))
    middle = np.mean([sorted(starts).index(place) / max(1, len(starts) - 1) for place, starts, _ in found])
    assert abs(middle - 0.5) < 0.1


def test_cuts_at_every_so_many_tokens(corpus):
    found = cuts(corpus, positions="every", every=7)
    at_step = [place for place, starts, _ in found if any(one % 7 == 0 for one in starts)]
    assert set(at_step) == {7, 14, 21}
    assert len(at_step) > 100


def test_cuts_after_a_marker(corpus):
    after = [
        ids[place - 1] == corpus.marker
        for place, starts, ids in cuts(corpus, positions="after", marker=MARKER)
        if any(ids[one - 1] == corpus.marker for one in starts)
    ]
    assert all(after)
    assert len(after) > 50
    plain = [ids[place - 1] == corpus.marker for place, _, ids in cuts(corpus)]
    assert np.mean(plain) < 0.3


@pytest.mark.parametrize(("weights", "share"), [("", 0.2), ("start", 0.1), ("", 1.0)])
def test_cuts_where_the_next_token_is_uncertain(corpus, weights, share):
    """Among the places of a row with the highest entropies under the weights that are named, worked out by hand."""
    scorer = TableScorer()
    options = {"positions": "entropy", "top_share": share, "entropy_snapshot": weights}
    at_top = []
    for place, starts, ids in cuts(corpus, score=scorer, **options):
        salt = sum(weights.encode())
        entropy = {p: (2 * int(ids[p - 1]) + 5 * (p - 1 - first) + salt) % 13 for p, first in starts.items()}
        most = max(1, round(share * len(starts)))
        at_top.append(entropy[place] == max(entropy.values()))
        assert entropy[place] >= sorted(entropy.values())[-most]
    assert {asked for _, asked in scorer.asked} == {weights}
    assert max(len(batch.tokens) for batch, _ in scorer.asked) == 3, "microbatches"
    assert np.mean(at_top) < 1 if share == 1.0 else np.mean(at_top) > 0.3


def test_numbers_alone_decide(corpus):
    """Any split over ranks and calls draws the same; another seed does not."""
    options = {"positions": "entropy", "least_context": 4, "score": TableScorer()}
    wanted = corpus.passages(**options).draw(range(40))
    for size in (2, 4):
        parts = [corpus.passages(**options).draw(range(rank, 40, size)) for rank in range(size)]
        assert [problem for turn in zip(*parts) for problem in turn] == wanted
    again = corpus.passages(**options)
    assert again.draw([39, 3]) + again.draw([3]) == [wanted[39], wanted[3], wanted[3]]
    other = corpus.passages(**options, seed=6).draw(range(40))
    assert not {one.seed for one in other} & {one.seed for one in wanted}
    assert np.mean([one.meta == same.meta for one, same in zip(other, wanted)]) < 0.1
    assert again.draw([]) == []
    assert (again.state_dict(), again.metrics(), dict(again.tasks)) == ({}, {}, {})


def test_numbers_beyond_an_epoch_go_on(corpus):
    """The shard holds about 130 rows: further on they come again, cut elsewhere."""
    passages = corpus.passages(context=9, future=6)
    rows = passages.streams[0].rows_per_epoch
    first, second = passages.draw(range(rows)), passages.draw(range(rows, 2 * rows))
    assert len({(one.prompt, one.answer) for one in first + second}) > 1.7 * rows


def test_a_row_without_room_gives_way_to_another(corpus):
    """Most rows hold no document of 15 tokens and 3 more."""
    fits = [bool(open_places(ids, ordinals, 15, 3, corpus.tokenizer.eos_id)) for ids, ordinals in corpus.rows(40)]
    assert 0 < sum(fits) < 35
    for problem in corpus.passages(least_context=15, context=20, least_future=3).draw(range(40)):
        text = (*problem.meta["context"], *problem.meta["future"])
        assert len(text) >= 18
        assert any(is_within(text, document) for document in corpus.documents["text"])


def test_where_nothing_fits_is_an_error(corpus):
    with pytest.raises(DataError, match=r"play\.source\.passages: 64 rows .* 2 \+ 1 tokens; lower least_context"):
        corpus.passages(["short"], least_context=2).draw(range(4))
    with pytest.raises(DataError, match=r"batch\.sequence_length"):
        Passages(
            PassageOptions([BlendEntry(corpus.folder / "short")]),
            source_context(tokenizer=corpus.tokenizer, sequence_length=1000),
        )


def test_shards_come_by_their_weights(corpus):
    drawn = corpus.passages({"text": 3.0, "other": 1.0}).draw(range(400))
    others = {token for document in corpus.documents["other"] for token in document}
    share = np.mean([set(problem.meta["context"]) <= others for problem in drawn])
    assert abs(share - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 400)


def test_a_marker_is_one_token(corpus):
    with pytest.raises(ConfigError, match=r"play\.source\.passages\.marker: '77' is 2 tokens; give one character"):
        corpus.passages(positions="after", marker="77")


def test_a_future_holds_what_the_form_of_play_looks_at(corpus):
    with pytest.raises(ConfigError, match=r"play\.source\.passages\.future=6: .* looks at 7 tokens"):
        corpus.passages(future=6, least_future=7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"context": 0}, "context=0: must be at least 1"),
        ({"future": 0}, "future=0"),
        ({"least_context": 9, "context": 8}, "least_context=9: is above context=8"),
        ({"top_share": 0.0}, r"top_share=0\.0"),
        ({"positions": "after"}, "positions=after with marker=''"),
        ({"marker": "="}, "positions=random with marker='='"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        PassageOptions([BlendEntry("x")], **options)
