"""DARTS (Liu, Simonyan, Yang, ICLR 2019), the plain formulation: one mixture of eight operations an edge.

Written from the paper, to be read first and to be trusted: it imports nothing but torch. It is the oracle for
the outputs and gradients of anything faster, and the reference that speed is measured against. At the paper's
size (16 channels, 8 cells, 10 classes) the supernet has 1,930,618 weights, as the authors' own.

Read it in order: the operations, the mixture, the cell, the network, then the alternating steps. Images are
(B, C, H, W), height and width divisible by 4; alphas are logits, (14, 8): edges x operations.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Batch = tuple[Tensor, Tensor]  # images (B, C, H, W), labels (B,)
Alphas = tuple[Tensor, Tensor]  # logits of the normal and of the reduction cell, each (14, 8)
Gradients = tuple[Tensor, ...]

STEPS = 4  # nodes computed in a cell; the output concatenates all of them
EDGES = 14  # node i reads the cell's two inputs and the i nodes before it: 2 + 3 + 4 + 5


def _norm(channels: int, affine: bool = False) -> nn.BatchNorm2d:
    """Batch normalisation without scale and shift: a scale could undo the weight of the mixture."""
    return nn.BatchNorm2d(channels, affine=affine)


def relu_conv_norm(c_in: int, *, c_out: int, affine: bool = False) -> nn.Sequential:
    return nn.Sequential(nn.ReLU(), nn.Conv2d(c_in, c_out, 1, bias=False), _norm(c_out, affine))


def separable(
    channels: int, *, kernel: int, stride: int, dilation: int = 1, affine: bool = False
) -> list[nn.Module]:
    padding = dilation * (kernel // 2)
    depthwise = nn.Conv2d(channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False)
    return [nn.ReLU(), depthwise, nn.Conv2d(channels, channels, 1, bias=False), _norm(channels, affine)]


class Zero(nn.Module):
    """No connection: zeros of the right shape."""

    def __init__(self, *, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, :: self.stride, :: self.stride] * 0.0


class FactorizedReduction(nn.Module):
    """Halves height and width (both even): the second half of the channels sees the odd pixels."""

    def __init__(self, c_in: int, *, c_out: int, affine: bool = False) -> None:
        super().__init__()
        self.even = nn.Conv2d(c_in, c_out // 2, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(c_in, c_out - c_out // 2, 1, stride=2, bias=False)
        self.norm = _norm(c_out, affine)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)  # (B, c_in, H, W)
        return self.norm(torch.cat([self.even(x), self.odd(x[:, :, 1:, 1:])], dim=1))  # (B, c_out, H/2, W/2)


OPTIONS: tuple[str, ...] = (
    "none", "max_pool_3x3", "avg_pool_3x3", "skip_connect",
    "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5",
)  # fmt: skip


def operation(name: str, *, channels: int, stride: int) -> nn.Module:
    """One of OPTIONS in search form: (B, channels, H, W) -> (B, channels, H/stride, W/stride)."""
    kernel = 5 if name.endswith("5x5") else 3
    match name:
        case "none":
            return Zero(stride=stride)
        case "skip_connect":
            return nn.Identity() if stride == 1 else FactorizedReduction(channels, c_out=channels)
        case "max_pool_3x3":
            return nn.Sequential(nn.MaxPool2d(3, stride, padding=1), _norm(channels))
        case "avg_pool_3x3":
            pool = nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)
            return nn.Sequential(pool, _norm(channels))
        case "dil_conv_3x3" | "dil_conv_5x5":
            return nn.Sequential(*separable(channels, kernel=kernel, stride=stride, dilation=2))
        case "sep_conv_3x3" | "sep_conv_5x5":  # applied twice, only the first time with the stride
            first = separable(channels, kernel=kernel, stride=stride)
            return nn.Sequential(*first, *separable(channels, kernel=kernel, stride=1))
    raise ValueError(f"no operation {name!r} (there are: {', '.join(OPTIONS)})")


class MixedOp(nn.Module):
    """One edge: the sum of all operations, each times its weight (equation 2 of the paper)."""

    def __init__(self, channels: int, *, stride: int, options: Sequence[str] = OPTIONS) -> None:
        super().__init__()
        self.ops = nn.ModuleList(operation(name, channels=channels, stride=stride) for name in options)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        return sum(weight * op(x) for weight, op in zip(weights, self.ops, strict=True))  # (operations,)


class Cell(nn.Module):
    """Two inputs, four nodes; a node is the sum of its edges from the inputs and all nodes before it."""

    def __init__(
        self,
        channels: int,
        *,
        inputs: tuple[int, int],
        reduction: bool,
        after_reduction: bool,
        options: Sequence[str] = OPTIONS,
    ) -> None:
        """`inputs`: the channels put out by the cell before the last and by the last cell."""
        super().__init__()
        shrink = FactorizedReduction if after_reduction else relu_conv_norm
        self.preprocess0 = shrink(inputs[0], c_out=channels)
        self.preprocess1 = relu_conv_norm(inputs[1], c_out=channels)
        self.edges = nn.ModuleList(
            MixedOp(channels, stride=2 if reduction and source < 2 else 1, options=options)
            for node in range(STEPS)
            for source in range(2 + node)
        )

    def forward(self, before_last: Tensor, last: Tensor, weights: Tensor) -> Tensor:
        states = [self.preprocess0(before_last), self.preprocess1(last)]  # each (B, channels, H, W)
        first = 0  # the edges are numbered node by node, within a node by source
        for _ in range(STEPS):
            edges = range(first, first + len(states))
            states.append(sum(self.edges[e](x, weights[e]) for e, x in zip(edges, states, strict=True)))
            first = edges.stop
        return torch.cat(states[2:], dim=1)  # (B, 4 * channels, H or H/2, W or W/2)


class Network(nn.Module):
    """Stem, cells (two of them reductions, which double the channels), global pooling, classifier."""

    def __init__(
        self,
        C: int = 16,
        *,
        classes: int = 10,
        layers: int = 8,
        input_channels: int = 3,
        options: Sequence[str] = OPTIONS,
    ) -> None:
        super().__init__()
        if layers < 3:
            raise ValueError(f"layers must be at least 3, or a kind of cell is missing; got {layers}")
        width = 3 * C
        stem = nn.Conv2d(input_channels, width, 3, padding=1, bias=False)
        self.stem = nn.Sequential(stem, nn.BatchNorm2d(width))
        self.reductions = frozenset({layers // 3, 2 * layers // 3})
        self.cells = nn.ModuleList()
        inputs = (width, width)
        for i in range(layers):
            reduction = i in self.reductions
            C *= 2 if reduction else 1
            after = i - 1 in self.reductions
            cell = Cell(C, inputs=inputs, reduction=reduction, after_reduction=after, options=options)
            self.cells.append(cell)
            inputs = (inputs[1], STEPS * C)
        self.classifier = nn.Linear(inputs[1], classes)

    def forward(self, x: Tensor, alphas_normal: Tensor, alphas_reduce: Tensor) -> Tensor:
        """(B, input_channels, H, W) and logits (14, 8) of both kinds of cell -> (B, classes)."""
        normal, reduce = alphas_normal.softmax(dim=-1), alphas_reduce.softmax(dim=-1)
        before_last = last = self.stem(x)
        for i, cell in enumerate(self.cells):
            weights = reduce if i in self.reductions else normal
            before_last, last = last, cell(before_last, last, weights)
        return self.classifier(last.mean(dim=(2, 3)))


def initial_alphas(generator: torch.Generator | None = None, *, options: Sequence[str] = OPTIONS) -> Alphas:
    """Logits near zero: every operation starts with about the same weight."""
    normal, reduce = (1e-3 * torch.randn(EDGES, len(options), generator=generator) for _ in range(2))
    return normal.requires_grad_(), reduce.requires_grad_()


def weight_optimizer(network: Network) -> torch.optim.SGD:
    """SGD as in appendix A.1; the paper also anneals the rate to 0.001 by a cosine, once an epoch."""
    return torch.optim.SGD(network.parameters(), lr=0.025, momentum=0.9, weight_decay=3e-4)


def alpha_optimizer(alphas: Alphas) -> torch.optim.Adam:
    """Adam as in appendix A.1."""
    return torch.optim.Adam(alphas, lr=3e-4, betas=(0.5, 0.999), weight_decay=1e-3)


def loss_of(network: Network, *, alphas: Alphas, batch: Batch) -> Tensor:
    return F.cross_entropy(network(batch[0], *alphas), batch[1])


def weight_step(
    network: Network, *, alphas: Alphas, train: Batch, optimizer: torch.optim.Optimizer, clip: float = 5.0
) -> Tensor:
    """One step of the weights on a training batch, gradient norm at most `clip`; the loss before it."""
    weights = list(network.parameters())
    loss = loss_of(network, alphas=alphas, batch=train)
    # Assigned rather than backward(), which would leave gradients on the alphas as well.
    for weight, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
        weight.grad = gradient
    nn.utils.clip_grad_norm_(weights, clip)
    optimizer.step()
    return loss.detach()


def first_order_gradient(network: Network, *, alphas: Alphas, batch: Batch) -> Gradients:
    """d L(w, alpha) / d alpha; on validation data the weights are taken for optimal (equation 6, xi = 0)."""
    return torch.autograd.grad(loss_of(network, alphas=alphas, batch=batch), alphas)


@torch.no_grad()
def _unroll(weights: Sequence[nn.Parameter], *, gradients: Gradients, sgd: torch.optim.SGD) -> None:
    """Move the weights to w', where a step of SGD with momentum and weight decay would take them."""
    group = sgd.param_groups[0]
    for weight, gradient in zip(weights, gradients, strict=True):
        direction = gradient + group["weight_decay"] * weight
        momentum = sgd.state.get(weight, {}).get("momentum_buffer")
        if momentum is not None:
            direction = direction + group["momentum"] * momentum
        weight.sub_(group["lr"] * direction)


@torch.no_grad()
def _place(
    weights: Sequence[nn.Parameter], *, origin: Gradients, direction: Gradients = (), step: float = 0.0
) -> None:
    """weights <- origin + step * direction; without a direction, the origin itself, bit for bit."""
    for i, weight in enumerate(weights):
        weight.copy_(origin[i] + step * direction[i] if direction else origin[i])


def second_order_gradient(
    network: Network,
    *,
    alphas: Alphas,
    train: Batch,
    valid: Batch,
    sgd: torch.optim.SGD,
    radius: float = 0.01,
) -> Gradients:
    """d L_valid(w', alpha) / d alpha with w' = w - xi d L_train(w, alpha) / dw (equations 7 and 8).

    xi is the learning rate of `sgd`, the optimizer of the weights; w' also has its momentum and weight decay.
    The Hessian's product with v = d L_valid / dw' is the difference of two gradients, at w + eps v and
    w - eps v, where eps = radius / |v|. The weights come back bit for bit; the running statistics of batch
    normalisation have seen four more batches.
    """
    weights = list(network.parameters())
    origin = tuple(weight.detach().clone() for weight in weights)
    gradients = torch.autograd.grad(loss_of(network, alphas=alphas, batch=train), weights)
    _unroll(weights, gradients=gradients, sgd=sgd)
    both = torch.autograd.grad(loss_of(network, alphas=alphas, batch=valid), (*alphas, *weights))
    direct, vector = both[: len(alphas)], both[len(alphas) :]
    eps = radius / float(nn.utils.get_total_norm(vector))
    slopes = []  # d L_train / d alpha on both sides of w
    for step in (eps, -eps):
        _place(weights, origin=origin, direction=vector, step=step)
        slopes.append(first_order_gradient(network, alphas=alphas, batch=train))
    _place(weights, origin=origin)
    xi = sgd.param_groups[0]["lr"]
    return tuple(d - xi * (p - m) / (2 * eps) for d, p, m in zip(direct, *slopes, strict=True))


def _move(alphas: Alphas, *, gradients: Gradients, optimizer: torch.optim.Optimizer) -> None:
    alphas[0].grad, alphas[1].grad = gradients
    optimizer.step()


def architect_step_first_order(
    network: Network, *, alphas: Alphas, valid: Batch, optimizer: torch.optim.Optimizer
) -> None:
    """One step of the alphas on a validation batch, first-order approximation."""
    _move(alphas, gradients=first_order_gradient(network, alphas=alphas, batch=valid), optimizer=optimizer)


def architect_step_second_order(
    network: Network,
    *,
    alphas: Alphas,
    train: Batch,
    valid: Batch,
    optimizer: torch.optim.Optimizer,
    sgd: torch.optim.SGD,
) -> None:
    """One step of the alphas on a validation batch, through one unrolled step `sgd` of the weights."""
    gradients = second_order_gradient(network, alphas=alphas, train=train, valid=valid, sgd=sgd)
    _move(alphas, gradients=gradients, optimizer=optimizer)


class SearchStep:
    """Algorithm 1: each call moves the alphas on a validation batch, then the weights on a training batch."""

    def __init__(self, network: Network, *, alphas: Alphas, order: int = 1) -> None:
        if order not in (1, 2):
            raise ValueError(f"order must be 1 (fast) or 2 (unrolled), got {order}")
        self.network, self.alphas, self.order = network, alphas, order
        self.sgd = weight_optimizer(network)
        self.adam = alpha_optimizer(alphas)

    def __call__(self, train: Batch, *, valid: Batch) -> Tensor:
        """The training loss before the step of the weights."""
        self.architecture(train, valid=valid)
        return self.weights(train)

    def weights(self, train: Batch) -> Tensor:
        return weight_step(self.network, alphas=self.alphas, train=train, optimizer=self.sgd)

    def architecture(self, train: Batch, *, valid: Batch) -> None:
        if self.order == 1:
            architect_step_first_order(self.network, alphas=self.alphas, valid=valid, optimizer=self.adam)
        else:
            architect_step_second_order(
                self.network, alphas=self.alphas, train=train, valid=valid, optimizer=self.adam, sgd=self.sgd
            )
