"""Data sets: images, their manifests and transforms, and texts of images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffalign.alignment.metrics import METRICS
from diffalign.conditions import CLEAN
from diffalign.dataset_specs import Dataset
from diffalign.plan import paths
from diffalign.plan.stage import Stage, Wildcards, any_or_none
from diffalign.provenance import files_digest, folder_digest
from diffalign.specs import without_defaults
from diffalign.stimuli import kinds
from diffalign.stimuli.folders import flat_folder, synset_folders
from diffalign.stimuli.kinds import faces, packaged, photographs, table
from diffalign.stimuli.squares import SUFFIXES, ImageError

if TYPE_CHECKING:
    from diffalign.plan import Plan


def _of_folder(dataset: Dataset, enough: int) -> int:
    return len(flat_folder(Path(str(dataset.path))))


def _of_transformed(dataset: Dataset, enough: int) -> int:
    return len(flat_folder(Path(str(dataset.path)) / CLEAN))


def _of_synsets(dataset: Dataset, enough: int) -> int:
    return len(synset_folders(Path(str(dataset.path))))


def _of_table(dataset: Dataset, enough: int) -> int:
    return table.count_rows(Path(str(dataset.path)), enough)


def _of_photographs(dataset: Dataset, enough: int) -> int:
    return len(photographs.PHOTOGRAPHS) * dataset.per_photograph


def _of_faces(dataset: Dataset, enough: int) -> int:
    return len(faces.FACES)


def _packaged(dataset: Dataset, enough: int) -> int:
    return packaged.COLLECTIONS[str(dataset.collection)].count


# how many images a data set of a kind has, where a plan can tell; it need not count beyond what is enough
_COUNTED: Mapping[str, Callable[[Dataset, int], int]] = {
    "folder": _of_folder,
    "synsets": _of_synsets,
    "transformed": _of_transformed,
    "table": _of_table,
    "photographs": _of_photographs,
    "faces": _of_faces,
    "packaged": _packaged,
}


class Stimuli(Stage):
    """Rules of rules/stimuli.smk, and the texts that prompts and language models read."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self._counts: dict[str, int | None] = {}

    @property
    def with_images(self) -> str:
        """Pattern of the data sets that have images."""
        return any_or_none(name for name in self.study.datasets if self.has_images(name))

    @property
    def with_concepts_alone(self) -> str:
        """Pattern of the data sets of kind things that have no images."""
        return any_or_none(name for name in self.study.things if not self.has_images(name))

    @property
    def with_texts_alone(self) -> str:
        """Pattern of the tables that have names and texts, and no images."""
        datasets = self.study.datasets.items()
        return any_or_none(name for name, each in datasets if each.kind == "table" and not self.has_images(name))

    def has_parts(self, dataset: str) -> bool:
        """Whether images of a data set have masks of their parts."""
        return kinds.has_part_masks(self.study.datasets[dataset])

    @property
    def with_parts(self) -> str:
        """Pattern of the data sets whose images have masks of their parts."""
        return any_or_none(name for name in self.study.datasets if self.has_parts(name))

    @property
    def on_hub(self) -> str:
        """Pattern of the tables that are downloaded."""
        return any_or_none(name for name, dataset in self.study.datasets.items() if dataset.hub)

    @property
    def transforms(self) -> str:
        """Pattern of the conditions that are made from clean images."""
        return any_or_none(condition for condition in self.study.conditions if condition != CLEAN)

    def dataset(self, wildcards: Wildcards) -> dict[str, Any]:
        """The data set of a target, as a parameter."""
        return without_defaults(self._located(wildcards.dataset).of_images())

    def dataset_with_parts(self, wildcards: Wildcards) -> dict[str, Any]:
        """The data set of a target and where masks of its parts lie, as a parameter."""
        return without_defaults(self._located(wildcards.dataset))

    def _located(self, name: str) -> Dataset:
        """A data set whose path is where images lie, of one with an archive below the unpacked folder."""
        dataset = self.study.datasets[name]
        if dataset.archive is None:
            return dataset
        return replace(dataset, path=f"{paths.fill(paths.UNPACKED, dataset=name)}/{dataset.path}")

    def part_files(self, wildcards: Wildcards) -> str | None:
        """Digest of the masks of a data set, a user's own or those that come with the kind, to notice a change."""
        parts = self.study.datasets[wildcards.dataset].parts
        return files_digest([faces.POLYGONS]) if parts is None else folder_digest(Path(parts))

    def sample_seed(self, wildcards: Wildcards) -> int:
        """The seed of a split and of a sample; 0 where all images are taken, so that another seed changes nothing."""
        dataset = self.study.datasets[wildcards.dataset]
        return self.study.seed if dataset.sample or dataset.split else 0

    def concepts(self, wildcards: Wildcards) -> dict[str, Any] | None:
        """The list of concepts of a data set of kind things; None for others."""
        things = self.study.things.get(wildcards.dataset)
        return None if things is None else asdict(things.concepts)

    def concept_file(self, wildcards: Wildcards) -> str:
        """Digest of the list of concepts, to notice a change."""
        return files_digest([Path(self.study.things[wildcards.dataset].concepts.path)])

    def hub(self, wildcards: Wildcards) -> Any:
        """Where a table is downloaded from."""
        return self.study.datasets[wildcards.dataset].hub

    @property
    def in_archives(self) -> str:
        """Pattern of the data sets whose images are unpacked."""
        return any_or_none(name for name, dataset in self.study.datasets.items() if dataset.archive)

    def archive(self, wildcards: Wildcards) -> Any:
        """The archive of a data set."""
        return self.study.datasets[wildcards.dataset].archive

    def archive_file(self, wildcards: Wildcards) -> str | None:
        """Digest of a local archive, to notice a change."""
        path = self.archive(wildcards)["path"]
        return None if path is None else files_digest([Path(path).expanduser()])

    def unpacked(self, wildcards: Wildcards) -> dict[str, str]:
        """The unpacked archive of a data set; nothing for others."""
        if not self.study.datasets[wildcards.dataset].archive:
            return {}
        return {
            "download": paths.fill(paths.UNPACKED, dataset=wildcards.dataset),
            "record": paths.fill(paths.UNPACKED_RECORD, dataset=wildcards.dataset),
        }

    def downloaded_table(self, wildcards: Wildcards) -> dict[str, str]:
        """The tables of a data set of the hub, or an unpacked archive; nothing for others."""
        if self.study.datasets[wildcards.dataset].archive:
            return self.unpacked(wildcards)
        if not self.study.datasets[wildcards.dataset].hub:
            return {}
        return {
            "download": paths.fill(paths.DOWNLOADED_TABLE, dataset=wildcards.dataset),
            "record": paths.fill(paths.DOWNLOADED_TABLE_RECORD, dataset=wildcards.dataset),
        }

    def own_files(self, wildcards: Wildcards) -> str | None:
        """Digest of a user's own files of a data set, to notice a change."""
        dataset = self.study.datasets[wildcards.dataset]
        path = dataset.path
        if path is None or dataset.archive:
            return None
        if Path(path).is_file():
            return files_digest([Path(path)])
        # other files in a folder of images change nothing
        return folder_digest(Path(path), SUFFIXES if kinds.KINDS[dataset.kind].images_alone else ())

    def check_neighbors(self, dataset: str) -> None:
        """Raise ValueError where a data set has too few images for k neighbours, a metric of the study counts them, and
        that is known before a job runs: by the sample, the kind, or the folder or table of a user's images.
        """
        k = self.study.alignment.k
        if not any(METRICS[metric].uses_k for metric in self.study.alignment.metrics):
            return
        if dataset not in self._counts:
            self._counts[dataset] = self._count(dataset, k + 1)
        count = self._counts[dataset]
        if count is not None and count <= k:
            raise ValueError(
                f"the data set '{dataset}' has {count} images, and {k} neighbours (alignment.k) need at least {k + 1}"
            )

    def _count(self, dataset: str, enough: int) -> int | None:
        """Images of a data set, where a dry run knows their number."""
        entry = self.study.datasets[dataset]
        count = _COUNTED.get(entry.kind)
        if entry.sample is not None or count is None or entry.archive or entry.hub or entry.split:
            return entry.sample
        try:
            return count(entry, enough)
        except (ImageError, table.TableError):
            # the job says what is wrong with the folder or the table
            return None

    def published_images(self, wildcards: Wildcards) -> str | None:
        """The folder of a data set whose transformed images exist already; None for others."""
        dataset = self._located(wildcards.dataset)
        return dataset.path if dataset.kind == "transformed" else None

    def published_files(self, wildcards: Wildcards) -> str | None:
        """Digest of these images, to notice a change."""
        folder = self.published_images(wildcards)
        archived = self.study.datasets[wildcards.dataset].archive
        return None if folder is None or archived else folder_digest(Path(folder))

    def manifest(self, wildcards: Wildcards) -> dict[str, str]:
        """The manifest of the images of a target; nothing for a data set without images."""
        if not self.has_images(wildcards.dataset):
            return {}
        return {"manifest": self.image_file(paths.MANIFEST, wildcards)}

    def labels(self, wildcards: Wildcards) -> dict[str, str]:
        """The manifest of the images or texts of a target; nothing for a data set without one."""
        if not self.has_manifest(wildcards.dataset):
            return {}
        return {"manifest": self.image_file(paths.MANIFEST, wildcards)}

    def groups(self, dataset: str, condition: str) -> dict[str, str]:
        """The manifest of a data set in which images share a group; nothing where each is one of its own."""
        if not kinds.has_groups(self.study.datasets[dataset]):
            return {}
        return {"manifest": paths.fill(paths.MANIFEST, dataset=dataset, condition=condition)}

    def pictures(self, wildcards: Wildcards) -> dict[str, str]:
        """The folder of PNG files of a target. Raises ValueError for a data set without images."""
        if not self.has_images(wildcards.dataset):
            raise ValueError(f"the data set '{wildcards.dataset}' has no images, so there is no gallery of them")
        return {"images": self.image_file(paths.PICTURES, wildcards)}

    def texts(self, wildcards: Wildcards) -> dict[str, Any]:
        """A user's own files of texts for the conditioning of a target, and of class names for labels."""
        texts = self.study.texts[wildcards.dataset]
        files = {word: path for word, path in texts.files.items() if word == wildcards.conditioning}
        return {"files": files, "class_names": texts.class_names if wildcards.conditioning == "label" else None}

    def text_files(self, wildcards: Wildcards) -> str:
        """Digest of these files, to notice a change."""
        texts = self.texts(wildcards)
        return files_digest(Path(path) for path in (*texts["files"].values(), texts["class_names"]) if path)
