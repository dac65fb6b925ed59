"""EfficientNet (Tan & Le 2019): one searched network, scaled in width, depth and resolution together; and
EfficientNet-CondConv (Yang et al. 2019), whose last kernels are mixed for each example out of several.

At 224x224 pixels EfficientNet-B0 has 5,288,548 parameters and 385,814,752 multiply-adds (table 2: 5.3 and 390
million). The table's larger networks have more than it prints: B7 at 600x600 66,347,960 and 37,745,884,192.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from nas.primitives.conv import conv_bn
from nas.primitives.gates import SqueezeExcite
from nas.primitives.layers import activation
from nas.primitives.mobile import inverted_residual
from nas.primitives.regular import DropPath
from nas.search_space.mobile import rounded

from .family import baseline, one_of
from .mnasnet import Stage, as_released
from .mobilenet_v1 import Pooled

Variant = Literal[0, 1, 2, 3, 4, 5, 6, 7, 8, "l2"]
Conditional = Literal["b0_4e", "b0_8e", "b1_8e"]
SQUEEZE = 0.25  # of the channels that come into a block
STAGES = (  # table 1
    Stage(1, 3, 1, 16, 1), Stage(2, 3, 6, 24, 2), Stage(2, 5, 6, 40, 2), Stage(3, 3, 6, 80, 2),
    Stage(3, 5, 6, 112, 1), Stage(4, 5, 6, 192, 2), Stage(1, 3, 6, 320, 1),
)  # fmt: skip
CONDITIONAL = 4  # from this stage on, counted from 0, EfficientNet-CondConv mixes its kernels


class Scale(NamedTuple):
    """Multipliers of channels and of blocks, and the dropout before the classifier."""

    width: float
    depth: float
    dropout: float

    def but(self, **given: float | None) -> Scale:
        """The same scale with what is given (not None)."""
        return self._replace(**{name: value for name, value in given.items() if value is not None})


SCALES = {  # of the authors' code, whose pixels are 224, 240, 260, 300, 380, 456, 528, 600, 672 and 800
    0: Scale(1.0, 1.0, 0.2),
    1: Scale(1.0, 1.1, 0.2),
    2: Scale(1.1, 1.2, 0.3),
    3: Scale(1.2, 1.4, 0.3),
    4: Scale(1.4, 1.8, 0.4),
    5: Scale(1.6, 2.2, 0.4),
    6: Scale(1.8, 2.6, 0.5),
    7: Scale(2.0, 3.1, 0.5),
    8: Scale(2.2, 3.6, 0.5),  # AdvProp, Xie et al. 2020
    "l2": Scale(4.3, 5.3, 0.5),  # Noisy Student, Xie et al. 2020
}
EXPERTS = {  # variant -> scale and experts: the authors' b0-4e, b0-8e and b0-8e-depth
    "b0_4e": (Scale(1.0, 1.0, 0.25), 4),
    "b0_8e": (Scale(1.0, 1.0, 0.25), 8),
    "b1_8e": (Scale(1.0, 1.1, 0.25), 8),
}


class MixedConv(nn.Module):
    """A convolution whose kernel is a sum of those of experts, weighed for each example (Yang et al. 2019).

    (batch, c_in, h, w) and weights (batch, experts) -> (batch, c_out, ceil(h / stride), ceil(w / stride)).
    The mixed kernels of a batch run as one convolution with groups of its own for each example.
    """

    def __init__(
        self, c_in: int, c_out: int, stride: int = 1, *, kernel: int = 1, groups: int = 1, experts: int
    ) -> None:
        super().__init__()
        self.c_out, self.stride, self.kernel, self.groups = c_out, stride, kernel, groups
        self.experts = nn.ParameterList(
            torch.empty(c_out, c_in // groups, kernel, kernel) for _ in range(experts)
        )
        for expert in self.experts:  # as in `as_released`
            nn.init.normal_(expert, std=(2 * groups / (c_out * kernel * kernel)) ** 0.5)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        batch, c_in, height, width = x.shape
        c_out, kernel, stride, groups = self.c_out, self.kernel, self.stride, self.groups
        experts = torch.stack(list(self.experts)).flatten(1)  # (experts, c_out * c_in / groups * kernel^2)
        kernels = weights @ experts
        if torch.compiler.is_compiling():  # exported programs have no groups that depend on the batch
            columns = nn.functional.unfold(x, kernel, padding=kernel // 2, stride=stride)
            products = kernels.view(batch, groups, c_out // groups, -1) @ columns.unflatten(1, (groups, -1))
            return products.view(batch, c_out, -(-height // stride), -(-width // stride))
        kernels = kernels.view(batch * c_out, c_in // groups, kernel, kernel)
        apart = x.reshape(1, batch * c_in, height, width)
        y = nn.functional.conv2d(apart, kernels, None, stride, kernel // 2, groups=batch * groups)
        return y.view(batch, c_out, *y.shape[2:])


class ConditionalResidual(nn.Module):
    """An inverted residual whose three convolutions mix experts by the same weights, a sigmoid of the input.

    (batch, c_in, h, w) -> (batch, c_out, ceil(h / stride), ceil(w / stride)); the input is added where it has
    the shape of the output.
    """

    def __init__(self, c_in: int, c_out: int, stride: int, stage: Stage, *, experts: int) -> None:
        super().__init__()
        hidden, kernel = c_in * stage.expand, stage.kernel
        self.routing = nn.Linear(c_in, experts)
        self.expand = MixedConv(c_in, hidden, experts=experts)
        self.expanded = nn.Sequential(nn.BatchNorm2d(hidden), activation("silu"))
        self.depthwise = MixedConv(hidden, hidden, stride, kernel=kernel, groups=hidden, experts=experts)
        squeeze = SqueezeExcite(hidden, int(c_in * SQUEEZE), act="silu")
        self.filtered = nn.Sequential(nn.BatchNorm2d(hidden), activation("silu"), squeeze)
        self.narrow = MixedConv(hidden, c_out, experts=experts)
        self.project = nn.Sequential(nn.BatchNorm2d(c_out))
        self.residual = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        weights = self.routing(x.mean(dim=(2, 3))).sigmoid()  # (batch, experts)
        y = self.expanded(self.expand(x, weights))
        y = self.filtered(self.depthwise(y, weights))
        y = self.project(self.narrow(y, weights))
        return x + y if self.residual else y


Block = Callable[[int, int, int, Stage], nn.Module]


@baseline(
    small={"width": 0.25, "depth": 0.5, "drop_connect": 0.0, "classes": 10, "input": (3, 64, 64)},
)
def efficientnet(
    *,
    variant: Variant = 0,
    width: float | None = None,
    depth: float | None = None,
    dropout: float | None = None,
    drop_connect: float = 0.2,
    classes: int = 1000,
    input: Sequence[int] = (3, 224, 224),
) -> nn.Module:
    """EfficientNet-B0 to B7 (table 2), B8 of AdvProp and L2 of Noisy Student (both Xie et al. 2020).

    variant: says the other arguments where they are not given. width: multiplies the channels, which are
    rounded to multiples of 8 as in MobileNetV2. depth: multiplies the blocks of a stage, rounded up. dropout:
    before the classifier. drop_connect: in training an example skips a block with this probability times the
    number of the block, from 0, over that of all (Huang et al. 2016). Initial weights as in the authors' code
    (`as_released`).
    Only the channels of `input` shape the network: every variant has its own resolution. Raises ValueError
    for a variant that there is not, multipliers that are not positive, and a probability outside [0, 1).
    """
    one_of("variant", variant, SCALES)
    scale = SCALES[variant].but(width=width, depth=depth, dropout=dropout)
    return _scaled(scale, lambda stage: _plain, drop_connect, classes, input[0])


@baseline(
    small={"variant": "b0_4e", "width": 0.25, "drop_connect": 0.0, "classes": 10, "input": (3, 64, 64)},
)
def condconv_efficientnet(
    *,
    variant: Conditional = "b0_4e",
    width: float | None = None,
    depth: float | None = None,
    dropout: float | None = None,
    drop_connect: float = 0.2,
    classes: int = 1000,
    input: Sequence[int] = (3, 224, 224),
) -> nn.Module:
    """EfficientNet-CondConv: in the last three stages every block mixes its kernels of 4 or 8 experts.

    The three convolutions of a block have the same mixture. Arguments as in `efficientnet`; ``b1_8e`` has
    the depth of B1 and is called b0-8e-depth in the authors' code. Raises ValueError as there.
    """
    one_of("variant", variant, EXPERTS)
    scale, experts = EXPERTS[variant]
    scale = scale.but(width=width, depth=depth, dropout=dropout)

    def conditional(c_in: int, c_out: int, stride: int, stage: Stage) -> nn.Module:
        return ConditionalResidual(c_in, c_out, stride, stage, experts=experts)

    def block(stage: int) -> Block:
        return conditional if stage >= CONDITIONAL else _plain

    return _scaled(scale, block, drop_connect, classes, input[0])


def _plain(c_in: int, c_out: int, stride: int, stage: Stage) -> nn.Module:
    form = {"kernel": stage.kernel, "expand": stage.expand, "se": SQUEEZE, "se_act": "silu", "act": "silu"}
    return inverted_residual(c_in, c_out, stride, **form)


def _scaled(
    scale: Scale, block: Callable[[int], Block], drop_connect: float, classes: int, channels: int
) -> nn.Module:
    """The network at a scale; `block`: the kind of each stage, counted from 0."""
    if scale.depth <= 0:
        raise ValueError(f"depth multiplies the blocks and is above 0, not {scale.depth}")
    if not 0 <= drop_connect < 1:
        raise ValueError(f"drop_connect is a probability in [0, 1), not {drop_connect}")
    c_in = rounded(32 * scale.width)
    blocks: list[nn.Module] = []
    stem = conv_bn(channels, c_in, 2, act="silu")
    for place, stage in enumerate(STAGES):
        c_out = rounded(stage.channels * scale.width)
        for number in range(math.ceil(stage.blocks * scale.depth)):
            blocks.append(block(place)(c_in, c_out, 1 if number else stage.stride, stage))
            c_in = c_out
    for number, each in enumerate(blocks):
        if each.residual and drop_connect:
            each.project.append(DropPath(drop_connect * number / len(blocks)))
    last = rounded(1280 * scale.width)
    layers = [stem, *blocks, conv_bn(c_in, last, kernel=1, act="silu")]
    return as_released(Pooled(layers, nn.Dropout(scale.dropout), nn.Linear(last, classes)))
