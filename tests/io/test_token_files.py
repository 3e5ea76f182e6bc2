"""Tokens on disk: float16, grids, blocks, and what cannot be kept."""

import json
import logging
from collections import namedtuple
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from diffalign.io.headers import StoreError
from diffalign.io.token_files import Grid, TokenBatch, read_tokens, write_tokens

Usage = namedtuple("Usage", "total used free")
NAMES = ["a", "b", "c", "d"]
GRIDS: dict[str, Grid | None] = {"b0": (2, 3), "b1": None}


def tokens(seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((4, 6, 3)) + 20).astype(np.float32)


def batches(values: np.ndarray, names: Sequence[str] = NAMES) -> Iterator[TokenBatch]:
    """In another order than that of the names, as larger images come first."""
    for rows in (slice(2, 4), slice(0, 2)):
        yield TokenBatch(names[rows], {"b0": values[rows], "b1": 2 * values[rows]}, GRIDS)


def test_tokens_come_back_by_name_as_float16(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    values = tokens()
    with caplog.at_level(logging.INFO):
        write_tokens(tmp_path / "t", NAMES, batches(values), {"bundle": "x"})
    assert "un-pooled features take 0.00 GB" in caplog.text
    assert "b0 4 x 6 x 3, b1 4 x 6 x 3" in caplog.text
    stored = read_tokens(tmp_path / "t")
    assert (stored.names, stored.recipe, list(stored.layers)) == (tuple(NAMES), {"bundle": "x"}, ["b0", "b1"])
    assert isinstance(stored.layers["b0"], np.memmap)
    assert stored.layers["b0"].dtype == np.float16
    assert np.array_equal(stored.layers["b1"], (2 * values).astype(np.float16))
    (tmp_path / "t/layers.json").unlink()
    with pytest.raises(StoreError, match="missing, so the folder is not whole"):
        read_tokens(tmp_path / "t")


def test_the_log_says_what_rounding_takes_away(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    values = tokens()
    with caplog.at_level(logging.INFO):
        write_tokens(tmp_path / "t", NAMES, batches(values), {})
    error = np.abs(values - values.astype(np.float16)).max()
    scale = np.sqrt(np.square(values.astype(np.float64)).mean())
    assert 0 < error / scale < 2**-10
    said = f"b0: float16 is off by at most {error:.2g}, {error / scale:.2g} of the root mean square of the layer, "
    assert f"{said}{scale:.3g}" in caplog.text
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]
    # all are below the least step of float16
    with caplog.at_level(logging.INFO):
        write_tokens(tmp_path / "t", NAMES, batches((values * 1e-8).astype(np.float32)), {})
    (first, _) = (each.getMessage() for each in caplog.records if each.levelno == logging.WARNING)
    assert first.startswith("b0: float16 is off by")
    assert first.endswith("or all are very small")


def test_the_manifest_has_the_grid_of_each_layer(tmp_path: Path) -> None:
    write_tokens(tmp_path / "t", NAMES, batches(tokens()), {"bundle": "dinov2"})
    header = json.loads((tmp_path / "t/layers.json").read_text())
    assert (header["format"], header["grids"]) == (2, {"b0": [2, 3], "b1": None})
    stored = read_tokens(tmp_path / "t")
    assert stored.grids == GRIDS
    assert stored.grid("b0") == (2, 3)
    with pytest.raises(
        StoreError, match=r"dinov2, layer b1: its 6 tokens an image have no known grid: they are neither"
    ):
        stored.grid("b1")


def test_tokens_of_the_first_format_are_read_without_a_grid(tmp_path: Path) -> None:
    values = tokens()
    np.save(tmp_path / "b0.npy", values)
    header = {"format": 1, "layers": ["b0"], "names": NAMES, "recipe": {"bundle": "x"}}
    (tmp_path / "layers.json").write_text(json.dumps(header))
    stored = read_tokens(tmp_path)
    assert np.array_equal(stored.layers["b0"], values)
    assert stored.grids == {"b0": None}


@pytest.mark.parametrize("memory_mb", [0, 1])
def test_blocks_are_all_rows_as_float32(tmp_path: Path, memory_mb: int) -> None:
    values = tokens()
    write_tokens(tmp_path / "t", NAMES, batches(values), {})
    read = list(read_tokens(tmp_path / "t").blocks("b0", memory_mb))
    assert [rows for rows, _ in read] == ([slice(0, 4)] if memory_mb else [slice(i, i + 1) for i in range(4)])
    assert {block.dtype for _, block in read} == {np.dtype(np.float32)}
    assert np.array_equal(np.concatenate([block for _, block in read]), values.astype(np.float16))


def test_tokens_that_cannot_be_kept_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values, folder = tokens(), tmp_path / "t"
    fewer = [TokenBatch(["a"], {"b0": values[:1]}), TokenBatch(["c"], {"b0": values[2:3, :4]})]
    with pytest.raises(ValueError, match=r"b0: gave \(4, 3\) tokens and channels for c, \(6, 3\) before"):
        write_tokens(folder, NAMES, fewer, {})
    turned = [
        TokenBatch(["a"], {"b0": values[:1]}, {"b0": (2, 3)}),
        TokenBatch(["c"], {"b0": values[2:3]}, {"b0": (3, 2)}),
    ]
    with pytest.raises(ValueError, match="layer b0: tokens lie on 3 x 2 for c, on 2 x 3 before"):
        write_tokens(folder, NAMES, turned, {})
    with pytest.raises(ValueError, match="layer b0: 6 tokens do not fill a grid of 2 x 2"):
        write_tokens(folder, NAMES, [TokenBatch(["a"], {"b0": values[:1]}, {"b0": (2, 2)})], {})
    broken = values.copy()
    broken[3, 0, 0] = np.inf
    with pytest.raises(ValueError, match="layer b0: tokens are NaN or infinite for d"):
        write_tokens(folder, NAMES, batches(broken), {})
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(100, 0, 100))
    with pytest.raises(StoreError, match="name fewer layers in human.reduction.of"):
        write_tokens(folder, NAMES, batches(values), {})
    assert not list(folder.iterdir())


@pytest.mark.parametrize("sign", [1, -1])
def test_what_float16_cannot_hold_is_refused_by_layer_and_image(tmp_path: Path, sign: int) -> None:
    values = tokens()
    values[3, 1, 2] = sign * 65504
    write_tokens(tmp_path / "t", NAMES, [TokenBatch(NAMES, {"b0": values})], {})
    assert read_tokens(tmp_path / "t").layers["b0"][3, 1, 2] == sign * 65504
    # the layer b1 holds twice as much
    said = "layer b1: tokens are beyond 65504, the largest number of float16, up to 131008, for d$"
    with pytest.raises(ValueError, match=said):
        write_tokens(tmp_path / "t", NAMES, batches(values), {})
    assert not (tmp_path / "t/layers.json").exists()
