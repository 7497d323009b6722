"""Intervals, permutation tests and escape times against scipy, by hand, and by their coverage."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from jqlight.report.statistics import (
    Escapes,
    Sample,
    difference,
    holm,
    interval,
    permutation_p,
    seeds_that_would_tell,
    smallest_p,
)


def sample(*scores: float, seeds: str = "0123456789", table: np.ndarray | None = None) -> Sample:
    index = list(seeds[: len(scores)])
    found = (
        None if table is None else pd.DataFrame(table, index=index, columns=[f"q{i}" for i in range(table.shape[1])])
    )
    return Sample(pd.Series(scores, index=index, dtype=float), found)


def crossed(generator: np.random.Generator, seeds: int, questions: int, mean: float = 0.5) -> Sample:
    """Scores with an effect of the seed, of the question, and of both together."""
    table = mean + 0.05 * generator.standard_normal((seeds, 1)) + 0.3 * generator.standard_normal((1, questions))
    table = table + 0.3 * generator.standard_normal((seeds, questions))
    return sample(*table.mean(axis=1), table=table)


def test_an_interval_over_seeds_alone_is_students():
    values = np.array([0.5, 0.6, 0.8, 0.4])
    low, high = interval(values.mean(), [values])
    expected = stats.t.interval(0.95, 3, loc=values.mean(), scale=stats.sem(values))
    assert (low, high) == pytest.approx(expected, abs=0.01)  # the bootstrap's own noise


def test_levels_add_up_and_a_level_of_one_tells_nothing():
    seeds, questions = np.array([0.4, 0.6, 0.5]), np.array([0.1, 0.9, 0.6, 0.4])
    alone, both = interval(0.5, [seeds]), interval(0.5, [seeds, questions])
    assert both[1] - 0.5 > questions.std(ddof=1) / 2 > 0.1
    assert interval(0.5, [seeds, np.array([0.5])]) == alone
    assert interval(0.5, [np.array([0.5])]) is None
    assert interval(0.5, [np.array([0.5, 0.5])]) == (0.5, 0.5)


@pytest.mark.parametrize(("seeds", "least"), [(2, 0.88), (5, 0.92)])
def test_intervals_hold_the_mean_in_about_95_of_100_studies(seeds, least):
    generator = np.random.default_rng(0)
    found = [crossed(generator, seeds, 40).interval() for _ in range(150)]
    held = np.mean([low <= 0.5 <= high for low, high in found])
    assert least <= held <= 0.995


def test_a_share_stays_between_0_and_1():
    low, high = Sample(pd.Series([0.9, 1.0], index=["0", "1"]), share=True).interval()
    assert (low >= 0, high) == (True, 1.0)
    assert sample(0.9, 1.0).interval()[1] > 1


def test_permutation_is_scipys_over_runs():
    a, b = sample(0.5, 0.6, 0.7, 0.9), sample(0.4, 0.65, 0.3, 0.2)
    test = stats.permutation_test(
        (a.values, b.values), lambda x, y: x.mean() - y.mean(), permutation_type="independent", n_resamples=math.inf
    )
    found = difference(a, b)
    assert found.p == permutation_p(a, b) == pytest.approx(test.pvalue)
    assert (found.value, found.paired) == (pytest.approx(0.2875), False)
    assert found.smallest == pytest.approx(2 / 70)


def test_three_against_three_cannot_be_significant():
    assert difference(sample(0.9, 0.91, 0.92), sample(0.1, 0.11, 0.12)).p == pytest.approx(0.1)
    assert smallest_p(3, 3) == pytest.approx(0.1)
    assert smallest_p(1, 1) == 1.0
    assert smallest_p(5, 5, paired=True) == pytest.approx(1 / 16)


def test_six_common_seeds_are_paired_and_make_a_small_difference_visible():
    base = np.array([0.1, 0.3, 0.5, 0.7, 0.8, 0.9])
    a, b = sample(*(base + 0.02)), sample(*base[::-1], seeds="543210")  # the same seeds in another order
    found = difference(a, b)
    assert found.paired and found.p == pytest.approx(2 / 64)
    assert found.interval == (pytest.approx(0.02), pytest.approx(0.02))
    assert not difference(a, sample(*base, seeds="abcdef")).paired
    assert not difference(a, sample(*base, seeds="001234")).paired  # a seed that came twice


def test_the_questions_own_difficulty_leaves_the_difference():
    generator = np.random.default_rng(1)
    hard = generator.random(200)
    tables = [np.clip(hard + shift + 0.02 * generator.standard_normal((3, 200)), 0, 1) for shift in (0.05, 0.0)]
    a, b = (sample(*table.mean(axis=1), table=table) for table in tables)
    low, high = difference(a, b).interval
    assert 0.02 < low < high < 0.08
    assert a.interval()[1] - a.interval()[0] > 2 * (high - low)


def test_ties_and_single_runs():
    same = sample(0.5, 0.5, 0.5)
    assert (difference(same, same).p, difference(same, same).interval) == (1.0, (0.0, 0.0))
    assert permutation_p(sample(0.5), same) is None
    assert difference(sample(0.5), same).p is None


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_seeds_that_would_tell_are_the_t_tests_and_never_below_what_a_permutation_needs():
    a, b = sample(0.4, 0.5, 0.6), sample(0.5, 0.6, 0.7)
    n = seeds_that_would_tell(a, b, 1)
    assert n == 17  # the textbook's answer for an effect of one standard deviation, 80 % at 0.05
    assert seeds_that_would_tell(a, b, 6) > n
    assert seeds_that_would_tell(sample(0.9, 0.91, 0.92), sample(0.1, 0.11, 0.12), 1) == 4
    assert seeds_that_would_tell(sample(0.5, 0.6), sample(0.5, 0.6), 1) is None
    assert seeds_that_would_tell(sample(0.5), sample(0.9), 10) == 6  # 2/924 is the first below 0.005


@pytest.mark.parametrize(
    ("escaped", "never", "median", "text"),
    [
        ([10, 30, 20], [], 20, "20 (3 of 3)"),
        ([10, 20], [60, 60], 20, "20 (2 of 4)"),
        ([10], [60, 60, 60], None, "> 60 (1 of 4)"),
        ([], [40, 60], None, "> 60 (0 of 2)"),
        ([30], [5, 60], 30, "30 (1 of 3)"),  # the run that ended at step 5 says nothing about step 30
        ([], [], None, "–"),
    ],
)
def test_the_median_escape_counts_who_never_escaped(escaped, never, median, text):
    found = Escapes([float(step) for step in escaped], [float(step) for step in never])
    assert (found.median, str(found)) == (median, text)


def test_log_rank_is_scipys():
    fast, slow = Escapes([10, 12, 15]), Escapes([30], [60, 60])
    x = stats.CensoredData(uncensored=[10, 12, 15])
    y = stats.CensoredData(uncensored=[30], right=[60, 60])
    assert fast.log_rank(slow) == pytest.approx(stats.logrank(x, y).pvalue)
    assert fast.log_rank(fast) == pytest.approx(1.0)
    assert Escapes([], [60, 60]).log_rank(Escapes([], [60, 60])) is None
    assert Escapes([10]).log_rank(slow) is None
