"""Two feature files in, a score out: what is printed, and what is said where there is none."""

import json
import math
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from dense_metrics import dense_lists, dense_unbiased_hsic, related
from test_docs import PAGES

from compare import parser
from diffalign.alignment import METRICS, Preparation, measure
from diffalign.provenance import file_sha256

A, B = related(0)
NAMES = [f"image{i:02d}" for i in range(len(A))]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """a.pt as VFM-VAE has it; stack.npz, the same images in another order, with B as its second layer."""
    order = np.random.default_rng(0).permutation(len(A))
    torch.save({"features": torch.from_numpy(A), "names": NAMES}, tmp_path / "a.pt")
    stack = np.stack([np.roll(B, 1, axis=0), B], axis=1)[order]
    np.savez(tmp_path / "stack.npz", feats=stack, names=np.array([f"x/{NAMES[i]}.png" for i in order]))
    return tmp_path


def compare(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "workflow_scripts" / "compare.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)


def test_the_score_is_that_of_rows_joined_on_names(files: Path) -> None:
    done = compare(files, "a.pt", "stack.npz", "--layer-b", "1", "--metric", "mutual_knn", "--k", "7")
    assert (done.returncode, done.stderr) == (0, "")
    expected = measure("mutual_knn", A, B, k=7).value
    lines = done.stdout.splitlines()
    assert lines[0] == f"mutual_knn {expected:.6f}"
    settings = "N = 60, k = 7, eps = 0, clamp = none, center = false, whiten = false, normalize = l2"
    assert lines[1] == f"{settings}, chance 0.118644"
    assert lines[2].startswith("A: a.pt (vfmvae, 12 wide, float32, names inside, sha256 ")
    assert lines[3].startswith("B: stack.npz, layer 1 (array, 11 wide, float32, names inside, sha256 ")
    assert len(lines) == 4


def test_json_holds_what_the_score_depends_on(files: Path) -> None:
    options = ("--layer-b=-1", "--k=5", "--clamp=0.95", "--eps=1e-6", "--json", "--layout-a=vfmvae")
    done = compare(files, "a.pt", "stack.npz", *options)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    expected = measure("cknna", A, B, k=5, eps=1e-6, preparation=Preparation(0.95)).value
    assert result["value"] == pytest.approx(expected, abs=1e-12)
    assert (result["metric"], result["n"], result["k"], result["eps"]) == ("cknna", 60, 5, 1e-6)
    assert result["preparation"] == {
        "clamp": 0.95,
        "clamp_rule": "exact",
        "clamp_over": "layer",
        "center": False,
        "whiten": False,
        "normalize": "l2",
    }
    assert result["a"]["sha256"] == {"a.pt": file_sha256(files / "a.pt")}
    assert result["b"]["layer"] == "-1"
    assert result["parity"] is None


def massive() -> tuple[np.ndarray, np.ndarray]:
    """Features of 200 images that share eight directions; the first dimension of A is 44 times as large as others."""
    random = np.random.default_rng(24)
    common = random.standard_normal((200, 8))
    a, b = (common @ random.standard_normal((8, 32)) + 0.4 * random.standard_normal((200, 32)) for _ in "ab")
    a[:, 0] *= 44
    return a.astype(np.float32), b.astype(np.float32)


def published_cknna(a: np.ndarray, b: np.ndarray, k: int, eps: float) -> float:
    """CKNNA as platonic-rep and VFM-VAE define it, of clamped features: unbiased HSIC of kernels under masks of common
    neighbours, and eps in the denominator.
    """
    sides = []
    for features in (a, b):
        rows = features.astype(np.float64)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        mask = np.zeros((len(rows), len(rows)))
        np.put_along_axis(mask, dense_lists(rows, k), 1, axis=1)
        sides.append((mask, rows @ rows.T))
    hsic = [
        dense_unbiased_hsic(mask * other * kernel, mask * other * second)
        for (mask, kernel), (other, second) in ((sides[0], sides[1]), (sides[0], sides[0]), (sides[1], sides[1]))
    ]
    return hsic[0] / (math.sqrt(hsic[1] * hsic[2]) + eps)


def clamped(features: np.ndarray, bound: float) -> np.ndarray:
    return features.clip(-bound, bound)


def test_parity_is_what_the_script_of_vfm_vae_prints(tmp_path: Path) -> None:
    a, b = massive()
    names = [f"n{i:03d}" for i in range(len(a))]
    for side, features in (("a", a), ("b", b)):
        torch.save({"features": torch.from_numpy(features), "names": names}, tmp_path / f"{side}.pt")
    # remove_outliers(exact=True) with q = 0.95
    both = [clamped(x, float(np.sort(np.abs(x).ravel())[int(0.95 * x.size)])) for x in (a, b)]
    script = published_cknna(*both, 10, 1e-6)
    done = compare(tmp_path, "a.pt", "b.pt", "--parity", "vfm-vae", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["value"] == pytest.approx(script, abs=1e-5)
    assert (result["parity"], result["eps"]) == ("vfm-vae", 1e-6)
    bare = measure("cknna", a, b, k=10).value
    assert bare == pytest.approx(published_cknna(a, b, 10, 0), abs=1e-5)
    # the README says both
    said = (ROOT / "README.md").read_text()
    assert f"prints {bare:.3f} and".replace("0.", ".") in said
    assert f"as the script, {script:.3f}".replace("0.", ".") in said


def test_parity_with_platonic_rep_clamps_at_the_quantile_of_all_layers(tmp_path: Path) -> None:
    a, b = massive()
    stacks = [np.stack([x, 3 * np.roll(x, 1, axis=0)], axis=1) for x in (a, b)]
    for side, stack in zip("ab", stacks, strict=True):
        torch.save({"feats": torch.from_numpy(stack), "num_params": 1}, tmp_path / f"{side}.pt")
    rows = ("--names-a", "rows", "--names-b", "rows", "--layer-a", "0", "--layer-b", "-1")
    done = compare(tmp_path, "a.pt", "b.pt", *rows, "--parity", "platonic")
    assert done.returncode == 0, done.stderr
    # remove_outliers(exact=False): torch.quantile of each image, over its layers, and the mean of all images
    both = [
        clamped(stack[:, layer], float(np.quantile(np.abs(stack).reshape(len(stack), -1), 0.95, axis=1).mean()))
        for stack, layer in zip(stacks, (0, 1), strict=True)
    ]
    first, second, *_ = done.stdout.splitlines()
    assert float(first.split()[1]) == pytest.approx(published_cknna(*both, 10, 1e-6), abs=1e-5)
    assert "eps = 1e-06, clamp = 0.95 (per_image, of all layers)" in second


def test_rows_are_numbered_only_where_that_is_asked_for(files: Path) -> None:
    np.save(files / "a.npy", A)
    np.save(files / "b.npy", B)
    refused = compare(files, "a.npy", "b.npy")
    assert refused.returncode == 2
    assert "a.npy: has no names, and rows are never joined by position" in refused.stderr
    numbered = ("a.npy", "b.npy", "--names-a", "rows", "--names-b", "rows")
    done = compare(files, *numbered, "--metric", "cka", "--keep-norms")
    assert done.returncode == 0
    assert "names rows" in done.stdout
    assert ", normalize = none\n" in done.stdout
    kept = measure("cka", A, B, preparation=Preparation(normalize=None)).value
    assert done.stdout.splitlines()[0] == f"cka {kept:.6f}"
    mixed = compare(files, "a.npy", "a.pt", "--names-a", "rows")
    assert (
        "60 only in a.npy: 00000000, 00000001, 00000002, 00000003, 00000004 …; 60 only in a.pt: image00" in mixed.stderr
    )


def test_a_dictionary_of_no_layout_is_read_by_its_keys(files: Path) -> None:
    torch.save({"embeddings": torch.from_numpy(A), "ids": NAMES, "epoch": 3}, files / "tensors.pt")
    # arrays of NumPy inside of a file of torch, and names as an array
    torch.save({"embeddings": A, "ids": np.array(NAMES)}, files / "arrays.pt")
    np.savez(files / "arrays.npz", embeddings=A, other=B, ids=np.array(NAMES))
    expected = compare(files, "a.pt", "a.pt", "--k", "5").stdout.splitlines()[0]
    for name in ("tensors.pt", "arrays.pt", "arrays.npz"):
        done = compare(files, "a.pt", name, "--k", "5", "--key-b", "embeddings", "--names-key-b", "ids")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines()[0] == expected
    torch.save({"features": A, "names": np.array(NAMES)}, files / "a_as_numpy.pt")
    assert compare(files, "a.pt", "a_as_numpy.pt", "--k", "5").stdout.splitlines()[0] == expected


def test_images_that_only_one_file_has_are_left_out_only_where_that_is_asked_for(files: Path) -> None:
    torch.save({"features": torch.from_numpy(B[10:]), "names": NAMES[10:]}, files / "fewer.pt")
    refused = compare(files, "a.pt", "fewer.pt")
    assert refused.stderr.startswith("compare: images differ: 10 only in a.pt: image00")
    done = compare(files, "a.pt", "fewer.pt", "--join", "common", "--k", "5")
    assert done.returncode == 0, done.stderr
    first, second, *_ = done.stdout.splitlines()
    assert first == f"cknna {measure('cknna', A[10:], B[10:], k=5).value:.6f}"
    assert second.startswith("N = 50 of 60 and 50, k = 5,")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.pt"], "the following arguments are required: b"),
        (["a.pt", "gone.pt"], "gone.pt: no such feature file"),
        (["a.pt", "a.pt", "--metric", "cknaa"], "unknown metric 'cknaa'; did you mean 'cknna'?"),
        (["a.pt", "a.pt", "--k", "1"], "--k 1: cknna needs k of at least 2"),
        (["a.pt", "a.pt", "--k", "60"], "--k 60 needs at least 61 rows; the files have 60"),
        (["a.pt", "a.pt", "--k", "x"], "argument --k: invalid int value: 'x'"),
        (["a.pt", "a.pt", "--clamp", "95"], "--clamp 95.0: a quantile is above 0 and at most 1"),
        (["a.pt", "a.pt", "--parity", "vfmvae"], "argument --parity: invalid choice: 'vfmvae' (choose from"),
        (["a.pt", "a.pt", "--parity", "platonic", "--eps", "1"], "--eps: is set by --parity platonic; give one of"),
        (["a.pt", "a.pt", "--parity", "vfm-vae", "--keep-norms"], "--keep-norms: is set by --parity vfm-vae"),
        (["a.pt", "a.pt", "--eps", "nan"], "--eps nan: expected a number of at least 0"),
        (["a.pt", "stack.npz"], "stack.npz: holds 2 layers (0, 1); say which: --layer-b"),
        (
            ["a.pt", "odd.pt"],
            "odd.pt: has the keys embeddings, ids; expected features, format, names, recipe (diffalign)",
        ),
        (["a.pt", "odd.pt", "--key-b", "x"], "odd.pt: has no key x; it has embeddings, ids"),
        (["a.pt", "odd.pt", "--names-key-b", "ids", "--key-b", "ids"], "odd.pt: 'ids' is a list; expected a tensor"),
        (["a.pt", "stack.npz", "--names-key-b", "ids"], "stack.npz: has no key ids; it has feats, names"),
        (["a.pt", "far.pt", "--join", "common"], "a.pt and far.pt have no name in common: image00 … and far00 …"),
        (["a.pt", "a.pt", "--layout-b", "platonic"], "a.pt: is laid out as 'vfmvae', not as 'platonic'"),
        (["a.pt", "other.pt"], "images differ: 1 only in a.pt: image03; 1 only in other.pt: image99"),
        (
            ["a.pt", "zero.pt"],
            "zero.pt: 1 of 60 images have features of zero norm, which have no direction, first: image05",
        ),
        (["a.pt", "broken.pt"], "broken.pt: cannot be read as features"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(arguments: list[str], message: str, files: Path) -> None:
    torch.save({"features": torch.from_numpy(A), "names": [*NAMES[:3], "image99", *NAMES[4:]]}, files / "other.pt")
    zero = torch.from_numpy(A.copy())
    zero[5] = 0
    torch.save({"features": zero, "names": NAMES}, files / "zero.pt")
    (files / "broken.pt").write_bytes(b"nonsense")
    torch.save({"embeddings": torch.from_numpy(A), "ids": NAMES}, files / "odd.pt")
    torch.save({"features": torch.from_numpy(A), "names": [f"far{i:02d}" for i in range(len(A))]}, files / "far.pt")
    done = compare(files, *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"compare: {message}")
    assert done.stderr.count("\n") == 1


def test_the_examples_of_the_documentation_are_understood() -> None:
    lines = [line for page in PAGES for line in page.read_text().splitlines() if "workflow_scripts/compare.py " in line]
    assert len(lines) == 5
    for line in lines:
        words = shlex.split(line, comments=True)
        assert words[:2] == [".venv/bin/python", "workflow_scripts/compare.py"]
        assert parser().parse_args(words[2:]).metric in METRICS


def test_a_clamp_over_all_layers_is_of_the_images_that_are_compared(tmp_path: Path) -> None:
    a, b = massive()
    names = [f"i{row:03d}" for row in range(len(a))]
    beside = np.concatenate([a, 20 * a])
    for side, rows, named in (
        ("whole", beside, [*names, *(f"{name}x" for name in names)]),
        ("alone", a, names),
        ("b", b, names),
    ):
        torch.save({"feats": torch.from_numpy(rows[:, None]), "num_params": 1}, tmp_path / f"{side}.pt")
        (tmp_path / f"{side}.txt").write_text("\n".join(named) + "\n")

    def score(side: str) -> float:
        given = ("--names-a", f"{side}.txt", "--names-b", "b.txt", "--join", "common", "--parity", "platonic")
        done = compare(tmp_path, f"{side}.pt", "b.pt", *given)
        assert done.returncode == 0, done.stderr
        return float(done.stdout.splitlines()[0].split()[1])

    assert score("whole") == score("alone")
