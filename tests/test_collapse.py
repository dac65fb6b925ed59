"""The collapse guard: when it fires, what a stopped search gives; the curvature of the loss."""

from __future__ import annotations

import itertools
import math
import warnings
from itertools import product
from random import Random
from typing import Any

import pytest
import torch
from conftest import TINY_DARTS, Command, sets
from test_differentiable import begun, made, task
from torch import Tensor

from nas.graph import Hole
from nas.network import Network
from nas.run import Run
from nas.search_space import Architecture, SearchSpace
from nas.strategies import (
    Darts,
)
from nas.strategies.collapse import (
    CHANCE,
    DOUBTFUL,
    PATIENCE,
    Guard,
    chances,
    is_skip,
    largest_eigenvalue,
    skips,
    tail,
    weighted,
)


def test_the_tail_counts_every_outcome() -> None:
    chance = [0.2, 0.5, 1 / 7, 0.0, 1.0]
    for count in range(7):
        summed = sum(
            math.prod(p if hit else 1 - p for p, hit in zip(chance, outcome, strict=True))
            for outcome in product((0, 1), repeat=len(chance))
            if sum(outcome) >= count
        )
        assert tail(chance, count) == pytest.approx(summed)


@pytest.mark.parametrize("name", ["nasbench201", "darts"])
def test_the_tail_is_how_often_samples_have_so_many(name: str) -> None:
    where, rng = made(name), Random(0)
    counts = [skips(where, where.sample(rng)) for _ in range(1000)]
    for least in (1, 2, 3):
        expected = tail(chances(where), least)
        found = sum(count >= least for count in counts) / len(counts)
        assert abs(found - expected) <= 4 * math.sqrt(expected * (1 - expected) / len(counts)) + 0.01


def drifting(where: SearchSpace, towards: bool) -> list[dict[str, list[list[float]]]]:
    """Tables of ten epochs in which skip connections, or else the last options, gain what others lose."""
    rng, tables = Random(4), []
    noise = {d.name: [[rng.random() for _ in d.options] for _ in range(d.rows)] for d in where.decisions}
    for epoch in range(10):
        tables.append(
            {
                d.name: [
                    [
                        n + 0.2 * epoch * (is_skip(where, o) == towards)
                        for n, o in zip(row, d.options, strict=True)
                    ]
                    for row in noise[d.name]
                ]
                for d in where.decisions
            }
        )
    return tables


@pytest.mark.parametrize("name", ["nasbench201", "darts"])
def test_the_guard_fires_on_a_drift_and_is_silent_on_a_healthy_search(name: str) -> None:
    where = made(name)
    guard = Guard(where)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        told = [guard.look(i, where.project(t)) for i, t in enumerate(drifting(where, True), start=1)]
    assert [each["collapsed"] for each in told][::9] == [0.0, 1.0]
    assert len(said) == 1  # once
    assert f"collapsed in epoch {guard.since}" in str(said[0].message)
    assert guard.healthy is not None
    assert guard.since is not None
    assert guard.healthy[0] < guard.since
    assert tail(chances(where), skips(where, where.parse(guard.healthy[1]))) >= DOUBTFUL > CHANCE
    healthy = Guard(where)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for i, tables in enumerate(drifting(where, False), start=1):
            assert healthy.look(i, where.project(tables))["collapsed"] == 0.0


def cells(where: SearchSpace, count: int, *, learning: bool) -> list[Architecture]:
    """Random cells with operations that have weights on a way to the output, or without."""
    drawn = (where.sample(Random(seed)) for seed in itertools.count())
    return list(itertools.islice((each for each in drawn if bool(weighted(where, each)) == learning), count))


def test_weighted_operations_are_those_whose_weights_move_the_output() -> None:
    """A gradient reaches the weights of a choice if and only if it is counted."""
    where = made()
    torch.manual_seed(0)
    x = torch.randn(4, 1, 8, 8)
    for seed in range(25):
        architecture = where.sample(Random(seed))
        network = Network(where.fill(architecture))
        network(x).square().sum().backward()
        holes = {node.name: node.op for node in where.graph.nodes if isinstance(node.op, Hole)}
        moved = set()
        for name, parameter in network.named_parameters():
            node = next((each for each in holes if name.startswith(f"{each}.")), None)
            if node is not None and parameter.grad is not None and parameter.grad.any():
                moved.add(holes[node][:2])
        assert weighted(where, architecture) == len(moved), architecture.literal


def test_convolutions_that_are_cut_off_are_a_collapse() -> None:
    where = made()
    alive, barren = cells(where, 4, learning=True), cells(where, 6, learning=False)
    guard = Guard(where)
    with pytest.warns(UserWarning, match="and 0 operations with weights reach the output") as said:
        told = [guard.look(i, each)["collapsed"] for i, each in enumerate([*alive, *barren], start=1)]
    assert told == [0.0] * (3 + PATIENCE) + [1.0] * (7 - PATIENCE)
    assert len(said) == 1
    assert guard.healthy == (4, alive[-1].literal)
    for others in ([*barren], [*alive[:1], *barren[: PATIENCE - 1], *alive[1:], *barren[: PATIENCE - 1]]):
        silent = Guard(where)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert not any(silent.look(i, each)["collapsed"] for i, each in enumerate(others, start=1))


def test_a_drift_that_lasts_is_a_collapse_and_one_that_passes_is_none() -> None:
    """Four of six skip connections: random choices have as many in 1.7 of 100 cases."""
    where = made()
    sound, poor = (
        where.parse("|nor_conv_3x3~0|+|%s~0|%s~1|+|%s~0|%s~1|nor_conv_3x3~2|" % ((option,) * 4))
        for option in ("nor_conv_1x1", "skip_connect")
    )
    assert CHANCE < tail(chances(where), skips(where, poor)) < DOUBTFUL
    for course, since in (
        ([sound, *[poor] * PATIENCE], PATIENCE + 1),
        ([sound, *[poor] * (PATIENCE - 1), sound, *[poor] * (PATIENCE - 1)], None),
        ([poor] * (2 * PATIENCE), None),  # so it began
    ):
        guard = Guard(where)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for i, each in enumerate(course, start=1):
                guard.look(i, each)
        assert guard.since == since


def test_many_skip_connections_from_the_start_are_no_drift() -> None:
    where = made()
    worst = where.project(drifting(where, True)[-1])
    guard = Guard(where)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [guard.look(i, worst)["collapsed"] for i in (1, 2, 3)] == [0.0, 0.0, 0.0]


class Drifting(Darts):
    """DARTS whose alphas are pushed to skip connections, more in every epoch."""

    def begin_epoch(self, number: int) -> None:
        with torch.no_grad():
            for decision in self.task.space.decisions:
                self.alphas[decision.name].zero_()[:, 3] = 1.0
                for row in range(decision.rows):
                    place = 1 if number >= 2 else 3
                    self.alphas[decision.name][row, place] = 2.0


def test_a_stopped_search_gives_its_last_healthy_network_also_when_resumed() -> None:
    shared = task(made(), epochs=6)
    strategy = Drifting(batch=4, guard="stop")
    with pytest.warns(UserWarning, match="collapsed in epoch 3"):
        reports = list(strategy.reports(shared))
    assert [report.metrics["collapsed"] for report in reports] == [0.0, 0.0, 1.0]
    assert reports[-1].architecture.literal == reports[1].architecture.literal
    assert reports[-1].metrics["healthy_epoch"] == 2
    again = Drifting(batch=4, guard="stop")
    again.resume(shared, reports, strategy.state())
    assert list(again.reports(shared)) == []
    assert again.ended.literal == reports[1].architecture.literal
    with pytest.warns(UserWarning, match="collapsed"):
        warned = list(Drifting(batch=4).reports(shared))
    assert len(warned) == 6
    assert skips(shared.space, warned[-1].architecture) == 6
    silent = next(Drifting(batch=4, guard="off").reports(shared))
    assert not {"collapsed", "derived_accuracy", "gap"} & set(silent.metrics)


def test_a_stopped_search_is_told_on_the_console_and_in_the_report(nas: Command, tmp_path: Any) -> None:
    """The choice, its metrics and the reason of the end are those of the last healthy epoch."""
    (tmp_path / "own.py").write_text(
        "from test_collapse import Drifting\nclass Own(Drifting):\n    '''Own: drifts'''\n"
    )
    settings = [each for each in TINY_DARTS if "strategy" not in each and "budget" not in each]
    settings += ["strategy=own.py:Own", "budget=5epochs", "strategy.guard=stop"]
    told = nas("search", "--run", "run", *sets(settings))
    assert told.status == 0, told.err
    assert "the search has collapsed in epoch 3" in told.err
    with Run.open(tmp_path / "run") as run:
        events = run.events()
    epochs = [event for event in events if event["kind"] == "epoch"]
    chosen = next(event for event in events if event["kind"] == "selected")
    assert len(epochs) == 3
    assert chosen["literal"] == epochs[1]["literal"]
    assert chosen["metrics"] == epochs[1]["metrics"]
    assert "collapsed" in next(event for event in events if event["kind"] == "done")["reason"]
    nas("report", "run")
    assert "**The search collapsed** in epoch 3: 100 %" in (tmp_path / "run" / "report.md").read_text()


def test_the_power_iteration_finds_the_largest_eigenvalue() -> None:
    torch.manual_seed(0)
    basis = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64)).Q
    spectra = (
        [3.0, 1.0, 0.5, 0.1, 0.0, -1.0],
        [1.0, 0.5, 0.0, -0.5, -2.0, -5.0],
        [2.0, 0.0, 0.0, -1.0, -1.0, -2.0],
    )
    for spectrum in (*spectra, [-0.5, -1.0, -2.0, -3.0, -4.0, -5.0], [0.0] * 6):
        matrix = basis @ torch.diag(torch.tensor(spectrum, dtype=torch.float64)) @ basis.T
        x = torch.randn(6, dtype=torch.float64, requires_grad=True)
        found = largest_eigenvalue(0.5 * x @ matrix @ x, [x])
        assert found == pytest.approx(max(spectrum), abs=5e-3)


def test_the_curvature_of_a_search_equals_the_dense_hessian() -> None:
    strategy = begun(Darts(hessian=1, batch=4))
    state = {name: tensor.clone() for name, tensor in strategy.supernet.state_dict().items()}
    x, y = (
        next(iter(strategy.valid_batches.epoch(0)))[0].double(),
        next(iter(strategy.valid_batches.epoch(0)))[1],
    )
    strategy.valid_batches.epoch = lambda number: iter([(x, y)])  # type: ignore[method-assign]
    found = strategy._curvature()["hessian_eigenvalue"]
    for key, tensor in strategy.supernet.state_dict().items():
        assert torch.equal(tensor, state[key]), key
    names = list(strategy.alphas)
    strategy.supernet.train()

    def loss(flat: Tensor) -> Tensor:
        parts = flat.split([strategy.alphas[name].numel() for name in names])
        tables = {
            name: part.view_as(strategy.alphas[name]).softmax(1)
            for name, part in zip(names, parts, strict=True)
        }
        return torch.nn.functional.cross_entropy(strategy.supernet(x, tables), y)

    flat = torch.cat([strategy.alphas[name].detach().flatten() for name in names])
    dense = torch.autograd.functional.hessian(loss, flat)
    assert found == pytest.approx(torch.linalg.eigvalsh(dense).max().item(), rel=1e-2)
    assert "hessian_eigenvalue" not in begun(Darts())._curvature()
