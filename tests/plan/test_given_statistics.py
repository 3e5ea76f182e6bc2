"""Statistics of latents that the weights of a model name: who is normalised by them, and what is refused."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import Workflow
from test_latents import rows
from test_plan import plan
from test_study import mistakes

from diffalign.io import latents as store
from diffalign.io.checkpoint_errors import CheckpointError
from diffalign.io.headers import StoreError
from diffalign.io.layouts.lightningdit import statistics_of
from diffalign.models.architectures import read_weights
from diffalign.specs import Model, Weights
from given_statistics import given_statistics
from weights import weights

OWN = "resources/weights/reg.vfmvae/latents_stats.pt"
PUBLISHED = "checkpoints_imagenet256/diffusions/reg_with_vfm_vae/latents_stats.pt"
HUB = {"reg.vfmvae": {"weights": {"from": "hub"}}}
FILE = {"from": "file", "path": "last.pt", "statistics": "stats.pt"}
MEAN, STD = torch.arange(4.0).view(1, 4, 1, 1), torch.full((1, 4, 1, 1), 2.0)


def where(**words: str) -> Any:
    return SimpleNamespace(dataset="photographs", condition="clean", **words, items=dict(words).items)


def test_a_model_is_normalised_by_what_its_weights_name() -> None:
    made = plan({"models": {**HUB, "lightningdit": {"weights": FILE}}})
    # an untrained twin reads the same latents
    for name in ("reg.vfmvae", "reg.vfmvae-untrained"):
        bundle = made.study.bundle(name)
        found = made.features.inputs("reg.vfmvae")(where(bundle=bundle))
        assert (found["statistics"], found["latents"][0]) == (OWN, made.latents.shards[0].format(**place("vfmvae")))
        recipe = made.features.recipe(where(bundle=bundle))
        assert recipe["autoencoder"]["latent_statistics"] == "weights.statistics of reg.vfmvae"
        assert recipe["model"]["weights"]["statistics"] == PUBLISHED
    asked = {"name": "reg.vfmvae", "statistics": PUBLISHED, "channels": 32}
    assert made.weights.statistics_spec(where(model="reg.vfmvae")) == asked
    assert made.samples.inputs()(where(model="lightningdit"))["statistics"] == (
        "resources/weights/lightningdit/latents_stats.pt"
    )
    # a miniature of the same latents is normalised by those of the data set
    other = made.features.inputs("lightningdit.vfmvae")(where(bundle=made.study.bundle("lightningdit.vfmvae")))
    assert other["statistics"] == "results/latents/photographs/clean/vfmvae/latents_stats.pt"


@pytest.mark.parametrize("kind", ["measured", "fixed"])
def test_a_training_is_normalised_by_what_it_was_trained_with(kind: str) -> None:
    training = {"dataset": "seen", "loss": "flow_matching", "steps": 40}
    made = plan(
        {
            "datasets": {"seen": {"kind": "packaged", "collection": "digits", "size": 32}},
            "models": {
                "small.sit": {"like": "sit", "weights": {"from": "training"}, "training": training},
                "sdvae": {"latent_statistics": kind},
            },
        }
    )
    autoencoders = {}
    for model in ("small.sit", "sit"):
        asked = where(bundle=made.study.bundle(model))
        found = made.features.inputs(model)(asked)
        assert found["latents"][0] == made.latents.shards[0].format(**place("sdvae"))
        # others by those of the images that they read
        of = "seen" if (model, kind) == ("small.sit", "measured") else "photographs"
        assert found["statistics"] == f"results/latents/{of}/clean/sdvae/latents_stats.pt"
        autoencoders[model] = made.features.recipe(asked)["autoencoder"].get("latent_statistics", "fixed")
    assert autoencoders == {"small.sit": "measured on seen" if kind == "measured" else kind, "sit": kind}


def place(model: str) -> dict[str, str]:
    return {"dataset": "photographs", "condition": "clean", "model": model}


def test_a_graph_reads_them_from_the_checkpoint(fresh: Workflow) -> None:
    planned = fresh.plan("results/features/photographs/clean/reg.vfmvae-t0.5.json", overlay={"models": HUB})
    jobs = planned.jobs()
    assert (jobs["given_statistics"], jobs["weights"], jobs["latents"]) == (1, 1, 1)
    assert OWN in planned.outputs()


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"sit": {"weights": {**FILE, "from": "url", "url": "https://x.org/a.pt"}}}, "beside weights from 'url'; from"),
        ({"dinov2": {"weights": FILE}}, "means nothing for a model that neither reads latents nor gives any"),
        ({"vfmvae": {"weights": FILE}}, "models.vfmvae.weights.statistics: means nothing under latent_statistics"),
        (
            {"sdvae": {"weights": FILE, "latents_from": {"path": "x", "layout": "repa"}}},
            "models.sdvae.weights.statistics: means nothing beside latents_from",
        ),
        ({"sit": {"weights": {"from": "url"}}}, "models.sit.weights: from 'url' needs the key 'url', an address such"),
        (
            {"sit": {"weights": {"from": "url", "url": "https://x.org"}}},
            "models.sit.weights.url: 'https://x.org' names",
        ),
        (
            {"sit": {"weights": {"from": "url", "url": "ftp://x.org/a"}}},
            "models.sit.weights.url: 'ftp://x.org/a' is no",
        ),
        ({"sit": {"weights": {"sha256": "0" * 64}}}, "models.sit.weights.sha256: is of a download, and there is no"),
        ({"sit": {"weights": {"statistic": "a.pt"}}}, "models.sit.weights: unknown key 'statistic'; did you mean"),
    ],
)
def test_what_means_nothing_is_refused(entries: dict[str, Any], said: str) -> None:
    assert said in mistakes({"models": entries})


def test_a_folder_of_several_steps_has_no_one_file(tmp_path: Path) -> None:
    for step in (1, 2):
        (tmp_path / str(step)).mkdir()
    several = {"from": "folder", "folder": f"{tmp_path}/{{step}}", "steps": "all", "statistics": "stats.pt"}
    assert "models.sit.weights.statistics: folders of several steps" in mistakes(
        {"models": {"sit": {"weights": several}}}
    )


def linked(tmp_path: Path, spec: Weights) -> tuple[Path, Path]:
    folder, record = tmp_path / "weights" / "checkpoint", tmp_path / "weights" / "weights.json"
    weights("mine", spec, folder, record, tmp_path)
    return folder, record


def test_a_local_file_lies_beside_the_checkpoint_and_normalises_latents(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "last.pt")
    torch.save({"mean": MEAN.flatten(), "std": STD.flatten()}, tmp_path / "stats.pt")
    spec = Weights("file", path=f"{tmp_path}/last.pt", statistics=f"{tmp_path}/stats.pt")
    folder, record = linked(tmp_path, spec)
    assert read_weights(Model("mine", "sit", spec, {}, ""), folder).tensors.keys() == {"a"}
    given_statistics("mine", str(spec.given_statistics), 4, folder, record, tmp_path / "made.pt")
    latent = torch.randn(2, 4, 3, 3)
    store.write_shard(tmp_path / "s.safetensors", rows("a", "b"), [latent])
    read = store.Latents([tmp_path / "s.safetensors"], tmp_path / "made.pt")
    assert torch.equal(read["b"], (latent[1] - MEAN[0]) / 2)
    with pytest.raises(
        StoreError, match=r"stats.pt: mean and std are of 4 channels, but mine reads latents of 32 \(mod"
    ):
        given_statistics("mine", "stats.pt", 32, folder, record, tmp_path / "other.pt")
    assert not (tmp_path / "other.pt").exists()
    with pytest.raises(FileNotFoundError, match=r"models\.mine\.weights\.statistics: no such file: .*gone\.pt"):
        linked(tmp_path, Weights("file", path=f"{tmp_path}/last.pt", statistics=f"{tmp_path}/gone.pt"))


def test_a_file_of_a_folder_is_taken_with_the_files_that_are_named(tmp_path: Path) -> None:
    source = tmp_path / "theirs"
    (source / "reg").mkdir(parents=True)
    for name in ("a.pt", "reg/b.pt"):
        torch.save({"a": torch.zeros(1)}, source / name)
    torch.save({"mean": MEAN, "std": STD}, source / "reg" / "stats.pt")
    spec = Weights("folder", folder=str(source), files=("reg/b.pt",), statistics="reg/stats.pt")
    folder, record = linked(tmp_path, spec)
    model = Model("mine", "sit", spec, {}, "")
    assert read_weights(model, folder).path == folder / "reg/b.pt"
    given_statistics("mine", "reg/stats.pt", None, folder, record, tmp_path / "made.pt")
    assert torch.equal(store.read_statistics(tmp_path / "made.pt")[1], STD)
    with pytest.raises(FileNotFoundError, match=r"models\.mine\.weights\.folder: .* has no file reg/gone\.pt"):
        linked(tmp_path, Weights("folder", folder=str(source), files=("reg/b.pt",), statistics="reg/gone.pt"))
    with pytest.raises(
        FileNotFoundError, match=r"models\.mine\.weights\.statistics: the checkpoint has no file gone\.pt"
    ):
        linked(tmp_path, Weights("folder", folder=str(source), statistics="gone.pt"))
    folder, _ = linked(tmp_path, spec)
    torch.save({"a": torch.zeros(1)}, folder / "reg" / "c.pt")
    with pytest.raises(CheckpointError, match=r"found reg/b.pt, reg/c.pt; of several, name one in 'files'"):
        read_weights(model, folder)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"mu": MEAN, "sigma": STD}, r"expected the tensors 'mean' and 'std', or 'mean' and 'var'; it has mu, sigma"),
        ({"mean": MEAN, "std": [1.0]}, r"expected the tensors .*; it has mean, std"),
        (MEAN, r"expected the tensors .*; it has Tensor"),
        ({"mean": MEAN, "std": STD[:, :2]}, r"mean \(1, 4, 1, 1\) and std \(1, 2, 1, 1\) do not normalise latents"),
        ({"mean": MEAN / 0, "std": STD}, r"mean .* do not normalise latents"),
        ({"mean": MEAN[0, 0], "std": STD[0, 0]}, r"mean \(1, 1\) and std \(1, 1\) do not normalise latents"),
        (
            {"mean": Path("x"), "std": STD},
            r"cannot be read as tensors, 'mean' and 'std' of latents \(it is damaged, or holds pickled objects",
        ),
    ],
)
def test_a_file_of_something_else_is_named(content: Any, said: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "stats.pt")
    with pytest.raises(StoreError, match=rf"stats\.pt: {said}"):
        statistics_of(tmp_path / "stats.pt")


def test_the_published_shapes_are_read(tmp_path: Path) -> None:
    for shape in ((4,), (4, 1, 1), (1, 4, 1, 1)):
        torch.save({"mean": MEAN.view(shape), "std": STD.view(shape)}, tmp_path / "stats.pt")
        assert all(map(torch.equal, statistics_of(tmp_path / "stats.pt"), (MEAN, STD)))
