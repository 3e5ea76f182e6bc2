"""Similarities of some objects, as people see them, in the published layout; RSA."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import Workflow
from scipy.io import savemat
from scipy.stats import pearsonr, spearmanr

from diffalign.human.concepts import Concept
from diffalign.human.similarities import SimilarityError, read_similarities, rsa
from diffalign.randomness import keyed

CONCEPTS = [Concept(name, name.strip("12"), name, ()) for name in ("cat", "ant", "bat1", "bat2", "dog", "owl", "eel")]
NAMES = ["owl", "cat", "bat1", "dog", "ant"]


def matrix(count: int = 5, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).random((count, count))
    values = values + values.T
    np.fill_diagonal(values, 0)
    return values


def published(folder: Path, values: np.ndarray, names: list[str]) -> dict[str, str]:
    """The layout of the 48 objects: a MATLAB matrix of dissimilarities, and a cell array of words."""
    savemat(folder / "RDM48_triplet.mat", {"RDM48_triplet": values})
    savemat(folder / "words48.mat", {"words48": np.array(names, dtype=object)[:, None]})
    places = {"path": str(folder / "RDM48_triplet.mat"), "names": str(folder / "words48.mat")}
    return {**places, "key": "RDM48_triplet", "names_key": "words48"}


def read(entry: dict[str, Any], measures: str = "dissimilarity") -> Any:
    names, keys = Path(entry["names"]), (entry.get("key"), entry.get("names_key"))
    return read_similarities(Path(entry["path"]), keys[0], names, keys[1], measures, CONCEPTS)


def test_all_layouts_say_the_same(tmp_path: Path) -> None:
    values = matrix()
    similarities = read(published(tmp_path, values, NAMES))
    assert similarities.names == tuple(NAMES)
    assert np.array_equal(similarities.values, -values)
    np.save(tmp_path / "m.npy", values)
    np.savetxt(tmp_path / "m.csv", values, delimiter=",")
    (tmp_path / "names.txt").write_text("\n".join(NAMES) + "\n")
    for name in ("m.npy", "m.csv"):
        other = read({"path": str(tmp_path / name), "names": str(tmp_path / "names.txt")}, "similarity")
        np.testing.assert_allclose(other.values, values)
        assert other.names == similarities.names


@pytest.mark.parametrize(
    ("names", "values", "changes", "message"),
    [
        (NAMES, matrix(), {"key": "RDM"}, "holds no 'RDM'; there: RDM48_triplet"),
        (NAMES[:4], matrix(), {}, "4 names for 5 rows"),
        (["owl", "cat", "bat", "dog", "ant"], matrix(), {}, "1 names are words of several concepts, first: bat"),
        (["owl", "cat", "elk", "dog", "ant"], matrix(), {}, "1 names are no concepts, first: elk"),
        (["owl", "cat", "cat", "dog", "ant"], matrix(), {}, "1 objects stand twice, first: cat"),
        (NAMES, np.triu(matrix()), {}, "not symmetric"),
        (NAMES, matrix()[:4], {}, r"holds \(4, 5\); expected as many rows as columns"),
    ],
)
def test_what_cannot_be_used_is_refused(
    tmp_path: Path, names: list[str], values: np.ndarray, changes: dict[str, str], message: str
) -> None:
    entry = published(tmp_path, values, names) | changes
    with pytest.raises(SimilarityError, match=message):
        read(entry)


def test_correlations_are_those_of_scipy() -> None:
    people, model = matrix(30), matrix(30) + 0.5 * matrix(30, 1)
    above = np.triu_indices(30, 1)
    correlations = rsa(people, model, keyed(0, "bootstrap", "similarities"))
    assert correlations.spearman == pytest.approx(spearmanr(people[above], model[above]).statistic)
    assert correlations.pearson == pytest.approx(pearsonr(people[above], model[above]).statistic)
    assert correlations.spearman_low < correlations.spearman < correlations.spearman_high
    assert correlations == rsa(people, model, keyed(0, "bootstrap", "similarities"))
    with pytest.raises(ValueError, match="all pairs of objects are equally similar"):
        rsa(people, np.ones((30, 30)), keyed(0, "bootstrap", "similarities"))


def test_intervals_hold_what_they_are_of() -> None:
    # objects of a population in which people and model are related; small samples of it, and their bounds
    draws = np.random.default_rng(0)
    latent = draws.standard_normal((2000, 8))
    noisy = latent + 0.7 * draws.standard_normal(latent.shape)
    pairs = np.triu_indices(2000, 1)
    truth = pearsonr((latent @ latent.T)[pairs], (noisy @ noisy.T)[pairs]).statistic
    held = 0
    for trial in range(20):
        rows = draws.choice(2000, 48, replace=False)
        a, b = latent[rows], noisy[rows]
        correlations = rsa(a @ a.T, b @ b.T, keyed(trial, "bootstrap", "similarities"))
        held += correlations.pearson_low <= truth <= correlations.pearson_high
    assert held >= 16


def test_people_and_features_meet_by_name(fresh: Workflow, tmp_path: Path) -> None:
    header = "Word\tuniqueID\tDefinition (from WordNet, Google, or Wikipedia)\tTop-down Category (manual selection)\n"
    rows = "".join(f"{concept.word}\t{concept.name}\t\t\n" for concept in CONCEPTS)
    (tmp_path / "concepts.tsv").write_text(header + rows)
    np.save(tmp_path / "chosen.npy", np.array([[0, 1, 2], [3, 4, 5]]))
    names = sorted(concept.name for concept in CONCEPTS)
    features = np.random.default_rng(0).standard_normal((len(names), 6)).astype(np.float32)
    noise = np.random.default_rng(1).standard_normal(features.shape).astype(np.float32)
    np.savez(tmp_path / "f.npz", b0=noise, b1=features, names=np.array(names))
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    order = [names.index(name) for name in NAMES]
    entry = published(tmp_path, (1 - unit @ unit.T)[np.ix_(order, order)].astype(np.float64), NAMES)
    chosen = {"path": str(tmp_path / "chosen.npy"), "first": 0, "odd": "last", "sha256": None}
    overlay = {
        "datasets": {
            "things": {
                "concepts": {"path": str(tmp_path / "concepts.tsv"), "sha256": None},
                "dimensions": None,
                "triplets": {"test": chosen},
                "similarities": entry,
            }
        },
        "models": {
            "known": {
                "family": "precomputed",
                "features": {"path": str(tmp_path / "f.npz")},
                "layers": {"b0": "b0", "b1": "b1"},
                "default_layer": "b1",
            }
        },
        "study": {"datasets": ["photographs"], "models": ["known"], "pairs": [], "scores": []},
        "human": {"datasets": ["things"]},
    }
    assert fresh.plan(overlay=overlay).jobs()["human_rsa"] == 1
    done = fresh.run("results/human_rsa/things/clean/known.tsv", overlay=overlay)
    assert done.code == 0, done.output
    table = pd.read_csv(fresh.directory / "results/human_rsa/things/clean/known.tsv", sep="\t").set_index("layer")
    assert table.loc["b1", ["spearman", "pearson"]].tolist() == pytest.approx([1, 1], abs=1e-5)
    assert table.loc["b0", "spearman"] < 0.9
    assert table["objects"].tolist() == [5, 5]
    del overlay["datasets"]["things"]["similarities"]
    refused = fresh.run("results/human_rsa/things/clean/known.tsv", options=["-n"], overlay=overlay)
    assert "datasets.things has no key 'similarities', the file of human similarities" in refused.output
