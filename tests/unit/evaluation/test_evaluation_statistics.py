"""pass@k, Wilson, clustered and Student-t intervals against published or enumerated numbers."""

import itertools
import math

import pytest

from rlpt.evaluation.statistics import (
    clustered_wilson_interval,
    mean_interval,
    pass_at_k,
    student_t_quantile,
    wilson_interval,
)


@pytest.mark.parametrize(("n", "c", "k"), [(5, 2, 1), (5, 2, 3), (6, 1, 4), (4, 0, 2), (4, 4, 4), (6, 5, 2)])
def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample(n, c, k):
    subsets = list(itertools.combinations(range(n), k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(min(s) < c for s in subsets) / len(subsets), abs=1e-12)


@pytest.mark.parametrize(("n", "c", "k"), [(4, 5, 1), (4, 1, 5), (4, -1, 1), (4, 1, 0)])
def test_pass_at_k_refuses_what_is_not_defined(n, c, k):
    with pytest.raises(ValueError, match="not defined"):
        pass_at_k(n, c, k)


def test_wilson_matches_published_values():
    # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3
    for successes, trials, low, high in [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)]:
        assert wilson_interval(successes / trials, trials) == pytest.approx((low, high), abs=5e-5)
    assert wilson_interval(1.0, 29)[1] == 1.0


def test_clustered_interval_lies_between_samples_and_problems():
    independent, alike = [0.25, 0.5, 0.75, 0.5] * 8, [0.0, 1.0] * 16
    assert clustered_wilson_interval(independent, 4) == wilson_interval(0.5, 128)  # less spread than chance: all count
    low, high = clustered_wilson_interval(alike, 4)
    assert (low, high) == pytest.approx(wilson_interval(0.5, 32), abs=0.01)  # all samples of a problem alike
    assert clustered_wilson_interval([0.0] * 32, 4) == wilson_interval(0.0, 32)


def test_student_t_quantiles_match_tables():
    for degrees, value in [
        (1, 12.706205),
        (2, 4.302653),
        (3, 3.182446),
        (4, 2.776445),
        (30, 2.042272),
        (999, 1.962341),
    ]:
        assert student_t_quantile(0.975, degrees) == pytest.approx(value, abs=2e-6)
    assert student_t_quantile(0.5, 3) == pytest.approx(0.0, abs=1e-12)


def test_mean_interval():
    low, high = mean_interval([1.0, 2.0, 3.0])
    assert (low, high) == pytest.approx((2 - 4.302653 / math.sqrt(3), 2 + 4.302653 / math.sqrt(3)), abs=1e-5)
    assert mean_interval([1.0]) == (-math.inf, math.inf)
