"""Converse against a scripted player, in the memory environment."""

from itertools import pairwise

import numpy as np
import pytest
from helpers.players import RandomGenerator, ScriptedGenerator
from helpers.tokenizer import CharacterTokenizer

import rlpt.tasks  # noqa: F401  (registers)
from rlpt import registry
from rlpt.errors import ConfigError
from rlpt.selfplay.base import Actor
from rlpt.selfplay.converse import Converse
from rlpt.tasks.base import create_task, train_seed
from rlpt.tasks.environments.memory import facts_of
from rlpt.template import END, RESULT, TURN
from rlpt.types import Problem

TOKENIZER = CharacterTokenizer()
TASK = create_task({"name": "memory"})
LEVEL = 5
FACTS = facts_of(0, LEVEL)
FIRST, SECOND = FACTS["a3"], FACTS[FACTS["a3"] + "7"]
PROBLEM = Problem("memory", 1, LEVEL, "memory a37", "", {"entity": "a", "relations": "37", "bank": [0, LEVEL]})


def play(form, script, problem=PROBLEM, generator=None, keys=(11,)):
    generator = generator or ScriptedGenerator(TOKENIZER, script)
    problems, tasks = [problem] * len(keys), {"memory": TASK}
    return form.play(problems, tasks, Actor(generator, TOKENIZER), keys=keys, policy_step=7), generator


def perfect(prompt, row):
    """What the oracle would say after what stands in the prompt."""
    seen = prompt.split(RESULT)[-1].removesuffix(TURN)
    return {"a37": "a3", f"a3{FIRST}": f"{FIRST}7", f"{FIRST}7{SECOND}": SECOND}[seen] + END


def test_a_transcript_is_what_was_said_and_shown():
    (episode,), generator = play(Converse(group_size=1), perfect)
    (trajectory,) = episode.trajectories
    transcript = (
        f"<|prompt|>memory<|result|>a37<|turn|>a3<|end|><|result|>a3{FIRST}<|turn|>{FIRST}7<|end|>"
        f"<|result|>{FIRST}7{SECOND}<|turn|>{SECOND}<|end|>"
    )
    assert episode.text == transcript
    assert TOKENIZER.decode(trajectory.token_ids.tolist()) == transcript
    assert TASK.document(TASK.sample(3, LEVEL)).count(TURN) == 3, "as the corpus shows it"
    said = TOKENIZER.decode(trajectory.token_ids[trajectory.action_mask].tolist())
    assert said == f"a3<|end|>{FIRST}7<|end|>{SECOND}<|end|>"
    assert episode.outcome == {"solver": 1.0}
    assert (trajectory.well_formed, trajectory.truncated) == (1.0, False)
    assert trajectory.windows is None
    assert [len(prompts) for prompts, _, _ in generator.calls] == [1, 1, 1]
    prompts = [calls[0][0] for calls in generator.calls]
    assert all(later[: len(earlier)] == earlier for earlier, later in pairwise(prompts)), "append-only"
    kept = [ids for ids in trajectory.kept_ids if ids is not None]
    assert len(kept) == trajectory.action_mask.sum()


def test_episodes_of_different_lengths_go_on_in_step():
    answers = {0: "a3", 1: "z", 2: "", 3: "a3b77"}
    script = lambda prompt, row: answers[row] + END if prompt.count(TURN) == 1 else "z" + END  # noqa: E731
    episodes, generator = play(Converse(group_size=4), script)
    assert [len(prompts) for prompts, _, _ in generator.calls] == [4, 3]
    assert [e.trajectories[0].well_formed for e in episodes] == [1, 1, 0.5, 0.5]
    assert ["<|result|>?<|turn|>" in e.text for e in episodes] == [False, False, True, True]
    assert {t.peers for e in episodes for t in e.trajectories} == {11}
    wrong = 0.9 * 0.7 / 2  # half the chain was read
    assert [e.outcome["solver"] for e in episodes] == [pytest.approx(wrong), 0, 0, 0]
    keys = [key for _, _, noise in generator.calls for key in noise]
    assert len(set(keys)) == len(keys)
    assert max(keys) < 1 << 63


@pytest.mark.parametrize("window", [12, 16, 40])
def test_a_window_slides_and_the_trajectory_says_where_it_was(window):
    form = Converse(group_size=3, window=window)
    episodes, generator = play(form, None, generator=Recorder())
    views = [view for prompts in generator.views for view in prompts]
    assert max(map(len, views)) <= window - 4
    for episode in episodes:
        (trajectory,) = episode.trajectories
        ids, windows = trajectory.token_ids.tolist(), trajectory.windows or ((0, len(trajectory.token_ids)),)
        assert [stop for _, stop in windows] == sorted({stop for _, stop in windows})
        assert windows[-1][1] == len(ids)
        begin = 0
        for start, stop in windows:
            actions = [i for i in range(begin, stop) if trajectory.action_mask[i]]
            turns = [i for i in actions if i == 0 or not trajectory.action_mask[i - 1]]
            assert all(ids[start:turn] in views for turn in turns), "each turn was asked for with just these tokens"
            begin = stop
    if window == 40:
        assert any(e.trajectories[0].windows is None for e in episodes), "a short episode needs no window"


class Recorder(RandomGenerator):
    """Draws at random and keeps what it was asked."""

    def __init__(self):
        self.views = []

    def __call__(self, prompts, params, keys):
        self.views.append([list(prompt) for prompt in prompts])
        return super().__call__(prompts, params, keys)


def test_a_window_that_holds_no_question_is_refused():
    with pytest.raises(ConfigError, match=r"selfplay\.window=4: a turn of 'memory' takes up to 4 tokens"):
        play(Converse(group_size=1, window=4), perfect)


def test_an_episode_that_outgrows_its_budget_is_cut_short_and_no_error():
    (episode,), _ = play(Converse(group_size=1, max_tokens=20), perfect)
    (trajectory,) = episode.trajectories
    assert trajectory.truncated
    assert len(trajectory.token_ids) <= 20
    assert episode.outcome == {"solver": 0.0}
    assert trajectory.action_mask[-1]


def test_noise_of_a_turn_hangs_on_key_sample_and_turn_alone():
    def tokens(keys):
        episodes, _ = play(Converse(group_size=2), None, generator=RandomGenerator(), keys=keys)
        return {(t.peers, i % 2): t.token_ids.tolist() for i, e in enumerate(episodes) for t in e.trajectories}

    alone, together = tokens((5,)), tokens((4, 5, 6))
    assert alone.items() <= together.items()


def test_chance_is_that_of_all_turns():
    legal = len(TASK.begin(PROBLEM).legal) + 1
    assert Converse().chance(TASK, PROBLEM, TOKENIZER) == pytest.approx(legal ** -(3 + 3 + 2))


def test_memory_beyond_the_window_is_played_with_tools_only():
    without = create_task({"name": "memory", "tools": False})
    problem = without.sample(train_seed(1, 1), LEVEL)
    (episode,) = Converse(group_size=1, window=24).play(
        [problem],
        {"memory": without},
        Actor(ScriptedGenerator(TOKENIZER, lambda prompt, row: problem.answer + END), TOKENIZER),
        keys=[1],
        policy_step=0,
    )
    (trajectory,) = episode.trajectories
    assert episode.outcome == {"solver": 1.0}
    ((start, stop),) = trajectory.windows
    assert stop - start <= 24 < len(problem.prompt)
    assert np.flatnonzero(trajectory.action_mask).tolist() == [stop - 2, stop - 1]


@pytest.mark.parametrize(("options", "message"), [({"window": -1}, "window=-1"), ({"max_tokens": -1}, "max_tokens=-1")])
def test_wrong_options(options, message):
    with pytest.raises(ConfigError, match=message):
        registry.create("selfplay", {"name": "converse", **options})
