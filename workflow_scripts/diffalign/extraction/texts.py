"""The extraction of a language model: texts in, pooled hidden states and losses out, each distinct text once."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from diffalign.extraction.passes import Kept
from diffalign.io.shard_files import Shard
from diffalign.logs import log, progress
from diffalign.models import LoadedLanguage, Tokenized
from diffalign.names import listed_layers
from diffalign.offenders import first_five, flagged


@dataclass(frozen=True)
class TextFeatures:
    """Features of texts, rows in order of name.

    mean, last: alias -> (N, D) float32, the masked mean over tokens and the last token. measures: (N, 6) float64 with
    the columns of `language_store.MEASURES`; a text without a prediction has 0 tokens predicted and 0 nats.
    """

    names: tuple[str, ...]
    mean: Mapping[str, NDArray[np.float32]]
    last: Mapping[str, NDArray[np.float32]]
    measures: NDArray[np.float64]


@dataclass(frozen=True)
class _Read:
    """What one text gave: of every layer the mean and the last token (D,), and what was predicted of it."""

    mean: Sequence[NDArray[np.float32]]
    last: Sequence[NDArray[np.float32]]
    predicted: int
    nats: float
    batch_size: int


def text_features(
    loaded: LoadedLanguage,
    layers: Mapping[str, str],
    texts: Mapping[str, str],
    batch_size: int,
    what: str = "texts",
    kept: Kept | None = None,
) -> TextFeatures:
    """Run every distinct text once, longest first.

    layers: alias -> number of the hidden state. texts: name -> text. batch_size: the most texts a forward pass; where
    memory runs out it is halved for the rest, which measures show. what: shown beside the progress. kept: where
    finished texts lie and go. Raises ValueError for a layer that does not exist, for texts without tokens, and for
    features that are NaN or infinite, and MemoryError where a single text does not fit.
    """
    distinct = list(dict.fromkeys(texts.values()))
    tokens = dict(zip(distinct, loaded.tokenize(distinct), strict=True))
    heard = {text: sum(id_ != loaded.skip or i > 0 for i, id_ in enumerate(each.ids)) for text, each in tokens.items()}
    mute = [name for name in sorted(texts) if not heard[texts[name]]]
    if mute:
        raise ValueError(f"the texts of {len(mute)} images have no token, first: {first_five(mute)}")
    order = sorted(distinct, key=lambda text: (-len(tokens[text].ids), text))
    reading = _resumed(loaded, layers, [tokens[text] for text in order], batch_size, kept)
    read = dict(zip(order, progress(reading, len(order), what), strict=True))
    names = tuple(sorted(texts))
    rows = [read[texts[name]] for name in names]
    mean, last = (
        {alias: np.stack([getattr(row, pooled)[i] for row in rows]) for i, alias in enumerate(layers)}
        for pooled in ("mean", "last")
    )
    for alias, values in (*mean.items(), *last.items()):
        bad = ~np.isfinite(values).all(axis=1)
        if bad.any():
            raise ValueError(f"layer {alias}: features are NaN or infinite for {first_five(flagged(names, bad))}")
    measures = []
    for name, row in zip(names, rows, strict=True):
        text = tokens[texts[name]]
        measures.append((text.length, len(text.ids), text.size, row.predicted, row.nats, row.batch_size))
    return TextFeatures(names, mean, last, np.array(measures, np.float64))


def _resumed(
    loaded: LoadedLanguage,
    layers: Mapping[str, str],
    tokens: Sequence[Tokenized],
    batch_size: int,
    kept: Kept | None,
) -> Iterator[_Read]:
    """What every text gives, in order; of finished texts as it is kept."""
    done = 0
    for shard in () if kept is None else kept.shards.finished():
        # what is left after a batch that did not fit goes on with the smaller batches
        batch_size = int(shard.facts["next_batch_size"])
        for i in range(len(shard.arrays["nats"])):
            yield _Read(
                [shard.arrays[f"mean:{alias}"][i] for alias in layers],
                [shard.arrays[f"last:{alias}"][i] for alias in layers],
                int(shard.arrays["predicted"][i]),
                float(shard.arrays["nats"][i]),
                int(shard.arrays["batch_size"][i]),
            )
            done += 1
    if done:
        log.info("goes on after %d texts", done)
    pending: list[_Read] = []
    since = time.monotonic()
    for gave in _read(loaded, layers, tokens[done:], batch_size):
        yield from gave
        pending += gave
        if kept is not None and time.monotonic() - since >= kept.seconds:
            kept.shards.append(_shard(layers, pending))
            pending, since = [], time.monotonic()


def _shard(layers: Mapping[str, str], made: Sequence[_Read]) -> Shard:
    """Texts that are done, as one shard."""
    arrays: dict[str, NDArray[Any]] = {}
    for i, alias in enumerate(layers):
        arrays[f"mean:{alias}"] = np.stack([each.mean[i] for each in made])
        arrays[f"last:{alias}"] = np.stack([each.last[i] for each in made])
    arrays["predicted"] = np.array([each.predicted for each in made], np.int64)
    arrays["nats"] = np.array([each.nats for each in made], np.float64)
    arrays["batch_size"] = np.array([each.batch_size for each in made], np.int64)
    return Shard(arrays, {"next_batch_size": made[-1].batch_size})


def _read(
    loaded: LoadedLanguage, layers: Mapping[str, str], tokens: Sequence[Tokenized], batch_size: int
) -> Iterator[list[_Read]]:
    """What every text gives, in order, in batches that are halved where memory runs out."""
    at = 0
    while at < len(tokens):
        members = tokens[at : at + batch_size]
        gave = _without_memory(loaded, layers, members, batch_size)
        if gave is not None:
            yield gave
            at += len(members)
            continue
        if len(members) == 1:
            raise MemoryError(f"memory does not hold a single text of {len(members[0].ids)} tokens")
        batch_size = len(members) // 2
        log.warning("out of memory: from here on %d texts at a time", batch_size)


def _without_memory(
    loaded: LoadedLanguage, layers: Mapping[str, str], members: Sequence[Tokenized], batch_size: int
) -> list[_Read] | None:
    """What a batch gives; None where memory runs out, of the GPU or of the host."""
    try:
        return _batch(loaded, layers, members, batch_size)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
    except RuntimeError as error:
        # the host's allocator has no exception of its own
        if "can't allocate memory" not in str(error):
            raise
    return None


def _batch(
    loaded: LoadedLanguage, layers: Mapping[str, str], members: Sequence[Tokenized], batch_size: int
) -> list[_Read]:
    width = max(len(text.ids) for text in members)
    ids = torch.full((len(members), width), loaded.pad, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for i, text in enumerate(members):
        ids[i, : len(text.ids)] = torch.tensor(text.ids)
        mask[i, : len(text.ids)] = 1
    with torch.inference_mode():
        states, logits = loaded.forward(ids, mask)
        absent = [alias for alias, number in layers.items() if not 0 <= int(number) < len(states)]
        if absent:
            raise ValueError(
                f"the model has {len(states)} hidden states, 0 to {len(states) - 1}, so there is no "
                f"{listed_layers(tuple(absent))}"
            )
        averaged = mask if loaded.skip is None else mask * ~((ids == loaded.skip) & (mask.cumsum(1) == 1))
        taken = [states[int(number)] for number in layers.values()]
        mean = [masked_mean(state, averaged).cpu().numpy() for state in taken]
        last = [last_token(state, mask).cpu().numpy() for state in taken]
        nats = [0.0] * len(members) if logits is None else causal_nats(logits, ids, mask).tolist()
    return [
        _Read(
            [values[i] for values in mean],
            [values[i] for values in last],
            0 if logits is None else len(text.ids) - 1,
            nats[i],
            batch_size,
        )
        for i, text in enumerate(members)
    ]


def masked_mean(states: Tensor, mask: Tensor) -> Tensor:
    """The mean over tokens (B, D) float32 of hidden states (B, T, D) where the mask (B, T) is 1, on any side."""
    mask = mask.to(states.device)
    # not a product: what stands where nothing is read may be infinite
    kept = torch.where(mask[..., None] > 0, states.float(), 0.0)
    return kept.sum(1) / mask.sum(1, keepdim=True)


def last_token(states: Tensor, mask: Tensor) -> Tensor:
    """The last token (B, D) float32 of hidden states (B, T, D) where the mask (B, T) is 1, on any side."""
    positions = torch.arange(mask.shape[1]) * mask.cpu()
    rows = torch.arange(len(states), device=states.device)
    return states[rows, positions.argmax(1).to(states.device)].float()


def causal_nats(logits: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """The sum over tokens but the first of -log p(token | tokens before it) in nats, (B,) float64.

    logits: (B, T, V). ids, mask: (B, T), padding on any side. As platonic-rep's cross_entropy_loss with padding on the
    left; with padding on the right that counts one prediction of padding a text.
    """
    nats = []
    for scores, text, read in zip(logits, ids.to(logits.device), mask.to(logits.device), strict=True):
        kept = read > 0
        losses = functional.cross_entropy(scores[kept][:-1].float(), text[kept][1:], reduction="none")
        nats.append(losses.double().sum())
    return torch.stack(nats).cpu()
