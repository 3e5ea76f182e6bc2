"""Taps: one forward pass yields every requested layer, and stops after the deepest; or every call of each is kept."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from diffalign.names import nearest


class _Stop(Exception):
    """Ends a forward pass once every tap has fired."""


def find_module(root: nn.Module, path: str) -> nn.Module:
    """The submodule at a path such as ``blocks.8``. Raises ValueError with the nearest path that exists."""
    try:
        return root.get_submodule(path)
    except AttributeError:
        parent = path
        while "." in parent:
            parent = parent.rpartition(".")[0]
            try:
                children = [f"{parent}.{name}" for name, _ in root.get_submodule(parent).named_children()]
            except AttributeError:
                continue
            break
        else:
            children = [name for name, _ in root.named_children()]
        raise ValueError(
            f"no module '{path}' in {type(root).__name__}{nearest(path, children)}; there: {', '.join(children)}"
        ) from None


class Taps:
    """Hooks on the modules of the requested layers.

    root: the model. layers: alias -> module path; two aliases may share a path. read: turns a module's output into the
    tensor that is kept, on the device (pooling, usually). Raises ValueError for a path that does not exist.
    """

    def __init__(self, root: nn.Module, layers: Mapping[str, str], read: Callable[[Any], Tensor]) -> None:
        if not layers:
            raise ValueError("no layers asked for")
        self._read = read
        self._caught: dict[str, list[Tensor]] = {}
        self._every_call = False
        self._aliases: dict[str, list[str]] = {}
        for alias, path in layers.items():
            self._aliases.setdefault(path, []).append(alias)
        self._layers = dict(layers)
        modules = {path: find_module(root, path) for path in self._aliases}
        self._handles = [module.register_forward_hook(self._hook(path)) for path, module in modules.items()]

    def _hook(self, path: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if self._every_call:
                self._caught.setdefault(path, []).append(self._read(output))
                return
            if path in self._caught:
                return
            self._caught[path] = [self._read(output)]
            if len(self._caught) == len(self._aliases):
                raise _Stop

        return hook

    def run(self, forward: Callable[[], object]) -> dict[str, Tensor]:
        """Run one forward pass and return alias -> tensor in the order asked for.

        The pass stops as soon as every layer has been called; a module called more than once counts with its first
        call. Raises ValueError that names the layers that the pass never reached.
        """
        return {alias: calls[0] for alias, calls in self._run(forward, every_call=False).items()}

    def record(self, forward: Callable[[], object]) -> dict[str, list[Tensor]]:
        """Run `forward` to its end and return alias -> the tensors of every call of the module, in order of the calls.

        `forward` may be several passes, of several shapes, such as the steps of a sampler. Raises ValueError that names
        the layers that it never reached.
        """
        return self._run(forward, every_call=True)

    def _run(self, forward: Callable[[], object], every_call: bool) -> dict[str, list[Tensor]]:
        self._caught, self._every_call = {}, every_call
        with contextlib.suppress(_Stop):
            forward()
        silent = [alias for alias, path in self._layers.items() if path not in self._caught]
        if silent:
            raise ValueError(f"the forward pass never reached {', '.join(silent)}")
        caught = {alias: self._caught[path] for alias, path in self._layers.items()}
        self._caught = {}
        return caught

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()

    def __enter__(self) -> Taps:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
