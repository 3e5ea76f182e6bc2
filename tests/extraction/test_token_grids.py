"""The grid of tokens: of maps by their values, of sequences by the patches of the input, and of nothing else."""

from pathlib import Path

import pytest
import torch
from test_study import load
from torch import Tensor, nn

from diffalign import models
from diffalign.extraction.passes import all_tokens
from diffalign.extraction.token_grids import token_grid
from diffalign.models import Loaded, map_tokens, spatial_tokens

CATALOGUE = load().models
FED = {"pixels": torch.zeros(2, 3, 16, 8)}


def test_a_map_is_recognised_by_its_values_in_either_layout() -> None:
    states = torch.randn(2, 5, 3, 4)
    assert token_grid(states, spatial_tokens(states), {}, 1) == (3, 4)
    last = states.permute(0, 2, 3, 1).contiguous()
    assert token_grid(last, map_tokens(last, channels_last=True), {}, 1) == (3, 4)
    # both layouts give tokens of this shape, and only one of them these values
    both = torch.randn(2, 4, 3, 4)
    assert token_grid(both, spatial_tokens(both), {}, 1) == (3, 4)
    assert token_grid(both, map_tokens(both, channels_last=True), {}, 1) == (4, 3)
    # of a stage, with what it hands on; of one frame
    assert token_grid((states, [states]), spatial_tokens(states), {}, 1) == (3, 4)
    assert token_grid(states[:, :, None], spatial_tokens(states), {}, 1) == (3, 4)
    # a map of which something else was made
    assert token_grid(states, states.mean((2, 3))[:, None], FED, 4) is None


def test_a_sequence_lies_on_the_patches_where_it_has_one_token_for_each() -> None:
    for count, grid in ((8, (4, 2)), (1, None), (9, None), (2, None), (128, None)):
        states = torch.randn(2, count, 6)
        assert token_grid(states, states, FED, 4) == grid
    latents = {"latents": torch.zeros(2, 4, 6, 6)}
    assert token_grid(torch.randn(2, 9, 6), torch.randn(2, 9, 6), latents, 2) == (3, 3)
    # a single patch is a single token, which may as well be a class token
    assert token_grid(torch.randn(2, 1, 6), torch.randn(2, 1, 6), {"pixels": torch.zeros(2, 3, 4, 4)}, 4) is None


class _Net(nn.Module):
    """A map, its patches as a sequence with a class token, and a single vector."""

    def __init__(self) -> None:
        super().__init__()
        self.map, self.blocks, self.head = nn.Conv2d(3, 6, 4, stride=4), nn.Identity(), nn.Identity()

    def forward(self, pixels: Tensor) -> Tensor:
        states = self.map(pixels).flatten(2).transpose(1, 2)
        states = self.blocks(torch.cat([states[:, :1], states], 1))
        result: Tensor = self.head(states[:, :1])
        return result


def test_all_tokens_of_a_pass_come_with_their_grids() -> None:
    net = _Net()

    def tokens(output: Tensor) -> Tensor:
        return spatial_tokens(output) if output.ndim == 4 else output[:, 1:] if output.shape[1] > 1 else output

    loaded = Loaded(net, lambda batch: net(batch["pixels"]), tokens, multiple=4)
    fed = [{"names": [f"{number}{i}" for i in range(2)], **FED} for number in range(2)]
    layers = {"map": "map", "again": "map", "b0": "blocks", "class": "head"}
    made = list(all_tokens(loaded, layers, fed))
    assert [batch.names for batch in made] == [["00", "01"], ["10", "11"]]
    for batch in made:
        assert batch.grids == {"map": (4, 2), "again": (4, 2), "b0": (4, 2), "class": None}
        assert {alias: values.shape for alias, values in batch.tokens.items()} == {
            "map": (2, 8, 6),
            "again": (2, 8, 6),
            "b0": (2, 8, 6),
            "class": (2, 1, 6),
        }


@pytest.mark.parametrize(("name", "grid"), [("dinov3", (4, 4)), ("sam", (4, 4)), ("dinov2.cls", None)])
def test_models_of_the_catalogue_have_a_grid_in_every_layer(
    name: str, grid: tuple[int, int] | None, tmp_path: Path
) -> None:
    entry = CATALOGUE[name]
    assert entry.input is not None
    models.find_family(entry.family).make_miniature(entry.miniature, tmp_path, 0)
    loaded = models.load(entry, tmp_path, torch.device("cpu"))
    torch.manual_seed(0)
    fed = {"names": ["a", "b"], "pixels": torch.randn(2, 3, entry.input.size, entry.input.size)}
    (batch,) = all_tokens(loaded, entry.layers, [fed])
    assert batch.grids == dict.fromkeys(entry.layers, grid)
