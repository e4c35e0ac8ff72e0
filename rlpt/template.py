"""The one text format: marks around prompt, thought and answer, and how marked text becomes token ids.

    <|prompt|>sort 31425<|answer|>12345<|end|>
    <|prompt|>7+8+9<|think|>7+8=15 15+9=24<|answer|>24<|end|>

    <|prompt|>mastermind<|result|>abc 2<|turn|>ab<|end|><|result|>10<|turn|>ba<|end|>

A thought, an answer, a turn and what an environment shows are encoded one token a character, so that a legal-token mask
over a small alphabet is exact; everything else is encoded by the tokenizer as it likes.
"""

from __future__ import annotations

import re

from rlpt.types import Problem, Tokenizer

PROMPT, THINK, ANSWER, END = "<|prompt|>", "<|think|>", "<|answer|>", "<|end|>"
TOOL, RESULT, TURN = "<|tool|>", "<|result|>", "<|turn|>"
SPECIAL_TOKENS = (PROMPT, THINK, ANSWER, END, TOOL, RESULT, TURN)
CHARACTERWISE = frozenset({THINK, ANSWER, RESULT, TURN})
_MARKS = re.compile("(" + "|".join(re.escape(mark) for mark in SPECIAL_TOKENS) + ")")


def prompt_text(problem: Problem, think: bool = False) -> str:
    """The marked text that a policy continues: it ends where the thought or the answer begins."""
    return f"{PROMPT}{problem.prompt}{THINK if think else ANSWER}"


def solution_text(problem: Problem, trace: str = "") -> str:
    """The whole marked document: prompt, worked trace (left out when empty) and the answer."""
    thought = f"{THINK}{trace}" if trace else ""
    return f"{PROMPT}{problem.prompt}{thought}{ANSWER}{problem.answer}{END}"


def split_marked(text: str) -> list[str]:
    """Texts, some empty, at even places and the marks between them at odd ones."""
    return _MARKS.split(text)


def encode_marked(tokenizer: Tokenizer, text: str) -> list[int]:
    """Token ids of trusted marked text (ours, never a user's): marks become their own ids."""
    ids: list[int] = []
    mode = ""
    for piece in split_marked(text):
        if piece in SPECIAL_TOKENS:
            ids.append(tokenizer.mark_id(piece))
            mode = piece
        elif piece:
            ids.extend(tokenizer.encode_characters(piece) if mode in CHARACTERWISE else tokenizer.encode(piece))
    return ids


def parse_answer(completion: str) -> str | None:
    """The answer in a decoded completion: the text after the last answer mark (or from the start, where the
    prompt already ended with it) up to the end mark. None when the end mark is missing."""
    body, end, _ = completion.partition(END)
    if not end:
        return None
    return body.rpartition(ANSWER)[2]
