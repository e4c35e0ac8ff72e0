"""What the catalogue says of registered tasks, and how they are measured."""

import sys

import pytest

from rlpt.errors import ConfigError
from rlpt.tasks.catalogue import Entry, catalogue, describe, find, level_tables, options, summarize
from rlpt.tasks.profile import LevelProfile, profile, profile_level, random_success, reference_success, throughput


def test_fields_are_folders_and_names_are_unique():
    entries = {entry.name: entry for entry in catalogue()}
    assert len(entries) == len(catalogue())
    assert (entries["graph_path"].field, entries["sort"].field) == ("graphs", "lists")
    assert all(entry.is_usable for entry in entries.values() if entry.source == "native")


def test_words_about_a_family_come_from_its_docstrings():
    sort = find("sort").task_class
    assert summarize(sort).startswith("Sort digits")
    assert describe(sort).startswith("The least digit first")
    assert "Level l: `LENGTHS[l]` digits" in describe(sort), "of what it shares with the other families"
    assert "A family of problems with an oracle" not in describe(sort), "of the contract"
    assert "\n" not in describe(sort).replace("\n\n", "")
    tables = level_tables(sort)
    assert set(tables) == {"LENGTHS", "SYMBOLS"}
    assert all(len(values) == 10 for values in tables.values())
    assert level_tables(find("graph_path").task_class)["DISTANCES"][3] == "2-3"
    assert options(find("addition").task_class)[0]["type"] == "boolean"


def test_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyspiel", None)
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    for entry in catalogue():
        assert entry.is_usable == (entry.source == "native")
        assert bool(entry.unavailable or entry.unusable) == (entry.source != "native")


def test_what_cannot_be_used_is_not_created():
    with pytest.raises(ConfigError, match=r"task zebra: runs the answer"):
        Entry("zebra", "task", "reasoning_gym", "reasoning_gym", unusable="runs the answer").create()


def test_profile_agrees_with_its_single_figures():
    task = find("reverse").create()
    one = profile_level(task, 0, 300)
    assert one.num_problems == 300
    assert one.random_success == random_success(task, 0, 300)
    assert one.reference_success == pytest.approx(reference_success(task, 0, 300))
    assert one.answer_limit == 1


def test_profile_keeps_to_its_time_or_count():
    task = find("sort").create()
    assert [level.num_problems for level in profile(task, 4)] == [4] * 10
    assert all(level.num_problems >= 2 for level in profile(task, seconds=0.01))


def test_throughput_is_of_equally_likely_levels():
    levels = [LevelProfile(0, 0.1, 0.9, 100.0, 1, 5), LevelProfile(1, 0.0, 0.5, 300.0, 1, 5)]
    assert throughput(levels) == pytest.approx(2 / (1 / 100 + 1 / 300))
