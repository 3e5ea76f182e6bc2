"""Class labels of images, which condition class-conditional models."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from diffalign.io.manifest import Image
from diffalign.offenders import first_five
from diffalign.stimuli.class_numbers import LabelError

IMAGENET_CLASSES = 1000


def class_labels(images: Sequence[Image], conditioning: str, classes: int, own_classes: bool = False) -> list[int]:
    """The label of each image, in order: ``uncond`` is the null label, `classes`, and ``label`` that of the manifest.

    own_classes: whether the model's classes are those of a data set here; else 1,000 classes are ImageNet's. Raises
    LabelError for an image without a label or outside the classes; for one of ImageNet's classes whose index in the
    data set is not ImageNet's, as in a data set of some of its classes; and for words in place of ImageNet's classes,
    whose order is another. ValueError for another conditioning.
    """
    if conditioning == "uncond":
        return [classes] * len(images)
    if conditioning != "label":
        raise ValueError(f"unknown conditioning '{conditioning}' of a class-conditional model; allowed: uncond, label")
    bare = [image.name for image in images if image.label_index < 0]
    if bare:
        raise LabelError(f"{len(bare)} images have no label, first: {first_five(bare)}")
    beyond = [f"{image.name} ({image.label_index})" for image in images if image.label_index >= classes]
    if beyond:
        raise LabelError(f"{len(beyond)} images have labels outside 0 to {classes - 1}, first: {first_five(beyond)}")
    if classes == IMAGENET_CLASSES:
        if any(re.fullmatch(r"n\d{8}", image.label) for image in images):
            _check_imagenet(images)
        elif not own_classes:
            _check_numbers(images)
    return [image.label_index for image in images]


def check_same_classes(images: Sequence[Image], classes: Mapping[str, int] | None, model: str) -> None:
    """Raise LabelError for images whose label and its number are not among the classes that a model was trained on.

    classes: label -> number, of a model that was trained here; None for any other.
    """
    other = [
        f"{image.name} ({image.label}, {image.label_index})"
        for image in images
        if classes is not None and image.label_index >= 0 and classes.get(image.label) != image.label_index
    ]
    if other:
        raise LabelError(
            f"{len(other)} images are of other classes than {model} was trained on, or number them otherwise, first: "
            f"{first_five(other)}"
        )


def _check_imagenet(images: Sequence[Image]) -> None:
    from timm.data import ImageNetInfo

    index = {synset: i for i, synset in enumerate(ImageNetInfo("imagenet-1k").label_names())}
    other = [
        f"{image.name} ({image.label} is {index.get(image.label, 'none')}, not {image.label_index})"
        for image in images
        if index.get(image.label) != image.label_index
    ]
    if other:
        raise LabelError(
            f"{len(other)} images have other labels than ImageNet's classes, first: {first_five(other)}; "
            "label_index counts the class folders of the data set, which must be all 1000"
        )


def _says(image: Image) -> bool:
    return image.label.isdecimal() and int(image.label) == image.label_index


def _check_numbers(images: Sequence[Image]) -> None:
    words = [f"{image.name} ({image.label})" for image in images if not _says(image)]
    if words:
        raise LabelError(
            f"{len(words)} images have labels that say no class of ImageNet, first: {first_five(words)}; a model of "
            f"{IMAGENET_CLASSES} classes needs its synsets (n01440764) or their numbers, 0 to {IMAGENET_CLASSES - 1}"
        )
