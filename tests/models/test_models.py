import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image
from safetensors.torch import load_file, save_file
from test_study import load

from diffalign import models
from diffalign.devices import choose_device
from diffalign.extraction import inputs
from diffalign.extraction.passes import pooled_features
from diffalign.extraction.taps import Taps
from diffalign.io.checkpoint_errors import CheckpointError
from diffalign.models import Loaded, all_families, find_family
from diffalign.noise import NoiseLevel, linear
from diffalign.specs import ImageInput, Model

CPU = torch.device("cpu")
STUDY = load()
AUTOENCODERS = ("sdvae", "sd3vae", "fluxvae", "sanavae", "qwenimagevae", "vavae", "vfmvae")
VISION = (
    "dinov2",
    "dinov2.g.reg",
    "dinov3",
    "mae",
    "clip",
    "vit",
    "convnext",
    "resnet50",
    "aimv2",
    "siglip2",
    "sam",
    "sam2",
    "ijepa",
)
NAMES = (*VISION, *AUTOENCODERS, "sd3")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for name in NAMES:
        model = STUDY.models[name]
        folders[name] = tmp_path_factory.mktemp(name)
        find_family(model.family).make_miniature(model.miniature, folders[name], 0)
    return folders


def load_any(model: Model, folder: Path, noise: str | None = None) -> Loaded:
    """A model of images, or a denoiser at a noise level, that of its entry or another."""
    if all_families()[model.family].reads == "pixels":
        return models.load(model, folder, CPU)
    assert model.noise is not None
    denoiser = models.load_denoiser(model, folder, CPU)
    return denoiser.at(denoiser.level(noise or model.noise))


def loaded(name: str, folder: Path) -> Loaded:
    return load_any(STUDY.models[name], folder)


def batch(name: str, count: int = 3) -> dict[str, Any]:
    torch.manual_seed(1)
    names = [f"image{i}" for i in range(count)]
    model = STUDY.models[name]
    if model.latents is None:
        assert model.input is not None
        return {"names": names, "pixels": torch.randn(count, 3, model.input.size, model.input.size)}
    return {
        "names": names,
        "latents": torch.randn(count, 16, 8, 8),
        "prompt_embeds": torch.randn(1, 333, 64).expand(count, -1, -1),
        "pooled_prompt_embeds": torch.randn(1, 64).expand(count, -1),
    }


@pytest.mark.parametrize("name", NAMES)
def test_every_layer_of_every_family_gives_finite_distinct_features(name: str, checkpoints: dict[str, Path]) -> None:
    model, found = STUDY.models[name], loaded(name, checkpoints[name])
    names, features = pooled_features(found, model.layers, [batch(name), {**batch(name), "names": ["x", "y", "z"]}])
    assert names == ["image0", "image1", "image2", "x", "y", "z"]
    assert list(features) == list(model.layers)
    for values in features.values():
        assert values.shape[0] == 6
        assert values.dtype == np.float32
        assert np.isfinite(values).all()
        assert not np.allclose(values[0], values[1])
    # a layer that passes its input through unchanged would make the layer grid pointless
    kept = list(features.values())
    for shallow, deep in zip(kept, kept[1:], strict=False):
        assert shallow.shape != deep.shape or not np.allclose(shallow, deep, atol=1e-4)


@pytest.mark.parametrize(("name", "depth"), [("dinov2", 12), ("siglip2", 24), ("sd3", 24), ("sdvae", 4)])
def test_miniatures_have_the_real_depth(name: str, depth: int, checkpoints: dict[str, Path]) -> None:
    module: Any = loaded(name, checkpoints[name]).module
    blocks = {
        "dinov2": lambda: module.blocks,
        "siglip2": lambda: module.encoder.layers,
        "sd3": lambda: module.transformer_blocks,
        "sdvae": lambda: module.encoder.down_blocks,
    }[name]()
    assert len(blocks) == depth


@pytest.mark.parametrize("name", NAMES)
def test_miniatures_are_seeded(name: str, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    model = STUDY.models[name]
    find_family(model.family).make_miniature(model.miniature, tmp_path, 0)
    files = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.safetensors"))
    assert files
    for file in files:
        again, before = load_file(tmp_path / file), load_file(checkpoints[name] / file)
        assert again.keys() == before.keys()
        assert all(torch.equal(again[key], before[key]) for key in again)


@pytest.mark.parametrize(
    ("name", "file", "message"),
    [
        ("dinov2", "model.safetensors", "keys 1 missing"),
        ("siglip2", "model.safetensors", "keys 1 missing"),
        ("sdvae", "diffusion_pytorch_model.safetensors", "keys 1 missing"),
        ("sd3", "transformer/diffusion_pytorch_model.safetensors", "keys 1 missing"),
    ],
)
def test_a_checkpoint_with_a_missing_key_is_refused(
    name: str, file: str, message: str, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(checkpoints[name], tmp_path / "copy")
    path = tmp_path / "copy" / file
    tensors = load_file(path)
    dropped = sorted(key for key in tensors if key.endswith("weight"))[3]
    save_file({key: value for key, value in tensors.items() if key != dropped}, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=message) as caught:
        loaded(name, tmp_path / "copy")
    assert dropped in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "file"), [("dinov2", "model.safetensors"), ("sd3", "transformer/diffusion_pytorch_model.safetensors")]
)
def test_a_checkpoint_with_an_unexpected_key_is_refused(
    name: str, file: str, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(checkpoints[name], tmp_path / "copy")
    path = tmp_path / "copy" / file
    save_file({**load_file(path), "surplus.weight": torch.zeros(2)}, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"1 unexpected \(surplus.weight\)"):
        loaded(name, tmp_path / "copy")


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("dinov2", "model.safetensors"),
        ("siglip2", "model.safetensors"),
        ("sdvae", "diffusion_pytorch_model.safetensors"),
        ("sd3", "transformer/diffusion_pytorch_model.safetensors"),
    ],
)
@pytest.mark.parametrize("broken", ["cut", "reshaped"])
def test_a_corrupted_checkpoint_is_named(
    name: str, file: str, broken: str, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(checkpoints[name], tmp_path / "copy")
    path = tmp_path / "copy" / file
    if broken == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        tensors = load_file(path)
        key = next(key for key in sorted(tensors) if tensors[key].ndim > 1)
        save_file({**tensors, key: tensors[key][:-1].contiguous()}, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=f"{tmp_path}.*{name} cannot be loaded"):
        loaded(name, tmp_path / "copy")


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_that_is_no_checkpoint_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        loaded(name, tmp_path)


def test_the_text_half_of_a_vision_language_checkpoint_is_left_out_by_name(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    from transformers import SiglipConfig, SiglipModel

    vision = dict(STUDY.models["siglip2"].miniature)
    del vision["model_type"]
    text = {
        "hidden_size": 48,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": 50,
    }
    torch.manual_seed(3)
    whole = SiglipModel(SiglipConfig(text_config=text, vision_config=vision)).eval()
    whole.save_pretrained(tmp_path)
    found = loaded("siglip2", tmp_path)
    pixels = batch("siglip2")["pixels"]
    with torch.no_grad():
        expected = whole.vision_model(pixel_values=pixels).last_hidden_state.mean(1)
    _, features = pooled_features(found, {"final": "post_layernorm"}, [batch("siglip2")])
    assert np.allclose(features["final"], expected.numpy(), atol=1e-5)


def test_patch_tokens_are_averaged_without_class_token(checkpoints: dict[str, Path]) -> None:
    found = loaded("dinov2", checkpoints["dinov2"])
    net: Any = found.module
    pixels = batch("dinov2")["pixels"]
    with torch.no_grad():
        expected = net.forward_features(pixels)[:, 1:].mean(1)
    _, features = pooled_features(found, {"final": "norm", "patches": "patch_embed"}, [batch("dinov2")])
    assert np.allclose(features["final"], expected.numpy(), atol=1e-6)
    # patch_embed has no class token: no patch may be lost for one
    with torch.no_grad():
        assert np.allclose(features["patches"], net.patch_embed(pixels).flatten(1, -2).mean(1).numpy(), atol=1e-6)


def test_a_convnet_of_timm_needs_no_code(tmp_path: Path) -> None:
    model = Model("resnet", "timm_vision", STUDY.models["dinov2"].weights, {"l1": "layer1", "l4": "layer4"}, "l4")
    model = Model(**{**vars(model), "input": STUDY.models["dinov2"].input})
    find_family("timm_vision").make_miniature({"architecture": "resnet10t"}, tmp_path, 0)
    _, features = pooled_features(models.load(model, tmp_path, CPU), model.layers, [batch("dinov2")])
    assert [values.shape for values in features.values()] == [(3, 64), (3, 512)]


def test_the_image_stream_is_taken_even_where_the_text_is_longer(checkpoints: dict[str, Path]) -> None:
    found = loaded("sd3", checkpoints["sd3"])
    seen = {}
    with (
        torch.no_grad(),
        Taps(found.module, {"b3": "transformer_blocks.3"}, lambda o: seen.setdefault("o", o)[1]) as taps,
    ):
        taps.run(lambda: found.forward(batch("sd3")))
    text, image = seen["o"]
    assert text.shape[1] == 333
    assert image.shape[1] == 16
    assert found.tokens(seen["o"]) is image


def test_extraction_stops_after_the_deepest_layer_of_a_real_model(checkpoints: dict[str, Path]) -> None:
    found = loaded("sd3", checkpoints["sd3"])
    module: Any = found.module
    called = []
    for i, block in enumerate(module.transformer_blocks):
        block.register_forward_pre_hook(lambda *_, i=i: called.append(i))
    pooled_features(found, {"b2": "transformer_blocks.2", "b8": "transformer_blocks.8"}, [batch("sd3")])
    assert called == list(range(9))


def test_noise_levels_translate_to_the_clock_of_the_model(checkpoints: dict[str, Path]) -> None:
    model = STUDY.models["sd3"]
    denoiser = models.load_denoiser(model, checkpoints["sd3"], CPU)
    level = denoiser.level("t0.5")
    assert (level.alpha, level.sigma, level.timestep, level.t, level.log_snr) == (0.5, 0.5, 500.0, 0.5, 0.0)
    strength = denoiser.level("s20")
    # reference: SD3, shift 3, strength 20 % of 100 steps is time step 420
    assert strength.timestep == pytest.approx(420, abs=0.5)
    assert strength.t == pytest.approx(0.42, abs=5e-4)
    assert strength.strength == 20
    assert NoiseLevel(1.0, 0.0, 0.0).facts()["log_snr"] == "inf"
    with pytest.raises(ValueError, match="outside"):
        linear(1.5)


def test_posterior_samples_are_keyed_by_name(checkpoints: dict[str, Path]) -> None:
    model = Model(**{**vars(STUDY.models["sdvae"]), "posterior": "sample"})
    found = models.load(model, checkpoints["sdvae"], CPU)
    layer = {"latent": "posterior"}
    one = batch("sdvae")
    _, sampled = pooled_features(found, layer, [one])
    swapped = {"names": one["names"][::-1], "pixels": one["pixels"].flip(0)}
    _, again = pooled_features(found, layer, [swapped])
    assert np.allclose(sampled["latent"], again["latent"][::-1], atol=1e-6)
    _, mode = pooled_features(loaded("sdvae", checkpoints["sdvae"]), layer, [one])
    assert not np.allclose(sampled["latent"], mode["latent"], atol=1e-3)


def test_features_that_are_not_finite_name_layer_and_image(checkpoints: dict[str, Path]) -> None:
    broken = batch("dinov2")
    broken["pixels"][1] = float("nan")
    with pytest.raises(ValueError, match="layer embed: features are NaN or infinite for image1"):
        pooled_features(loaded("dinov2", checkpoints["dinov2"]), STUDY.models["dinov2"].layers, [broken])


@pytest.mark.parametrize(
    ("imports", "absent"),
    [
        ("diffalign.models.families.timm_vision, extract", ("diffusers", "transformers", "pandas", "matplotlib")),
        ("diffalign.models.families.transformers_vision, extract", ("diffusers", "timm")),
        ("align, align_layers", ("torch", "pandas", "matplotlib", "timm", "diffusers", "transformers")),
        (
            "pair_figures, relative_depth_curves_figure, alignment_table, pairs_table",
            ("torch", "timm", "diffusers", "transformers"),
        ),
        (
            "diffalign.config.study, diffalign.plan.targets, diffalign.models, diffalign.provenance",
            ("torch", "pandas", "scipy"),
        ),
    ],
)
def test_jobs_import_only_what_they_need(imports: str, absent: tuple[str, ...]) -> None:
    code = "import sys; sys.path.insert(0, 'workflow_scripts')"
    code += f"; import {imports}; print([m for m in {absent!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_gpu_that_is_not_there_is_an_error() -> None:
    assert choose_device("cpu").type == "cpu"
    if not torch.cuda.is_available():
        assert choose_device("auto").type == "cpu"
        with pytest.raises(ValueError, match="torch sees no GPU here"):
            choose_device("cuda")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for i in range(30):
        low = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(low).resize((96, 96), Image.Resampling.BICUBIC).save(folder / f"image{i:02d}.png")
    return {path.stem: path for path in folder.iterdir()}


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")
@pytest.mark.parametrize("name", ["dinov2", "siglip2", "sdvae", "sd3"])
def test_features_depend_neither_on_batch_size_nor_workers_nor_order(
    name: str, checkpoints: dict[str, Path], pictures: dict[str, Path]
) -> None:
    model, found = STUDY.models[name], loaded(name, checkpoints[name])

    def features(files: dict[str, Path], batch_size: int, workers: int) -> tuple[list[str], dict[str, np.ndarray]]:
        if model.latents is None:
            assert model.input is not None
            dataset: Any = inputs.ImageFiles(files, model.input)
        else:
            latents = {
                file: torch.from_numpy(np.array(Image.open(path).resize((8, 8)))).float().mean(-1) / 64
                for file, path in files.items()
            }
            prompts = {"prompt_embeds": torch.ones(1, 333, 64), "pooled_prompt_embeds": torch.ones(1, 64)}
            level = models.load_denoiser(model, checkpoints[name], CPU).level("t0.5")
            dataset = inputs.NoisyLatents(
                {file: latent.expand(16, 8, 8) for file, latent in latents.items()},
                level,
                model.noise_key,
                prompts,
                dict.fromkeys(files, 0),
            )
        return pooled_features(found, model.layers, inputs.Batches(dataset, batch_size, workers, CPU))

    names, reference = features(pictures, 64, 0)
    assert names == sorted(pictures)
    backwards = dict(sorted(pictures.items(), reverse=True))
    for files, batch_size, workers in ((pictures, 1, 0), (pictures, 7, 0), (pictures, 7, 4), (backwards, 64, 4)):
        again, values = features(files, batch_size, workers)
        assert again == names
        for alias, expected in reference.items():
            assert np.abs(values[alias] - expected).max() <= 1e-5, (alias, batch_size, workers)


@pytest.mark.parametrize(("side", "size"), [(64, 128), (64, 96), (100, 64)])
def test_nearest_is_what_pipelines_of_diffusers_do_to_a_tensor(side: int, size: int) -> None:
    from diffusers.image_processor import VaeImageProcessor

    image = np.random.default_rng(0).integers(0, 256, (side, side, 3)).astype(np.uint8)
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    expected = VaeImageProcessor(vae_scale_factor=8).preprocess(tensor, height=size, width=size)
    found = inputs.pixels(image, ImageInput(size, "nearest", False, (0.5,) * 3, (0.5,) * 3))
    assert torch.equal(found, expected[0])


def test_pixels_are_resized_in_the_unit_range_and_normalised() -> None:
    spec = STUDY.models["dinov2"].input
    assert spec is not None
    image = np.zeros((100, 100, 3), np.uint8)
    image[:, 50:] = 255
    result = inputs.pixels(image, spec)
    assert result.shape == (3, 56, 56)
    black, white = [(value - torch.tensor(spec.mean)) / torch.tensor(spec.std) for value in (0.0, 1.0)]
    # bicubic overshoot is clipped to the range of an image
    assert torch.allclose(result.amin((1, 2)), black, atol=1e-6)
    assert torch.allclose(result.amax((1, 2)), white, atol=1e-6)
