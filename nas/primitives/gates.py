"""Operations that look at their input before they act: squeeze-excite, selective kernel, conditional and
deformable convolution, non-local attention.
"""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor, nn

from nas.primitives.conv import FORMS, conv_bn, grouped
from nas.primitives.layers import Act, Gate, Norm, activation, normalisation
from nas.primitives.primitive import Tally, primitive

GATES: tuple[str, ...] = get_args(Gate)


def counts(
    c_in: int, c_out: int, stride: int, kernel: int = 3, groups: int = 1, **others: object
) -> str | None:
    """Why these numbers are impossible, or None: a count is at least 1, and `grouped` holds."""
    for name, value in {"groups": groups, **others}.items():
        if isinstance(value, int) and not isinstance(value, bool) and value < 1:
            return f"{name} is a count: at least 1, not {value}"
    return grouped(c_in, c_out, stride, kernel, groups)


class SqueezeExcite(nn.Module):
    """Weighs the channels by what all of the picture holds: (batch, channels, h, w), same shape (Hu 2018).

    The mean over height and width goes through two 1x1 convolutions, by way of `width` channels, and a gate
    in [0, 1]. Any block may hold one; `squeeze` is its cost and `squeeze_width` the usual width.
    """

    def __init__(
        self, channels: int, width: int, bias: bool = True, act: str = "relu", gate: str = "sigmoid"
    ) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, width, 1, bias=bias)
        if self.reduce.bias is not None:
            # Behind a norm the means are near zero: a negative bias would close a unit for every picture.
            nn.init.zeros_(self.reduce.bias)
        self.act = activation(act)
        self.restore = nn.Conv2d(width, channels, 1, bias=bias)
        self.gate = activation(gate)

    def forward(self, x: Tensor) -> Tensor:
        summary = self.act(self.reduce(x.mean(dim=(2, 3), keepdim=True)))  # (batch, width, 1, 1)
        weighed: Tensor = x * self.gate(self.restore(summary))
        return weighed


def squeeze(t: Tally, width: int, bias: bool = True) -> Tally:
    """Adds a `SqueezeExcite` of `width` to the tally; nothing if that is 0."""
    t.params += 2 * t.c * width + (width + t.c if bias and width else 0)
    t.macs += 2 * t.c * width
    return t


def squeeze_width(channels: int, ratio: float, multiple: int = 1) -> int:
    """`ratio` of the channels, rounded; to a `multiple` that is at most a tenth too small (MobileNetV3)."""
    wanted = channels * ratio
    width = max(multiple, int(wanted + multiple / 2) // multiple * multiple)
    return width + multiple if multiple > 1 and width < 0.9 * wanted else width


def _width(channels: int, reduction: int, width: int) -> int:
    return width or max(4, channels // reduction)  # of fewer units a ReLU may close all, for good


def _squeeze_excite(
    t: Tally,
    c: int,
    s: int,
    a: bool,
    reduction: int = 16,
    width: int = 0,
    bias: bool = True,
    **others: object,
) -> Tally:
    return squeeze(t, _width(c, reduction, width), bias)


@primitive(
    "squeeze_excite",
    cost=_squeeze_excite,
    rule=lambda c_in, c_out, stride, width=0, **others: counts(c_in, c_out, stride, **others),
    strides=(1,),
    keeps=True,
    attributes={
        "reduction": (16, 2),
        "width": (0, 5),
        "bias": (True, False),
        "act": ("relu", "silu"),
        "gate": GATES,
    },
)
def squeeze_excite(
    c_in: int,
    c_out: int,
    stride: int = 1,
    affine: bool = True,
    reduction: int = 16,
    width: int = 0,
    bias: bool = True,
    act: Act = "relu",
    gate: Gate = "sigmoid",
) -> nn.Module:
    """Squeeze-excite alone: channels weighed by the whole picture (Hu et al. 2018)

    The squeeze has `width` channels; if that is 0, the channels divided by `reduction`, but at least 4.
    """
    return SqueezeExcite(c_out, _width(c_out, reduction, width), bias, act, gate)


class SelectiveKernel(nn.Module):
    """Convolutions that see differently far, and for every channel a choice among them (Li 2019).

    (batch, c_in, h, w) -> (batch, c_out, ceil(h / stride), ceil(w / stride)). Path m is a 3x3 convolution of
    dilation m. `width`: channels of the descriptor that chooses. In training it needs two examples a batch,
    since the descriptor is one pixel and has a batch norm.
    """

    def __init__(
        self, c_in: int, c_out: int, stride: int, affine: bool, *, paths: int, groups: int, width: int
    ) -> None:
        super().__init__()
        self.paths = nn.ModuleList(
            conv_bn(c_in, c_out, stride, affine, groups=groups, dilation=path, act="relu")
            for path in range(1, paths + 1)
        )
        self.fuse = conv_bn(c_out, width, 1, affine, kernel=1, act="relu")
        self.select = nn.ModuleList(nn.Conv2d(width, c_out, 1, bias=False) for _ in range(paths))

    def forward(self, x: Tensor) -> Tensor:
        seen = torch.stack([path(x) for path in self.paths])  # (paths, batch, c_out, h, w)
        descriptor = self.fuse(seen.sum(dim=0).mean(dim=(2, 3), keepdim=True))
        scores = torch.stack([select(descriptor) for select in self.select])  # (paths, batch, c_out, 1, 1)
        return (seen * scores.softmax(dim=0)).sum(dim=0)


def _selective(
    t: Tally, c: int, s: int, a: bool, paths: int = 2, groups: int = 1, reduction: int = 16, least: int = 32
) -> Tally:
    t.join(*(t.branch().conv(c, 3, s, groups).norm(a) for _ in range(paths)), out=c)
    width = max(c // reduction, least)
    descriptor = Tally(c, 1, 1).conv(width).norm(a)
    t.params += descriptor.params + paths * width * c
    t.macs += descriptor.macs + paths * width * c
    return t


@primitive(
    "selective_kernel",
    cost=_selective,
    rule=counts,
    attributes={"paths": (2, 3), "groups": (1, 4), "reduction": (16, 2), "least": (32, 3)},
)
def selective_kernel(
    c_in: int,
    c_out: int,
    stride: int = 1,
    affine: bool = True,
    paths: int = 2,
    groups: int = 1,
    reduction: int = 16,
    least: int = 32,
) -> nn.Module:
    """Selective kernel: grouped 3x3 convolutions of dilation 1, 2, ..., chosen by attention (Li et al. 2019)

    The published networks have 32 groups. The descriptor has c_out / `reduction` channels, at least `least`.
    """
    width = max(c_out // reduction, least)
    return SelectiveKernel(c_in, c_out, stride, affine, paths=paths, groups=groups, width=width)


class CondConv(nn.Module):
    """A convolution whose kernel is mixed for every example out of those of `experts` (Yang 2019).

    (batch, c_in, h, w) -> (batch, c_out, ceil(h / stride), ceil(w / stride)). The mixed kernels of a batch
    run as one convolution with a group for each example.
    """

    def __init__(self, c_in: int, c_out: int, stride: int, *, kernel: int, experts: int) -> None:
        super().__init__()
        self.stride = stride
        self.routing = nn.Linear(c_in, experts)
        self.c_out, self.kernel = c_out, kernel
        self.experts = nn.ParameterList(
            nn.Conv2d(c_in, c_out, kernel, bias=False).weight for _ in range(experts)
        )

    def forward(self, x: Tensor) -> Tensor:
        batch, c_in, height, width = x.shape
        c_out, kernel = self.c_out, self.kernel
        routes = self.routing(x.mean(dim=(2, 3))).sigmoid()  # (batch, experts)
        experts = torch.stack(list(self.experts)).flatten(1)  # (experts, c_out * c_in * kernel * kernel)
        kernels = (routes @ experts).view(batch * c_out, c_in, kernel, kernel)
        if torch.compiler.is_compiling():  # exported programs have no groups that depend on the batch
            columns = nn.functional.unfold(x, kernel, padding=kernel // 2, stride=self.stride)
            products: Tensor = kernels.view(batch, c_out, -1) @ columns  # (batch, c_out, pixels)
            return products.view(batch, c_out, -(-height // self.stride), -(-width // self.stride))
        side_by_side = x.reshape(1, batch * c_in, height, width)
        y = nn.functional.conv2d(side_by_side, kernels, stride=self.stride, padding=kernel // 2, groups=batch)
        return y.view(batch, c_out, *y.shape[2:])


def _conditional(
    t: Tally,
    c: int,
    s: int,
    a: bool,
    kernel: int = 3,
    experts: int = 8,
    act: str = "relu",
    norm: str = "batch",
) -> Tally:
    mixed = t.c * c * kernel * kernel
    t.params += (experts - 1) * mixed + experts * (t.c + 1)
    t.macs += experts * (mixed + t.c)
    return t.conv(c, kernel, s).norm(a, norm)


@primitive(
    "condconv",
    cost=_conditional,
    rule=counts,
    attributes={"kernel": (3, 1, 5), "experts": (8, 4), **FORMS},
)
def condconv(
    c_in: int,
    c_out: int,
    stride: int = 1,
    affine: bool = True,
    kernel: int = 3,
    experts: int = 8,
    act: Act = "relu",
    norm: Norm = "batch",
) -> nn.Module:
    """Conditionally parametrised convolution, norm, activation (Yang et al. 2019)"""
    convolution = CondConv(c_in, c_out, stride, kernel=kernel, experts=experts)
    return nn.Sequential(convolution, normalisation(norm, c_out, affine), activation(act))


class DeformableConv(nn.Module):
    """A convolution that reads beside its grid, where a second convolution points (Dai 2017, Zhu 2019).

    (batch, c_in, h, w) -> (batch, c_out, ceil(h / stride), ceil(w / stride)). Every tap of the kernel has an
    offset in pixels, the same for all channels of one of the `groups`; between pixels the input is
    interpolated, outside it is zero. `modulated` (version 2): every tap also has a weight in [0, 1]. Made
    with all offsets zero and, if modulated, all weights a half. Offsets belong to one kernel size, so
    kernels of several sizes cannot share them.
    """

    def __init__(
        self, c_in: int, c_out: int, stride: int, *, kernel: int, groups: int, modulated: bool
    ) -> None:
        super().__init__()
        self.kernel, self.stride, self.groups = kernel, stride, groups
        taps = groups * kernel * kernel
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride=kernel, bias=False)  # the taps lie side by side
        self.offset = nn.Conv2d(c_in, 2 * taps, kernel, stride, kernel // 2)
        self.modulation = nn.Conv2d(c_in, taps, kernel, stride, kernel // 2) if modulated else None
        for pointer in (self.offset, *([self.modulation] if self.modulation else [])):
            for parameter in pointer.parameters():
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        batch, c_in, height, width = x.shape
        exact = torch.promote_types(x.dtype, torch.float32)  # half precision has no room for a place
        offsets = self._side_by_side(self.offset(x)).to(exact)
        parts = x.to(exact).reshape(batch * self.groups, c_in // self.groups, height, width)
        grid = self._grid(offsets, height, width)
        sampled = nn.functional.grid_sample(parts, grid, align_corners=False).to(x.dtype)
        if self.modulation is not None:
            sampled = sampled * self._side_by_side(self.modulation(x).sigmoid())
        y: Tensor = self.conv(sampled.reshape(batch, c_in, *sampled.shape[2:]))
        return y

    def _side_by_side(self, taps: Tensor) -> Tensor:
        """(batch, groups * n * kernel * kernel, h, w) -> (batch * groups, n, h * kernel, w * kernel)."""
        batch, channels, height, width = taps.shape
        k, n = self.kernel, channels // (self.groups * self.kernel**2)
        apart = taps.reshape(batch * self.groups, n, k, k, height, width).permute(0, 1, 4, 2, 5, 3)
        return apart.reshape(batch * self.groups, n, height * k, width * k)

    def _grid(self, offsets: Tensor, height: int, width: int) -> Tensor:
        """Where the taps read, in the units of grid_sample: -1 and 1 are the borders of the input."""
        y = self._regular(offsets.shape[2], offsets)[:, None] + offsets[:, 0]
        x = self._regular(offsets.shape[3], offsets)[None, :] + offsets[:, 1]
        return torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)

    def _regular(self, number: int, like: Tensor) -> Tensor:
        """The pixels, along one side, that an ordinary convolution reads."""
        place = torch.arange(number, device=like.device)
        pixel = place // self.kernel * self.stride + place % self.kernel - self.kernel // 2
        return pixel.to(like.dtype)


def _points(
    c_in: int, c_out: int, stride: int, kernel: int = 3, offset_groups: int = 1, **others: object
) -> str | None:
    return counts(c_in, offset_groups, stride, kernel, offset_groups)


def _deformable(
    t: Tally,
    c: int,
    s: int,
    a: bool,
    kernel: int = 3,
    offset_groups: int = 1,
    modulated: bool = False,
    act: str = "relu",
    norm: str = "batch",
) -> Tally:
    pointers = (3 if modulated else 2) * offset_groups * kernel * kernel
    pointing = t.branch().conv(pointers, kernel, s, bias=True)
    return t.join(pointing, t.branch().conv(c, kernel, s), out=c).norm(a, norm)


@primitive(
    "deformable_conv",
    cost=_deformable,
    rule=_points,
    attributes={"kernel": (3, 1, 5), "offset_groups": (1, 2), "modulated": (False, True), **FORMS},
    variants={"deformable_conv_v1": {"modulated": False}, "deformable_conv_v2": {"modulated": True}},
)
def deformable_conv(
    c_in: int,
    c_out: int,
    stride: int = 1,
    affine: bool = True,
    kernel: int = 3,
    offset_groups: int = 1,
    modulated: bool = False,
    act: Act = "relu",
    norm: Norm = "batch",
) -> nn.Module:
    """Deformable convolution, norm, activation (Dai et al. 2017; modulated: Zhu et al. 2019)"""
    convolution = DeformableConv(
        c_in, c_out, stride, kernel=kernel, groups=offset_groups, modulated=modulated
    )
    return nn.Sequential(convolution, normalisation(norm, c_out, affine), activation(act))


class NonLocal(nn.Module):
    """Every pixel adds what it attends to in all pixels: (batch, channels, h, w), same shape (Wang 2018).

    The embedded Gaussian form: a softmax over the products of two embeddings of `width` channels.
    """

    def __init__(self, channels: int, width: int, affine: bool = True) -> None:
        super().__init__()
        self.theta = nn.Conv2d(channels, width, 1)
        self.phi = nn.Conv2d(channels, width, 1)
        self.g = nn.Conv2d(channels, width, 1)
        self.restore = conv_bn(width, channels, 1, affine, kernel=1, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            each(x).flatten(2) for each in (self.theta, self.phi, self.g)
        )  # (batch, width, n)
        attention = (query.transpose(1, 2) @ key).softmax(dim=2)  # (batch, n, n)
        seen = (value @ attention.transpose(1, 2)).unflatten(2, x.shape[2:])
        y: Tensor = x + self.restore(seen)
        return y


def _non_local(t: Tally, c: int, s: int, a: bool, reduction: int = 2) -> Tally:
    width, pixels = max(1, c // reduction), t.h * t.w
    embeddings = [t.branch().conv(width, bias=True) for _ in range(3)]
    return t.join(*embeddings, out=width).products(2 * pixels**2 * width).conv(c, bias=True).norm(a)


@primitive(
    "non_local",
    cost=_non_local,
    rule=counts,
    strides=(1,),
    keeps=True,
    attributes={"reduction": (2, 1)},
)
def non_local(c_in: int, c_out: int, stride: int = 1, affine: bool = True, reduction: int = 2) -> nn.Module:
    """Non-local block: attention over all pixels, added to the input (Wang et al. 2018)"""
    return NonLocal(c_out, max(1, c_out // reduction), affine)
