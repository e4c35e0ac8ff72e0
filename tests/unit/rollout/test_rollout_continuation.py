"""Calls that go on from the texts of the call before: the same draws, from less work. With the tiny model."""

import numpy as np
import pytest
import torch
from helpers.players import RandomGenerator
from helpers.tiny_model import VOCABULARY, lone_policy
from helpers.tokenizer import CharacterTokenizer

import rlpt.tasks  # noqa: F401  (registers)
from rlpt.models.decode import DecodeState
from rlpt.rollout.generator import PolicyGenerator
from rlpt.selfplay.base import Actor, session
from rlpt.selfplay.converse import Converse
from rlpt.selfplay.duel import Duel
from rlpt.tasks.base import create_task, train_seed
from rlpt.template import SPECIAL_TOKENS
from rlpt.types import SamplingParams, SessionGenerator

STOPS = tuple(range(60, 66))  # about one token in 15: rows of a call end at different places


@pytest.fixture(scope="module")
def policy():
    with lone_policy() as policy:
        yield policy


@pytest.fixture
def ran(monkeypatch):
    """Columns of each forward: what there was to do."""
    widths, read, step = [], DecodeState.read, DecodeState.step

    def counted_block(self, tokens, start, fresh):
        widths.append(tuple(tokens.shape))
        return read(self, tokens, start, fresh)

    def counted_step(self, tokens, lengths, longest):
        widths.append((len(tokens), 1))
        return step(self, tokens, lengths, longest)

    monkeypatch.setattr(DecodeState, "read", counted_block)
    monkeypatch.setattr(DecodeState, "step", counted_step)
    return widths


def conversation(generator, *, rows=8, turns=4, sliding=0, seed=0, temperature=1.0):
    """(tokens, log-probs) of every turn of ragged conversations; some end early, and each turn is answered by up to 5
    tokens. With `sliding`, a prompt is the last so many tokens only."""
    rng, found = np.random.default_rng(seed), []
    texts = [rng.integers(1, VOCABULARY, rng.integers(1, 9)).tolist() for _ in range(rows)]
    texts[1] = list(texts[0])  # two samples of one prompt
    live = list(range(rows))
    for turn in range(turns):
        params = [SamplingParams(int(rng.integers(1, 12)), temperature, stop=STOPS, seed=7) for _ in live]
        prompts = [texts[row][-sliding:] if sliding else list(texts[row]) for row in live]
        for row, completion in zip(live, generator(prompts, params, [100 * row + turn for row in live]), strict=True):
            found.append((completion.token_ids.tolist(), completion.logprobs))
            texts[row] += [*completion.token_ids.tolist(), *rng.integers(1, VOCABULARY, rng.integers(0, 6)).tolist()]
        live = [row for row in live if rng.random() < 0.8]
    return found


def assert_same(ours, theirs):
    assert [tokens for tokens, _ in ours] == [tokens for tokens, _ in theirs]
    assert max(np.abs(a - b).max() for (_, a), (_, b) in zip(ours, theirs)) < 1e-5


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("seed", range(2))
def test_a_session_draws_what_the_generator_draws(policy, ran, seed, temperature):
    generator = PolicyGenerator(policy)
    plain = conversation(generator, seed=seed, temperature=temperature)
    prefilled = [columns for _, columns in ran if columns > 1]
    ran.clear()
    with generator.session() as continued:
        ours = conversation(continued, seed=seed, temperature=temperature)
    assert_same(ours, plain)
    blocks = [columns for _, columns in ran if columns > 1]
    assert max(blocks[1:]) <= 6, "what was shown, and the last token drawn"
    assert max(prefilled) > 20
    lengths = {len(tokens) for tokens, _ in ours}
    assert len(lengths) > 5, "finished rows were dropped at several places"


def test_nothing_is_forgotten_at_the_first_token(policy):
    """The same conversations but for their first token have other log-probs to the end: the cache tells."""
    generator = PolicyGenerator(policy)
    texts = [[5, 6, 7], [8, 9, 10, 11]]
    ends = []
    for first in (5, 20):
        with generator.session() as continued:
            said = [[first, *text[1:]] for text in texts]
            for turn in range(4):
                found = continued(said, [SamplingParams(3, 0.0, legal_ids=(1, 2, 3))] * 2, [1, 2])
                said = [[*text, 30 + turn, 40 + turn] for text in said]
            ends.append(np.stack([one.logprobs for one in found]))
    assert np.abs(ends[0] - ends[1]).min(1).max() > 1e-4


@pytest.mark.parametrize("max_rows", [3, 12])
def test_prompts_that_slide_or_are_too_many_begin_anew(policy, ran, max_rows):
    generator = PolicyGenerator(policy, max_rows)
    for sliding in (0, 10):
        plain = conversation(generator, sliding=sliding, seed=9)
        ran.clear()
        with generator.session() as continued:
            assert_same(conversation(continued, sliding=sliding, seed=9), plain)
        if sliding:
            assert max(columns for _, columns in ran) == sliding


def test_a_new_prompt_beside_old_ones_and_rows_in_another_order(policy):
    generator = PolicyGenerator(policy)
    params = SamplingParams(4, seed=3)
    first = [[5, 6, 7], [8, 9], [10, 11, 12, 13, 14]]
    with generator.session() as continued:
        drawn = [one.token_ids.tolist() for one in continued(first, [params] * 3, [1, 2, 3])]
        texts = [[*first[2], *drawn[2], 50, 51], [60] * 9, [*first[0], *drawn[0]], [*first[0], 70], [8, 9], [8]]
        keys = [11, 12, 13, 14, 15, 16]
        ours = continued(texts, [params] * 6, keys)
    wanted = generator(texts, [params] * 6, keys)
    assert [one.token_ids.tolist() for one in ours] == [one.token_ids.tolist() for one in wanted]
    assert max(np.abs(a.logprobs - b.logprobs).max() for a, b in zip(ours, wanted)) < 1e-5


def test_weights_that_change_between_sessions_are_the_ones_that_draw(policy):
    generator = PolicyGenerator(policy)
    before = conversation(generator)
    with generator.session() as continued:
        conversation(continued)
    parameter = policy.gpt.decoder.layers[0].self_attention.linear_proj.weight
    with torch.no_grad():
        parameter.mul_(3)
    try:
        after = conversation(generator)
        with generator.session() as continued:
            assert_same(conversation(continued), after)
        assert [tokens for tokens, _ in before] != [tokens for tokens, _ in after]
    finally:
        with torch.no_grad():
            parameter.div_(3)


class Plain:
    """A generator without sessions."""

    def __init__(self, generator):
        self.generator = generator

    def __call__(self, prompts, params, keys):
        return self.generator(prompts, params, keys)


@pytest.mark.parametrize("window", [0, 24])
def test_converse_plays_the_same_with_and_without(policy, ran, window):
    tokenizer = SmallTokenizer()
    task = create_task({"name": "memory"})
    problems = [task.sample(train_seed(1, index), 5) for index in range(6)]
    work, played = [], []
    for generator in (PolicyGenerator(policy), Plain(PolicyGenerator(policy))):
        ran.clear()
        form = Converse(group_size=3, window=window)
        actor = Actor(generator, tokenizer)
        played.append(form.play(problems, {"memory": task}, actor, keys=range(len(problems)), policy_step=0))
        work.append(sum(rows * columns for rows, columns in ran))
    assert [one.text for one in played[0]] == [one.text for one in played[1]]
    for ours, theirs in zip(*played, strict=True):
        (one,), (other,) = ours.trajectories, theirs.trajectories
        assert np.abs(one.logprobs - other.logprobs).max() < 1e-5
    assert window or work[0] < 0.6 * work[1]


@pytest.mark.parametrize("legal", ["moves", "characters"])
def test_seats_of_a_duel_go_on_from_their_earlier_turns(policy, ran, legal):
    """The same games with a session a seat and with every turn read anew; and each game as it is alone."""
    tokenizer, nim = SmallTokenizer(), create_task({"name": "nim"})
    form = Duel(group_size=3, transcript=True, legal=legal)
    problems = [form.problem(nim, train_seed(1, index), 2) for index in range(6)]
    keys, work, played = range(len(problems)), [], []
    for generator in (PolicyGenerator(policy), Plain(PolicyGenerator(policy))):
        ran.clear()
        played.append(form.play(problems, {"nim": nim}, Actor(generator, tokenizer), keys=keys, policy_step=0))
        work.append(sum(rows * columns for rows, columns in ran))
    actor = Actor(PolicyGenerator(policy), tokenizer)
    alone = [form.play([one], {"nim": nim}, actor, keys=[key], policy_step=0) for one, key in zip(problems, keys)]
    played.append([episode for episodes in alone for episode in episodes])
    assert len({len(one.text.split()) for one in played[0]}) > (legal == "moves")  # games of several lengths
    for others in played[1:]:
        assert [one.text for one in played[0]] == [one.text for one in others]
        for ours, theirs in zip(played[0], others, strict=True):
            for one, other in zip(ours.trajectories, theirs.trajectories, strict=True):
                assert np.abs(one.logprobs - other.logprobs).max() < 1e-5
    assert legal == "characters" or work[0] < 0.7 * work[1]


class SmallTokenizer(CharacterTokenizer):
    """What the environment `memory`, its player and `nim` write, within the tiny model's vocabulary."""

    vocab_size = VOCABULARY
    characters = "abcdefghijklmnopqrstuvwxyz0123456789?+- "

    def encode_characters(self, text):
        return [self.first_byte + self.characters.index(character) for character in text]

    def decode(self, ids):
        marks = ["", "", *SPECIAL_TOKENS]
        return "".join(marks[i] if i < self.first_byte else self.characters[i - self.first_byte] for i in ids)


def test_only_generators_that_can_keep_texts_are_asked_to(policy):
    assert isinstance(PolicyGenerator(policy), SessionGenerator)
    player = RandomGenerator()
    with session(player) as same:
        assert same is player
