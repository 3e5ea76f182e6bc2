"""SiT, REPA, REG and LightningDiT against their published implementations, and what their families refuse."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import catalogue, golden
from safetensors.torch import load_file
from test_study import load as load_study

from diffalign import models
from diffalign.config.catalogue import resolve
from diffalign.extraction.passes import pooled_features
from diffalign.extraction.taps import Taps
from diffalign.io.checkpoint_errors import CheckpointError
from diffalign.models.networks.latent_transformers import read_architecture
from diffalign.models.networks.lightningdit import LightningArchitecture, LightningDiT
from diffalign.models.networks.reg import REG
from diffalign.models.networks.repa import REPA, RepaArchitecture
from diffalign.models.networks.sit import SiT, SiTArchitecture
from diffalign.noise import on_path
from diffalign.specs import Model, Weights

CPU = torch.device("cpu")
STUDY = load_study()
KINDS = {
    "sit": SiTArchitecture,
    "repa": RepaArchitecture,
    "reg": RepaArchitecture,
    "lightningdit": LightningArchitecture,
}


# the same with normalised queries and keys
NORMALISED = [f"{name}_qk_norm" for name in KINDS]


# entries whose latents are those of VFM-VAE, and the golden that has their full size
ON_VFMVAE = {"reg.vfmvae": "reg_qk_norm", "lightningdit.vfmvae": "lightningdit_qk_norm"}
# the word of an autoencoder's miniature that says how many channels its latents have
CHANNELS = {"diffusers_vae": "latent_channels", "vavae": "z_channels", "vfmvae": "z_dimension"}


def family(name: str) -> str:
    return name.removesuffix("_qk_norm")


def published(name: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    return json.loads(golden(f"{name}.json").read_text()), load_file(golden(f"{name}.safetensors"))


def model_of(name: str, **entry: Any) -> Model:
    config, _ = published(name)
    keys = KINDS[family(name)].__dataclass_fields__
    architecture = {key: value for key, value in config["config"].items() if key in keys}
    layers = {"embed": "embedder", "b0": "blocks.0"}
    given = {"latents": "vae", "noise": "t0.5", "path": "linear", "architecture": architecture, **entry}
    return Model(name, family(name), Weights("file"), layers, "b0", **given)


def checkpoint(name: str, folder: Path, nesting: str = "ema") -> Path:
    _, tensors = published(name)
    state = {key.removeprefix("weight."): tensor for key, tensor in tensors.items() if key.startswith("weight.")}
    torch.save({nesting: state, "steps": 3}, folder / "last.pt")
    return folder


@pytest.mark.parametrize("name", [*KINDS, *NORMALISED])
def test_every_stage_equals_the_published_one(name: str, tmp_path: Path) -> None:
    config, tensors = published(name)
    outputs = {key.removeprefix("output."): tensor for key, tensor in tensors.items() if key.startswith("output.")}
    net: Any = models.load_denoiser(model_of(name), checkpoint(name, tmp_path), CPU).module
    paths = {"x_embedder": "x_embedder", "embedder": "embedder"}
    paths |= {f"blocks_{i}": f"blocks.{i}" for i in range(config["config"]["depth"])}
    if "projection_0" in outputs:
        paths["projection_0"] = "projectors.0"
    if "final_layer" in outputs:
        paths["final_layer"] = "final_layer"
    given = [tensors[f"input.{key}"] for key in ("latent", "t", "label")]
    if family(name) == "reg":
        given.append(tensors["input.cls_token"])
    kept: dict[str, Any] = {}
    for stage, path in paths.items():
        net.get_submodule(path).register_forward_hook(lambda m, i, output, stage=stage: kept.update({stage: output}))
    with torch.inference_mode():
        predicted = net(*given)
    kept |= {"sample": predicted[0], "cls": predicted[1]} if family(name) == "reg" else {"sample": predicted}
    assert set(outputs) == set(kept) - {"embedder"}
    for stage, expected in outputs.items():
        found = kept[stage][0] if isinstance(kept[stage], tuple) else kept[stage]
        assert found.shape == expected.shape
        assert (found - expected).abs().max() <= 1e-5, stage
    leading = 1 if family(name) == "reg" else 0
    assert torch.equal(kept["embedder"][:, leading:], kept["x_embedder"] + net.pos_embed[:, leading:])


@pytest.mark.parametrize(
    ("name", "clock"), [("sit", {0.2: 0.8}), ("repa", {0.2: 0.2}), ("reg", {0.2: 0.2}), ("lightningdit", {0.2: 0.8})]
)
def test_each_family_is_fed_its_own_clock(name: str, clock: dict[float, float], tmp_path: Path) -> None:
    folder = checkpoint(name, tmp_path)
    linear, bent = (models.load_denoiser(model_of(name, path=path), folder, CPU) for path in ("linear", "cosine"))
    for t, told in clock.items():
        level = linear.level(f"t{t}")
        assert (level.alpha, level.sigma) == (1 - t, t)
        assert level.timestep == pytest.approx(told)
        cosine = bent.level(f"t{t}")
        assert cosine.t == pytest.approx(t)
        tau = cosine.timestep if told == t else 1 - cosine.timestep
        assert (cosine.alpha, cosine.sigma) == pytest.approx((math.cos(math.pi * tau / 2), math.sin(math.pi * tau / 2)))
    with pytest.raises(ValueError, match="no img2img strength 's20'; write t0.2"):
        linear.level("s20")


def test_paths_meet_at_their_ends_and_in_the_middle() -> None:
    for path in ("linear", "cosine"):
        # the arc tangent may be off by a digit
        near = {"abs": 4 * np.finfo(np.float64).eps}
        assert on_path(path, 0.0) == pytest.approx((1, 0, 0), **near)
        assert on_path(path, 1.0) == pytest.approx((0, 1, 1), **near)
        assert on_path(path, 0.5)[2] == pytest.approx(0.5, **near)
    with pytest.raises(ValueError, match="unknown path 'edm'; allowed: linear, cosine"):
        on_path("edm", 0.5)


def batch(name: str, count: int) -> dict[str, Any]:
    _, tensors = published(name)
    given = {"latents": tensors["input.latent"], "labels": tensors["input.label"]}
    if name == "reg":
        given["class_tokens"] = tensors["input.cls_token"]
    return {"names": list("abc")[:count], **{key: tensor[:count] for key, tensor in given.items()}}


def test_reg_averages_patches_and_all_tokens_of_projectors(tmp_path: Path) -> None:
    _, tensors = published("reg")
    found = models.load_denoiser(model_of("reg"), checkpoint("reg", tmp_path), CPU)
    layers = {"embed": "embedder", "b2": "blocks.2", "proj0": "projectors.0", "final": "final_layer"}
    at_half = {key: value[1:2] for key, value in batch("reg", 3).items()}
    with torch.inference_mode(), Taps(found.module, layers, found.tokens) as taps:
        kept = taps.run(lambda: found.at(found.level("t0.5")).forward(at_half))
    assert {alias: tokens.shape[1] for alias, tokens in kept.items()} == {
        "embed": 16,
        "b2": 16,
        "proj0": 17,
        "final": 16,
    }
    # input.t of the second golden row is 0.5
    assert torch.allclose(kept["b2"], tensors["output.blocks_2"][1:2, 1:], atol=1e-5)
    assert torch.allclose(kept["proj0"], tensors["output.projection_0"][1:2], atol=1e-5)


@pytest.mark.parametrize("name", list(KINDS))
def test_features_do_not_depend_on_the_batch(name: str, tmp_path: Path) -> None:
    found = models.load_denoiser(model_of(name), checkpoint(name, tmp_path), CPU)
    layers = {"embed": "embedder", "b2": "blocks.2", "final": "final_layer"}
    _, together = pooled_features(found.at(found.level("t0.2")), layers, [batch(name, 3)])
    _, alone = pooled_features(found.at(found.level("t0.2")), layers, [batch(name, 1)])
    for alias in layers:
        np.testing.assert_allclose(together[alias][:1], alone[alias], atol=1e-5)


def test_the_facts_of_a_checkpoint_are_recorded(tmp_path: Path) -> None:
    found = models.load_denoiser(model_of("reg"), checkpoint("reg", tmp_path, "model"), CPU)
    facts = found.at(found.level("t0.25")).facts
    assert facts["state_dict"] == "model"
    assert facts["noise_level"]["t"] == 0.25
    assert (found.latent_channels, found.only_side, found.classes, found.class_token_width) == (4, 8, 10, 24)


@pytest.mark.parametrize("name", ["sit", "lightningdit"])
def test_positions_of_other_latents_are_interpolated(name: str, tmp_path: Path) -> None:
    net: Any = models.load_denoiser(model_of(name), checkpoint(name, tmp_path), CPU).module
    a = net.architecture
    with torch.inference_mode():
        for side in (a.input_size * 2, a.input_size // 2):
            latents = torch.zeros(1, a.in_channels, side, side)
            assert net(latents, torch.zeros(1), torch.zeros(1, dtype=torch.int64)).shape == latents.shape
            middle = net.positions(latents).mean((0, 1))
            assert torch.allclose(middle, net.pos_embed.mean((0, 1)), atol=0.1)
    with pytest.raises(ValueError, match=r"latents of \(7, 7\) cannot be cut into patches of 2"):
        SiT(SiTArchitecture(8, 4, 2, 48, 3, 4, 10, True)).x_embedder(torch.zeros(1, 4, 7, 7))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dept": 3}, "models.sit.architecture: unknown key 'dept'; did you mean 'depth'"),
        ({"depth": None, "num_heads": None}, "missing key 'depth'; missing key 'num_heads'"),
        ({"depth": 0}, "depth: expected a positive whole number, got 0"),
        ({"depth": 3.0}, "depth: expected a positive whole number, got 3.0"),
        ({"learn_sigma": 1}, "learn_sigma: expected true or false, got 1"),
        ({"qk_norm": "yes"}, "qk_norm: expected true or false, got 'yes'"),
        ({"use_qknorm": True}, "unknown key 'use_qknorm'; did you mean 'qk_norm'"),
        ({"num_heads": 5}, "hidden_size 48 is no multiple of num_heads"),
        ({"patch_size": 3}, "input_size 8 is no multiple of patch_size"),
    ],
)
def test_an_architecture_is_checked(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    model = model_of("sit")
    entry = {key: value for key, value in {**model.architecture, **changes}.items() if value is not None}
    with pytest.raises(CheckpointError, match=said):
        models.load_denoiser(model_of("sit", architecture=entry), checkpoint("sit", tmp_path), CPU)


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("sit", {"depth": 4}, r"10 missing \(blocks\.3\..*describes another model"),
        ("sit", {"depth": 2}, r"10 unexpected \(blocks\.2\."),
        ("sit", {"learn_sigma": False}, r"2 shapes \(final_layer\.linear\.weight is \(32, 48\), not \(16, 48\)"),
        ("repa", {"num_classes": 1000}, r"1 shapes \(y_embedder"),
        ("lightningdit", {"wo_shift": True}, r"6 shapes \(blocks\.0\.adaLN_modulation"),
        ("sit", {"qk_norm": True}, r"12 missing \(blocks\.0\.attn\.k_norm\.bias"),
        ("reg_qk_norm", {"qk_norm": False}, r"12 unexpected \(blocks\.0\.attn\.k_norm\.bias"),
    ],
)
def test_a_wrong_architecture_is_told_from_the_checkpoint(
    name: str, changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    entry = {**model_of(name).architecture, **changes}
    with pytest.raises(CheckpointError, match=rf"last\.pt: the checkpoint does not fit the model.*{said}"):
        models.load_denoiser(model_of(name, architecture=entry), checkpoint(name, tmp_path), CPU)


@pytest.mark.parametrize(("name", "other"), [("repa", "sit"), ("reg", "repa")])
def test_a_checkpoint_of_another_family_is_named(name: str, other: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"so this is no checkpoint of RE"):
        models.load_denoiser(model_of(name), checkpoint(other, tmp_path), CPU)


@pytest.mark.parametrize("name", [*KINDS, *ON_VFMVAE])
def test_miniatures_are_thin_and_as_deep_as_the_published_models(name: str, tmp_path: Path) -> None:
    model = STUDY.models[name]
    models.find_family(model.family).make_miniature(model.miniature, tmp_path, 0)
    net: Any = models.load_denoiser(model, tmp_path, CPU).module
    assert (len(net.blocks), net.architecture.hidden_size, net.architecture.num_classes) == (28, 48, 1000)
    found = models.load_denoiser(model, tmp_path, CPU)
    encoder = STUDY.models[str(model.latents)]
    assert found.latent_channels == encoder.miniature[CHANNELS[encoder.family]]
    names = {path for path, _ in net.named_modules()}
    assert set(model.layers.values()) <= names
    (tmp_path / "again").mkdir()
    models.find_family(model.family).make_miniature(model.miniature, tmp_path / "again", 0)
    again = load_file(tmp_path / "again" / "model.safetensors")
    assert all(torch.equal(tensor, again[key]) for key, tensor in net.state_dict().items())


@pytest.mark.parametrize(
    ("name", "published_as", "changes"),
    [
        *((name, name, {}) for name in KINDS),
        *((name, published_as, {}) for name, published_as in ON_VFMVAE.items()),
        # what an entry of a training with normalised queries and keys says
        ("sit", "sit_qk_norm", {"qk_norm": True}),
        ("repa", "repa_qk_norm", {"qk_norm": True}),
    ],
)
def test_the_catalogue_describes_the_published_models(name: str, published_as: str, changes: dict[str, Any]) -> None:
    config, _ = published(published_as)
    entry = resolve(catalogue(), {}, None, [])[name]["architecture"] | changes
    kind = family(published_as)
    widths = [key for key in ("z_dims", "projector_dim", "cls_token_dim") if key in entry]
    architecture: Any = read_architecture(KINDS[kind], entry, name, widths)
    make: dict[str, Any] = {
        "sit": lambda: SiT(architecture),
        "repa": lambda: REPA(architecture, *(entry[key] for key in widths)),
        "reg": lambda: REG(architecture, *(entry[key] for key in widths)),
        "lightningdit": lambda: LightningDiT(architecture),
    }
    with torch.device("meta"):
        net = make[kind]()
    assert {key: list(tensor.shape) for key, tensor in net.state_dict().items()} == config["official_full_size"]["keys"]
    assert len([alias for alias in STUDY.models[name].layers if alias.startswith("b")]) == entry["depth"]
    if "encoder_depth" in entry:
        aliases = list(STUDY.models[name].layers)
        assert aliases.index("proj0") == aliases.index(f"b{entry['encoder_depth'] - 1}") + 1
