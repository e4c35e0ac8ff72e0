"""`rlpt bench head` on a small shape: its contenders agree, and its figures are of the right kind."""

import json

from rlpt.bench.head import Shape, main


def test_every_contender_has_the_naive_gradient(tmp_path, capsys):
    main(Shape(48, 16, 700, 0.5, "float32", "cpu"), pairs=2, threads=1, json_file=tmp_path / "head.json")
    found = json.loads((tmp_path / "head.json").read_text())["losses"]
    assert list(found) == ["next-token", "clipped policy gradient"]
    for figures in found.values():
        assert {"naive torch", "rlpt, recompute", "rlpt, one pass", "products"} <= set(figures)
        for name, figure in figures.items():
            assert name == "products" or 0 <= figure["gradient_error"] < 1e-5
            assert figure["seconds"]["smallest"] > 0
    assert "share of limit" in capsys.readouterr().out
