"""Evaluation text and held-out problems are found in documents; what only resembles them stays."""

import json
import random

import pytest
from pydantic import ValidationError

from data_prep.documents import Document
from data_prep.overlap.decontaminate import DecontaminateConfig, Evaluations
from data_prep.overlap.words import BATCH
from rlpt.errors import ConfigError, DataError
from rlpt.tasks.base import create_task, evaluation_seed, train_seed

RNG = random.Random(1)
QUESTION = [f"q{RNG.randrange(10**6)}" for _ in range(30)]
CHOICE = [f"c{RNG.randrange(10**6)}" for _ in range(9)]
PARAGRAPH = [f"p{RNG.randrange(10**6)}" for _ in range(20)]


def filler(count, seed=0):
    rng = random.Random(seed)
    return [f"f{rng.randrange(10**6)}" for _ in range(count)]


@pytest.fixture
def files(tmp_path):
    records = [
        {"question": " ".join(QUESTION), "choices": [" ".join(CHOICE), "Yes, it is"], "id": 7},
        {"question": "what is asked here is short", "choices": []},
    ]
    (tmp_path / "quiz.jsonl").write_text("\n" + "\n".join(map(json.dumps, records)))
    (tmp_path / "essay.txt").write_text("Title\n\n" + "\n".join(PARAGRAPH) + "\n\nThe end.\n")
    return [
        {"path": tmp_path / "quiz.jsonl", "keys": ["question", "choices"]},
        {"path": tmp_path / "essay.txt"},
    ]


def load(files=(), **options):
    return Evaluations.load(DecontaminateConfig.model_validate({"files": list(files), **options}))


def found(evaluations, words):
    return evaluations.found(Document(words if isinstance(words, str) else " ".join(words), ""))


def test_thirteen_words_in_common_are_found_and_twelve_stay(files):
    evaluations = load(files)
    for begin in (0, 5, 17):
        inside = QUESTION[begin : begin + 13]
        assert found(evaluations, [*filler(50), *inside, *filler(50, 1)]) == "ngram:quiz.jsonl:2"
        assert found(evaluations, [*filler(50), *inside[1:], *filler(50, 1)]) is None
        assert found(evaluations, [*inside[:6], "other", *inside[6:]]) is None
    assert found(evaluations, PARAGRAPH) == "ngram:essay.txt:3"
    assert found(evaluations, PARAGRAPH[4:16]) is None


def test_case_punctuation_and_lines_do_not_hide_it(files):
    assert found(load(files), "See:\n" + ",\n".join(QUESTION[3:16]).upper() + "!") == "ngram:quiz.jsonl:2"


def test_shorter_texts_are_found_whole_and_the_shortest_as_documents_only(files):
    evaluations = load(files)
    assert found(evaluations, [*filler(20), *CHOICE, *filler(20)]) == "ngram:quiz.jsonl:2"
    assert found(evaluations, [*filler(20), *CHOICE[1:], *filler(20)]) is None
    assert found(evaluations, "YES! It is.") == "ngram:quiz.jsonl:2"
    assert found(evaluations, "yes it is so") is None
    assert found(evaluations, "the end") == "ngram:essay.txt:24"
    assert found(evaluations, "") is None
    sharp = load(files, shortest=6)
    assert found(sharp, "we say what is asked here is short again") == "ngram:quiz.jsonl:3"


def test_a_share_of_a_documents_ngrams_may_be_allowed(files):
    document = [*filler(100), *QUESTION]  # 118 n-grams, 18 of them from the question
    assert found(load(files), document) == "ngram:quiz.jsonl:2"
    assert found(load(files, share=0.14), document) == "ngram:quiz.jsonl:2"
    assert found(load(files, share=18 / 118), document) is None
    assert found(load(files, share=0.99), QUESTION) == "ngram:quiz.jsonl:2"


def test_a_stream_is_checked_in_order_whatever_the_lengths(files):
    rng = random.Random(2)
    documents, wanted = [], []
    for index in range(60):
        size = rng.choice((0, 3, 50, 2000, 40_000 if index % 20 == 7 else 10))
        is_planted = index % 3 == 0
        words = filler(size, index)
        if is_planted:
            at = rng.randrange(size + 1)
            words[at:at] = QUESTION[:13]
        documents.append(Document(" ".join(words), str(index)))
        wanted.append((str(index), "ngram:quiz.jsonl:2" if is_planted else None))
    assert max(len(document.text) for document in documents) > 2 * BATCH
    evaluations = load(files)
    assert [(document.origin, reason) for document, reason in evaluations.check(iter(documents))] == wanted
    assert [evaluations.found(document) for document in documents[:9]] == [reason for _, reason in wanted[:9]]


def test_held_out_problems_are_found_in_every_kind_of_worked_solution():
    spec, level = {"name": "addition"}, 2
    evaluations = load(tasks=[{"task": spec, "level": level, "problems": 50}])
    task = create_task(spec)
    for index in range(50):
        problem = task.sample(evaluation_seed(index), level)
        named = f"problem:addition/{level}/"
        for text in (task.document(problem), task.document(problem, task.solution(problem))):
            assert found(evaluations, text).startswith(named)
        assert found(evaluations, f"text before <|prompt|> {problem.prompt}\n<|think|>something else").startswith(named)
        assert found(evaluations, f"{task.document(task.sample(train_seed(1, index), level))}") is None
        assert found(evaluations, f"<|prompt|>{problem.prompt}0<|answer|>1<|end|>") is None
    beyond = task.sample(evaluation_seed(10_000), level)
    assert found(evaluations, task.document(beyond)) is None


def test_the_first_of_equal_problems_is_named():
    task = create_task({"name": "addition"})
    evaluations = load(tasks=[{"task": {"name": "addition"}, "level": 1, "problems": 3}])
    problem = task.sample(evaluation_seed(2), 1)
    seeds = [seed for seed in map(evaluation_seed, range(3)) if task.sample(seed, 1).prompt == problem.prompt]
    assert found(evaluations, task.document(problem)) == f"problem:addition/1/{seeds[0]}"


def test_wrong_configurations_name_the_key(tmp_path, files):
    with pytest.raises(ConfigError, match=r"decontaminate\.tasks\.0\.task\.name: unknown task 'srt'; did you mean"):
        load(tasks=[{"task": {"name": "srt"}, "level": 0, "problems": 1}])
    with pytest.raises(ConfigError, match=r"decontaminate\.tasks\.0\.level: 99 is outside 0\.\."):
        load(tasks=[{"task": {"name": "sort"}, "level": 99, "problems": 1}])
    with pytest.raises(DataError, match=r"quizz\.jsonl: no such evaluation set; did you mean 'quiz\.jsonl'"):
        load([{"path": tmp_path / "quizz.jsonl", "keys": ["question"]}])
    with pytest.raises(ValidationError, match="name the keys"):
        load([{"path": tmp_path / "quiz.jsonl"}])
    with pytest.raises(ValidationError, match="shortest=8 is above ngram=5"):
        load(ngram=5)


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ('{"choices": []}', r"quiz\.jsonl:1: no key 'question' \(keys: choices\)"),
        ('{"question": 5}', r"quiz\.jsonl:1: 'question' must be a string, is int"),
        ('{"question": ["a", null]}', r"quiz\.jsonl:1: 'question' must be a string, is NoneType"),
        ('{"question": "a"', r"quiz\.jsonl:1: malformed JSON"),
    ],
)
def test_bad_evaluation_sets_are_named_by_file_line_and_reason(tmp_path, line, match):
    (tmp_path / "quiz.jsonl").write_text(line)
    with pytest.raises(DataError, match=match):
        load([{"path": tmp_path / "quiz.jsonl", "keys": ["question"]}])
