"""What jobs cost before they run: hours by measured rates and counted operations, bytes by sizes that are known."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffalign import names
from diffalign.plan.features import width
from diffalign.plan.stage import Stage
from diffalign.specs import Model

# Core seconds, of docs/performance.md: 52 layers of 10,000 images and 1,093 features on the mean, two cores.
_IMAGES, _WIDTH, _LAYERS, _CORES = 10_000, 1_093, 52, 2
# of the lists of one layer, which grow with N² D; of the factors of one, with N D²
_LISTS = 100 * _CORES / _LAYERS / (_IMAGES**2 * _WIDTH)
_FACTORS = 142 * _CORES / _LAYERS / (_IMAGES * _WIDTH**2)
# 672 pairs of layers: of one score of eight, and of one null of 200 permutations of five, both in proportion to N
_SCORE = 141 * _CORES / (672 * 8 * _IMAGES)
_PERMUTATION = 120 * _CORES / (672 * 5 * 200 * _IMAGES)
_BYTES = 4
MEASURED = "rates of docs/performance.md"
COUNTED = "operations of the catalogue at hardware.{}"
UNKNOWN = "not known"


@dataclass(frozen=True)
class Job:
    """A job of a plan. wildcards: their words. hours: the longest that it may take, as it asks; None for no limit."""

    rule: str
    wildcards: Mapping[str, str]
    cores: int
    gpus: int
    hours: float | None


@dataclass(frozen=True)
class Cost:
    """What is known of one job. model: '' for none. None: not known. gigabytes: of its output that stays on disk.
    basis: what hours are reckoned by.
    """

    model: str
    core_hours: float | None
    gpu_hours: float | None
    gigabytes: float | None
    download_gigabytes: float
    basis: str


class Costs(Stage):
    """What a study costs; rules/cost.smk."""

    def digest(self, config: Mapping[str, Any]) -> str:
        """A digest of the configuration: another one has another plan."""
        return hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest()[:16]

    def of(self, job: Job) -> Cost:
        """The cost of one job."""
        model = self._model(job.wildcards)
        core_hours, gpu_hours, basis = self._hours(job, model)
        named = "" if model is None else model.name
        return Cost(named, core_hours, gpu_hours, self._disk(job, model), self._download(job, model), basis)

    def _model(self, words: Mapping[str, str]) -> Model | None:
        """The model of a job, as its name means it; None for a job of a pair or of none."""
        typed = next((words[key] for key in ("bundle", "means", "model") if key in words), None)
        if typed is None or names.model_word(typed) not in self.study.models:
            return None
        return self.study.model_of(typed)

    def _hours(self, job: Job, model: Model | None) -> tuple[float | None, float | None, str]:
        """Core hours, GPU hours and what they are reckoned by."""
        dataset = job.wildcards.get("dataset", self.study.default_dataset)
        if model is not None and (job.rule.startswith("extract_") or job.rule in ("latents", "unpooled")):
            return self._of_passes(job, self.plan.features.gigaflops(model, dataset))
        images = self.study.datasets[dataset].sample
        seconds = None if images is None else self._core_seconds(job, model, images)
        return (None, None, UNKNOWN) if seconds is None else (seconds / 3600, 0.0, MEASURED)

    def _of_passes(self, job: Job, gigaflops: float | None) -> tuple[float | None, float | None, str]:
        hardware = self.study.hardware
        on_gpu = job.gpus > 0 and self.study.compute.device != "cpu"
        parts = self.study.extraction_parts if job.rule.endswith("_part") else 1
        rate = 1000 * hardware.gpu_tflops if on_gpu and hardware.gpu_tflops else hardware.cpu_gflops
        if gigaflops is None or (on_gpu and hardware.gpu_tflops is None):
            return None, None, UNKNOWN
        hours = gigaflops / parts / rate / 3600
        if on_gpu:
            return hours * job.cores, hours * job.gpus, COUNTED.format("gpu_tflops")
        return hours, 0.0, COUNTED.format("cpu_gflops")

    def _core_seconds(self, job: Job, model: Model | None, images: int) -> float | None:
        setting, words = self.study.alignment, job.wildcards
        if model is not None and job.rule in ("neighbors", "neighbors_part", "factors"):
            layers, size = len(model.layers), width(model.built)
            if job.rule == "factors":
                return _FACTORS * layers * images * size**2
            parts = setting.parts if job.rule == "neighbors_part" else 1
            return _LISTS * layers * images**2 * size / parts
        if job.rule in ("align_layers", "calibrate_layers"):
            cells = len(self.study.model_of(words["a"]).layers) * len(self.study.model_of(words["b"]).layers)
            scores = cells * len(setting.metrics) * images
            return scores * (_SCORE if job.rule == "align_layers" else _PERMUTATION * setting.permutations)
        return None

    def _disk(self, job: Job, model: Model | None) -> float | None:
        """Gigabytes of features and lists, which are nearly all that a study keeps; None for others."""
        if model is None or "dataset" not in job.wildcards:
            return None
        images = self.study.datasets[job.wildcards["dataset"]].sample
        if images is None:
            return None
        if _keeps_features(job.rule):
            kept = 2 if self.plan.features.is_language(model) else 1
            return kept * self.plan.features.megabytes(job.wildcards["dataset"], model) * 2**20 / 1e9
        if job.rule in ("neighbors", "merge_neighbors"):
            return images * len(model.layers) * self.study.alignment.k_max * 2 * _BYTES / 1e9
        return None

    def _download(self, job: Job, model: Model | None) -> float:
        """Gigabytes of a checkpoint in float32; 0 where nothing is downloaded, NaN where its size is not known."""
        if job.rule in ("hub_table", "archive", "fetch_features"):
            return float("nan")
        if job.rule != "weights" or model is None or model.weights.source not in ("hub", "url"):
            return 0.0
        return float("nan") if model.parameters is None else model.parameters * _BYTES / 1e9


def _keeps_features(rule: str) -> bool:
    """Whether a rule writes the features of a model that stay on disk."""
    of_models = ("extract_", "merge_features_", "merge_texts_", "import_")
    others = ("import_latents", "import_bits_per_byte_")
    return rule.startswith(of_models) and not rule.startswith(others) and not rule.endswith("_part")
