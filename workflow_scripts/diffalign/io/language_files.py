"""Files of language models: the text that was read of each image, the features of both poolings, and how well texts are
predicted.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffalign.io import bundles
from diffalign.io.atomic import write_text
from diffalign.io.headers import FileKind, StoreError
from diffalign.names import LAST

TEXTS = FileKind("a file of texts", 1)
QUALITY = FileKind("a file of losses", 1)
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
    """Files of one extraction: the manifests of the features of both poolings, losses and table."""

    mean: Path
    last: Path
    losses: Path
    table: Path


def outputs_of(made: Any) -> Outputs:
    """The named outputs of a rule: manifest, last_manifest, losses, table."""
    return Outputs(Path(made.manifest), Path(made.last_manifest), Path(made.losses), Path(made.table))


def write_texts(path: Path, texts: Texts) -> None:
    """Write the text of every image as JSON."""
    TEXTS.write_json(path, **vars(texts))


def read_texts(path: Path) -> Texts:
    """Read what `write_texts` wrote. Raises StoreError for another format."""
    content = TEXTS.read_json(path)
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
    """Write both bundles of one extraction and how well the model predicts the texts.

    mean, last: alias -> (N, D). measures: (N, 6) with the columns MEASURES. recipe: of the features that are means.
    batch_size: that was asked for.
    """
    measured = quality(measures)
    prompts = {**recipe["prompts"], "truncated": measured["truncated"]}
    smallest = int(measures[:, -1].min())
    halved = {"batch_size": {"asked": batch_size, "after_memory_ran_out": smallest}} if smallest < batch_size else {}
    made = {**recipe, "prompts": prompts, **halved}
    modules = recipe["model"]["layers"]
    of_last = {**made, "bundle": last_of(recipe["bundle"]), "model": {**recipe["model"], LAST: True}}
    bundles.write(outputs.mean, names, mean, {**made, "pooling": "mean"}, modules)
    bundles.write(outputs.last, names, last, {**of_last, "pooling": "last token"}, modules)
    write_text(outputs.table, print_measures(names, measures))
    facts = {key: made[key] for key in ("bundle", "class", "conditioning")}
    source = {"miniature": recipe["weights"]["source"] == "miniature", "parameters": parameters}
    QUALITY.write_json(outputs.losses, **facts, **source, **measured, **halved)


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
    predicts = predicted > 0
    bits = nats / math.log(2)
    values: dict[str, Any] = dict.fromkeys(("loss", "bits_per_byte", "total"))
    if predicts.any():
        values = {
            "loss": float((nats[predicts] / predicted[predicts]).mean()),
            "bits_per_byte": float((bits[predicts] / size[predicts]).mean()),
            "total": {
                "loss": float(nats[predicts].sum() / predicted[predicts].sum()),
                "bits_per_byte": float(bits[predicts].sum() / size[predicts].sum()),
            },
        }
    counts = {"texts": len(measures), "tokens": int(read.sum()), "bytes": int(size.sum())}
    return {**counts, "truncated": int((read < tokens).sum()), "unpredicted": int((~predicts).sum()), **values}


def write_published_quality(path: Path, bundle: str, measured: Mapping[str, float], source: Mapping[str, Any]) -> None:
    """Write what others measured of a language model: ``loss``, ``bits_per_byte``, ``parameters``, and where it is
    from.
    """
    QUALITY.write_json(path, bundle=bundle, miniature=False, **measured, source=dict(source))


def read_quality(path: Path) -> dict[str, Any]:
    """Read a file of losses, of `write` or `write_published_quality`. Raises StoreError for another format."""
    return QUALITY.read_json(path)


def read_tokens(path: Path) -> dict[str, int]:
    """Name -> number of tokens that were read of its text, from a table that `write` wrote. Raises StoreError."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return {row["name"]: int(row["read"]) for row in csv.DictReader(file, delimiter="\t")}
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{path}: is no table of losses with the columns name and read ({error})") from error


def print_measures(names: Sequence[str], measures: NDArray[np.float64]) -> str:
    """What is known of every text, tab-separated; loss and bits per byte are empty where nothing is predicted."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(COLUMNS)
    for name, (tokens, read, size, predicted, nats, _) in zip(names, measures.tolist(), strict=True):
        rates = [nats / predicted, nats / math.log(2) / size] if predicted else ["", ""]
        writer.writerow([name, int(tokens), int(read), int(size), int(predicted), nats if predicted else "", *rates])
    return text.getvalue()
