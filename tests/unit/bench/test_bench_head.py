"""`rlpt bench head` on a small shape: its contenders agree, and its figures are of the right kind."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch

from rlpt.bench import head_peers
from rlpt.bench.head import contenders, main, run
from rlpt.bench.head_problem import LOSSES, Shape, clipped, make_problem, next_token

SMALL = Shape(48, 16, 700, 0.5, "float32", "cpu")
needs_liger = pytest.mark.skipif(find_spec("liger_kernel") is None, reason="liger-kernel, in rlpt[bench]")


def test_every_contender_has_the_naive_gradient(tmp_path, capsys):
    main(SMALL, pairs=2, threads=1, json_file=tmp_path / "head.json")
    found = json.loads((tmp_path / "head.json").read_text())["losses"]
    assert list(found) == list(LOSSES)
    for figures in found.values():
        assert {"naive torch", "rlpt, recompute", "rlpt, one pass", "products"} <= set(figures)
        for name, figure in figures.items():
            assert name == "products" or 0 <= figure["gradient_error"] < 1e-5
            assert figure["seconds"]["smallest"] > 0
    assert "share of limit" in capsys.readouterr().out


@needs_liger
def test_liger_has_each_loss_without_an_entropy():
    problem = make_problem(SMALL)
    assert [head_peers.LIGER in head_peers.peers(loss, problem.weight)[0] for loss in LOSSES.values()] == [1, 1, 0]
    found = float(head_peers.liger_clipped()(problem).detach())
    assert found == pytest.approx(float(contenders(clipped)["naive torch"](problem).detach()), rel=1e-5)
    gradients = []
    for contender in (head_peers.liger_on_policy(), contenders(next_token)["naive torch"]):
        run(problem, contender)
        gradients.append(problem.weight.grad)
    torch.testing.assert_close(*gradients)


@needs_liger
def test_ligers_fused_cross_entropy_is_called_with_what_it_takes():
    """By Triton's interpreter, which the environment chooses before anything imports Triton."""
    code = (
        "from rlpt.bench import head_peers, head_problem\n"
        "problem = head_problem.make_problem(head_problem.Shape(8, 16, 50, 0.5, 'float32', 'cpu'))\n"
        "for peer in (head_peers.liger_next_token(), head_peers.torch_next_token): print(float(peer(problem).detach()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found, expected = map(float, done.stdout.split())
    assert found == pytest.approx(expected, rel=1e-5)


def test_without_liger_one_line_names_the_extra(monkeypatch):
    monkeypatch.setattr(head_peers, "find_spec", lambda name: None)
    for loss in LOSSES.values():
        found, notes = head_peers.peers(loss, torch.zeros(1))
        assert head_peers.LIGER not in found
        assert notes == ["Liger-Kernel is not installed: pip install 'rlpt[bench]'"]
