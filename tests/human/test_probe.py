import json
import pickle
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import golden

from diffalign.human import probe as module
from diffalign.human.ceilings import clustered
from diffalign.human.checkpoints import Checkpoint
from diffalign.human.folds import nested_splits
from diffalign.human.odd_one_out import odd_one_out
from diffalign.human.probe import (
    Plan,
    Schedule,
    Setting,
    cross_entropy,
    grid,
    penalty,
    preprocess,
    probe,
    train,
)
from diffalign.human.transforms import Transform, TransformError
from diffalign.human.triplets import TripletError, Triplets
from diffalign.io.training_checkpoints import TrainingCheckpoint
from diffalign.io.transform_files import read_transform, write_transform

CPU = torch.device("cpu")
QUICK = Schedule(max_epochs=30, patience=3)


def judged(hidden: np.ndarray, count: int, seed: int) -> Triplets:
    """Triplets of objects whose odd one is what the dot products of hidden features leave."""
    draws = np.random.default_rng(seed)
    objects = draws.integers(0, len(hidden), (count, 3))
    objects = objects[[len(set(row)) == 3 for row in objects.tolist()]].astype(np.int32)
    odd = odd_one_out(hidden, Triplets(objects, len(hidden)), "dot").odd.astype(np.int64)
    others = np.array([[1, 2, 0], [0, 2, 1], [0, 1, 2]])
    return Triplets(np.take_along_axis(objects, others[odd], axis=1), len(hidden))


def named(count: int) -> list[str]:
    return [f"object{i:04d}" for i in range(count)]


@pytest.mark.parametrize("bias", [False, True])
def test_objective_of_the_published_code(bias: bool) -> None:
    expected = json.loads(golden("probe_objective.json").read_text())[f"bias_{bias}"]
    with np.load(golden("probe_objective.npz")) as file:
        arrays = dict(file)
    prepared = preprocess(arrays["features_raw"], None)
    assert np.abs(prepared.apply(arrays["features_raw"]) - arrays["features_standardised"]).max() < 1e-6
    weights = torch.from_numpy(arrays[f"W_{bias}"]).requires_grad_()
    offsets = torch.from_numpy(arrays["b_True"]).requires_grad_() if bias else None
    rows = torch.from_numpy(arrays["features_standardised"])[torch.from_numpy(arrays["triplets"])]
    loss = cross_entropy(rows[None], weights[None], None if offsets is None else offsets[None])
    regular = 0.1 * penalty(weights[None])
    assert loss.item() == pytest.approx(expected["cross_entropy"], rel=1e-5)
    assert regular.item() == pytest.approx(expected["regularisation"], rel=1e-5)
    (loss + regular).sum().backward()
    assert weights.grad is not None
    assert np.abs(weights.grad.numpy() - arrays[f"grad_W_{bias}"]).max() < 1e-5
    if offsets is not None:
        assert offsets.grad is not None
        assert np.abs(offsets.grad.numpy() - arrays["grad_b_True"]).max() < 1e-5
    map_ = Transform(arrays[f"W_{bias}"], arrays["b_True"] if bias else None, prepared.mean, prepared.std)
    triplets = Triplets(arrays["triplets"].astype(np.int32), 40)
    credit = odd_one_out(map_.apply(arrays["features_raw"]), triplets, "dot").credit()
    assert credit.mean() == pytest.approx(expected["accuracy"])


def test_partition_of_the_published_code() -> None:
    expected = json.loads(golden("probe_objective.json").read_text())["partition"]
    with np.load(golden("probe_objective.npz")) as file:
        triplets = Triplets(file["triplets"].astype(np.int32), 40)
    trained, tested = triplets.where_all(np.arange(40) < 30), triplets.where_all(np.arange(40) >= 30)
    assert (int(trained.sum()), int(tested.sum())) == (expected["train"], expected["val"])
    assert int((~trained & ~tested).sum()) == expected["neither"]


@pytest.fixture(scope="module")
def planted() -> tuple[dict[str, np.ndarray], Triplets]:
    """Features in which what people go by is a small part, turned, and the choices of these people."""
    draws = np.random.default_rng(0)
    hidden = draws.standard_normal((240, 3))
    rows = np.concatenate([hidden, 2 * draws.standard_normal((240, 9))], axis=1)
    turn = np.linalg.qr(draws.standard_normal((12, 12)))[0]
    return {"b0": (rows @ turn).astype(np.float32)}, judged(hidden, 100_000, 1)


def test_a_planted_map_is_found_on_objects_never_seen(planted: tuple[dict[str, np.ndarray], Triplets]) -> None:
    layers, triplets = planted
    plan = Plan(settings=(Setting(1e-4, 1e-2),), schedule=QUICK)
    probed = probe(layers, named(240), triplets, plan, 0, CPU)["b0"]
    assert 0.3 < probed.before.mean() < 0.4
    assert probed.after.mean() > 0.95
    assert len(probed.transforms) == 3
    assert all(transform.mean is not None for transform in probed.transforms)


def test_noise_is_not_improved() -> None:
    # people and features have nothing to do with each other: what is left of a gain would be a leak
    draws = np.random.default_rng(3)
    triplets = judged(draws.standard_normal((90, 3)), 20_000, 4)
    layers = {"b0": draws.standard_normal((90, 40)).astype(np.float32)}
    plan = Plan(pca=20, settings=grid([1e-3, 1e-1], [1e-3, 1e-2]), schedule=QUICK)
    probed = probe(layers, named(90), triplets, plan, 0, CPU)["b0"]
    gain = clustered((probed.after - probed.before)[None], triplets.groups[probed.tested], 0)
    objects = np.unique(triplets.objects[probed.tested])
    assert len(objects) == 90
    # objects recur in triplets, so the spread over triplets is too small: three of it
    assert abs(gain.means[0]) < max(3 * gain.errors[0], 0.05)
    assert probed.after.mean() == pytest.approx(1 / 3, abs=0.06)


def test_splits_share_no_object(planted: tuple[dict[str, np.ndarray], Triplets]) -> None:
    _, triplets = planted
    splits = nested_splits(triplets, named(240), 3, 4, 0)
    tested = np.zeros(len(triplets), int)
    for split in splits:
        parts = [set(np.unique(triplets.objects[mask])) for mask in (split.trained, split.stopped, split.tested)]
        assert not parts[0] & parts[1]
        assert not parts[0] & parts[2]
        assert not parts[1] & parts[2]
        assert parts[0] <= set(np.flatnonzero(split.objects))
        tested += split.tested
    assert tested.max() == 1
    # by name, not by position
    order = np.random.default_rng(0).permutation(240)
    moved = Triplets(np.argsort(order)[triplets.objects].astype(np.int32), 240)
    again = nested_splits(moved, [named(240)[i] for i in order], 3, 4, 0)
    assert all(np.array_equal(a.trained, b.trained) for a, b in zip(splits, again, strict=True))
    with pytest.raises(TripletError, match="no triplet lies wholly among the .* objects .* of fold 0 of 40"):
        nested_splits(triplets.taken(np.arange(200)), named(240), 40, 4, 0)


def test_preprocessing_sees_training_objects_alone(planted: tuple[dict[str, np.ndarray], Triplets]) -> None:
    layers, triplets = planted
    plan = Plan(folds=2, pca=5, settings=(Setting(1e-3, 1e-2),), schedule=Schedule(max_epochs=2))
    splits = nested_splits(triplets, named(240), 2, 4, 0)
    before = probe(layers, named(240), triplets, plan, 0, CPU)["b0"].transforms[0]
    changed = layers["b0"].copy()
    changed[~splits[0].objects & ~np.isin(np.arange(240), triplets.objects[splits[0].stopped])] *= 50
    after = probe({"b0": changed}, named(240), triplets, plan, 0, CPU)["b0"].transforms[0]
    assert np.array_equal(before.weights, after.weights)
    assert (before.mean, before.std) == (after.mean, after.std)


def test_pca_is_folded_into_the_transform() -> None:
    draws = np.random.default_rng(0)
    rows = draws.standard_normal((30, 8)) + 2
    prepared = preprocess(rows, 4)
    weights, bias = draws.standard_normal((4, 4)), draws.standard_normal(4)
    direct = prepared.apply(rows).astype(np.float64) @ weights + bias
    assert np.abs(prepared.before(weights, bias).apply(rows) - direct).max() < 1e-4
    assert np.abs(prepared.before(weights, None).apply(rows) - (direct - bias)).max() < 1e-4
    assert np.abs(prepared.apply(rows).mean(axis=0)).max() < 1e-6


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_probes_are_trained_together_as_alone(planted: tuple[dict[str, np.ndarray], Triplets], optimizer: str) -> None:
    layers, triplets = planted
    schedule = Schedule(optimizer=optimizer, max_epochs=4, patience=1, bias=True)
    split = nested_splits(triplets, named(240), 3, 4, 0)[0]
    rows = preprocess(layers["b0"][split.objects], None).apply(layers["b0"])
    start = np.random.default_rng(0).standard_normal((12, 12)).astype(np.float32) * np.float32(1e-3)
    settings = grid([1e-3, 1.0], [1e-3, 1e-2])
    together = train([rows] * 4, triplets, split, settings, schedule, [start] * 4, "0", 0, CPU)
    for setting, fitted in zip(settings, together, strict=True):
        alone = train([rows], triplets, split, [setting], schedule, [start], "0", 0, CPU)[0]
        assert fitted.epoch == alone.epoch
        assert fitted.losses == pytest.approx(alone.losses, rel=1e-4)
        assert np.abs(fitted.weights - alone.weights).max() < 1e-4
        assert fitted.bias is not None
    assert len({fitted.losses for fitted in together}) == 4


def test_training_that_was_killed_goes_on(
    planted: tuple[dict[str, np.ndarray], Triplets], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers, triplets = planted
    split = nested_splits(triplets, named(240), 3, 4, 0)[0]
    rows = preprocess(layers["b0"][split.objects], None).apply(layers["b0"])
    start = np.random.default_rng(0).standard_normal((12, 12)).astype(np.float32) * np.float32(1e-3)
    schedule = Schedule(max_epochs=6, patience=6)
    given = ([rows], triplets, split, [Setting(1e-3, 1e-2)], schedule, [start], "0", 0, CPU)
    whole = train(*given)[0]
    checkpoint = Checkpoint(TrainingCheckpoint(tmp_path / "fold.pt"), {"layer": "b0"}, every=2)
    judge = module._judge

    def killed(*arguments: object) -> None:
        judge(*arguments)  # type: ignore[arg-type]
        if arguments[3].epoch == 5:  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "_judge", killed)
    with pytest.raises(KeyboardInterrupt):
        train(*given, checkpoint)
    epochs = []

    def counted(*arguments: object) -> None:
        epochs.append(arguments[3].epoch)  # type: ignore[attr-defined]
        judge(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "_judge", counted)
    resumed = train(*given, checkpoint)[0]
    assert epochs == [5, 6]
    assert np.array_equal(resumed.weights, whole.weights)
    assert resumed.losses == whole.losses
    # a checkpoint with another key is ignored
    epochs.clear()
    train(*given, Checkpoint(TrainingCheckpoint(tmp_path / "fold.pt"), {"layer": "b1"}))
    assert epochs == [1, 2, 3, 4, 5, 6]


def test_a_loss_that_explodes_is_an_error(planted: tuple[dict[str, np.ndarray], Triplets]) -> None:
    layers, triplets = planted
    plan = Plan(settings=(Setting(1e-3, 1e30),), schedule=QUICK)
    with pytest.raises(ValueError, match=r"the loss is \w+ after 1 epochs; take a smaller learning rate"):
        probe(layers, named(240), triplets, plan, 0, CPU)
    with pytest.raises(ValueError, match="unknown optimizer 'lion'; allowed: adam, adamw, sgd"):
        Schedule(optimizer="lion")
    with pytest.raises(ValueError, match="cannot be standardised"):
        preprocess(np.ones((5, 3)), None)


def test_transforms_of_every_published_layout(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    rows = draws.standard_normal((10, 4)) * 3 + 1
    weights, bias = draws.standard_normal((4, 4)).astype(np.float32), draws.standard_normal(4).astype(np.float32)
    write_transform(tmp_path / "a.npz", Transform(weights, bias, 1.5, 2.5))
    with np.load(tmp_path / "a.npz") as file:
        assert set(file) == {"weights", "bias", "mean", "std"}
        assert file["mean"].shape == ()
    assert np.allclose(read_transform(tmp_path / "a.npz").apply(rows), (rows - 1.5) / 2.5 @ weights + bias)
    # older files have neither mean nor std: those of the features
    standard = (rows - rows.mean()) / rows.std()
    np.save(tmp_path / "b.npy", np.concatenate([weights, bias[:, None]], axis=1))
    assert np.allclose(read_transform(tmp_path / "b.npy").apply(rows), standard @ weights + bias)
    np.save(tmp_path / "c.npy", weights)
    assert np.allclose(read_transform(tmp_path / "c.npy").apply(rows), standard @ weights)
    nested: defaultdict[str, dict[str, dict[str, np.ndarray]]] = defaultdict(dict)
    nested["custom"]["clip"] = {"penultimate": weights}
    (tmp_path / "d.pkl").write_bytes(pickle.dumps(nested))
    transform = read_transform(tmp_path / "d.pkl", ("custom", "clip", "penultimate"))
    assert np.array_equal(transform.weights, weights)
    with pytest.raises(TransformError, match="has no 'logits'; there: penultimate"):
        read_transform(tmp_path / "d.pkl", ("custom", "clip", "logits"))


def test_transforms_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TransformError, match="takes features of 4 dimensions, these have 5"):
        Transform(np.eye(4, dtype=np.float32)).apply(np.zeros((3, 5)))
    np.save(tmp_path / "wide.npy", np.zeros((4, 9)))
    with pytest.raises(TransformError, match=r"holds an array \(4, 9\); expected \(D, D\)"):
        read_transform(tmp_path / "wide.npy")
    with pytest.raises(TransformError, match="a bias .* does not fit"):
        Transform(np.eye(4, dtype=np.float32), np.zeros(3, np.float32))
    with pytest.raises(TransformError, match="all features are equal"):
        Transform(np.eye(4, dtype=np.float32)).apply(np.ones((3, 4)))
    np.savez(tmp_path / "other.npz", map=np.eye(3))
    with pytest.raises(TransformError, match="expected weights; there: map"):
        read_transform(tmp_path / "other.npz")
    with pytest.raises(TransformError, match=r"a transform is a file \.npz, \.npy or \.pkl"):
        read_transform(tmp_path / "map.json")


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "touched",))  # type: ignore[return-value]

    (tmp_path / "bad.pkl").write_bytes(pickle.dumps({"weights": Attack()}))
    with pytest.raises(TransformError, match="which is no array"):
        read_transform(tmp_path / "bad.pkl")
    assert not (tmp_path / "touched").exists()
