"""Moves as tokens."""

import pytest
from helpers.tokenizer import CharacterTokenizer

from rlpt.tasks.games.moves import legal_tokens, move_tokens, position_ids
from rlpt.tasks.games.nim import Nim
from rlpt.tasks.games.tic_tac_toe import TicTacToe

TOKENIZER = CharacterTokenizer()


def ids(text):
    return tuple(TOKENIZER.encode_characters(text))


def test_moves_of_one_token_need_no_end_mark():
    tokens = move_tokens(("5", "1", "9"), TOKENIZER)
    assert tokens.ids == (ids("5"), ids("1"), ids("9"))
    assert tokens.following(()) == (*ids("1"), *ids("5"), *ids("9"))
    assert tokens.following(ids("5")) == ()
    assert tokens.move(ids("9")) == "9"
    assert tokens.move(ids("2")) is None


def test_where_a_move_begins_another_an_end_mark_closes_each():
    tokens, end = move_tokens(("1", "12", "21"), TOKENIZER), TOKENIZER.mark_id("<|end|>")
    assert tokens.following(()) == (*ids("1"), *ids("2"))
    assert tokens.following(ids("1")) == tuple(sorted((end, *ids("2"))))
    assert tokens.following(ids("12")) == (end,)
    assert tokens.move((*ids("1"), end)) == "1"
    assert tokens.indices(ids("1")) == [0, 1]


@pytest.mark.parametrize(("game", "level"), [(Nim(), 6), (TicTacToe(), 1)])
def test_every_legal_move_is_a_path_and_no_other(game, level):
    state = game.opening(3, level)
    tokens, paths = legal_tokens(game, state, TOKENIZER), []

    def walk(prefix):
        following = tokens.following(prefix)
        if not following:
            paths.append(tokens.move(prefix))
        for token in following:
            walk((*prefix, token))

    walk(())
    assert sorted(paths) == sorted(game.legal_moves(state))


def test_a_position_reads_like_a_problem():
    game = TicTacToe()
    text = TOKENIZER.decode(position_ids(game, game.opening(1, 0), TOKENIZER))
    assert text == "<|prompt|>tic_tac_toe x: 123/456/789<|answer|>"
