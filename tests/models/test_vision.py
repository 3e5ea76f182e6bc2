"""Families timm_vision and transformers_vision: the catalogue against the libraries, which tokens are averaged, whole
checkpoints of which a half is read, entries that timm completes.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import transformers
from conftest import ROOT, catalogue
from safetensors.torch import load_file, save_file
from test_study import load, mistakes
from timm.models import create_feature_extractor
from torch import Tensor, nn

from diffalign import models
from diffalign.config.catalogue import resolve
from diffalign.extraction.passes import pooled_features
from diffalign.extraction.taps import find_module
from diffalign.io.checkpoint_errors import CheckpointError
from diffalign.models import Loaded, map_tokens, timm_registry
from diffalign.models.families import transformers_vision
from diffalign.names import expand_layers
from diffalign.specs import ImageInput, Model, Weights
from weights import weights as link_weights

CPU = torch.device("cpu")
WITH_ARCHITECTURE = {
    "architecture": {"architecture": "vit_small_patch16_224"},
    "miniature": {"architecture": "vit_small_patch16_224", "embed_dim": 64, "num_heads": 2},
}
STUDY = load()
CATALOGUE: dict[str, Any] = resolve(catalogue(), {}, None, [])
TIMM = [name for name, entry in CATALOGUE.items() if entry["family"] == "timm_vision"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def model(family: str, size: int, **changes: Any) -> Model:
    pixels = ImageInput(size, "bicubic", True, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    return Model("mine", family, Weights("folder"), {"b0": "x"}, "b0", **{"input": pixels, **changes})


def pixels(size: int) -> dict[str, Any]:
    torch.manual_seed(1)
    return {"names": ["a", "b", "c"], "pixels": torch.randn(3, 3, size, size)}


def features(found: Loaded, path: str, size: int) -> np.ndarray:
    return pooled_features(found, {"layer": path}, [pixels(size)])[1]["layer"]


# --- the catalogue ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TIMM)
def test_the_catalogue_says_what_timm_says(name: str) -> None:
    entry = CATALOGUE[name]
    about = timm_registry.describe(entry["weights"]["hub"])
    layers = expand_layers(entry["layers"])
    assert layers.items() <= expand_layers(about["layers"]).items()
    # the deepest: after the final norm, which class tokens of the published study are taken without
    assert entry["default_layer"] == list(layers)[-1]
    assert about["default_layer"] in layers or name.endswith(".cls")
    for key in ("interpolation", "mean", "std"):
        assert entry["input"][key] == about["input"][key]
    assert entry["miniature"]["architecture"].partition(".")[0] in (
        entry["weights"]["hub"].rpartition("/")[2].partition(".")[0],
        entry.get("architecture", {}).get("architecture", "").partition(".")[0],
    )


@pytest.mark.parametrize(
    ("name", "config", "depth"),
    [
        ("sam", transformers.SamVisionConfig(), 12),
        (
            "sam2",
            transformers.Sam2VisionConfig(
                backbone_channel_list=[896, 448, 224, 112],
                backbone_config={
                    "model_type": "sam2_hiera_det_model",
                    "hidden_size": 112,
                    "num_attention_heads": 2,
                    "blocks_per_stage": [2, 3, 16, 3],
                    "embed_dim_per_stage": [112, 224, 448, 896],
                    "num_attention_heads_per_stage": [2, 4, 8, 16],
                    "global_attention_blocks": [12, 16, 20],
                    "window_positional_embedding_background_size": [14, 14],
                },
            ),
            24,
        ),
        (
            "ijepa",
            transformers.IJepaConfig(
                hidden_size=1280, num_hidden_layers=32, num_attention_heads=16, intermediate_size=5120, patch_size=14
            ),
            32,
        ),
    ],
)
def test_layers_are_there_at_full_size(name: str, config: Any, depth: int) -> None:
    kind = transformers_vision.MODEL_TYPES.get(config.model_type)
    with torch.device("meta"):
        net = getattr(transformers, kind.vision if kind else "IJepaModel")(config)
    layers = expand_layers(CATALOGUE[name]["layers"])
    for path in layers.values():
        find_module(net, path)
    blocks = find_module(net, layers["b0"].rpartition(".")[0])
    assert isinstance(blocks, nn.ModuleList)
    assert len(blocks) == depth == sum(alias[0] == "b" for alias in layers)


# --- which tokens -----------------------------------------------------------------------------------------------------


def test_maps_are_told_by_their_equal_sides() -> None:
    torch.manual_seed(0)
    tokens = torch.randn(2, 16, 5)
    last = tokens.unflatten(1, (4, 4))
    assert torch.equal(map_tokens(last), tokens)
    assert torch.equal(map_tokens(last.permute(0, 3, 1, 2)), tokens)
    cube = torch.randn(2, 4, 4, 4)
    with pytest.raises(ValueError, match=r"which axis of shape \(2, 4, 4, 4\) is that of the channels is ambiguous"):
        map_tokens(cube)
    assert torch.equal(map_tokens(cube, channels_last=True), cube.flatten(1, 2))
    assert torch.equal(map_tokens(cube, channels_last=False), cube.flatten(2).transpose(1, 2))


@pytest.mark.parametrize(("name", "prefix"), [("dinov2.g.reg", 5), ("dinov3", 5), ("mae", 1), ("aimv2", 0)])
def test_neither_class_token_nor_registers_are_averaged(name: str, prefix: int, tmp_path: Path) -> None:
    entry = STUDY.models[name]
    assert entry.input is not None
    models.find_family("timm_vision").make_miniature(entry.miniature, tmp_path, 0)
    found = models.load(entry, tmp_path, CPU)
    net: Any = found.module
    with torch.no_grad():
        expected = net.forward_features(pixels(entry.input.size)["pixels"])[:, prefix:].mean(1)
    assert np.allclose(features(found, "norm", entry.input.size), expected.numpy(), atol=1e-6)


@pytest.mark.parametrize("name", ["vit.t.cls", "mae.b.cls", "dinov2.s.cls", "laion.b.cls", "laion12k.b.cls"])
def test_class_tokens_are_those_of_the_published_extractor(name: str, tmp_path: Path) -> None:
    entry = STUDY.models[name]
    # of a published key of every block, platonic-rep's extract_features.py, two suffice
    layers = {alias: entry.layers[alias] for alias in ("b0", "b11")}
    models.find_family("timm_vision").make_miniature({**entry.miniature, "embed_dim": 24, "num_heads": 2}, tmp_path, 0)
    assert entry.input is not None
    found, batch = models.load(entry, tmp_path, CPU), pixels(entry.input.size)
    measured = pooled_features(found, layers, [batch])[1]
    net = create_feature_extractor(found.module, ["blocks.0.add_1", "blocks.11.add_1"])
    with torch.no_grad():
        expected = net(batch["pixels"])
    for alias, path in layers.items():
        assert np.allclose(measured[alias], expected[f"{path}.add_1"][:, 0].numpy(), atol=1e-6), alias


def test_stages_of_swin_and_of_convnets_are_read_along_their_own_axes(tmp_path: Path) -> None:
    for number, (architecture, path, widths, last) in enumerate(
        (
            ("swin_tiny_patch4_window7_224", "layers.1", {"embed_dim": 16, "img_size": 64, "window_size": 2}, True),
            ("resnet10t", "layer1", {}, False),
            ("convnext_atto", "stages.0", {"dims": [16, 16, 32, 32]}, False),
        )
    ):
        folder = tmp_path / str(number)
        models.find_family("timm_vision").make_miniature({"architecture": architecture, **widths}, folder, 0)
        found = models.load(model("timm_vision", 64), folder, CPU)
        seen: list[Tensor] = []
        handle = find_module(found.module, path).register_forward_hook(lambda *args, seen=seen: seen.append(args[2]))
        measured = features(found, path, 64)
        handle.remove()
        assert np.allclose(measured, seen[0].mean((1, 2) if last else (2, 3)).numpy(), atol=1e-6)


def test_clip_has_the_activation_that_it_was_trained_with(tmp_path: Path) -> None:
    entry = STUDY.models["clip"]
    assert entry.architecture == {"architecture": "vit_base_patch16_clip_quickgelu_224.openai"}
    assert "use quickgelu" in str(timm.get_pretrained_cfg("vit_base_patch16_clip_224.openai").notes)
    # the entry's architecture goes before that of config.json, with the same weights
    plain = {**entry.miniature, "architecture": "vit_base_patch16_clip_224.openai"}
    models.find_family("timm_vision").make_miniature(plain, tmp_path, 0)
    kinds = []
    for weights in (Weights("miniature"), Weights("hub", hub="timm/vit_base_patch16_clip_224.openai")):
        found = models.load(Model(**{**vars(entry), "weights": weights}), tmp_path, CPU)
        kinds.append(type(find_module(found.module, "blocks.0.mlp.act")).__name__)
    assert kinds == ["GELU", "QuickGELU"]


# --- checkpoints ------------------------------------------------------------------------------------------------------


def test_older_layouts_are_converted_as_timm_does(tmp_path: Path) -> None:
    entry = STUDY.models["dinov2.reg"]
    models.find_family("timm_vision").make_miniature(entry.miniature, tmp_path, 0)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    expected = features(models.load(entry, tmp_path, CPU), "norm", 56)
    # as DINOv2 published it: a mask token, registers by another name, a position for the class token
    published = {key.replace("reg_token", "register_tokens"): value for key, value in tensors.items()}
    published["pos_embed"] = torch.cat([torch.zeros(1, 1, 48), tensors["pos_embed"]], dim=1)
    save_file({**published, "mask_token": torch.zeros(1, 48)}, path)
    assert np.array_equal(features(models.load(entry, tmp_path, CPU), "norm", 56), expected)
    save_file({**published, "mask_token": torch.zeros(1, 48), "surplus": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match=r"1 unexpected \(surplus\)"):
        models.load(entry, tmp_path, CPU)


def narrow(name: str) -> dict[str, Any]:
    return {key: value for key, value in STUDY.models[name].miniature.items() if key != "model_type"}


def whole(kind: str) -> Any:
    """A whole model of two halves; the vision half is a miniature of the catalogue."""
    text = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    if kind == "SamModel":
        return transformers.SamModel(transformers.SamConfig(vision_config=narrow("sam")))
    if kind == "Sam2VideoModel":
        vision = {**narrow("sam2"), "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]]}
        return transformers.Sam2VideoModel(
            transformers.Sam2VideoConfig(vision_config=vision, memory_attention_num_layers=1, image_size=128)
        )
    vision = {**text, "num_hidden_layers": 3, "image_size": 56, "patch_size": 14}
    config = getattr(transformers, kind.replace("Model", "Config"))(
        text_config={**text, "vocab_size": 50}, vision_config=vision, projection_dim=16
    )
    return getattr(transformers, kind)(config)


@pytest.mark.parametrize(
    ("kind", "path", "size"),
    [
        ("SamModel", "vision_encoder.neck", 64),
        ("Sam2VideoModel", "backbone.blocks.23", 128),
        ("CLIPModel", "encoder.layers.2", 56),
        ("Aimv2Model", "rms_norm", 56),
    ],
)
def test_the_vision_half_of_a_whole_checkpoint_is_read(kind: str, path: str, size: int, tmp_path: Path) -> None:
    torch.manual_seed(3)
    net = whole(kind).eval()
    net.save_pretrained(tmp_path)
    found = models.load(model("transformers_vision", size), tmp_path, CPU)
    modules = dict(net.named_modules())
    inside = next(f"{half}{path}" for half in ("", "vision_encoder.", "vision_model.") if f"{half}{path}" in modules)
    seen: list[Any] = []
    find_module(net, inside).register_forward_hook(lambda *args: seen.append(args[2]))
    half = net.vision_encoder if kind.startswith("Sam") else net.vision_model
    with torch.no_grad():
        half(pixel_values=pixels(size)["pixels"])
    measured = features(found, path, size)
    assert np.allclose(measured, found.tokens(seen[0]).mean(1).numpy(), atol=1e-5)
    # nothing else may be left out
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    save_file({**tensors, "surplus.weight": torch.zeros(2)}, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"1 unexpected \(surplus.weight\)"):
        models.load(model("transformers_vision", size), tmp_path, CPU)


@pytest.mark.parametrize(
    ("kind", "path", "prefix"),
    [
        ("dinov3_vit", "norm", 5),
        ("dinov2", "layernorm", 1),
        ("vit", "layernorm", 1),
        ("convnext", "encoder.stages.3", 0),
    ],
)
def test_any_vision_model_of_transformers_needs_no_code(kind: str, path: str, prefix: int, tmp_path: Path) -> None:
    widths = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    widths |= {"image_size": 64, "patch_size": 16} | ({"num_register_tokens": 4} if kind == "dinov3_vit" else {})
    if kind == "convnext":
        widths = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
    transformers_vision.make_miniature({"model_type": kind, **widths}, tmp_path, 0)
    found = models.load(model("transformers_vision", 64), tmp_path, CPU)
    net: Any = found.module
    with torch.no_grad():
        output = net(pixel_values=pixels(64)["pixels"]).last_hidden_state
    expected = output[:, prefix:].mean(1) if output.ndim == 3 else output.mean((2, 3))
    assert np.allclose(features(found, path, 64), expected.numpy(), atol=1e-5)


def test_models_that_hide_patches_or_read_text_are_refused(tmp_path: Path) -> None:
    widths = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    masked = {"model_type": "vit_mae", **widths, "image_size": 64, "patch_size": 16}
    transformers_vision.make_miniature(masked, tmp_path / "mae", 0)
    with pytest.raises(ValueError, match=r"a layer gave shape \(3, 5, 32\); expected \(B, 16 patches \+ 1, D\)"):
        features(models.load(model("transformers_vision", 64), tmp_path / "mae", CPU), "layernorm", 64)
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(CheckpointError, match="model_type 'bert' is no vision model of transformers"):
        models.load(model("transformers_vision", 64), tmp_path / "bert", CPU)


def test_a_layer_that_gives_no_tokens_is_named(tmp_path: Path) -> None:
    transformers_vision.make_miniature(
        {"model_type": "convnext", "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}, tmp_path, 0
    )
    found = models.load(model("transformers_vision", 64), tmp_path, CPU)
    with pytest.raises(ValueError, match=r"a layer gave shape \(3, 32\)"):
        features(found, "layernorm", 64)


# --- entries that leave out what timm knows ---------------------------------------------------------------------------

SHORT = {"family": "timm_vision", "weights": {"from": "hub", "hub": "timm/vit_small_patch16_224.augreg_in21k"}}


def test_a_timm_model_is_added_in_three_lines() -> None:
    vits = load({"models": {"vits": SHORT}}).models["vits"]
    assert vits.input == ImageInput(224, "bicubic", True, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert list(vits.layers) == ["embed", *(f"b{i}" for i in range(12)), "final"]
    assert (vits.layers["b7"], vits.default_layer) == ("blocks.7", "final")
    assert vits.weights.files == ("config.json", "model.safetensors")


def test_what_an_entry_says_goes_before_what_timm_says() -> None:
    entry = {**SHORT, "input": {"size": 96}, "layers": {"b{0..3}": "blocks.{}"}, "default_layer": "b1"}
    entry["weights"] = {**SHORT["weights"], "files": ["a.safetensors"]}  # type: ignore[dict-item]
    vits = load({"models": {"vits": entry}}).models["vits"]
    assert vits.input == ImageInput(96, "bicubic", True, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert list(vits.layers) == ["b0", "b1", "b2", "b3"]
    assert (vits.default_layer, vits.weights.files) == ("b1", ("a.safetensors",))


@pytest.mark.parametrize(
    ("hub", "layers"),
    [
        ("timm/resnet50.a1_in1k", ["embed", "down0", "down1", "down2", "down3", "down4"]),
        ("timm/vgg16.tv_in1k", ["down0", "down1", "down2", "down3", "down4", "down5", "final"]),
        ("timm/swin_base_patch4_window7_224.ms_in22k", ["embed", "down0", "down1", "down2", "down3", "final"]),
        ("timm/beit_base_patch16_224.in22k_ft_in22k", ["embed", *(f"b{i}" for i in range(12))]),
    ],
)
def test_layers_of_other_architectures(hub: str, layers: list[str]) -> None:
    about = timm_registry.describe(hub)
    paths = expand_layers(about["layers"])
    assert list(paths) == layers
    assert about["default_layer"] == layers[-1]
    net = timm.create_model(hub.rpartition("/")[2].partition(".")[0], num_classes=0)
    for path in paths.values():
        find_module(net, path)


def test_what_timm_does_not_know_is_a_mistake_with_the_nearest_word() -> None:
    wrong = {**SHORT, "weights": {"from": "hub", "hub": "timm/vit_small_patch16_224.augreg_in21"}}
    found = mistakes({"models": {"vits": wrong}})
    assert "models.vits: timm knows no hub id 'timm/vit_small_patch16_224.augreg_in21'; did you mean" in found
    small = {"family": "timm_vision", "weights": {"from": "miniature"}, "miniature": {"architecture": "vit_smol"}}
    assert "models.vits: timm knows no architecture 'vit_smol'" in mistakes({"models": {"vits": small}})
    bare = {"family": "timm_vision", "weights": {"from": "folder", "folder": "/models/mine"}}
    assert (
        "models.vits: weights from 'folder' do not say which model they are of before they are read: write architecture"
        in (mistakes({"models": {"vits": bare}}))
    )
    said = {"input": {"size": 32}, "layers": {"b{0..1}": "blocks.{}"}, "default_layer": "b1"}
    assert "vits" not in mistakes({"models": {"vits": {**bare, **said}}, "nothing": 1})


def test_timm_is_asked_once_and_only_where_something_is_missing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load({"models": {"vits": SHORT}})
    (kept,) = (cache / "diffalign").iterdir()

    def asked(name: str) -> dict[str, Any]:
        raise AssertionError(f"asked for {name}")

    monkeypatch.setattr(timm_registry, "describe", asked)
    assert load({"models": {"vits": SHORT}}).models["vits"].default_layer == "final"
    # another version of timm is asked again
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.0")
    with pytest.raises(AssertionError, match="asked for timm/vit_small"):
        load({"models": {"vits": SHORT}})
    monkeypatch.undo()
    kept.write_text("cut off")
    code = (
        "import sys; sys.path[:0] = ['workflow_scripts', 'tests', 'tests/config'];"
        "from test_study import load; load(); print('timm' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            {"weights": {"from": "folder", "folder": "/models/vits"}},
            "models.vits: weights from 'folder' do not say which model they are of before they are read: write "
            "architecture: {architecture: vit_small_patch16_224}, as timm calls it, or say input (size, interpolation, "
            "mean, std), layers and default_layer",
        ),
        (
            {"weights": {"from": "miniature"}},
            "models.vits: weights from 'miniature' need the key 'miniature': its architecture and its widths",
        ),
    ],
)
def test_an_entry_that_says_no_architecture_is_told_all_that_it_lacks_at_once(entry: Any, message: str) -> None:
    told = mistakes({"models": {"vits": {"family": "timm_vision", **entry}}})
    assert message in told
    assert "missing key" not in told
    known = load({"models": {"vits": {"family": "timm_vision", **entry, **WITH_ARCHITECTURE}}}).models["vits"]
    assert known.default_layer == "final"


def test_a_family_that_does_not_exist_is_all_that_is_said(tmp_path: Path) -> None:
    told = mistakes({"models": {"vits": {"family": "timm_visin", "weights": {"from": "hub", "hub": "timm/vit"}}}})
    assert "models.vits.family: unknown family 'timm_visin'; did you mean 'timm_vision'?" in told
    assert "missing key" not in told


@pytest.mark.parametrize("key", ["checkpoint_path", "pretrained", "pretrained_cfg", "cache_dir"])
def test_a_configuration_of_timm_that_leads_to_other_files_is_refused(key: str, tmp_path: Path) -> None:
    models.find_family("timm_vision").make_miniature(STUDY.models["dinov2"].miniature, tmp_path, 0)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    secret = tmp_path / "secret.pt"
    path.write_text(json.dumps({**config, "model_args": {**config["model_args"], key: str(secret)}}))
    with pytest.raises(CheckpointError, match=f"config.json: model_args holds {key}, which would read weights from"):
        models.load(STUDY.models["dinov2"], tmp_path, CPU)
    for architecture in ("hf-hub:someone/model", "local-dir:elsewhere", "vit_of_mine"):
        path.write_text(json.dumps({**config, "architecture": architecture}))
        with pytest.raises(CheckpointError, match=f"config.json: timm .* has no architecture '{architecture}'"):
            models.load(STUDY.models["dinov2"], tmp_path, CPU)


def test_a_folder_without_the_weights_that_are_read_is_refused_before_extraction(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for name in ("config.json", "pytorch_model.bin"):
        (tmp_path / "mine" / name).write_text("{}")
    spec = Weights("folder", folder=str(tmp_path / "mine"))
    message = (
        "models.vits.weights: its weights are read from model.safetensors, and there is config.json, pytorch_model.bin"
    )
    with pytest.raises(CheckpointError, match=message):
        link_weights("vits", spec, tmp_path / "out", tmp_path / "weights.json", tmp_path, "model.safetensors")
    assert not (tmp_path / "weights.json").exists()
