"""Entries of models: the catalogue's and the user's."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from diffalign import names
from diffalign.config.fields import (
    Address,
    Count,
    Distinct,
    FilePath,
    FromExponent,
    FromList,
    Listed,
    Matching,
    NonEmpty,
    Number,
    Positive,
    Section,
    Seed,
    Sha256,
    Text,
)
from diffalign.config.step_files import step_files
from diffalign.config.training import TrainingEntry
from diffalign.randomness import PUBLISHED_SEED
from diffalign.specs import FeatureFiles, ImageInput, LatentFiles, Model, Weights

PerChannel = Annotated[tuple[Number, ...], Field(min_length=3, max_length=3), FromList]
PositivePerChannel = Annotated[tuple[Positive, ...], Field(min_length=3, max_length=3), FromList]
EmbeddingWord = Annotated[str, Matching("[a-z][a-z0-9]*", "is no word of a name: only a-z and 0-9")]


class WeightsEntry(Section):
    """The checkpoint of a model."""

    source: Literal["hub", "folder", "file", "url", "package", "training", "latents", "miniature", "none"] = Field(
        alias="from",
        description=(
            "hub: a Hugging Face repository, downloaded once. folder: a local folder in the same layout. file: one "
            "local checkpoint (.pt, .pth, .ckpt, .safetensors), as training scripts write it. url: one such file, "
            "downloaded once into resources/downloads. package: a folder that "
            "an installed Python package carries. training: trained here, as the key training of the model says. "
            "latents: of family gaussian, the mean and the power spectrum of the latents of a data set, measured here. "
            "miniature: a narrow model of the same architecture and depth with random weights, for trying things out. "
            "none: of families in which nothing is learned."
        ),
    )
    hub: str | None = Field(None, description="Repository id.")
    revision: str | None = Field(
        None,
        description="Commit of the repository. null takes the newest and records which in weights.json.",
    )
    files: Listed[str] = Field(
        (),
        description=(
            "Patterns of the files to take from the repository; empty takes all. Of *.safetensors|*.bin the first that "
            "some file matches."
        ),
    )
    folder: str | None = Field(
        None, description="Path of a local copy; of a package, a folder in it, null for the package's own."
    )
    package: str | None = Field(None, description="A package, by the name that Python imports.")
    path: str | None = Field(None, description="Path of a local checkpoint's file.")
    steps: Literal["all"] | Annotated[Listed[Seed], Distinct()] = Field(
        (),
        description=(
            "Checkpoints of a training of your own, where the last part of folder or path holds {step}, as in "
            "runs/sit/{step}.pt; zeros may stand before the number. A list of steps, or all that lie there when "
            "Snakemake is called: what a training has added since is taken up by the next call. sit@50000 names one, "
            "the bare name the last."
        ),
    )

    dataset: Text | None = Field(None, description="Key of datasets, for weights from latents. null: defaults.dataset.")
    url: Address | None = Field(None, description="The address of one checkpoint.")
    sha256: Sha256 | None = Field(
        None,
        description=(
            "Of the download, which is refused where it differs. null records that of the first download, beside the "
            "file, and refuses another one later."
        ),
    )
    statistics: Text | None = Field(
        None,
        description=(
            "The file with the mean and std of latents that a diffusion model was trained on (latents_stats.pt of "
            "LightningDiT and VFM-VAE, normalization_stats.pt of RAE): from hub and folder one of their files, from "
            "file the path of another local one. It normalises the latents that the model reads, in the place of what "
            "latent_statistics of the autoencoder says. Of an autoencoder, what latent_statistics: fixed means."
        ),
    )

    @property
    def stepped(self) -> str:
        """The path that may hold ``{step}``."""
        return str((self.folder if self.source == "folder" else self.path) or "")

    def record(self) -> Weights:
        """What jobs receive. Raises StepError where checkpoints of a user's own are not there."""
        steps = step_files(self.stepped, self.steps) if self.steps else {}
        return Weights(**{key: value for key, value in self if key != "steps"}, steps=steps)


class InputEntry(Section):
    """How an image becomes the input of a model."""

    size: Annotated[int, Field(ge=8)] = Field(description="Side in pixels of the model's input.")
    miniature: Annotated[int, Field(ge=8)] | None = Field(
        None, description="The same where weights are a miniature; null keeps size."
    )
    interpolation: Literal["nearest", "bilinear", "bicubic"] = Field(
        "bicubic",
        description=(
            "How an image is resized; one that has the size already is left alone. nearest is what the pipelines of "
            "diffusers do to a tensor; it averages over nothing, and needs antialias: false."
        ),
    )
    antialias: bool = Field(True, description="Whether resizing to fewer pixels averages over them.")
    mean: PerChannel = Field((0.0, 0.0, 0.0), description="Subtracted from pixels in [0, 1], one number a channel.")
    std: PositivePerChannel = Field((1.0, 1.0, 1.0), description="Divides the difference.")
    crop: Annotated[float, Field(gt=0, le=1), FromExponent] = Field(
        1.0,
        description=(
            "Share of the side that is kept: images are resized to size / crop pixels, rounded down, and their centre "
            "of size pixels is the input, as crop_pct of timm (0.9 for many of its models). 1 keeps all."
        ),
    )
    scaled: Literal["same", "bilinear", "bilinear_aliased"] = Field(
        "same",
        description=(
            "Resampling under conditions that scale inputs (equivariance, scale_*). same: interpolation and antialias "
            "as under any other. bilinear: antialiased, as published for SigLIP2 and VFM-VAE. bilinear_aliased: "
            "without antialiasing, as published for DINOv2 and SD-VAE."
        ),
    )


class LatentFilesEntry(Section):
    """Latents that were made elsewhere."""

    path: Text = Field(
        description=(
            "The folder; relative to the working directory, or absolute. {dataset} and {condition} are filled in. "
            "Checked when the job runs."
        )
    )
    layout: Literal["lightningdit", "repa"] = Field(
        description=(
            "lightningdit: *.safetensors and latents_stats.pt, as LightningDiT and VFM-VAE write them. repa: the "
            "folder vae-sd of REPA, 00000/img-mean-std-00000000.npy."
        )
    )
    names: Text | None = Field(
        None,
        description=(
            "A text file with one name a line, for latents without names: in the order of the rows, or of the indices "
            "that REPA names its files by. null takes the names in the files; of REPA, its own names of images, "
            "img00000000."
        ),
    )


class FeatureFilesEntry(Section):
    """Features that were made elsewhere; one of path and url."""

    path: Text | None = Field(
        None,
        description=(
            "A feature file, or a folder of thingsvision; relative to the working directory, or absolute. {dataset}, "
            "{condition} and {layer} (the module path of a layer) are filled in. Without {layer}, one file holds all "
            "layers, and their module paths are indices of a stack or keys of an .npz or .safetensors file. Checked "
            "when the job runs."
        ),
    )
    layout: Literal["auto", "diffalign", "vfmvae", "platonic", "thingsvision", "array", "diffusion-alignment"] = Field(
        "auto",
        description=(
            "auto reads it from the suffix and the keys of the file; any other word is held to. The pickles of "
            "diffusion-alignment are read only where this word says so."
        ),
    )
    names: Text | None = Field(
        None,
        description=(
            "For files without names, a text file with one name a line, or things_concepts.tsv, in the order of the "
            "rows; {dataset}, {condition} and {layer} are filled in. null takes the names in the file, or x.txt, "
            "names.txt or file_names.txt beside x.npy. rows names rows by number, so that they meet only rows named "
            "likewise."
        ),
    )
    url: Address | None = Field(
        None,
        description=(
            "The address of a file with all layers, or with {dataset}, {condition} and {layer} of one for each, as in "
            "path; downloaded into resources/features/{model} by local jobs."
        ),
    )
    sha256: Sha256 | None = Field(
        None, description="Of the download, which is refused where it differs. null records that of the file."
    )
    bits_per_byte: bool = Field(
        False,
        description=(
            "Whether a file of platonic-rep is of a language model, and holds its loss, bits per byte and number of "
            "parameters: alignment is drawn against them."
        ),
    )


class ModelEntry(Section):
    """Everything about a model."""

    like: str | None = Field(
        None,
        description=(
            "Another model whose entry this one inherits: mappings are merged by key, but layers given here stand in "
            "place of the inherited ones."
        ),
    )
    family: str = Field(description="The module of diffalign.models that loads this model; docs/add-a-model.md.")
    weights: WeightsEntry | None = Field(
        None, description="The checkpoint; of every family but precomputed, which has none."
    )
    miniature: dict[str, Any] = Field(
        {}, description="Widths of the miniature, in the words of the family; its depth is the model's own."
    )
    architecture: dict[str, Any] = Field(
        {},
        description=(
            "Depth, widths, patch and input size of a model whose checkpoint holds nothing but weights, in the words "
            "of its family, which checks them when the checkpoint is loaded. A miniature overrides some of them."
        ),
    )
    input: InputEntry | None = Field(
        None,
        description="How an image becomes the model's input; pixels in [0, 1] are resized, then (x - mean) / std.",
    )
    layers: Annotated[dict[str, str], Field(min_length=1)] = Field(
        description="Alias -> module path, in order of depth. b{0..11} with blocks.{} stands for twelve entries."
    )
    take: NonEmpty[str | int] | None = Field(
        None,
        description=(
            "Layers to extract: aliases, module paths or numbers of blocks (negative from the end); null takes all. "
            "The forward pass stops after the deepest: take: [embed, 3, blocks.8] never runs block 9."
        ),
    )
    default_layer: str | int = Field(
        description=(
            "What the bare model name means; an alias, a module path or a block's number (negative from the end)."
        )
    )
    batch_size: Count | None = Field(None, description="Images a forward pass; null takes compute.batch_size.")
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32",
        description=(
            "What the model computes in. Below float32, matrix products, convolutions and attention run in it; norms, "
            "softmax and the mean over tokens stay float32, and so do text encoders. A language model is held in it as "
            "a whole; the mean over tokens and its losses stay float32. It changes features."
        ),
    )
    series: Text | None = Field(
        None,
        description=(
            "Models that were made alike, in several sizes (bloomz, llama). Figures over models mark it, and intervals "
            "are over series, not over models; null makes a model a series of its own. No feature depends on it."
        ),
    )
    posterior: Literal["mode", "sample"] = Field(
        "mode", description="For autoencoders, whether latents are the mode of the posterior or a sample of it."
    )
    latent_statistics: Literal["fixed", "measured"] = Field(
        "fixed",
        description=(
            "For autoencoders, the mean and std that normalise latents. fixed: those of the model's configuration. "
            "measured: per channel, over the images of the data set."
        ),
    )
    latents_from: LatentFilesEntry | None = Field(
        None,
        description=(
            "For autoencoders, latents that were made elsewhere, in the place of encoding the images for the models "
            "that read them. Its own features are still made from images. docs/layouts.md"
        ),
    )
    latents: str | None = Field(
        None, description="The model whose latents a diffusion model reads, from results/latents, encoded once."
    )
    noise: str | None = Field(
        None,
        description=(
            "The default noise level of a diffusion model: t0.5, t = σ/(α + σ), 0 clean, 1 noise, or s20, a published "
            "strength; null for models without noise."
        ),
    )
    conditionings: Annotated[
        Listed[Literal["uncond", "label", "caption", "description", "caption2", "textlast"]], Distinct()
    ] = Field(
        (),
        description=(
            "Conditionings of a diffusion model, or texts that a language model may read; the first is the default. "
            "uncond: the empty prompt, or no class. label: the class of the image. caption, description, caption2: "
            "these texts of the data set. textlast: its text encoder may also be represented without an image, by its "
            "last token of one of the other texts. docs/conditioning.md"
        ),
    )
    embeddings: dict[EmbeddingWord, FilePath] = Field(
        {},
        description=(
            "Word of a name -> an .npz or .safetensors file of given prompt embeddings, one an image, with their "
            "names, or a .npy of a pickled dictionary by image, as published; {dataset} is filled in. Alone "
            "(sd1-optim) or, after a noise level, as the prompt (sd1-s20-optim)."
        ),
    )
    embeddings_alone: Literal["mean", "concatenated"] = Field(
        "mean",
        description=(
            "What a given embedding of several tokens is by itself (sd1-optim): their mean, or all of them "
            "concatenated, as published."
        ),
    )
    seeding: Literal["name", "common", "constant", "published"] = Field(
        "name",
        description=(
            "How noise and posterior samples are drawn. name: keyed by (seed, model, image name), so that two models "
            "see noise of their own. common: keyed by (seed, image name), the same for all models. constant: the same "
            "draw for every image, posterior first and noise second. published: the same with the seed 42, as the code "
            "of Linhardt et al. 2024; the autoencoder in latents must have it, too, with posterior: sample."
        ),
    )
    seed: Seed | None = Field(None, description="A seed of its own; null takes the study's.")
    path: Literal["linear", "cosine"] | None = Field(
        None,
        description=(
            "How families that were trained on either go from image to noise; linear may be left by '-cosine' in a "
            "name. linear: α = 1 - τ, σ = τ. cosine: α = cos(πτ/2), σ = sin(πτ/2). τ is the one whose σ/(α + σ) is the "
            "noise level asked for."
        ),
    )
    latent_multiplier: Positive = Field(1.0, description="Multiplies normalised latents before noise is added.")
    strength_steps: Count = Field(
        100,
        description=(
            "For pipelines of diffusers, the img2img steps that a strength such as s20 is of: it means the noise level "
            "that they begin with. The published features are of 100. Trajectories have steps of their own."
        ),
    )
    class_tokens: str | None = Field(
        None,
        description=(
            "The model whose default layer gives the class token of every image, for diffusion models that read one "
            "beside latents."
        ),
    )
    reads: Annotated[Listed[str], Distinct()] = Field(
        (),
        description=(
            "Models of the catalogue whose outputs this one is given as an input or holds as a part, beside the "
            "autoencoder of latents and the model of class_tokens, which count without being named here: [siglip2]. A "
            "score against one of them, or another size of it (dinov2.g of dinov2), says so."
        ),
    )
    trained_towards: Annotated[Listed[str], Distinct()] = Field(
        (),
        description=(
            "Models of the catalogue whose representations a loss of its training drew this one towards: [dinov2]. The "
            "teacher of a training here counts without being named. Scores say so, as for reads."
        ),
    )
    interpolate_positions: bool = Field(
        False,
        description=(
            "For diffusion models with a fixed table of positions, whether it is interpolated to latents of another "
            "side, as conditions that scale inputs give. Without it they refuse such latents."
        ),
    )
    tokens: Literal["patches", "class"] = Field(
        "patches",
        description="For transformers with a class token, whether patch tokens are averaged or it is taken alone.",
    )
    context: Annotated[int, Field(ge=2)] | None = Field(
        None,
        description=(
            "Tokens that a language model reads of a text, special ones included; null takes what its tokenizer and "
            "its positions allow. Longer texts are cut, and recipes count them."
        ),
    )
    exclude_bos: bool = Field(
        False,
        description=(
            "For language models, whether the beginning-of-sequence (or class) token, on which much attention falls, "
            "is left out of averages over tokens."
        ),
    )
    quantization: Literal["8bit", "4bit"] | None = Field(
        None,
        description=(
            "For language models, weights in 8 bits, or in 4 as QLoRA and platonic-rep have them; needs a GPU and the "
            "packages bitsandbytes and accelerate. It changes features."
        ),
    )
    device_map: Literal["auto", "balanced", "balanced_low_0", "sequential"] | None = Field(
        None,
        description=(
            "For language models too large for one GPU, how transformers spreads them over all of a job, and over the "
            "host, in place of compute.device, unless that is cpu; needs the package accelerate, an optional extra of "
            "this project."
        ),
    )
    parameters: Positive | None = Field(
        None,
        description=(
            "Number of parameters, as 65.2e+9: jobs that run the model ask for the memory of its weights beside that "
            "of features, of language models in their precision, of others in float32, in which they are loaded. "
            "null: not known, and nothing is added."
        ),
    )
    gigaflops: Positive | None = Field(
        None,
        description=(
            "10^9 operations of one forward pass over an image of its input (a product and a sum are two), for the "
            "table of costs and the time that its extraction asks for. null: not known."
        ),
    )
    memory_mb: Count | None = Field(
        None,
        description=(
            "Megabytes of memory of the host that its extraction asks for, on every attempt; null takes what the plan "
            "expects."
        ),
    )
    gpus: Count | None = Field(
        None, description="GPUs that its extraction asks for, over which device_map spreads it; null takes 1."
    )
    runtime: Count | None = Field(
        None,
        description=(
            "Minutes that its extraction asks for; null takes what gigaflops at hardware.gpu_tflops are, twice and "
            "half an hour, and where one of them is not known, and on CPUs, 720."
        ),
    )
    features: FeatureFilesEntry | None = Field(
        None, description="For family precomputed, the files of features that were made elsewhere; docs/layouts.md."
    )
    training: TrainingEntry | None = Field(
        None, description="For weights from training, how the model is trained; docs/training.md."
    )

    @classmethod
    def missing(cls, given: dict[str, Any]) -> tuple[str, ...]:
        """Weights, but of models whose features are files."""
        if given.get("weights") is not None or "features" in given or given.get("family") == "precomputed":
            return ()
        return () if "weights" in given else ("weights",)

    @property
    def sees_centre(self) -> bool:
        """Whether its input is the centre of an image, so that its tokens lie at other places than those of others."""
        return self.input is not None and self.input.crop < 1

    def record(self, name: str, seed: int) -> Model:
        """What jobs receive, of several checkpoints the last. seed: of the study.

        Raises UnknownName where layers cannot be resolved, and StepError where checkpoints of a user's own are not
        there.
        """
        every = names.expand_layers(self.layers)
        made = Model(
            name=name,
            family=self.family,
            weights=Weights("precomputed") if self.weights is None else self.weights.record(),
            layers=names.take_layers(self.take, every, name),
            default_layer=names.resolve_layer(self.default_layer, every, name),
            input=None
            if self.input is None
            else ImageInput(**{key: value for key, value in self.input if key != "miniature"}),
            noise=None if self.noise is None else names.canonical_noise(self.noise),
            seed=PUBLISHED_SEED if self.seeding == "published" else seed if self.seed is None else self.seed,
            latents_from=None if self.latents_from is None else LatentFiles(**dict(self.latents_from)),
            features=None if self.features is None else FeatureFiles(**dict(self.features)),
            # a miniature of a model with an architecture overrides its widths
            miniature={**self.architecture, **self.miniature} if self.miniature else {},
            training=None if self.training is None else self.training.record(),
            **{key: getattr(self, key) for key in _AS_GIVEN},
        )
        return made.at_step(made.steps[-1]) if made.steps else made


# keys that jobs receive as they are given
_AS_GIVEN = (
    *("latents", "conditionings", "embeddings", "embeddings_alone", "posterior", "latent_statistics", "seeding"),
    *("batch_size", "precision"),
    *("series", "architecture", "path", "latent_multiplier", "strength_steps", "class_tokens", "tokens"),
    *("interpolate_positions", "context", "exclude_bos", "quantization", "device_map", "reads", "trained_towards"),
    *("parameters", "gigaflops", "memory_mb", "gpus", "runtime"),
)
