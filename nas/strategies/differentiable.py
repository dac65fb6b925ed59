"""Differentiable: the loop that DARTS and its successors share.

A supernet mixes every option by a table, the tables follow from alphas, and alphas and weights descend a loss
in turn: min_a L_val(w*(a), a), w*(a) = argmin_w L_train(w, a) (Liu, Simonyan, Yang, ICLR 2019, equations 3
and 4). What a method changes is one of the hooks below: how tables follow from alphas, what the losses are,
when what is trained, which architecture is derived.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from nas.graph import Hole
from nas.kernels.build import compiler
from nas.search_space import Architecture, SearchSpace
from nas.search_space.decision import Decision
from nas.seeding import randomness
from nas.strategies.collapse import Guard, Reaction, largest_eigenvalue
from nas.strategies.shared_weights import (
    TINY,
    Batch,
    Epochs,
    Mixing,
    Positive,
    Rate,
    Share,
    SharedWeights,
    Tensors,
    cosine,
    scopes,
)
from nas.strategies.strategy import Task
from nas.supernet import Supernet
from nas.supernet.norms import Policy, normalising


@dataclass(eq=False)
class Differentiable(SharedWeights):
    """Alphas and weights trained in turn. The defaults are those of DARTS for CIFAR-10 (section A.1).

    Args:
        warmup: the first share of the epochs, in which the weights alone are trained.
        alpha_lr, alpha_betas, alpha_weight_decay: of the alphas: Adam.
        recompute: activations inside mixtures are computed again for the gradient: less memory, more time.
        compile: what a step runs is compiled by `torch.compile`, for minutes before the first step of a
            large supernet; instead of the kernels of `nas.kernels`, which are for CPUs.
        guard: what a collapse (`nas.strategies.collapse`) leads to: a warning, or the end of the
            search with the network of the last healthy epoch; ``off`` saves evaluating the derived path.
        norm: of the mixture and of the derived path, so that they can be compared: by the statistics of the
            batch. The ``tracked`` ones are those of the mixture, which no path has.
        hessian: every how many epochs the largest eigenvalue of the Hessian of the validation loss in the
            alphas is measured, on one batch; 0: never. Its growth announces a collapse.
    """

    warmup: Share = 0.0
    alpha_lr: Positive = 3e-4
    alpha_betas: tuple[Share, Share] = (0.5, 0.999)
    alpha_weight_decay: Rate = 1e-3
    recompute: bool = False
    compile: bool = False
    norm: Policy = "batch"
    guard: Reaction = "warn"
    hessian: Epochs = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.active: Tensors | None = None  # of a method that gives options up: those that are left

    def check(self, space: SearchSpace) -> None:
        super().check(space)
        if found := list(self.conflicts()):
            raise ValueError("; ".join(found) + ": leave one of them out")
        if self.recompute and not has_mixtures(space):
            raise ValueError(
                f"{space.name!r} has no operations to choose from, which strategy.recompute could compute "
                "again: leave it out"
            )
        if space.finish is not None:
            raise ValueError(
                f"the wiring of {space.name!r} decides its widths, so its options cannot be mixed: search it "
                "with a strategy that trains architectures, as --strategy random does"
            )

    def conflicts(self) -> Iterator[str]:
        """What does not go together, and why."""
        if self.hessian and self.recompute:
            yield "strategy.hessian takes second derivatives, which strategy.recompute does not give"
        if self.recompute and self.compile:
            yield "strategy.recompute runs parts of a step again, which strategy.compile cannot follow"

    # --- what a method changes ------------------------------------------------------------------------------

    def build(self) -> Supernet:
        """The supernet."""
        return Supernet(self.task.space, **self.form)

    @property
    def form(self) -> dict[str, bool]:
        """How supernets of this search are to be computed."""
        return {"recompute": self.recompute, "compile": self.compile}

    def start(self, decision: Decision) -> Tensor:
        """The alphas of a decision at the start: (rows, options)."""
        return 1e-3 * torch.randn(decision.rows, len(decision.options))

    def table(self, decision: Decision, alpha: Tensor) -> Tensor:
        """The mixing weights of a decision: softmax over the operations (equation 2).

        Where one of several rows is kept (half a NASNet block: which input, which operation), rows and
        options are one choice, and the softmax is over both.
        """
        return scopes(decision, alpha).softmax(-1).view_as(alpha)

    def drawn(self, *, detached: bool) -> Mixing:
        """The weights of one step; `mixing` unless a method draws at random. Detached: for the weights."""
        return Mixing(self.mixing(detached=detached), self.active)

    def evaluated(self) -> Mixing | Architecture:
        """What the metrics of an epoch are measured on."""
        return Mixing(self.mixing(detached=True), self.active)

    def penalty(self) -> Tensor | float:
        """What is added to the loss that the alphas descend."""
        return 0.0

    def begin_epoch(self, number: int) -> None:
        """Before the epoch `number`, from 0: what is annealed."""

    def rate_at(self, number: int) -> float:
        """The learning rate of the weights in the epoch `number`: half a cosine over the search."""
        return cosine(number / self.horizon, self.lr, self.lr_min)

    def warming(self, number: int) -> bool:
        """Whether the epoch `number` trains the weights alone."""
        return number < int(self.warmup * self.horizon)

    # --- one search -----------------------------------------------------------------------------------------

    def prepare(self, task: Task) -> None:
        """Build supernet, alphas, optimizers and batches."""
        super().prepare(task)
        if self.compile and self.group.size > 1 and self.batch_norms == "synchronised":
            raise ValueError(
                "synchronised batch norms speak with other workers within a step, which strategy.compile "
                "cannot follow: set strategy.batch_norms=local, or leave strategy.compile out"
            )
        if self.compile and self.device.type == "cpu" and compiler() is None:
            raise ValueError(
                "strategy.compile needs a C++ compiler, and there is no g++ here: name one by CXX, or leave "
                "strategy.compile out"
            )
        self.renew()
        self.watch = Guard(task.space)

    def renew(self, *key: object) -> None:
        """Supernet, alphas and optimizers as at the start; `key` tells one start from another."""
        with randomness(self.task.seed, "supernet", *key):
            supernet = self.build()
            alphas = {decision.name: self.start(decision) for decision in self.task.space.decisions}
        self.take(supernet)
        self.alphas = {name: nn.Parameter(alpha.to(self.device)) for name, alpha in alphas.items()}
        self.alpha_optimizer = torch.optim.Adam(
            self.alphas.values(),
            self.alpha_lr,
            betas=self.alpha_betas,
            weight_decay=self.alpha_weight_decay,
            fused=True,
        )

    def train_epoch(self, number: int) -> dict[str, float]:
        self.begin_epoch(number)
        valid = self.valid_forever(number)

        def step(place: int, batch: Batch) -> tuple[Tensor, Tensor, int]:
            return (*self.step(batch, next(valid)), 1)

        with randomness(self.task.seed, "epoch", number):
            told = self.run_epoch(number, self.rate_at(number), step)
        return told | self.measured()

    def step(self, train: Batch, valid: Batch) -> tuple[Tensor, Tensor]:
        """A step of the alphas, then one of the weights. Training loss and number of right answers."""
        if not self.warming(self.epoch):
            self.alpha_step(train, valid)
        return self.weight_step(train)

    def alpha_step(self, train: Batch, valid: Batch) -> None:
        """Descend the validation loss with respect to the alphas."""
        gradients = self.alpha_gradient(train, valid)
        self.group.average(list(gradients.values()))
        for name, alpha in self.alphas.items():
            alpha.grad = gradients[name]
        self.alpha_optimizer.step()

    def agreed(self) -> list[Tensor]:
        return list(self.alphas.values())

    def alpha_gradient(self, train: Batch, valid: Batch) -> Tensors:
        """The gradient of the validation loss with respect to each alpha, at the present weights."""
        x, y = valid
        with self.rounding(), self.fixed():
            loss = nn.functional.cross_entropy(self.supernet(x, *self.drawn(detached=False)), y)
            alphas = list(self.alphas.values())  # of parts that are not run, some may have no gradient
            found = torch.autograd.grad(loss + self.penalty(), alphas, materialize_grads=True)
        return dict(zip(self.alphas, found, strict=True))

    @contextmanager
    def fixed(self) -> Iterator[None]:
        """Within it the weights ask for no gradient: what is compiled would compute it unasked."""
        asking = [weight for weight in self.weights.values() if weight.requires_grad]
        for weight in asking:
            weight.requires_grad_(False)
        try:
            yield
        finally:
            for weight in asking:
                weight.requires_grad_(True)

    def weight_step(self, train: Batch) -> tuple[Tensor, Tensor]:
        """Descend the training loss with respect to the weights; the loss and the number of right answers."""
        x, y = train
        with self.rounding():
            logits = self.supernet(x, *self.drawn(detached=True))
            loss = nn.functional.cross_entropy(logits, y)
        self.weight_optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.descend()
        return loss.detach(), (logits.detach().argmax(1) == y).sum()

    def mixing(self, *, detached: bool = False) -> Tensors:
        """The table of each decision."""
        alphas = {name: alpha.detach() if detached else alpha for name, alpha in self.alphas.items()}
        return {d.name: self.table(d, alphas[d.name]) for d in self.task.space.decisions}

    # --- results --------------------------------------------------------------------------------------------

    def measured(self) -> dict[str, float]:
        """What is measured after an epoch."""
        table = self.mixing(detached=True)
        checked = self.checked(self.evaluated())
        shares = [scopes(d, table[d.name]) for d in self.task.space.decisions]
        shares = [each / each.sum(-1, keepdim=True).clamp_min(TINY) for each in shares]
        entropies = [torch.special.entr(each).sum(-1).mean() for each in shares]
        return {
            "valid_loss": checked["loss"],
            "valid_accuracy": checked["accuracy"],
            "alpha_entropy": torch.stack(entropies).mean().item(),
            **self._guarded(checked["accuracy"]),
            **self._curvature(),
        }

    def _guarded(self, mixed: float) -> dict[str, float]:
        """The derived network next to the mixture; with ``guard=stop``, the end of a collapsed search."""
        if self.guard == "off":
            return {}
        found = self.best()
        derived = self.checked(self.path(found))
        told = {"derived_accuracy": derived["accuracy"], "gap": mixed - derived["accuracy"]}
        told |= self.watch.look(self.epoch + 1, found)
        return told | self._ended()

    def _ended(self) -> dict[str, float]:
        """Ends the search with the last healthy network, if it has collapsed and that is asked for."""
        if self.guard != "stop" or self.watch.since is None or self.watch.healthy is None:
            return {}
        epoch, literal = self.watch.healthy
        self.ended = self.task.space.parse(literal)
        return {"healthy_epoch": float(epoch)}

    def _curvature(self) -> dict[str, float]:
        """The largest eigenvalue of the Hessian in the alphas, in the epochs in which it is asked for."""
        if not self.hessian or (self.epoch + 1) % self.hessian:
            return {}
        x, y = next(iter(self.valid_batches.epoch(0)))
        with normalising(self.supernet, "batch", forward=self.supernet), sdpa_kernel(SDPBackend.MATH):
            loss = nn.functional.cross_entropy(self.supernet(x, *Mixing(self.mixing())), y)
            return {"hessian_eigenvalue": largest_eigenvalue(loss, list(self.alphas.values()))}

    def random(self, rng: Random) -> Architecture:
        """Of options that were not given up: the weights of others are no longer trained."""
        if self.active is None:
            return super().random(rng)
        scores = {
            name: [[rng.random() if left else -1.0 for left in row] for row in table.tolist()]
            for name, table in self.active.items()
        }
        return self.task.space.project(scores)

    def tables(self) -> dict[str, list[list[float]]]:
        return {name: table.tolist() for name, table in self.mixing(detached=True).items()}

    def best(self) -> Architecture:
        """The strongest operations that a value may have (section 2.4)."""
        return self.task.space.project(self.tables())

    def state(self) -> dict[str, Any]:
        return super().state() | {
            "alphas": {name: alpha.detach() for name, alpha in self.alphas.items()},
            "alpha_optimizer": self.alpha_optimizer.state_dict(),
            "active": self.active,
            "guard": self.watch.state(),
        }

    def load(self, state: dict[str, Any]) -> None:
        super().load(state)
        with torch.no_grad():
            for name, alpha in state["alphas"].items():
                self.alphas[name].copy_(alpha)
        self.alpha_optimizer.load_state_dict(state["alpha_optimizer"])
        self.active = state["active"]
        self.watch.load(state["guard"])
        self._ended()


def has_mixtures(space: SearchSpace) -> bool:
    """Whether there are operations, or attributes of them, to choose from; not widths and depths alone."""
    asked = (value for node in space.graph.nodes for value in (node.op, *dict(node.attrs).values()))
    return any(isinstance(value, Hole) for value in asked)
