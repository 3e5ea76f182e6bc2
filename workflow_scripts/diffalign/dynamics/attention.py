"""Where in an image a diffusion model looks at a word of its prompt: shares of attention, position by position.

Known are the cross-attention of UNets (queries of the image, keys of the text) and the joint attention of multimodal
transformers (queries of the image, keys of image and text together), both as diffusers builds them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from diffalign.stimuli.captions import occurrences

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

# folders of the tokenizers whose embeddings follow each other in a prompt's, and how many tokens each contributes; the
# two CLIP encoders of SD3 read the same tokens, and share their places
_CLIP = ("tokenizer", 77)
_T5 = ("tokenizer_3", 256)


def text_positions(folder: Path, prompts: Sequence[str], words: Sequence[str]) -> dict[tuple[str, str], list[int]]:
    """Where words stand among the text tokens of prompts: (prompt, word) -> positions, of every token of every
    occurrence, whatever its case.

    folder: of a checkpoint of the families ``diffusers_unet`` or ``diffusers_mmdit``, with its tokenizers. Raises
    ValueError for a word that a prompt lacks, with the words of that prompt, and for one that is cut off.
    """
    from transformers import AutoTokenizer

    starts, at = [], 0
    for name, length in (_CLIP, _T5):
        if (folder / name).is_dir():
            tokenizer = AutoTokenizer.from_pretrained(folder / name, local_files_only=True)
            starts.append((at, length, tokenizer))
        at += length
    found: dict[tuple[str, str], list[int]] = {}
    for prompt in dict.fromkeys(prompts):
        spans = {word: _spans(prompt, word) for word in words}
        encoded = [
            (at, tokenizer(prompt, truncation=True, max_length=length, return_offsets_mapping=True).offset_mapping)
            for at, length, tokenizer in starts
        ]
        for word in words:
            found[prompt, word] = [
                at + position
                for at, offsets in encoded
                for position, (start, end) in enumerate(offsets)
                if any(start < last and end > first for first, last in spans[word])
            ]
            if not found[prompt, word]:
                raise ValueError(f"'{word}' stands behind the tokens that the model reads of the prompt '{prompt}'")
    return found


def _spans(prompt: str, word: str) -> list[tuple[int, int]]:
    """Where a word, or several in a row, begins and ends in a prompt. Raises ValueError where it does not."""
    spans = occurrences(prompt, word)
    if not spans or not word:
        there = ", ".join(dict.fromkeys(re.findall(r"\w+(?:['’-]\w+)*", prompt))) or "none"
        raise ValueError(f"the prompt '{prompt}' has no word '{word}'; its words: {there}")
    return spans


def cross_attentions(root: nn.Module) -> dict[str, Any]:
    """Module path -> each attention of a network that reads text; empty for one without."""
    from diffusers.models.attention_processor import Attention

    return {
        path: module
        for path, module in root.named_modules()
        if isinstance(module, Attention) and (module.is_cross_attention or module.added_kv_proj_dim is not None)
    }


@contextmanager
def shares(root: nn.Module, marked: Tensor) -> Iterator[dict[str, NDArray[np.float64]]]:
    """While it is entered, every pass of the network leaves what each of its `cross_attentions` gives to words.

    marked: (B, W, K), 1 where text token k of sample b is of word w, else 0. Yields a dict that each pass fills, in the
    order of calls: module path -> (B, W, T) float64, the share of the attention of every image token that the tokens of
    a word have, softmax of QKᵀ / √d over all keys, mean over heads. Of joint attention, keys of the image are among
    them. It is computed beside the pass, one head of one sample at a time, and changes nothing in it; hooks are gone
    afterwards. Raises ValueError for a batch or a number of text tokens that `marked` does not have, and for masked
    attention.
    """
    caught: dict[str, NDArray[np.float64]] = {}

    def hook(path: str) -> Any:
        def before(module: Any, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> None:
            given = {**dict(zip(("hidden_states", "encoder_hidden_states"), arguments, strict=False)), **named}
            if named.get("attention_mask") is not None:
                raise ValueError(f"{path}: attention has a mask, which is not known here")
            caught[path] = _shares(module, given["hidden_states"], given["encoder_hidden_states"], marked, path)

        return before

    modules = cross_attentions(root)
    handles = [module.register_forward_pre_hook(hook(path), with_kwargs=True) for path, module in modules.items()]
    try:
        yield caught
    finally:
        for handle in handles:
            handle.remove()


def _shares(attention: Any, image: Tensor, text: Tensor, marked: Tensor, path: str) -> NDArray[np.float64]:
    import torch

    if (len(text), text.shape[1]) != (len(marked), marked.shape[2]):
        raise ValueError(
            f"{path}: text of {len(text)} samples and {text.shape[1]} tokens; words are marked in {len(marked)} of "
            f"{marked.shape[2]}"
        )
    with torch.no_grad():
        queries = _heads(attention, attention.to_q(image), attention.norm_q)
        if attention.added_kv_proj_dim is None:
            read = attention.norm_encoder_hidden_states(text) if attention.norm_cross else text
            keys = _heads(attention, attention.to_k(read), attention.norm_k)
        else:
            of_image = _heads(attention, attention.to_k(image), attention.norm_k)
            of_text = _heads(attention, attention.add_k_proj(text), attention.norm_added_k)
            keys = torch.cat([of_image, of_text], dim=2)
        # text tokens are the last keys
        of_words = marked.to(queries)
        shares = torch.zeros(len(image), marked.shape[1], image.shape[1], dtype=torch.float64)
        for sample, head in np.ndindex(len(image), attention.heads):
            scores = queries[sample, head] @ keys[sample, head].T / queries.shape[-1] ** 0.5
            of_text = scores.softmax(dim=-1)[:, -marked.shape[2] :]
            shares[sample] += (of_words[sample] @ of_text.T).double().cpu() / attention.heads
    return np.asarray(shares.numpy(), np.float64)


def _heads(attention: Any, projected: Tensor, norm: Any) -> Tensor:
    """(B, T, heads x d) -> (B, heads, T, d), normed as the module does."""
    split = projected.reshape(*projected.shape[:2], attention.heads, -1).transpose(1, 2)
    normed: Tensor = split if norm is None else norm(split)
    return normed


def marks(positions: Sequence[Sequence[Sequence[int]]], tokens: int, device: torch.device) -> Tensor:
    """What `shares` is given, of the positions of each word of each sample, (B, W, tokens) float32."""
    import torch

    marked = torch.zeros(len(positions), len(positions[0]), tokens, device=device)
    for sample, of_words in enumerate(positions):
        for word, of_word in enumerate(of_words):
            marked[sample, word, list(of_word)] = 1
    return marked


def entropy(maps: NDArray[np.float64]) -> NDArray[np.float64]:
    """How spread a map (…, T) of shares is: Shannon's entropy of its parts over ln T. 1: even; 0: at one position.

    NaN for a single position, and where all shares are 0.
    """
    total = maps.sum(axis=-1)
    parts = maps / np.where(total > 0, total, 1)[..., None]
    spread = -(parts * np.log(np.where(parts > 0, parts, 1))).sum(axis=-1)
    if maps.shape[-1] < 2:
        return np.full(total.shape, np.nan)
    return np.where(total > 0, spread / np.log(maps.shape[-1]), np.nan)


def correlations(maps: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pearson's correlation over positions of maps (…, T) and others (…, T), broadcast; NaN where one is constant."""
    a, b = (values - values.mean(axis=-1, keepdims=True) for values in (maps, others))
    spread = np.sqrt(np.square(a).sum(axis=-1) * np.square(b).sum(axis=-1))
    # rounding of the values themselves is no difference
    scale = np.sqrt(np.square(maps).sum(axis=-1) * np.square(others).sum(axis=-1))
    product = (a * b).sum(axis=-1)
    undefined = np.full(product.shape, np.nan)
    return np.asarray(np.divide(product, spread, out=undefined, where=spread > 1e-6 * scale), np.float64)
