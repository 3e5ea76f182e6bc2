"""Whether the order of models against one reference depends on k, N, metric, preparation and images."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from diffalign import logs
from diffalign.alignment.curves import neighbor_counts, nested_subset, subset_sizes
from diffalign.alignment.groups import Groups
from diffalign.alignment.metrics import METRICS, Settings, measure_grid
from diffalign.alignment.preparation import FeatureError
from diffalign.alignment.rank_stability import FEWEST, halves, kept, tau_b
from diffalign.alignment.settings import ALTERNATIVES
from diffalign.io import recipes, tables
from diffalign.io.unlisted_sides import Search, UnlistedSide, read_side

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

_IDENTITY = {
    **dict.fromkeys(("metric", "dataset", "condition", "reference", "layer"), "string"),
    "models": "int64",
}
ORDERS = {
    **_IDENTITY,
    **dict.fromkeys(("over", "value"), "string"),
    **dict.fromkeys(("tau_b", "kept"), "float64"),
    **dict.fromkeys(("first", "reason"), "string"),
}
PAIRS = {
    **_IDENTITY,
    **dict.fromkeys(("a", "layer_a", "b", "layer_b"), "string"),
    **dict.fromkeys(("score_a", "score_b", "kept"), "float64"),
}
# values of k
STEPS = 6
Scores = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Models:
    """The layers of models, in the order of the study, and of their reference. files: manifest of each."""

    files: Sequence[Path]
    layers: Sequence[str]
    reference: Path
    reference_layer: str

    def read(self, search: Search) -> list[UnlistedSide]:
        """The reference, and every model on the same images."""
        first = read_side(self.reference, search, [self.reference_layer])
        others = (
            read_side(path, search, [layer], like=first, where=self.reference)
            for path, layer in zip(self.files, self.layers, strict=True)
        )
        return [first, *others]


@dataclass(frozen=True)
class Order:
    """The scores of all models under one alternative, by metric; or the reasons why there are none."""

    over: str
    value: str
    scores: Scores
    reasons: Mapping[str, str] = field(default_factory=dict)


def rank_stability(
    models: Models,
    metrics: Sequence[str],
    settings: Path,
    where: recipes.Where,
    search: Search,
    outputs: Mapping[str, Path],
) -> None:
    """Write two tables, as TSV and Parquet. outputs: ``{table}_tsv``, ``{table}_parquet``.

    orders: metric, dataset, condition, reference (bundle), layer, models (their number), over (k, n, metric,
    preparation, halves), value (of k, N, the other metric, the preparation), tau_b (of the scores under it with those
    of the study; of halves the mean over halves), kept (the share of pairs of models whose order is the same), first
    (the model with the largest score), reason (why there is no tau). pairs: two models, their scores and the share of
    halves of the images in which their order is that of all images; NaN where the row of halves has no tau since
    halves are too small. Raises ValueError for fewer than three models, StoreError for other images.
    """
    if len(models.files) < FEWEST:
        raise ValueError(f"an order of {len(models.files)} models says nothing; at least {FEWEST} are needed")
    setting = recipes.read_settings(settings)
    read = models.read(search)
    names = [side.recipe["bundle"] for side in read]
    base = scores(read, models, metrics, setting)
    parts = list(halves(read[0].groups, search.seed))
    refused = _refused(metrics, read[0].groups, parts, setting.k)
    on_halves = over_halves(read, models, [name for name in metrics if name not in refused], setting, parts)
    found = [*orders(read, models, metrics, setting, search, base)]
    rows: list[dict[str, Any]] = []
    pairs: list[dict[str, Any]] = []
    for metric in metrics:
        identity = {
            "metric": metric,
            **asdict(where),
            "reference": names[0],
            "layer": models.reference_layer,
            "models": len(models.files),
        }
        rows += (
            {**identity, **_compared(base[metric], order, metric, names[1:])}
            for order in found
            if metric in order.reasons or metric in order.scores
        )
        stay = on_halves.get(metric, np.full((len(parts), len(models.files)), np.nan))
        share = kept(base[metric], stay)
        taus = [tau_b(base[metric], each) for each in stay]
        above = list(itertools.combinations(range(len(models.files)), 2))
        rows.append(
            {
                **identity,
                "over": "halves",
                "value": str(len(stay)),
                "tau_b": float(np.mean(taus)),
                "kept": float(np.mean([share[pair] for pair in above])),
                "first": "" if metric in refused else _first(base[metric], names[1:]),
                "reason": refused.get(metric) or _no_tau(metric, taus),
            }
        )
        for i, j in above:
            side = {"a": names[1 + i], "layer_a": models.layers[i], "b": names[1 + j], "layer_b": models.layers[j]}
            both = {"score_a": base[metric][i], "score_b": base[metric][j]}
            pairs.append({**identity, **side, **both, "kept": share[i, j]})
    for name, content, columns in (("orders", rows, ORDERS), ("pairs", pairs, PAIRS)):
        tables.write(tables.frame(content, columns), outputs[f"{name}_tsv"], outputs[f"{name}_parquet"])


def scores(
    read: Sequence[UnlistedSide],
    models: Models,
    metrics: Sequence[str],
    setting: Settings,
    keep: NDArray[np.intp] | None = None,
) -> dict[str, NDArray[np.float64]]:
    """The scores (M,) of all models with the reference, of all images or of some."""
    aliases = [models.reference_layer, *models.layers]
    # lists of all images serve every k
    length = min(read[0].search.k, len(read[0].names) - 1) if keep is None else setting.k
    reference, *layers = (
        replace(side, search=replace(side.search, k=length)).layer(alias, keep)
        for side, alias in zip(read, aliases, strict=True)
    )
    return {name: grid[:, 0] for name, grid in measure_grid(metrics, layers, [reference], setting).items()}


def over_halves(
    read: Sequence[UnlistedSide],
    models: Models,
    metrics: Sequence[str],
    setting: Settings,
    parts: Sequence[NDArray[np.intp]],
) -> dict[str, NDArray[np.float64]]:
    """The scores (H, M) of all models on each of H halves."""
    if not metrics:
        return {}
    progress = logs.progress(parts, len(parts), "halves")
    found = [scores(read, models, metrics, setting, keep) for keep in progress]
    return {name: np.array([each[name] for each in found]) for name in metrics}


def orders(
    read: Sequence[UnlistedSide],
    models: Models,
    metrics: Sequence[str],
    setting: Settings,
    search: Search,
    base: Scores,
) -> Iterator[Order]:
    """Every alternative to the scores of the study."""
    yield from (Order("metric", name, dict.fromkeys(metrics, base[name])) for name in metrics)
    of_lists = [name for name in metrics if METRICS[name].uses_k]
    groups = read[0].groups
    count = len(groups.codes)
    if of_lists:
        for k in neighbor_counts(setting.k, min(search.k, count - 1), STEPS):
            yield Order("k", str(k), scores(read, models, of_lists, replace(setting, k=k)))
    for size in subset_sizes(count, setting.k)[:-1]:
        keep = nested_subset(groups, size, search.seed)
        refused = _refused(metrics, groups, [keep], setting.k)
        rest = [name for name in metrics if name not in refused]
        found = scores(read, models, rest, setting, keep) if rest else {}
        yield Order("n", str(len(keep)), found, refused)
    for name, preparation in logs.progress(ALTERNATIVES.items(), len(ALTERNATIVES), "preparations"):
        try:
            other = models.read(replace(search, preparation=preparation, k=setting.k))
        except FeatureError as error:
            yield Order("preparation", name, {}, dict.fromkeys(metrics, str(error)))
            continue
        yield Order("preparation", name, scores(other, models, metrics, setting))


def _compared(base: NDArray[np.float64], order: Order, metric: str, names: Sequence[str]) -> dict[str, Any]:
    row: dict[str, Any] = {"over": order.over, "value": order.value, "tau_b": math.nan, "kept": math.nan, "first": ""}
    if metric in order.reasons:
        return {**row, "reason": order.reasons[metric]}
    values = order.scores[metric]
    tau = tau_b(base, values)
    share = kept(base, values[None])[np.triu_indices(len(base), 1)]
    first, reason = _first(values, names), _no_tau(metric, [tau])
    return {**row, "tau_b": tau, "kept": float(share.mean()), "first": first, "reason": reason}


def _no_tau(metric: str, taus: Sequence[float]) -> str:
    """Why one of them is undefined; empty where none is."""
    return "" if np.isfinite(taus).all() else METRICS[metric].undefined or "all scores are the same"


def _refused(metrics: Sequence[str], groups: Groups, parts: Sequence[NDArray[np.intp]], k: int) -> dict[str, str]:
    """Metrics that have no score on every part of the images, and why."""
    smallest = min(map(len, parts))
    fewest = min(len(np.unique(groups.codes[keep])) for keep in parts)
    refused = {}
    for metric in metrics:
        # centred kernels need four images
        needed, of_k = (max(4, k + 1), f" for k = {k}") if METRICS[metric].uses_k else (4, "")
        if smallest == 0:
            refused[metric] = "images of one group have no halves of whole groups"
        elif smallest < needed:
            refused[metric] = f"{smallest} images are too few{of_k}; at least {needed} are needed"
        elif METRICS[metric].needs == "regressions" and fewest < 2:
            refused[metric] = f"{smallest} images are one group, which has no folds of whole groups"
    return refused


def _first(values: NDArray[np.float64], names: Sequence[str]) -> str:
    """The model with the largest score; empty where one is undefined."""
    return names[int(values.argmax())] if np.isfinite(values).all() else ""


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "rank_stability"), threadpool_limits(snakemake.threads):
        given, params = snakemake.input, snakemake.params
        rank_stability(
            Models([Path(path) for path in given.models], params.layers, Path(given.reference), params.layer),
            params.metrics,
            Path(given.settings),
            recipes.Where(snakemake.wildcards.dataset, snakemake.wildcards.condition),
            Search.of_job(snakemake, params.k_max),
            {key: Path(path) for key, path in snakemake.output.items()},
        )
