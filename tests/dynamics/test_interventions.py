"""Removal of what layers add: what is removed, what is left, and that nothing stays behind."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_models import STUDY
from torch import Tensor, nn

from diffalign import models
from diffalign.dynamics.interventions import Means, Target, Window, around, removed, targets, windows
from diffalign.extraction.taps import Taps
from diffalign.models import Denoiser, Prediction, find_family
from diffalign.models.residual_parts import named
from diffalign.noise import NoiseLevel

CPU = torch.device("cpu")
LEVEL = NoiseLevel(0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Case:
    name: str
    denoiser: Denoiser
    layers: Mapping[str, str]
    x_t: Tensor
    conditioning: Mapping[str, Tensor]

    def run(self) -> Any:
        with torch.no_grad():
            level = self.denoiser.level("t0.5")
            return self.denoiser.predict(self.x_t, level, self.conditioning).x0

    def targets(self, *parts: str) -> Any:
        return targets(self.denoiser, self.layers, parts, self.run)


def pipeline(name: str, folder: Path) -> tuple[Denoiser, dict[str, Tensor]]:
    """The denoiser of a pipeline alone, with two layers or stages, and prompts at random."""
    import diffusers

    model = STUDY.models[name]
    widths, random = dict(model.miniature), torch.Generator().manual_seed(3)
    torch.manual_seed(0)
    if name == "sd1":
        widths.pop("text_encoder_layers")
        scheduler = dict(widths.pop("scheduler"))
        kind, stages = getattr(diffusers, scheduler.pop("class")), ("CrossAttn", "")
        kind(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", **scheduler).save_pretrained(
            folder / "scheduler"
        )
        widths |= {"block_out_channels": [32, 64], "layers_per_block": 1}
        widths["down_block_types"] = [f"{each}DownBlock2D" for each in stages]
        widths["up_block_types"] = [f"{each}UpBlock2D" for each in reversed(stages)]
        diffusers.UNet2DConditionModel(**widths).save_pretrained(folder / "unet")
        return models.load_denoiser(model, folder, CPU), {"prompt_embeds": torch.randn(2, 7, 32, generator=random)}
    widths |= {"num_layers": 2, "dual_attention_layers": widths.get("dual_attention_layers", [])[:1]}
    diffusers.SD3Transformer2DModel(
        **widths,
        joint_attention_dim=32,
        caption_projection_dim=64,
        pooled_projection_dim=16,
        out_channels=16,
    ).save_pretrained(folder / "transformer")
    diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0).save_pretrained(folder / "scheduler")
    prompts = {
        "prompt_embeds": torch.randn(2, 5, 32, generator=random),
        "pooled_prompt_embeds": torch.randn(2, 16, generator=random),
    }
    return models.load_denoiser(model, folder, CPU), prompts


LAYERS = {
    "sd1": {
        "down0": "down_blocks.0.resnets.0",
        "down1": "down_blocks.1",
        "mid": "mid_block",
        "up1": "up_blocks.1.resnets.1",
    },
    "sd3": {"embed": "pos_embed", "b0": "transformer_blocks.0", "b1": "transformer_blocks.1", "final": "norm_out"},
    "sit": {"embed": "embedder", "b0": "blocks.0", "b1": "blocks.1", "final": "final_layer"},
    "dit": {"b1": "transformer_blocks.1"},
}
LAYERS |= {"sd3.5": LAYERS["sd3"], "reg": LAYERS["sit"]}


@pytest.fixture(scope="module", params=LAYERS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    name = request.param
    model, folder = STUDY.models[name], tmp_path_factory.mktemp(name)
    family = find_family(model.family)
    if family.conditioned_on == "labels":
        depth = "num_layers" if name == "dit" else "depth"
        model = replace(model, architecture={**model.architecture, "depth": 2}) if model.architecture else model
        model = replace(model, miniature={**model.miniature, depth: 2})
        family.make_miniature(model.miniature, folder, 0)
        denoiser, conditioning = models.load_denoiser(model, folder, CPU), {"labels": torch.tensor([1, 7])}
    else:
        denoiser, conditioning = pipeline(name, folder)
    random = torch.Generator().manual_seed(1)
    side = denoiser.only_side or 8
    x_t = torch.randn(2, denoiser.latent_channels, side, side, generator=random)
    if denoiser.class_token_width:
        conditioning["class_tokens"] = torch.randn(2, denoiser.class_token_width, generator=random)
    return Case(name, denoiser, LAYERS[name], x_t, conditioning)


def hooks(module: nn.Module) -> int:
    return sum(len(each._forward_hooks) for each in module.modules())


def test_every_target_matters_and_nothing_stays_behind(case: Case) -> None:
    before = case.run()
    found, _ = case.targets("layer", "attention", "mlp")
    for target in found:
        with removed(case.denoiser, target, 0):
            without = case.run()
        # the embedder of flows is the identity, which adds nothing
        adds = case.denoiser.module.get_submodule(target.paths[0])
        assert torch.equal(without, before) == isinstance(adds, nn.Identity), target
        assert without.isfinite().all()
        assert torch.equal(case.run(), before)
    assert hooks(case.denoiser.module) == 0


PARTS: dict[str, dict[str, dict[str, list[str]]]] = {
    "sit": {"b1": {"attention": ["blocks.1.attn"], "mlp": ["blocks.1.mlp"]}},
    "reg": {"b0": {"attention": ["blocks.0.attn"], "mlp": ["blocks.0.mlp"]}},
    "dit": {"b1": {"attention": ["transformer_blocks.1.attn1"], "mlp": ["transformer_blocks.1.ff"]}},
    "sd3": {"b1": {"attention": ["transformer_blocks.1.attn"], "mlp": ["transformer_blocks.1.ff"]}},
    "sd3.5": {
        "b0": {
            "attention": ["transformer_blocks.0.attn", "transformer_blocks.0.attn2"],
            "mlp": ["transformer_blocks.0.ff"],
        }
    },
    "sd1": {
        "mid": {
            "attention": [f"mid_block.attentions.0.transformer_blocks.0.attn{i}" for i in (1, 2)],
            "mlp": ["mid_block.attentions.0.transformer_blocks.0.ff"],
        },
        "up1": {
            "attention": [f"up_blocks.1.attentions.{j}.transformer_blocks.0.attn{i}" for j in (0, 1) for i in (1, 2)],
            "mlp": [f"up_blocks.1.attentions.{j}.transformer_blocks.0.ff" for j in (0, 1)],
        },
    },
}


def test_which_modules_are_parts_and_what_cannot_be_removed(case: Case) -> None:
    found, out = case.targets("layer", "attention", "mlp")
    for layer, parts in PARTS[case.name].items():
        assert {t.part: list(t.paths) for t in found if t.layer == layer and t.part != "layer"} == parts
    left = {(each.layer, each.part): each.reason for each in out}
    assert {(t.layer, t.part) for t in found} | set(left) == {
        (layer, part) for layer in case.layers for part in ("layer", "attention", "mlp")
    }
    if case.name == "sd1":
        assert left["up1", "layer"] == "its input is of shape (2, 64, 8, 8), its output of (2, 32, 8, 8)"
        assert left["down1", "attention"] == "down_blocks.1 has no attention of its own"
        assert ("mid", "layer") not in left
    if case.name == "sit":
        assert "its input is of shape" in left["final", "layer"]


def test_a_layer_without_its_residual_gives_its_input_and_the_text_goes_on(case: Case) -> None:
    layer = {"sd1": "mid", "dit": "b1"}.get(case.name, "b0")
    (target,) = [each for each in case.targets("layer")[0] if each.layer == layer]
    module = case.denoiser.module.get_submodule(target.paths[0])
    seen: list[Tensor] = []

    def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append(kwargs.get("hidden_states", args[0] if args else None))

    with Taps(case.denoiser.module, {layer: target.paths[0]}, lambda output: output) as taps:  # type: ignore[arg-type]
        (before,) = taps.record(case.run)[layer]
    handle = module.register_forward_pre_hook(keep, with_kwargs=True)
    with removed(case.denoiser, target, 0), Taps(case.denoiser.module, {layer: target.paths[0]}, lambda o: o) as taps:
        (output,) = taps.record(case.run)[layer]
    handle.remove()
    if case.name.startswith("sd3"):
        assert torch.equal(output[1], seen[0])
        assert not torch.equal(output[1], before[1])
        assert torch.equal(output[0], before[0])
    else:
        assert torch.equal(output, seen[0])
        assert not torch.equal(output, before)


class Residual(nn.Module):
    """h + r, r a constant or a function of h."""

    def __init__(self, add: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.add = add

    def forward(self, h: Tensor) -> Tensor:
        return h + self.add(h)


def small(*layers: nn.Module) -> Denoiser:
    net = nn.Sequential(*layers)

    def run(x_t: Tensor, level: NoiseLevel, conditioning: Mapping[str, Tensor]) -> Tensor:
        return net(x_t)

    def convert(output: Tensor, x_t: Tensor, level: NoiseLevel, _: Mapping[str, Tensor]) -> Prediction:
        return Prediction(output, (x_t - level.alpha * output) / level.sigma)

    return Denoiser(net, lambda _: LEVEL, run, convert, lambda o: o.flatten(2), 1)


def whole(denoiser: Denoiser, *paths: str) -> list[Target]:
    found, _ = targets(denoiser, {f"l{p}": p for p in paths}, ["layer"], lambda: denoiser.run(X, LEVEL, {}))
    return found


X = torch.randn(5, 1, 4, 4, generator=torch.Generator().manual_seed(2))


def test_the_mean_of_a_constant_residual_changes_nothing_and_zero_removes_it() -> None:
    denoiser = small(Residual(lambda h: torch.full_like(h, 0.75)), Residual(torch.tanh))
    first, second = whole(denoiser, "0", "1")
    means = Means(denoiser, [first, second])
    before = denoiser.run(X, LEVEL, {})
    with means.recording(3):
        denoiser.run(X, LEVEL, {})
    with removed(denoiser, first, 3, means):
        assert torch.allclose(denoiser.run(X, LEVEL, {}), before, atol=1e-6)
    with removed(denoiser, second, 3, means):
        moved = denoiser.run(X, LEVEL, {})
    h = X + 0.75
    assert torch.allclose(moved, h + torch.tanh(h).mean(0), atol=1e-6)
    with removed(denoiser, second, 3):
        assert torch.equal(denoiser.run(X, LEVEL, {}), h)


def test_means_do_not_depend_on_batches_and_know_calls_and_steps() -> None:
    denoiser = small(Residual(torch.tanh))
    (target,) = whole(denoiser, "0")
    at_once, batched = Means(denoiser, [target]), Means(denoiser, [target])
    for means, sizes in ((at_once, [5]), (batched, [2, 2, 1])):
        for step in (0, 1):
            for part in X.split(sizes):
                with means.recording(step):
                    denoiser.run(part, LEVEL, {})
                    denoiser.run(part * 2, LEVEL, {})
    for step in (0, 1):
        for call, scale in ((0, 1), (1, 2)):
            expected = torch.tanh(scale * X).double().mean(0)
            assert torch.allclose(at_once.of("0", True, step, call), expected, atol=1e-6)
            assert torch.allclose(batched.of("0", True, step, call), expected, atol=1e-6)
    with removed(denoiser, target, 1, at_once):
        once = denoiser.run(X, LEVEL, {})
        twice = denoiser.run(X * 2, LEVEL, {})
        with pytest.raises(ValueError, match="0: no mean of call 2 in step 1"):
            denoiser.run(X, LEVEL, {})
    assert torch.allclose(once, X + torch.tanh(X).mean(0), atol=1e-6)
    assert torch.allclose(twice, 2 * X + torch.tanh(2 * X).mean(0), atol=1e-6)
    with removed(denoiser, target, 2, at_once), pytest.raises(ValueError, match="no mean of call 0 in step 2"):
        denoiser.run(X, LEVEL, {})


def test_hooks_are_gone_after_an_error() -> None:
    denoiser = small(Residual(torch.tanh), Residual(torch.tanh))
    target = whole(denoiser, "0")[0]
    means = Means(denoiser, [target])
    for context in (removed(denoiser, target, 0), means.recording(0)):
        with pytest.raises(RuntimeError, match="1 hook"), context:
            raise RuntimeError(f"{hooks(denoiser.module)} hook")
        assert hooks(denoiser.module) == 0
    with pytest.raises(RuntimeError, match="stop"):
        targets(denoiser, {"a": "0"}, ["layer"], lambda: (_ for _ in ()).throw(RuntimeError("stop")))
    assert hooks(denoiser.module) == 0
    with pytest.raises(AttributeError), removed(denoiser, Target("a", 0, "layer", ("0", "7"), 1), 0):
        pass
    assert hooks(denoiser.module) == 0


def test_windows_cover_all_steps_once() -> None:
    assert windows(25, 1) == [Window(0, 0, 24)]
    assert windows(7, 3) == [Window(0, 0, 1), Window(1, 2, 3), Window(2, 4, 6)]
    assert [(w.first, w.last) for w in windows(4, 4)] == [(0, 0), (1, 1), (2, 2), (3, 3)]
    for count in (0, 5):
        with pytest.raises(ValueError, match=f"{count} windows of 4 steps; expected 1 to 4"):
            windows(4, count)


def test_only_the_steps_of_a_window_are_without_it() -> None:
    denoiser = small(Residual(torch.tanh))
    (target,) = whole(denoiser, "0")
    entered = around(denoiser, target, Window(1, 2, 3))
    before, without = denoiser.run(X, LEVEL, {}), X
    for step in range(6):
        with entered(step):
            assert torch.equal(denoiser.run(X, LEVEL, {}), without if step in (2, 3) else before)


def test_what_cannot_be_asked_for() -> None:
    denoiser = small(nn.Conv2d(1, 2, 1), Residual(torch.tanh))

    def forward() -> object:
        return denoiser.run(X, LEVEL, {})

    with pytest.raises(ValueError, match="unknown parts 'heads'; allowed: layer, attention, mlp"):
        targets(denoiser, {"a": "1"}, ["layer", "heads"], forward)
    with pytest.raises(ValueError, match="no module '9' in Sequential"):
        targets(denoiser, {"a": "9"}, ["layer"], forward)
    with pytest.raises(ValueError, match=r"nothing can be removed: a \(layer\): its input is of shape \(5, 1, 4, 4\)"):
        targets(denoiser, {"a": "0"}, ["layer"], forward)
    _, out = targets(denoiser, {"a": "0", "b": "1"}, ["layer"], forward)
    assert [(each.layer, each.part) for each in out] == [("a", "layer")]
    found, out = targets(denoiser, {"b": "1"}, ["layer", "mlp"], forward)
    assert [(each.part, each.reason) for each in out] == [("mlp", "1 has no mlp of its own")]
    assert found == [Target("b", 0, "layer", ("1",), 32)]


def test_names_of_parts() -> None:
    block = nn.ModuleDict({"attn": nn.ModuleDict({"proj": nn.Identity()}), "mlp": nn.Identity()})
    net = nn.ModuleDict({"blocks": nn.ModuleList([block]), "final": nn.Identity()})
    of = named(net, {"attention": ["attn"], "mlp": ["mlp", "ff"]})
    assert of("blocks.0") == {"attention": ("blocks.0.attn",), "mlp": ("blocks.0.mlp",)}
    assert of("final") == {}
    staged = named(net, {"attention": ["proj"]}, r"blocks\.\d+")
    assert staged("blocks.0.mlp") == {"attention": ("blocks.0.attn.proj",)}
