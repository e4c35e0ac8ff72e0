"""The memory environment: banks, tools, retrievers, credit."""

import sys

import pytest

import rlpt.tasks  # noqa: F401  (registers)
from rlpt.errors import ConfigError
from rlpt.tasks.base import create_task, train_seed
from rlpt.tasks.environments.memory import NOTHING, NUM_ENTITIES, NUM_RELATIONS, WRITTEN, entities_of, facts_of
from rlpt.tasks.environments.retrieval import create_retriever
from rlpt.types import Problem

LEVEL = 6
FACTS = facts_of(0, LEVEL)


def asked(entity, relations, level=LEVEL):
    meta = {"entity": entity, "relations": relations, "bank": [0, level]}
    return Problem("memory", 0, level, f"memory {entity}{relations}", "", meta)


def walk(start, relations, facts=FACTS):
    entity = start
    for relation in relations:
        entity = facts[entity + relation]
    return entity


def after(task, problem, turns):
    observation = task.begin(problem)
    for text in turns:
        observation = task.act(observation, text)
    return observation


def test_a_bank_holds_every_pair_and_another_bank_shares_no_fact():
    for level in range(10):
        bank, other = facts_of(0, level), facts_of(3, level)
        assert len(bank) == NUM_ENTITIES[level] * NUM_RELATIONS[level]
        assert set(bank.values()) <= set(entities_of(level))
        assert not set(bank.items()) & set(other.items()), "every fact is swapped"
        assert set(bank) == set(other)
    assert len({tuple(facts_of(bank, 5).items()) for bank in range(5)}) == 5
    assert len(set(facts_of(0, 5).values())) > 20, "values are spread"


def test_reading_a_chain_step_by_step():
    task, problem = create_task({"name": "memory"}), asked("c", "042")
    first = task.begin(problem)
    assert first.text == "c042"
    one, two = walk("c", "0"), walk("c", "04")
    seen = after(task, problem, ["c0"])
    assert (seen.text, seen.done, seen.score) == (f"c0{one}", False, pytest.approx(0.7 / 3))
    seen = after(task, problem, ["c0", f"{one}4"])
    assert (seen.text, seen.score) == (f"{one}4{two}", pytest.approx(1.4 / 3))
    final = walk("c", "042")
    assert after(task, problem, ["c0", f"{one}4", f"{two}2", final]).score == 1
    assert after(task, problem, [final]).score == 1, "who knows it need not read"
    wrong = next(letter for letter in entities_of(LEVEL) if letter != final)
    given_up = after(task, problem, ["c0", wrong])
    assert (given_up.done, given_up.score) == (True, pytest.approx(0.7 / 3)), "credit for what was read"


def test_reading_out_of_order_or_twice_earns_nothing_more():
    task, problem = create_task({"name": "memory"}), asked("c", "042")
    one = walk("c", "0")
    assert after(task, problem, [f"{one}4"]).score == (0 if one != "c" else pytest.approx(0.7 / 3))
    assert after(task, problem, ["c0", "c0", "c0"]).score == pytest.approx(0.7 / 3)
    assert after(task, problem, ["00"]).text == NOTHING
    assert after(task, problem, ["ab"]).text == NOTHING


def test_what_is_written_can_be_read_and_hides_the_bank():
    task, problem = create_task({"name": "memory"}), asked("c", "042")
    assert after(task, problem, ["c0z"]).text == WRITTEN
    assert after(task, problem, ["c0z", "c0"]).text == "c0z"
    assert after(task, problem, ["xyz", "xy"]).text == "xyz", "keys of one's own"
    assert after(task, problem, ["xyz", "xyw", "xy"]).text == "xyw", "the newest counts"
    lie = next(letter for letter in entities_of(LEVEL) if letter != walk("c", "0"))
    assert after(task, problem, [f"c0{lie}", "c0"]).score == 0, "a note is not a fact of the chain"
    assert task.begin(problem).state.notes == (), "nothing is kept between episodes"


def test_turns_run_out():
    task, problem = create_task({"name": "memory"}), asked("c", "042")
    assert task.max_turns(LEVEL) == 7
    seen = after(task, problem, ["c0"] * 7)
    assert (seen.done, seen.turns_left) == (True, 0)
    strict = create_task({"name": "memory", "spare_turns": 0})
    assert strict.verify(strict.sample(1, LEVEL), strict.sample(1, LEVEL).answer) == 1
    assert after(strict, problem, ["c0"] * 4).done
    with pytest.raises(ConfigError, match="spare_turns=-1"):
        create_task({"name": "memory", "spare_turns": -1})


def test_without_tools_the_bank_is_text_and_one_turn_answers():
    task = create_task({"name": "memory", "tools": False})
    problem = task.sample(train_seed(1, 2), 5)
    first = task.begin(problem)
    facts = first.text.split(" ")
    assert facts[:-1] == [key + value for key, value in facts_of(0, 5).items()]
    assert facts[-1] == problem.meta["entity"] + problem.meta["relations"]
    assert (first.turns_left, first.limit) == (1, 1)
    assert problem.answer == walk(problem.meta["entity"], problem.meta["relations"], facts_of(0, 5))
    assert task.verify(problem, problem.answer) == 1
    assert task.act(first, "a3").done


def test_a_swapped_bank_asks_the_same_and_answers_otherwise():
    task, swapped = create_task({"name": "memory"}), create_task({"name": "memory", "bank": 1})
    pairs = [(task.sample(train_seed(1, i), 5), swapped.sample(train_seed(1, i), 5)) for i in range(30)]
    assert all(a.prompt == b.prompt for a, b in pairs)
    assert all(a.answer.split()[1] != b.answer.split()[1] for a, b in pairs), "the first look-up already differs"


def test_small_banks_differ_from_problem_to_problem():
    task = create_task({"name": "memory"})
    small = [task.sample(train_seed(1, i), 2) for i in range(200)]
    by_question = {}
    for problem in small:
        by_question.setdefault(problem.prompt, set()).add(problem.answer.split()[-1])
    assert max(map(len, by_question.values())) >= 4, "nothing to learn by heart"
    assert {tuple(task.sample(train_seed(1, i), 4).meta["bank"]) for i in range(50)} == {(0, 4)}
    assert all(problem.meta["bank"][0] > 0 for problem in small)


def test_exact_retrieval():
    retriever = create_retriever({"name": "exact"})
    index = retriever.index(["a0", "b1"])
    assert [retriever.find(index, query) for query in ("a0", "0a", "a", "")] == ["a0", None, None, None]


def test_bm25_brings_back_what_is_nearest():
    pytest.importorskip("bm25s")
    retriever = create_retriever({"name": "bm25"})
    index = retriever.index([entity + relation for entity in "abcd" for relation in "012"])
    assert retriever.find(index, "c1") == "c1"
    assert retriever.find(index, "1c") == "c1", "the order does not matter"
    assert retriever.find(index, "cx") == "c0", "one character is enough; the first of equals"
    assert retriever.find(index, "x") is None
    task = create_task({"name": "memory", "retriever": {"name": "bm25"}})
    for index in range(20):
        problem = task.sample(train_seed(2, index), 7)
        assert task.verify(problem, problem.answer) == 1
    problem = asked("c", "042")
    assert after(task, problem, ["0c"]).text == f"c0{walk('c', '0')}"
    assert after(task, problem, ["0c"]).score == pytest.approx(0.7 / 3)


def test_bm25_without_its_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "bm25s", None)
    with pytest.raises(ConfigError, match=r"pip install 'rlpt\[retrieval\]'"):
        create_retriever({"name": "bm25"}).index(["a0"])


def test_an_unknown_retriever_is_named():
    task = create_task({"name": "memory", "retriever": {"name": "bm52"}})
    with pytest.raises(ConfigError, match=r"retriever\.name: unknown retriever 'bm52'; did you mean 'bm25'"):
        task.sample(1, 0)
