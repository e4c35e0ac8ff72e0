"""The text format and its token ids."""

import pytest
from helpers.tokenizer import CharacterTokenizer

from rlpt.template import ANSWER, END, PROMPT, SPECIAL_TOKENS, THINK, encode_marked, parse_answer
from rlpt.template import prompt_text as prompt
from rlpt.template import solution_text as solution
from rlpt.types import Problem

PROBLEM = Problem("sort", 1, 2, "sort 312", "123")
TOKENIZER = CharacterTokenizer()


class WordTokenizer(CharacterTokenizer):
    """One token for all text between marks, unless it is encoded by character."""

    def encode(self, text):
        return [self.vocab_size]


def test_texts():
    assert prompt(PROBLEM) == "<|prompt|>sort 312<|answer|>"
    assert prompt(PROBLEM, think=True) == "<|prompt|>sort 312<|think|>"
    assert solution(PROBLEM) == "<|prompt|>sort 312<|answer|>123<|end|>"
    assert solution(PROBLEM, "1:1 2:1") == "<|prompt|>sort 312<|think|>1:1 2:1<|answer|>123<|end|>"
    assert solution(PROBLEM).startswith(prompt(PROBLEM))


def test_marks_are_single_ids_and_thought_and_answer_are_characters():
    ids = encode_marked(WordTokenizer(), solution(PROBLEM, "1:1"))
    mark = TOKENIZER.mark_id
    text = TOKENIZER.encode_characters
    assert ids == [mark(PROMPT), TOKENIZER.vocab_size, mark(THINK), *text("1:1"), mark(ANSWER), *text("123"), mark(END)]
    assert encode_marked(TOKENIZER, "") == []
    assert len(set(map(mark, SPECIAL_TOKENS))) == len(SPECIAL_TOKENS)


def test_marked_text_survives_the_tokenizer():
    text = solution(PROBLEM, "1:1 2:1")
    assert TOKENIZER.decode(encode_marked(TOKENIZER, text)) == text


def test_a_user_s_mark_stays_text():
    assert TOKENIZER.mark_id(END) not in TOKENIZER.encode("<|end|>")


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("123<|end|>", "123"),
        ("<|answer|>123<|end|>", "123"),
        ("1:1<|answer|>9<|answer|>123<|end|>", "123"),
        ("123<|end|>456<|end|>", "123"),
        ("123<|end|><|answer|>4<|end|>", "123"),
        ("<|end|>", ""),
        ("123", None),
        ("", None),
    ],
)
def test_parse_answer(completion, answer):
    assert parse_answer(completion) == answer
