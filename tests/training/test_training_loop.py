"""The loop: the same weights again, also after a kill and with other workers; what stops it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT
from torch import Tensor, nn
from torch.utils.data import Dataset

from diffalign.io.headers import StoreError
from diffalign.io.training_checkpoints import TrainingFolder
from diffalign.specs import Training
from diffalign.training import Batch, HeldImages, StreamedImages, TrainingError, train
from diffalign.training.batches import held, order_of
from diffalign.training.objectives import Objective
from diffalign.training.schedules import average_decay, learning_rate

RECIPE = Training(
    "digits", "classification", steps=12, batch_size=8, learning_rate=0.01, warmup=3, weight_decay=0.1, clip=1.0
)
CPU = torch.device("cpu")


class Numbered(Dataset[Mapping[str, Any]]):
    """A number and its class, by row."""

    def __len__(self) -> int:
        return 30

    def __getitem__(self, row: int) -> Mapping[str, Any]:
        values = torch.linspace(-1, 1, 5) * (row % 3 - 1) + 0.1 * (row % 10)
        return {"name": f"{row:02d}", "pixels": values, "labels": torch.tensor(row % 3)}


NAMES = [f"{row:02d}" for row in range(30)]
STREAMED = StreamedImages(NAMES, Numbered())


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(5, 16), nn.Dropout(0.3), nn.GELU(), nn.Linear(16, 3))


def cross_entropy(net: nn.Module, beside: nn.Module | None = None) -> Objective:
    def measure(batch: Batch, step: int) -> Mapping[str, Tensor]:
        loss = nn.functional.cross_entropy(net(batch.tensors["pixels"]), batch.tensors["labels"])
        return {"loss": loss}

    return Objective((), measure, beside)


def trained(
    folder: Path,
    recipe: Training = RECIPE,
    seed: int = 0,
    images: HeldImages | StreamedImages = STREAMED,
    checkpoints: Sequence[int] = (0, 5, 12),
    **given: Any,
) -> tuple[dict[str, list[float]], TrainingFolder]:
    net, kept = network(), TrainingFolder(folder)
    key = given.pop("key", {"recipe": vars(recipe)})
    losses = train("mine", net, cross_entropy(net), recipe, seed, images, checkpoints, kept, key, **given)
    return losses, kept


def equal(a: TrainingFolder, b: TrainingFolder, step: int) -> bool:
    one, other = a.read_weights(step), b.read_weights(step)
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_a_seed_gives_the_same_weights_and_another_seed_others(tmp_path: Path) -> None:
    losses, a = trained(tmp_path / "a")
    again, b = trained(tmp_path / "b")
    _, other = trained(tmp_path / "c", seed=1)
    assert losses == again
    assert all(equal(a, b, step) for step in (0, 5, 12))
    assert not equal(a, other, 5)
    assert len(losses["loss"]) == 12


def test_threads_change_nothing_and_are_given_back(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    _, a = trained(tmp_path / "a")
    try:
        torch.set_num_threads(3)
        _, b = trained(tmp_path / "b")
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert equal(a, b, 12)


@pytest.mark.parametrize("workers", [0, 2])
def test_images_in_memory_and_read_by_workers_are_the_same_batches(workers: int, tmp_path: Path) -> None:
    _, in_memory = trained(tmp_path / "a", images=held(STREAMED))
    _, read = trained(tmp_path / "b", images=replace(STREAMED, workers=workers))
    assert equal(in_memory, read, 12)


def test_the_order_of_images_is_that_of_their_names_wherever_they_stand() -> None:
    backwards = NAMES[::-1]
    a, b = list(order_of(NAMES, 8, 4, 9)), list(order_of(backwards, 8, 4, 9))
    assert [[NAMES[row] for row in rows] for rows in a] == [[backwards[row] for row in rows] for rows in b]
    assert list(order_of(NAMES, 8, 5, 9)) != a


def test_an_epoch_sees_an_image_once_and_the_next_in_another_order() -> None:
    order = list(order_of(NAMES, 8, 0, 7))
    first, second = ([row for rows in epoch for row in rows] for epoch in (order[:3], order[3:6]))
    assert len(set(first)) == len(set(second)) == 24
    assert first != second
    assert list(order_of(NAMES, 8, 0, 4)) == order[:4]
    assert [list(order_of(NAMES, 8, 0, 7, made)) for made in (0, 2, 3, 7)] == [order, order[2:], order[3:], []]


_CHILD = """
import sys, time
from pathlib import Path
from test_training_loop import trained, STREAMED
import diffalign.training.loop as loop
step = loop._make_step
def slow(*given):
    step(*given)
    time.sleep(0.05)
loop._make_step = slow
trained(Path(sys.argv[1]), state_seconds=0)
"""


def test_a_training_that_was_killed_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    losses, whole = trained(tmp_path / "whole")
    killed = TrainingFolder(tmp_path / "killed")
    paths = [str(ROOT / "workflow_scripts"), str(ROOT / "tests"), str(ROOT / "tests" / "training")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    child = subprocess.Popen([sys.executable, "-c", _CHILD, str(killed.path)], env=environment)
    deadline = time.monotonic() + 120
    made = 0
    while made < 3 and time.monotonic() < deadline and child.poll() is None:
        state = killed.state.read(CPU)
        made = 0 if state is None else int(state["step"])
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert 3 <= made < 12
    assert not killed.weights(12).path.exists()
    resumed, there = trained(killed.path)
    assert resumed == losses
    assert all(equal(whole, there, step) for step in (0, 5, 12))


def test_a_state_is_gone_on_from_and_one_of_another_recipe_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    step = train.__globals__["_make_step"]

    def counted(run: Any, *given: Any) -> None:
        if len(made) == 7:
            raise KeyboardInterrupt
        step(run, *given)
        made.append(run.step)

    monkeypatch.setitem(train.__globals__, "_make_step", counted)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "a")
    made.clear()
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "a", replace(RECIPE, learning_rate=0.02))
    assert made == [1, 2, 3, 4, 5, 6, 7]
    made.clear()
    trained(tmp_path / "a", replace(RECIPE, learning_rate=0.02))
    assert made == [6, 7, 8, 9, 10, 11, 12]


def test_a_training_that_is_done_makes_no_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses, _ = trained(tmp_path / "a")
    monkeypatch.setitem(train.__globals__, "_make_step", None)
    assert trained(tmp_path / "a")[0] == losses


def test_another_list_of_checkpoints_begins_anew(tmp_path: Path) -> None:
    trained(tmp_path / "a")
    _, there = trained(tmp_path / "a", checkpoints=[2, 12])
    assert there.weights(2).path.exists()
    assert not there.weights(5).path.exists()


def test_losses_fall(tmp_path: Path) -> None:
    losses, _ = trained(tmp_path, replace(RECIPE, steps=60, learning_rate=0.02), checkpoints=[60])
    assert sum(losses["loss"][-20:]) < 0.8 * sum(losses["loss"][:20])


def test_a_loss_that_is_not_finite_stops_with_step_rate_and_last_checkpoint(tmp_path: Path) -> None:
    net, folder = network(), TrainingFolder(tmp_path)

    def measure(batch: Batch, step: int) -> Mapping[str, Tensor]:
        return {"loss": net(batch.tensors["pixels"]).mean() * (float("nan") if step == 8 else 1.0)}

    with pytest.raises(TrainingError, match=r"mine: loss is nan at step 8, where the learning rate is 0\.00587.*") as e:
        train("mine", net, Objective((), measure), RECIPE, 0, STREAMED, [0, 5, 12], folder, {})
    assert str(folder.weights(5).path) in str(e.value)
    assert all(tensor.isfinite().all() for tensor in folder.read_weights(5).values())
    assert not folder.weights(12).path.exists()


def test_weights_that_are_not_finite_are_no_checkpoint(tmp_path: Path) -> None:
    net, folder = network(), TrainingFolder(tmp_path)

    def measure(batch: Batch, step: int) -> Mapping[str, Tensor]:
        # finite itself, with gradients that are not
        return {"loss": (net[0].weight * 0).abs().sum().sqrt()}

    with pytest.raises(TrainingError, match=r"mine: weights 0\.weight are NaN or infinite at step 1"):
        train("mine", net, Objective((), measure), RECIPE, 0, STREAMED, [1], folder, {})
    assert not folder.weights(1).path.exists()


@pytest.mark.parametrize(
    ("changes", "checkpoints", "message"),
    [
        ({"batch_size": 31}, [12], "a batch of 31 images is larger than the data set, which has 30"),
        ({}, [12, 13], "mine: checkpoint 13 lies beyond the last step, 12"),
        ({"optimizer": "lion"}, [12], "unknown optimizer 'lion'; allowed: adamw, adam, sgd"),
        ({"schedule": "steps"}, [12], "unknown schedule 'steps'; allowed: cosine, constant"),
    ],
)
def test_what_cannot_be_trained_is_said(
    changes: dict[str, Any], checkpoints: list[int], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        trained(tmp_path, replace(RECIPE, **changes), checkpoints=checkpoints)


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
def test_every_optimizer_trains(optimizer: str, tmp_path: Path) -> None:
    _, folder = trained(tmp_path, replace(RECIPE, optimizer=optimizer))
    assert not torch.equal(folder.read_weights(0)["0.weight"], folder.read_weights(12)["0.weight"])


def test_what_stands_beside_the_network_is_trained_and_in_no_checkpoint(tmp_path: Path) -> None:
    net, beside, folder = network(), nn.Linear(3, 3), TrainingFolder(tmp_path)
    begun = beside.weight.detach().clone()

    def measure(batch: Batch, step: int) -> Mapping[str, Tensor]:
        return {"loss": beside(net(batch.tensors["pixels"])).square().mean()}

    train("mine", net, Objective((), measure, beside), RECIPE, 0, STREAMED, [12], folder, {})
    assert not torch.equal(beside.weight, begun)
    assert set(folder.read_weights(12)) == set(net.state_dict())


def test_a_checkpoint_holds_the_average_of_weights(tmp_path: Path) -> None:
    _, plain = trained(tmp_path / "plain", checkpoints=range(13))
    _, averaged = trained(tmp_path / "averaged", replace(RECIPE, ema=0.8), checkpoints=range(13))
    mean = plain.read_weights(0)["3.weight"].double()
    for step in range(1, 13):
        decay = min(0.8, step / (9 + step))
        mean = decay * mean + (1 - decay) * plain.read_weights(step)["3.weight"].double()
    torch.testing.assert_close(averaged.read_weights(12)["3.weight"].double(), mean, rtol=1e-5, atol=1e-7)
    assert average_decay(RECIPE, 100) == 0


def test_learning_rates_rise_and_fall_as_said() -> None:
    cosine = replace(RECIPE, learning_rate=1.0, warmup=4, steps=14)
    rates = [learning_rate(cosine, step) for step in range(1, 15)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[9] == pytest.approx(0.5)
    assert 0 < rates[-1] < 0.03
    assert all(b < a for a, b in zip(rates[4:], rates[5:], strict=False))
    constant = replace(cosine, schedule="constant", warmup=0)
    assert {learning_rate(constant, step) for step in range(1, 15)} == {1.0}


def test_a_folder_without_weights_of_a_step_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"weights-3\.pt: missing; delete .* and rerun"):
        TrainingFolder(tmp_path).read_weights(3)
