"""Trajectories of a model under one configuration, from noise to image, of the samples of one seed."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffalign import logs
from diffalign.devices import choose_device
from diffalign.io.atomic import read_settings_file
from diffalign.io.trajectory_files import CLASS_TOKENS, Chunk, write_trajectories
from diffalign.sampling.runs import Files, Run, prepare
from diffalign.specs import Compute

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def trajectories(recipe: Path, files: Files, dataset_json: Path, seed: int, folder: Path, compute: Compute) -> None:
    """Make the samples of a seed, decode x_t and the estimate of the image at every step, and write them in chunks.

    recipe: JSON with ``model``, ``autoencoder`` and ``configuration``. dataset_json: the record of the images whose
    latents give the statistics, and that img2img and noising begin with. A chunk is a batch. Raises what `prepare`
    does, and ValueError that names the step and samples where latents or images are NaN or infinite; nothing is written
    then.
    """
    content = read_settings_file(recipe)
    run = prepare(content, files, choose_device(compute.device))
    names = list(run.groups)
    batches = [names[at : at + compute.batch_size] for at in range(0, len(names), compute.batch_size)]
    logs.log.info("%s: %d samples, %d steps, seed %d", folder, len(names), len(run.levels) - 1, seed)
    images = json.loads(dataset_json.read_text(encoding="utf-8"))
    written = {**content, **run.facts, "seed": seed, "images": images}
    write_trajectories(
        folder,
        (chunk(run, members, seed) for members in logs.progress(batches, len(batches), f"trajectories {seed}")),
        run.groups,
        run.levels,
        {key: value for key, value in written.items() if key != "format"},
    )


def chunk(run: Run, names: Sequence[str], seed: int) -> Chunk:
    """All states of one batch, as latents and decoded; at t = 0 the estimate of the image is the state itself."""
    parts: dict[str, list[NDArray[np.generic]]] = {}
    for state in run.states(names, seed):
        x0 = state.latents if state.prediction is None else state.prediction.x0
        tensors = {"latents": state.latents, "x0": x0, "images": pixels(run, state.latents)}
        tensors["x0_images"] = tensors["images"] if state.prediction is None else pixels(run, x0)
        if state.class_tokens is not None:
            tensors[CLASS_TOKENS] = state.class_tokens
        for key, tensor in tensors.items():
            parts.setdefault(key, []).append(tensor.cpu().numpy())
    return Chunk(tuple(names), {key: np.stack(arrays, axis=1) for key, arrays in parts.items()})


def pixels(run: Run, latents: Tensor) -> Tensor:
    """Decoded images (B, H, W, 3) float16 in [0, 1]."""
    return run.decode(latents).permute(0, 2, 3, 1).to(torch.float16)


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "trajectories"):
        torch.set_num_threads(snakemake.threads)
        given, resources = snakemake.input, snakemake.resources
        files = Files(
            *(Path(given.weights), Path(given.record)),
            *(Path(given.autoencoder_weights), Path(given.autoencoder_record)),
            tuple(Path(shard) for shard in given.latents),
            *(Path(given.statistics), Path(given.manifest)),
        )
        compute = Compute(resources.device, resources.batch_size, workers=0)
        trajectories(
            *(Path(given.recipe), files, Path(given.dataset), int(snakemake.wildcards.seed)),
            *(Path(snakemake.output[0]), compute),
        )
