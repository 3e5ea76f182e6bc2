"""Times of emergence, half-rise and stabilisation: known series, and what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffalign.dynamics.times import emergence, half_rise, stabilisation

T = np.array([1.0, 0.8, 0.5, 0.2, 0.0])


def series(*values: float) -> np.ndarray:
    return np.array([values], np.float64)


def test_a_line_in_t_has_times_that_can_be_computed() -> None:
    values = np.stack([2 * (1 - T), -4 * (1 - T), 5 * T, 1 + T])
    assert emergence(values[:2], T) == pytest.approx([0.1, 0.1])
    assert half_rise(values[:2], T) == pytest.approx([0.5, 0.5])
    assert stabilisation(values, T) == pytest.approx([0.1] * 4)
    assert emergence(values, T, 0.5) == pytest.approx([0.5, 0.5, 0, 0.5])
    assert stabilisation(values, T, 0.4) == pytest.approx([0.4] * 4)


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0])
@pytest.mark.parametrize("measure", [emergence, half_rise, stabilisation])
def test_what_never_leaves_is_there_from_the_first_state(measure, value: float) -> None:
    assert measure(np.full((2, 5), value), T) == pytest.approx([1, 1])


def test_a_measure_appears_when_it_comes_within_the_bound_for_good() -> None:
    # within 10 % of 1 at 0.8, too large at 0.5, and within again at a third of the way from 1.2 to 0.9
    assert emergence(series(0, 1, 1.2, 0.9, 1), T) == pytest.approx([0.5 - 0.3 / 3])
    # half of it counts when it is first reached, whatever comes later
    assert half_rise(series(0, 1, 1.2, 5, 1), T) == pytest.approx([0.9])
    assert half_rise(series(0, 1, 0.25, 0.75, 1), T) == pytest.approx([0.9])
    assert half_rise(series(0, 0, 1, -1, -2), T) == pytest.approx([0.2])
    assert half_rise(series(1.5, 0, 0, 1, 2), T) == pytest.approx([1])
    # it passes through the bound from above to below, and the interpolation keeps signs apart
    assert emergence(series(0, 0, 2, 0.95, 1), T) == pytest.approx([0.5 - 0.3 * 0.9 / 1.05])
    assert stabilisation(series(1, -1, 1, -1, 0), T) == pytest.approx([0.02])


def test_a_measure_that_ends_at_nothing_is_finite() -> None:
    assert emergence(series(1, 1, 1, 0, 0), T) == pytest.approx([0.2])
    assert emergence(series(1, 1, 1, 1, 0), T) == pytest.approx([0])
    assert half_rise(series(1, 1, 1, 1, 0), T) == pytest.approx([1])
    assert stabilisation(series(1, 1, 1, 1, 0), T) == pytest.approx([0.02])


def test_one_step_has_two_states() -> None:
    t = np.array([1.0, 0.0])
    assert emergence(series(0, 1), t) == pytest.approx([0.1])
    assert half_rise(series(0, 1), t) == pytest.approx([0.5])


@given(
    st.lists(st.floats(-1e3, 1e3, allow_subnormal=False), min_size=5, max_size=5),
    st.floats(-50, 50).filter(lambda factor: abs(factor) > 1e-3),
)
def test_times_are_those_of_the_scale_and_lie_on_the_axis(values: list[float], factor: float) -> None:
    row = np.round(series(*values), 3)
    for measure in (emergence, half_rise, stabilisation):
        (time,) = measure(row, T)
        assert 0 <= time <= 1
        # a power of 2 changes no rounding
        assert measure(4 * row, T) == pytest.approx([time])
        assert measure(-row, T) == pytest.approx([time])
    shifted = stabilisation(row + 256 * np.round(factor), T)
    assert shifted == pytest.approx(stabilisation(row, T), abs=1e-6)


@pytest.mark.parametrize("measure", [emergence, half_rise, stabilisation])
def test_what_has_no_time_is_refused(measure) -> None:
    values = np.ones((3, 5))
    with pytest.raises(ValueError, match=r"shape \(3, 5\) and t \(4,\)"):
        measure(values, T[1:])
    with pytest.raises(ValueError, match="expected two states or more, and that it falls"):
        measure(values[:, :1], T[:1])
    with pytest.raises(ValueError, match="t is 0, 0.2, 0.5, 0.8, 1; expected .* falls"):
        measure(values, T[::-1])
    values[[0, 2], 3] = np.nan
    values[1, 4] = np.inf
    with pytest.raises(ValueError, match="infinite at step 3, in rows 0, 2"):
        measure(values, T)
    for tolerant in (emergence, stabilisation):
        with pytest.raises(ValueError, match="tolerance of -0.1"):
            tolerant(np.ones((3, 5)), T, -0.1)
