"""Affinities within a set of features, and the scale at which they have a wanted mean."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from diffalign.offenders import first_five

if TYPE_CHECKING:
    import torch

Array = NDArray[np.floating[Any]]

# rows whose squared distance is below this share of their squared norms are equal: what is left is rounding of float64
EQUAL = 1e-13
# distances that a pass over them, once for each γ, takes at a time: they stay in the cache of a core
_CACHED = 2**19
# of log γ
_TOLERANCE = 1e-9


def check_rows(x: Array, what: str = "features", names: Sequence[str] | None = None) -> None:
    """Raise ValueError where x isn't (N, D) of float32 or float64, and that names the rows that are NaN or infinite.

    names: of the rows; else messages have their numbers.
    """
    if x.ndim != 2 or not x.size:
        raise ValueError(f"{what} have shape {x.shape}; expected (rows, columns), at least one of each")
    if x.dtype not in (np.float32, np.float64):
        raise ValueError(f"{what} are {x.dtype}; allowed: float32, float64")
    finite = np.concatenate([np.isfinite(each).all(axis=1) for _, each in row_blocks(x, 2**24)])
    bad: list[int] = np.flatnonzero(~finite).tolist()
    if bad:
        listed = [f"row {row}" if names is None else names[row] for row in bad]
        raise ValueError(f"{what} are NaN or infinite in {first_five(listed)}")


def row_blocks(x: Array, values: int) -> Iterator[tuple[int, Array]]:
    """Number of the first row, and rows of at most so many values, at least one."""
    size = max(1, values // x.shape[1])
    for begin in range(0, len(x), size):
        yield begin, x[begin : begin + size]


def rows_in(memory_mb: int, x: Array, y: Array) -> int:
    """Rows of x (N, D) whose distances to all rows of y (M, D), three float64 arrays of them, fit into memory_mb."""
    return int(max(1, memory_mb * 2**20 // (8 * (3 * len(y) + 2 * x.shape[1]))))


def total_variance(x: Array) -> float:
    """Σ_d var_d of x (N, D), unbiased (N - 1), in float64. 0 for rows that are all equal.

    Raises ValueError for fewer than two rows, and for rows that are NaN or infinite.
    """
    check_rows(x)
    if len(x) < 2:
        raise ValueError("a variance needs at least 2 rows; there is 1")
    # about the first row, so that equal rows have no variance at all
    first = x[0].astype(np.float64)
    mean = sum((block.astype(np.float64) - first).sum(axis=0) for _, block in row_blocks(x, 2**22)) / len(x)
    squares = sum(float(np.square(block - first - mean).sum()) for _, block in row_blocks(x, 2**22))
    return squares / (len(x) - 1)


def squared_distances(x: Array, y: Array) -> torch.Tensor:
    """‖x_i - y_j‖², (N, M) float64, of rows x (N, D) and y (M, D).

    From squared norms and products about the mean of y, in float64, of which little cancels for features of float32;
    rows that are equal up to rounding have distance 0.
    """
    import torch

    middle = y.mean(axis=0, dtype=np.float64)
    a, b = torch.from_numpy(x - middle), torch.from_numpy(y - middle)
    norms = a.square().sum(1)[:, None] + b.square().sum(1)[None, :]
    distances = torch.addmm(norms, a, b.T, alpha=-2)
    return distances.masked_fill_(distances <= EQUAL * norms, 0)


def rbf_affinity(x: Array, y: Array, gamma: float, variance: float) -> Array:
    """exp(-‖x_i - y_j‖² / (2 γ variance)), (N, M) in the dtype of x; x (N, D), y (M, D).

    variance: `total_variance` of the set that sets the unit, so that the affinity doesn't change with shift, rotation
    and isotropic scale of that set. Raises ValueError for other shapes, rows that are NaN or infinite, and a γ or
    variance that is not positive.
    """
    check_rows(x)
    _check_same_width(x, y)
    if not (gamma > 0 and variance > 0 and np.isfinite(gamma * variance)):
        raise ValueError(f"gamma = {gamma} and variance = {variance}; both must be positive and finite")
    return _affinity(x, y, 2 * gamma * variance)


def _affinity(x: Array, y: Array, width: float) -> Array:
    made: Array = (squared_distances(x, y) / -width).exp_().numpy()
    return made.astype(x.dtype, copy=False)


def affinity_blocks(x: Array, y: Array, gamma: float, variance: float, memory_mb: int) -> Iterator[tuple[int, Array]]:
    """`rbf_affinity` of x and y, checked by the caller, as (first row, block of rows) that fit into memory_mb."""
    size = rows_in(memory_mb, x, y)
    for begin in range(0, len(x), size):
        yield begin, _affinity(x[begin : begin + size], y, 2 * gamma * variance)


def _check_same_width(x: Array, y: Array) -> None:
    check_rows(y, "the others")
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"features have {x.shape[1]} columns and the others {y.shape[1]}; they must be the same")


def scale(x: Array, landmarks: Array, c: float, memory_mb: int = 1024) -> float:
    """The γ at which the mean of A(x, landmarks; γ, total_variance(x)) is c.

    x: (N, D). landmarks: (m, D), rows of x. The mean grows with γ, so that its root is found by bisection (Brent's,
    which interpolates where it can). memory_mb: distances are kept, in the dtype of x, where they take at most this,
    and are else computed anew for each of about ten values of γ.

    Raises ValueError for constant features, rows that are NaN or infinite, and a c that no γ reaches: the mean lies
    above the share of pairs with distance 0, which is 1 / N where rows are distinct, and below 1.
    """
    import torch
    from scipy.optimize import brentq

    check_rows(x)
    _check_same_width(x, landmarks)
    variance = total_variance(x)
    if variance == 0:
        raise ValueError(f"features are constant: all {len(x)} rows are equal, and no scale makes them differ")
    distances = _distances(x, landmarks, variance, memory_mb)
    pairs = len(x) * len(landmarks)
    zero = sum(int((block == 0).sum()) for block in distances()) / pairs
    mean = sum(float(block.sum(1).sum(dtype=torch.float64)) for block in distances()) / pairs
    if not zero < c < 1:
        raise ValueError(
            f"c = {c}: affinities of {len(x)} rows to {len(landmarks)} landmarks have a mean between {zero:.4g}, the "
            "share of pairs that are equal, and 1, both excluded"
        )

    def excess(log_gamma: float) -> float:
        width = -2 * float(np.exp(log_gamma))
        # below exp(-87), which is nothing in a mean, float32 has no normal numbers, and arithmetic with others is slow
        made = (block.div(width).clamp_(min=-87).exp_().sum(1).sum(dtype=torch.float64) for block in distances())
        return sum(map(float, made)) / pairs - c

    # the mean of exp is at least exp of the mean (Jensen), which bounds γ from above
    high = float(np.log(mean / (-2 * np.log(c))))
    low = high - 1
    while excess(low) > 0:
        high, low = low, low - 2 * (high - low)
    return float(np.exp(brentq(excess, low, high, xtol=_TOLERANCE, rtol=_TOLERANCE)))


def _distances(x: Array, y: Array, variance: float, memory_mb: int) -> Callable[[], Iterator[torch.Tensor]]:
    """Blocks of squared distances in units of the variance, as often as they are asked for."""
    import torch

    kind = torch.float32 if x.dtype == np.float32 else torch.float64
    keep = len(x) * len(y) * x.dtype.itemsize <= memory_mb * 2**20
    size = min(rows_in(max(1, memory_mb // 4), x, y), max(1, _CACHED // len(y)))

    def made() -> Iterator[torch.Tensor]:
        for begin in range(0, len(x), size):
            yield (squared_distances(x[begin : begin + size], y) / variance).to(kind)

    if not keep:
        return made
    kept = list(made())
    return lambda: iter(kept)
