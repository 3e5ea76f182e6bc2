"""The score of two feature files, without configuration and workflow.

.venv/bin/python workflow_scripts/compare.py A.pt B.pt --metric cknna --k 10
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from diffalign import __version__
from diffalign.alignment.arrays import array_layer
from diffalign.alignment.metrics import METRICS, Layer, Settings, measure_grid, score
from diffalign.alignment.preparation import FeatureError, clamp_bound
from diffalign.alignment.settings import CLAMP_RULES, PARITY, PARITY_EPS, Preparation
from diffalign.io.headers import check_same_names
from diffalign.io.layouts.content import Keys
from diffalign.io.layouts.feature_tables import LAYOUTS, SeveralLayers, Table, layer_keys, read_layers
from diffalign.io.layouts.row_names import ROWS
from diffalign.io.prepared_features import preparation_settings
from diffalign.names import unknown
from diffalign.provenance import file_sha256


class _OneLine(argparse.ArgumentParser):
    """A parser that reports an error in one line and exits with code 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"compare: {message} (--help lists the options)\n")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = _OneLine(
        prog="compare",
        description="The alignment of two feature files. Rows are joined on names.",
        epilog=f"Layouts: {', '.join(LAYOUTS)}; --layout-a and --layout-b override detection.",
    )
    command.add_argument("a", type=Path, help="a feature file, or a folder of thingsvision")
    command.add_argument("b", type=Path, help="the other one")
    command.add_argument(
        "--metric", default="cknna", metavar="NAME", help=f"one of {', '.join(METRICS)}; default cknna"
    )
    command.add_argument("--k", type=int, default=10, help="neighbours per image; default 10")
    for side in "ab":
        command.add_argument(
            f"--layer-{side}",
            metavar="LAYER",
            help=f"of {side.upper()}: index in a stack, or key in an archive",
        )
        command.add_argument(
            f"--names-{side}", metavar="FILE", help=f"of {side.upper()}: one name a line; {ROWS} names rows by number"
        )
        command.add_argument(f"--layout-{side}", metavar="LAYOUT", default="auto", help=f"of {side.upper()}")
        command.add_argument(
            f"--key-{side}", metavar="KEY", help=f"of {side.upper()}: what a dictionary of no layout calls its features"
        )
        command.add_argument(f"--names-key-{side}", metavar="KEY", help=f"of {side.upper()}: what it calls its names")
    command.add_argument(
        "--join",
        choices=("same", "common"),
        default="same",
        help="same: both files have the same images, or it is an error; common: those that both have; default same",
    )
    command.add_argument(
        "--parity",
        choices=tuple(PARITY),
        help="prepare features and add eps as a published script does, in the place of the options below",
    )
    command.add_argument("--clamp", type=float, metavar="Q", help="clamp at this quantile of |x|; default none")
    command.add_argument(
        "--clamp-rule",
        choices=CLAMP_RULES,
        default="exact",
        help="quantile of all values, or mean over images of the quantile of each; default exact",
    )
    command.add_argument("--whiten", action="store_true", help="whiten by PCA")
    command.add_argument("--rbf-sigma", type=float, default=1.0, help="bandwidth of RBF kernels; default 1")
    command.add_argument("--center", action="store_true", help="subtract the mean of every dimension")
    command.add_argument(
        "--keep-norms", action="store_true", help="do not divide rows by their norms: CKA and others weigh them"
    )
    command.add_argument("--eps", type=float, default=0.0, help="in the denominators of CKNNA and CKA; default 0")
    command.add_argument("--json", action="store_true", help="print JSON, the recipe of the score")
    return command


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Read both files, join them on names and measure. Returns the score and its recipe as JSON values.

    Raises OSError or ValueError, which name the file or option and the first five offenders.
    """
    if options.metric not in METRICS:
        raise unknown("metric", options.metric, METRICS)
    _check_numbers(options)
    a, b = (_read(options, side) for side in "ab")
    rows = {"a": len(a.names), "b": len(b.names)}
    if options.join == "common":
        a, b = _common(a, b, options)
    check_same_names(a.names, b.names, options.a, options.b)
    count = len(a.names)
    least = options.k + 1 if METRICS[options.metric].uses_k else 4
    if count < max(least, 4):
        raise ValueError(f"--k {options.k} needs at least {max(least, 4)} rows; the files have {count}")
    preparation, eps = _prepared_as(options)
    layers = [_layer(table, side, options, preparation) for side, table in (("a", a), ("b", b))]
    settings = Settings(options.k, eps, options.rbf_sigma)
    grid = measure_grid([options.metric], layers[:1], layers[1:], settings)
    measured = score(options.metric, float(grid[options.metric][0, 0]))
    chance = METRICS[options.metric].chance
    return {
        "diffalign": __version__,
        "metric": options.metric,
        "value": None if math.isnan(measured.value) else measured.value,
        "undefined": measured.undefined,
        "n": count,
        "join": options.join,
        "rows": rows,
        "k": options.k,
        "eps": eps,
        "rbf_sigma": options.rbf_sigma if METRICS[options.metric].needs == "rbf" else None,
        "parity": options.parity,
        "preparation": preparation_settings(preparation),
        "chance": None if chance is None else chance(count, options.k),
        "a": _side(a, options.layer_a),
        "b": _side(b, options.layer_b),
    }


def _read(options: argparse.Namespace, side: str) -> Table:
    """The layer of side ``a`` or ``b``. Raises ValueError that names the option where a file has several."""
    path, layer, layout, names = (getattr(options, f"{what}{side}") for what in ("", "layer_", "layout_", "names_"))
    try:
        return read_layers(path, [layer], layout, names, _keys(options, side))
    except SeveralLayers as error:
        raise ValueError(f"{error}: --layer-{side}") from error


def _keys(options: argparse.Namespace, side: str) -> Keys:
    return Keys(getattr(options, f"key_{side}"), getattr(options, f"names_key_{side}"))


def _common(a: Table, b: Table, options: argparse.Namespace) -> tuple[Table, Table]:
    """The rows whose names both tables have. Raises ValueError where there are none."""
    both = set(a.names) & set(b.names)
    if not both:
        raise ValueError(f"{options.a} and {options.b} have no name in common: {a.names[0]} … and {b.names[0]} …")
    tables = []
    for table in (a, b):
        rows = [row for row, name in enumerate(table.names) if name in both]
        names = tuple(table.names[row] for row in rows)
        tables.append(replace(table, values=tuple(values[rows] for values in table.values), names=names))
    return tables[0], tables[1]


def _prepared_as(options: argparse.Namespace) -> tuple[Preparation, float]:
    """What is done to features, and eps. Raises ValueError where an option contradicts ``--parity``."""
    if options.parity is None:
        normalize = None if options.keep_norms else "l2"
        preparation = Preparation(options.clamp, options.clamp_rule, "layer", options.center, options.whiten, normalize)
        return preparation, options.eps
    for option in ("clamp", "clamp_rule", "whiten", "center", "keep_norms", "eps"):
        if getattr(options, option) != parser().get_default(option):
            flag = f"--{option.replace('_', '-')}"
            raise ValueError(f"{flag}: is set by --parity {options.parity}; give one of the two")
    return PARITY[options.parity], PARITY_EPS


def _layer(table: Table, side: str, options: argparse.Namespace, preparation: Preparation) -> Layer:
    """The layer of a table, prepared. Raises FeatureError that names the file."""
    path, layout, keys = getattr(options, side), getattr(options, f"layout_{side}"), _keys(options, side)
    bound = None
    if preparation.clamp is not None and preparation.clamp_over == "model":
        # layers of one width form one tensor, whose quantile is that of all of them
        names = getattr(options, f"names_{side}")
        whole = read_layers(path, layer_keys(path, layout, keys), layout, names, keys)
        compared = set(table.names)
        rows = [row for row, name in enumerate(whole.names) if name in compared]
        every = [values[rows] for values in whole.values]
        pooled = every if len({values.shape[1] for values in every}) == 1 else table.values
        bound = clamp_bound(pooled, preparation.clamp, preparation.clamp_rule)
    try:
        return array_layer(table.values[0], table.names, options.k, preparation, bound=bound)
    except FeatureError as error:
        raise FeatureError(f"{path}: {error}") from error


def _check_numbers(options: argparse.Namespace) -> None:
    lowest = METRICS[options.metric].minimum_k
    if options.k < lowest:
        raise ValueError(f"--k {options.k}: {options.metric} needs k of at least {lowest}")
    if options.clamp is not None and not 0 < options.clamp <= 1:
        raise ValueError(f"--clamp {options.clamp}: a quantile is above 0 and at most 1")
    if not (math.isfinite(options.eps) and options.eps >= 0):
        raise ValueError(f"--eps {options.eps}: expected a number of at least 0")


def _side(table: Table, layer: str | None) -> dict[str, Any]:
    return {
        "path": str(table.files[0]),
        "layer": layer,
        "layout": table.layout,
        "width": int(table.values[0].shape[1]),
        "dtype": table.dtype,
        "names": table.names_from,
        "sha256": {str(path): file_sha256(path) for path in table.files},
    }


def printed(result: dict[str, Any]) -> str:
    """The score as text: metric, value, N and k, the preparation, and one line per file."""
    value = f"undefined: {result['undefined']}" if result["value"] is None else f"{result['value']:.6f}"
    chance = "" if result["chance"] is None else f", chance {result['chance']:.6f}"
    preparation = result["preparation"]
    over = ", of all layers" if preparation["clamp_over"] == "model" else ""
    clamp = "none" if preparation["clamp"] is None else f"{preparation['clamp']:g} ({preparation['clamp_rule']}{over})"
    settings = {
        "N": result["n"]
        if result["join"] == "same"
        else f"{result['n']} of {result['rows']['a']} and {result['rows']['b']}",
        "k": result["k"] if METRICS[result["metric"]].uses_k else None,
        "sigma": result["rbf_sigma"],
        "eps": f"{result['eps']:g}",
        "clamp": clamp,
        "center": str(preparation["center"]).lower(),
        "whiten": str(preparation["whiten"]).lower(),
        "normalize": str(preparation["normalize"]).lower(),
    }
    lines = [
        f"{result['metric']} {value}",
        ", ".join(f"{key} = {setting}" for key, setting in settings.items() if setting is not None) + chance,
    ]
    for side in "ab":
        source = result[side]
        layer = "" if source["layer"] is None else f", layer {source['layer']}"
        lines.append(
            f"{side.upper()}: {source['path']}{layer} ({source['layout']}, {source['width']} wide, {source['dtype']}, "
            f"names {source['names']}, sha256 {source['sha256'][source['path']][:12]})"
        )
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the score. The exit code is 2 after an error, which is printed to stderr as one line."""
    options = parser().parse_args(arguments)
    try:
        result = compare(options)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"compare: {' '.join(str(error).split())}\n")
        return 2
    sys.stdout.write(json.dumps(result, indent=2, ensure_ascii=False) + "\n" if options.json else printed(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
