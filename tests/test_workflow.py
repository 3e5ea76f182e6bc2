"""Real runs: what comes out, what a bad input does, what a crash leaves."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import jsonschema
import numpy as np
import pandas as pd
import psutil
import pytest
import torch
import yaml
from conftest import ROOT, Run, Workflow, write_neighbors
from PIL import Image
from safetensors.torch import load_file, save_file

from diffalign.io import feature_files, neighbor_files
from diffalign.io.latents import decode_names
from diffalign.io.manifest import read_manifest
from diffalign.io.matrices import read_layer_matrices

FEATURES = "results/features/photographs/clean"
NEIGHBORS = "results/neighbors/photographs/clean"


# --- what comes out -------------------------------------------------------------------------------------------------


def test_every_artifact_has_the_form_that_the_readme_promises(finished: Workflow) -> None:
    work = finished.directory
    images = read_manifest(work / "results/images/photographs/clean/manifest.tsv")
    assert len(images) == 40
    assert {path.stem for path in (work / "results/images/photographs/clean/png").glob("*.png")} == {
        i.name for i in images
    }
    features = feature_files.read_features(work / FEATURES / "sd3-t0.5/b8.pt")
    assert features.names == tuple(image.name for image in images)
    assert features.values.shape == (40, 64)
    assert features.recipe["module"] == "transformer_blocks.8"
    assert features.recipe["noise_level"]["t"] == 0.5
    assert features.recipe["weights"]["source"] == "miniature"
    lists = neighbor_files.read_neighbors(work / NEIGHBORS / "sd3-t0.5.npz")
    assert len(lists.layers) == 26
    assert lists.layer("b8").indices.shape == (40, 20)
    stats = torch.load(work / "results/latents/photographs/clean/sd3vae/latents_stats.pt", weights_only=True)
    assert {key: tuple(value.shape) for key, value in stats.items()} == {"mean": (1, 16, 1, 1), "std": (1, 16, 1, 1)}
    prompt = load_file(work / "results/prompts/photographs/sd3-uncond.safetensors")
    assert prompt["prompt_embeds"].shape == (1, 333, 64)
    assert prompt["row"].tolist() == [0] * 40
    assert decode_names(prompt["names"]) == [image.name for image in images]
    assert features.recipe["autoencoder_weights"]["sha256"].keys() == {
        "config.json",
        "diffusion_pytorch_model.safetensors",
    }
    spec = json.loads((work / "results/images/photographs/clean/dataset.json").read_text())
    assert features.recipe["images"] == spec
    assert (spec["kind"], spec["size"], spec["per_photograph"]) == ("photographs", 128, 2)


def test_recipes_follow_their_schema(finished: Workflow) -> None:
    schema = yaml.safe_load((ROOT / "schemas/recipe.schema.yaml").read_text())
    (path,) = (finished.directory / "results/cknna").rglob("*.json")
    recipe = json.loads(path.read_text())
    jsonschema.validate(recipe, schema)
    score = np.load(path.with_suffix(".npy"))
    assert score.dtype == np.float64
    assert recipe["value"] == float(score)
    assert [recipe[side]["layers"][0]["layer"] for side in "ab"] == ["final", "b8"]
    paths = [*(finished.directory / "results/alignment").rglob("*.npz")]
    assert len(paths) == 6
    for path in paths:
        (matrix,) = read_layer_matrices(path, ["cknna"])
        jsonschema.validate(matrix.recipe, schema)
        assert matrix.values.dtype == np.float64
        assert list(matrix.values.shape) == matrix.recipe["shape"]


def test_the_single_score_is_the_cell_of_the_matrix(finished: Workflow) -> None:
    results = finished.directory / "results"
    (matrix,) = read_layer_matrices(results / "alignment/photographs/clean/dinov2_vs_sd3.npz", ["cknna"])
    cell = matrix.values[matrix.layers("a").index("final"), matrix.layers("b").index("b8")]
    # a matrix sums its cells in other pieces
    near = pytest.approx(cell, rel=1e3 * np.finfo(np.float64).eps)
    assert float(np.load(results / "cknna/dinov2_vs_sd3_b8.npy")) == near


def test_the_table_holds_every_score_once_in_both_formats(finished: Workflow) -> None:
    tables = finished.directory / "results/tables"
    table = pd.read_csv(tables / "alignment.tsv", sep="\t")
    parquet = pd.read_parquet(tables / "alignment.parquet")
    assert list(table.columns) == list(parquet.columns)
    assert len(table) == len(parquet) == 14 * 26 * 2 + 14 * 7 + 26 * 7 * 2 + 26 * 26
    assert np.allclose(table.score, parquet.score, rtol=1e-8)
    pairs = table.groupby(["a", "b"])
    assert (pairs.is_best.sum() == 1).all()
    assert (pairs.is_default.sum() == 1).all()
    assert table.miniature.all()
    default = table[table.is_default & (table.a == "dinov2") & (table.b == "sd3-t0.5")]
    assert (default.layer_a.item(), default.layer_b.item()) == ("final", "b8")


def test_figures_are_pictures(finished: Workflow) -> None:
    folder = finished.directory / "results/figures/photographs/clean"
    for kind in ("layer_maps", "depth_curves", "null_histograms"):
        pngs = sorted((folder / kind).glob("*.png"))
        assert len(pngs) == 6
        for path in pngs:
            with Image.open(path) as image:
                # a null far from its score is a line of numbers
                assert min(image.size) > 300
                assert np.asarray(image.convert("L")).std() > 10
            assert path.with_suffix(".pdf").read_bytes().startswith(b"%PDF")


def test_logs_are_filled(finished: Workflow) -> None:
    logs = sorted((finished.directory / "logs").rglob("*.log"))
    assert len(logs) > 30
    texts = [path.read_text() for path in logs]
    assert all("took" in text or text.startswith("wrote results/") for text in texts)


def test_the_report_is_one_offline_page_with_captions(finished: Workflow, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    done = finished.run(options=["--report", str(page)])
    assert done.code == 0, done.output
    html = page.read_text()
    for text in ("are miniatures with random weights", "Alignment over depth", "layer x layer", "sd3-t0.5_b8"):
        assert text in html
    # everything is inside: no script, style or picture is fetched
    assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=[\"']https?:", html)


def test_an_added_metric_and_another_preparation_change_every_score(copied: Workflow) -> None:
    overlay = {"alignment": {"metrics": ["cknna", "mutual_knn"], "center": True}}
    path = copied.directory / "results/alignment/photographs/clean/dinov2_vs_sdvae.npz"
    (before,) = read_layer_matrices(path, ["cknna"])
    target = "results/figures/photographs/clean/layer_maps/dinov2_vs_sdvae.png"
    done = copied.run(target, overlay=overlay)
    assert done.code == 0, done.output
    cknna, mutual = read_layer_matrices(path, ["cknna", "mutual_knn"])
    assert not np.allclose(cknna.values, before.values)
    assert cknna.recipe["preparation"]["center"] is True
    assert mutual.values.shape == before.values.shape
    # one of them by itself, with its recipe
    alone = "results/mutual_knn/photographs/clean/layers/dinov2_vs_sdvae.npy"
    done = copied.run(alone, overlay=overlay)
    assert done.jobs() == {"layer_matrix": 1}, done.output
    assert np.array_equal(np.load(copied.directory / alone), mutual.values)
    assert json.loads((copied.directory / alone).with_suffix(".json").read_text()) == mutual.recipe
    assert ((mutual.values >= 0) & (mutual.values <= 1)).all()


# --- bad input: an exit code, one message that names the file, nothing half-written ---------------------------------


def picture(path: Path, mode: str = "RGB") -> None:
    rng = np.random.default_rng(len(path.name))
    image = Image.fromarray(rng.integers(0, 256, (80, 100, 3), dtype=np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    (image.quantize(32) if mode == "P" else image.convert(mode)).save(path)


def my_images(workflow: Workflow, folder: Path, **entry: object) -> Run:
    overlay = {"datasets": {"mine": {"kind": "folder", "path": str(folder), "size": 64, **entry}}}
    return workflow.run("results/images/mine/clean/manifest.tsv", overlay=overlay)


def check_refused(run: Run, workflow: Workflow, output: str, *messages: str) -> None:
    assert run.code != 0
    for message in messages:
        assert message in run.output, run.output
    left = workflow.directory / output
    assert not left.exists() or not list(left.rglob("*")), list(left.rglob("*"))


def test_a_truncated_png(fresh: Workflow, tmp_path: Path) -> None:
    picture(tmp_path / "mine" / "whole.png")
    picture(tmp_path / "mine" / "cut.png")
    cut = tmp_path / "mine" / "cut.png"
    cut.write_bytes(cut.read_bytes()[:2000])
    check_refused(my_images(fresh, tmp_path / "mine"), fresh, "results/images/mine", f"images: {cut}: cannot be read")


def test_an_empty_and_an_absent_folder(fresh: Workflow, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    check_refused(
        my_images(fresh, tmp_path / "empty"), fresh, "results/images/mine", f"{tmp_path / 'empty'}: no images"
    )
    check_refused(
        my_images(fresh, tmp_path / "gone"), fresh, "results/images/mine", f"{tmp_path / 'gone'}: no such folder"
    )


def test_two_files_with_one_stem(fresh: Workflow, tmp_path: Path) -> None:
    picture(tmp_path / "mine" / "a.png")
    picture(tmp_path / "mine" / "a.jpg")
    refused = my_images(fresh, tmp_path / "mine")
    check_refused(refused, fresh, "results/images/mine", "two files with the stem 'a': a.jpg and a.png")


def test_grey_palette_and_cmyk_images_are_accepted_converted_and_noted(fresh: Workflow, tmp_path: Path) -> None:
    for name, mode in (("grey.png", "L"), ("palette.png", "P"), ("cmyk.jpg", "CMYK"), ("colour.png", "RGB")):
        picture(tmp_path / "mine" / name, mode)
    done = my_images(fresh, tmp_path / "mine")
    assert done.code == 0, done.output
    images = read_manifest(fresh.directory / "results/images/mine/clean/manifest.tsv")
    assert {image.name: image.notes for image in images} == {
        "cmyk": "converted from CMYK",
        "colour": "",
        "grey": "converted from L",
        "palette": "converted from P",
    }
    for image in images:
        with Image.open(fresh.directory / f"results/images/mine/clean/png/{image.name}.png") as written:
            assert (written.mode, written.size) == ("RGB", (64, 64))
    assert "3 of 4 images are converted to RGB" in (fresh.directory / "logs/images/mine/clean.log").read_text()


def test_images_that_are_added_are_noticed(fresh: Workflow, tmp_path: Path) -> None:
    picture(tmp_path / "mine" / "a.png")
    assert my_images(fresh, tmp_path / "mine").code == 0
    assert "Nothing to be done" in my_images(fresh, tmp_path / "mine").output
    picture(tmp_path / "mine" / "b.png")
    assert my_images(fresh, tmp_path / "mine").code == 0
    images = read_manifest(fresh.directory / "results/images/mine/clean/manifest.tsv")
    assert [image.name for image in images] == ["a", "b"]


def test_a_seeded_sample_of_synset_folders(fresh: Workflow, tmp_path: Path) -> None:
    for synset in ("n01", "n02", "n03"):
        for i in range(5):
            picture(tmp_path / "mine" / synset / f"{synset}_{i}.png")
    done = my_images(fresh, tmp_path / "mine", kind="synsets", sample=6)
    assert done.code == 0, done.output
    images = read_manifest(fresh.directory / "results/images/mine/clean/manifest.tsv")
    assert len(images) == 6
    assert all(
        image.label == image.name.split("_")[0] and image.label_index == int(image.label[-1]) - 1 for image in images
    )


def test_nan_in_a_feature_file(copied: Workflow) -> None:
    path = copied.directory / FEATURES / "dinov2" / "b3.pt"
    content = torch.load(path, weights_only=True)
    content["features"][7] = float("nan")
    torch.save(content, path)
    (copied.directory / NEIGHBORS / "dinov2.npz").unlink()
    refused = copied.run(f"{NEIGHBORS}/dinov2.npz")
    assert refused.code != 0
    assert (
        f"neighbors: {FEATURES}/dinov2/b3.pt: 1 of 40 rows are NaN or infinite, first: {content['names'][7]}"
        in refused.output
    )
    assert not list((copied.directory / NEIGHBORS).glob("*dinov2*"))


def test_names_that_differ_between_two_models(copied: Workflow) -> None:
    path = copied.directory / NEIGHBORS / "dinov2.npz"
    old = neighbor_files.read_neighbors(path)
    layers = {layer: old.layer(layer) for layer in old.layers}
    write_neighbors(path, ["someone", *old.names[1:]], layers, old.settings, old.recipe)
    target = "results/cknna/dinov2_vs_sd3_b8.npy"
    refused = copied.run(target)
    assert refused.code != 0
    assert (
        f"images differ: 1 only in {NEIGHBORS}/dinov2.npz: someone; 1 only in {NEIGHBORS}/sd3-t0.5.npz"
        in refused.output
    )
    assert old.names[0] in refused.output
    assert not (copied.directory / target).exists()


def dinov2_from(folder: Path) -> dict[str, object]:
    return {"models": {"dinov2": {"weights": {"from": "folder", "folder": str(folder)}}}}


def test_a_checkpoint_with_missing_keys(copied: Workflow, tmp_path: Path) -> None:
    shutil.copytree(copied.directory / "resources/weights/dinov2/checkpoint", tmp_path / "mine")
    tensors = load_file(tmp_path / "mine/model.safetensors")
    del tensors["blocks.3.attn.qkv.weight"]
    save_file(tensors, tmp_path / "mine/model.safetensors")
    refused = copied.run(f"{FEATURES}/dinov2.json", overlay=dinov2_from(tmp_path / "mine"))
    checkpoint = "resources/weights/dinov2/checkpoint/model.safetensors"
    message = f"extract_dinov2: {checkpoint}: the checkpoint does not fit the model: keys 1 missing (blocks.3"
    check_refused(refused, copied, f"{FEATURES}/dinov2", message)


def test_a_checkpoint_that_is_cut_off(copied: Workflow, tmp_path: Path) -> None:
    shutil.copytree(copied.directory / "resources/weights/dinov2/checkpoint", tmp_path / "mine")
    path = tmp_path / "mine/model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    refused = copied.run(f"{FEATURES}/dinov2.json", overlay=dinov2_from(tmp_path / "mine"))
    message = "extract_dinov2: resources/weights/dinov2/checkpoint: dinov2 cannot be loaded:"
    check_refused(refused, copied, f"{FEATURES}/dinov2", message)


def test_a_local_checkpoint_that_changes_is_noticed(copied: Workflow, tmp_path: Path) -> None:
    shutil.copytree(copied.directory / "resources/weights/dinov2/checkpoint", tmp_path / "mine")
    overlay = dinov2_from(tmp_path / "mine")
    target = f"{FEATURES}/dinov2.json"
    assert copied.run(target, overlay=overlay).code == 0
    assert "Nothing to be done" in copied.plan(target, overlay=overlay).output
    tensors = load_file(tmp_path / "mine/model.safetensors")
    save_file({key: value + 0.1 for key, value in tensors.items()}, tmp_path / "mine/model.safetensors")
    assert copied.plan(target, overlay=overlay).jobs() == {"weights": 1, "extract_dinov2": 1}


def test_a_checkpoint_that_is_not_the_recorded_one(copied: Workflow) -> None:
    path = copied.directory / "resources/weights/dinov2/checkpoint/config.json"
    path.write_text(path.read_text() + " ")
    shutil.rmtree(copied.directory / FEATURES / "dinov2")
    (copied.directory / FEATURES / "dinov2.json").unlink()
    refused = copied.run(f"{FEATURES}/dinov2.json")
    message = (
        "checkpoint/config.json: has changed since its sha256 was recorded in resources/weights/dinov2/weights.json"
    )
    check_refused(refused, copied, f"{FEATURES}/dinov2", message)


def test_latents_of_another_width_are_refused_by_name(copied: Workflow) -> None:
    refused = copied.run(f"{FEATURES}/sd3-t0.5.json", overlay={"models": {"sd3": {"latents": "sdvae"}}})
    assert refused.code != 0
    assert "sd3 reads latents of 16 channels, but those of models.sd3.latents, 'sdvae', have 4" in refused.output


def test_a_hub_that_cannot_be_reached_says_what_to_do(fresh: Workflow) -> None:
    refused = fresh.run(
        "resources/weights/siglip2/weights.json", overlay={"models": {"siglip2": {"weights": {"from": "hub"}}}}
    )
    check_refused(
        refused, fresh, "resources", "google/siglip2-large-patch16-512 is not in the Hugging Face cache", "from: folder"
    )


def test_a_local_folder_gives_the_same_features_as_the_checkpoint_it_holds(copied: Workflow, tmp_path: Path) -> None:
    (copied.directory / "resources/weights/siglip2/checkpoint").rename(tmp_path / "mine")
    before = feature_files.read_features(copied.directory / FEATURES / "siglip2/final.pt")
    # weights of the user's own take the published size, unless the user says another one
    mine = {"weights": {"from": "folder", "folder": str(tmp_path / "mine")}, "input": {"size": 64}}
    done = copied.run(f"{FEATURES}/siglip2.json", overlay={"models": {"siglip2": mine}})
    assert done.code == 0, done.output
    after = feature_files.read_features(copied.directory / FEATURES / "siglip2/final.pt")
    assert np.array_equal(before.values, after.values)
    assert after.recipe["weights"]["source"] == "folder"
    assert after.recipe["weights"]["sha256"] == before.recipe["weights"]["sha256"]


def test_a_killed_extraction_leaves_nothing_and_the_same_command_finishes(copied: Workflow) -> None:
    folder = copied.directory / FEATURES / "sd3-t0.5"
    expected = {path.name: path.read_bytes() for path in folder.glob("*.pt")}
    shutil.rmtree(folder)
    folder.with_name("sd3-t0.5.json").unlink()
    log = copied.directory / "logs/extract/photographs/clean/sd3-t0.5.log"
    log.unlink()
    command = copied.command(f"{FEATURES}/sd3-t0.5.json")
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=copied.tree) as running:
        kill_extraction(running.pid, log)
        assert running.wait(60) != 0
    assert not folder.exists()
    done = copied.run(f"{FEATURES}/sd3-t0.5.json")
    assert done.code == 0, done.output
    assert {path.name for path in folder.glob("*.pt")} == set(expected)
    for name, content in expected.items():
        assert (folder / name).read_bytes() == content


def kill_extraction(pid: int, log: Path) -> None:
    """Send SIGKILL to the extraction below a Snakemake process once it has begun to compute."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if log.exists() and "images" in log.read_text():
            for child in psutil.Process(pid).children(recursive=True):
                if "extract.py" in " ".join(child.cmdline()) and "python" in child.name():
                    os.kill(child.pid, signal.SIGKILL)
                    return
        time.sleep(0.02)
    pytest.fail("the extraction never began")
