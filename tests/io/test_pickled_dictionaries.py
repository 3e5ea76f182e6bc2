"""Dictionaries of the published code of diffusion models: captions and embeddings by image, pickled into .npy files."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffalign.io.headers import StoreError
from diffalign.io.pickled_dictionaries import read_by_image, read_pickled
from diffalign.io.prompt_files import embedding_facts, read_embeddings, read_prompts, write_prompts
from diffalign.stimuli.captions import CaptionError, read_texts

CAPTIONS = {"aardvark.jpg": "an aardvark on a road", "bat1.jpg": np.str_("a bat hangs"), "dr._no.JPG": "a man"}


def saved(path: Path, value: Any) -> Path:
    np.save(path, value, allow_pickle=True)
    return path


def test_captions_are_read_by_the_names_of_images(tmp_path: Path) -> None:
    expected = {"aardvark": "an aardvark on a road", "bat1": "a bat hangs", "dr._no": "a man"}
    found = read_texts(saved(tmp_path / "caption_dict.npy", CAPTIONS))
    assert found == expected
    assert {type(text) for text in found.values()} == {str}
    # a bare pickle under this name is read by numpy.load, too
    (tmp_path / "captionsLavis.npy").write_bytes(pickle.dumps(CAPTIONS))
    assert read_texts(tmp_path / "captionsLavis.npy") == expected


@pytest.mark.parametrize("shape", [(1, 3, 4), (3, 4)])
def test_embeddings_are_read_by_the_names_of_images(shape: tuple[int, ...], tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    given = {f"{name}.jpg": draws.standard_normal(shape).astype(np.float32) for name in "abc"}
    path = saved(tmp_path / "optim_sd1.npy", given)
    found = read_embeddings(path, ["c", "a"])
    expected = torch.from_numpy(np.stack([given["c.jpg"].reshape(3, 4), given["a.jpg"].reshape(3, 4)]))
    assert torch.equal(found["prompt_embeds"], expected)
    assert torch.equal(found["text"], expected.mean(1))
    # the published features of an embedding alone are flat
    flat = read_embeddings(path, ["c", "a"], "concatenated")
    assert torch.equal(flat["text"], torch.from_numpy(np.stack([given[f"{name}.jpg"].flatten() for name in "ca"])))
    write_prompts(tmp_path / "p.safetensors", flat, [0, 1], ["c", "a"], embedding_facts(path, "concatenated"))
    assert torch.equal(read_prompts(tmp_path / "p.safetensors").text, flat["text"])
    assert embedding_facts(path, "concatenated")["alone"] == "concatenated"
    assert "alone" not in embedding_facts(path)
    with pytest.raises(ValueError, match="unknown way to take an embedding alone 'max'; allowed: mean, concatenated"):
        read_embeddings(path, ["a"], "max")


class Hostile:
    """An object whose unpickling runs a command."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("bare", [False, True])
def test_nothing_of_a_hostile_file_is_executed(bare: bool, tmp_path: Path) -> None:
    path, value = tmp_path / "caption_dict.npy", {"a.jpg": "a cat", "b.jpg": Hostile(tmp_path / "ran")}
    path.write_bytes(pickle.dumps(value)) if bare else saved(path, value)
    for read, refusal in ((read_texts, CaptionError), (read_by_image, StoreError)):
        with pytest.raises(
            refusal, match=r"caption_dict.npy: cannot be read: it holds posix.system, which is no array"
        ):
            read(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({0: "a cat"}, "expected a dictionary of names of images"),
        (["a cat"], "expected one object"),
        (np.zeros(3), r"holds float64 of shape \(3,\); expected one object"),
        ({"a.jpg": "a cat", "a.png": "a dog"}, "2 keys are the names of 1 images"),
        ({"a.jpg": ["a cat"]}, "expected a mapping of names to texts"),
    ],
)
def test_other_dictionaries_are_refused(value: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(CaptionError, match=message) as caught:
        read_texts(saved(tmp_path / "a.npy", value))
    assert str(tmp_path / "a.npy") in str(caught.value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"c.jpg": np.ones((2, 3))}, "no embedding for 1 images, first: a"),
        ({"a.jpg": np.ones((2, 3)), "b.jpg": np.ones((3, 3))}, "others for 1 names: b"),
        ({"a.jpg": np.ones((2, 2, 3))}, r"shape \(2, 2, 3\)"),
        ({"a.jpg": np.ones((2, 3)), "b.jpg": "a cat"}, "1 of 2 values are no arrays, first: b"),
        ({}, "0 of 0 values are no arrays"),
    ],
)
def test_other_embeddings_are_refused(value: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=message):
        read_embeddings(saved(tmp_path / "a.npy", value), ["a"])


def test_a_file_that_is_no_pickle_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(b"")
    with pytest.raises(StoreError, match="a.npy: cannot be read"):
        read_pickled(tmp_path / "a.npy")
