"""The study of platonic-rep on miniatures: its exports, measured as the published script does, give its best score."""

from pathlib import Path

import numpy as np
import torch
from conftest import ROOT, Workflow
from test_published_studies import MINIATURES

EXPORT = "results/export/platonic/photographs/clean"
PAIR = ("bloom560m", "dinov2.s.cls")


def prepared(path: Path) -> torch.Tensor:
    """Features (N, L, D) as measure_alignment.py prepares them: clamped at the mean over samples of their .95
    quantiles, rows of unit norm.
    """
    features = torch.load(path, weights_only=True)["feats"].float()
    bound = torch.quantile(features.abs().flatten(start_dim=1), 0.95, dim=1).mean()
    return torch.nn.functional.normalize(features.clamp(-bound, bound), p=2, dim=-1)


def mutual_knn(a: torch.Tensor, b: torch.Tensor, k: int) -> float:
    """Mean share of common neighbours."""
    sides = (a.double(), b.double())
    lists = [(rows @ rows.T).fill_diagonal_(-torch.inf).topk(k).indices.tolist() for rows in sides]
    return float(np.mean([len(set(x) & set(y)) / k for x, y in zip(*lists, strict=True)]))


def test_the_best_score_is_that_of_the_published_search(tmp_path: Path) -> None:
    workflow = Workflow(ROOT, tmp_path / "work", ("profiles/platonic/study.yaml",))
    files = [f"{EXPORT}/{name}.pt" for name in PAIR]
    done = workflow.run(f"{EXPORT}/{'_vs_'.join(PAIR)}/mutual_knn_k10.npy", *files, overlay=MINIATURES)
    assert done.code == 0, done.output
    a, b = (prepared(workflow.directory / path) for path in files)
    scores = np.array([[mutual_knn(a[:, i], b[:, j], 10) for j in range(b.shape[1])] for i in range(a.shape[1])])
    best = np.load(workflow.directory / EXPORT / "_vs_".join(PAIR) / "mutual_knn_k10.npy", allow_pickle=True).item()
    assert abs(float(best["scores"].squeeze()) - scores.max()) < 1e-5
    assert scores[tuple(best["indices"].squeeze().astype(int))] == scores.max()
