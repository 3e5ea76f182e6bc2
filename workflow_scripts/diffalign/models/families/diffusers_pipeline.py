"""Any text-to-image pipeline of diffusers (FLUX, PixArt, SANA, Lumina, Qwen-Image …), by its own conventions.

The pipeline itself runs, for one step of a scheduler that stands at the noise level (`diffalign.models.pipelines`).
Which prompt tensors it takes is read from its own call of encode_prompt.
"""

from __future__ import annotations

import ast
import copy
import inspect
import textwrap
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffalign.io.checkpoint_errors import CheckpointError
from diffalign.models.registry import Family
from diffalign.specs import Model

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from diffalign.models.protocol import Denoiser, Prediction
    from diffalign.noise import NoiseLevel

_DENOISERS = ("transformer", "unet")
# own names of modules in the transformer blocks of diffusers; those of text alone (ff_context, txt_mlp) are not here
_PARTS = {"attention": ("attn", "attn1", "attn2"), "mlp": ("ff", "img_mlp", "feed_forward", "act_mlp")}
# never guided: with guidance, a batch holds images twice
UNGUIDED = {"guidance_scale": 1.0, "true_cfg_scale": 1.0, "use_resolution_binning": False, "clean_caption": False}


def load(model: Model, folder: Path, device: torch.device) -> Denoiser:
    """Load the denoiser that model_index.json names, of which layers are modules.

    Noise levels are on the checkpoint's schedule, in the scheduler's clock. Raises CheckpointError.
    """
    import diffusers
    import torch

    from diffalign.models import schedules
    from diffalign.models import text_encoders as encoders
    from diffalign.models.diffusers_checkpoints import from_diffusers
    from diffalign.models.pipelines import OneStep, PipelineRun
    from diffalign.models.protocol import Denoiser
    from diffalign.models.residual_parts import named

    index, kind = encoders.read_index(folder), encoders.pipeline_class(folder)
    part = next((name for name in _DENOISERS if index.get(name, [None])[0]), None)
    if part is None:
        raise CheckpointError(f"{folder / 'model_index.json'}: names neither of {', '.join(_DENOISERS)}")
    net = from_diffusers(getattr(diffusers, index[part][1]), folder / part, model.initial_seed)
    net.eval().to(device)
    pipeline = encoders.without_encoders(folder, {part: net})
    as_prediction = schedules.conversion(pipeline.scheduler, folder)
    own = pipeline.scheduler
    pipeline.scheduler = OneStep(own.config)
    pipeline.set_progress_bar_config(disable=True)
    call = inspect.signature(kind.__call__).parameters
    settings = {key: value for key, value in UNGUIDED.items() if key in call}
    embedded = bool(net.config.get("guidance_embeds"))
    if embedded and isinstance(call["guidance_scale"].default, int | float):
        # a model that reads its guidance is given the one of its pipeline
        settings["guidance_scale"] = call["guidance_scale"].default
    run = PipelineRun(pipeline, net, settings)

    channels = int(net.config.in_channels) // (4 if run.is_packed else 1)

    def convert(output: Tensor, x_t: Tensor, level: NoiseLevel, _: Mapping[str, Tensor]) -> Prediction:
        return as_prediction(output, x_t, level)

    def scheduler(steps: int, side: int, conditioning: Mapping[str, Tensor], name: str | None) -> Any:
        like = schedules.scheduler_like(copy.deepcopy(own), name, folder)
        return run.scheduled(like, steps, torch.zeros(1, channels, side, side, device=device), conditioning)

    return Denoiser(
        net,
        partial(schedules.noise_level, folder, steps=model.strength_steps),
        run.output,
        convert,
        run.image_tokens,
        channels,
        {
            "diffusers": diffusers.__version__,
            "pipeline": kind.__name__,
            "tokens": "image stream",
            "pooling": "mean",
            "guidance": settings.get("guidance_scale") if embedded else None,
        },
        multiple=run.step,
        scheduler=scheduler,
        parts=named(net, _PARTS, r"(down|up)_blocks\.\d+|mid_block"),
    )


def embed_prompts(model: Model, folder: Path, texts: Sequence[str], device: torch.device) -> dict[str, Tensor]:
    """Embed texts as the pipeline, one at a time, padded to the longest: the tensors that it takes, float32 and masks.

    ``text`` is the last token that is no padding, by the mask; of pipelines without one, the pooled embedding.
    Raises CheckpointError for a pipeline that takes no embeddings of prompts.
    """
    import torch

    from diffalign.models import text_encoders as encoders

    pipeline = encoders.encoding_pipeline(folder, device, model.initial_seed)
    encoders.tell_cut_texts(pipeline, texts)
    call = inspect.signature(type(pipeline).__call__).parameters
    returned = _returned_names(type(pipeline))
    taken = [name for name in returned if name in call and not name.startswith("negative")]
    if "prompt_embeds" not in taken:
        raise CheckpointError(f"{type(pipeline).__name__} takes no prompt_embeds")
    encode = inspect.signature(pipeline.encode_prompt).parameters
    # what the call gives to the encoder by default
    own = {key: call[key].default for key in encode if key in call and call[key].default is not inspect.Parameter.empty}
    own |= {key: value for key, value in UNGUIDED.items() if key in encode}
    own |= {"device": device, "num_images_per_prompt": 1, "do_classifier_free_guidance": False}
    own = {key: value for key, value in own.items() if key in encode and not key.endswith(("_embeds", "_mask"))}
    rows: dict[str, list[Tensor]] = {name: [] for name in taken}
    with torch.inference_mode():
        for text in texts:
            encoded = pipeline.encode_prompt(**{**own, "prompt": text})
            named = dict(zip(returned, encoded if isinstance(encoded, tuple) else (encoded,), strict=True))
            length = named["prompt_embeds"].shape[1]
            for name in taken:
                # a mask that is left out means that nothing is padding
                row = torch.ones(length) if named[name] is None else named[name][0].cpu()
                rows[name].append(row.to(torch.int64) if name.endswith("mask") else row.float())
    longest = max(len(row) for row in rows["prompt_embeds"])
    tensors = {
        name: torch.stack([row if name.startswith("pooled") else _padded(row, longest) for row in parts])
        for name, parts in rows.items()
    }
    return {**tensors, "text": _alone(tensors)}


def _returned_names(kind: Any) -> list[str]:
    """What a pipeline calls the tensors that its encode_prompt returns, by the source of its call."""
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(kind.__call__)))):
        value = node.value if isinstance(node, ast.Assign) else None
        if isinstance(node, ast.Assign) and getattr(getattr(value, "func", None), "attr", "") == "encode_prompt":
            target = node.targets[0]
            parts = target.elts if isinstance(target, ast.Tuple) else [target]
            return [getattr(part, "id", "") for part in parts]
    raise CheckpointError(f"{kind.__name__} has no encode_prompt of its own, so its prompts cannot be kept")


def _padded(row: Tensor, length: int) -> Tensor:
    import torch

    return torch.cat([row, row.new_zeros(length - len(row), *row.shape[1:])])


def _alone(tensors: Mapping[str, Tensor]) -> Tensor:
    import torch

    embeds = tensors["prompt_embeds"]
    mask = next((value for name, value in tensors.items() if name.endswith("mask")), None)
    if mask is None:
        pooled = tensors.get("pooled_prompt_embeds")
        return (embeds[:, -1] if pooled is None else pooled).clone()
    places = torch.arange(mask.shape[1])
    return embeds[torch.arange(len(embeds)), (mask * places).argmax(1)]


def make_miniature(miniature: Mapping[str, Any], folder: Path, seed: int) -> None:
    """Write a narrow pipeline without autoencoder from ``miniature``.

    pipeline: its class. scheduler, transformer: ``class`` and the keys of its configuration. text_encoders: kinds
    (clip, t5, gemma2, qwen2_5_vl) in the order of the pipeline.
    """
    import diffusers
    import torch

    from diffalign.models import text_encoders as encoders

    torch.manual_seed(seed)
    parts: dict[str, Any] = {}
    for part in ("scheduler", "transformer"):
        entry = dict(miniature[part])
        name = entry.pop("class")
        getattr(diffusers, name)(**entry).save_pretrained(folder / part)
        parts[part] = ["diffusers", name]
    for number, kind in enumerate(miniature["text_encoders"], start=1):
        parts |= encoders.WRITERS[kind](folder, "" if number == 1 else f"_{number}")
    encoders.write_index(folder, miniature["pipeline"], parts)


FAMILY = Family(
    reads="latents",
    conditioned_on="prompts",
    untrained="configuration",
    schedulers=True,
    load=load,
    make_miniature=make_miniature,
    embed_prompts=embed_prompts,
    takes=("strength_steps",),
)
