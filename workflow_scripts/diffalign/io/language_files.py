"""Files of language models: what was read of each image, the features of both poolings, and how well texts are
predicted.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffalign.io import bundles
from diffalign.io.atomic import write_json, write_text
from diffalign.io.feature_files import check_format
from diffalign.names import LAST

TEXTS_FORMAT = 1
QUALITY_FORMAT = 1
# what is known of every text, in this order, as float64: tokens, and how many of them were read; bytes of what was
# read; tokens that were predicted and the sum of their -log p in nats; the largest batch at the time
MEASURES = ("tokens", "read", "bytes", "predicted", "nats", "batch_size")
COLUMNS = ("name", *MEASURES[:5], "loss", "bits_per_byte")


@dataclass(frozen=True)
class Texts:
    """texts: name -> text. facts: where they came from. images: the data set they are of."""

    texts: Mapping[str, str]
    facts: Mapping[str, Any]
    images: Mapping[str, Any]


@dataclass(frozen=True)
class Outputs:
    """Files of one extraction: features (alias -> path) and manifest of both poolings, losses and table."""

    mean: Mapping[str, Path]
    mean_json: Path
    last: Mapping[str, Path]
    last_json: Path
    losses: Path
    table: Path


def outputs_of(made: Any, layers: Sequence[str]) -> Outputs:
    """The named outputs of a rule: features and manifest, last and last_manifest, losses, table."""
    return Outputs(
        dict(zip(layers, map(Path, made.features), strict=True)),
        Path(made.manifest),
        dict(zip(layers, map(Path, made.last), strict=True)),
        Path(made.last_manifest),
        Path(made.losses),
        Path(made.table),
    )


def write_texts(path: Path, texts: Texts) -> None:
    """Write what is said of every image as JSON."""
    write_json(path, {"format": TEXTS_FORMAT, **vars(texts)})


def read_texts(path: Path) -> Texts:
    """Read what `write_texts` wrote. Raises StoreError for another format."""
    content = json.loads(path.read_text(encoding="utf-8"))
    check_format(content.get("format"), TEXTS_FORMAT, path)
    return Texts(content["texts"], content["facts"], content["images"])


def write(
    outputs: Outputs,
    names: Sequence[str],
    mean: Callable[[str], NDArray[np.float32]],
    last: Callable[[str], NDArray[np.float32]],
    measures: NDArray[np.float64],
    recipe: Mapping[str, Any],
    parameters: int,
    batch_size: int,
) -> None:
    """Write both bundles of one extraction and what it says of the model.

    mean, last: alias -> (N, D). measures: (N, 6) with the columns MEASURES. recipe: of the features that are means.
    batch_size: that was asked for.
    """
    found = quality(measures)
    told = {**recipe["prompts"], "truncated": found["truncated"]}
    smallest = int(measures[:, -1].min())
    halved = {"batch_size": {"asked": batch_size, "after_memory_ran_out": smallest}} if smallest < batch_size else {}
    made = {**recipe, "prompts": told, **halved}
    modules = recipe["model"]["layers"]
    of_last = {**made, "bundle": last_of(recipe["bundle"]), "model": {**recipe["model"], LAST: True}}
    bundles.write(outputs.mean, outputs.mean_json, names, mean, {**made, "pooling": "mean"}, modules)
    bundles.write(outputs.last, outputs.last_json, names, last, {**of_last, "pooling": "last token"}, modules)
    write_text(outputs.table, print_measures(names, measures))
    facts = {key: made[key] for key in ("bundle", "class", "conditioning")}
    source = {"miniature": recipe["weights"]["source"] == "miniature", "parameters": parameters}
    write_json(outputs.losses, {"format": QUALITY_FORMAT, **facts, **source, **found, **halved})


def last_of(bundle: str) -> str:
    """The bundle of last tokens that is made with one of means."""
    return f"{bundle}-{LAST}"


def quality(measures: NDArray[np.float64]) -> dict[str, Any]:
    """How well texts are predicted, as platonic-rep has it: ``loss`` (nats a token) and ``bits_per_byte`` are means
    over texts of the mean over tokens; in ``total`` they are over all tokens and bytes. None for a model that predicts
    none.

    measures: (N, 6) with the columns MEASURES. ``unpredicted`` texts have no second token and no part in the means;
    ``truncated`` ones were longer than the context.
    """
    tokens, read, size, predicted, nats = measures.T[:5]
    told = predicted > 0
    bits = nats / math.log(2)
    values: dict[str, Any] = dict.fromkeys(("loss", "bits_per_byte", "total"))
    if told.any():
        values = {
            "loss": float((nats[told] / predicted[told]).mean()),
            "bits_per_byte": float((bits[told] / size[told]).mean()),
            "total": {
                "loss": float(nats[told].sum() / predicted[told].sum()),
                "bits_per_byte": float(bits[told].sum() / size[told].sum()),
            },
        }
    counts = {"texts": len(measures), "tokens": int(read.sum()), "bytes": int(size.sum())}
    return {**counts, "truncated": int((read < tokens).sum()), "unpredicted": int((~told).sum()), **values}


def write_published_quality(path: Path, bundle: str, found: Mapping[str, float], source: Mapping[str, Any]) -> None:
    """Write what others measured of a language model: ``loss``, ``bits_per_byte``, ``parameters``, and where it is
    from.
    """
    write_json(path, {"format": QUALITY_FORMAT, "bundle": bundle, "miniature": False, **found, "source": dict(source)})


def read_quality(path: Path) -> dict[str, Any]:
    """Read what `write` says of a model. Raises StoreError for another format."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    check_format(content.get("format"), QUALITY_FORMAT, path)
    return content


def print_measures(names: Sequence[str], measures: NDArray[np.float64]) -> str:
    """What is known of every text, tab-separated; loss and bits per byte are empty where nothing is predicted."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(COLUMNS)
    for name, (tokens, read, size, predicted, nats, _) in zip(names, measures.tolist(), strict=True):
        rates = [nats / predicted, nats / math.log(2) / size] if predicted else ["", ""]
        writer.writerow([name, int(tokens), int(read), int(size), int(predicted), nats if predicted else "", *rates])
    return text.getvalue()
