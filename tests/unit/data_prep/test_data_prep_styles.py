"""Mixes of trace styles and levels: keyed, in proportion, and as before where nothing is asked for."""

from collections import Counter

import pytest
from pydantic import TypeAdapter, ValidationError

from data_prep.styles import StyleMix, StyleWeights, check_level_weights, level_of
from rlpt.errors import ConfigError
from rlpt.tasks.base import create_task, keyed_hash, train_seed
from rlpt.tasks.styles import STYLES
from rlpt.template import solution_text

SEEDS = [train_seed(7, index) for index in range(4000)]


def test_without_a_mix_documents_are_the_tasks_own_with_the_share_of_traces():
    task, mix = create_task({"name": "sort"}), StyleMix({"steps": 1.0}, trace_share=0.5)
    for seed in SEEDS[:200]:
        problem = task.sample(seed, 2)
        trace = task.solution(problem) if keyed_hash("trace", seed) < 0.5 * 2**64 else ""
        document = mix.document(task, seed, 2)
        assert (document.text, document.origin) == (solution_text(problem, trace), f"task sort, level 2, seed {seed}")


def test_styles_come_in_proportion_whatever_their_order():
    weights = {"steps": 2.0, "corrected": 1.0, "terse": 1.0}
    mix = StyleMix(weights, trace_share=0.8)
    styles = [mix.style(seed) for seed in SEEDS]
    shares = {style: count / len(SEEDS) for style, count in Counter(styles).items()}
    assert shares == pytest.approx({"answer_only": 0.2, "steps": 0.4, "corrected": 0.2, "terse": 0.2}, abs=0.03)
    assert styles == [StyleMix(dict(reversed(weights.items())), 0.8).style(seed) for seed in SEEDS]


def test_documents_of_a_mix_show_every_style():
    task, mix = create_task({"name": "parity"}), StyleMix(dict.fromkeys(STYLES, 1.0))
    texts = [mix.document(task, seed, 4).text for seed in SEEDS[:100]]
    assert {("?" in text, "<0" in text or "<1" in text, "<|think|>" in text) for text in texts} == {
        (True, True, True),
        (True, False, True),
        (False, False, True),
        (False, False, False),
    }


def test_a_style_that_a_task_lacks_is_named_with_its_key():
    mix = StyleMix({"steps": 1.0, "checked": 1.0})
    with pytest.raises(ConfigError, match=r"synthesize\.tasks\.3: task grid_world: .* no style 'checked'"):
        mix.check(create_task({"name": "grid_world"}), "synthesize.tasks.3")
    mix.check(create_task({"name": "sort"}), "synthesize.tasks.0")


@pytest.mark.parametrize("weights", [{}, {"stepz": 1}, {"steps": 0}, {"steps": -1}, {"steps": float("inf")}])
def test_weights_that_mean_nothing_are_refused(weights):
    with pytest.raises(ValidationError):
        TypeAdapter(StyleWeights).validate_python(weights)


def test_levels_are_cycled_or_weighted():
    assert [level_of([3, 1], [], seed, index) for index, seed in enumerate(SEEDS[:4])] == [3, 1, 3, 1]
    levels = Counter(level_of([3, 1], [1.0, 3.0], seed, index) for index, seed in enumerate(SEEDS))
    assert levels[1] / len(SEEDS) == pytest.approx(0.75, abs=0.03)
    with pytest.raises(ConfigError, match=r"level_weights: 1 weights for 2 levels"):
        check_level_weights([3, 1], [1.0], "synthesize.tasks.0.level_weights")
