"""DARTS (Liu, Simonyan, Yang, ICLR 2019): architecture search by gradient descent.

Weights w are trained on one half of the data, alphas on the other:  min_a L_val(w*(a), a),  w*(a) = argmin_w
L_train(w, a) (equations 3 and 4). w* is approximated by w itself (first order) or by one step of training
(second order, equation 6).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from nas.data.batches import Batches
from nas.search_space import Architecture, SearchSpace
from nas.seeding import derive, randomness
from nas.strategies.strategy import STRATEGIES, OneShot, Task
from nas.supernet import Supernet
from nas.train import accuracy

Rate = Annotated[float, Field(ge=0)]
Tensors = dict[str, Tensor]


@STRATEGIES.register("darts", budget="50epochs")
class Darts(OneShot):
    """DARTS: alphas and weights trained in turn by gradient descent

    The defaults are the paper's, for CIFAR-10 (section A.1).

    Args:
        order: 1, or 2 for the gradient through one step of training (equation 6).
        unrolled: how the second order is computed: ``finite`` is the paper's difference (equation 8),
            ``exact`` a double backward pass.
        epsilon: of the finite difference, divided by the norm of the gradient (the paper: 0.01).
        epochs: of search, if the budget does not say.
        batch: images a step, of each half.
        lr, lr_min, momentum, weight_decay, clip: of the weights: SGD, cosine, largest norm of the gradient.
        alpha_lr, alpha_betas, alpha_weight_decay: of the alphas: Adam.
    """

    def __init__(
        self,
        order: Literal[1, 2] = 1,
        unrolled: Literal["finite", "exact"] = "finite",
        epsilon: Annotated[float, Field(gt=0)] = 0.01,
        epochs: Annotated[int, Field(ge=1)] = 50,
        batch: Annotated[int, Field(ge=1)] = 64,
        lr: Annotated[float, Field(gt=0)] = 0.025,
        lr_min: Rate = 0.001,
        momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9,
        weight_decay: Rate = 3e-4,
        clip: Rate = 5.0,
        alpha_lr: Annotated[float, Field(gt=0)] = 3e-4,
        alpha_betas: tuple[float, float] = (0.5, 0.999),
        alpha_weight_decay: Rate = 1e-3,
    ) -> None:
        super().__init__()
        self.order, self.unrolled, self.epsilon = order, unrolled, epsilon
        self.epochs, self.batch = epochs, batch
        self.lr, self.lr_min, self.momentum, self.weight_decay, self.clip = (
            lr,
            lr_min,
            momentum,
            weight_decay,
            clip,
        )
        self.alpha_lr, self.alpha_betas, self.alpha_weight_decay = alpha_lr, alpha_betas, alpha_weight_decay

    def check(self, space: SearchSpace) -> None:
        super().check(space)
        if space.finish is not None:
            raise ValueError(
                f"the wiring of {space.name!r} decides its widths, so its options cannot be mixed as darts "
                "mixes them: search it with a strategy that trains architectures, as --strategy random does"
            )

    def prepare(self, task: Task) -> None:
        """Build supernet, alphas, optimizers and batches."""
        assert task.examples is not None
        self.task, self.device = task, torch.device(task.device)
        with randomness(task.seed, "supernet"):
            supernet = Supernet(task.space)
            alphas = {d.name: 1e-3 * torch.randn(d.rows, len(d.options)) for d in task.space.decisions}
        self.supernet = supernet.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.alphas = {name: nn.Parameter(alpha.to(self.device)) for name, alpha in alphas.items()}
        self.weights = dict(self.supernet.named_parameters())
        self.weight_optimizer = torch.optim.SGD(
            self.weights.values(),
            self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            foreach=True,
        )
        self.alpha_optimizer = torch.optim.Adam(
            self.alphas.values(),
            self.alpha_lr,
            betas=self.alpha_betas,
            weight_decay=self.alpha_weight_decay,
            foreach=True,
        )
        part = {name: getattr(task.examples, name) for name in ("mean", "std", "augment")}
        self.train_batches, self.valid_batches = (
            Batches(
                split,
                batch=min(self.batch, len(task.examples.train), len(task.examples.valid)),
                device=self.device,
                seed=derive(task.seed, name),
                shuffle=True,
                drop_last=True,
                **part,
            )
            for name, split in (("train", task.examples.train), ("valid", task.examples.valid))
        )

    # --- one epoch ------------------------------------------------------------------------------------------

    def train_epoch(self, number: int) -> dict[str, float]:
        self.supernet.train()
        self.rate = (
            self.lr_min + (self.lr - self.lr_min) * (1 + math.cos(math.pi * number / self.horizon)) / 2
        )
        for group in self.weight_optimizer.param_groups:
            group["lr"] = self.rate
        total = torch.zeros((), device=self.device, dtype=torch.float64)
        right = torch.zeros((), device=self.device, dtype=torch.int64)
        steps, seen = len(self.train_batches), 0
        valid = self._valid_forever(number)
        with randomness(self.task.seed, "epoch", number):
            for step, (x, y) in enumerate(self.train_batches.epoch(number)):
                loss, hits = self.step((x, y), next(valid))
                total += loss * len(y)
                right += hits
                seen += len(y)
                if self.task.tick:
                    self.task.tick(step + 1, steps)
        return self._metrics(total.item() / seen, right.item() / seen)

    def _valid_forever(self, number: int) -> Any:
        """Batches of the half that trains the alphas, as many as are asked for."""
        part = 0
        while True:
            yield from self.valid_batches.epoch(number * 1000 + part)
            part += 1

    def step(self, train: tuple[Tensor, Tensor], valid: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Algorithm 1: a step of the alphas, then a step of the weights. Loss and number of right answers."""
        self.alpha_step(train, valid)
        return self.weight_step(train)

    def alpha_step(self, train: tuple[Tensor, Tensor], valid: tuple[Tensor, Tensor]) -> None:
        """Descend the validation loss with respect to the alphas."""
        gradients = self.alpha_gradient(train, valid)
        for name, alpha in self.alphas.items():
            alpha.grad = gradients[name]
        self.alpha_optimizer.step()

    def weight_step(self, train: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Descend the training loss with respect to the weights; the loss and the number of right answers."""
        x, y = train
        logits = self.supernet(x, self.mixing(detached=True))
        loss = nn.functional.cross_entropy(logits, y)
        self.weight_optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.clip:
            nn.utils.clip_grad_norm_(self.weights.values(), self.clip, foreach=True)
        self.weight_optimizer.step()
        return loss.detach(), (logits.detach().argmax(1) == y).sum()

    def mixing(self, *, detached: bool = False) -> Tensors:
        """The table of each decision: softmax over the operations (equation 2).

        Where one of several rows is kept (half a NASNet block: which input, which operation), rows and
        options are one choice, and the softmax is over both.
        """
        tables = {}
        for decision in self.task.space.decisions:
            alpha = self.alphas[decision.name].detach() if detached else self.alphas[decision.name]
            joint = decision.keep == 1
            tables[decision.name] = alpha.flatten().softmax(0).view_as(alpha) if joint else alpha.softmax(-1)
        return tables

    # --- the gradient of the alphas -------------------------------------------------------------------------

    def alpha_gradient(self, train: tuple[Tensor, Tensor], valid: tuple[Tensor, Tensor]) -> Tensors:
        """The gradient of the validation loss with respect to each alpha, of first or second order."""
        names, alphas = list(self.alphas), list(self.alphas.values())
        if self.order == 1:
            loss = nn.functional.cross_entropy(self.supernet(valid[0], self.mixing()), valid[1])
            gradients = list(torch.autograd.grad(loss, alphas))
        elif self.unrolled == "exact":
            with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
                stepped = self.stepped(self.weights, train, differentiable=True)
                gradients = list(torch.autograd.grad(self.loss(stepped, valid), alphas))
        else:
            gradients = self._finite_difference(train, valid)
        return dict(zip(names, gradients, strict=True))

    def loss(self, weights: Mapping[str, Tensor], batch: tuple[Tensor, Tensor]) -> Tensor:
        """Cross-entropy of the supernet with these weights; its running statistics stay as they are."""
        buffers = {name: buffer.clone() for name, buffer in self.supernet.named_buffers()}
        logits = torch.func.functional_call(self.supernet, {**weights, **buffers}, (batch[0], self.mixing()))
        return nn.functional.cross_entropy(logits, batch[1])

    def stepped(
        self, weights: Mapping[str, Tensor], batch: tuple[Tensor, Tensor], *, differentiable: bool = False
    ) -> Tensors:
        """The weights after one step of SGD with momentum and weight decay on `batch`: w' of equation 6."""
        gradients = torch.autograd.grad(
            self.loss(weights, batch), list(weights.values()), create_graph=differentiable
        )
        return {
            name: weight
            - self.rate * (gradient + self.weight_decay * weight + self.momentum * self._velocity(name))
            for (name, weight), gradient in zip(weights.items(), gradients, strict=True)
        }

    def _velocity(self, name: str) -> Tensor | float:
        velocity: Tensor | None = self.weight_optimizer.state[self.weights[name]].get("momentum_buffer")
        return 0.0 if velocity is None else velocity

    def _finite_difference(self, train: tuple[Tensor, Tensor], valid: tuple[Tensor, Tensor]) -> list[Tensor]:
        """Equations 7 and 8: Hessian times gradient from two gradients, at w +- epsilon v / |v|."""
        alphas = list(self.alphas.values())
        stepped = {name: w.detach().requires_grad_() for name, w in self.stepped(self.weights, train).items()}
        gradients = torch.autograd.grad(self.loss(stepped, valid), [*alphas, *stepped.values()])
        direct, v = gradients[: len(alphas)], gradients[len(alphas) :]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(v)))
        radius = self.epsilon / norm
        sides = []
        for sign in (1, -1):
            moved = {
                name: weight.detach() + sign * radius * direction
                for (name, weight), direction in zip(self.weights.items(), v, strict=True)
            }
            sides.append(torch.autograd.grad(self.loss(moved, train), alphas))
        return [
            g - self.rate * (up - down) / (2 * radius) for g, up, down in zip(direct, *sides, strict=True)
        ]

    # --- results --------------------------------------------------------------------------------------------

    def _metrics(self, loss: float, right: float) -> dict[str, float]:
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the training loss is {loss} in epoch {self.epoch + 1} (learning rate {self.rate:.4g}): "
                "it is no number any more; lower strategy.lr or strategy.alpha_lr"
            )
        examples = self.task.examples
        assert examples is not None
        table = self.mixing(detached=True)
        checked = accuracy(
            self.supernet,
            examples.valid,
            mean=examples.mean,
            std=examples.std,
            device=self.device,
            forward=lambda x: self.supernet(x, table),
        )
        entropies = [
            torch.special.entr(table[d.name]).sum() / (1 if d.keep == 1 else d.rows)
            for d in self.task.space.decisions
        ]
        return {
            "train_loss": loss,
            "train_accuracy": right,
            "valid_loss": checked["loss"],
            "valid_accuracy": checked["accuracy"],
            "lr": self.rate,
            "alpha_entropy": torch.stack(entropies).mean().item(),
        }

    def tables(self) -> dict[str, list[list[float]]]:
        return {name: table.tolist() for name, table in self.mixing(detached=True).items()}

    def best(self) -> Architecture:
        """Section 2.4: the strongest operations by softmax weight that a value may have."""
        return self.task.space.project(self.tables())

    def state(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "supernet": self.supernet.state_dict(),
            "alphas": {name: alpha.detach() for name, alpha in self.alphas.items()},
            "weight_optimizer": self.weight_optimizer.state_dict(),
            "alpha_optimizer": self.alpha_optimizer.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        self.supernet.load_state_dict(state["supernet"])
        with torch.no_grad():
            for name, alpha in state["alphas"].items():
                self.alphas[name].copy_(alpha)
        self.weight_optimizer.load_state_dict(state["weight_optimizer"])
        self.alpha_optimizer.load_state_dict(state["alpha_optimizer"])
