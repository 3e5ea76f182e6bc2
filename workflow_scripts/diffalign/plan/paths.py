"""Where every file of a study lies: each pattern of a path stands here, once.

Patterns hold Snakemake's wildcards: dataset, condition, model, bundle (a model with its variant), a and b (the sides
of a pair), c and d (of the pair that a contrast subtracts), family (of contrasts), metric, configuration and seed (of
trajectories), space (of tokens), scores (a file of platonic-rep). `fill` puts words in their place.
"""

from __future__ import annotations

import re

WEIGHTS = "resources/weights/{model}"
CHECKPOINT = f"{WEIGHTS}/checkpoint"
CHECKPOINT_RECORD = f"{WEIGHTS}/weights.json"
GIVEN_STATISTICS = f"{WEIGHTS}/latents_stats.pt"
DOWNLOADS = "resources/downloads"
UNTRAINED_CHECKPOINT = "resources/weights/{model}-untrained/checkpoint"
UNTRAINED_RECORD = "resources/weights/{model}-untrained/weights.json"
TRAINING = "results/training/{model}"
TRAINED_CHECKPOINT = f"{TRAINING}/{{step}}/checkpoint"
TRAINED_RECORD = f"{TRAINING}/{{step}}/weights.json"
TRAINING_RECIPE = f"{TRAINING}/recipe.json"
LOSSES_OF_TRAINING = f"{TRAINING}/losses"
TRAINING_STATE = "results/checkpoints/training/{model}"
DOWNLOADED_TABLE = "resources/datasets/{dataset}/table"
DOWNLOADED_TABLE_RECORD = "resources/datasets/{dataset}/table.json"
UNPACKED = "resources/datasets/{dataset}/archive"
UNPACKED_RECORD = "resources/datasets/{dataset}/archive.json"
DOWNLOADED_FEATURES = "resources/features/{model}/{file}"
DOWNLOADED_FEATURES_RECORD = "resources/features/{model}/{file}.json"

RECIPE = "results/recipes/{bundle}.json"
FEATURE_SOURCES = "results/recipes/sources/{dataset}/{condition}/{model}.json"
ALIGNMENT_SETTINGS = "results/recipes/settings/alignment.json"
CALIBRATION_SETTINGS = "results/recipes/settings/calibration.json"
METRICS_SETTINGS = "results/recipes/settings/metrics.json"

IMAGES = "results/images/{dataset}/{condition}"
PICTURES = f"{IMAGES}/png"
MANIFEST = f"{IMAGES}/manifest.tsv"
DATASET_RECORD = f"{IMAGES}/dataset.json"
TEXTS = "results/texts/{dataset}/{conditioning}.json"

LATENTS = "results/latents/{dataset}/{condition}/{model}"
LATENT_STATISTICS = f"{LATENTS}/latents_stats.pt"
LATENTS_RECORD = f"{LATENTS}/latents.json"
PROMPTS = "results/prompts/{dataset}/{model}-{conditioning}.safetensors"
UNTRAINED_PROMPTS = "results/prompts/{dataset}/{model}-{conditioning}-untrained.safetensors"
GIVEN_PROMPTS = "results/prompts/{dataset}/{model}-{word}.safetensors"

FEATURES = "results/features/{dataset}/{condition}/{bundle}"
# beside the folder of feature files, one a layer: a rule that lists each of them makes every plan slow
FEATURE_MANIFEST = f"{FEATURES}.json"
FEATURE_PART = "results/feature_parts/{dataset}/{condition}/{bundle}/{part}-of-{parts}.safetensors"
# finished shards of an extraction that was killed
FEATURE_SHARDS = "results/checkpoints/features/{dataset}/{condition}/{bundle}"
TOKENS = "results/unpooled/{dataset}/{condition}/{bundle}"
NEIGHBORS = "results/neighbors/{dataset}/{condition}/{bundle}.npz"
NEIGHBOR_PART = "results/neighbors/{dataset}/{condition}/{bundle}/{part}-of-{parts}.npz"
FACTORS = "results/factors/{dataset}/{condition}/{bundle}.npz"
LOSSES = "results/language/{dataset}/{condition}/{means}.json"
LOSS_TABLE = "results/language/{dataset}/{condition}/{means}.tsv"

SAMPLES_RECIPE = "results/recipes/samples/{model}.json"
SAMPLES = "results/samples/{dataset}/{model}"
SAMPLE_QUALITY = "results/sample_quality/{dataset}/{model}"

DYNAMICS_RECIPE = "results/recipes/dynamics/{model}/{configuration}.json"
DYNAMICS = "results/dynamics/{model}/{configuration}"
TRAJECTORIES = f"{DYNAMICS}/trajectories/{{seed}}"

PART_MASKS = "results/parts/{dataset}"
DIDACTIC = "results/shared_space/didactic"
SPACE = "results/shared_space/spaces/{space}"
ALIGNED_PAIR = "results/shared_space/pairs/{dataset}/{condition}/{a}_vs_{b}"

SCORE = "results/{metric}/{dataset}/{condition}/{a}_vs_{b}.npy"
SCORE_RECIPE = "results/{metric}/{dataset}/{condition}/{a}_vs_{b}.json"
DEFAULT_SCORE = "results/{metric}/{a}_vs_{b}.npy"
DEFAULT_SCORE_RECIPE = "results/{metric}/{a}_vs_{b}.json"
# of a pair, for all metrics: their layer x layer matrices, and the calibrations of these
MATRICES = "results/alignment/{dataset}/{condition}/{a}_vs_{b}.npz"
CALIBRATIONS = "results/calibration/{dataset}/{condition}/{a}_vs_{b}.npz"
# the matrix of one metric, on request
MATRIX = "results/{metric}/{dataset}/{condition}/layers/{a}_vs_{b}.npy"
MATRIX_RECIPE = "results/{metric}/{dataset}/{condition}/layers/{a}_vs_{b}.json"
PER_IMAGE = "results/per_image/{dataset}/{condition}/{a}_vs_{b}.parquet"
PER_IMAGE_RECIPE = "results/per_image/{dataset}/{condition}/{a}_vs_{b}.json"
CONTRASTS = "results/contrasts/{dataset}/{condition}"
CONTRAST = f"{CONTRASTS}/{{a}}_vs_{{b}}_minus_{{c}}_vs_{{d}}"
LAYER_CONTRAST = f"{CONTRASTS}/layers/{{a}}_vs_{{b}}_minus_{{c}}_vs_{{d}}"
CONTRAST_FAMILY = f"{CONTRASTS}/families/{{family}}"
SE_SCORE = "results/se_cknna/{dataset}/{a}_vs_{b}.npy"
SE_RECIPE = "results/se_cknna/{dataset}/{a}_vs_{b}.json"
DEFAULT_SE_SCORE = "results/se_cknna/{a}_vs_{b}.npy"
DEFAULT_SE_RECIPE = "results/se_cknna/{a}_vs_{b}.json"

CHOICES = "results/human_choices/{dataset}/{triplets}.npz"
# an analysis of one bundle beside people: odd_one_out, regression, probe, reduction, human_rsa
ANALYSIS = "results/{analysis}/{dataset}/{condition}/{bundle}"
# the same of a combination: odd_one_out, regression, probe
COMBINED = "results/{analysis}/{dataset}/{condition}/combined/{combined}"
PROBE_CHECKPOINTS = "results/checkpoints/probe/{dataset}/{condition}/{bundle}"
COMBINED_CHECKPOINTS = "results/checkpoints/probe/{dataset}/{condition}/combined/{combined}"

PROVENANCE = "results/provenance.parquet"
FINDINGS = "results/findings.txt"
LOSSES_FIGURE = "results/figures/training/{loss}"
TABLE = "results/tables/{table}"
PAIR_TABLE = "results/tables/{table}/{dataset}/{condition}/{a}_vs_{b}"
RANK_STABILITY = "results/tables/rank_stability/{dataset}/{condition}/{a}"
PAIR_FIGURE = "results/figures/{dataset}/{condition}/{figure}/{a}_vs_{b}"
METRIC_FIGURE = "results/figures/{dataset}/{condition}/{figure}/{metric}"
HUMAN_FIGURE = "results/figures/{dataset}/{condition}/human/{analysis}"
NOISE_FIGURE = "results/figures/{dataset}/{condition}/noise_levels/{model}"
SAMPLE_SHEET = "results/figures/{dataset}/{condition}/samples/{model}"
ATLAS = "results/atlas/{dataset}/{condition}/{a}"
ATLAS_FIGURE = "results/figures/{dataset}/{condition}/atlas/{metric}/{a}"
DYNAMICS_FIGURE = "results/figures/dynamics/{model}/{configuration}/{figure}"
EMERGENCE_FIGURE = "results/figures/dynamics/emergence"
DIDACTIC_FIGURE = "results/figures/shared_space/didactic/{figure}"
SPACE_FIGURE = "results/figures/shared_space/spaces/{space}"
ALIGNED_PAIR_FIGURE = "results/figures/shared_space/pairs/{dataset}/{condition}/{a}_vs_{b}"
RANK_STABILITY_FIGURE = "results/figures/{dataset}/{condition}/rank_stability/{a}"
DISAGREEMENTS_FIGURE = "results/figures/{dataset}/{condition}/disagreements/{a}"
CONTRAST_FIGURE = "results/figures/{dataset}/{condition}/contrasts/families/{family}"
LAYER_CONTRAST_FIGURE = "results/figures/{dataset}/{condition}/contrasts/layers/{a}_vs_{b}_minus_{c}_vs_{d}"
SE_FIGURE = "results/figures/{dataset}/se_cknna"
SE_PAIR_FIGURE = "results/figures/{dataset}/se_cknna/{a}_vs_{b}"

EXPORT = "results/export/{layout}/{dataset}/{condition}/{a}"
EXPORT_PEOPLE = "results/export/diffusion-alignment/{dataset}/{condition}/{a}"
EXPORT_PAIR = "results/export/platonic/{dataset}/{condition}/{a}_vs_{b}/{scores}"
EXPORT_SET = "results/export/platonic/{dataset}/{condition}/{scores}"
EXPORT_IMAGES = "results/export/transformed_images/{dataset}"


def fill(pattern: str, **words: object) -> str:
    """Put words in the place of wildcards; other wildcards stay."""
    return re.sub(r"\{(\w+)\}", lambda match: str(words.get(match[1], match[0])), pattern)


def temporary() -> str:
    """Regular expression of the files and folders that are removed once they have been read, below any prefix."""
    escaped = (re.sub(r"\\{\w+\\}", ".+", re.escape(path)) for path in (FEATURE_PART, NEIGHBOR_PART, TOKENS))
    return f"(?:.+/)?(?:{'|'.join(escaped)})"


def shards(folder: str, count: int) -> list[str]:
    """The files that hold the latents of a folder, in the layout of LightningDiT."""
    return [f"{folder}/latents_rank00_shard{number:03d}.safetensors" for number in range(count)]


def log(rule: str, *wildcards: str) -> str:
    """The log of a rule with these wildcards."""
    return "/".join(["logs", rule, *(f"{{{wildcard}}}" for wildcard in wildcards)]) + ".log"
