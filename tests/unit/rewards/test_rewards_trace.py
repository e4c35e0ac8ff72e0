"""Where thoughts and answers stand in the tokens."""

import numpy as np
import pytest
from helpers.episodes import TOKENIZER, answering, thinking, trajectory_of

from rlpt.rewards.trace import spell, steps, turns


def text(trajectory, positions):
    return None if positions is None else TOKENIZER.decode(trajectory.token_ids[positions].tolist())


def parts(trajectory, which="last"):
    found = turns(trajectory, TOKENIZER, which)
    return [(text(trajectory, turn.thought), text(trajectory, turn.answer), turn.is_closed) for turn in found]


@pytest.mark.parametrize(
    ("written", "last", "first"),
    [
        ("1 2<|answer|>21<|end|>", ("1 2", "21", True), ("1 2", "21", True)),
        ("1<|answer|>3<|answer|>21<|end|>", ("13", "21", True), ("1", "3", True)),
        ("<|answer|>21<|end|>", ("", "21", True), ("", "21", True)),
        ("1 2<|answer|>2", ("1 2", "2", False), ("1 2", "2", False)),
        ("1 2<|answer|>", ("1 2", "", False), ("1 2", "", False)),
        ("1 2<|end|>", ("1 2", None, False), ("1 2", None, False)),
        ("1 2", ("1 2", None, False), ("1 2", None, False)),
    ],
)
def test_a_completion_is_divided_at_an_answer_mark(written, last, first):
    (trajectory,) = thinking(written).trajectories
    assert parts(trajectory) == [last]
    assert parts(trajectory, "first") == [first]


def test_what_follows_a_given_answer_mark_is_no_thought():
    assert parts(answering("21<|end|>").trajectories[0]) == [("", "21", True)]
    revised = answering("3<|answer|>21<|end|>").trajectories[0]
    assert parts(revised) == [("3", "21", True)]
    assert parts(revised, "first") == [("", "3", True)]


def test_every_run_of_actions_is_a_turn():
    talk = trajectory_of("<|prompt|>x<|turn|>", "ab<|end|>", "<|result|>1<|turn|>", "c<|end|>")
    assert parts(talk) == [("", "ab", True), ("", "c", True)]
    thoughtful = trajectory_of("<|prompt|>x<|think|>", "p<|answer|>ab<|end|>", "<|result|>1<|think|>", "q<|answer|>c")
    assert parts(thoughtful) == [("p", "ab", True), ("q", "c", False)]
    assert parts(trajectory_of("<|prompt|>x<|answer|>", "")) == []


def test_given_text_after_the_thought_belongs_to_nothing():
    assert parts(trajectory_of("ab<|think|>", "p<|answer|>", evidence="cd")) == [("p", "", False)]


def test_characters_know_the_token_that_completed_them():
    ids = np.array(TOKENIZER.encode_characters("aé b"))  # é: two tokens
    assert spell(TOKENIZER, ids)[0] == "aé b"
    assert spell(TOKENIZER, ids)[1].tolist() == [0, 2, 3, 4]
    assert spell(TOKENIZER, ids[:2])[0] == "a\ufffd"
    assert spell(TOKENIZER, ids[:2])[1].tolist() == [0, 1]
    assert spell(TOKENIZER, ids[:0])[0] == ""
    assert spell(TOKENIZER, ids[:0])[1].tolist() == []


def test_steps_end_where_their_last_token_stands():
    (trajectory,) = thinking("  é2 3  45<|answer|>1<|end|>").trajectories
    start = int(np.flatnonzero(trajectory.action_mask)[0])
    thought = turns(trajectory, TOKENIZER)[0].thought
    trace, ends = steps(TOKENIZER, trajectory.token_ids, thought)
    assert trace == "  é2 3  45"
    assert (ends - start).tolist() == [4, 6, 10]
    assert steps(TOKENIZER, trajectory.token_ids, thought[:0])[1].tolist() == []
