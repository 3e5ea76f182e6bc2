"""VA-VAE and VFM-VAE: what the published implementations compute, and checkpoints as they are published."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from conftest import golden
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint
from safetensors.torch import load_file
from test_study import load

from diffalign import models
from diffalign.extraction.passes import pooled_features
from diffalign.io.checkpoint_errors import CheckpointError
from diffalign.models import Loaded, find_family
from diffalign.models.architectures import read_fields
from diffalign.models.networks import vavae, vfmvae
from diffalign.randomness import NoiseKey, normal
from diffalign.specs import Model, Weights

CPU = torch.device("cpu")
STUDY = load()
GOLDEN_ARCHITECTURES: dict[str, dict[str, Any]] = {
    "vavae": {
        "ch": 32,
        "ch_mult": [1, 1, 2],
        "num_res_blocks": 2,
        "attn_resolutions": [4],
        "resolution": 16,
        "z_channels": 8,
    },
    "vfmvae": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "image_size": 64,
        "patch_size": 16,
        "scale_factor": 2,
        "compression": 16,
        "patch_from_layers": [0, 2, -1],
        "patch_out_dimension": 8,
        "z_dimension": 4,
    },
}
# what the published checkpoints carry beside what is loaded
BESIDE = {
    "vavae": ("decoder.conv_in.weight", "post_quant_conv.bias", "foundation_model.model.norm.weight", "loss.logvar"),
    "vfmvae": ("synthesis.b4.conv.weight", "mapping.mlp.0.weight", "ldm_adapter.post_quant.blocks.0.proj.bias"),
}


def golden_parts(name: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Weights under their official names; inputs and outputs."""
    tensors = load_file(golden(f"{name}.safetensors"))
    weights = {key.removeprefix("weight."): value for key, value in tensors.items() if key.startswith("weight.")}
    return weights, {key: value for key, value in tensors.items() if not key.startswith("weight.")}


def model_of(name: str, architecture: Mapping[str, Any] | None = None, **changes: Any) -> Model:
    built = GOLDEN_ARCHITECTURES[name] if architecture is None else architecture
    return replace(STUDY.models[name], weights=Weights("file", path="x"), architecture=built, **changes)


def load_golden(name: str, folder: Path, **changes: Any) -> Loaded:
    torch.save({"G_ema" if name == "vfmvae" else "state_dict": golden_parts(name)[0]}, folder / "checkpoint.pt")
    return models.load(model_of(name, **changes), folder, CPU)


def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return found.shape == expected.shape and bool((found - expected).abs().max() <= 1e-5)


def test_vavae_computes_what_the_published_one_computes(tmp_path: Path) -> None:
    found = load_golden("vavae", tmp_path)
    net: Any = found.module
    parts = golden_parts("vavae")[1]
    image = parts["input.image"]
    with torch.no_grad():
        moments = net.moments(image)
        latent = found.forward({"pixels": image, "names": ["a", "b"]})
    assert close(moments, parts["output.moments"])
    assert isinstance(latent, torch.Tensor)
    assert close(latent, parts["output.mean"])
    assert found.facts["nesting"] == "state_dict"


def test_vavae_samples_with_the_clamped_variance(tmp_path: Path) -> None:
    found = load_golden("vavae", tmp_path, posterior="sample")
    parts = golden_parts("vavae")[1]
    with torch.no_grad():
        latent: Any = found.forward({"pixels": parts["input.image"], "names": ["a", "b"]})
    drawn = [torch.from_numpy(normal((8, 4, 4), NoiseKey("name", 0, "vavae"), name, "posterior")) for name in "ab"]
    std = torch.exp(0.5 * parts["output.logvar_clamped"])
    assert close(latent, parts["output.mean"] + std * torch.stack(drawn))


def test_vfmvae_computes_what_the_published_one_computes(tmp_path: Path) -> None:
    found = load_golden("vfmvae", tmp_path)
    net: Any = found.module
    parts = golden_parts("vfmvae")[1]
    image = parts["input.image"]
    smaller = torch.nn.functional.interpolate(image, scale_factor=0.5, mode="bilinear", antialias=True)
    with torch.no_grad():
        patches = net.patches(image)
        seen = net.vfm_encoder.encoder.vision_model(
            torch.nn.functional.interpolate(image, scale_factor=2.0, mode="bilinear") * 2 - 1,
            interpolate_pos_encoding=True,
        )
        latent: Any = found.forward({"pixels": image, "names": ["a", "b"]})
        assert close(net.moments(image), parts["output.moments"])
        assert close(net.moments(smaller), parts["output.moments_scale_0.5"])
    assert close(latent, parts["output.moments"].chunk(2, dim=1)[0])
    assert close(seen.pooler_output, parts["output.pooler"])
    assert len(patches) == 3
    for i, tokens in enumerate(patches):
        assert close(tokens, parts[f"output.patch_{i}"])
    assert found.facts["nesting"] == "G_ema"


def test_full_sizes_have_the_published_keys() -> None:
    published = {name: json.loads(golden(f"{name}.json").read_text())["official_full_size"] for name in BESIDE}
    entries = {name: STUDY.models[name].architecture for name in BESIDE}
    with torch.device("meta"):
        va = vavae.VaVae(read_fields(vavae.Architecture, entries["vavae"], ""), torch.nn.Identity())
        vfm = vfmvae.VfmVae(read_fields(vfmvae.Architecture, entries["vfmvae"], ""), torch.nn.Identity())
    keys = {key: list(tensor.shape) for key, tensor in va.state_dict().items()}
    # a decoder is there where it is asked for
    decoder = ("decoder.", "post_quant_conv.")
    assert keys == {k: shape for k, shape in published["vavae"]["keys"].items() if not k.startswith(decoder)}
    with torch.device("meta"):
        both = vavae.VaVae(read_fields(vavae.Architecture, entries["vavae"], ""), torch.nn.Identity(), decoder=True)
    keys = {key: list(tensor.shape) for key, tensor in both.state_dict().items()}
    assert keys == published["vavae"]["keys"]
    keys = {key: list(tensor.shape) for key, tensor in vfm.state_dict().items()}
    assert keys == {**published["vfmvae"]["keys"], **published["vfmvae"]["vision_model_keys"]}


@pytest.mark.parametrize("name", BESIDE)
def test_what_lies_beside_the_encoder_is_left_out_by_name(name: str, tmp_path: Path) -> None:
    weights = golden_parts(name)[0]
    torch.save({**weights, **{key: torch.zeros(2) for key in BESIDE[name]}}, tmp_path / "x.pth")
    models.load(model_of(name), tmp_path, CPU)
    torch.save({**weights, "discriminator.weight": torch.zeros(2)}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"keys 1 unexpected \(discriminator.weight\)"):
        models.load(model_of(name), tmp_path, CPU)
    dropped = sorted(weights)[0]
    torch.save({key: value for key, value in weights.items() if key != dropped}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=rf"keys 1 missing \({dropped}\)"):
        models.load(model_of(name), tmp_path, CPU)


def test_checkpoints_of_older_transformers_load(tmp_path: Path) -> None:
    weights, parts = golden_parts("vfmvae")
    older = {key.replace("vision_model.", "vision_model.vision_model."): value for key, value in weights.items()}
    assert set(older) != set(weights)
    torch.save({"G_ema": older}, tmp_path / "x.pth")
    net: Any = models.load(model_of("vfmvae"), tmp_path, CPU).module
    with torch.no_grad():
        assert close(net.moments(parts["input.image"]), parts["output.moments"])


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("vavae", {"z_channels": 16}, r"4 shapes \(encoder.conv_out.weight is .*architecture describes another model"),
        ("vavae", {"attn_resolutions": [8]}, r"keys 20 missing .*architecture describes another model"),
        ("vavae", {"chmult": [1]}, r"models.vavae.architecture: unknown key 'chmult'; did you mean 'ch_mult'\?"),
        ("vavae", {"ch": 0}, r"models.vavae.architecture: ch: expected a positive whole number, got 0"),
        ("vavae", {"ch_mult": 2}, r"models.vavae.architecture: ch_mult: expected a list of whole numbers, got 2"),
        ("vfmvae", {"num_hidden_layers": 4}, r"16 missing .*architecture describes another model"),
        ("vfmvae", {"patch_from_layers": [0, 7, -1]}, r"architecture: patch_from_layers: expected -1 to 3"),
        ("vfmvae", {"patch_size": 24}, r"architecture: scale_factor x compression is no multiple of patch_size"),
        ("vfmvae", {"z_dimension": 5}, r"architecture: z_dimension: twice it does not divide 96"),
        ("vfmvae", {"scale_factor": None}, r"scale_factor: expected a positive whole number, got None"),
    ],
)
def test_a_wrong_architecture_is_one_error(name: str, changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    torch.save(golden_parts(name)[0], tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=message):
        models.load(model_of(name, {**GOLDEN_ARCHITECTURES[name], **changes}), tmp_path, CPU)


def test_statistics_are_the_published_file(tmp_path: Path) -> None:
    found = load_golden("vavae", tmp_path)
    assert found.latent_statistics is None
    mean, std = torch.randn(1, 8, 1, 1), torch.rand(1, 8, 1, 1) + 1
    torch.save({"mean": mean, "std": std}, tmp_path / "latents_stats.pt")
    statistics = load_golden("vavae", tmp_path).latent_statistics
    assert statistics is not None
    assert torch.equal(statistics[0], mean)
    assert torch.equal(statistics[1], std)
    (tmp_path / "latents_stats.pt").write_bytes(b"no statistics")
    with pytest.raises(CheckpointError, match=r"latents_stats.pt: cannot be read as tensors"):
        load_golden("vavae", tmp_path)


def test_a_miniature_of_vavae_has_normalised_latents(tmp_path: Path) -> None:
    model = STUDY.models["vavae"]
    find_family("vavae").make_miniature(model.miniature, tmp_path, 0)
    found = models.load(model, tmp_path, CPU)
    assert found.latent_statistics is not None
    mean, std = found.latent_statistics
    torch.manual_seed(5)
    with torch.no_grad():
        latent: Any = found.forward({"pixels": torch.randn(4, 3, 64, 64), "names": list("abcd")})
    z = (latent - mean) / std
    assert z.mean().abs() < 0.1
    assert 0.8 < z.std() < 1.2


def test_extraction_stops_after_the_deepest_layer(tmp_path: Path) -> None:
    found = load_golden("vfmvae", tmp_path)
    module: Any = found.module
    called = []
    for i, layer in enumerate(module.vfm_encoder.encoder.vision_model.encoder.layers):
        layer.register_forward_pre_hook(lambda *_, i=i: called.append(i))
    image = golden_parts("vfmvae")[1]["input.image"]
    batch = {"pixels": image, "names": ["a", "b"]}
    encoder = "vfm_encoder.encoder.vision_model"
    _, first = pooled_features(found, {"b0": f"{encoder}.encoder.layers.0"}, [batch])
    assert called == [0]
    # a pass that was cut short leaves nothing behind
    _, whole = pooled_features(found, {"b0": f"{encoder}.encoder.layers.0", "latent": "posterior"}, [batch])
    assert np.array_equal(first["b0"], whole["b0"])
    with torch.no_grad():
        assert close(module.moments(image), golden_parts("vfmvae")[1]["output.moments"])


def test_vavae_decodes_as_latent_diffusion_does(tmp_path: Path) -> None:
    # diffusers has the same decoder under other names, but for attention in stages
    shape = {"ch": 32, "ch_mult": [1, 2, 2], "num_res_blocks": 2, "attn_resolutions": [1], "resolution": 16}
    model = model_of("vavae", {**shape, "z_channels": 8})
    find_family("vavae").make_miniature(model.built, tmp_path, 3)
    config = {
        "block_out_channels": (32, 64, 64),
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "up_block_types": ("UpDecoderBlock2D",) * 3,
        "layers_per_block": 2,
        "latent_channels": 8,
    }
    published = diffusers.AutoencoderKL(**config).eval()
    weights = load_file(tmp_path / "model.safetensors")
    published.load_state_dict(convert_ldm_vae_checkpoint(weights, published.config))
    found = models.load(model, tmp_path, CPU, decoder=True)
    for scale in (1, 20):
        latents = scale * torch.randn(2, 8, 4, 4, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            expected = (published.decode(latents).sample * 0.5 + 0.5).clamp(0, 1)
        image = found.decode(latents)
        assert image.shape == (2, 3, 16, 16)
        assert close(image, expected)
        assert image.std() > 0
    # and encodes as without a decoder
    batch = {"pixels": torch.randn(1, 3, 16, 16), "names": ["a"]}
    with torch.no_grad():
        assert torch.equal(found.forward(batch), models.load(model, tmp_path, CPU).forward(batch))


def test_vavae_attends_in_the_stages_of_its_decoder(tmp_path: Path) -> None:
    model = model_of("vavae")
    find_family("vavae").make_miniature(model.built, tmp_path, 0)
    net: Any = models.load(model, tmp_path, CPU, decoder=True).module
    # resolution 4, where the miniature attends, is that of the deepest of three stages, which runs first
    assert [len(stage.attn) for stage in net.decoder.up] == [0, 0, 3]
    order = []
    for i, stage in enumerate(net.decoder.up):
        stage.register_forward_hook(lambda module, inputs, output, i=i: order.append((i, output.shape[-1])))
    with torch.no_grad():
        net.decode(torch.zeros(1, 8, 4, 4))
    assert order == [(2, 8), (1, 16), (0, 16)]


def test_a_checkpoint_without_a_decoder_cannot_decode(tmp_path: Path) -> None:
    torch.save(golden_parts("vavae")[0], tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"missing \(decoder\."):
        models.load(model_of("vavae"), tmp_path, CPU, decoder=True)
    with pytest.raises(CheckpointError, match="'vfmvae' has no decoder here; families with one: diffusers_vae, vavae"):
        models.load(model_of("vfmvae"), tmp_path, CPU, decoder=True)
