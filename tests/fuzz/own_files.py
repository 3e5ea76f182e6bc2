"""Files of this workflow, as its readers read them back: a job may find one that is damaged or edited by hand."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from conftest import write_neighbors
from importers import FEATURES, NAMES, Importer

from diffalign.alignment.search.exact import Neighbors


def _neighbors(path: Path, out: Path) -> Any:
    from diffalign.io.neighbor_files import read_neighbors

    file = read_neighbors(path)
    return file, [file.layer(alias) for alias in file.layers]


def _write_neighbors(path: Path) -> None:
    indices = np.stack([np.delete(np.arange(12), i)[:5] for i in range(12)]).astype(np.int32)
    lists = Neighbors(indices, np.sort(np.random.default_rng(0).random((12, 5)).astype(np.float32))[:, ::-1])
    write_neighbors(path, NAMES, {"b0": lists}, {"normalize": "l2"}, {"model": {}})


def _part(path: Path, out: Path) -> Any:
    from diffalign.io.bundles import read_parts

    names, recipe, values = read_parts([path])
    return names, recipe, values("b0")


def _write_part(path: Path) -> None:
    from diffalign.io.bundles import write_part

    write_part(path, NAMES, {"b0": FEATURES}, {"bundle": "x"}, len(NAMES))


def _prompts(path: Path, out: Path) -> Any:
    from diffalign.io.prompt_files import read_prompts

    return read_prompts(path)


def _write_prompts(path: Path) -> None:
    import torch

    from diffalign.io.prompt_files import write_prompts

    tensors = {"prompt_embeds": torch.ones(1, 3, 4), "text": torch.ones(1, 4)}
    write_prompts(path, tensors, [0] * len(NAMES), NAMES, {"conditioning": "uncond"})


def _samples(path: Path, out: Path) -> Any:
    from diffalign.io.sample_files import read_samples

    return read_samples(path)


def _write_samples(path: Path) -> None:
    from diffalign.io.sample_files import Samples, write_samples

    images = np.zeros((12, 4, 4, 3), np.uint8)
    write_samples(path, Samples(images, tuple(NAMES), np.zeros(12, np.int64), np.zeros(12, np.int64), {"model": {}}))


def _people(path: Path, out: Path) -> Any:
    from diffalign.io.human_files import read_people

    return read_people(path)


def _write_people(path: Path) -> None:
    from diffalign.human.concepts import Concept
    from diffalign.human.triplets import Triplets
    from diffalign.io.human_files import ordered, write_people

    concepts = [Concept(name, name, name, ("a",)) for name in NAMES]
    write_people(path, ordered(concepts, Triplets(np.array([[0, 1, 2], [3, 4, 5]], np.int32), 12), None, {"x": 1}))


def _matrix(path: Path, out: Path) -> Any:
    from diffalign.io.matrices import read_layer_matrices

    return read_layer_matrices(path, ["cknna"])


def _write_matrix(path: Path) -> None:
    from diffalign.io.matrices import LayerMatrix, write_matrices

    values = np.linspace(0, 1, 6).reshape(2, 3)
    write_matrices(path, {"cknna": LayerMatrix(values, {"format": 2, "shape": [2, 3], "metric": "cknna"})})


def _manifest(path: Path, out: Path) -> Any:
    from diffalign.io.manifest import read_manifest

    return read_manifest(path)


def _write_manifest(path: Path) -> None:
    from diffalign.io.manifest import Image, print_manifest

    path.write_text(print_manifest(Image(name, "", -1, "a text", "0" * 64, f"{name}.png", "") for name in NAMES))


def _record(path: Path, out: Path) -> Any:
    from diffalign.io.checkpoints import read_record

    return read_record(path)


def _write_record(path: Path) -> None:
    from diffalign.io.checkpoints import RECORD

    RECORD.write_json(path, source="hub", sha256={"model.safetensors": "0" * 64})


def _training(path: Path, out: Path) -> Any:
    import torch

    from diffalign.io.training_checkpoints import TrainingCheckpoint

    return TrainingCheckpoint(path).read(torch.device("cpu"))


def _write_training(path: Path) -> None:
    import torch

    from diffalign.io.training_checkpoints import TrainingCheckpoint

    TrainingCheckpoint(path).write({"step": 3, "net": {"weight": torch.ones(3, 3)}})


OWN_FILES: Mapping[str, Importer] = {
    "neighbours": Importer(_neighbors, {".npz": _write_neighbors}),
    "part of features": Importer(_part, {".safetensors": _write_part}),
    "prompts": Importer(_prompts, {".safetensors": _write_prompts}),
    "samples": Importer(_samples, {".safetensors": _write_samples}),
    "people": Importer(_people, {".npz": _write_people}),
    "matrix": Importer(_matrix, {".npz": _write_matrix}),
    "manifest": Importer(_manifest, {".tsv": _write_manifest}),
    "record of weights": Importer(_record, {".json": _write_record}),
    "training": Importer(_training, {".pt": _write_training}),
}
