"""When a measure appears: times of emergence, half-rise and stabilisation, on the axis t = σ/(α + σ).

Series are arrays (N, S+1), one row a sample, over states from noise to image; t (S+1,) falls. A time is the t at which
a series comes within a bound: for good, or for the first time. Between the state before and the one after, the series
is taken to be a line in t, and the time is where it crosses the bound. A series that is within the bound from the first
state on has the t of that state.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from diffalign.offenders import first_five, flagged

Array = NDArray[np.float64]


def emergence(values: Array, t: Array, tolerance: float = 0.1) -> Array:
    """The time (N,) from which each series stays within `tolerance` of its final value: |v - end| ≤ tolerance |end|.

    A final value of 0 is reached only where the series is 0. Raises ValueError for a negative tolerance, other shapes,
    fewer than two states, t that does not fall, and that names step and row of values that are NaN or infinite.
    """
    _check(values, t, tolerance)
    end = values[:, -1:]
    return _settled(values - end, tolerance * np.abs(end), t)


def stabilisation(values: Array, t: Array, share: float = 0.1) -> Array:
    """The time (N,) from which each series stays within `share` of its largest distance from its final value.

    It has a meaning also for measures whose zero has none, or whose final value is 0. Errors: as `emergence`.
    """
    _check(values, t, share)
    rest = values - values[:, -1:]
    return _settled(rest, share * np.abs(rest).max(axis=1, keepdims=True), t)


def half_rise(values: Array, t: Array) -> Array:
    """The time (N,) at which each series first reaches half of its final value, on the side of that value.

    A series that ends at 0 has no side, and the t of the first state. Errors: as `emergence`.
    """
    _check(values, t, 0.0)
    end = values[:, -1:]
    lack = np.abs(end) / 2 - np.sign(end) * values
    # the last state always reaches it
    return _crossing(lack, np.argmax(lack <= 0, axis=1) - 1, np.zeros_like(end), t)


def _settled(rest: Array, bound: Array, t: Array) -> Array:
    """The time from which |rest| ≤ bound (N, 1); the last state always is."""
    outside = np.abs(rest) > bound
    last = len(t) - 1 - np.argmax(outside[:, ::-1], axis=1)
    return _crossing(rest, np.where(outside.any(axis=1), last, -1), bound, t)


def _crossing(rest: Array, before: NDArray[np.intp], bound: Array, t: Array) -> Array:
    """Where `rest` comes to the bound (N, 1) on its side, between the state `before` (N,), which is outside, and the
    next; the first t where `before` is -1.
    """
    here, rows = np.maximum(before, 0), np.arange(len(rest))
    outer, inner = rest[rows, here], rest[rows, here + 1]
    way = np.where(before < 0, 1.0, outer - inner)
    share = np.where(before < 0, 0.0, (outer - np.sign(outer) * bound[:, 0]) / way)
    return np.asarray(t[here] + share * (t[here + 1] - t[here]), np.float64)


def _check(values: Array, t: Array, tolerance: float) -> None:
    if tolerance < 0:
        raise ValueError(f"a tolerance of {tolerance:g}; expected 0 or more")
    if t.ndim != 1 or values.ndim != 2 or values.shape[1] != len(t):
        raise ValueError(f"values have shape {values.shape} and t {t.shape}; expected (N, S+1) and (S+1,)")
    if len(t) < 2 or not (np.diff(t) < 0).all():
        raise ValueError(f"t is {', '.join(f'{each:g}' for each in t)}; expected two states or more, and that it falls")
    bad = ~np.isfinite(values)
    if bad.any():
        step = int(bad.any(axis=0).argmax())
        rows = flagged(map(str, range(len(values))), bad[:, step])
        raise ValueError(f"values are NaN or infinite at step {step}, in rows {first_five(rows)}")
