"""ENAS: what its controller learns, on which half, and the skip connections that it is drawn to."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from strategy_helpers import noise
from test_sampled import prepared
from torch import Tensor

from nas.search_space import space
from nas.strategies import ENAS, Task


@pytest.mark.parametrize("policy", ["lstm", "tabular"])
def test_the_controller_raises_the_chance_of_a_path_with_a_planted_reward(policy: Any) -> None:
    strategy = prepared(ENAS(policy=policy, samples=10, policy_lr=0.1), "nasbench201")
    assert isinstance(strategy, ENAS)
    good = strategy.task.space.parse("best")

    def chance() -> float:
        return strategy.controller.log_prob([good]).item()

    before = chance()
    for step in range(25):
        drawn = [*[strategy._drawn(step, i) for i in range(9)], good]
        strategy.policy_step(drawn, [float(path == good) for path in drawn])
    assert chance() > before + 2


def test_the_controller_learns_on_the_validation_half_and_leaves_the_weights_alone() -> None:
    strategy = prepared(ENAS(steps=2, samples=2, batch=8), "nasbench201")
    assert isinstance(strategy, ENAS)
    before = copy.deepcopy(strategy.supernet.state_dict())
    policy = copy.deepcopy(strategy.controller.state_dict())
    seen: list[int] = []
    epoch = strategy.valid_batches.epoch

    def watched(number: int, share: tuple[int, int] = (0, 1)) -> Iterator[tuple[Tensor, Tensor]]:
        seen.append(number)
        return epoch(number, share)

    strategy.valid_batches.epoch = watched  # type: ignore[method-assign]
    strategy.after_epoch(0)
    assert seen
    assert all(torch.equal(tensor, before[key]) for key, tensor in strategy.supernet.state_dict().items())
    assert any(not torch.equal(t, policy[key]) for key, t in strategy.controller.state_dict().items())


@pytest.mark.parametrize("policy", ["lstm", "tabular"])
def test_the_controller_follows_rewards_beyond_the_moving_baseline_and_entropy(policy: Any) -> None:
    """Pham et al. 2018, section 2.2: what is no better than ever teaches nothing; entropy is held up."""

    def learnt(rewards: Sequence[float], steps: int, **given: Any) -> tuple[ENAS, list[float], float, float]:
        strategy = prepared(ENAS(policy=policy, bound=5.0, policy_lr=0.05, **given), "nasbench201")
        assert isinstance(strategy, ENAS)
        with torch.no_grad():  # where some options are likelier than others
            for key, parameter in strategy.controller.named_parameters():
                parameter.add_(
                    torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(key)))
                )

        def entropy() -> float:
            drawn = [strategy._drawn(99, i) for i in range(200)]
            return strategy.controller.measure(strategy.controller.layout.chosen(drawn))[1].mean().item()

        first, baselines = entropy(), []
        for step in range(steps):
            strategy.policy_step([strategy._drawn(step, i) for i in range(len(rewards))], rewards)
            assert strategy.baseline is not None
            baselines.append(strategy.baseline)
            rewards = [*rewards[1:], rewards[0]]
        return strategy, baselines, first, entropy()

    _, baselines, first, last = learnt([0.5, 0.5], 5, entropy=0.0)
    assert last == pytest.approx(first, abs=1e-9)
    assert baselines == [0.5] * 5
    strategy = learnt([0.5], 1, entropy=0.0, decay=0.9)[0]
    strategy.policy_step([strategy._drawn(0, 0)], [0.8])
    assert strategy.baseline == pytest.approx(0.5 + 0.1 * 0.3)
    _, _, first, last = learnt([0.5, 0.5], 20, entropy=1.0)
    assert last > first + 0.1


@pytest.mark.parametrize("chance", [0.4, pytest.param(0.55, marks=pytest.mark.slow)])
def test_skip_connections_are_drawn_with_the_chance_that_is_aimed_at(chance: float) -> None:
    """If no path is better than another."""
    arguments: dict[str, Any] = {"policy_lr": 0.05, "skip_chance": chance, "entropy": 0.0}
    strategy = prepared(ENAS(**arguments), "enas_macro")
    assert isinstance(strategy, ENAS)

    def share() -> float:
        tables = strategy.tables()
        rows = [row for name, table in tables.items() if name.startswith("skip") for row in table]
        return sum(row[1] for row in rows) / len(rows)

    for step in range(30):
        drawn = [strategy._drawn(step, i) for i in range(5)]
        strategy.policy_step(drawn, [0.5] * 5)
    assert share() == pytest.approx(chance, abs=0.03)
    assert not prepared(ENAS(), "nasbench101").aims  # connections there, but no skip connections


SKIPS = """
scale: {{channels: 4}}
decisions:
  skip: {decision}
  depth: [0, 1]
nodes:
  - {{name: stem, op: conv_bn_relu_3x3, out: channels}}
  - {{name: work, op: conv_bn_relu_3x3}}
  - {{name: pass0, op: identity, inputs: [stem], when: $skip.0 == {taken}}}
  - {{name: pass1, op: identity, inputs: [work], when: $skip.1 == {taken}}}
  - {{name: join, op: sum, inputs: [work, pass0, pass1]}}
  - depth: $depth
    name: rest
    nodes:
      - {{name: layer, op: conv_bn_relu_3x3}}
  - {{op: global_avg_pool}}
  - {{op: linear, out: classes}}
"""


@pytest.mark.parametrize(
    ("decision", "taken", "aims"),
    [
        ("{options: [0, 1], rows: 2}", 1, [[0.7, 0.3]] * 2),
        ("{options: [0, 1], rows: 2}", 0, [[0.3, 0.7]] * 2),
        ("{options: [1, 0], rows: 2}", 1, [[0.3, 0.7]] * 2),
        ('{options: ["no", "yes"], rows: 2}', "yes", [[0.7, 0.3]] * 2),
        ("{options: [0, 1], rows: 2, keep: 1}", 1, []),  # which of two it is, and none by itself
        ("{options: [0, 1, 2], rows: 2}", 1, []),
    ],
)
def test_skip_connections_of_users_are_found(
    decision: str, taken: object, aims: list[list[float]], tmp_path: Path
) -> None:
    """And not the depth, whose exits are there by choice, too."""
    path = tmp_path / "skips.yaml"
    path.write_text(SKIPS.format(decision=decision, taken=taken))
    strategy = ENAS(skip_chance=0.3)
    strategy.horizon = 1
    strategy.prepare(Task(space(str(path), classes=10, input=(3, 8, 8)), examples=noise()))
    assert [each.tolist() for each in strategy.aims.values()] == aims
    strategy.policy_step([strategy._drawn(0, 0)], [0.5])
