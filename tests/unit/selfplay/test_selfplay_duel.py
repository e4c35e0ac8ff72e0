"""Duels: who sits where, what a seat's trajectory holds, and that outcomes add up."""

from collections import Counter

import numpy as np
import pytest
from helpers.players import RandomGenerator, ScriptedGenerator
from helpers.tokenizer import CharacterTokenizer

from rlpt.errors import ConfigError
from rlpt.rewards.base import Rubric
from rlpt.search.options import TreeSearch
from rlpt.selfplay.base import Actor
from rlpt.selfplay.duel import Duel, seat_role
from rlpt.selfplay.league import League, Opponents
from rlpt.tasks.base import create_task, train_seed
from rlpt.tasks.games.tic_tac_toe import TicTacToe

TOKENIZER = CharacterTokenizer()
GAME = TicTacToe()
TASKS = {"tic_tac_toe": GAME, "nim": create_task({"name": "nim"})}


def play(form, count=6, game="tic_tac_toe", generator=None, level=1, first=0, **actor):
    problems = [form.problem(TASKS[game], train_seed(1, index), level) for index in range(first, first + count)]
    keys = [train_seed(2, index) for index in range(first, first + count)]
    player = Actor(generator or RandomGenerator(), TOKENIZER, **actor)
    return form.play(problems, TASKS, player, keys=keys, policy_step=4)


def turns_of(trajectory):
    """(text read, text written) of each window."""
    found = []
    for start, stop in trajectory.windows:
        ids, mask = trajectory.token_ids[start:stop], trajectory.action_mask[start:stop]
        assert mask.any()
        cut = int(np.argmax(ids == TOKENIZER.mark_id("<|answer|>"))) + 1
        assert not mask[:cut].any()
        found.append((TOKENIZER.decode(ids[:cut].tolist()), TOKENIZER.decode(ids[cut:].tolist())))
    return found


def test_self_play_gives_a_trajectory_a_seat():
    for episode in play(Duel(group_size=3)):
        assert [one.role for one in episode.trajectories] == ["seat0", "seat1"]
        assert sum(episode.outcome.values()) == 1  # a zero-sum game
        assert not episode.is_measured
        assert episode.note is None
        moves, state = episode.text.split(" | ")[0].split(), GAME.opening(0, 1)
        for ply, move in enumerate(moves):
            if len(GAME.legal_moves(state)) > 1:  # the last free cell is no choice
                read, written = turns_of(episode.trajectories[ply % 2])[ply // 2]
                assert read == f"<|prompt|>{GAME.prompt(state)}<|answer|>"
                assert written == move
            state = GAME.apply(state, move)
        returns = GAME.returns(state)
        assert [2 * episode.outcome[seat_role(seat)] - 1 for seat in range(2)] == list(returns)


def test_with_a_transcript_a_seat_reads_its_earlier_turns():
    """One text a seat, without windows: positions and moves in turn, of which only moves with a choice are learned."""
    for episode in play(Duel(group_size=2, transcript=True)):
        moves, state = episode.text.split(" | ")[0].split(), GAME.opening(0, 1)
        texts = ["", ""]
        for ply, move in enumerate(moves):
            if len(GAME.legal_moves(state)) > 1:
                texts[ply % 2] += f"<|prompt|>{GAME.prompt(state)}<|answer|>{move}"
            state = GAME.apply(state, move)
        for seat, trajectory in enumerate(episode.trajectories):
            assert trajectory.windows is None
            assert TOKENIZER.decode(trajectory.token_ids.tolist()) == texts[seat]
            learned = trajectory.token_ids[trajectory.action_mask].tolist()
            assert TOKENIZER.decode(learned) == "".join(moves[seat::2])[: len(learned)]
            assert len(learned) == sum(ids is not None for ids in trajectory.kept_ids)


def test_a_transcript_is_not_searched():
    with pytest.raises(ConfigError, match="transcript: a search reads positions alone"):
        Duel(transcript=True, search=TreeSearch())


def test_log_probs_are_those_of_the_legal_moves():
    for episode in play(Duel(group_size=2)):
        for trajectory in episode.trajectories:
            for at in np.flatnonzero(trajectory.action_mask):
                assert trajectory.logprobs[at] == pytest.approx(-np.log(len(trajectory.kept_ids[at])))


def test_games_of_one_problem_and_seat_are_peers():
    peers = Counter((one.peers, one.role) for episode in play(Duel(group_size=4)) for one in episode.trajectories)
    assert len(peers) == 12
    assert set(peers.values()) == {4}
    assert len({peer for peer, _ in peers}) == 12


def test_against_others_the_seats_are_balanced_and_only_the_policy_learns():
    form = Duel(group_size=4, opponents=Opponents(self=0.0, bots=1.0, bot=({"name": "solver"},)))
    seats = Counter()
    for episode in play(form, 20):
        assert len(episode.trajectories) == 1
        assert episode.is_measured
        (role,) = episode.outcome
        assert episode.note == ["bot:0", episode.outcome[role]]
        assert episode.outcome[role] <= 0.5, "a perfect player does not lose"
        seats[role] += 1
    assert seats == {"seat0": 40, "seat1": 40}


def test_past_selves_play_with_their_own_weights():
    """The past self takes the first free cell, and the policy the last."""

    def taking(which):
        def script(prompt, row):
            return sorted(set(prompt.split(": ")[1]) & set("123456789"))[which]

        return ScriptedGenerator(TOKENIZER, script)

    form = Duel(group_size=2, opponents=Opponents(self=0.0, past=1.0))
    generator = taking(-1)
    for episode in play(form, 3, generator=generator, past={"past@7": taking(0), "reference": taking(-1)}):
        assert episode.note[0] == "past@7"
        (trajectory,) = episode.trajectories
        mine = int(trajectory.role[-1])
        moves = episode.text.split(" | ")[0].split()
        assert moves[mine] == "9"
        assert moves[1 - mine] == "1"
    alone = play(form, 3, generator=generator)  # while there is none
    assert all(episode.note is None for episode in alone)


def test_what_is_no_move_loses_and_the_outcome_stays_zero_sum():
    form = Duel(group_size=1, legal="characters")
    generator = ScriptedGenerator(TOKENIZER, lambda prompt, row: "5<|end|>")
    (episode,) = play(form, 1, generator=generator)
    assert episode.text == "5 ? | 1 -1"
    assert episode.outcome == {"seat0": 1.0, "seat1": 0.0}
    assert [one.well_formed for one in episode.trajectories] == [1.0, 0.0]
    rubric = Rubric.from_config([{"name": "game_return"}, {"name": "format", "weight": 0.5}])
    rubric.score([episode])
    assert [one.rewards["game_return"] for one in episode.trajectories] == [1.0, -1.0]
    assert [one.reward for one in episode.trajectories] == [1.5, -1.0]
    unended = ScriptedGenerator(TOKENIZER, lambda prompt, row: "555")
    (episode,) = play(form, 1, generator=unended)
    assert episode.text == "? | -1 1"
    assert list(episode.outcome) == ["seat0"], "the other seat never moved"


def test_a_token_outside_the_legal_set_is_no_move():
    """As weights that are not finite draw it: the run says so by itself, and the game goes to the other seat."""
    generator = ScriptedGenerator(TOKENIZER, lambda prompt, row: "x")
    (episode,) = play(Duel(group_size=1), 1, generator=generator)
    assert episode.text == "? | -1 1"


def test_a_game_that_is_too_long_is_drawn_and_marked():
    for episode in play(Duel(group_size=1, max_moves=3), 3):
        assert set(episode.outcome.values()) == {0.5}
        assert all(one.truncated for one in episode.trajectories)
        assert len(episode.text.split(" | ")[0].split()) == 3


@pytest.mark.parametrize("game", ["tic_tac_toe", "nim"])
def test_games_together_are_as_one_by_one(game):
    """Ragged lengths and all: the same moves and log-probs by the same keys."""
    form = Duel(group_size=2, opponents=Opponents(self=1.0, bots=1.0))
    together = play(form, 8, game, level=2)
    lengths = {len(episode.text.split()) for episode in together}
    assert len(lengths) > 1
    alone = [episode for index in range(8) for episode in play(form, 1, game, first=index, level=2)]
    for ours, one in zip(together, alone, strict=True):
        assert ours.text == one.text
        for a, b in zip(ours.trajectories, one.trajectories, strict=True):
            assert a.token_ids.tolist() == b.token_ids.tolist()
            assert a.logprobs.tolist() == b.logprobs.tolist()


def test_nim_moves_of_two_tokens_are_written_token_by_token():
    for episode in play(Duel(group_size=1), 4, "nim", level=6):  # takes up to 15: `1` begins `12`
        assert sum(episode.outcome.values()) == 1
        for trajectory in episode.trajectories:
            for _, written in turns_of(trajectory):
                assert written.endswith("<|end|>") or len(written) == 2


def test_positions_can_be_where_games_start():
    form = Duel(start="position")
    problem = form.problem(GAME, train_seed(1, 1), 5)
    assert problem.meta["moves"]
    assert len(Duel().problem(GAME, train_seed(1, 1), 5).meta["moves"]) == 0


def test_the_league_is_its_memory():
    assert isinstance(Duel().memory(), League)


def test_bots_are_named_before_anything_is_played():
    with pytest.raises(ConfigError, match=r"opponents\.bot\.0\.name: unknown opponent 'randm'; did you mean 'random'"):
        Duel(opponents=Opponents(bots=1.0, bot=({"name": "randm"},)))
