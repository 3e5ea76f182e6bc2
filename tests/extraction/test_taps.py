import pytest
import torch
from torch import Tensor, nn

from diffalign.extraction.taps import Taps, find_module


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x + self.linear(x)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(6))
        self.spare = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


LAYERS = {f"b{i}": f"blocks.{i}" for i in range(6)}


def test_one_pass_yields_every_layer_in_the_order_asked_for() -> None:
    net, x = Net(), torch.randn(3, 4)
    expected, states = x, []
    for block in net.blocks:
        expected = block(expected)
        states.append(expected)
    with Taps(net, {alias: LAYERS[alias] for alias in ("b4", "b0", "b2")}, lambda output: output) as taps:
        caught = taps.run(lambda: net(x))
    assert list(caught) == ["b4", "b0", "b2"]
    for alias in caught:
        assert torch.equal(caught[alias], states[int(alias[1:])])
    assert [block.calls for block in net.blocks] == [2, 2, 2, 2, 2, 1]


def test_a_block_beyond_the_deepest_layer_is_never_called() -> None:
    net = Net()
    with Taps(net, {"b2": "blocks.2"}, lambda output: output) as taps:
        taps.run(lambda: net(torch.randn(1, 4)))
        taps.run(lambda: net(torch.randn(1, 4)))
    assert [block.calls for block in net.blocks] == [2, 2, 2, 0, 0, 0]


def test_hooks_are_gone_afterwards() -> None:
    net = Net()
    with Taps(net, LAYERS, lambda output: output):
        pass
    net(torch.randn(1, 4))
    assert all(not block._forward_hooks for block in net.blocks)


def test_two_aliases_may_share_a_path_and_outputs_are_read_once() -> None:
    net = Net()
    read = []
    with Taps(net, {"a": "blocks.1", "b": "blocks.1"}, lambda output: read.append(1) or output.mean(0)) as taps:
        caught = taps.run(lambda: net(torch.randn(2, 4)))
    assert torch.equal(caught["a"], caught["b"])
    assert len(read) == 1


def test_paths_that_do_not_exist_are_refused_with_what_does() -> None:
    with pytest.raises(ValueError, match=r"no module 'blocks.9' in Net; .*there: blocks\.0, blocks\.1"):
        find_module(Net(), "blocks.9")
    with pytest.raises(ValueError, match=r"no module 'block'.* did you mean 'blocks'"):
        Taps(Net(), {"b": "block"}, lambda output: output)
    with pytest.raises(ValueError, match=r"no module 'blocks.1.conv'.*there: blocks\.1\.linear"):
        find_module(Net(), "blocks.1.conv")
    with pytest.raises(ValueError, match="no layers asked for"):
        Taps(Net(), {}, lambda output: output)


def test_a_layer_that_the_pass_never_reaches_is_an_error() -> None:
    net = Net()
    with (
        Taps(net, {"b0": "blocks.0", "spare": "spare"}, lambda output: output) as taps,
        pytest.raises(ValueError, match="never reached spare"),
    ):
        taps.run(lambda: net(torch.randn(1, 4)))


def test_an_error_of_the_model_is_not_swallowed() -> None:
    net = Net()
    with Taps(net, {"b5": "blocks.5"}, lambda output: output) as taps, pytest.raises(RuntimeError):
        taps.run(lambda: net(torch.randn(1, 5)))


class Repeated(nn.Module):
    """A module that is called three times a pass, and one once."""

    def __init__(self) -> None:
        super().__init__()
        self.again = nn.Linear(4, 4)
        self.last = Block()

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = self.again(x)
        return self.last(x)


def test_every_call_of_a_module_is_recorded_and_no_pass_is_cut_short() -> None:
    net, x = Repeated(), torch.randn(2, 4)
    states = [net.again(x)]
    states += [net.again(states[0])]
    states += [net.again(states[1])]
    layers = {"again": "again", "same": "again", "last": "last"}
    with Taps(net, layers, lambda output: output) as taps:
        first = taps.run(lambda: net(x))
        assert torch.equal(first["again"], states[0])
        net.last.calls = 0
        calls = taps.record(lambda: net(x))
        assert list(calls) == ["again", "same", "last"]
        assert [len(tensors) for tensors in calls.values()] == [3, 3, 1]
        assert all(torch.equal(found, expected) for found, expected in zip(calls["again"], states, strict=True))
        assert torch.equal(calls["last"][0], net(x))
        # several passes, of several sizes, are one recording
        both = taps.record(lambda: (net(x), net(x[:1])))
        assert [len(tensors) for tensors in both["again"]] == [2, 2, 2, 1, 1, 1]
        # and what was recorded changes no later pass
        assert torch.equal(taps.run(lambda: net(x))["again"], states[0])
    net.last.calls = 0
    with Taps(net, {"again": "again"}, lambda output: output) as taps:
        taps.run(lambda: net(x))
        assert net.last.calls == 0
        taps.record(lambda: net(x))
        assert net.last.calls == 1
    with (
        Taps(Net(), {"b0": "blocks.0", "spare": "spare"}, lambda output: output) as taps,
        pytest.raises(ValueError, match="never reached b0, spare"),
    ):
        taps.record(lambda: None)
