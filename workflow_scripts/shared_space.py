"""Tokens of several layers and models in one space: eigenvectors, colours and scores before and after alignment."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from diffalign import logs
from diffalign.io import space_files, tables
from diffalign.io.headers import FileKind, StoreError, check_same_names
from diffalign.io.manifest import groups_of, read_manifest
from diffalign.io.part_files import read_parts
from diffalign.io.token_files import Tokens, read_tokens
from diffalign.offenders import first_five
from diffalign.randomness import sample
from diffalign.shared_space import colors, consistency, edge_maps, stages, token_sets
from diffalign.shared_space.consistency import Measured
from diffalign.shared_space.shifts import grid_shifts
from diffalign.shared_space.stages import AFTER, BEFORE, EIGENVECTORS, FEATURES, OWN, POSITIONS, CutSettings
from diffalign.stimuli.squares import read_rgb

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

Float32 = NDArray[np.float32]

KIND = FileKind("a recipe of a shared space", 1)
GAIN, NO_STAGE = "after_minus_before", "none"
_SCORE = dict.fromkeys(("score", "low", "high", "null_mean", "null_high", "p"), "float64")
CONSISTENCY = {
    **dict.fromkeys(("measure", "set_a", "set_b", "space", "stage"), "string"),
    **_SCORE,
    **dict.fromkeys(("images", "groups"), "int64"),
    **dict.fromkeys(("undefined", "reason"), "string"),
}
EDGES = {
    **dict.fromkeys(("set", "other", "stage"), "string"),
    "correlation": "float64",
    "eigenvector": "Int64",
    **dict.fromkeys(("low", "high", "null_mean", "null_high", "p"), "float64"),
    **dict.fromkeys(("images", "groups"), "int64"),
    **dict.fromkeys(("undefined", "reason"), "string"),
}
NULL = (
    "maps of parts, cells or edges of each image, shifted and mirrored at random, in the same way for every set, space "
    "and stage: those of parts and cells on a torus, those of edges mirrored at the border; null_high is the 95 % "
    "quantile; p counts the maps as they are among them"
)
INTERVAL = (
    "95 % t interval over images, or groups of them, of a difference, from "
    f"{consistency.FEWEST_IMAGES} on; for images like these, and these networks"
)
# why differences between stages have no p
NO_P = "no p: shifts tell whether there is a relation, not whether two stages differ"


@dataclass(frozen=True)
class TokenSet:
    """A layer of one of the folders of tokens. model: as it is called in tables and pictures."""

    folder: int
    layer: str
    model: str

    @property
    def name(self) -> str:
        """As in names of representations."""
        return f"{self.model}_{self.layer}"


@dataclass(frozen=True)
class Settings:
    """Settings of a space; docs/config.md. grid: side of the grid that all sets are brought to, None for the coarsest.

    resample: a rule of `token_sets.on_grid`, None where all grids must be the same. images: names, or how many, drawn
    by the seed, or None for all.
    """

    c: float
    landmarks: int
    choice: str
    eigenvectors: int
    grid: int | None
    resample: str | None
    images: int | Sequence[str] | None
    permutations: int
    seed: int

    @property
    def cut(self) -> CutSettings:
        """Those of the normalized cut."""
        return CutSettings(self.c, self.landmarks, self.choice, self.eigenvectors, self.seed)


@dataclass(frozen=True)
class Inputs:
    """Folders of tokens, the manifest and folder of images, and the folder of part masks, where there are any."""

    tokens: Sequence[Path]
    manifest: Path
    images: Path
    parts: Path | None


def shared_space(
    inputs: Inputs, sets: Sequence[TokenSet], settings: Settings, memory_mb: int, outputs: Mapping[str, Path]
) -> None:
    """Measure token sets in one space, before and after alignment.

    Before: each set centred, with total variance 1, narrower ones padded with zeros. After: affinities to landmarks,
    the same tokens in all sets, at the scale where their mean is c. Both times one normalized cut of all tokens.

    outputs: ``eigenvectors`` and ``transforms`` (safetensors), ``consistency`` and ``edges`` (each ``_tsv`` and
    ``_parquet``), and ``recipe``. consistency: scores of `consistency.consistency` of the features and of the rows of
    eigenvectors that pictures show, before, after, and their difference; of space ``positions``, what the place of a
    cell alone gives. Differences have no p and no quantile of the null, which is not one of equal scores; the interval
    tells a rise. edges: the largest rank correlation of eigenvectors with edges, also of each set's own cut, and
    the differences between sets of the latter. Scores that are undefined are missing, and say why; reason: why an
    interval or p is missing. groups: how many independent groups the images are, by the manifest.

    Raises StoreError for folders of other images, a layer that is not there or has no token grid; ValueError for sets
    that repeat, different grids without a rule, images that are not there, fewer tokens than landmarks, and constant
    features, each named.
    """
    names, grid, values = _read(inputs, sets, settings, memory_mb)
    groups = groups_of(inputs.manifest, names)
    keys = token_sets.keys(names, grid)
    rows = stages.common_landmarks(values, settings.cut, keys)
    aligned, transforms = stages.aligned(values, rows, settings.c, memory_mb)
    spaces = {
        BEFORE: stages.space(stages.side_by_side(values), settings.cut, keys, memory_mb),
        AFTER: stages.space(aligned, settings.cut, keys, memory_mb),
    }
    own = {name: stages.space({name: x}, _fewer(settings.cut, len(x)), keys, memory_mb) for name, x in values.items()}
    logs.log.info("cut %d sets of %d images x %d x %d tokens", len(sets), len(names), *grid)
    shifts = grid_shifts(names, grid, settings.permutations, settings.seed)
    folded = grid_shifts(names, grid, settings.permutations, settings.seed, "mirror")
    parts = None if inputs.parts is None else _parts(inputs.parts, names, grid)
    shape = (len(names), grid[0] * grid[1])
    coordinates = {stage: _in_images(each.of_sets(each.cut.coordinates()), shape) for stage, each in spaces.items()}
    scores = {
        (FEATURES, stage): consistency.consistency(_in_images(each.features, shape), parts, shifts, memory_mb)
        for stage, each in spaces.items()
    } | {
        (EIGENVECTORS, stage): consistency.consistency(rows_of, parts, shifts, memory_mb)
        for stage, rows_of in coordinates.items()
    }
    found = list(_consistency_rows(scores, groups))
    if parts is not None:
        found.append(
            _row(
                (consistency.PART_OTHER_IMAGES, "", ""),
                POSITIONS,
                NO_STAGE,
                consistency.by_position(parts, shifts),
                groups,
            )
        )
    edges = np.stack(
        [edge_maps.cell_edges(np.asarray(read_rgb(_picture(inputs, name))[0]), grid).ravel() for name in names]
    )
    rows_of_own = _in_images({name: each.cut.coordinates() for name, each in own.items()}, shape)
    of_edges = list(_edge_rows({OWN: rows_of_own, **coordinates}, edges, folded, groups))
    for name, table in (("consistency", tables.frame(found, CONSISTENCY)), ("edges", tables.frame(of_edges, EDGES))):
        tables.write(table, outputs[f"{name}_tsv"], outputs[f"{name}_parquet"])
    space_files.write_space(outputs["eigenvectors"], _saved(spaces, sets, names, grid))
    space_files.write_transforms(outputs["transforms"], transforms, [keys[row] for row in rows])
    tokens = {folder: read_tokens(inputs.tokens[folder]) for folder in sorted({each.folder for each in sets})}
    KIND.write_json(
        outputs["recipe"],
        sets=[{"set": each.name, "features": dict(tokens[each.folder].recipe), **asdict(each)} for each in sets],
        settings=asdict(settings) | {"images": list(names)},
        grid=list(grid),
        grids={each.name: list(tokens[each.folder].grid(each.layer)) for each in sets},
        landmarks=[keys[row] for row in rows],
        scales={
            "transforms": {name: {"gamma": each.gamma, "variance": each.variance} for name, each in transforms.items()},
            **{stage: {"gamma": each.gamma, "variance": each.variance} for stage, each in spaces.items()},
        },
        eigenvectors={
            stage: "exact" if each.cut.exact else "extended from landmarks" for stage, each in spaces.items()
        },
        parts=None if inputs.parts is None else list(read_parts(inputs.parts).parts),
        groups=len(set(groups)),
        null=NULL,
        interval=INTERVAL,
        versions={name: version(name) for name in ("numpy", "scipy", "scikit-image", "torch")},
    )


def _fewer(cut: CutSettings, nodes: int) -> CutSettings:
    return replace(cut, eigenvectors=min(cut.eigenvectors, nodes))


def _read(
    inputs: Inputs, sets: Sequence[TokenSet], settings: Settings, memory_mb: int
) -> tuple[tuple[str, ...], tuple[int, int], dict[str, Float32]]:
    """Names of images, the common grid, and standardised tokens (I T, D) of each set."""
    if len({each.name for each in sets}) < len(sets) or not sets:
        raise ValueError(f"sets must be named once each; there are {', '.join(each.name for each in sets) or 'none'}")
    tokens = [read_tokens(folder) for folder in inputs.tokens]
    known = [image.name for image in read_manifest(inputs.manifest)]
    for folder, stored in zip(inputs.tokens, tokens, strict=True):
        check_same_names(known, stored.names, inputs.manifest, folder)
    for one in sets:
        if one.layer not in (there := tokens[one.folder].layers):
            raise StoreError(f"{inputs.tokens[one.folder]}: no layer '{one.layer}'; there are {', '.join(there)}")
    names = _chosen(known, settings)
    rows = [known.index(name) for name in names]
    grids = {each.name: tokens[each.folder].grid(each.layer) for each in sets}
    side = settings.grid
    grid = token_sets.common_grid(grids, settings.resample) if side is None else (side, side)
    values: dict[str, Float32] = {}
    for each in sets:
        own = _tokens_of(tokens[each.folder], each.layer, rows)
        _check_finite(own, names, each.name)
        own = token_sets.on_grid(own, grids[each.name], grid, settings.resample, (each.name, "the space"))
        values[each.name] = stages.standardised(own.reshape(-1, own.shape[2]), each.name)
    return names, grid, values


def _tokens_of(tokens: Tokens, layer: str, rows: Sequence[int]) -> Float32:
    return np.asarray(tokens.layers[layer][list(rows)], np.float32)


def _check_finite(tokens: Float32, names: Sequence[str], name: str) -> None:
    bad = [image for image, own in zip(names, tokens, strict=True) if not np.isfinite(own).all()]
    if bad:
        raise ValueError(f"{name}: tokens are NaN or infinite for {first_five(bad)}")


def _chosen(known: Sequence[str], settings: Settings) -> tuple[str, ...]:
    if settings.images is None:
        return tuple(known)
    if isinstance(settings.images, int):
        if not 1 <= settings.images <= len(known):
            raise ValueError(f"images: {settings.images} of {len(known)} that there are")
        return tuple(sorted(sample(known, settings.images, settings.seed)))
    absent = sorted(set(settings.images) - set(known))
    if absent or not settings.images or len(set(settings.images)) < len(settings.images):
        reason = f"there is no {first_five(absent)}" if absent else f"each once, at least one: {settings.images}"
        raise ValueError(f"images: {reason}")
    # pictures have the rows in the order asked for
    return tuple(settings.images)


def _parts(folder: Path, names: Sequence[str], grid: tuple[int, int]) -> NDArray[np.int64]:
    """The part at each cell (I, T), 0 for none. Raises StoreError for images that have no mask."""
    parts = read_parts(folder)
    if absent := [name for name in names if name not in set(parts.names)]:
        raise StoreError(f"{folder}: {len(absent)} images have no mask of parts, first: {first_five(absent)}")
    return np.stack([token_sets.part_of_cells(parts.mask(name), grid).ravel() for name in names]).astype(np.int64)


def _picture(inputs: Inputs, name: str) -> Path:
    return inputs.images / f"{name}.png"


def _in_images(sets: Mapping[str, NDArray[Any]], shape: tuple[int, int]) -> dict[str, NDArray[Any]]:
    """(I T, d) of each set as (I, T, d)."""
    return {name: rows.reshape(*shape, -1) for name, rows in sets.items()}


def _saved(
    spaces: Mapping[str, stages.Space], sets: Sequence[TokenSet], names: Sequence[str], grid: tuple[int, int]
) -> space_files.SpaceFile:
    lead = (len(sets), len(names), grid[0] * grid[1])
    return space_files.SpaceFile(
        {
            stage: space_files.Stage(
                each.cut.vectors.reshape(*lead, -1).astype(np.float32),
                each.cut.values.astype(np.float32),
                colors.rgb(each.cut.coordinates()).reshape(*lead, 3),
            )
            for stage, each in spaces.items()
        },
        tuple(each.name for each in sets),
        tuple(each.model for each in sets),
        tuple(each.layer for each in sets),
        tuple(names),
        grid,
    )


def _consistency_rows(
    scores: Mapping[tuple[str, str], Mapping[tuple[str, str, str], Measured]], groups: Sequence[str]
) -> Iterator[dict[str, Any]]:
    for space in (FEATURES, EIGENVECTORS):
        before, after = scores[space, BEFORE], scores[space, AFTER]
        for what in before:
            yield _row(what, space, BEFORE, before[what], groups)
            yield _row(what, space, AFTER, after[what], groups)
            row = _row(what, space, GAIN, after[what], groups)
            if not row["undefined"]:
                gain = asdict(consistency.contrast(after[what], before[what], groups))
                none = gain.pop("reason")
                reason = f"no interval: {none}; {NO_P}" if none else NO_P
                row |= {"score": gain.pop("difference"), **gain, "null_high": np.nan, "p": np.nan, "reason": reason}
            yield row


def _row(what: tuple[str, str, str], space: str, stage: str, score: Measured, groups: Sequence[str]) -> dict[str, Any]:
    defined = not score.undefined
    return {
        **dict(zip(("measure", "set_a", "set_b"), what, strict=True)),
        "space": space,
        "stage": stage,
        "score": score.score,
        "null_mean": score.null.mean() if defined else np.nan,
        "null_high": np.quantile(score.null, 0.95) if defined else np.nan,
        "p": score.p,
        "images": len(score.per_image),
        "groups": len(set(groups)),
        "undefined": score.undefined,
        "reason": "",
    }


def _edge_rows(
    coordinates: Mapping[str, Mapping[str, NDArray[Any]]],
    edges: NDArray[np.float64],
    shifts: NDArray[np.int32],
    groups: Sequence[str],
) -> Iterator[dict[str, Any]]:
    """A row a set and stage; then every two sets by their own cuts. Nothing correlates with images without edges."""
    counts = {"images": len(edges), "groups": len(set(groups))}
    if edges.min() == edges.max():
        for stage, sets in coordinates.items():
            for name in sets:
                undefined = "edges are the same at all cells"
                yield {"set": name, "other": "", "stage": stage, **counts, "undefined": undefined, "reason": ""}
        return
    found = {
        stage: {name: edge_maps.edge_correlation(rows, edges, shifts) for name, rows in sets.items()}
        for stage, sets in coordinates.items()
    }
    for stage, correlations in found.items():
        for name, each in correlations.items():
            yield {
                "set": name,
                "other": "",
                "stage": stage,
                "correlation": each.value,
                "eigenvector": each.column,
                "null_mean": each.null.mean(),
                "null_high": np.quantile(each.null, 0.95),
                "p": each.p,
                **counts,
                "undefined": "",
                "reason": "",
            }
    for first, second in itertools.combinations(found[OWN], 2):
        difference = edge_maps.edge_contrast(found[OWN][first], found[OWN][second], groups)
        missing = "interval and p" if np.isnan(difference.p) else "interval"
        yield {
            "set": first,
            "other": second,
            "stage": OWN,
            "correlation": difference.mean,
            **{key: getattr(difference, key) for key in ("low", "high", "p", "images", "groups")},
            "undefined": difference.reason if np.isnan(difference.mean) else "",
            "reason": f"no {missing}: {difference.reason}" if difference.reason else "",
        }


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "shared_space"), threadpool_limits(snakemake.threads):
        given, params = dict(snakemake.input.items()), snakemake.params
        shared_space(
            Inputs(
                [Path(folder) for folder in given["tokens"]],
                Path(given["manifest"]),
                Path(given["images"]),
                Path(given["parts"]) if "parts" in given else None,
            ),
            [TokenSet(**each) for each in params.sets],
            Settings(**params.settings),
            snakemake.resources.memory_mb,
            {key: Path(path) for key, path in snakemake.output.items()},
        )
