"""ENAS (Pham, Guan, Zoph, Le, Dean, ICML 2018): a controller and shared weights, trained in turn."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from nas.graph import Option
from nas.search_space import Architecture, SearchSpace
from nas.seeding import derive
from nas.strategies.policy import Kind, policy, propose
from nas.strategies.sampled import Sampled, frequencies
from nas.strategies.shared_weights import Batch, Count, Positive, Rate, Share
from nas.strategies.strategy import STRATEGIES, Task
from nas.supernet.norms import normalising

SHOWN = 200  # samples of the policy behind a table of its probabilities


@STRATEGIES.register("enas", budget="60epochs")
@dataclass(eq=False)
class ENAS(Sampled):
    """ENAS: a controller learns by REINFORCE which paths are good with shared weights

    Pham, Guan, Zoph, Le, Dean, "Efficient Neural Architecture Search via Parameter Sharing", ICML 2018,
    section 2.2: after each epoch of shared weights on paths that the fixed policy draws (M = 1), the policy
    ascends reward + entropy. The reward is the accuracy on one minibatch of the validation part, less a
    moving baseline. At the end the best of the policy's samples is taken.

    Steps, samples, decay, entropy and bound are those of the original code for cells on CIFAR-10. The
    controller is the LSTM of `nas.strategies.policy`, without attention over earlier nodes. As in that code,
    batch norms use the minibatch while the controller learns. The shared weights follow the family's
    schedule, not the paper's restarts.

    Of whole networks (`enas_macro`) the policy is also drawn towards taking each skip connection with the
    chance 0.4: the KL divergence from it, summed over the skip connections of a layer and averaged over
    layers, is taken off the objective.

    Args:
        policy: ``lstm`` or ``tabular``, a logit for each option.
        steps: of the controller after each epoch.
        samples: paths whose rewards are averaged in a step.
        policy_lr: of Adam.
        bound: of the policy's logits, bound x tanh(logit). With that of the original code for operations
            one of five is drawn with a chance of 0.38 at most: without a bound the policy soon draws what
            converges first, and trains little else.
        decay: of the moving baseline.
        entropy: weight of the policy's entropy, in nats.
        skip_chance: of each skip connection that may be there or not, which the policy is drawn to. By
            `bound` = 0.44 it is 0.29 at least and 0.71 at most.
        skip_weight: of the divergence from it; 0: none.
    """

    epochs: Count = 60
    policy: Kind = "lstm"
    steps: Count = 30
    samples: Count = 10
    policy_lr: Positive = 0.0035
    bound: Positive = 0.44
    decay: Share = 0.99
    entropy: Rate = 1e-4
    skip_chance: Annotated[float, Field(gt=0, lt=1)] = 0.4
    skip_weight: Rate = 0.8

    def prepare(self, task: Task) -> None:
        super().prepare(task)
        self.controller = policy(self.policy, task.space, seed=task.seed, bound=self.bound)
        self.policy_optimizer = torch.optim.Adam(self.controller.parameters(), self.policy_lr)
        self.baseline: float | None = None
        self.aim(task.space)

    def sample(self, epoch: int, step: int) -> Sequence[Architecture]:
        return [self._drawn(derive(self.task.seed, "path", epoch), step)]

    def proposal(self, rng: Random) -> Architecture:
        return self._drawn(rng.getrandbits(63), 0)

    def _drawn(self, seed: int, number: int) -> Architecture:
        return propose(self.controller, lambda _: False, seed=seed, number=number)

    def after_epoch(self, number: int) -> dict[str, float]:
        """Train the controller, the shared weights being fixed."""
        batches, key = self.valid_forever(number), derive(self.task.seed, "controller", number)
        rewards = []
        for step in range(self.steps):
            drawn = [self._drawn(key, step * self.samples + i) for i in range(self.samples)]
            rewards.append(self.rewards(drawn, batches))
            self.policy_step(drawn, rewards[-1])
        self.group.agree([each.to(self.device) for each in self.controller.parameters()], "controllers")
        return {"reward": sum(map(sum, rewards)) / (self.steps * self.samples)}

    @torch.no_grad()
    def rewards(self, drawn: Sequence[Architecture], batches: Iterator[Batch]) -> list[float]:
        """The accuracy of each path on a minibatch of its own, 0..1."""
        found: list[Tensor] = []
        with normalising(self.supernet, "batch", forward=lambda x: x), self.together():
            for path in drawn:
                x, y = next(batches)
                found.append((self.supernet(x, path).argmax(1) == y).double().mean())
        return [float(each) for each in self.group.mean([torch.stack(found)])[0].tolist()]

    def policy_step(self, drawn: Sequence[Architecture], rewards: Sequence[float]) -> None:
        """One step of REINFORCE (Williams 1992) with a moving baseline, which begins as the first mean."""
        mean = sum(rewards) / len(rewards)
        self.baseline = mean if self.baseline is None else self.baseline
        advantages = torch.tensor(rewards, dtype=torch.float64) - self.baseline
        self.baseline += (1 - self.decay) * (mean - self.baseline)
        chosen = self.controller.layout.chosen(drawn)
        log_prob, entropy = self.controller.measure(chosen)
        objective = advantages * log_prob + self.entropy * entropy
        if self.aims and self.skip_weight:
            objective = objective - self.skip_weight * self.divergence(chosen)
        self.policy_optimizer.zero_grad()
        (-objective.mean()).backward()  # type: ignore[no-untyped-call]
        self.policy_optimizer.step()

    def divergence(self, chosen: Tensor) -> Tensor:
        """How far skip connections are from the chance that is aimed at, summed over those of a layer and in
        the mean over layers, for the entries of each path: (paths,).
        """
        return self.controller.divergence(chosen, self.aims) / self.layers

    def aim(self, space: SearchSpace) -> None:
        """Aim at a chance in those slots of the policy that decide whether a skip connection is there: an
        identity, in one of two cases. A decision counts as a layer.
        """
        there: dict[tuple[str, int], set[Option | None]] = defaultdict(set)
        for node in space.graph.nodes:
            if node.op == "identity" and node.when is not None:
                there[node.when.decision, node.when.row].add(node.when.option)
        entries = self.controller.layout.entries
        self.aims: dict[int, Tensor] = {}
        aimed = set()
        for number, slot in enumerate(self.controller.layout.slots):
            own = [entries[entry] for row in slot.rows for entry in row]
            name, row, _ = own[0]
            decision, options = space.decision(name), there[name, row]
            if len(options) == 1 and len(own) == 2 and decision.keep == decision.rows:
                chances = [self.skip_chance if o in options else 1 - self.skip_chance for _, _, o in own]
                self.aims[number] = torch.tensor(chances, dtype=torch.float64)
                aimed.add(name)
        self.layers = len(aimed)

    def tables(self) -> dict[str, list[list[float]]]:
        """How often the policy draws each option."""
        generator = torch.Generator().manual_seed(derive(self.task.seed, "shown", self.epoch))
        return frequencies(self.task, list(self.controller.sample(generator, SHOWN)))

    def state(self) -> dict[str, Any]:
        own = {
            "policy": self.controller.state_dict(),
            "policy_optimizer": self.policy_optimizer.state_dict(),
            "baseline": self.baseline,
        }
        return {**super().state(), **own}

    def load(self, state: dict[str, Any]) -> None:
        super().load(state)
        self.controller.load_state_dict(state["policy"])
        self.policy_optimizer.load_state_dict(state["policy_optimizer"])
        self.baseline = state["baseline"]
