"""The published residual network: its size, its shapes, and Keras' conventions."""

from __future__ import annotations

import pytest
import torch
from support.network_tools import label_of, network_of
from torch import nn

from streamtrain.networks.layers import BatchNorm, SameConv, SameMaxPool, same_padding
from streamtrain.networks.resnet import Block

PUBLISHED = (10, 64, 64)


def test_published_number_of_parameters() -> None:
    """159 589 153 in Keras' summary, which counts running moments too."""
    with torch.device("meta"):
        network = network_of(PUBLISHED, label_of(49), kind="resnet")
    parameters = sum(p.numel() for p in network.parameters())
    running = sum(b.numel() for name, b in network.named_buffers() if "running" in name)
    assert parameters + running == 159_589_153
    assert parameters == 159_518_929


def test_published_shape_of_every_stage() -> None:
    with torch.device("meta"):
        network = network_of(PUBLISHED, label_of(49), kind="resnet").eval()
        body, shapes = network.body, []

        def note(_: nn.Module, __: object, output: torch.Tensor) -> None:
            shapes.append(tuple(output.shape[1:]))

        for module in (body.stem, body.pool, *body.stages, body.dense, body.output):
            module.register_forward_hook(note)
        network(torch.empty(1, *PUBLISHED))
    assert shapes == [
        (64, 5, 32, 32),
        (64, 3, 16, 16),
        (256, 3, 16, 16),
        (512, 2, 8, 8),
        (1024, 1, 4, 4),
        (2048, 1, 2, 2),
        (1000,),
        (49,),
    ]
    assert [len(stage) for stage in body.stages] == [3, 4, 6, 3]


def test_conventions_of_keras() -> None:
    network = network_of((4, 20, 20), kind="resnet", filters=2)
    norms = [m for m in network.modules() if isinstance(m, BatchNorm)]
    assert {(norm.momentum, norm.eps) for norm in norms} == {(0.01, 1e-3)}
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv3d)]
    assert len(convolutions) == 1 + 3 * 16 + 4
    assert all(c.bias is not None and not c.bias.any() for c in convolutions)
    assert network.body.dropout.p == 0.5


def test_first_weights_are_glorots() -> None:
    """Uniform in +-sqrt(6 / (fan_in + fan_out)), for groups those of one group."""
    for layer, fans in (
        (SameConv(16, 32, (3, 3, 3), (1, 1, 1)), 27 * (16 + 32)),
        (SameConv(16, 32, (3, 3, 3), (1, 1, 1), groups=4), 27 * (4 + 8)),
        (SameConv(16, 32, (5, 5), (2, 2)), 25 * (16 + 32)),
    ):
        weight, limit = layer.convolution.weight.detach(), (6 / fans) ** 0.5
        assert 0.98 * limit < weight.abs().max() <= limit
        assert weight.std().item() == pytest.approx(limit / 3**0.5, rel=0.05)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "pads"),
    [
        (64, 7, 2, (2, 3)),
        (10, 7, 2, (2, 3)),
        (32, 3, 2, (0, 1)),
        (5, 3, 2, (1, 1)),
        (16, 3, 2, (0, 1)),
        (3, 3, 2, (1, 1)),
        (1, 3, 2, (1, 1)),
        (5, 2, 2, (0, 1)),
        (64, 3, 1, (1, 1)),
    ],
)
def test_same_padding_is_tensorflows(
    size: int, kernel: int, stride: int, pads: tuple[int, int]
) -> None:
    """The odd zero comes last; the output has ceil(size / stride) entries."""
    assert same_padding(size, kernel, stride) == pads
    assert (size + sum(pads) - kernel) // stride + 1 == -(-size // stride)


def test_strided_convolution_and_maximum_on_numbers_by_hand() -> None:
    """Four pixels, windows of three: [0 1 2], [2 3 -]; what lies beyond the edge is no maximum."""
    row = torch.tensor([-1.0, -2.0, -3.0, -4.0]).view(1, 1, 1, 4)
    layer = SameConv(1, 1, (1, 3), (1, 2))
    layer.convolution.weight.data.copy_(torch.tensor([1.0, 10.0, 100.0]).view(1, 1, 1, 3))
    assert layer(row).flatten().tolist() == [-321.0, -43.0]
    pooled = SameMaxPool((1, 3), (1, 2))(row)
    assert pooled.flatten().tolist() == [-1.0, -3.0]


def test_groups_do_not_see_each_other() -> None:
    """In the 3^3 convolution of a ResNeXt block, channels of one group alone change with it."""
    block = Block(8, 8, 8, (1, 1, 1), groups=4)
    assert block.second.convolution.weight.shape == (8, 2, 3, 3, 3)
    x = torch.randn(1, 8, 3, 4, 4)
    changed = x.clone()
    changed[:, 2:4] += 1.0
    difference = (block.second(changed) - block.second(x)).abs().amax(dim=(0, 2, 3, 4))
    assert (difference > 1e-3).tolist() == [False, False, True, True, False, False, False, False]


def test_resnext_of_one_group_is_the_resnet() -> None:
    settings = {"filters": 2, "dense": 8}
    resnet = network_of((4, 20, 20), kind="resnet", **settings).eval()
    resnext = network_of((4, 20, 20), kind="resnext", cardinality=1, **settings).eval()
    resnet.body.output.weight.data.normal_()
    resnext.load_state_dict(resnet.state_dict())
    cube = torch.randn(2, 4, 20, 20)
    assert torch.equal(resnext(cube), resnet(cube))
