"""Variables of MATLAB files, read by a process of its own: a damaged file can end the process that reads it.

Run as a script with a file and a key, it writes the variable to stdout, in the format of ``.npy``.
"""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def read_variable(path: Path, key: str | None) -> NDArray[Any]:
    """A variable as an array of numbers, or of a cell array its words (K,), in MATLAB's order.

    Raises ValueError for a file that cannot be read, and for a key that it lacks, with those that it has.
    """
    done = subprocess.run([sys.executable, __file__, str(path), key or ""], capture_output=True, check=False)
    if done.returncode < 0:
        raise ValueError("cannot be read as a MATLAB file (it is damaged)")
    if done.returncode:
        raise ValueError(done.stderr.decode(errors="replace").strip().rpartition("\n")[2])
    variable: NDArray[Any] = np.load(io.BytesIO(done.stdout), allow_pickle=False)
    return variable


def main(path: str, key: str) -> None:
    """Write the variable. Ends the process with a message for what cannot be read."""
    from scipy.io import loadmat

    try:
        content = loadmat(path)
    except Exception as error:  # SciPy has many ways to refuse a file
        said = str(error).strip().splitlines()
        sys.exit(f"cannot be read as a MATLAB file ({said[0] if said else type(error).__name__})")
    if key not in content:
        sys.exit(f"holds no '{key}'; there: {', '.join(name for name in content if not name.startswith('__'))}")
    variable = np.asarray(content[key])
    if variable.dtype == object:
        try:
            variable = np.array([str(np.asarray(cell).item()) for cell in variable.ravel(order="F")])
        except ValueError:
            sys.exit(f"'{key}' is no cell array of words")
    np.save(sys.stdout.buffer, variable, allow_pickle=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
