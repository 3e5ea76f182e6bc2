"""Losses against their formulas, what a network gives them, and the weights that training begins with."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffalign import models
from diffalign.models import Trainable
from diffalign.models.families import lightningdit, sit
from diffalign.models.networks.latent_transformers import Block
from diffalign.models.predictions import from_velocity
from diffalign.noise import on_path, path_slopes
from diffalign.specs import Model, Training, Weights
from diffalign.training import Batch, draws
from diffalign.training.objectives.alignment import TeacherAlignment
from diffalign.training.objectives.classification import classification
from diffalign.training.objectives.flow_matching import flow_matching, path_at, times
from diffalign.training.objectives.reconstruction import divergence_from_normal, reconstruction

CPU = torch.device("cpu")
RECIPE = Training("digits", "flow_matching", steps=10, batch_size=4)
SIT: dict[str, Any] = {
    "input_size": 4,
    "in_channels": 4,
    "patch_size": 2,
    "hidden_size": 32,
    "depth": 3,
    "num_heads": 2,
    "num_classes": 3,
    "learn_sigma": False,
}
LIGHTNING = {
    **SIT,
    **dict.fromkeys(("use_swiglu", "use_rmsnorm", "use_rope", "use_qknorm", "wo_shift"), True),
}


def flow(family: str = "sit", path: str = "linear", seed: int = 0, **changes: Any) -> Model:
    architecture = SIT if family == "sit" else LIGHTNING
    return Model(
        *("mine", family, Weights("training"), {"b1": "blocks.1"}, "b1"),
        latents="mine",
        path=path,
        seed=seed,
        training=RECIPE,
        **{"architecture": architecture, **changes},
    )


def batch(count: int = 4, teacher: tuple[int, int] | None = None) -> Batch:
    torch.manual_seed(5)
    tensors = {"latents": torch.randn(count, 4, 4, 4), "labels": torch.arange(count) % 3}
    if teacher is not None:
        tensors["teacher"] = torch.randn(count, *teacher)
    return Batch([str(i) for i in range(count)], tensors)


@pytest.mark.parametrize("path", ["linear", "cosine"])
def test_the_path_and_its_slopes_are_those_of_noise_levels(path: str) -> None:
    for t in (0.1, 0.5, 0.9):
        alpha, sigma, tau = on_path(path, t)
        at = [float(each) for each in path_at(path, torch.tensor([tau], dtype=torch.float64))]
        assert at == pytest.approx([alpha, sigma, *path_slopes(path, alpha, sigma)], abs=1e-12)
    with pytest.raises(ValueError, match="unknown path 'round'; allowed: linear, cosine"):
        path_at("round", torch.zeros(1))


@pytest.mark.parametrize("family", ["sit", "lightningdit"])
@pytest.mark.parametrize("path", ["linear", "cosine"])
def test_the_velocity_that_is_trained_is_the_one_that_is_extracted(family: str, path: str, tmp_path: Path) -> None:
    model = flow(family, path)
    network = models.trainable(model, CPU)
    torch.manual_seed(1)
    for parameter in network.module.parameters():
        # what training begins with predicts nothing
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    network.save(network.module.state_dict(), tmp_path)
    denoiser = models.load_denoiser(model, tmp_path, CPU)
    level = denoiser.level("t0.3")
    alpha, sigma, tau = on_path(path, 0.3)
    x_t, labels = batch().tensors["latents"], batch().tensors["labels"]
    with torch.no_grad():
        velocity = network.run(x_t, torch.full((4,), tau), labels)
    ours = from_velocity(velocity, x_t, level, path_slopes(path, alpha, sigma))
    theirs = denoiser.predict(x_t, level, {"labels": labels})
    torch.testing.assert_close(ours.x0, theirs.x0, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.eps, theirs.eps, rtol=1e-4, atol=1e-5)


def recorded(classes: int = 3) -> tuple[Trainable, list[tuple[Tensor, Tensor, Tensor]]]:
    """A network that predicts 0 and keeps what it was asked."""
    asked: list[tuple[Tensor, Tensor, Tensor]] = []

    def run(x_t: Tensor, tau: Tensor, labels: Tensor) -> Tensor:
        asked.append((x_t, tau, labels))
        return torch.zeros_like(x_t)

    return Trainable(nn.Identity(), run, lambda *_: None, classes), asked


def test_a_network_that_predicts_nothing_has_the_energy_of_the_velocity_as_its_loss() -> None:
    network, asked = recorded()
    images = batch()
    loss = flow_matching(network, RECIPE, "linear", 7).measure(images, 3)["loss"]
    ((x_t, tau, _),) = asked
    clean = images.tensors["latents"]
    noise = (x_t - (1 - tau).view(-1, 1, 1, 1) * clean) / tau.view(-1, 1, 1, 1)
    assert float(loss) == pytest.approx(float((noise - clean).square().mean()), rel=1e-4)
    assert float(noise.std()) == pytest.approx(1, abs=0.2)


def test_a_share_of_labels_is_the_null_label() -> None:
    network, asked = recorded()
    images = batch(2000)
    flow_matching(network, replace(RECIPE, label_dropout=0.25), "linear", 0).measure(images, 1)
    labels = asked[0][2]
    dropped = labels == 3
    assert float(dropped.float().mean()) == pytest.approx(0.25, abs=0.03)
    assert torch.equal(labels[~dropped], images.tensors["labels"][~dropped])


def test_a_seed_and_a_step_give_times_noise_and_labels_whatever_the_loss() -> None:
    seen = []
    for recipe, seed, step in (
        (RECIPE, 0, 1),
        (replace(RECIPE, learning_rate=1.0, weight_decay=0.3), 0, 1),
        (RECIPE, 1, 1),
        (RECIPE, 0, 2),
    ):
        network, asked = recorded()
        flow_matching(network, recipe, "linear", seed).measure(batch(), step)
        seen.append(asked[0])
    assert all(torch.equal(a, b) for a, b in zip(seen[0], seen[1], strict=True))
    assert not torch.equal(seen[0][0], seen[2][0])
    assert not torch.equal(seen[0][1], seen[3][1])


def test_times_are_uniform_or_the_logistic_of_normal_draws() -> None:
    uniform, lognormal = times("uniform", 20000, 0, 1), times("lognormal", 20000, 0, 1)
    assert float(uniform.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(uniform.var()) == pytest.approx(1 / 12, abs=0.003)
    assert float(lognormal.logit().mean()) == pytest.approx(0, abs=0.03)
    assert float(lognormal.logit().std()) == pytest.approx(1, abs=0.03)
    with pytest.raises(ValueError, match="unknown times 'even'; allowed: uniform, lognormal"):
        times("even", 3, 0, 1)


def aligned(recipe: Training, images: Batch, seed: int = 0) -> tuple[Trainable, TeacherAlignment]:
    network = models.trainable(flow(seed=seed), CPU)
    return network, TeacherAlignment(network, "b1", "blocks.1", recipe, seed, images)


def test_alignment_is_added_to_the_same_velocity() -> None:
    recipe = replace(RECIPE, teacher="vit_b3", teacher_layer="b1", teacher_weight=0.5, projector=16)
    images = batch(teacher=(4, 6))
    network, alignment = aligned(recipe, images)
    with torch.no_grad():
        both = flow_matching(network, recipe, "linear", 0, alignment).measure(images, 1)
        alone = flow_matching(models.trainable(flow(), CPU), recipe, "linear", 0).measure(images, 1)
    assert float(both["velocity"]) == float(alone["velocity"])
    assert float(both["loss"]) == pytest.approx(float(both["velocity"]) + 0.5 * (1 - float(both["cosine"])))


def test_the_cosine_is_that_of_projected_tokens() -> None:
    recipe = replace(RECIPE, teacher="vit_b3", teacher_layer="b1", projector=16)
    images = batch(teacher=(4, 6))
    _, alignment = aligned(recipe, images)
    alignment.projector.requires_grad_(False)
    tokens = torch.randn(4, 4, 32)
    projected = alignment.projector(tokens)
    lengths = projected.norm(dim=-1) * images.tensors["teacher"].norm(dim=-1)
    expected = ((projected * images.tensors["teacher"]).sum(dim=-1) / lengths).mean()
    assert float(alignment.cosine(tokens, images.tensors["teacher"])) == pytest.approx(float(expected), abs=1e-6)
    assert float(alignment.cosine(tokens, projected.detach())) == pytest.approx(1, abs=1e-6)
    assert [tuple(each.weight.shape) for each in alignment.projector if isinstance(each, nn.Linear)] == [
        (16, 32),
        (16, 16),
        (6, 16),
    ]


def test_a_projector_changes_no_weights_of_the_network_and_no_draws() -> None:
    recipe = replace(RECIPE, teacher="vit_b3", teacher_layer="b1", projector=16)
    network, _ = aligned(recipe, batch(teacher=(4, 6)))
    after = torch.rand(3)
    alone = models.trainable(flow(), CPU).module.state_dict()
    assert all(torch.equal(tensor, network.module.state_dict()[key]) for key, tensor in alone.items())
    models.trainable(flow(), CPU)
    assert torch.equal(after, torch.rand(3))


@pytest.mark.parametrize(
    ("path", "teacher", "message"),
    [
        ("blocks.9", (4, 6), r"no module 'blocks\.9' in SiT"),
        ("blocks.1", (9, 6), r"layer 'b1' gives \(4, 32\) for an image, but the teacher vit_b3 has 9 tokens of 6"),
        ("t_embedder", (4, 6), r"layer 'b1' gives \(32,\) for an image"),
    ],
)
def test_layers_that_cannot_be_aligned_are_said(path: str, teacher: tuple[int, int], message: str) -> None:
    recipe = replace(RECIPE, teacher="vit_b3", teacher_layer="b1")
    network = models.trainable(flow(), CPU)
    with pytest.raises(ValueError, match=message):
        TeacherAlignment(network, "b1", path, recipe, 0, batch(teacher=teacher))


def test_cross_entropy_and_accuracy() -> None:
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 5.0, 0.0], [0.0, 0.0, 1.0]])
    network = Trainable(nn.Identity(), lambda pixels: logits, lambda *_: None, 3)
    images = Batch(["a", "b", "c", "d"], {"pixels": torch.zeros(4), "labels": torch.tensor([0, 1, 2, 2])})
    measured = classification(network).measure(images, 1)
    by_hand = [
        -row[label] + math.log(sum(math.exp(x) for x in row)) for row, label in zip(logits, [0, 1, 2, 2], strict=True)
    ]
    assert float(measured["loss"]) == pytest.approx(float(sum(by_hand)) / 4, rel=1e-6)
    assert float(measured["accuracy"]) == 0.75


def test_the_divergence_is_that_of_normals() -> None:
    torch.manual_seed(0)
    mean, log_variance = torch.randn(3, 4, 2, 2), torch.randn(3, 4, 2, 2)
    posterior = torch.distributions.Normal(mean, torch.exp(0.5 * log_variance))
    expected = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).flatten(1).sum(1)
    torch.testing.assert_close(divergence_from_normal(mean, log_variance), expected)


def test_reconstruction_is_the_squared_error_and_the_weighted_divergence() -> None:
    mean, log_variance = torch.full((2, 4, 1, 1), 0.5), torch.zeros(2, 4, 1, 1)
    drawn: list[Tensor] = []

    def run(pixels: Tensor, draw: Any) -> tuple[Tensor, Tensor, Tensor]:
        drawn.append(draw((2, 4, 1, 1)))
        return pixels + 0.25, mean, log_variance

    network = Trainable(nn.Identity(), run, lambda *_: None)
    images = Batch(["a", "b"], {"pixels": torch.zeros(2, 3, 4, 4)})
    recipe = replace(RECIPE, loss="reconstruction", kl=0.1)
    measured = reconstruction(network, recipe, 0).measure(images, 4)
    assert float(measured["error"]) == 0.0625
    assert float(measured["divergence"]) == pytest.approx(4 * 0.5 * 0.25)
    assert float(measured["loss"]) == pytest.approx(0.0625 + 0.1 * 0.5)
    assert torch.equal(drawn[0], draws.normal((2, 4, 1, 1), 0, "training posterior", 4))


@pytest.mark.parametrize(("family", "module"), [("sit", sit), ("lightningdit", lightningdit)])
def test_training_begins_with_the_published_weights(family: str, module: Any) -> None:
    net = models.trainable(
        flow(family, architecture={**(SIT if family == "sit" else LIGHTNING), "hidden_size": 64}), CPU
    )
    begun: Mapping[str, Tensor] = net.module.state_dict()
    for block in (each for each in net.module.modules() if isinstance(each, Block)):
        assert not block.adaLN_modulation[-1].weight.any()
        assert not block.adaLN_modulation[-1].bias.any()
    for key in ("final_layer.linear", "final_layer.adaLN_modulation.1"):
        assert not begun[f"{key}.weight"].any()
        assert not begun[f"{key}.bias"].any()
    for key in ("y_embedder.embedding_table", "t_embedder.mlp.0", "t_embedder.mlp.2"):
        assert float(begun[f"{key}.weight"].std()) == pytest.approx(0.02, rel=0.15)
    for key in ("blocks.1.attn.qkv", "x_embedder.proj"):
        weight = begun[f"{key}.weight"].flatten(1)
        bound = math.sqrt(6 / sum(weight.shape))
        assert float(weight.abs().max()) <= bound
        assert float(weight.std()) == pytest.approx(bound / math.sqrt(3), rel=0.1)
        assert not begun[f"{key}.bias"].any()
    x = batch().tensors["latents"]
    with torch.no_grad():
        assert not net.run(x, torch.rand(4), torch.zeros(4, dtype=torch.int64)).any()


def test_seeds_draw_other_weights_and_the_same_again() -> None:
    one, again, other = (models.trainable(flow(seed=seed), CPU).module.state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[key], again[key]) for key in one)
    assert not torch.equal(one["blocks.0.attn.qkv.weight"], other["blocks.0.attn.qkv.weight"])


def test_a_family_without_a_loss_names_those_that_have_it() -> None:
    with pytest.raises(ValueError, match=r"family 'repa' has no loss 'flow_matching'; families with it: .*sit"):
        models.trainable(replace(flow(), family="repa"), CPU)
