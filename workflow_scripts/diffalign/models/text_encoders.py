"""Text encoders of diffusers pipelines: loading them without the rest, and miniatures at their real depth."""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from diffalign.io.checkpoint_errors import CheckpointError, check_there
from diffalign.logs import log
from diffalign.offenders import first_five

Parts = dict[str, list[str]]
# parts that see or make images and are left out
NO_IMAGES: Mapping[str, None] = dict.fromkeys(("vae", "safety_checker", "feature_extractor", "image_encoder"))
_DENOISERS: Mapping[str, None] = dict.fromkeys(("transformer", "unet"))


def read_index(folder: Path) -> dict[str, Any]:
    """model_index.json of a pipeline folder. Raises CheckpointError where there is none."""
    path = folder / "model_index.json"
    check_there(path)
    index: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return index


def pipeline_class(folder: Path) -> Any:
    """The pipeline that model_index.json names. Raises CheckpointError where this diffusers has none of that name."""
    import diffusers

    name = str(read_index(folder).get("_class_name"))
    kind = getattr(diffusers, name, None)
    if kind is None:
        raise CheckpointError(f"{folder / 'model_index.json'}: diffusers {diffusers.__version__} has no '{name}'")
    return kind


def encoding_pipeline(folder: Path, device: torch.device, initial_seed: int | None) -> Any:
    """A pipeline with its tokenizers and text encoders alone, in float32.

    initial_seed: for text encoders with the weights that they begin with, else None. Raises CheckpointError.
    """
    kind, index = pipeline_class(folder), read_index(folder)
    parts: dict[str, Any] = {**NO_IMAGES, **_DENOISERS}
    if initial_seed is not None:
        torch.manual_seed(initial_seed)
        for name in sorted(part for part in index if part.startswith("text_encoder")):
            parts[name] = _untrained(folder / name, index[name])
    return assembled(kind, folder, parts).to(device)


def tell_cut_texts(pipeline: Any, texts: Sequence[str]) -> None:
    """Log which texts are longer than a tokenizer of the pipeline reads; it cuts them without a word."""
    longest = inspect.signature(pipeline.encode_prompt).parameters.get("max_sequence_length")
    for name in sorted(part for part in pipeline.components if part.startswith("tokenizer")):
        tokenizer = getattr(pipeline, name)
        if tokenizer is None:
            continue
        limit = int(tokenizer.model_max_length)
        if longest is not None and "CLIP" not in type(tokenizer).__name__:
            limit = min(limit, int(longest.default))
        cut = [text for text in texts if len(tokenizer(text, truncation=False, verbose=False).input_ids) > limit]
        if cut:
            log.warning(
                "%d of %d texts are longer than the %d tokens that %s reads, and are cut, first: %s",
                *(len(cut), len(texts), limit, name, first_five(cut)),
            )


def assembled(kind: Any, folder: Path, parts: Mapping[str, Any]) -> Any:
    """A pipeline of the given parts; those of its class that are not given are read from the folder, in float32."""
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    taken = inspect.signature(kind.__init__).parameters
    return kind.from_pretrained(
        folder,
        **{name: part for name, part in parts.items() if name in taken},
        local_files_only=True,
        use_safetensors=True,
        low_cpu_mem_usage=False,
        torch_dtype=torch.float32,
    )


def without_encoders(folder: Path, parts: Mapping[str, Any]) -> Any:
    """A pipeline of the given parts, without text encoders and autoencoder: it takes embeddings and latents.

    Parts that its class needs and that are not given, such as the scheduler, are read from the folder.
    """
    absent = {name: None for name in read_index(folder) if name.startswith(("text_encoder", "tokenizer"))}
    return assembled(pipeline_class(folder), folder, {**NO_IMAGES, **absent, **parts})


def _untrained(where: Path, of: Sequence[str]) -> Any:
    import transformers

    kind = getattr(transformers, of[1])
    return kind(kind.config_class.from_pretrained(where, local_files_only=True)).eval()


def end_tokens(tokenizer: Any, texts: Sequence[str]) -> torch.Tensor:
    """Position of the last token of each text that is no padding."""
    tokens = tokenizer(list(texts), truncation=True, max_length=tokenizer.model_max_length)
    return torch.tensor([len(ids) - 1 for ids in tokens.input_ids])


def write_index(folder: Path, pipeline: str, parts: Mapping[str, Sequence[str]]) -> None:
    """model_index.json: which class of which library each part of the pipeline is; optional ones that lack are null."""
    import diffusers

    taken = list(inspect.signature(getattr(diffusers, pipeline).__init__).parameters)
    absent = {name: [None, None] for name in NO_IMAGES if name in taken and name != "vae"}
    index = {"_class_name": pipeline, **dict(sorted({**parts, **absent}.items()))}
    (folder / "model_index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")


def write_clip(folder: Path, suffix: str, layers: int, *, width: int, projection: bool) -> Parts:
    """A narrow CLIP text encoder, and a byte-level BPE without merges: every byte is a token, alone and at the end of a
    word.
    """
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    letters = sorted(ByteLevel.alphabet())
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[], model_max_length=77)
    tokenizer.save_pretrained(folder / f"tokenizer{suffix}")
    config = CLIPTextConfig(
        vocab_size=len(pieces),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        projection_dim=width,
        bos_token_id=len(pieces) - 2,
        eos_token_id=len(pieces) - 1,
        pad_token_id=len(pieces) - 1,
    )
    kind = CLIPTextModelWithProjection if projection else CLIPTextModel
    kind(config).save_pretrained(folder / f"text_encoder{suffix}")
    return _parts(suffix, kind.__name__, "CLIPTokenizer")


def write_t5(folder: Path, suffix: str, *, width: int) -> Parts:
    """A narrow T5-XXL encoder (24 layers), and a Unigram of characters."""
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    vocabulary = special + [(chr(code), -3.0) for code in range(33, 127)]
    tokenizer = T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=512)
    tokenizer.save_pretrained(folder / f"tokenizer{suffix}")
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=width,
        d_kv=16,
        d_ff=2 * width,
        num_layers=24,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        is_encoder_decoder=False,
        use_cache=False,
    )
    T5EncoderModel(config).save_pretrained(folder / f"text_encoder{suffix}")
    return _parts(suffix, "T5EncoderModel", "T5Tokenizer")


def write_gemma2(folder: Path, suffix: str, *, width: int) -> Parts:
    """A narrow Gemma 2 2B (26 layers), and a BPE without merges that falls back to bytes."""
    from transformers import Gemma2Config, Gemma2Model, GemmaTokenizer

    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁"]
    pieces = [*special, *(chr(code) for code in range(33, 127)), *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer = GemmaTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[])
    tokenizer.save_pretrained(folder / f"tokenizer{suffix}")
    config = Gemma2Config(
        vocab_size=len(pieces),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=26,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        query_pre_attn_scalar=16,
        sliding_window=4096,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )
    Gemma2Model(config).save_pretrained(folder / f"text_encoder{suffix}")
    return _parts(suffix, "Gemma2Model", "GemmaTokenizer")


def write_qwen2_5_vl(folder: Path, suffix: str, *, width: int) -> Parts:
    """A narrow Qwen2.5-VL 7B (28 layers of text), and a byte-level BPE without merges."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    pieces = [*sorted(ByteLevel.alphabet()), *special]
    tokenizer = Qwen2Tokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": special[1:]})
    tokenizer.save_pretrained(folder / f"tokenizer{suffix}")
    text = {
        "vocab_size": len(pieces),
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 28,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
        "bos_token_id": 256,
        "eos_token_id": 256,
        "pad_token_id": 256,
    }
    vision = {
        "depth": 1,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_heads": 2,
        "out_hidden_size": width,
        "fullatt_block_indexes": [0],
    }
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision)
    Qwen2_5_VLForConditionalGeneration(config).save_pretrained(folder / f"text_encoder{suffix}")
    return _parts(suffix, "Qwen2_5_VLForConditionalGeneration", "Qwen2Tokenizer")


def _parts(suffix: str, encoder: str, tokenizer: str) -> Parts:
    return {f"text_encoder{suffix}": ["transformers", encoder], f"tokenizer{suffix}": ["transformers", tokenizer]}


# the text encoders of miniatures by kind
WRITERS: Mapping[str, Callable[[Path, str], Parts]] = {
    "clip": lambda folder, suffix: write_clip(folder, suffix, 12, width=32, projection=False),
    "t5": lambda folder, suffix: write_t5(folder, suffix, width=64),
    "gemma2": lambda folder, suffix: write_gemma2(folder, suffix, width=64),
    "qwen2_5_vl": lambda folder, suffix: write_qwen2_5_vl(folder, suffix, width=64),
}
