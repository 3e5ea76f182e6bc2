"""Shares of attention of words: those of diffusers' own attention, where words stand, and what maps say."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from torch import nn

from diffalign.dynamics.attention import correlations, cross_attentions, entropy, marks, shares, text_positions
from diffalign.models.text_encoders import write_clip, write_t5

PROMPTS = ["a photo of a cat", "a Cat beside a dog"]
COUNT = 20


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)))


def unet() -> nn.Module:
    down, up = ("DownBlock2D", "CrossAttnDownBlock2D"), ("CrossAttnUpBlock2D", "UpBlock2D")
    widths = {"block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4, "attention_head_dim": 2}
    return diffusers.UNet2DConditionModel(
        sample_size=8, cross_attention_dim=12, down_block_types=down, up_block_types=up, **widths
    ).eval()


def mmdit() -> nn.Module:
    widths = {"attention_head_dim": 8, "num_attention_heads": 2, "joint_attention_dim": 12, "pooled_projection_dim": 12}
    return diffusers.SD3Transformer2DModel(
        sample_size=8, in_channels=4, num_layers=2, caption_projection_dim=16, qk_norm="rms_norm", **widths
    ).eval()


Case = tuple[nn.Module, Callable[[], torch.Tensor]]


@pytest.fixture(scope="module", params=["unet", "mmdit"])
def case(request: pytest.FixtureRequest) -> Case:
    """A network, and what runs it on two samples with texts of twenty tokens."""
    torch.manual_seed(0)
    net, text, steps = {"unet": unet, "mmdit": mmdit}[request.param](), drawn(2, COUNT, 12), torch.tensor([5, 5])
    pooled = {"pooled_projections": drawn(2, 12)} if request.param == "mmdit" else {}

    def run() -> torch.Tensor:
        with torch.no_grad():
            return net(drawn(2, 4, 8, 8), timestep=steps, encoder_hidden_states=text, **pooled).sample

    return net, run


@pytest.fixture(scope="module", params=["sd1", "sd3"])
def tokenizers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    write_clip(folder, "", 1, width=8, projection=False)
    if request.param == "sd3":
        write_t5(folder, "_3", width=8)
    return folder


def test_shares_are_those_of_the_module(case: Case) -> None:
    net, run = case
    modules, attended = cross_attentions(net), {}
    handles = [
        module.register_forward_pre_hook(
            lambda _, args, named, path=path: attended.update({path: (args, named)}), with_kwargs=True
        )
        for path, module in modules.items()
    ]
    with shares(net, torch.eye(COUNT)[None].expand(2, -1, -1)) as caught:
        run()
    for handle in handles:
        handle.remove()
    assert set(caught) == set(modules)
    assert len(caught) >= 2
    for path, module in modules.items():
        args, named = attended[path]
        image = args[0] if args else named["hidden_states"]
        assert caught[path].shape == (2, COUNT, image.shape[1])
        if module.added_kv_proj_dim is None:
            np.testing.assert_allclose(caught[path].sum(axis=1), 1, rtol=1e-5)
        else:
            assert (caught[path].sum(axis=1) < 1).all()
        _check_by_values(module, image, named["encoder_hidden_states"], 5, caught[path][:, 5])


def _check_by_values(module: Any, image: torch.Tensor, text: torch.Tensor, token: int, expected: np.ndarray) -> None:
    """Values of 1 for a text token and 0 for all others make the module return the share of that token."""
    joint = module.added_kv_proj_dim is not None
    values = torch.nn.functional.one_hot(torch.tensor(token), text.shape[1]).float()[None, :, None]

    class OneToken(torch.nn.Module):
        def __init__(self, of_text: bool, width: int) -> None:
            super().__init__()
            self.of_text, self.width = of_text, width

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            rows = values.expand(len(x), -1, self.width) if self.of_text else x.new_zeros(*x.shape[:2], self.width)
            return rows.contiguous()

    class Unchanged(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    width = module.to_q.out_features
    kept = {"to_v": module.to_v, "to_out": module.to_out, "scale": module.rescale_output_factor}
    added = getattr(module, "add_v_proj", None)
    module.to_v, module.to_out = OneToken(not joint, width), torch.nn.ModuleList([Unchanged(), Unchanged()])
    if joint:
        module.add_v_proj = OneToken(True, width)
    try:
        with torch.no_grad():
            output = module(image, encoder_hidden_states=text)
    finally:
        module.to_v, module.to_out = kept["to_v"], kept["to_out"]
        if joint:
            module.add_v_proj = added
    output = output[0] if isinstance(output, tuple) else output
    np.testing.assert_allclose(output.mean(dim=-1).numpy(), expected, atol=1e-6)


def test_nothing_is_left_behind_and_nothing_changes(case: Case) -> None:
    net, run = case
    plain, marked = run(), marks([[[1]], [[2]]], COUNT, torch.device("cpu"))
    with shares(net, marked):
        torch.testing.assert_close(run(), plain, rtol=0, atol=0)
    with pytest.raises(RuntimeError, match="stopped"), shares(net, marked):
        raise RuntimeError("stopped")
    with shares(net, marked[:, :, :9]), pytest.raises(ValueError, match="text of 2 samples and 20 tokens"):
        run()
    assert not any(module._forward_pre_hooks for module in net.modules())


def test_a_word_of_several_tokens_has_the_sum_of_their_shares(case: Case) -> None:
    net, run = case
    positions = [[[1], [4, 5], [1, 4, 5]]] * 2
    with shares(net, marks(positions, COUNT, torch.device("cpu"))) as caught:
        run()
    for found in caught.values():
        np.testing.assert_allclose(found[:, 0] + found[:, 1], found[:, 2], rtol=1e-6)


def test_words_stand_where_the_tokenizer_puts_them(tokenizers: Path) -> None:
    """Tokenizers of miniatures make a token of every byte, so positions are those of letters."""
    found = text_positions(tokenizers, PROMPTS, ["cat"])
    joint = (tokenizers / "tokenizer_3").is_dir()
    clip = {"a photo of a cat": [10, 11, 12], "a Cat beside a dog": [2, 3, 4]}
    for prompt in PROMPTS:
        positions = found[prompt, "cat"]
        assert [position for position in positions if position < 77] == clip[prompt]
        assert (len(positions) > 3) == joint
        assert max(positions) < 77 + 256 * joint
    # every occurrence counts
    assert len([each for each in text_positions(tokenizers, ["cat cat"], ["cat"])["cat cat", "cat"] if each < 77]) == 6


def test_a_word_that_a_prompt_lacks_is_named_with_its_words(tokenizers: Path) -> None:
    with pytest.raises(ValueError, match=r"'a photo of a cat' has no word 'dog'; its words: a, photo, of, cat"):
        text_positions(tokenizers, PROMPTS, ["cat", "dog"])
    with pytest.raises(ValueError, match="has no word 'ca'"):
        text_positions(tokenizers, PROMPTS[:1], ["ca"])
    with pytest.raises(ValueError, match="stands behind the tokens that the model reads"):
        text_positions(tokenizers, ["x" * 400 + " cat"], ["cat"])


def test_models_without_words_have_no_cross_attention() -> None:
    from diffusers.models.attention_processor import Attention

    assert cross_attentions(torch.nn.Sequential(torch.nn.Linear(2, 2), Attention(4, heads=1, dim_head=4))) == {}


def test_entropy_and_correlations_of_maps() -> None:
    maps = np.array([[1.0, 1, 1, 1], [0, 3, 0, 0], [1, 1, 0, 0]])
    np.testing.assert_allclose(entropy(maps), [1, 0, 0.5])
    # of one position, and of a word that nothing looks at, there is none
    assert np.isnan(entropy(maps[:, :1])).all()
    assert np.isnan(entropy(np.zeros((2, 4)))).all()
    others = np.array([[2.0, 1, 5, 3], [0, 1, 0, 0], [0, 0, 1, 1]])
    found = correlations(maps, others)
    assert np.isnan(found[0])
    np.testing.assert_allclose(found[1:], [1, -1])
    np.testing.assert_allclose(correlations(maps[1], others)[0], np.corrcoef(maps[1], others[0])[0, 1])
