"""Parts of a split and samples: which images a data set has."""

from pathlib import Path

import pytest
from PIL import Image

from diffalign.dataset_specs import Dataset, Split
from diffalign.stimuli import kinds
from diffalign.stimuli.kinds import Supplied
from diffalign.stimuli.selection import SelectionError, part, select

NAMES = [f"image{i:04d}" for i in range(2000)]


def held_out(names: list[str], share: float = 0.2, seed: int = 0) -> list[str]:
    return part(names, Split("held_out", share), seed, "here")


def test_the_parts_of_a_split_are_disjoint_and_have_all_images() -> None:
    out = held_out(NAMES)
    rest = part(NAMES, Split("train"), 0, "here")
    assert sorted([*out, *rest]) == NAMES
    assert not set(out) & set(rest)
    # four standard deviations of a binomial around the share
    assert abs(len(out) - 400) < 4 * (2000 * 0.2 * 0.8) ** 0.5
    assert set(held_out(NAMES, seed=1)) != set(out)
    assert set(out) < set(held_out(NAMES, 0.5))


def test_the_part_of_an_image_depends_on_no_other_image_and_no_order() -> None:
    out = set(held_out(NAMES))
    assert held_out(NAMES[::-1]) == sorted(out)[::-1]
    for few in (NAMES[:100], NAMES[1::3]):
        assert set(held_out(few)) == out & set(few)


def test_a_sample_is_drawn_of_the_part() -> None:
    split = Split("held_out")
    few = select(NAMES, split, 50, 0, "here")
    assert len(few) == 50
    assert few == sorted(few)
    assert set(few) < set(select(NAMES, split, 100, 0, "here")) < set(held_out(NAMES))
    # of all images it would be another one
    assert set(few) != set(select(NAMES, None, 50, 0, "here"))
    # a sample is drawn by another hash than a part, or its images would all be held out first
    assert not set(select(NAMES, None, 50, 0, "here")) < set(held_out(NAMES))


def test_what_is_not_there_is_said() -> None:
    with pytest.raises(SelectionError, match=r"here: part 'held_out' .* share of 0\.001 is empty; there are 3 images"):
        held_out(NAMES[:3], 0.001)
    with pytest.raises(SelectionError, match="here: sample of 2001 asked for, but there are 2000 images$"):
        select(NAMES, None, 2001, 0, "here")
    with pytest.raises(SelectionError, match="images in the part 'train' of the split"):
        select(NAMES, Split("train"), 2000, 0, "here")
    with pytest.raises(SelectionError, match="unknown part 'test' of a split; allowed: train, held_out"):
        select(NAMES, Split("test"), None, 0, "here")


def test_both_parts_of_a_data_set_agree_on_classes(tmp_path: Path) -> None:
    for i in range(60):
        path = tmp_path / f"n{i % 20:02d}" / f"image{i:02d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (16, 16)).save(path)

    def rows(part: str | None) -> dict[str, tuple[str, int]]:
        split = None if part is None else {"part": part, "held_out": 0.3}
        listed = kinds.rows(Dataset("synsets", 16, str(tmp_path), split=split), Supplied(4)).rows
        return {row.name: (row.label, row.label_index) for row in listed}

    train, out, whole = rows("train"), rows("held_out"), rows(None)
    assert {**train, **out} == whole
    assert not set(train) & set(out)
    # one of the parts lacks a class, and counts it all the same
    assert min(len(set(train.values())), len(set(out.values()))) < 20
    with pytest.raises(SelectionError, match=rf"{tmp_path}: sample of 61 asked for"):
        kinds.rows(Dataset("synsets", 16, str(tmp_path), sample=61), Supplied())


def test_the_names_of_photographs_are_those_of_its_crops() -> None:
    listing = kinds.rows(Dataset("photographs", 32, per_photograph=2, split={"part": "held_out"}), Supplied())
    rows = list(listing.rows)
    assert [row.name for row in rows] == list(listing.names)
    assert 0 < len(rows) < 40


def test_recipes_of_data_sets_without_a_split_are_as_they_were() -> None:
    assert set(Dataset("folder", 16, "x").recipe()) == {
        *("kind", "size", "path", "square", "sample", "labels", "per_photograph", "columns", "caption_index", "prompt"),
        "hub",
    }
    split = {"part": "train", "held_out": 0.2}
    assert Dataset("packaged", 16, collection="mnist", split=split).recipe()["split"] == split
