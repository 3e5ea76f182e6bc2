"""Published features of language models, from an address to the figure of alignment against bits per byte."""

import hashlib
import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT, Workflow, copy_tree
from dense_metrics import dense_cknna, unit
from test_figures import check_pictures

from diffalign.io import language_files
from diffalign.io.feature_files import read_bundle
from diffalign.io.headers import StoreError
from diffalign.io.layouts import platonic
from fetch_features import fetch_features

COUNT, WIDTH = 48, 6
VISION = ("vit", "mae")
# of three series, bits per byte
LANGUAGE = {"bloom1": 1.3, "bloom2": 1.2, "llama1": 0.9, "llama2": 0.8, "olmo1": 1.0}


def stack(seed: int, truth: np.ndarray, noise: float) -> torch.Tensor:
    """Two layers, the second of which has something of the truth."""
    rng = np.random.default_rng(seed)
    near = truth + noise * rng.standard_normal(truth.shape)
    return torch.from_numpy(np.stack([rng.standard_normal(truth.shape), near], axis=1)).float()


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files as platonic-rep writes them: of vision models ``feats`` alone, of language models their quality, too."""
    folder = tmp_path_factory.mktemp("published")
    truth = np.random.default_rng(0).standard_normal((COUNT, WIDTH))
    for i, name in enumerate(VISION):
        torch.save({"feats": stack(i, truth, 0.3), "num_params": 10**8}, folder / f"{name}_pool-cls.pt")
    for i, (name, bits) in enumerate(LANGUAGE.items()):
        told = {"num_params": 10**9, "loss": torch.tensor(3 * bits), "bpb": torch.tensor(bits)}
        feats = stack(10 + i, truth, bits)
        torch.save({"feats": feats, "mask": torch.ones(COUNT, 3), **told}, folder / f"{name}_pool-avg.pt")
    return folder


@pytest.fixture(scope="module")
def address(published: Path) -> Iterator[str]:
    """The address of a server of these files."""

    class Silent(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(published)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def study(address: str, sha256: str | None = None) -> dict[str, Any]:
    def entry(file: str, **more: Any) -> dict[str, Any]:
        features = {"url": f"{address}/{file}", "layout": "platonic", "names": "rows", **more}
        return {"family": "precomputed", "features": features, "layers": {"h{0..1}": "{}"}, "default_layer": "h1"}

    models = {name: entry(f"{name}_pool-cls.pt") for name in VISION}
    for name in LANGUAGE:
        models[name] = {**entry(f"{name}_pool-avg.pt", bits_per_byte=True), "series": name.rstrip("12")}
    if sha256:
        models["bloom1"]["features"]["sha256"] = sha256
    return {
        "defaults": {"dataset": "theirs"},
        "datasets": {"theirs": {"kind": "precomputed"}},
        # in the place of entries of the catalogue of the same name
        "models": {f"{name}.published": each for name, each in models.items()},
        "study": {
            "datasets": ["theirs"],
            "models": [f"{name}.published" for name in VISION],
            "against": [f"{name}.published" for name in LANGUAGE],
            "pairs": "all",
            "scores": [],
        },
        "se_cknna": {"pairs": []},
        "alignment": {"metrics": ["cknna"]},
    }


def test_a_published_study_without_a_model(published: Path, address: str, tmp_path: Path) -> None:
    workflow = Workflow(copy_tree(tmp_path / "tree"), tmp_path / "work")
    digest = hashlib.sha256((published / "bloom1_pool-avg.pt").read_bytes()).hexdigest()
    figure = "results/figures/theirs/clean/bits_per_byte/cknna.png"
    alignment = "results/export/platonic/theirs/clean/cknna_k5.npy"
    overlay = study(address, digest)
    done = workflow.run(figure, alignment, overlay=overlay)
    assert done.code == 0, done.output
    jobs = done.jobs()
    assert (jobs["fetch_features"], jobs["align_layers"], jobs["export_platonic_set"]) == (7, 10, 1)
    work = workflow.directory
    record = json.loads((work / "resources/features/bloom1.published/bloom1_pool-avg.pt.json").read_text())
    assert record["sha256"] == digest
    assert record["url"] == f"{address}/bloom1_pool-avg.pt"
    told = language_files.read_quality(work / "results/language/theirs/clean/llama1.published.json")
    assert (told["bits_per_byte"], told["parameters"]) == (pytest.approx(0.9), 10**9)
    check_pictures([work / figure])
    # the whole set: rows are language models (x), columns vision models (y), layers in the order (y, x)
    scores, indices = platonic.read_alignment(work / alignment)
    assert scores.shape == (5, 2)
    assert (indices == 1).all()
    sides = json.loads((work / alignment).with_suffix(".json").read_text())
    assert (sides["x"][3], sides["y"]) == ("llama2.published", ["vit.published", "mae.published"])

    def last(path: Path) -> np.ndarray:
        return unit(torch.load(path, weights_only=True)["feats"][:, 1].numpy())

    expected = dense_cknna(last(published / "mae_pool-cls.pt"), last(published / "llama2_pool-avg.pt"), 5)
    assert scores[3, 1] == pytest.approx(expected, abs=1e-6)
    # better models were made more alike
    told = pd.read_csv(work / "results/tables/bits_per_byte_correlations.tsv", sep="\t").set_index(["other", "score"])
    assert told.loc[("vit.published", "maximum"), "rho"] > 0.8
    assert told.loc[("vit.published", "maximum"), "series"] == 3
    again = workflow.plan(figure, alignment, overlay=overlay)
    assert again.jobs() == {}, again.output


def of_layers(url: str) -> dict[str, Any]:
    """A study of one model of VFM-VAE's layout, a file a layer and condition."""
    features = {"url": url, "layout": "vfmvae"}
    layers = {"embed": "embedder", "b{0..1}": "block_{}"}
    entry = {"family": "precomputed", "features": features, "layers": layers, "default_layer": "b1"}
    overlay = study("http://127.0.0.1")
    return {
        **overlay,
        "conditions": ["clean"],
        "models": {**overlay["models"], "sit.published": entry},
        "se_cknna": {"conditions": ["noise_0.050"], "pairs": []},
    }


def test_every_layer_and_condition_may_have_an_address_of_its_own(
    published: Path, address: str, tmp_path: Path
) -> None:
    (published / "noise_0.050").mkdir()
    values = {name: np.random.default_rng(i).standard_normal((9, 4)) for i, name in enumerate(("embedder", "block_0"))}
    for name, rows in values.items():
        content = {"features": torch.from_numpy(rows).float(), "names": [f"n{i}" for i in range(9)]}
        torch.save(content, published / "noise_0.050" / f"sit_{name}_t0.500.pt")
    workflow = Workflow(ROOT, tmp_path / "work")
    overlay = of_layers(f"{address}/{{condition}}/sit_{{layer}}_t0.500.pt")
    overlay["models"]["sit.published"] |= {"take": ["embed", "b0"], "default_layer": "b0"}
    target = "results/features/theirs/noise_0.050/sit.published.json"
    done = workflow.run(target, overlay=overlay)
    assert done.code == 0, done.output
    assert done.jobs() == {"fetch_features": 2, "recipe": 1, "import_sit_published": 1}
    downloads = workflow.directory / "resources" / "features" / "sit.published"
    record = json.loads((downloads / "noise_0.050_sit_block_0_t0.500.pt.json").read_text())
    assert record["url"] == f"{address}/noise_0.050/sit_block_0_t0.500.pt"
    for alias, name in (("embed", "embedder"), ("b0", "block_0")):
        read = read_bundle(workflow.directory / target).read(alias)
        np.testing.assert_array_equal(read.values, values[name].astype(np.float32))


def test_addresses_that_cannot_be_filled_in_are_refused(tmp_path: Path) -> None:
    workflow = Workflow(ROOT, tmp_path / "work")
    overlay = of_layers("https://x.org/{conditoin}/{layer}.pt")
    several = {"url": "https://x.org/{layer}.pt", "sha256": "0" * 64}
    for name, changes in (("vit", several), ("mae", {"url": "https://x.org/f.pt?of={layer}"})):
        overlay["models"][f"{name}.published"]["features"] |= changes
    refused = workflow.run(options=["-n"], overlay=overlay)
    assert refused.code != 0
    for message in (
        "models.sit.published.features.url: unknown placeholder 'conditoin'; did you mean 'condition'?",
        "models.vit.published.features.sha256: is of one file, and the url is of several",
        "models.mae.published.features.url: placeholders stand in the path of an address, not in 'https://x",
    ):
        assert message in refused.output, refused.output


def test_a_download_with_another_sha256_is_refused_and_removed(address: str, tmp_path: Path) -> None:
    path = tmp_path / "vit.pt"
    with pytest.raises(ValueError, match=f"has the sha256 [0-9a-f]+; expected {'0' * 64}"):
        fetch_features(f"{address}/vit_pool-cls.pt", "0" * 64, path, tmp_path / "vit.json")
    assert list(tmp_path.iterdir()) == []


def test_an_address_without_a_file_says_what_to_do(address: str, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"absent.pt: cannot be downloaded \(.*404.*\); download it elsewhere and name"
    ):
        fetch_features(f"{address}/absent.pt", None, tmp_path / "absent.pt", tmp_path / "absent.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"feats": torch.ones(2, 2)}, "has no bpb, loss, num_params, so it is not of a language model"),
        ({"loss": torch.ones(2), "bpb": 1.0, "num_params": 1}, r"loss has the shape \(2,\); expected one number"),
        ({"loss": 1.0, "bpb": float("nan"), "num_params": 1}, "bits_per_byte is nan; expected a number above 0"),
    ],
)
def test_a_quality_that_cannot_be_trusted(content: dict[str, Any], message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(StoreError, match=message):
        platonic.read_quality(tmp_path / "x.pt")


def test_entries_of_features_that_mean_nothing(tmp_path: Path) -> None:
    workflow = Workflow(ROOT, tmp_path / "work")
    overlay = study("http://127.0.0.1")
    features = overlay["models"]["vit.published"]["features"]
    features |= {"path": "x.pt", "layout": "auto", "bits_per_byte": True}
    overlay["models"]["mae.published"]["features"] = {"path": "x.pt", "sha256": "0" * 64}
    overlay["models"]["llama1.published"]["features"] = {"url": "ftp://x/y.pt"}
    refused = workflow.run(options=["-n"], overlay=overlay)
    assert refused.code != 0
    for message in (
        "models.vit.published.features: needs one of 'path' and 'url'",
        "models.vit.published.features.bits_per_byte: only files of layout platonic have it, not of 'auto'",
        "models.mae.published.features.sha256: is of a download, and there is no url",
        "'ftp://x/y.pt' is no address; write https://host/path/file.pt",
    ):
        assert message in refused.output, refused.output


def test_a_set_of_one_side_alone_is_not_exported(tmp_path: Path) -> None:
    workflow = Workflow(ROOT, tmp_path / "work")
    overlay = study("http://127.0.0.1")
    overlay["study"] |= {"models": overlay["study"]["against"], "against": []}
    refused = workflow.run("results/export/platonic/theirs/clean/cknna_k5.npy", options=["-n"], overlay=overlay)
    assert refused.code != 0
    assert "set study.against, and study.pairs to all" in refused.output
