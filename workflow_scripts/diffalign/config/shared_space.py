"""The section `shared_space`: layers of several models in one space, as pictures and as scores before and after."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from diffalign import names
from diffalign.config.fields import (
    Count,
    Distinct,
    Listed,
    NonEmpty,
    NonNegative,
    OneOf,
    Positive,
    Section,
    Seed,
    Text,
    Word,
)
from diffalign.config.pairs import pair_mistakes
from diffalign.config.through_training import unparsed
from diffalign.names import Vocabulary
from diffalign.specs import ALIGNMENTS, LANDMARKS, RESAMPLING, TARGETS

if TYPE_CHECKING:
    from diffalign.config.models import ModelEntry
    from diffalign.models import Family

Share = Annotated[float, Field(gt=0, lt=1)]
Several = Annotated[int, Field(ge=2)]
# with fewer, no p-value is below .05
Draws = Annotated[int, Field(ge=19)]
Choice = Annotated[str, OneOf(LANDMARKS)]


class EncodersEntry(Section):
    """How the half-shared MLP is trained: two encoders and one last layer, learned with the first set and then kept."""

    steps: Count = Field(500, description="Steps of the optimiser, for each of the two sets.")
    batch_size: Several = Field(512, description="Images a step, or all where there are fewer.")
    learning_rate: Positive = Field(1e-3, description="Of Adam.")
    width: Count = Field(32, description="Numbers of each hidden layer, and of the shared space.")
    layers: Count = Field(3, description="Hidden layers of an encoder.")
    weight: NonNegative = Field(1.0, description="Weight of the term that keeps the affinity of the inputs.")
    norm: Literal["mean_square", "frobenius"] = Field(
        "mean_square",
        description="Of the difference of affinities: their mean square, or the Frobenius norm of the published code.",
    )
    target: Annotated[str, OneOf(TARGETS)] = Field(
        "index",
        description=(
            "What both predict: the number of the image (index), the same in an order drawn at random, its label, or a "
            "class drawn at random."
        ),
    )
    random_classes: Several = Field(10, description="Classes of the target random.")
    loss: Literal["cross_entropy", "squared"] = Field("cross_entropy", description="Loss of the prediction.")


class HalfSharedEntry(EncodersEntry):
    """The half-shared MLP of pairs, and the seeds of its trainings."""

    seeds: Annotated[NonEmpty[Seed], Distinct()] = Field((0, 1, 2), description="Seeds of trainings, a file each.")


class DidacticEntry(Section):
    """The toy study of sets whose relation is known; docs/shared-space.md."""

    seeds: Several = Field(10, description="Seeds of everything that is drawn; intervals are over them.")
    affinity: Share = Field(0.3, description="Mean affinity that auto-scaling aims at: three clusters of equal size.")
    landmarks: Several = Field(5, description="Landmarks of the case that has few.")
    half_shared: EncodersEntry = Field(
        EncodersEntry(), description="Training of the half-shared MLP, but for its target: all five are trained."
    )


class SpaceEntry(Section):
    """Tokens of several layers of one or more models on the same images, and the pictures of their normalized cut."""

    layers: Annotated[NonEmpty[Text], Distinct(), Field(min_length=2)] = Field(
        description="Names with a layer, in the order of the columns of the picture: sam_b3, sam_b7, dinov3_b3."
    )
    dataset: Text | None = Field(
        None, description="Key of datasets, under the default condition. null: defaults.dataset."
    )
    images: Count | Annotated[NonEmpty[Text], Distinct()] | None = Field(
        None, description="Names of the images, or how many are taken, by a hash of their names; null takes all."
    )
    grid: Count | None = Field(
        None, description="Cells a side of the common grid of tokens. null: that of the layer with the fewest."
    )
    resample: Annotated[str, OneOf(RESAMPLING)] | None = Field(
        None, description="How tokens of another grid come onto the common one; null refuses layers of several grids."
    )
    landmarks: Several = Field(200, description="Tokens that every other token is described by.")
    eigenvectors: Several = Field(10, description="Eigenvectors of the normalized cut.")


class AlignedPairs(Section):
    """Pairs of layers that every method brings into one space, scored before and after on held-out images."""

    of: Annotated[Listed[Text], Distinct()] = Field(
        (), description="Pairs: digits.vit_final_vs_digits.sit@600_b5; the default layer where a name has none."
    )
    dataset: Text | None = Field(
        None, description="Key of datasets, under the default condition. null: defaults.dataset."
    )
    methods: Annotated[NonEmpty[Annotated[str, OneOf(ALIGNMENTS)]], Distinct()] = Field(
        ALIGNMENTS,
        description=(
            "padded is the baseline without an alignment; procrustes, cca and ridge are linear; relative is the cosine "
            "to anchors; rbf and half_shared are those of docs/shared-space.md."
        ),
    )
    held_out: Share = Field(
        0.5, description="Share of images, by a hash of their names or groups, that no method is fitted to."
    )
    landmarks: Several = Field(200, description="Images that rbf and relative describe all others by.")
    components: Annotated[NonEmpty[Count], Distinct()] = Field(
        (4, 8, 16, 32, 64), description="Canonical variates of cca, of which folds of the fitted images choose."
    )
    penalties: Annotated[NonEmpty[Positive], Distinct()] = Field(
        (1e-4, 1e-2, 1.0),
        description=(
            "Penalties of ridge, cca and predictions, multiples of the mean eigenvalue, of which the same folds choose."
        ),
    )
    half_shared: HalfSharedEntry = Field(HalfSharedEntry(), description="Training of the half-shared MLP.")
    permutations: Draws = Field(500, description="Permutations of nulls.")
    bootstrap: Annotated[int, Field(ge=100)] = Field(1000, description="Resamples of images of intervals.")


class SharedSpaceSection(Section):
    """One space for several models: RBF auto-scaling, half-shared MLP, normalized cuts; docs/shared-space.md."""

    affinity: Share = Field(0.05, description="Mean affinity c of every set that auto-scaling aims at.")
    choice: Choice = Field("farthest", description="How landmarks are chosen.")
    permutations: Draws = Field(200, description="Shifts of masks and edge maps of the nulls of spaces.")
    didactic: DidacticEntry | None = Field(None, description="The toy study; null: none.")
    spaces: dict[Word, SpaceEntry] = Field({}, description="Spaces of tokens, by a name that stands in files.")
    pairs: AlignedPairs = Field(AlignedPairs(), description="Pairs of layers, by pooled features.")


def check(
    section: SharedSpaceSection,
    declared_datasets: Collection[str],
    entries: Mapping[str, ModelEntry],
    families: Mapping[str, Family],
    vocabularies: Mapping[str, Vocabulary],
    declared: Sequence[str],
) -> Iterator[str]:
    """Names that mean nothing, layers without tokens, and keys that contradict each other.

    declared: names of all models. vocabularies: of the models that were not refused; one that was is passed over.
    """
    datasets = {f"shared_space.spaces.{name}.dataset": entry.dataset for name, entry in section.spaces.items()}
    for place, dataset in {**datasets, "shared_space.pairs.dataset": section.pairs.dataset}.items():
        if dataset is not None and dataset not in declared_datasets:
            yield f"{place}: {names.unknown('dataset', dataset, declared_datasets)}"
    if "padded" not in section.pairs.methods:
        yield "shared_space.pairs.methods: 'padded' is missing, the baseline that all others are compared with"
    yield from pair_mistakes("shared_space.pairs.of", "pair", section.pairs.of, vocabularies, declared)
    for name, entry in section.spaces.items():
        for i, text in enumerate(entry.layers):
            yield from _layer_mistakes(
                f"shared_space.spaces.{name}.layers[{i}]", text, entries, families, vocabularies, declared
            )


def _layer_mistakes(
    place: str,
    text: str,
    entries: Mapping[str, ModelEntry],
    families: Mapping[str, Family],
    vocabularies: Mapping[str, Vocabulary],
    declared: Sequence[str],
) -> Iterator[str]:
    wrong = list(unparsed(place, text, vocabularies, declared))
    yield from wrong
    model = names.model_word(text)
    if wrong or model not in vocabularies:
        return
    representation = names.parse_representation(text, vocabularies)
    if representation.layer is None:
        yield f"{place}: '{text}' names no layer; write {text}_{{layer}}"
    if representation.text or families[entries[model].family].reads not in ("pixels", "latents"):
        yield f"{place}: '{text}' has no tokens of images; models that run here on images have"
    elif entries[model].sees_centre:
        yield f"{place}: the tokens of '{text}' are of the centre of images (input.crop), so they meet no others"
