"""Evidence rows: what follows the thoughts of another objective's last episodes, and nothing else."""

import json
from collections import Counter

import pytest
from helpers.rollouts import assert_equal_batches, open_episodes, source_context, text_before
from helpers.shards import SENTENCES, write_shards, write_tokenizer

from rlpt import registry
from rlpt.errors import ConfigError

HORIZON = 3


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    tokenizer = write_tokenizer(folder / "tokenizer")
    write_shards(
        folder / "data", tokenizer, {"text": [[*tokenizer.encode(text), tokenizer.eos_id] for text in SENTENCES]}
    )
    return tokenizer, folder / "data" / "text"


def open_both(corpus, rank=0, size=1, gather=lambda value: [value], **changes):
    """Thoughts on passages, and the source of their evidence."""
    tokenizer, path = corpus
    context = source_context(tokenizer=tokenizer, data_rank=rank, data_size=size, gather=gather)
    options = {
        "groups": 4,
        "tasks": [],
        "passages": {"blend": [{"path": path}], "context": 6, "least_context": 2},
        "selfplay": {
            "name": "think",
            "group_size": 3,
            "horizon": HORIZON,
            "max_thought": 4,
            "characters": "0123",
            "temperature": 1.5,
        },
        "rubric": [{"name": "information_gain", "baseline": "policy"}],
    }
    episodes = open_episodes(context, **options | changes)
    return episodes, open_evidence(tokenizer, {"play": episodes})


def open_evidence(tokenizer, sources, of="play"):
    options = registry.create("source", {"name": "evidence", "of": of}, "objectives.read.source")
    return options.open(source_context(objective="read", tokenizer=tokenizer, sources=sources, algorithm=None))


def shown(batches):
    """How often each (all that stands before it, label) carries loss."""
    found = Counter()
    for batch in batches:
        for row, place in batch.loss_mask.nonzero().tolist():
            found[(*text_before(batch, row, place), int(batch.labels[row, place]))] += 1
    return found


def evidence_of(trajectories):
    return Counter(
        tuple(one.token_ids[: place + 1].tolist())
        for one in trajectories
        for place in range(len(one.token_ids))
        if one.evidence_mask[place]
    )


def test_the_text_after_the_thoughts_that_were_just_learned_from(corpus):
    episodes, evidence = open_both(corpus)
    for step in range(3):
        learned = episodes.take(2, step=step)
        batches = evidence.take(2, step=step)
        assert shown(batches) == evidence_of(episodes.last_trajectories)
        assert sum(shown(batches).values()) == 4 * 3 * HORIZON
        assert not shown(batches) & shown(learned), "thoughts are the other objective's"
        for problem in {id(e.problem): e.problem for e in episodes.last_episodes}.values():
            future = problem.meta["future"][:HORIZON]
            assert sum(key[-HORIZON:] == future for key in shown(batches)) >= 1
        for batch in batches:
            assert (batch.objective, batch.temperature, batch.legal_table, batch.head) == ("read", 1.0, None, "")
            assert batch.advantages is batch.behavior_logprobs is None
            assert batch.sequence_share[batch.loss_mask].tolist() == pytest.approx(
                [1 / HORIZON] * int(batch.loss_mask.sum())
            )
        assert {batch.temperature for batch in learned} == {1.5}
    assert (evidence.metrics(), episodes.metrics()["episodes"]) == ({}, 12)


def test_nothing_where_the_other_took_no_part(corpus):
    episodes, evidence = open_both(corpus)

    def is_empty(step):
        batches = evidence.take(3, step=step)
        assert len(batches) == 3
        assert all(batch.sequence_share is not None for batch in batches)
        return not shown(batches)

    assert is_empty(0), "nothing was played yet"
    episodes.take(1, step=0)
    assert not is_empty(0)
    assert is_empty(1)
    episodes.take(1, step=2)
    assert not is_empty(2)


def test_episodes_without_evidence_are_refused(corpus):
    tokenizer, _ = corpus
    episodes = open_episodes(source_context(tokenizer=tokenizer))
    evidence = open_evidence(tokenizer, {"play": episodes})
    episodes.take(1)
    with pytest.raises(ConfigError, match=r"objectives\.read\.source\.of: its episodes hold no evidence"):
        evidence.take(1)


def test_a_minibatch_shows_its_own_evidence(corpus):
    """With several steps a play, each shows what that step learns from; with episodes left out, theirs is too."""
    episodes, evidence = open_both(corpus, minibatches=3)
    total = Counter()
    for step in range(3):
        episodes.take(1, step=step)
        assert len(episodes.last_trajectories) == 4
        total += shown(evidence.take(1, step=step))
    assert total == evidence_of(one for e in episodes.last_episodes for one in e.trajectories)
    loud, evidence = open_both(corpus, skip_silent=True, rubric=[{"name": "format", "weight": 0.0}])
    loud.take(1)
    assert not shown(evidence.take(1))


def test_resumed_sources_go_on_exactly(corpus):
    through, resumed = open_both(corpus, staleness=1), open_both(corpus, staleness=1)
    for step in range(2):
        for source in through:
            source.take(2, step=step)
    for source, again in zip(through, resumed):
        again.load_state_dict(json.loads(json.dumps(source.state_dict())))
    assert not shown(resumed[1].take(2)), "the last take is over"
    for step in range(2, 5):
        for source, again in zip(through, resumed):
            assert_equal_batches(again.take(2, step=step), source.take(2, step=step))


def test_it_needs_an_objective_of_episodes_that_stands_before_it(corpus):
    episodes, evidence = open_both(corpus)
    tokenizer = corpus[0]
    with pytest.raises(ConfigError, match=r"read\.source\.of: 'think' is no objective of episodes .*; there are: play"):
        open_evidence(tokenizer, {"play": episodes}, "think")
    with pytest.raises(ConfigError, match=r"read\.source\.of: 'play' .*; there are: none"):
        open_evidence(tokenizer, {})
    with pytest.raises(ConfigError, match=r"read\.source\.of: 'other' is no objective of episodes"):
        open_evidence(tokenizer, {"other": evidence}, "other")
