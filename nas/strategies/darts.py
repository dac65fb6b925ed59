"""DARTS (Liu, Simonyan, Yang, ICLR 2019): architecture search by gradient descent.

The best weights w*(a) of an architecture are approximated by the present ones (first order) or by one step
of training (second order, equation 6).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from nas.search_space import SearchSpace
from nas.strategies.differentiable import Differentiable
from nas.strategies.shared_weights import Batch, Positive, Tensors
from nas.strategies.strategy import STRATEGIES
from nas.supernet.norms import still


@STRATEGIES.register("darts", budget="50epochs")
@dataclass(eq=False)
class Darts(Differentiable):
    """DARTS: alphas and weights trained in turn by gradient descent

    Args:
        order: 1, or 2 for the gradient through one step of training (equation 6).
        unrolled: how the second order is computed: ``finite`` is the paper's difference (equation 8),
            ``exact`` a double backward pass.
        epsilon: of the finite difference, divided by the norm of the gradient (the paper: 0.01).
    """

    order: Literal[1, 2] = 1
    unrolled: Literal["finite", "exact"] = "finite"
    epsilon: Positive = 0.01

    def check(self, space: SearchSpace) -> None:
        super().check(space)
        if self.order == 1 and self.unrolled != Darts.unrolled:
            raise ValueError(
                "strategy.unrolled is of the second order: set strategy.order=2, or leave it out"
            )
        if self.epsilon != Darts.epsilon and (self.order == 1 or self.unrolled == "exact"):
            raise ValueError(
                "strategy.epsilon is of the finite difference of second order: set strategy.order=2 and "
                "strategy.unrolled=finite, or leave it out"
            )

    def conflicts(self) -> Iterator[str]:
        yield from super().conflicts()
        if self.order == 1:
            return
        if self.recompute:
            yield "strategy.order=2 takes gradients at other weights, which strategy.recompute does not know"
        if self.compile and self.unrolled == "exact":
            yield "strategy.unrolled=exact takes second derivatives, which strategy.compile does not give"
        if self.precision == "bfloat16" and self.unrolled == "finite":
            yield "strategy.unrolled=finite moves weights a little, which strategy.precision rounds away"

    def alpha_gradient(self, train: Batch, valid: Batch) -> Tensors:
        """The gradient of the validation loss with respect to each alpha, of first or second order."""
        if self.order == 1:
            return super().alpha_gradient(train, valid)
        if self.unrolled == "finite":
            gradients = self._finite_difference(train, valid)
        else:
            with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
                stepped = self.stepped(self.weights, train, differentiable=True)
                gradients = list(torch.autograd.grad(self.loss(stepped, valid), list(self.alphas.values())))
        return dict(zip(self.alphas, gradients, strict=True))

    def loss(self, weights: Mapping[str, Tensor], batch: Batch, *, detached: bool = False) -> Tensor:
        """Cross-entropy of the supernet with these weights; its running statistics stay as they are.
        Detached: it has no gradient to the alphas.
        """
        x, y = batch
        with still(self.supernet), self.rounding():
            logits = torch.func.functional_call(
                self.supernet, dict(weights), (x, self.mixing(detached=detached))
            )
            return nn.functional.cross_entropy(logits, y)

    def stepped(
        self, weights: Mapping[str, Tensor], batch: Batch, *, differentiable: bool = False
    ) -> Tensors:
        """The weights after one step of SGD with momentum and weight decay on `batch`: w' of equation 6."""
        gradients = self.group.mean(
            torch.autograd.grad(
                self.loss(weights, batch, detached=not differentiable),
                list(weights.values()),
                create_graph=differentiable,
            )
        )
        old = list(weights.values())
        with torch.set_grad_enabled(differentiable):
            step = torch._foreach_add(gradients, old, alpha=self.weight_decay)
            step = torch._foreach_add(step, self._velocities(), alpha=self.momentum)
            new = torch._foreach_add(old, step, alpha=-self.rate)
        return dict(zip(weights, new, strict=True))

    def _velocities(self) -> list[Tensor]:
        found = [self.weight_optimizer.state[w].get("momentum_buffer") for w in self.weights.values()]
        return [
            torch.zeros_like(w) if v is None else v for w, v in zip(self.weights.values(), found, strict=True)
        ]

    def _finite_difference(self, train: Batch, valid: Batch) -> list[Tensor]:
        """Equations 7 and 8: Hessian times gradient from two gradients, at w +- epsilon v / |v|."""
        alphas = list(self.alphas.values())
        stepped = {name: w.requires_grad_() for name, w in self.stepped(self.weights, train).items()}
        gradients = self.group.mean(
            torch.autograd.grad(self.loss(stepped, valid), [*alphas, *stepped.values()])
        )
        direct, v = gradients[: len(alphas)], gradients[len(alphas) :]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(v)))
        radius = self.epsilon / norm
        weights = [weight.detach() for weight in self.weights.values()]
        change = torch._foreach_mul(v, radius)
        sides = []
        for moved in (torch._foreach_add, torch._foreach_sub):
            at = dict(zip(self.weights, moved(weights, change), strict=True))
            sides.append(torch.autograd.grad(self.loss(at, train), alphas))
        return [
            g - self.rate * (up - down) / (2 * radius) for g, up, down in zip(direct, *sides, strict=True)
        ]
