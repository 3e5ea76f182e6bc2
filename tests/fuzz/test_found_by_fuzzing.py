"""What fuzzers have found, as it was: each of these once was an error that named no file, or ended the process."""

from pathlib import Path
from typing import Any

import pytest
from fuzzing import damaged
from test_fuzz_files import read, valid
from test_fuzz_names import _check_target
from test_study import mistakes


@pytest.mark.parametrize(
    ("reader", "suffix", "changes"),
    [
        ("dimensions", ".npy", [("number", 0.875, 1, 3)]),
        ("concepts", ".tsv", [("repeat", 0.0, 9, 0), ("repeat", 0.0, 23, 0)]),
        ("latents", ".safetensors", [("number", 0.9571675736317596, 2, 107)]),
        ("part of features", ".safetensors", [("flip", 0.0, 1, 0)]),
        ("neighbours", ".npz", [("number", 0.875, 1, 0)]),
        ("manifest", ".tsv", [("drop", 0.0, 1, 0), ("insert", 0.08, 1, 34)]),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_damaged_files_are_named(reader: str, suffix: str, changes: list[Any], tmp_path: Path) -> None:
    content = damaged(valid(reader, suffix), changes)
    assert content != valid(reader, suffix)
    read(reader, suffix, content, tmp_path)


def test_a_damaged_matlab_file_does_not_end_the_process(tmp_path: Path) -> None:
    whole = valid("similarities", ".mat")
    for at in range(128, len(whole), 8):
        folder = tmp_path / str(at)
        folder.mkdir()
        if at % 40 == 0:
            read("similarities", ".mat", whole[:at] + b"\xff" * 4 + whole[at + 4 :], folder)


def test_a_target_that_looks_like_a_reference_of_an_expression_is_answered() -> None:
    _check_target(r"results/\2")


def test_entries_of_other_types_are_mistakes() -> None:
    assert "models.dinov2.miniature" in mistakes({"models": {"dinov2": {"miniature": True}}})
    vits = {"family": "timm_vision", "weights": {"from": "hub", "hub": "timm/vit_small_patch16_224.augreg_in21k"}}
    assert "models.vits.layers" in mistakes({"models": {"vits": {**vits, "layers": {"embed": "norm_pre", 252: None}}}})


def test_an_autoencoder_of_an_unknown_family_is_one_mistake() -> None:
    broken = {
        "models": {"sdvae": {"family": "diffusers_va"}},
        "samples": {"models": ["sit"], "table": "q.tsv"},
        "dynamics": {"configurations": {"one": {"models": ["sit"]}}},
    }
    [said] = mistakes(broken).splitlines()
    assert said.startswith("models.sdvae.family: unknown family 'diffusers_va'; did you mean 'diffusers_vae'?")
