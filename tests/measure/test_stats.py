"""Statistics against published quantiles and hand-computed values."""

import random

import pytest
from scipy import stats as scipy_stats

from playground.measure.stats import difference, grade, percentile, separated, summarise, t_quantile, wilson

# scipy.stats.t.ppf(0.975, degrees) of scipy 1.17.1
SCIPY_T = {
    1: 12.706205, 2: 4.302653, 3: 3.182446, 4: 2.776445, 5: 2.570582, 9: 2.262157, 10: 2.228139, 19: 2.093024, 29: 2.045230, 30: 2.042272,
    31: 2.039513, 32: 2.036933, 35: 2.030108, 40: 2.021075, 50: 2.008559, 60: 2.000298, 100: 1.983972, 120: 1.979930, 500: 1.964720,
    1000: 1.962339, 10000: 1.960201,
}  # fmt: skip

# scipy.stats.binomtest(hits, n).proportion_ci(method="wilson") of scipy 1.17.1
SCIPY_WILSON = {
    (0, 10): (0.0, 0.277533), (1, 10): (0.017876, 0.404150), (5, 10): (0.236593, 0.763407), (10, 10): (0.722467, 1.0),
    (73, 120): (0.518938, 0.691008), (119, 120): (0.954304, 0.998527), (1, 1): (0.206549, 1.0), (400, 1000): (0.370075, 0.430691),
}  # fmt: skip


@pytest.mark.parametrize(("degrees", "expected"), SCIPY_T.items())
def test_the_t_quantile_is_scipys(degrees, expected):
    assert t_quantile(degrees) == pytest.approx(expected, abs=1e-5)


def test_the_t_quantile_falls_with_each_degree_of_freedom_also_where_the_table_ends():
    quantiles = [t_quantile(degrees) for degrees in range(1, 200)]
    assert quantiles == sorted(quantiles, reverse=True)


def test_a_summary_by_hand():
    # mean 4, deviations -2 0 2, sample variance 8/2 = 4, standard error 2/sqrt(3), t(2) = 4.302653
    summary = summarise([2.0, 4.0, 6.0])
    assert summary.mean == 4.0
    assert summary.n == 3
    assert summary.cv == pytest.approx(0.5)
    assert summary.ci95 == pytest.approx((4 - 4.968275, 4 + 4.968275), abs=1e-5)
    assert summary.grade == "unstable"


def test_one_value_claims_no_interval_and_no_grade():
    assert (summarise([3.0]).ci95, summarise([3.0]).cv, summarise([3.0]).grade) == (None, None, "")


def test_equal_values_are_excellent_and_have_a_zero_width_interval():
    summary = summarise([3.0, 3.0])
    assert (summary.ci95, summary.cv, summary.grade) == ((3.0, 3.0), 0.0, "excellent")


def test_a_mean_of_zero_has_no_cv():
    assert summarise([-1.0, 1.0]).cv is None


def test_nothing_cannot_be_summarised():
    with pytest.raises(ValueError, match="at least one"):
        summarise([])


@pytest.mark.parametrize(
    ("cv", "name"), [(0.0499, "excellent"), (0.05, "good"), (0.0999, "good"), (0.10, "fair"), (0.1999, "fair"), (0.20, "unstable")]
)
def test_grades_change_at_5_10_and_20_percent(cv, name):
    assert grade(cv) == name


def test_variants_differ_only_when_their_intervals_do_not_touch():
    low, high, wide = summarise([1.0, 1.01, 0.99]), summarise([2.0, 2.01, 1.99]), summarise([0.5, 2.5, 1.5])
    assert separated(low, high)
    assert separated(high, low)
    assert not separated(low, wide)
    assert not separated(low, summarise([100.0]))
    assert not separated(summarise([1.0, 1.0]), summarise([1.0, 1.0]))


@pytest.mark.parametrize(("counted", "expected"), SCIPY_WILSON.items())
def test_the_interval_of_a_share_is_scipys(counted, expected):
    assert wilson(*counted) == pytest.approx(expected, abs=1e-6)


def test_a_share_of_nothing_or_of_more_than_all_has_no_interval():
    for hits, n in ((0, 0), (3, 2), (-1, 5)):
        with pytest.raises(ValueError, match="at least one trial"):
            wilson(hits, n)


def test_percentiles_interpolate_as_numpy_does():
    numpy = pytest.importorskip("numpy")
    values = [9.0, 1.0, 4.0, 7.5, 2.0, 2.0, 11.0]
    for q in (0, 1, 25, 50, 95, 99, 100):
        assert percentile(values, q) == pytest.approx(float(numpy.percentile(values, q)))
    assert percentile([1.0, 2.0], 50) == 1.5
    assert percentile([5.0], 99) == 5.0


def test_a_percentile_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="at least one"):
        percentile([], 50)


def test_the_interval_of_a_difference_is_welchs():
    new, old = [10.0, 11.0, 12.5, 10.5], [14.0, 13.5, 15.5]
    expected = scipy_stats.ttest_ind(new, old, equal_var=False).confidence_interval(0.95)
    low, high = difference(summarise(new), summarise(old), relative=False)
    # scipy interpolates degrees of freedom, here they are rounded down: never narrower
    assert low <= expected.low < expected.high <= high
    assert (low + high) / 2 == pytest.approx((expected.low + expected.high) / 2)
    assert high - low == pytest.approx(expected.high - expected.low, rel=0.15)


def test_the_interval_of_a_relative_difference_covers_the_truth_about_as_often_as_it_says():
    generator = random.Random(7)
    hits = 0
    for _ in range(2000):
        new, old = ([generator.gauss(mean, 0.05 * mean) for _ in range(5)] for mean in (3.0, 4.0))
        low, high = difference(summarise(new), summarise(old), relative=True)
        hits += low <= 3 / 4 - 1 <= high
    assert 0.93 < hits / 2000 < 0.98


def test_the_interval_of_a_ratio_is_fiellers_and_there_is_none_where_the_old_mean_may_be_0():
    # Two equal samples of 8 and 12: mean 10, standard error 2, and with 2 degrees of freedom t is 4.303. The bounds are the ratios r at
    # which (10 r - 10)^2 = 4.303^2 (2^2 + 2^2 r^2) for a sample of two each; 4.303 x 2 / 10 = 0.8606, and its square 0.7406.
    pair = summarise([8.0, 12.0]), summarise([8.0, 12.0])
    low, high = difference(*pair, relative=True)
    for ratio in (1 + low, 1 + high):
        assert (10 * ratio - 10) ** 2 == pytest.approx(4.303**2 * 4 * (1 + ratio**2), rel=1e-3)
    assert 1 + low == pytest.approx(1 / (1 + high))  # whichever of the two is called old
    assert difference(pair[0], summarise([4.0, 12.0]), relative=True) is None  # 8 ± more than 8


def test_without_repeats_a_difference_has_no_interval():
    assert difference(summarise([1.0]), summarise([2.0, 3.0]), relative=True) is None
    assert difference(summarise([1.0, 2.0]), summarise([0.0, 0.0]), relative=True) is None
    assert difference(summarise([2.0, 2.0]), summarise([1.0, 1.0]), relative=True) == (1.0, 1.0)
