"""A job that gets SIGKILL at a chosen point goes on from what it has finished: what is done again is counted."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image as Picture
from test_language import entry as language_model
from test_language import outputs

import extract as extraction
import extract_texts as texts_extraction
from diffalign import logs, models
from diffalign.conditions import parse_condition
from diffalign.extraction import texts as text_extraction
from diffalign.human import probe as probing
from diffalign.io import atomic, shard_files
from diffalign.io.checkpoints import describe
from diffalign.io.language_files import Texts, write_texts
from diffalign.io.manifest import Image, print_manifest
from diffalign.io.shard_files import Shard, Shards
from diffalign.models import Loaded
from diffalign.models.families import timm_vision, transformers_language
from diffalign.specs import Compute, ImageInput, Model, Weights
from diffalign.training import loop

HALF = (0.5, 0.5, 0.5)
NARROW = {"architecture": "vit_tiny_patch16_224", "img_size": 32, "patch_size": 16, "embed_dim": 10, "depth": 2}
VIT = Model(
    "vit",
    "timm_vision",
    Weights("miniature"),
    {"b0": "blocks.0", "b1": "blocks.1"},
    "b1",
    ImageInput(32, "bicubic", True, HALF, HALF),
    miniature={**NARROW, "num_heads": 2},
)
IMAGES = 23
BATCH = 4
# of 6 batches
KILLED_AFTER = 3
TEXTS = {f"i{n:02d}": "a word" + " and another" * n for n in range(10)}


def killed(job: str, *arguments: str) -> None:
    """Run a function of this module in a process of its own, which must die by SIGKILL."""
    code = f"import sys, test_resume; test_resume.{job}(*sys.argv[1:])"
    paths = [str(ROOT / folder) for folder in ("workflow_scripts", "tests", "tests/crash", "tests/extraction")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*paths, *sys.path])}
    done = subprocess.run([sys.executable, "-c", code, *arguments], env=environment, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


def kill_after(module: Any, name: str, calls: int) -> None:
    """Let a process get SIGKILL after a function was called so often."""
    original, made = getattr(module, name), []

    def counted(*arguments: Any, **options: Any) -> Any:
        result = original(*arguments, **options)
        made.append(name)
        if len(made) == calls:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(module, name, counted)


def counting(function: Callable[..., Any], calls: list[Any]) -> Callable[..., Any]:
    def counted(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        return function(*arguments, **options)

    return counted


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- extraction -------------------------------------------------------------------------------------------------------


def stimuli(folder: Path) -> None:
    """Images, a checkpoint and a recipe."""
    (folder / "png").mkdir(parents=True)
    random = np.random.default_rng(0)
    rows = [Image(f"i{n:02d}", "c", 0, "", "", "", "") for n in range(IMAGES)]
    for row in rows:
        Picture.fromarray(random.integers(0, 256, (32, 32, 3)).astype(np.uint8)).save(folder / f"png/{row.name}.png")
    (folder / "manifest.tsv").write_text(print_manifest(rows))
    (folder / "dataset.json").write_text("{}")
    (folder / "weights").mkdir()
    timm_vision.make_miniature(VIT.miniature, folder / "weights", 0)
    describe(folder / "weights.json", folder / "weights", {"source": "miniature"})
    recipe = {"bundle": "vit", "model": VIT.recipe(), "noise": None, "conditioning": None}
    (folder / "recipe.json").write_text(json.dumps(recipe))


def extracted(folder: Path, to: Path, batch_size: int = BATCH, part: bool = False) -> dict[str, bytes]:
    """What an extraction writes, which keeps every batch."""
    shards = folder / "shards"
    extraction.extract(
        *(folder / name for name in ("recipe.json", "weights", "weights.json", "dataset.json", "manifest.tsv")),
        parse_condition("clean"),
        folder / "png",
        extraction.Part(to / "part.safetensors", list(VIT.layers), 0, 1, shards)
        if part
        else extraction.Whole(to / "vit.json", list(VIT.layers), shards),
        Compute("cpu", batch_size, 0),
        shard_seconds=0,
    )
    assert not shards.exists()
    return contents(to)


def extract_until_killed(folder: str, part: str) -> None:
    kill_after(Shards, "append", KILLED_AFTER)
    extracted(Path(folder), Path(folder) / "killed", part=part == "part")


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The forward passes that are made from now on."""
    calls: list[Any] = []
    load = models.load

    def counted(*arguments: Any) -> Loaded:
        loaded = load(*arguments)
        return replace(loaded, forward=counting(loaded.forward, calls))

    monkeypatch.setattr(models, "load", counted)
    return calls


@pytest.mark.parametrize("what", ["whole", "part"])
def test_an_extraction_goes_on_after_its_finished_batches(what: str, passes: list[Any], tmp_path: Path) -> None:
    stimuli(tmp_path)
    part = what == "part"
    undisturbed = extracted(tmp_path, tmp_path / "undisturbed", part=part)
    assert len(passes) == 6
    killed("extract_until_killed", str(tmp_path), what)
    assert not contents(tmp_path / "killed")
    passes.clear()
    assert extracted(tmp_path, tmp_path / "killed", part=part) == undisturbed
    assert len(passes) == 6 - KILLED_AFTER


def interrupt(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave what a kill after KILLED_AFTER shards leaves, in this process."""
    append = Shards.append

    def until(shards: Shards, shard: Shard) -> None:
        append(shards, shard)
        if shards._count == KILLED_AFTER:
            raise KeyboardInterrupt

    monkeypatch.setattr(Shards, "append", until)
    with pytest.raises(KeyboardInterrupt):
        extracted(folder, folder / "killed")
    monkeypatch.setattr(Shards, "append", append)


@pytest.mark.parametrize("change", ["batch size", "manifest", "recipe"])
def test_batches_of_other_settings_or_inputs_are_not_taken(
    change: str, passes: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stimuli(tmp_path)
    interrupt(tmp_path, monkeypatch)
    passes.clear()
    if change == "manifest":
        (tmp_path / "manifest.tsv").write_text((tmp_path / "manifest.tsv").read_text().replace("\tc\t", "\td\t"))
    if change == "recipe":
        recipe = json.loads((tmp_path / "recipe.json").read_text())
        (tmp_path / "recipe.json").write_text(json.dumps({**recipe, "code": "another"}))
    size = 6 if change == "batch size" else BATCH
    extracted(tmp_path, tmp_path / "whole", size)
    assert len(passes) == (4 if change == "batch size" else 6)


@pytest.mark.parametrize("damage", ["cut off", "edited"])
def test_a_damaged_shard_and_those_after_it_are_made_again(
    damage: str, passes: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stimuli(tmp_path)
    undisturbed = extracted(tmp_path, tmp_path / "undisturbed")
    interrupt(tmp_path, monkeypatch)
    (_, second, _) = sorted((tmp_path / "shards").rglob("*.safetensors"))
    content = second.read_bytes()
    second.write_bytes(content[:-10] if damage == "cut off" else content[:-1] + bytes([content[-1] ^ 1]))
    passes.clear()
    assert extracted(tmp_path, tmp_path / "killed") == undisturbed
    assert len(passes) == 5


def test_features_of_an_earlier_recipe_take_no_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    stimuli(tmp_path)
    made = counting(extraction.mean_of_passes, [])

    def during(*arguments: Any) -> Any:
        (tmp_path / "recipe.json").write_text("{}")
        return made(*arguments)

    monkeypatch.setattr(extraction, "mean_of_passes", during)

    def late() -> None:
        with logs.attached(tmp_path / "log", "extract_vit"):
            extracted(tmp_path, tmp_path / "late")

    with pytest.raises(SystemExit):
        late()
    assert "recipe.json changed while this job ran, so it belongs to an earlier run" in capfd.readouterr().err
    assert not contents(tmp_path / "late")


# --- language models --------------------------------------------------------------------------------------------------


def read_texts(folder: Path, to: Path) -> dict[str, bytes]:
    """What an extraction of texts writes, which keeps every batch of three."""
    model = language_model("gpt2")
    if not (folder / "weights").exists():
        (folder / "weights").mkdir(parents=True)
        transformers_language.make_miniature(model.miniature, folder / "weights", 0)
        describe(folder / "weights.json", folder / "weights", {"source": "miniature"})
        recipe = {"format": 1, "bundle": "gpt2", "conditioning": "caption", "noise": None, "model": model.recipe()}
        (folder / "recipe.json").write_text(json.dumps(recipe))
        write_texts(folder / "texts.json", Texts(TEXTS, {"conditioning": "caption"}, {"dataset": "ten"}))
    layers = list(model.layers)
    texts_extraction.extract_texts(
        *(folder / name for name in ("recipe.json", "weights", "weights.json", "texts.json")),
        layers,
        outputs(to),
        Compute("cpu", 3, 0),
        folder / "shards",
        shard_seconds=0,
    )
    assert not (folder / "shards").exists()
    return contents(to)


def read_texts_until_killed(folder: str) -> None:
    kill_after(Shards, "append", 2)
    read_texts(Path(folder), Path(folder) / "killed")


def test_texts_go_on_after_those_that_were_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(text_extraction, "_batch", counting(text_extraction._batch, calls))
    undisturbed = read_texts(tmp_path, tmp_path / "undisturbed")
    assert len(calls) == 4
    killed("read_texts_until_killed", str(tmp_path))
    calls.clear()
    assert read_texts(tmp_path, tmp_path / "killed") == undisturbed
    assert len(calls) == 2


# --- probes -----------------------------------------------------------------------------------------------------------


def probed(folder: Path) -> dict[str, Any]:
    """Probes of two layers in three folds, with checkpoints in a folder."""
    from test_probe import judged, named

    from diffalign.io.training_checkpoints import TrainingCheckpoint

    draws = np.random.default_rng(0)
    layers = {layer: draws.standard_normal((60, 8)).astype(np.float32) for layer in ("b0", "b1")}
    triplets = judged(draws.standard_normal((60, 3)), 4000, 1)
    schedule = probing.Schedule(max_epochs=7, patience=7)
    plan = probing.Plan(settings=(probing.Setting(1e-3, 1e-2),), schedule=schedule)
    found = probing.probe(
        *(layers, named(60), triplets, plan, 0, torch.device("cpu")),
        checkpoints=lambda name: TrainingCheckpoint(folder / name),
    )
    return {layer: [each.weights.tobytes() for each in probe.transforms] for layer, probe in found.items()}


def probe_until_killed(folder: str) -> None:
    # two folds of 7 epochs with checkpoints after 5 and 7, and a checkpoint of the third
    kill_after(probing, "_save", 5)
    probed(Path(folder))


def test_a_probe_goes_on_after_its_finished_folds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    epochs: list[Any] = []
    monkeypatch.setattr(probing, "_judge", counting(probing._judge, epochs))
    undisturbed = probed(tmp_path / "undisturbed")
    assert len(epochs) == 21
    killed("probe_until_killed", str(tmp_path / "killed"))
    epochs.clear()
    assert probed(tmp_path / "killed") == undisturbed
    assert len(epochs) == 2


# --- trainings --------------------------------------------------------------------------------------------------------


def train_until_killed(folder: str) -> None:
    from test_training_loop import trained

    # states of steps 5 and 12 belong to checkpoints
    kill_after(loop, "_write_state", 1)
    trained(Path(folder))


def test_a_training_goes_on_after_its_last_state_that_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from test_training_loop import equal, trained

    losses, whole = trained(tmp_path / "whole")
    killed("train_until_killed", str(tmp_path / "killed"))
    steps: list[Any] = []
    monkeypatch.setattr(loop, "_make_step", counting(loop._make_step, steps))
    for damaged, made in (("", 7), ("state.pt", 12), ("weights-5.pt", 12)):
        folder = tmp_path / f"again {damaged}"
        shutil.copytree(tmp_path / "killed", folder)
        if damaged:
            content = (folder / damaged).read_bytes()
            (folder / damaged).write_bytes(content[:-100])
        steps.clear()
        resumed, there = trained(folder)
        assert len(steps) == made
        assert resumed == losses
        assert all(equal(whole, there, step) for step in (0, 5, 12))


# --- what killed processes leave --------------------------------------------------------------------------------------


def write_until_killed(path: str) -> None:
    kill_after(atomic, "_reach_the_disk", 1)
    atomic.write_text(Path(path), "half")


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    path = tmp_path / "result.txt"
    killed("write_until_killed", str(path))
    (left,) = tmp_path.iterdir()
    # this process is another one that writes the same file
    with atomic.replacing(path) as ours:
        assert not left.exists()
        ours.write_text("ours")
        subprocess.run(
            [
                sys.executable,
                "-c",
                "import sys; from pathlib import Path; from diffalign.io import atomic; "
                "atomic.write_text(Path(sys.argv[1]), 'theirs')",
                str(path),
            ],
            env={**os.environ, "PYTHONPATH": str(ROOT / "workflow_scripts")},
            check=True,
        )
        assert path.read_text() == "theirs"
    assert path.read_text() == "ours"
    assert [each.name for each in tmp_path.iterdir()] == ["result.txt"]


def test_shards_are_arrays_and_facts_in_their_order(tmp_path: Path) -> None:
    shards = Shards(tmp_path / "job", {"k": 5})
    assert list(shards.finished()) == []
    for number in range(3):
        shards.append(Shard({"a": np.full((2, number + 1), number, np.float32)}, {"number": number}))
    found = list(Shards(tmp_path / "job", {"k": 5}).finished())
    assert [shard.facts for shard in found] == [{"number": number} for number in range(3)]
    assert [shard.arrays["a"].shape for shard in found] == [(2, 1), (2, 2), (2, 3)]
    assert list(Shards(tmp_path / "job", {"k": 6}).finished()) == []
    assert not contents(tmp_path / "job")
    assert shard_files.KIND.format == 1


def test_a_kill_while_a_shard_is_written_leaves_those_before_it(tmp_path: Path) -> None:
    code = """
import os, signal, sys
from pathlib import Path
import numpy as np
from diffalign.io import shard_files
shards = shard_files.Shards(Path(sys.argv[1]), {"k": 5})
list(shards.finished())
shards.append(shard_files.Shard({"a": np.ones(3)}, {"number": 0}))
write = shard_files.save_file
def killed(*arguments):
    write(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)
shard_files.save_file = killed
shards.append(shard_files.Shard({"a": np.ones(3)}, {"number": 1}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "job")],
        env={**os.environ, "PYTHONPATH": str(ROOT / "workflow_scripts")},
        check=False,
    )
    assert done.returncode == -9
    (folder,) = (tmp_path / "job").iterdir()
    assert len(list(folder.iterdir())) == 2, "the first shard, and what was being written"
    for _ in range(2):
        shards = Shards(tmp_path / "job", {"k": 5})
        assert [shard.facts for shard in shards.finished()] == [{"number": 0}]
    shards.append(Shard({"a": np.zeros(3)}, {"number": 1}))
    assert sorted(each.name for each in folder.iterdir()) == ["000000.safetensors", "000001.safetensors"]
