"""Language models and text encoders of transformers: every hidden state, layer 0 the embeddings."""

from __future__ import annotations

import importlib.util
import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffalign.io.checkpoint_errors import CheckpointError, check_keys
from diffalign.models.protocol import LoadedLanguage, Tokenized
from diffalign.models.registry import Family
from diffalign.specs import Model

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# more than this is a tokenizer's way to say that it knows no limit
_NO_LIMIT = 1_000_000


def load(model: Model, folder: Path, device: torch.device) -> LoadedLanguage:
    """Load the class that config.json names, every key of it, held in the precision of the entry.

    A causal model predicts the next token; any other class gives hidden states alone. Raises CheckpointError for a
    class that reads no texts, for an encoder and decoder in one, for a tokenizer that gives no offsets, and where
    ``quantization`` or ``device_map`` need a package that is not installed.
    """
    import transformers

    kind = _kind(folder)
    net = _read(model, folder, kind, device)
    net.eval()
    tokenizer = _tokenizer(folder)
    causal = kind in transformers.MODEL_FOR_CAUSAL_LM_MAPPING.values()
    positions = causal and "position_ids" in inspect.signature(net.forward).parameters
    uncached = {"use_cache": False} if "use_cache" in inspect.signature(net.forward).parameters else {}
    first = next(net.parameters()).device
    pad, padding = _padding(tokenizer)
    context = _context(model, net.config, tokenizer)

    def tokenize(texts: Sequence[str]) -> list[Tokenized]:
        return [_tokenized(tokenizer, text, context) for text in texts]

    def forward(ids: Tensor, mask: Tensor) -> tuple[Sequence[Tensor], Tensor | None]:
        read = mask.to(first)
        # a model that is given no positions counts padding on the left
        padded = positions and not bool(mask[:, 0].all())
        given = {"position_ids": (read.cumsum(1) - 1).clamp(min=0)} if padded else {}
        output = net(input_ids=ids.to(first), attention_mask=read, output_hidden_states=True, **given, **uncached)
        states = getattr(output, "hidden_states", None)
        if not states or states[0] is None:
            raise ValueError(f"{model.name}: {kind.__name__} gives no hidden states")
        return states, output.logits if causal else None

    facts = {
        "transformers": transformers.__version__,
        "class": kind.__name__,
        "tokens": "all" if not model.exclude_bos else "all but the beginning of the sequence",
        "padding": padding,
        "context": context,
        "quantization": model.quantization,
    }
    return LoadedLanguage(tokenize, forward, pad, _skipped(model, tokenizer), _parameters(net), facts)


def make_miniature(miniature: Mapping[str, Any], folder: Path, seed: int) -> None:
    """Write a narrow model from ``miniature``, and a tokenizer that knows bytes.

    Its keys are class, the name of a class of transformers; special, the special tokens that the model has, of bos,
    eos, pad, cls and sep; and those of the configuration of the class.
    """
    import torch

    widths = dict(miniature)
    kind = _named(str(widths.pop("class")), "miniature")
    special = list(widths.pop("special"))
    ids = _write_tokenizer(folder, special)
    named = {f"{name}_token_id": ids[name] for name in ("bos", "eos", "pad") if name in ids}
    config = kind.config_class(vocab_size=256 + len(special), **named, **widths)
    torch.manual_seed(seed)
    kind(config).save_pretrained(folder)


def _write_tokenizer(folder: Path, special: Sequence[str]) -> dict[str, int]:
    """A byte-level BPE without merges; bos, or cls and sep, stand around every text. Returns special token -> id."""
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = {piece: i for i, piece in enumerate([*letters, *(f"<{name}>" for name in special)])}
    ids = {name: pieces[f"<{name}>"] for name in special}
    tokenizer = Tokenizer(models.BPE(vocab=pieces, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    before = [name for name in ("bos", "cls") if name in ids]
    after = [name for name in ("sep",) if name in ids]
    if before or after:
        around = [*(f"<{name}>" for name in before), "$A", *(f"<{name}>" for name in after)]
        used = [(f"<{name}>", ids[name]) for name in (*before, *after)]
        tokenizer.post_processor = processors.TemplateProcessing(single=" ".join(around), special_tokens=used)
    named = {f"{name}_token": f"<{name}>" for name in special}
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named).save_pretrained(folder)
    return ids


def _kind(folder: Path) -> Any:
    """The class that config.json names. Raises CheckpointError."""
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(
            f"{path}: missing; a language model is a folder with config.json, weights and a tokenizer"
        )
    content = json.loads(path.read_text(encoding="utf-8"))
    named = content.get("architectures") or []
    if len(named) != 1:
        raise CheckpointError(f"{path}: names {len(named)} architectures; expected the class of the checkpoint")
    return _named(named[0], str(path))


def _named(name: str, where: str) -> Any:
    """A class of transformers that reads texts, alone. Raises CheckpointError."""
    import transformers

    kind: Any = getattr(transformers, name, None)
    is_model: bool = inspect.isclass(kind) and issubclass(kind, transformers.PreTrainedModel)
    if not is_model:
        raise CheckpointError(f"{where}: transformers {transformers.__version__} has no model '{name}'")
    if kind.main_input_name != "input_ids":
        raise CheckpointError(f"{where}: {name} reads {kind.main_input_name} and no texts")
    if "decoder_input_ids" in inspect.signature(kind.forward).parameters:
        raise CheckpointError(f"{where}: {name} is an encoder and a decoder in one; name its encoder's class")
    return kind


def _read(model: Model, folder: Path, kind: Any, device: torch.device) -> Any:
    """The model in its precision, on the device or spread as device_map says, or an untrained twin of it."""
    import torch

    dtype = getattr(torch, model.precision)
    # a pooler has no say in hidden states, and many checkpoints lack it
    bare = {"add_pooling_layer": False} if "add_pooling_layer" in inspect.signature(kind.__init__).parameters else {}
    if model.initial_seed is not None:
        torch.manual_seed(model.initial_seed)
        config = kind.config_class.from_pretrained(folder, local_files_only=True)
        return kind(config, **bare).to(dtype).to(device)
    spread: dict[str, Any] = {}
    if model.device_map is not None:
        _need("accelerate", f"models.{model.name}.device_map")
        spread["device_map"] = model.device_map
    if model.quantization is not None:
        for package in ("accelerate", "bitsandbytes"):
            _need(package, f"models.{model.name}.quantization")
        spread["quantization_config"] = _quantization(model.quantization, dtype)
        spread.setdefault("device_map", {"": device})
    net, info = kind.from_pretrained(
        folder, local_files_only=True, output_loading_info=True, dtype=dtype, **bare, **spread
    )
    unexpected = {key for key in info["unexpected_keys"] if not (bare and key.startswith("pooler."))}
    check_keys(set(info["missing_keys"]), unexpected, str(folder))
    return net if spread else net.to(device)


def _quantization(bits: str, dtype: torch.dtype) -> Any:
    """Weights in 8 bits, or in 4 as QLoRA has them (NF4, quantised twice), which is what platonic-rep takes."""
    import transformers

    if bits == "8bit":
        return transformers.BitsAndBytesConfig(load_in_8bit=True)
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_compute_dtype=dtype, bnb_4bit_use_double_quant=True, bnb_4bit_quant_type="nf4"
    )


def _need(package: str, what: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise CheckpointError(
            f"{what} needs the package {package}, which is not installed with this project: pip install {package}"
        )


def _parameters(net: Any) -> int:
    """How many parameters there are, tied ones once; those of 4-bit weights, which are packed, are unpacked."""
    return int(net.num_parameters())


def _tokenizer(folder: Path) -> Any:
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if not tokenizer.is_fast:
        raise CheckpointError(f"{folder}: {type(tokenizer).__name__} gives no offsets, so bytes cannot be counted")
    return tokenizer


def _padding(tokenizer: Any) -> tuple[int, str]:
    """The id of padding, and what it is. It is masked everywhere, so none is needed."""
    if tokenizer.pad_token_id is not None:
        return int(tokenizer.pad_token_id), "masked padding tokens"
    if tokenizer.eos_token_id is not None:
        return int(tokenizer.eos_token_id), "masked end-of-sequence tokens, for the tokenizer has no padding token"
    return 0, "masked tokens 0, for the tokenizer has no padding token"


def _context(model: Model, config: Any, tokenizer: Any) -> int | None:
    """How many tokens a text may have: the least of what the entry, the tokenizer and the positions say."""
    limits = [model.context, tokenizer.model_max_length, getattr(config, "max_position_embeddings", None)]
    known = [int(limit) for limit in limits if isinstance(limit, int | float) and 0 < limit < _NO_LIMIT]
    return min(known) if known else None


def _skipped(model: Model, tokenizer: Any) -> int | None:
    """The id of the beginning of a sequence, where it is left out of averages. Raises CheckpointError without one."""
    if not model.exclude_bos:
        return None
    begin = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.cls_token_id
    if begin is None or tokenizer("a").input_ids[0] != begin:
        raise CheckpointError(
            f"models.{model.name}.exclude_bos: the tokenizer puts no such token before a text; leave the key out"
        )
    return int(begin)


def _tokenized(tokenizer: Any, text: str, context: int | None) -> Tokenized:
    """One text, with special tokens, cut on the right to the context."""
    whole = tokenizer(text, verbose=False).input_ids
    size = len(text.encode())
    if context is None or len(whole) <= context:
        return Tokenized(tuple(whole), len(whole), size)
    cut = tokenizer(text, truncation=True, max_length=context, return_offsets_mapping=True)
    end = max(stop for _, stop in cut.offset_mapping)
    return Tokenized(tuple(cut.input_ids), len(whole), len(text[:end].encode()))


FAMILY = Family(
    reads="texts",
    takes=("context", "exclude_bos", "quantization", "device_map"),
    # an untrained twin needs the tokenizer as well
    untrained="configuration",
    load=load,
    make_miniature=make_miniature,
)
