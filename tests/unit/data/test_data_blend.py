"""Blends: shares by weight, tokens and temperature; phases; the order of shards; what a run reads of each."""

import json
import random
from itertools import pairwise

import pytest
import torch
from helpers.shards import write_shards, write_tokenizer

from rlpt import registry
from rlpt.batch import SourceContext
from rlpt.data.blend import BlendCounter, BlendOptions, BlendSchedule
from rlpt.data.corpus import CorpusOptions
from rlpt.data.epochs import plan_blend, remarks
from rlpt.errors import ConfigError, DataError

EOS, T, B, STEPS = 2, 8, 2, 20
LABELS = {"a": "blended/a", "b": "blended/b", "c": "blended/c"}
PHASES = [{"begin": 0.5, "weights": {"b": 8}}, {"begin": 0.8, "weights": {"a": 0, "c": 1}}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpora") / "blended"
    tokenizer = write_tokenizer(folder / "tokenizer")
    sizes = {"a": 40, "b": 10, "c": 3}
    shards = {name: [[100 + place] * 16 + [EOS] for place in range(size)] for name, size in sizes.items()}
    write_shards(folder, tokenizer, shards)
    return folder, tokenizer


def options_of(folder, blend=None, **options):
    blend = blend or {"a": 6, "b": 2, "c": 1}
    entries = [{"path": str(folder[0] / name), "weight": weight} for name, weight in blend.items()]
    return registry.create("source", {"name": "corpus", "blend": entries} | options, "objectives.text.source")


def microbatches_at(step):
    return 0 if step in (3, 4, 11) else 4  # takes no part in some steps


def open_source(folder, rank=0, size=1, **options):
    context = SourceContext(
        "text", folder[1], T, B, rank, size, 1, lambda value: [value], run_steps=STEPS, microbatches_at=microbatches_at
    )
    return options_of(folder, **options).open(context)


def run(source, steps, size=1):
    """Step -> its rows [rows, T, 2] on this rank."""
    taken = {}
    for step in steps:
        if microbatches_at(step):
            batches = source.take(microbatches_at(step) // size, step=step)
            taken[step] = torch.cat([torch.stack([batch.tokens, batch.labels], dim=-1) for batch in batches])
    return taken


def counts(source):
    return {label[-1]: shard["rows"] for label, shard in source.state_dict()["shards"].items()}


def shares(tokens, weights, **options):
    entries = [{"path": f"x/{place}", "weight": weight} for place, weight in enumerate(weights)]
    return registry.build(BlendOptions, {"blend": entries, **options}, "x").schedule(tokens, 100).at(0)


def test_shares_by_weight_tokens_and_temperature():
    assert shares([900, 100], [1, 3]) == (0.25, 0.75)
    assert shares([900, 100], [1, 1], mix="tokens") == (0.9, 0.1)
    assert shares([900, 100], [1, 3], mix="tokens") == (0.75, 0.25), "a weight of 3 is three times the epochs"
    assert shares([900, 100], [1, 1], mix="temperature", temperature=2) == pytest.approx((0.75, 0.25)), "30 to 10"
    assert shares([900, 100], [1, 3], mix="temperature", temperature=2) == pytest.approx((0.5, 0.5))
    assert shares([8000, 27, 1], [1, 1, 1], mix="temperature", temperature=3) == pytest.approx(
        (20 / 24, 3 / 24, 1 / 24)
    )
    for weights in ([1, 1], [2, 1]):
        by_tokens = shares([900, 100], weights, mix="tokens")
        assert shares([900, 100], weights, mix="temperature", temperature=1) == pytest.approx(by_tokens)
        almost_uniform = shares([900, 100], weights, mix="temperature", temperature=1e6)
        assert almost_uniform == pytest.approx(shares([900, 100], weights), rel=1e-5)


def test_weights_by_tokens_say_how_many_epochs_a_shard_gets(folder):
    plans = plan(options_of(folder, blend={"a": 1, "b": 3}, mix="tokens"))
    assert plans[1].epochs / plans[0].epochs == pytest.approx(3, rel=0.05), "but for the tokens that fill no row"


@pytest.mark.parametrize(
    "weights", [[0.001, 0.999], [0.999, 0.001], [1 / 3, 2 / 3], [1.0], [0.5, 0.25, 0.25], [0.4, 0.3, 0.2, 0.1]]
)
def test_constant_shares_are_kept_and_in_the_order_of_old_runs(weights):
    counter, given = BlendCounter(weights), [0] * len(weights)
    for row in range(1, 3001):
        counter.move_to(weights)
        behind = [weight * max(row - 1, 1) - count for weight, count in zip(weights, given)]
        chosen = counter.next()
        assert chosen == behind.index(max(behind)), "the rule of runs before there were phases, to the last bit"
        given[chosen] += 1
        assert all(abs(count - weight * row) < 1 + 1e-9 for count, weight in zip(given, weights))
    assert counter.counts == given
    assert all(given)


@pytest.mark.parametrize("has_zeros", [False, True])
@pytest.mark.parametrize("num_shards", [2, 3, 6])
def test_changing_shares_are_kept_too_however_they_change(num_shards, has_zeros):
    rng, worst = random.Random(num_shards), sum(1 / n for n in range(1, num_shards + 1))

    def draw():
        weights = [0.0 if has_zeros and rng.random() < 0.4 else rng.random() ** 3 for _ in range(num_shards)]
        weights = weights if any(weights) else [1.0] * num_shards
        return [weight / sum(weights) for weight in weights]

    now = draw()
    counter, target = BlendCounter(now), [0.0] * num_shards
    for _ in range(4000):
        if rng.random() < 0.05:
            now = draw()
            counter.move_to(now)
        assert now[counter.next()] > 0, "a shard without a share gives nothing"
        target = [due + share for due, share in zip(target, now)]
        assert all(due - given <= worst for due, given in zip(target, counter.counts))
        assert all(given - due < (2 if has_zeros else 1) for due, given in zip(target, counter.counts))


def test_a_change_of_shares_is_no_burst():
    counter = BlendCounter([0.9, 0.1])
    for _ in range(1000):
        counter.next()
    assert counter.counts == [900, 100]
    counter.move_to([0.5, 0.5])
    following = [counter.next() for _ in range(20)]
    assert 9 <= sum(following) <= 11, "by the new shares of all 1000 rows, 400 rows of the second were to come first"
    assert all(sum(four) in (1, 2, 3) for four in zip(*(following[k:] for k in range(4))))


def test_phases_begin_at_fractions_or_step_numbers_and_name_what_changes(folder):
    by_fraction = options_of(folder, phases=PHASES).schedule([1, 1, 1], STEPS)
    by_step = options_of(folder, phases=[PHASES[0] | {"begin": 10}, PHASES[1] | {"begin": 16}]).schedule([1, 1, 1], 99)
    assert by_fraction == by_step
    first, second, third = (6 / 9, 2 / 9, 1 / 9), (6 / 15, 8 / 15, 1 / 15), (0, 2 / 3, 1 / 3)
    assert [by_fraction.at(step) for step in (0, 9, 10, 15, 16, 19, 500)] == [*[first] * 2, *[second] * 2, *[third] * 3]
    at_once = options_of(folder, phases=[{"begin": 0.0, "weights": {"blended/a": 0}}, {"begin": 0.5}])
    assert at_once.schedule([1, 1, 1], STEPS).at(0) == (0, 2 / 3, 1 / 3)
    assert at_once.schedule([1, 1, 1], STEPS).at(10) == first, "no weights: those of the blend"
    one_step = options_of(folder, phases=PHASES).schedule([1, 1, 1], 1)
    assert one_step.at(0) == third, "phases that fall on one step: the last holds"


def test_linear_shares_move_from_point_to_point():
    schedule = BlendSchedule((0, 10, 20), ((1.0, 0.0), (1.0, 0.0), (0.5, 0.5)), is_linear=True)
    assert [schedule.at(step)[1] for step in (0, 9, 10, 12, 15, 19, 20, 30)] == pytest.approx(
        [0, 0, 0, 0.1, 0.25, 0.45, 0.5, 0.5]
    )
    rows = schedule.rows(lambda step: 0 if step == 3 else 4, 25)
    by_hand = sum(4 * schedule.at(step)[1] for step in range(25) if step != 3)
    assert rows == pytest.approx([4 * 24 - by_hand, by_hand])


@pytest.mark.parametrize("options", [{}, {"phases": PHASES}, {"phases": PHASES, "transition": "linear"}])
def test_every_step_resumes_exactly_at_one_rank_and_two(folder, options):
    through, states, rows = open_source(folder, **options), [], {}
    for step in range(STEPS):
        states.append(json.dumps(through.state_dict()))
        rows |= run(through, [step])
    states.append(json.dumps(through.state_dict()))
    assert len(states[-1]) < 800, "the state is small"
    for begin in range(STEPS):
        end = min(begin + 3, STEPS)
        for size in (1, 2):
            ranks = [open_source(folder, rank, size, **options) for rank in range(size)]
            for one in ranks:
                one.load_state_dict(json.loads(states[begin]))
            taken = [run(one, range(begin, end), size) for one in ranks]
            for step in taken[0]:
                rounds = zip(*(part[step].split(B) for part in taken))
                assert torch.equal(torch.cat([block for one in rounds for block in one]), rows[step])
            assert [json.dumps(one.state_dict()) for one in ranks] == [states[end]] * size


@pytest.mark.parametrize("transition", ["step", "linear"])
def test_each_phase_gets_its_shares(folder, transition):
    source = open_source(folder, phases=PHASES, transition=transition)
    borders = [0, 10, 16, STEPS]
    schedule = options_of(folder, phases=PHASES, transition=transition).schedule([1, 1, 1], STEPS)
    for begin, end in pairwise(borders):
        before = counts(source)
        run(source, range(begin, end))
        for shard, (name, count) in enumerate(counts(source).items()):
            wanted = sum(schedule.at(step)[shard] * microbatches_at(step) * B for step in range(begin, end))
            assert abs(count - before[name] - wanted) < 2
    if transition == "step":
        assert counts(source)["a"] == before["a"], "its last phase has none of it"


def test_a_checkpoint_from_before_there_were_phases_still_loads(folder):
    through = open_source(folder)
    run(through, range(10))
    state = json.loads(json.dumps(through.state_dict()))
    del state["since"]
    for shard in state["shards"].values():
        del shard["due"], shard["share"]
    same, phased = open_source(folder), open_source(folder, phases=PHASES)
    for source in (same, phased):
        source.load_state_dict(state)
    assert torch.equal(run(same, [10])[10], run(through, [10])[10])
    before = counts(phased)
    run(phased, range(10, 16))
    given = [counts(phased)[name] - before[name] for name in LABELS]
    assert given == pytest.approx([40 * 6 / 15, 40 * 8 / 15, 40 / 15], abs=2), "shares of the phase, nothing else owed"


def test_weights_that_were_changed_between_attempts_count_from_there(folder):
    before = open_source(folder)
    run(before, range(10))
    after = open_source(folder, blend={"a": 1, "b": 1, "c": 2})
    after.load_state_dict(before.state_dict())
    first = counts(after)
    run(after, range(12, 17))
    assert [counts(after)[name] - first[name] for name in LABELS] == pytest.approx([10, 10, 20], abs=1.9)


def plan(options, steps=STEPS, tokens=(680, 170, 51)):
    return plan_blend(options, tokens[: len(options.blend)], T, lambda step: microbatches_at(step) * B, steps)


@pytest.mark.parametrize("options", [{}, {"phases": PHASES}, {"phases": PHASES, "transition": "linear"}])
def test_epochs_are_as_predicted(folder, options):
    source, plans = open_source(folder, **options), plan(options_of(folder, **options))
    run(source, range(STEPS))
    figures = source.metrics()
    for plan_, rows_per_epoch in zip(plans, (84, 21, 6)):
        assert figures[f"epoch/{plan_.label}"] == pytest.approx(plan_.epochs, abs=1.9 / rows_per_epoch)
        assert plan_.epochs == pytest.approx(plan_.rows / rows_per_epoch)
    assert sum(plan_.rows for plan_ in plans) == pytest.approx(17 * 4 * B)
    shown = [line for line in source.prepare() if not line.startswith("warning")]
    assert [line.partition(":")[0] for line in shown] == list(LABELS.values())
    assert all(f"{plan_.epochs:.2f} epochs" in line for plan_, line in zip(plans, shown))
    changing = {key for key in figures if key.startswith("share/")}
    assert changing == ({f"share/{label}" for label in LABELS.values()} if options else set())
    if options:
        assert figures["share/blended/b"] == pytest.approx(2 / 3, abs=1e-9)


def test_many_epochs_and_phases_that_never_come_are_warned_of(folder):
    options = options_of(folder, phases=[{"begin": 10}, {"begin": 20, "weights": {"c": 0}}])
    plans = plan(options)
    assert [round(one.epochs, 2) for one in plans] == [1.08, 1.44, 2.52]
    assert remarks(options, plans, STEPS) == ["warning: phases.1 begins at step 20, and the run ends after 20 steps"]
    heavy = options_of(folder, blend={"a": 1, "c": 0.25})
    (warning,) = remarks(heavy, plan(heavy, tokens=(680, 51)), STEPS)
    assert warning.startswith("warning: blended/c is read 4.5 times")
    assert plan(options)[0].cells() == ("blended/a", "680", "66.7%", "66.7%", "91", "1.08")
    with pytest.raises(DataError, match="a: 8 tokens are less than one row"):
        plan(options, tokens=(8, 170, 51))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"mix": "size"}, r"source\.mix"),
        ({"mix": "temperature"}, "mix=temperature with temperature=None"),
        ({"temperature": 2}, "mix=weights with temperature=2.0"),
        ({"mix": "temperature", "temperature": 0.5}, r"source\.temperature.*greater than or equal to 1"),
        ({"transition": "linear"}, "transition=linear: there are no phases"),
        ({"transition": "smooth", "phases": PHASES}, r"source\.transition"),
        ({"phases": [{"weights": {"a": 1}}]}, r"source\.phases\.0\.begin"),
        ({"phases": [{"begin": 0.5, "wieghts": {"a": 1}}]}, r"source\.phases\.0\.wieghts"),
        ({"phases": [{"begin": 0.5, "weights": {"a": -1}}]}, r"source\.phases\.0\.weights\.a"),
        ({"phases": [{"begin": 0.5, "weights": {"a": float("inf")}}]}, r"source\.phases\.0\.weights\.a"),
        ({"phases": [{"begin": 1.5}]}, r"phases\.0: begin=1.5: a fraction"),
        ({"phases": [{"begin": float("nan")}]}, r"phases\.0: begin=nan: a fraction"),
        ({"phases": [{"begin": -3}]}, r"phases\.0: begin=-3: must be 0 or more"),
        ({"phases": [{"begin": 1}]}, "write 1.0 for the end of the run"),
        ({"phases": [{"begin": 0.5}, {"begin": 0.5}]}, r"phases\.1\.begin=0.5: must be after"),
        ({"phases": [{"begin": 0.5}, {"begin": 90}]}, "all as fractions of the run, or all as step numbers"),
        (
            {"phases": [{"begin": 0.5, "weights": {"aa": 1}}]},
            "weights.aa: no such shard.*did you mean 'a'",
        ),
        ({"phases": [{"begin": 0.5, "weights": {"a": 1, "blended/a": 1}}]}, "is the shard of a too"),
        ({"phases": [{"begin": 0.5, "weights": {"a": 0, "b": 0, "c": 0}}]}, r"phases\.0\.weights: all are 0"),
        ({"blend": {"a": float("inf")}}, r"source\.blend\.0\.weight"),
    ],
)
def test_what_does_not_go_together_is_refused_by_its_key(folder, options, match):
    with pytest.raises(ConfigError, match=match) as caught:
        options_of(folder, **options)
    assert "objectives.text.source" in str(caught.value)


def test_shards_of_one_name_are_told_apart_by_their_folders():
    blend = [{"path": "web/train"}, {"path": "books/train"}]
    where = {"begin": 0.5, "weights": {"books/train": 3}}
    options = registry.build(CorpusOptions, {"blend": blend, "phases": [where]}, "x")
    assert options.schedule([1, 1], 10).at(5) == (0.25, 0.75)
    with pytest.raises(ConfigError, match="the name of 2 shards; write one of web/train, books/train"):
        registry.build(CorpusOptions, {"blend": blend, "phases": [where | {"weights": {"train": 3}}]}, "x")
