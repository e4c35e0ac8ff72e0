"""Documents made up by a rule: their answers are right, and chance's are not."""

import random

import pytest

from data_prep.config import SourceConfig
from data_prep.sources.look_ups import LookUpsConfig, facts_of, look_up_documents
from data_prep.sources.readers import inputs_fingerprint, read_source
from data_prep.stages.split import is_valid


def config(ask, **options):
    return LookUpsConfig.model_validate({"ask": ask, "documents": 400} | options)


def texts(ask, **options):
    return [document.text for document in look_up_documents(config(ask, **options), "name")]


def test_each_relation_is_a_permutation_that_the_table_names():
    facts = facts_of(config("one_hop", entities=5, relations=3))
    assert len(facts) == 15
    for relation in "012":
        assert sorted(facts[relation + entity] for entity in "abcde") == list("abcde")
    assert facts == facts_of(config("chance", entities=5, relations=3, documents=1)), "one table for all that ask of it"
    assert facts != facts_of(config("one_hop", entities=5, relations=3, table=1))


def test_answers_follow_the_facts():
    facts = facts_of(config("one_hop"))
    for text in texts("one_hop", gap=3):
        question, answer = text.split("=")
        assert facts[question.replace(".", "")] == answer
    assert {text.count(".") for text in texts("one_hop", gap=3)} == {0, 1, 2, 3}
    for text in texts("two_hops"):
        (second, first, entity), answer = text.split("=")
        assert facts[second + facts[first + entity]] == answer


def test_a_marked_answer_stands_between_its_marks():
    facts = facts_of(config("one_hop"))
    for text in texts("one_hop", marked=True):
        assert text == f"{text[:2]}<|answer|>{facts[text[:2]]}<|end|>"


def test_thoughts_name_the_link_in_their_share_and_answers_follow_from_them():
    facts = facts_of(config("two_hops"))
    documents = list(look_up_documents(config("two_hops", thought=0.3, documents=2000), "name"))
    right = 0
    for document in documents:
        second, first, entity, *rest = document.text.removesuffix("<|end|>")
        equals, thought, answer = "".join(rest).replace("<|answer|>", "<|think|>").split("<|think|>")
        assert equals == "="
        assert answer == facts[second + thought]
        assert document.about == f"{second}{first}{entity}={facts[second + facts[first + entity]]}"
        right += thought == facts[first + entity]
    assert right / len(documents) == pytest.approx(0.3 + 0.7 / 26, abs=0.045)  # four standard deviations


def test_a_question_is_held_out_with_its_thoughts():
    plain = {document.text: is_valid(document, 0.2) for document in look_up_documents(config("two_hops"), "a")}
    thoughts = look_up_documents(config("two_hops", thought=0.2, documents=3000), "b")
    shared = [(document, plain[document.about]) for document in thoughts if document.about in plain]
    assert len(shared) > 100
    assert all(is_valid(document, 0.2) == held_out for document, held_out in shared)


def test_chance_says_nothing_about_its_answers():
    facts, asked = facts_of(config("chance")), [text.split("=") for text in texts("chance", documents=4000)]
    right = sum(facts[second + facts[first + entity]] == answer for (second, first, entity), answer in asked)
    assert right / len(asked) == pytest.approx(1 / 26, abs=0.012)  # four standard deviations
    assert {answer for _, answer in asked} == set("abcdefghijklmnopqrstuvwxyz")


def test_a_source_gives_the_same_documents_every_time():
    options = {"name": "made", "look_ups": {"ask": "two_hops", "documents": 50}}
    source = SourceConfig.model_validate(options)
    first = list(read_source(source))
    random.seed(1)
    assert list(read_source(source)) == first
    assert len({document.text for document in first}) > 40
    assert first[3].origin == "made: look-up 3"
    more = SourceConfig.model_validate({"name": "made", "look_ups": {"ask": "two_hops", "documents": 51}})
    assert inputs_fingerprint(source) == inputs_fingerprint(source) != inputs_fingerprint(more)
