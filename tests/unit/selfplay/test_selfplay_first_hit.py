"""When chance alone first solves a problem."""

import pytest
from helpers.tokenizer import CharacterTokenizer

import rlpt.tasks  # noqa: F401  (registers)
from rlpt.selfplay.converse import Converse
from rlpt.selfplay.first_hit import first_hit
from rlpt.selfplay.solve import Solve
from rlpt.tasks.base import create_task

TOKENIZER = CharacterTokenizer()


def test_alphabet_to_the_power_of_the_length():
    copy = create_task({"name": "copy", "symbols": 90, "lengths": [1, 2, 3]})
    fixed = Solve(end_mark=False)
    assert [first_hit(copy, level, fixed, TOKENIZER).episodes for level in range(3)] == pytest.approx(
        [90, 90**2, 90**3]
    )
    assert first_hit(copy, 2, Solve(), TOKENIZER).episodes == pytest.approx(91**4)
    unmasked = first_hit(copy, 2, Solve(legal_mask=False), TOKENIZER)
    assert unmasked.episodes == pytest.approx(TOKENIZER.vocab_size**4)


def test_where_several_answers_are_right_random_ones_are_tried_out():
    task = create_task({"name": "colouring"})
    hit = first_hit(task, 0, Solve(), TOKENIZER)
    problem = task.sample(1, 0)
    one_answer = 1 / Solve().chance(task, problem, TOKENIZER)
    assert 3 < hit.episodes < one_answer / 2, "of the six ways to colour two nodes any will do"


def test_an_environment_counts_all_turns_and_random_play():
    memory = create_task({"name": "memory"})
    hit = first_hit(memory, 0, Converse(), TOKENIZER)
    assert 3 < hit.episodes < 20, "guessing the answer at once is likelier than the oracle's way"
    deep = first_hit(memory, 5, Converse(legal_mask=False), TOKENIZER)
    assert deep.episodes == pytest.approx(float(TOKENIZER.vocab_size) ** 8)


def test_the_line_for_a_person():
    task = create_task({"name": "reverse"})
    hit = first_hit(task, 3, Solve(), TOKENIZER)
    assert hit.describe(1000) == "reverse level 3: chance alone solves one in 5.9e+04 episodes; this run plays 1,000"
    assert hit.describe(1000, 100).endswith("episodes (590 s); this run plays 1,000 at 100 a second")
