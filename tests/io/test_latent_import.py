"""Latents that were made elsewhere: LightningDiT's and VFM-VAE's folders, REPA's, through the same graph."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Workflow
from safetensors.torch import save_file
from test_study import load

from diffalign.io.headers import StoreError
from diffalign.io.latents import Latents, encode_names
from diffalign.io.layouts import latent_folders
from diffalign.io.layouts.latent_records import Draw, Folder
from diffalign.io.manifest import Image, print_manifest
from diffalign.randomness import NoiseKey, normal
from diffalign.specs import LatentFiles, Model
from import_latents import import_latents

MODE = Draw("mode", NoiseKey("name", 0, "vae"))
NAMES = [f"n{i % 3}_{i:03d}" for i in range(12)]
RNG = np.random.default_rng(0)
TRUTH = torch.from_numpy(RNG.standard_normal((12, 4, 3, 3)).astype(np.float32))
LABELS = [100 + i % 3 for i in range(12)]
ORDER = [7, 3, 11, 0, 5, 9, 1, 4, 10, 2, 8, 6]
STD = torch.full((1, 4, 1, 1), 2.0)


def images(names: Sequence[str] = NAMES) -> list[Image]:
    """Images of three classes, numbered otherwise than in the folders."""
    return sorted(
        (Image(name, name[:2], int(name[1]), "", "", f"{name}.png", "") for name in names), key=lambda row: row.name
    )


def write_lightningdit(folder: Path, statistics: bool = True, **changes: Any) -> None:
    """Two files in another order than the names, with mirrored latents that nothing may use."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, rows in enumerate((ORDER[:7], ORDER[7:])):
        content = {
            "latents": TRUTH[rows],
            "latents_flip": TRUTH[rows].flip(3) + 5,
            "labels": torch.tensor([LABELS[row] for row in rows]),
            "names": encode_names([f"{NAMES[row]}.JPEG" for row in rows]),
        }
        content = {key: value for key, value in {**content, **changes}.items() if value is not None}
        save_file(content, folder / f"latents_rank00_batch{number:03d}.safetensors")
    if statistics:
        torch.save({"mean": torch.ones(1, 4, 1, 1), "std": STD}, folder / "latents_stats.pt")


def write_repa(folder: Path, spread: float = 0.5) -> None:
    listed = []
    for index, row in enumerate(ORDER):
        file = folder / f"{index // 5:05d}" / f"img-mean-std-{index:08d}.npy"
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, np.concatenate([TRUTH[row].numpy(), np.full((4, 3, 3), spread, np.float32)]))
        listed.append([file.relative_to(folder).as_posix(), LABELS[row]])
    (folder / "dataset.json").write_text(json.dumps({"labels": listed}))


def repa_names(path: Path) -> Path:
    path.write_text("".join(f"{NAMES[row]}\n" for row in ORDER))
    return path


def imported(tmp_path: Path, source: LatentFiles, **changes: Any) -> tuple[Latents, dict[str, Any]]:
    model: Model = replace(load().models["sdvae"], latents_from=source, **changes)
    manifest = tmp_path / "manifest.tsv"
    manifest.write_text(print_manifest(images()))
    shards = [tmp_path / f"latents_rank00_shard{i:03d}.safetensors" for i in range(3)]
    record = tmp_path / "latents.json"
    import_latents(model, "mine", "clean", manifest, shards, tmp_path / "latents_stats.pt", record)
    return Latents(shards, tmp_path / "latents_stats.pt"), json.loads(record.read_text())


def test_lightningdit_folders_are_joined_on_names(tmp_path: Path) -> None:
    write_lightningdit(tmp_path / "mine" / "clean")
    found, record = imported(tmp_path, LatentFiles(f"{tmp_path}/{{dataset}}/{{condition}}", "lightningdit"))
    assert sorted(found) == sorted(NAMES)
    for name, truth in zip(NAMES, TRUTH, strict=True):
        assert torch.equal(found[name], (truth - 1) / 2)
    assert record["source"] == "latents"
    assert record["path"] == f"{tmp_path}/mine/clean"
    assert record["files"] == 3
    again = imported(tmp_path, LatentFiles(f"{tmp_path}/mine/clean", "lightningdit"))[1]
    assert again == record


def test_what_is_imported_comes_out_as_it_went_in(tmp_path: Path) -> None:
    write_lightningdit(tmp_path / "first")
    imported(tmp_path, LatentFiles(f"{tmp_path}/first", "lightningdit"))
    once = {path.name: path.read_bytes() for path in tmp_path.glob("latents_*")}
    ours = tmp_path / "ours"
    ours.mkdir()
    for name, content in once.items():
        (ours / name).write_bytes(content)
    imported(tmp_path, LatentFiles(str(ours), "lightningdit"))
    assert {path.name: path.read_bytes() for path in tmp_path.glob("latents_*.safetensors")} == {
        name: content for name, content in once.items() if name.endswith(".safetensors")
    }


def test_half_precision_becomes_float32(tmp_path: Path) -> None:
    write_lightningdit(tmp_path / "half", latents=None)
    for file, rows in zip(sorted((tmp_path / "half").glob("*.safetensors")), (ORDER[:7], ORDER[7:]), strict=True):
        save_file({"latents": TRUTH[rows].half(), "names": encode_names([NAMES[row] for row in rows])}, file)
    found, _ = imported(tmp_path, LatentFiles(f"{tmp_path}/half", "lightningdit"))
    assert found[NAMES[0]].dtype == torch.float32
    assert torch.equal(found[NAMES[0]], (TRUTH[0].half().float() - 1) / 2)


def test_latents_without_names_take_those_of_a_names_file(tmp_path: Path) -> None:
    write_lightningdit(tmp_path / "bare", names=None)
    source = LatentFiles(f"{tmp_path}/bare", "lightningdit", str(repa_names(tmp_path / "names.txt")))
    found, record = imported(tmp_path, source)
    assert torch.equal(found[NAMES[4]], (TRUTH[4] - 1) / 2)
    assert record["files"] == 4
    with pytest.raises(StoreError, match=r"without names cannot be joined with images; give latents_from.names"):
        imported(tmp_path, replace(source, names=None))


def test_statistics_are_measured_on_request(tmp_path: Path) -> None:
    write_lightningdit(tmp_path / "bare", statistics=False)
    source = LatentFiles(f"{tmp_path}/bare", "lightningdit")
    with pytest.raises(StoreError, match=r"no latents_stats.pt.*models.sdvae.latent_statistics: measured"):
        imported(tmp_path, source)
    found, _ = imported(tmp_path, source, latent_statistics="measured")
    whole = torch.stack([found[name] for name in found])
    assert torch.allclose(whole.mean((0, 2, 3)), torch.zeros(4), atol=1e-6)
    assert torch.allclose(whole.transpose(0, 1).flatten(1).std(1), torch.ones(4), atol=1e-6)


def test_statistics_of_rae_are_per_position(tmp_path: Path) -> None:
    write_lightningdit(tmp_path / "rae", statistics=False)
    mean, var = TRUTH.mean(0), TRUTH.var(0)
    torch.save({"mean": mean, "var": var}, tmp_path / "rae" / "normalization_stats.pt")
    found, _ = imported(tmp_path, LatentFiles(f"{tmp_path}/rae", "lightningdit"))
    assert torch.allclose(found[NAMES[2]], (TRUTH[2] - mean) / torch.sqrt(var + 1e-5), atol=1e-6)
    torch.save({"mean": mean[:2], "var": var[:2]}, tmp_path / "rae" / "normalization_stats.pt")
    with pytest.raises(StoreError, match=r"are \(1, 2, 3, 3\), the latents \(4, 3, 3\)"):
        imported(tmp_path, LatentFiles(f"{tmp_path}/rae", "lightningdit"))


def test_the_mode_of_repa_is_its_mean_times_the_scale(tmp_path: Path) -> None:
    write_repa(tmp_path / "vae-sd")
    source = LatentFiles(f"{tmp_path}/vae-sd", "repa", str(repa_names(tmp_path / "names.txt")))
    found, record = imported(tmp_path, source)
    for name, truth in zip(NAMES, TRUTH, strict=True):
        assert torch.allclose(found[name], truth * 0.18215, atol=1e-7)
    # twelve latents, dataset.json and the names
    assert record["files"] == 14


def test_samples_of_repa_are_keyed_by_name(tmp_path: Path) -> None:
    write_repa(tmp_path / "vae-sd")
    source = LatentFiles(f"{tmp_path}/vae-sd", "repa", str(repa_names(tmp_path / "names.txt")))
    found, _ = imported(tmp_path, source, posterior="sample", seed=3)
    drawn = torch.from_numpy(normal((4, 3, 3), NoiseKey("name", 3, "sdvae"), NAMES[5], "posterior"))
    assert torch.allclose(found[NAMES[5]], (TRUTH[5] + 0.5 * drawn) * 0.18215, atol=1e-6)


def test_without_names_latents_of_repa_are_called_as_its_images(tmp_path: Path) -> None:
    write_repa(tmp_path)
    folder = latent_folders.open_folder(tmp_path, "repa", None, MODE)
    assert sorted(folder.file_of) == [f"img{index:08d}" for index in range(12)]
    assert torch.equal(folder.read("img00000003"), TRUTH[ORDER[3]])


def test_a_folder_may_hold_more_images_but_not_fewer(tmp_path: Path) -> None:
    write_lightningdit(tmp_path)
    folder = latent_folders.open_folder(tmp_path, "lightningdit", None, MODE)
    latent_folders.check_images(folder, images(NAMES[:5]))
    with pytest.raises(StoreError, match=rf"{tmp_path}: no latents for 2 of 14 images: n0_900, n1_901"):
        latent_folders.check_images(folder, images([*NAMES, "n0_900", "n1_901"]))


def test_labels_tell_latents_of_other_images(tmp_path: Path) -> None:
    write_repa(tmp_path / "vae-sd")
    shifted = tmp_path / "names.txt"
    shifted.write_text("".join(f"{NAMES[row]}\n" for row in [*ORDER[1:], ORDER[0]]))
    source = LatentFiles(f"{tmp_path}/vae-sd", "repa", str(shifted))
    with pytest.raises(
        StoreError, match=r"are both 'n0', but their latents have the labels 10\d and 10\d; are they of"
    ):
        imported(tmp_path, source)


def _cut(folder: Path) -> None:
    file = folder / "latents_rank00_batch001.safetensors"
    file.write_bytes(file.read_bytes()[:-40])


def _twice(folder: Path) -> None:
    file = folder / "latents_rank00_batch000.safetensors"
    (folder / "latents_rank01_batch000.safetensors").write_bytes(file.read_bytes())


def _nan(folder: Path) -> None:
    broken = TRUTH[ORDER[:7]].clone()
    broken[2, 0, 0, 0] = torch.nan
    save_file(
        {"latents": broken, "names": encode_names([NAMES[row] for row in ORDER[:7]])},
        folder / "latents_rank00_batch000.safetensors",
    )


def _other_shape(folder: Path) -> None:
    names = encode_names([NAMES[row] for row in ORDER[7:]])
    save_file({"latents": torch.zeros(5, 4, 2, 2), "names": names}, folder / "latents_rank00_batch001.safetensors")


def _no_latents(folder: Path) -> None:
    save_file({"images": torch.zeros(2)}, folder / "latents_rank00_batch001.safetensors")


def _bad_statistics(folder: Path) -> None:
    torch.save({"mean": torch.zeros(1, 4, 1, 1), "std": torch.zeros(1, 4, 1, 1)}, folder / "latents_stats.pt")


def _code(folder: Path) -> None:
    torch.save({"mean": torch.zeros(1, 4, 1, 1), "std": Path("x")}, folder / "latents_stats.pt")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_cut, r"batch001.safetensors: cannot be read as safetensors"),
        (_twice, r"rank01_batch000.safetensors: names stand in an earlier file, too"),
        (_nan, f"latents are NaN or infinite for {NAMES[ORDER[2]]}"),
        (_other_shape, r"batch001.safetensors: latents are \[4, 2, 2\], but \[4, 3, 3\] in latents_rank00_batch000"),
        (_no_latents, r"batch001.safetensors: needs 'latents' \(n, C, H, W\); it has images"),
        (_bad_statistics, r"latents_stats.pt: mean \(1, 4, 1, 1\) and std \(1, 4, 1, 1\) do not normalise latents"),
        (_code, r"latents_stats.pt: cannot be read as tensors, 'mean' and 'std' of latents"),
    ],
)
def test_a_broken_lightningdit_folder_is_named(damage: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    write_lightningdit(tmp_path / "theirs")
    damage(tmp_path / "theirs")
    with pytest.raises(StoreError, match=message):
        imported(tmp_path, LatentFiles(f"{tmp_path}/theirs", "lightningdit"))
    assert not (tmp_path / "latents_stats.pt").exists()


def _repa_cut(folder: Path) -> None:
    file = folder / "00000" / "img-mean-std-00000002.npy"
    file.write_bytes(file.read_bytes()[:-8])


def _repa_gone(folder: Path) -> None:
    (folder / "00001" / "img-mean-std-00000007.npy").unlink()


def _repa_objects(folder: Path) -> None:
    np.save(folder / "00000" / "img-mean-std-00000002.npy", np.array([{}], dtype=object), allow_pickle=True)


def _repa_wide(folder: Path) -> None:
    np.save(folder / "00000" / "img-mean-std-00000002.npy", np.zeros((32, 3, 3), np.float32))


def _repa_negative(folder: Path) -> None:
    np.save(folder / "00000" / "img-mean-std-00000002.npy", np.full((8, 3, 3), -1.0, np.float32))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_repa_cut, r"img-mean-std-00000002.npy: cannot be read as an array"),
        (_repa_gone, r"1 files of dataset.json are missing: 00001/img-mean-std-00000007.npy"),
        (_repa_objects, r"img-mean-std-00000002.npy: cannot be read as an array"),
        (_repa_wide, r"img-mean-std-00000002.npy: is \(32, 3, 3\); expected mean and std of 4 channels"),
        (_repa_negative, r"img-mean-std-00000002.npy: a std is negative"),
    ],
)
def test_a_broken_repa_folder_is_named(damage: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    write_repa(tmp_path / "vae-sd")
    damage(tmp_path / "vae-sd")
    source = LatentFiles(f"{tmp_path}/vae-sd", "repa", str(repa_names(tmp_path / "names.txt")))
    with pytest.raises(StoreError, match=message):
        imported(tmp_path, source)


def test_a_folder_that_is_none_is_named(tmp_path: Path) -> None:
    def opened(path: Path, layout: str, names: Path | None = None) -> Folder:
        return latent_folders.open_folder(path, layout, names, MODE)

    with pytest.raises(FileNotFoundError, match=r"nowhere: no such folder of latents"):
        opened(tmp_path / "nowhere", "repa")
    with pytest.raises(StoreError, match=r"no \*.safetensors"):
        opened(tmp_path, "lightningdit")
    with pytest.raises(StoreError, match=r"no 00000/img-mean-std-\*.npy"):
        opened(tmp_path, "repa")
    write_repa(tmp_path)
    (tmp_path / "few.txt").write_text("a\nb\n")
    with pytest.raises(StoreError, match=r"indices up to 11, but 2 names for them"):
        opened(tmp_path, "repa", tmp_path / "few.txt")
    (tmp_path / "twice.txt").write_text("a\na\n")
    with pytest.raises(StoreError, match=r"names stand more than once"):
        opened(tmp_path, "repa", tmp_path / "twice.txt")
    with pytest.raises(FileNotFoundError, match=r"gone.txt: no such names file"):
        opened(tmp_path, "repa", tmp_path / "gone.txt")


def overlay(path: Path, layout: str = "lightningdit", **changes: Any) -> dict[str, Any]:
    return {"models": {"sd3vae": {"latents_from": {"path": str(path), "layout": layout}, **changes}}}


def test_imported_latents_take_the_place_of_an_encoding(copied: Workflow) -> None:
    target = "results/cknna/dinov2_vs_sd3_b8.npy"
    ours = copied.directory / "results/latents/photographs/clean/sd3vae"
    theirs = copied.directory.parent / "theirs"
    ours.rename(theirs)
    changed = overlay(theirs)
    planned = copied.plan(target, overlay=changed).jobs()
    assert planned["import_latents"] == 1
    assert planned["extract_sd3"] == 1
    assert not {"latents", "miniature_weights", "extract_sd3vae"} & set(planned)
    score = copied.directory / target
    before = score.read_bytes()
    done = copied.run(target, overlay=changed)
    assert done.code == 0, done.output
    # they are what was encoded here, so the score is the same, and its recipe says where they are from
    assert score.read_bytes() == before
    recipe = json.loads(score.with_suffix(".json").read_text())["b"]
    assert recipe["autoencoder_weights"]["source"] == "latents"
    assert recipe["autoencoder"]["latents_from"] == {"path": str(theirs), "layout": "lightningdit"}
    assert recipe["autoencoder"]["posterior"] == "unknown: as it is in the files"
    assert copied.plan(target, overlay=changed).jobs() == {}
    (theirs / "latents_stats.pt").touch()
    assert copied.plan(target, overlay=changed).jobs()["import_latents"] == 1


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ({"dinov2": {"latents_from": {"path": "x", "layout": "repa"}}}, "models.dinov2.latents_from: means nothing"),
        ({"sd3": {"latents_from": {"path": "x", "layout": "repa"}}}, "models.sd3.latents_from: means nothing"),
        ({"sdvae": {"latents_from": {"path": "x", "layout": "edm"}}}, "models.sdvae.latents_from.layout: 'edm' is not"),
        ({"sdvae": {"latents_from": {"path": "{set}/x", "layout": "repa"}}}, "path: unknown placeholder 'set'"),
        ({"sdvae": {"latents_from": {"path": "x"}}}, "models.sdvae.latents_from: missing key 'layout'"),
    ],
)
def test_what_makes_no_sense_is_refused(models: dict[str, Any], message: str) -> None:
    from diffalign.config.study import ConfigError

    with pytest.raises(ConfigError) as caught:
        load({"models": models})
    assert message in str(caught.value)
