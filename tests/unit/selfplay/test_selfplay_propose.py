"""Proposer and solver in one play: what is valid, what each is told, paid and compared with."""

import random
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.players import RandomGenerator, ScriptedGenerator
from helpers.rollouts import GROUPS, on_ranks, open_episodes, source_context
from helpers.tokenizer import CharacterTokenizer

from rlpt.algorithms.base import Outcomes
from rlpt.algorithms.task_role import TaskRole
from rlpt.errors import ConfigError
from rlpt.registry import create, register
from rlpt.rewards.base import Rubric
from rlpt.selfplay.base import Actor
from rlpt.selfplay.proposals import Proposals
from rlpt.selfplay.propose import Propose
from rlpt.tasks.base import create_task, train_seed
from rlpt.tasks.programs.stack_language import StackLanguage
from rlpt.template import ANSWER, END

TOKENIZER = CharacterTokenizer()
MODES = ("deduction", "abduction", "induction")
TASKS = {name: create_task({"name": name}) for name in MODES}
LEVEL = 3
RUBRIC = [{"name": "learnability", "useless": -0.5, "malformed": -1.0}, {"name": "correct", "role": "solver"}]


def play(form, proposals, answers=None, mode="deduction", memory=None, tasks=TASKS, step=3, index=0):
    """One slot whose proposer writes `proposals` in turn; solvers answer `answers[prompt]`, attempt by attempt."""
    player = Player(proposals, answers or {})
    problem = form.problem(tasks[mode], train_seed(1, index), LEVEL)
    actor = Actor(player.generator, TOKENIZER)
    episodes = form.play([problem], tasks, actor, keys=[40 + index], policy_step=step, memory=memory)
    return episodes, player


class Player:
    """A generator that knows both parts by heart."""

    def __init__(self, proposals, answers):
        self.proposals, self.answers, self.prompts = list(proposals), answers, []
        self.generator = ScriptedGenerator(TOKENIZER, self.say)

    def say(self, prompt, row):
        self.prompts.append(prompt)
        if prompt.startswith("<|prompt|>propose"):
            return self.proposals[row] + END
        asked = prompt.removeprefix("<|prompt|>").removesuffix(ANSWER)
        answers = self.answers.get(asked, [])
        return (answers[self.prompts.count(prompt) - 1] if answers else "0") + END


def faults(episodes):
    return [episode.note["fault"] for episode in episodes]


def form(**options):
    return create("selfplay", {"name": "propose", "group_size": 4, "attempts": 2, **options})


def test_what_is_valid():
    texts = ["d:12", "d:12", "dd", "p:1", "d:1:2", ":12", "0+:3", "00000:1", "s:21"]
    episodes, _ = play(form(group_size=9), texts)
    assert faults(episodes) == ["", "known", "shape", "limits", "shape", "shape", "known", "limits", ""]
    assert [len(episode.trajectories) for episode in episodes] == [3, 1, 1, 1, 1, 1, 1, 1, 3]
    assert [one.outcome["proposer"] for one in episodes] == [1, 0, 0, 0, 0, 0, 0, 0, 1]
    assert [one.trajectories[0].well_formed for one in episodes] == [1, 1, 0, 1, 0, 0, 1, 1, 1]
    assert episodes[0].note["outputs"] == ["122"]


def test_a_proposal_that_is_cut_short_is_malformed():
    long = "1" * 20
    (episode,), _ = play(form(group_size=1), [long])
    assert episode.trajectories[0].truncated
    assert faults([episode]) == ["shape"]


@register("language", "fickle")
@dataclass(frozen=True)
class Fickle(StackLanguage):
    """A stack machine that reads `9` as another digit each time."""

    def run(self, program, given):
        if "9" in program:
            Fickle.draws = getattr(Fickle, "draws", 0) + 1
            program = program.replace("9", str(Fickle.draws % 8))
        return super().run(program, given)


def test_a_program_with_two_outputs_is_refused():
    tasks = {name: create_task({"name": name, "language": "fickle"}) for name in MODES}
    for mode, texts in {"deduction": ["9:12", "8:12"], "induction": ["9", "8"]}.items():
        episodes, _ = play(form(group_size=2), texts, mode=mode, tasks=tasks)
        assert faults(episodes) == ["unstable", ""]
    episodes, _ = play(form(group_size=1, runs=1), ["9:12"], tasks=tasks)
    assert faults(episodes) == [""], "one run can't tell"


def test_rewards_by_the_table():
    """Solved at rates 0, 1/4, 3/4 and 1; not valid; not of the shape."""
    right = {"1:0=?": "01", "2:0=?": "02", "3:0=?": "03", "4:0=?": "04"}
    answers = {
        asked: [right[asked]] * solved + ["9"] * (4 - solved) for asked, solved in zip(right, (0, 1, 3, 4), strict=True)
    }
    texts = ["1:0", "2:0", "3:0", "4:0", "p:0", "0"]
    episodes, _ = play(form(group_size=6, attempts=4), texts, answers)
    Rubric.from_config(RUBRIC).score(episodes)
    assert [episode.trajectories[0].reward for episode in episodes] == [-0.5, 0.75, 0.25, -0.5, -0.5, -1]
    assert [episode.outcome["solve_rate"] for episode in episodes] == [0, 0.25, 0.75, 1, 1, 1]
    solvers = [[one.reward for one in episode.trajectories[1:]] for episode in episodes]
    assert solvers == [[0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1], [], []]
    assert all(not episode.is_measured for episode in episodes)


def test_each_mode_asks_for_something_else():
    task = TASKS["induction"]
    shown = {
        "deduction": ("d:12", ["d:12=?"]),
        "abduction": ("*:26", ["*:?=2"]),
        "induction": ("+", None),
    }
    for mode, (text, asked) in shown.items():
        (episode,), player = play(form(group_size=1, attempts=1), [text], mode=mode)
        prompts = [one.removeprefix("<|prompt|>").removesuffix(ANSWER) for one in player.prompts[1:]]
        if asked is None:
            given, outputs = episode.note["inputs"], episode.note["outputs"]
            assert outputs == task.outputs("+", given, LEVEL)
            asked = [f"?:{given[0]}={outputs[0]} {given[1]}={outputs[1]} {given[2]}={outputs[2]}"]
        assert prompts == asked


def test_abduction_takes_any_input_that_leads_there():
    (episode,), _ = play(form(group_size=1, attempts=3), ["*:26"], {"*:?=2": ["26", "34", "99"]}, mode="abduction")
    assert [one.outcome for one in episode.trajectories[1:]] == [1, 1, pytest.approx(0.9 * 0.05)]
    assert episode.outcome["solve_rate"] == pytest.approx(2 / 3)


def test_peers_are_proposals_of_a_slot_and_attempts_at_a_proposal():
    episodes, _ = play(form(), ["d:12", "s:12", "x", "p:12"])
    proposers = [episode.trajectories[0] for episode in episodes]
    assert {one.peers for one in proposers} == {40}
    assert {one.role for one in proposers} == {"proposer"}
    solvers = [episode.trajectories[1:] for episode in episodes]
    assert [len({one.peers for one in group}) for group in solvers] == [1, 1, 0, 1]
    assert len({one.peers for group in solvers for one in group}) == 3
    assert {one.role for group in solvers for one in group} == {"solver"}
    assert {one.policy_step for group in solvers for one in group} == {3}


def test_six_groups_have_mean_0_and_std_1():
    """TRR++ on a play of the three tasks, by chance."""
    problems = [form().problem(TASKS[MODES[i % 3]], train_seed(1, i), 1) for i in range(90)]
    actor, keys = Actor(RandomGenerator(), TOKENIZER), [train_seed(2, i) for i in range(90)]
    episodes = form(group_size=8, attempts=8).play(problems, TASKS, actor, keys=keys, policy_step=0)
    Rubric.from_config(RUBRIC).score(episodes)
    rows = [(one, episode.problem.task) for episode in episodes for one in episode.trajectories]
    rewards = np.array([one.reward for one, _ in rows])
    peers = np.array([one.peers for one, _ in rows])
    outcomes = Outcomes(rewards, peers, [one.role for one, _ in rows], [task for _, task in rows])
    advantages = TaskRole().advantages(outcomes, {})
    groups = {}
    for (one, task), advantage in zip(rows, advantages, strict=True):
        groups.setdefault((task, one.role), []).append(advantage)
    assert set(groups) == {(task, role) for task in MODES for role in ("proposer", "solver")}
    for group in groups.values():
        assert np.mean(group) == pytest.approx(0, abs=1e-9)
        assert np.std(group) == pytest.approx(1, abs=1e-4)


def test_the_proposer_is_shown_what_the_buffer_holds():
    memory = Proposals()
    first, player = play(form(), ["d:12", "s:12", "x", "d:1"], memory=memory)
    assert player.prompts[0] == "<|prompt|>propose deduction<|result|>0+:3<|answer|>", "the identity program"
    memory.record([episode.note for episode in first], 3)
    again, player = play(form(), ["d:12", "s:13", "0+:3", "x"], memory=memory, index=1)
    assert faults(again) == ["known", "", "known", "shape"]
    assert (
        player.prompts[0]
        == "<|prompt|>propose deduction<|result|>0+:3<|result|>d:12<|result|>s:12<|result|>d:1<|answer|>"
    )
    assert again[1].note["parents"] == [0, 1, 2]
    _, player = play(form(), ["x"] * 4, mode="induction", memory=memory)
    assert player.prompts[0] == "<|prompt|>propose induction<|result|>0+<|answer|>", "each task has its own"


def test_the_buffer_stands_in_for_what_is_not_valid():
    memory = Proposals()
    first, _ = play(form(group_size=1), ["d:12"], memory=memory)
    memory.record([episode.note for episode in first], 3)
    options = {"group_size": 2, "replay_share": 1.0}
    episodes, _ = play(form(**options), ["x", "s:12"], {"d:12=?": ["122", "1"]}, memory=memory, index=1)
    assert [len(episode.trajectories) for episode in episodes] == [3, 3]
    assert [one.outcome for one in episodes[0].trajectories[1:]] == [1, pytest.approx(0.3)]
    assert episodes[0].outcome == {"proposer": 0, "solve_rate": 1, "solver": 0.5}, "the proposer is not paid for it"
    memory.record([episode.note for episode in episodes], 4)
    known = memory.triplets["deduction/stack"][0]
    assert (known.text, known.attempts, known.solved) == ("d:12", 4, 1)


def test_a_frozen_proposer_is_not_learned_from():
    frozen, present = Player(["d:12", "x"], {}), Player([], {"d:12=?": ["122", "1"]})
    problem = form().problem(TASKS["deduction"], 1, LEVEL)
    actor = Actor(present.generator, TOKENIZER, past={"start": frozen.generator})
    options = {"keys": [5], "policy_step": 7}
    episodes = form(group_size=2, proposer="start").play([problem], TASKS, actor, **options)
    assert [[one.role for one in episode.trajectories] for episode in episodes] == [["solver", "solver"], []]
    assert episodes[0].outcome["solve_rate"] == 0.5
    with pytest.raises(
        ConfigError, match=r"selfplay\.proposer=begin: there is no snapshot of this name at step 7.*start"
    ):
        form(proposer="begin").play([problem], TASKS, actor, **options)


def test_episodes_hang_on_their_key_alone():
    def texts(indices):
        problems = [form().problem(TASKS[MODES[i % 3]], train_seed(1, i), 1) for i in indices]
        keys = [train_seed(2, i) for i in indices]
        episodes = form(group_size=8).play(
            problems, TASKS, Actor(RandomGenerator(), TOKENIZER), keys=keys, policy_step=0
        )
        return [[t.token_ids.tolist() for t in episode.trajectories] for episode in episodes]

    assert texts([4]) == texts([0, 3, 4, 5])[16:24]


SOURCE = {
    "selfplay": {"name": "propose", "group_size": 8, "attempts": 4, "replay_share": 0.5},
    "rubric": RUBRIC,
    "tasks": [
        {"task": {"name": name}, "curriculum": {"start_level": 1, "target_level": 1, "floor_level": 1}}
        for name in MODES
    ],
}


def played(source, takes):
    figures = []
    for step in range(takes):
        source.take(2, step=step)
        figures.append(source.metrics())
    return figures


def test_ranks_propose_what_one_proposes():
    alone = open_episodes(source_context(algorithm=TaskRole()), **SOURCE)
    figures = played(alone, 4)

    def main(rank, gather):
        context = source_context(data_rank=rank, data_size=2, gather=gather, algorithm=TaskRole())
        source = open_episodes(context, **SOURCE)
        return played(source, 4), source.state_dict()

    for others, state in on_ranks(2, main):
        assert state == alone.state_dict()
        for ours, wanted in zip(others, figures, strict=True):
            assert ours == pytest.approx(wanted, abs=1e-12)
    assert figures[-1]["buffer"] > 5
    assert 0 < figures[-1]["valid"] < 0.5
    assert figures[-1]["episodes"] == GROUPS * 8
    assert "success" not in figures[-1]


def test_a_source_goes_on_where_it_was_saved():
    whole = open_episodes(source_context(algorithm=TaskRole()), **SOURCE)
    wanted = played(whole, 4)
    half = open_episodes(source_context(algorithm=TaskRole()), **SOURCE)
    played(half, 2)
    state = half.state_dict()
    resumed = open_episodes(source_context(algorithm=TaskRole()), **SOURCE)
    resumed.load_state_dict(state)
    for step in (2, 3):
        resumed.take(2, step=step)
        assert resumed.metrics() == wanted[step]
    assert resumed.state_dict() == whole.state_dict()


def test_a_play_without_anything_to_learn_from():
    """A frozen proposer that never makes sense."""
    selfplay = {"name": "propose", "group_size": 2, "proposer": "start"}
    nonsense = ScriptedGenerator(TOKENIZER, lambda prompt, row: "x" + END)
    context = source_context(algorithm=TaskRole(), generator=nonsense, past=lambda: {"start": nonsense})
    source = open_episodes(context, **SOURCE | {"selfplay": selfplay})
    batches = source.take(2, step=1)
    assert all(not batch.loss_mask.any() for batch in batches)
    assert source.metrics()["valid"] == 0
    assert source.metrics()["tokens"] == 0


def test_options_are_checked():
    for options, message in [
        ({"attempts": 0}, "attempts=0: must be at least 1"),
        ({"references": 0}, "references=0: must be at least 1"),
        ({"replay_share": 1.5}, r"replay_share=1\.5: must be between 0 and 1"),
    ]:
        with pytest.raises(ConfigError, match=message):
            form(**options)


def test_other_tasks_are_refused():
    stranger = SimpleNamespace(name="reverse", kind="task")
    with pytest.raises(
        ConfigError, match=r"tasks\.0: 'reverse' is of the kind 'task'.*deduction, abduction, induction"
    ):
        Propose().check(stranger, "tasks.0")
    Propose().check(TASKS["induction"], "tasks.0")


def test_a_random_policy_is_valid_now_and_then():
    """What the toy experiment stands on: at level 1 chance is valid, and chance solves."""
    player, count = RandomGenerator(), 0
    problems = [form().problem(TASKS["induction"], train_seed(1, i), 1) for i in range(40)]
    keys = [random.Random(i).getrandbits(62) for i in range(40)]
    episodes = form().play(problems, TASKS, Actor(player, TOKENIZER), keys=keys, policy_step=0)
    count = sum(episode.note["fault"] == "" for episode in episodes)
    assert 0.02 < count / len(episodes) < 0.3
