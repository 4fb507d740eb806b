"""Fits of a line of points, against lines that were made by hand."""

from __future__ import annotations

import pytest

from playground.measure.fits import exponent, growth, leaves, parabola

LENGTHS = [128, 256, 512, 1024, 2048, 4096]


@pytest.mark.parametrize("power", [0.0, 1.0, 1.5, 2.0])
def test_the_exponent_of_a_power_is_that_power(power: float) -> None:
    assert exponent(LENGTHS, [3e-4 * n**power for n in LENGTHS]) == pytest.approx(power, abs=1e-9)


def test_there_is_no_exponent_of_one_length_or_of_no_time() -> None:
    assert exponent([128, 128], [1.0, 2.0]) is None
    assert exponent([1, 2], [0.0, 2.0]) is None


def test_a_parabola_is_found_with_the_share_of_its_square() -> None:
    found = parabola(LENGTHS, [0.010 + 2e-5 * n + 1e-8 * n * n for n in LENGTHS])
    assert found is not None
    assert (found.constant, found.linear, found.quadratic) == pytest.approx((0.010, 2e-5, 1e-8), rel=1e-6)
    # At 4,096 tokens: 0.010 + 0.08192 + 0.16777 s, of which the last is the square's.
    assert found.square == pytest.approx(0.16777 / 0.25969, abs=1e-4)


def test_noise_around_a_straight_line_makes_no_negative_part() -> None:
    times = [1e-4 * n * wobble for n, wobble in zip(LENGTHS, (1.02, 0.99, 1.01, 1.0, 0.99, 0.97), strict=True)]
    found = parabola(LENGTHS, times)
    assert found is not None
    assert min(found.constant, found.linear, found.quadratic) == 0
    assert found.square < 0.02


def test_batching_stops_being_free_between_two_points_on_a_scale_of_doublings() -> None:
    # 1.1 times the first is half way from 1.0 at 4 rows to 1.2 at 16: at 8 rows.
    assert leaves([1, 4, 16, 64], [1.0, 1.0, 1.2, 4.0], 1.1) == pytest.approx(8)
    assert leaves([1, 4, 16], [1.0, 1.05, 1.09], 1.1) is None
    assert leaves([1, 2, 4, 16], [1.0, 1.3, 1.0, 1.2], 1.1) == pytest.approx(8), "a step that was slow by chance is no end"
    assert leaves([1, 2, 4], [1.0, 1.3, 1.0], 1.1) is None


def test_growth_is_a_start_and_a_share_of_the_size() -> None:
    assert growth([1, 2, 4], [3.0, 4.0, 6.0]) == pytest.approx((2.0, 1.0))
    assert growth([2, 2], [3.0, 5.0]) == (4.0, 0.0)
    assert growth([1, 2], [4.0, 2.0])[1] == 0.0
