"""`rlpt bench growth`: laws by hand, tiny measurements of every axis, and what is written and drawn."""

import json

import pytest
from helpers.tiny_model import one_rank

from rlpt.bench.generation import Shape, build_policy, model_config
from rlpt.bench.growth import laws
from rlpt.bench.growth.command import Bench, Workload, main
from rlpt.bench.growth.curves import Axis, Curve, Growth, Point, Way, growth
from rlpt.bench.growth.figure import plot_growth
from rlpt.bench.growth.rollouts import Sizes, converse
from rlpt.bench.growth.tensor import RankReport, tensor_curves
from rlpt.bench.paired import summarize
from rlpt.distributed.device import setup_device
from rlpt.errors import UserError
from rlpt.rollout.generator import PolicyGenerator

TINY = Shape(num_layers=2, hidden_size=32, num_attention_heads=4, ffn_hidden_size=48, vocab_size=90, sequence_length=64)
WEIGHTS = 2 * (4 * 32 * 32 + 3 * 32 * 48) + 32 * 90
SEEN = 4 * 2 * 32  # operations for each token that a token attends to
WORKLOAD = Workload(
    TINY,
    Sizes(6, 4, (1, 3), 2, 3, (2, 5), 3, 2, (1, 3)),
    head_rows=24,
    head_hidden=16,
    vocabularies=(50, 90),
    step_shape=TINY,
    step_rows=2,
    ranks=(2,),
)


@pytest.fixture(scope="module")
def _rank():
    with one_rank():
        yield


def test_a_token_attends_to_itself_and_to_all_before_it():
    assert laws.read_flops(TINY, 0, 3) == 3 * 2 * WEIGHTS + SEEN * (1 + 2 + 3)
    assert laws.read_flops(TINY, 5, 7) == 2 * 2 * WEIGHTS + SEEN * (6 + 7)


def test_a_shared_prompt_is_read_once():
    """Four samples of 3 tokens after 10: 10 + 4 * 2 tokens are read, or 4 * 12; the last one drawn is not."""
    steps, prompt = 11 + 12, sum(range(1, 11))
    assert laws.rollout_flops(TINY, 10, 3, 1, 4) == 18 * 2 * WEIGHTS + SEEN * (prompt + 4 * steps)
    assert laws.rollout_flops(TINY, 10, 3, 4, 4) == 48 * 2 * WEIGHTS + SEEN * 4 * (prompt + steps)


def test_a_response_costs_more_than_its_tokens():
    """N = 5 after 1: tokens at contexts 1 to 5."""
    assert laws.rollout_flops(TINY, 1, 5, 1, 1) == 5 * 2 * WEIGHTS + SEEN * 15


def test_turns_read_their_own_tokens_or_all_before():
    """Turns of 3 + 2: kept 14 tokens in three turns, read again 4 + 9 + 14."""
    assert laws.kept_turns_flops(TINY, 3, 3, 2) == 14 * 2 * WEIGHTS + SEEN * 105
    assert laws.reread_turns_flops(TINY, 3, 3, 2) == 27 * 2 * WEIGHTS + SEEN * (10 + 45 + 105)
    assert laws.reread_turns_flops(TINY, 1, 3, 2) == laws.kept_turns_flops(TINY, 1, 3, 2)


def test_bytes_by_law():
    assert laws.cache_bytes(TINY, 10, 4) == 2 * 2 * 32 * 10 * 4
    assert laws.head_flops(24, 16, 50) == 6 * 24 * 16 * 50
    norms = 5 * 32
    assert laws.state_bytes(TINY, 1, 4) == 16 * (WEIGHTS + norms)
    assert laws.state_bytes(TINY, 2, 2) == 18 * (WEIGHTS / 2 + norms)
    assert laws.ring_bytes(100, 1) == 0
    assert laws.ring_bytes(100, 4) == 150
    assert laws.sent_bytes(TINY, 7, 2, 4) == (4 * 2 + 2) * 7 * 32 * 4


def test_ranks_share_the_computation_and_send():
    reports = {1: RankReport(900, 10, 0.0), 2: RankReport(500, 10, 1e6)}
    [curve] = tensor_curves(TINY, 7, 4, {1: [3.0, 1.0, 2.0], 2: [2.0, 1.0, 4.0]}, reports)
    assert [point.work for point in curve.points] == [2.0, 1.0 + laws.sent_bytes(TINY, 7, 2, 4) / 1e6]
    assert curve.law_seconds() == [point.work for point in curve.points]
    assert [point.bytes for point in curve.points] == [900, 500]
    assert curve.points[1].growth == summarize([2 / 3, 1.0, 2.0])


def test_figures_are_compared_within_the_rounds():
    ways = tuple(
        Way(name, None, work, lambda size: 100.0 * size) for name, work in (("a", float), ("b", lambda n: n * n))
    )
    axis = Axis("group", "Group", "samples", "tiny", (), ways, (2, 4))
    seconds = {("a", 2): [1.0, 2.0], ("a", 4): [2.0, 6.0], ("b", 2): [3.0, 2.0], ("b", 4): [8.0, 6.0]}
    found = growth(axis, seconds, dict.fromkeys(seconds, 7))
    first, second = found.curves
    assert first.points[1].growth == summarize([2.0, 3.0])
    assert second.points[1].over_first_way == summarize([4.0, 1.0])
    assert second.law_seconds() == [2.5, 10.0]
    assert (second.points[1].bytes, second.points[1].held) == (7, 400.0)


@pytest.mark.usefixtures("_rank")
def test_a_conversation_is_the_same_both_ways():
    config = model_config(TINY, "cpu", 1)
    policy = build_policy(config, TINY.vocab_size, setup_device(config.device))
    given = [[[5, 6, 7], [8, 9, 10]], [[11, 12], [13, 14]], [[15], [16]]]
    texts = []
    for forgets in (False, True):
        with PolicyGenerator(policy, 2).session() as generator:
            texts.append(converse(generator, given, 4, forgets))
    assert texts[0] == texts[1]
    assert [len(text) for text in texts[0]] == [3 + 2 + 1 + 3 * 4] * 2


@pytest.mark.usefixtures("_rank")
def test_caches_are_counted_in_tokens():
    """A slot a row, and what is read; where caches are kept, the texts of the turn before, too."""
    axes = Bench(WORKLOAD, "cpu", 1).here
    token = laws.cache_bytes(TINY, 1, 4)
    held = {name: [way.held(3) / token for way in axes[name]().ways] for name in ("group", "response", "turns")}
    assert held == {
        "group": [3 * 10 + 6, 3 * 10 + 18],
        "response": [2 * (6 + 3)],
        "turns": [2 * (15 + 13 + 10), 2 * 28],
    }


@pytest.mark.usefixtures("_rank")
def test_all_axes_are_measured_written_and_drawn(tmp_path, capsys):
    main([], 2, "cpu", 1, tmp_path / "growth.json", tmp_path / "growth.png", WORKLOAD)
    found = json.loads((tmp_path / "growth.json").read_text())
    sizes = {one["axis"]: [point["size"] for point in one["curves"][0]["points"]] for one in found["axes"]}
    assert sizes == {"group": [1, 3], "response": [2, 5], "turns": [1, 3], "vocabulary": [50, 90], "tensor": [2]}
    assert {one["axis"]: len(one["curves"]) for one in found["axes"]} == {
        **dict.fromkeys(("group", "turns", "vocabulary"), 2),
        **dict.fromkeys(("response", "tensor"), 1),
    }
    for one in found["axes"]:
        for point in (point for curve in one["curves"] for point in curve["points"]):
            assert 0 < point["seconds"]["smallest"] <= point["seconds"]["median"] <= point["seconds"]["largest"]
            assert point["held"] > 0
            assert point["work"] > 0
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
    assert "history read each turn" in capsys.readouterr().out


def test_an_unknown_axis_is_named():
    with pytest.raises(UserError, match="tensor"):
        main(["tensors"], 1, "cpu", 1, None, None, WORKLOAD)


def test_the_picture_has_the_points_and_the_laws(tmp_path, monkeypatch):
    def curve(way, scale):
        seconds = [summarize([scale * size, scale * size * 2, scale * size * 3]) for size in (1, 4)]
        points = [Point(size, one, one, one, size**2, 2**20 * size, 2**21 * size) for size, one in zip((1, 4), seconds)]
        return Curve(way, tuple(points))

    drawn = []
    monkeypatch.setattr("rlpt.bench.growth.figure.save", lambda figure, path: drawn.append(figure) or path)
    given = Growth("group", "Group size", "samples", "tiny", ("a note",), (curve("one", 1.0), curve("other", 10.0)))
    plot_growth([given, given], tmp_path / "growth.png")
    time, _, memory, _ = drawn[0].axes
    lines = {line.get_label(): line for line in time.get_lines()}
    assert list(time.containers[1].lines[0].get_ydata()) == [20.0, 80.0]
    assert list(time.get_lines()[-1].get_ydata()) == [20.0, 320.0]
    assert lines["its law"].get_linestyle() == "--"
    assert list(memory.containers[0].lines[0].get_ydata()) == [1.0, 4.0]
    assert [one.get_text() for one in memory.get_legend().get_texts()] == ["one", "its law", "other", "its law"]
    assert time.get_xlabel() == "samples"
    assert "a note" in drawn[0].get_supxlabel()
