"""Attempts that a search returns: judges bound to the problems in play, costs, and what the trainer is told."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.players import RandomGenerator, ScriptedGenerator, completed
from helpers.tokenizer import CharacterTokenizer

from rlpt import registry
from rlpt.config import EvaluationConfig
from rlpt.errors import ConfigError
from rlpt.evaluation.reasoning import evaluate_tasks, play_with
from rlpt.selfplay.base import ROLE, Actor
from rlpt.selfplay.judges import Asked
from rlpt.selfplay.solve import Solve
from rlpt.tasks.base import create_task, train_seed
from rlpt.template import ANSWER, END, THINK, encode_marked
from rlpt.types import SamplingParams

TOKENIZER = CharacterTokenizer()
PARITY = create_task({"name": "parity", "groups": 2, "bits": 2})
PROBLEMS = [PARITY.sample(train_seed(1, index), 0) for index in range(6)]
KEYS = [train_seed(2, index) for index in range(6)]


def play(form, generator=None, problems=PROBLEMS, keys=KEYS):
    actor = Actor(generator or RandomGenerator(), TOKENIZER)
    return form.play(problems, {"parity": PARITY}, actor, keys=keys, policy_step=3)


def judge_of(name, generator_row=None, heads=None, **options):
    """The judge of two rows, both about the first problem; `judged(texts)` by texts."""
    form = Solve(think=True, max_thought=20)
    actor = Actor(RandomGenerator(), TOKENIZER, heads=heads or {})

    def text(completion):
        return THINK + TOKENIZER.decode(completion.token_ids.tolist())

    asked = Asked(
        [PROBLEMS[0]] * 2, [[1, 2]] * 2, {"parity": PARITY}, actor, text, lambda one: form.answer(text(one), one)
    )
    judge = registry.create("judge", {"name": name, **options}).bind(asked)

    def judged(*texts, rows=None):
        stop = SamplingParams(max_new_tokens=99, stop=(TOKENIZER.mark_id(END),))
        completions = [completed(encode_marked(TOKENIZER, one), stop) for one in texts]
        return judge(rows or [0] * len(texts), completions)

    return judged


def test_steps_say_how_far_a_solution_has_come():
    """Two steps and the answer, so thirds; half a step more while nothing is wrong, half of them once something is."""
    first, second = PARITY.solution(PROBLEMS[0]).split()
    answer = PROBLEMS[0].answer
    wrong = "".join("10"[int(bit)] for bit in answer)
    judged = judge_of("steps")
    values = judged(
        "",
        f"{first} ",
        f"{first} 1",
        f"{first} {first}1 ",
        f"{first} {second} ",
        f"{first}{ANSWER}",
        f"{first}{ANSWER}{answer}{END}",
        f"{first} {second}{ANSWER}",
        f"{first} {second}{ANSWER}{answer[0]}",
        f"{first} {second}{ANSWER}{wrong[0]}",
        f"{first} {second}{ANSWER}{wrong}{END}",
        f"{first} {second} {END}",
        f"{first} {second}{ANSWER}{answer}{END}",
    )
    expected = [0.5, 1.5, 1.5, 0.5, 2.5, 0.5, 0.5, 2.5, 2.5 + 0.5 / 3, 1, 1, 1, 3]
    assert values == pytest.approx([value / 3 for value in expected])


def test_judges_of_answers():
    answer = PROBLEMS[0].answer
    wrong = "".join("10"[int(bit)] for bit in answer)
    right, other, none = f"1{ANSWER}{answer}{END}", f"0{ANSWER}{wrong}{END}", "11"
    assert judge_of("verifier")(right, other, none) == [1.0, 0.0, 0.0]
    votes = judge_of("majority")(other, right, other, none, right, rows=[0, 0, 0, 0, 1])
    assert votes == [0.5, 0.25, 0.5, 0.0, 1.0]
    assert judge_of("likelihood")(right, none) == [-1.0, -1.0]


def test_self_certainty_needs_a_generator_that_says_it():
    with pytest.raises(ConfigError, match="does not say how certain"):
        judge_of("self_certainty")("1")
    asked = Asked([], [], {}, Actor(RandomGenerator(), TOKENIZER), str, str)
    judge = registry.create("judge", {"name": "self_certainty"}).bind(asked)
    one = completed([1, 2], SamplingParams())
    sure = [replace(one, certainty=np.array(values, np.float32)) for values in ([0.5, 1.5], [0.0, 0.25])]
    assert judge([0, 0], sure) == [1.0, 0.125]


def test_a_head_is_asked_of_the_state_before_the_end_or_behind_the_last_token():
    seen = []

    def head(texts, masks):
        seen.extend((text.tolist(), np.flatnonzero(mask).tolist()) for text, mask in zip(texts, masks))
        return [np.where(mask, 7.0, 0.0).astype(np.float32) for mask in masks]

    assert judge_of("scorer", heads={"value": head})(f"1{END}", "1") == [7.0, 7.0]
    (one,), end = TOKENIZER.encode("1"), TOKENIZER.mark_id(END)
    assert seen == [([1, 2, one, end], [3]), ([1, 2, one, TOKENIZER.pad_id], [3])]
    with pytest.raises(ConfigError, match="no head 'process' here; "):
        judge_of("scorer", heads={"value": head}, head="process")


def test_the_verifier_picks_right_attempts_and_costs_are_told():
    plain = Solve(group_size=4)
    searched = Solve(group_size=4, search={"name": "best_of_n", "attempts": 30})
    before, after = play(plain), play(searched)
    rates = [np.mean([episode.outcome[ROLE] == 1.0 for episode in part]) for part in (before, after)]
    assert rates[1] > rates[0] + 0.3
    assert all(episode.searched == (0, 0) for episode in before)
    for episode in after:
        (trajectory,) = episode.trajectories
        generated, read = episode.searched
        assert 29 <= generated + trajectory.action_mask.sum() <= 30 * 3
        assert read == 0, "attempts share their prompt"


def test_a_share_of_the_attempts_is_searched_and_the_rest_are_plain():
    def tokens(episodes):
        return [episode.trajectories[0].token_ids.tolist() for episode in episodes]

    plain = tokens(play(Solve(group_size=4)))
    half = play(Solve(group_size=4, search={"name": "best_of_n", "attempts": 30}, search_share=0.5))
    assert [episode.searched != (0, 0) for episode in half] == [True, True, False, False] * 6
    for place, ids in enumerate(tokens(half)):
        assert place % 4 < 2 or ids == plain[place]
    assert tokens(half) != plain
    assert tokens(play(Solve(group_size=4, search={"name": "best_of_n", "attempts": 1}))) == plain


def test_what_a_revision_read_is_given_text_of_its_trajectory():
    """The tokens are scored behind exactly what the policy saw when it wrote them."""

    def script(text, row):
        return f"{'1' if text.count(ANSWER) > 1 else '0'}{END}"

    task = create_task({"name": "parity", "groups": 1, "bits": 2})
    problem = next(one for one in (task.sample(train_seed(1, i), 0) for i in range(99)) if one.answer == "1")
    player = ScriptedGenerator(TOKENIZER, script)
    form = Solve(group_size=1, search={"name": "revision", "attempts": 3})
    (episode,) = form.play([problem], {"parity": task}, Actor(player, TOKENIZER), keys=[1], policy_step=0)
    (trajectory,) = episode.trajectories
    assert [len(call[0]) for call in player.calls][:2] == [1, 1]
    assert episode.outcome[ROLE] == 1.0
    first = int(np.flatnonzero(trajectory.action_mask)[0])
    assert trajectory.token_ids[:first].tolist() == player.calls[1][0][0]
    assert trajectory.action_mask.sum() == 2
    assert len(trajectory.logprobs) == len(trajectory.kept_ids) == len(trajectory.token_ids)
    assert not trajectory.logprobs[:first].any()
    assert episode.searched[0] == 2, "the attempt that is not handed on"


def test_evaluation_searches_where_its_form_does():
    options = EvaluationConfig(problems=24, samples=2, pass_at=[1])

    def rate(**search):
        form = Solve(group_size=2, **search)
        found = evaluate_tasks([(PARITY, 0)], play_with(form, Actor(RandomGenerator(), TOKENIZER)), options)
        return found["parity"]["pass@1"]

    assert rate(search={"name": "best_of_n", "attempts": 16}) > rate() + 0.2
    majority = {"name": "best_of_n", "attempts": 16, "judge": {"name": "majority"}}
    assert abs(rate(search=majority) - rate()) < 0.2, "a random player's majority knows nothing"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"search": {"name": "best_of_m"}}, r"search\.name: unknown search 'best_of_m'; did you mean 'best_of_n'"),
        ({"search": {"name": "beam", "judge": {"name": "step"}}}, r"search\.judge\.name: unknown judge 'step'"),
        ({"search": {"name": "mcts", "judge": {"name": "likelihood"}}}, r"mcts needs values in \[0, 1\]"),
        ({"search_share": 1.5}, r"search_share=1\.5"),
        (
            {"search": {"name": "beam"}, "think": True, "max_thought": 4, "thought_characters": "01"},
            "search with thought_characters",
        ),
    ],
)
def test_what_does_not_fit_together_is_named(options, message):
    with pytest.raises(ConfigError, match=message):
        Solve(**options)


def test_steps_need_a_thought():
    with pytest.raises(ConfigError, match="set think: true"):
        play(Solve(group_size=1, search={"name": "beam"}))
