"""Neighbour lists of every layer of a bundle, or of a part of its images."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from threadpoolctl import threadpool_limits

from diffalign import logs
from diffalign.alignment.preparation import FeatureError, directions, kernel_rows
from diffalign.alignment.search.exact import nearest_neighbors
from diffalign.alignment.settings import Preparation
from diffalign.devices import choose_gpu
from diffalign.io import feature_files, neighbor_files
from diffalign.io.headers import check_same_names
from diffalign.io.prepared_features import clamp_bounds, noted_spread, preparation_settings
from diffalign.parts import part_rows

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


@dataclass(frozen=True)
class Search:
    """Resources of a search; lists do not depend on them. part: (p, P), part p of P, counted from 0; or None."""

    device: str
    memory_mb: int
    threads: int
    part: tuple[int, int] | None = None

    def rows(self, count: int) -> range | None:
        """Rows of this part of `count` rows; None for all."""
        return None if self.part is None else part_rows(count, *self.part)


def neighbors(layers_json: Path, k_max: int, preparation: Preparation, path: Path, search: Search) -> None:
    """Prepare the features of every layer and write the `k_max` nearest neighbours of each image, at most N - 1.

    A part prepares the features of all images and searches the neighbours of its own. Raises StoreError or
    FeatureError, which name the file and the first five images, where features are NaN, infinite or zero, or where
    layers have different images; ValueError for a missing device.
    """
    bundle = feature_files.read_bundle(layers_json)
    gpu = choose_gpu(search.device)
    names: tuple[str, ...] = ()
    shared: dict[str, Any] = {}
    modules: dict[str, str] = {}
    spreads: dict[str, float] = {}
    first = layers_json
    bounds = clamp_bounds(layers_json, bundle.digests, preparation)
    with neighbor_files.writing(path) as file:
        for alias in logs.progress(bundle.digests, len(bundle.digests), "neighbors"):
            source, features = bundle.path(alias), bundle.read(alias)
            if not names:
                names, first, shared = features.names, source, features.shared
                logs.log.info("%s on %s: %d images, %d layers", path, gpu or "cpu", len(names), len(bundle.digests))
            check_same_names(names, features.names, first, source)
            modules[alias] = features.recipe["module"]
            try:
                kernel = kernel_rows(features.values, features.names, preparation, bounds.get(alias))
            except FeatureError as error:
                raise FeatureError(f"{source}: {error}") from error
            rows = directions(kernel, preparation)
            spreads[alias] = noted_spread(rows, source)
            del features, kernel
            lists = nearest_neighbors(
                rows,
                min(k_max, len(names) - 1),
                search.rows(len(names)),
                memory_mb=search.memory_mb,
                threads=search.threads,
                device=gpu,
            )
            file.add(alias, lists)
        settings = {
            **preparation_settings(preparation),
            "k_max": min(k_max, len(names) - 1),
            "bounds": bounds,
        }
        file.finish(names, settings, {**shared, "modules": modules, "spreads": spreads}, search.rows(len(names)))


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "neighbors"), threadpool_limits(snakemake.threads):
        given, resources = dict(snakemake.wildcards.items()), snakemake.resources
        neighbors(
            Path(snakemake.input.layers),
            snakemake.params.k_max,
            Preparation(**snakemake.params.preparation),
            Path(snakemake.output[0]),
            Search(
                resources.device,
                resources.memory_mb,
                snakemake.threads,
                (int(given["part"]), int(given["parts"])) if "part" in given else None,
            ),
        )
