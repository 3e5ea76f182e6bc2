"""Which families of models there are, and what each declares of itself.

A family is a module of `diffalign.models.families`, named like it, with one object: ``FAMILY``, a `Family`. All modules
are imported to list the families, so a family imports torch and other heavy libraries inside its functions.

`code_digests` cannot follow an import by name: a job depends on the file of its model's family, `module_path`, which
the plan gives to the digest, and on what that file imports.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from diffalign import job_records

_FOLDER = Path(__file__).parent / "families"


def _absent(what: str) -> Callable[..., Any]:
    """What stands for a function that a family does not have."""

    def absent(*_: object, **__: object) -> Any:
        raise ValueError(f"a family without '{what}' was asked for it")

    return absent


@dataclass(frozen=True)
class Family:
    """What a family of models declares of itself.

    reads: ``pixels``, ``latents`` or ``texts``, what its models see; ``features`` where none runs and features are
    files that were made elsewhere.
    conditioned_on: what a diffusion family is given beside latents, ``prompts`` or class ``labels``; None for nothing.
    needs, takes: keys of a model's entry that only some families know (see `config.models`): those that it cannot do
    without, and those that it may have.
    untrained: what untrained twins are made of. ``configuration``: the files of the checkpoint that hold no weights,
    from which `load` builds the architecture, with weights drawn by ``model.initial_seed``. ``architecture``: that of
    the entry, of which `make_miniature` writes a checkpoint of full size. None: there are no twins.
    has_weights: False where nothing is learned; its models have no checkpoint, and it has no `make_miniature`.
    decodes: whether `load` can load the decoder of an autoencoder.
    fitted: whether its weights are the mean and the power spectrum of latents, which a data set gives (``latents``).
    closed_form: whether its denoiser is known exactly: the reference line of the dynamics of others.
    schedulers: whether its models have one of diffusers, `Denoiser.scheduler`.
    trains: losses that its models can be trained with here; see `config.training`.
    weights_file: the one file that its weights are in, for families that read no other; None for others.
    completed_by: a module of `diffalign.models` whose function ``complete(entry)`` fills in what an entry leaves out.

    load(model, folder, device): reads the checkpoint in `folder`; a `Loaded` where the family reads pixels, a
    `Denoiser` where it reads latents, a `LoadedLanguage` where it reads texts. A family that decodes is asked for the
    decoder by ``decoder=True``.
    make_miniature(miniature, folder, seed): writes a narrow checkpoint that `load` reads.
    trainable(model, device): the network of the entry's architecture as its training begins, a `Trainable`.
    embed_prompts(model, folder, texts, device): dict of tensors of one row a text, what the model takes beside latents,
    and ``text``, what stands for the text alone.
    """

    reads: str
    conditioned_on: str | None = None
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    untrained: str | None = None
    has_weights: bool = True
    decodes: bool = False
    fitted: bool = False
    closed_form: bool = False
    schedulers: bool = False
    trains: tuple[str, ...] = ()
    weights_file: str | None = None
    completed_by: str | None = None
    load: Callable[..., Any] = field(default=_absent("load"), compare=False, repr=False)
    make_miniature: Callable[..., None] = field(default=_absent("make_miniature"), compare=False, repr=False)
    trainable: Callable[..., Any] = field(default=_absent("trainable"), compare=False, repr=False)
    embed_prompts: Callable[..., dict[str, Any]] = field(default=_absent("embed_prompts"), compare=False, repr=False)

    @property
    def complete(self) -> Callable[[Mapping[str, Any]], dict[str, Any]] | None:
        """Fills in what an entry leaves out, for families that can; it raises ValueError that says what is unknown."""
        return None if self.completed_by is None else self._complete

    def _complete(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        # by name, so that no extraction depends on how entries are completed
        module = importlib.import_module(f"diffalign.models.{self.completed_by}")
        completed: dict[str, Any] = module.complete(entry)
        return completed


@cache
def all_families() -> Mapping[str, Family]:
    """The families that exist by name, in alphabetical order. Raises TypeError for a module that declares none."""
    declared = {}
    for name in sorted(path.stem for path in _FOLDER.glob("*.py") if path.stem != "__init__"):
        family = getattr(importlib.import_module(f"diffalign.models.families.{name}"), "FAMILY", None)
        if not isinstance(family, Family):
            raise TypeError(f"{module_path(name)}: FAMILY = Family(…) is missing")
        declared[name] = family
    return declared


def find_family(name: str) -> Family:
    """One family. Raises ValueError for an unknown one."""
    if name not in all_families():
        raise ValueError(f"unknown family '{name}'; allowed: {', '.join(all_families())}")
    job_records.note_family(name)
    return all_families()[name]


def module_path(name: str) -> Path:
    """The file of a family."""
    return _FOLDER / f"{name}.py"
