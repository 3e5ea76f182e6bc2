"""Any text-to-image pipeline of diffusers (FLUX, PixArt, SANA, Lumina, Qwen-Image …), by its own conventions.

The pipeline itself runs, for one step of a scheduler that stands at the noise level: it packs latents, converts the
clock, and builds ids, shapes and masks. Which prompt tensors it takes is read from its own call of encode_prompt.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import Tensor, nn

from diffalign.io.checkpoint_errors import CheckpointError
from diffalign.models import Loaded, from_diffusers, schedules, spatial_tokens
from diffalign.models import text_encoders as encoders
from diffalign.noise import NoiseLevel
from diffalign.specs import Model

# what a batch of this family holds
READS = "latents"

# an untrained twin needs the configuration alone
UNTRAINED = "configuration"

_DENOISERS = ("transformer", "unet")
# never guided: with guidance, a batch holds images twice
_UNGUIDED = {"guidance_scale": 1.0, "true_cfg_scale": 1.0, "use_resolution_binning": False, "clean_caption": False}


class OneStep:
    """In the place of a scheduler: a single step that begins at a given time, with the configuration of the own one."""

    order = 1
    init_noise_sigma = 1.0

    def __init__(self, config: Mapping[str, Any], timestep: float) -> None:
        self.config = config
        self.timesteps = torch.tensor([timestep])

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: torch.device | None = None,
        sigmas: object = None,
        timesteps: object = None,
        mu: float | None = None,
    ) -> None:
        """Stay where it is, whatever schedule the pipeline asks for."""
        del num_inference_steps, sigmas, timesteps, mu
        self.timesteps = self.timesteps.to(device)

    def set_begin_index(self, begin_index: int = 0) -> None:
        """There is only one."""

    def scale_model_input(self, sample: Tensor, *_: object) -> Tensor:
        """Latents come as the model reads them."""
        return sample

    def step(self, *given: Any, **_: object) -> tuple[Tensor, Tensor]:
        """Nothing is denoised: (prediction, time, latents) -> latents, twice."""
        return given[2], given[2]


def noise_level(model: Model, folder: Path, noise: str) -> NoiseLevel:
    """``t0.5`` or ``s20`` on the checkpoint's schedule, in the scheduler's clock. Raises CheckpointError."""
    return schedules.noise_level(folder, noise)


def load(model: Model, folder: Path, noise: str | None, device: torch.device) -> Loaded:
    """Load the denoiser that model_index.json names, of which layers are modules. Raises CheckpointError."""
    assert noise is not None  # the config is checked
    index, kind = encoders.read_index(folder), encoders.pipeline_class(folder)
    part = next((name for name in _DENOISERS if index.get(name, [None])[0]), None)
    if part is None:
        raise CheckpointError(f"{folder / 'model_index.json'}: names neither of {', '.join(_DENOISERS)}")
    net = from_diffusers(getattr(diffusers, index[part][1]), folder / part, model.initial_seed)
    net.eval().to(device)
    level = noise_level(model, folder, noise)
    absent = {name: None for name in index if name.startswith(("text_encoder", "tokenizer"))}
    pipeline = encoders.assembled(kind, folder, {**encoders.NO_IMAGES, **absent, part: net})
    pipeline.scheduler = OneStep(pipeline.scheduler.config, level.timestep)
    pipeline.set_progress_bar_config(disable=True)
    call = inspect.signature(kind.__call__).parameters
    settings = {key: value for key, value in _UNGUIDED.items() if key in call}
    embedded = bool(net.config.get("guidance_embeds"))
    if embedded and isinstance(call["guidance_scale"].default, int | float):
        # a model that is told its guidance is told what its pipeline tells it
        settings["guidance_scale"] = call["guidance_scale"].default
    run = _Run(pipeline, net, settings)
    return Loaded(
        net,
        run.forward,
        run.image_tokens,
        {
            "diffusers": diffusers.__version__,
            "pipeline": kind.__name__,
            "tokens": "image stream",
            "pooling": "mean",
            "guidance": settings.get("guidance_scale") if embedded else None,
            "noise_level": level.facts(),
        },
        latent_channels=int(net.config.in_channels) // (4 if run.is_packed else 1),
        multiple=run.step,
    )


class _Run:
    """One call of a pipeline, and where the tokens of the image stand in what a module of its denoiser returned."""

    def __init__(self, pipeline: Any, net: Any, settings: Mapping[str, Any]) -> None:
        self.is_packed = hasattr(pipeline, "_pack_latents")
        self._pipeline = pipeline
        self._settings = dict(settings)
        # latents are cut into patches of this side, by the pipeline or by its denoiser
        self.step = 2 if self.is_packed else int(net.config.get("patch_size") or 1)
        # a UNet has no text among its tokens, and as many as its stage has positions
        self._is_map = isinstance(net, diffusers.UNet2DConditionModel)
        self._order = _stream_order(net)
        self._mask: Tensor | None = None
        self._tokens = 0

    def forward(self, batch: Mapping[str, Any]) -> object:
        latents = batch["latents"]
        count, channels, height, width = latents.shape
        step = self.step
        self._tokens = (height // step) * (width // step)
        prompts = {key: value for key, value in batch.items() if key not in ("latents", "names")}
        self._mask = next((value for key, value in prompts.items() if key.endswith("mask")), None)
        if self.is_packed:
            latents = self._pipeline._pack_latents(latents, count, channels, height, width)
        scale = self._pipeline.vae_scale_factor
        return self._pipeline(
            latents=latents,
            height=height * scale,
            width=width * scale,
            num_inference_steps=1,
            output_type="latent",
            **self._settings,
            **prompts,
        )

    def image_tokens(self, output: Tensor | tuple[object, ...]) -> Tensor:
        """(B, T, D). Of two streams the image's; of a joint sequence what follows the text. Raises ValueError."""
        if isinstance(output, tuple):
            output = self._stream([part for part in output if isinstance(part, Tensor)])
        if output.ndim == 4:
            return spatial_tokens(output)
        if output.ndim != 3:
            raise ValueError(f"expected tokens (B, T, D) or a map (B, C, H, W), got {tuple(output.shape)}")
        surplus = output.shape[1] - self._tokens
        if self._is_map or surplus == 0:
            return output
        if surplus < 0:
            raise ValueError(f"{output.shape[1]} tokens are fewer than the {self._tokens} of the image")
        if self._mask is None or surplus == self._mask.shape[1]:
            return output[:, surplus:]
        # the text of each image without its padding, then the image: rows begin at different places
        at = self._mask.sum(1)[:, None] + torch.arange(self._tokens, device=output.device)
        return output.gather(1, at[..., None].expand(-1, -1, output.shape[2]))

    def _stream(self, streams: Sequence[Tensor]) -> Tensor:
        if len(streams) == 1 or self._is_map:
            return streams[0]
        fitting = [stream for stream in streams if stream.ndim == 3 and stream.shape[1] == self._tokens]
        if len(fitting) == 1:
            return fitting[0]
        if len(streams) == 2 and self._order is not None:
            return streams[self._order]
        raise ValueError(f"cannot tell which of {len(streams)} streams is the image's")


def _stream_order(net: nn.Module) -> int | None:
    """Which of two streams that blocks return is ``hidden_states``, by their source; None where they disagree."""
    found = set()
    for kind in {type(module) for module in net.modules() if type(module).__module__.startswith("diffusers.")}:
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(kind.forward)))):
            if isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple):
                names = [getattr(part, "id", "") for part in node.value.elts]
                if sorted(names) == ["encoder_hidden_states", "hidden_states"] and "Block" in kind.__name__:
                    found.add(names.index("hidden_states"))
    return found.pop() if len(found) == 1 else None


def embed_prompts(model: Model, folder: Path, texts: Sequence[str], device: torch.device) -> dict[str, Tensor]:
    """Embed texts as the pipeline, one at a time, padded to the longest: the tensors that it takes, float32 and masks.

    ``text`` is the last token that is no padding, by the mask; of pipelines without one, the pooled embedding.
    Raises CheckpointError for a pipeline that takes no embeddings of prompts.
    """
    pipeline = encoders.encoding_pipeline(folder, device, model.initial_seed)
    call = inspect.signature(type(pipeline).__call__).parameters
    returned = _returned_names(type(pipeline))
    taken = [name for name in returned if name in call and not name.startswith("negative")]
    if "prompt_embeds" not in taken:
        raise CheckpointError(f"{type(pipeline).__name__} takes no prompt_embeds")
    encode = inspect.signature(pipeline.encode_prompt).parameters
    # what it tells its encoder where the caller says nothing
    own = {key: call[key].default for key in encode if key in call and call[key].default is not inspect.Parameter.empty}
    own |= {key: value for key, value in _UNGUIDED.items() if key in encode}
    own |= {"device": device, "num_images_per_prompt": 1, "do_classifier_free_guidance": False}
    own = {key: value for key, value in own.items() if key in encode and not key.endswith(("_embeds", "_mask"))}
    rows: dict[str, list[Tensor]] = {name: [] for name in taken}
    with torch.inference_mode():
        for text in texts:
            found = pipeline.encode_prompt(**{**own, "prompt": text})
            told = dict(zip(returned, found if isinstance(found, tuple) else (found,), strict=True))
            length = told["prompt_embeds"].shape[1]
            for name in taken:
                # a mask that is left out means that nothing is padding
                row = torch.ones(length) if told[name] is None else told[name][0].cpu()
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
        found = node.value if isinstance(node, ast.Assign) else None
        if isinstance(node, ast.Assign) and getattr(getattr(found, "func", None), "attr", "") == "encode_prompt":
            target = node.targets[0]
            parts = target.elts if isinstance(target, ast.Tuple) else [target]
            return [getattr(part, "id", "") for part in parts]
    raise CheckpointError(f"{kind.__name__} has no encode_prompt of its own, so its prompts cannot be kept")


def _padded(row: Tensor, length: int) -> Tensor:
    return torch.cat([row, row.new_zeros(length - len(row), *row.shape[1:])])


def _alone(tensors: Mapping[str, Tensor]) -> Tensor:
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
