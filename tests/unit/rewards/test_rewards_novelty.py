"""The share of a thought that nobody wrote lately."""

import pytest
from helpers.episodes import TOKENIZER, answering, thinking, values

from rlpt.errors import ConfigError
from rlpt.registry import create
from rlpt.rewards.base import RewardContext
from rlpt.rewards.novelty import Novelty


def thoughts(*texts, peers=1):
    return [thinking(text + "<|answer|>21<|end|>", peers=peers) for text in texts]


def of(*episodes, recent=(), ngram=2):
    return values(Novelty(ngram=ngram), episodes, RewardContext(recent=recent, tokenizer=TOKENIZER))


def test_what_a_peer_wrote_is_not_new():
    assert of(*thoughts("abcd", "abxy", "q")) == [2 / 3, 2 / 3, 0]  # ab | bc cd; ab | bx xy; nothing of two characters
    assert of(*thoughts("abcd", "abcd")) == [0, 0]
    assert of(*thoughts("abcd")) == [1]


def test_who_is_no_peer_does_not_matter():
    mine, other = thoughts("abcd"), thoughts("abcd", peers=2)
    assert of(*mine, *other) == [1, 1]


def test_what_was_written_lately_is_not_new():
    recent = ["<|think|>xbc<|answer|>cd<|end|>", "<|think|>zz<|answer|>"]
    assert of(*thoughts("abcd"), recent=recent) == [1 / 3]
    assert of(*thoughts("abcd"), recent=["ab<|answer|>cd"]) == [1 / 3], "no n-gram stands across a mark"
    assert of(*thoughts("answer"), recent=recent) == [1], "marks are no text"


def test_repetition_is_counted_once():
    assert of(*thoughts("ababababa")) == [2 / 8]


def test_answers_and_prompts_are_no_thoughts():
    assert of(answering("abcd<|end|>")) == [0]
    assert of(*thoughts("abcd")) == of(thinking("abcd<|answer|>abcdwxyz<|end|>"))


def test_the_order_of_episodes_does_not_matter():
    episodes = thoughts("abcd", "abxy", "yxab")
    assert of(*episodes[::-1]) == of(*episodes)[::-1]


def test_recent_texts_are_asked_for():
    assert create("reward", {"name": "novelty"}).uses_recent
    with pytest.raises(ConfigError, match="ngram=0: must be at least 1"):
        create("reward", {"name": "novelty", "ngram": 0})
