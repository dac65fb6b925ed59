"""Sampled strategies: what a step trains, what papers promise of it, inherited accuracy, kill and resume."""

from __future__ import annotations

import copy
import itertools
import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from strategy_helpers import noise
from torch import Tensor

from nas.network import Network
from nas.search_space import SPACES, Architecture, SearchSpace, space
from nas.search_space.rules import Limit
from nas.strategies import OFA, RSWS, SPOS, FairNAS, Task
from nas.strategies.evolution import brood
from nas.strategies.fairnas import fair_paths
from nas.strategies.ofa import elastic
from nas.strategies.sampled import Sampled
from nas.supernet.norms import normalising
from nas.train import accuracy

SCALES: dict[str, dict[str, Any]] = {
    "darts": {"channels": 4, "cells": 3},
    "nasbench201": {"channels": 4, "cells": 1},
}
QUICK = {"epochs": 4, "rounds": 2, "candidates": 3, "batch": 8, "recalibrated": 1}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "rsws": QUICK,
    "spos": {**QUICK, "parents": 2},
    "fairnas": QUICK,
    "enas": {**QUICK, "steps": 2, "samples": 2},
    "ofa": QUICK,
}


def made(name: str, **scale: Any) -> SearchSpace:
    """A small space on images of 8 x 8."""
    return space(
        name,
        **{**SPACES.facts(name)["small"], **SCALES.get(name, {}), "classes": 10, "input": (3, 8, 8), **scale},
    )


def prepared(strategy: Sampled, name: str, *, horizon: int = 1, **scale: Any) -> Sampled:
    """A strategy about to train its first epoch."""
    strategy.horizon = horizon
    strategy.prepare(Task(made(name, **scale), examples=noise()))
    strategy.supernet.train()
    return strategy


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(4, 3, 8, 8, generator=generator), torch.randint(10, (4,), generator=generator)


# --- what a step trains -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["nasbench201", "enas_macro"])
def test_a_step_trains_what_its_path_uses_and_nothing_else(name: str) -> None:
    """With momentum and weight decay, and velocities left from other paths: all other bits stay."""
    strategy = prepared(RSWS(lr=0.1, momentum=0.9, weight_decay=0.1), name)
    rng = random.Random(0)
    paths = [strategy.task.space.sample(rng) for _ in range(4)]
    for path in paths[:3]:
        strategy.weight_step(batch(), [path])
    before = {name: weight.clone() for name, weight in strategy.supernet.named_parameters()}
    strategy.weight_step(batch(), [paths[3]])
    inherited = {id(tensor) for tensor in strategy.supernet.state_of(paths[3]).values()}
    changed = set()
    for key, weight in strategy.supernet.named_parameters():
        if not torch.equal(weight, before[key]):
            changed.add(key)
            # What reads a concatenation is used in part: its inherited tensor is a copy of some columns.
            assert id(weight) in inherited or (name == "enas_macro" and key.endswith("weight")), key
    assert changed
    untouched = [key for key, weight in strategy.supernet.named_parameters() if weight.grad is None]
    assert untouched
    assert changed == set(before) - set(untouched)


def test_gradients_of_a_steps_paths_are_summed() -> None:
    strategy = prepared(RSWS(clip=0.0), "nasbench201")
    strategy.supernet.double()
    x, y = batch()
    rng = random.Random(0)
    paths = [strategy.task.space.sample(rng) for _ in range(3)]
    singles = []
    state = copy.deepcopy(strategy.supernet.state_dict())
    for chosen in ([paths[0]], [paths[1]], [paths[2]], paths):
        strategy.supernet.load_state_dict(state)
        strategy.weight_step((x.double(), y), chosen)
        singles.append(
            [torch.zeros_like(w) if w.grad is None else w.grad.clone() for w in strategy.weights.values()]
        )
    for *parts, total in zip(*singles, strict=True):
        torch.testing.assert_close(sum(parts), total)


# --- inherited weights --------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["batch", "tracked", "recalibrated"])
@pytest.mark.parametrize(
    "name",
    [
        "nasbench201",
        "resnet_elastic",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("enas_micro", "mobile")),
    ],
)
def test_a_child_reaches_exactly_what_its_path_reaches(name: str, norm: Any) -> None:
    strategy = prepared(RSWS(norm=norm, recalibrated=2, batch=8), name)
    strategy.train_epoch(0)
    path = strategy.best()
    published = strategy.task.space.supernet
    child = Network(
        strategy.task.space.fill(path),
        affine=published.get("affine", True),
        pool_norm=published.get("pool_norm", False),
    )
    child.load_state_dict(strategy.supernet.state_of(path))
    shown = [x for x, _ in itertools.islice(strategy.train_batches.epoch(0), 2)]
    with torch.no_grad(), normalising(child, norm, forward=child, images=shown):
        examples = noise()
        found = accuracy(child, examples.valid, mean=examples.mean, std=examples.std, forward=child)
    checked = strategy.checked(path)
    assert found["accuracy"] == checked["accuracy"] == strategy.score(path)
    assert found["loss"] == pytest.approx(checked["loss"], rel=1e-5)


def test_scoring_leaves_the_supernet_as_it_is() -> None:
    strategy = prepared(RSWS(recalibrated=2), "nasbench201")
    before = copy.deepcopy(strategy.supernet.state_dict())
    strategy.score(strategy.task.space.sample(random.Random(0)))
    assert all(torch.equal(tensor, before[key]) for key, tensor in strategy.supernet.state_dict().items())
    assert strategy.supernet.training


# --- strict fairness ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["nasbench201", "darts", "nasnet", "mobile", "enas_macro", "chain"])
def test_strict_fairness_trains_every_option_equally_often_in_each_step(name: str) -> None:
    chosen = made(name)
    for seed in range(3):
        paths = fair_paths(chosen, random.Random(seed))
        assert len(paths) == max(len(d.legal) for d in chosen.decisions)
        assert all(chosen.why_not(path) is None for path in paths)
        for d in chosen.decisions:
            counts = Counter(kept for path in paths for kept in path.choices[d.name])
            rows = {row for row, _ in counts}
            assert len(rows) == d.keep
            every = [counts[row, option] for row in rows for option in d.legal]
            assert max(every) - min(every) <= (len(paths) % len(d.legal) > 0)
            if len(d.legal) == len(paths):
                assert every == [1] * len(every)


def test_strict_fairness_is_refused_where_rules_forbid_it() -> None:
    with pytest.raises(ValueError, match="strict fairness"):
        FairNAS().check(replace(made("nasbench201"), rules=(_convolutions,)))


def _convolutions(architecture: Architecture) -> str | None:
    return "it has convolutions" if "conv" in architecture.literal else None


# --- evolution ----------------------------------------------------------------------------------------------


def test_children_are_new_and_within_the_limits() -> None:
    heavy = Limit("convolutions", 3, lambda a: a.literal.count("conv"))
    limited = made("nasbench201").limited(heavy)
    rng = random.Random(0)
    parents = [limited.sample(rng) for _ in range(5)]
    known = {parent.digest for parent in parents}
    children = []
    for child in itertools.islice(brood(limited, parents, rng, known=known, mutation=0.1), 60):
        assert child.digest not in known
        known.add(child.digest)
        children.append(child)
    assert all(limited.why_not(child) is None for child in children)
    genes = {(row, o, name) for parent in parents for name, v in parent.choices.items() for row, o in v}
    for child in children[::2][:5]:  # the crossed ones: of their parents' values, while such are new
        assert sum((r, o, n) not in genes for n, v in child.choices.items() for r, o in v) <= 1


def test_evolution_ends_where_a_small_space_is_exhausted() -> None:
    tiny = made("chain", layers=1, doubles=())
    strategy = SPOS(**{**QUICK, "candidates": 1000})
    reports = list(strategy.reports(Task(tiny, examples=noise(8))))
    assert len(reports) == 4
    assert len(strategy.scored) <= tiny.size


def test_evolution_finds_what_random_candidates_miss() -> None:
    """With a planted score (the number of 3x3 convolutions) and as many candidates."""
    found = {}
    for search in ("random", "evolution"):
        strategy = prepared(
            SPOS(search=search, rounds=6, candidates=10, parents=4), "nasbench201", horizon=12
        )
        _plant(strategy)
        for number in range(6):
            strategy._round(number)
        found[search] = strategy.best().literal.count("nor_conv_3x3")
        assert len(strategy.scored) == 60
    assert found["evolution"] == 6 > found["random"]


def _plant(strategy: Sampled) -> None:
    def checked(architecture: Architecture) -> dict[str, float]:
        return {"accuracy": architecture.literal.count("nor_conv_3x3") / 6, "loss": 0.0}

    strategy.checked = checked  # type: ignore[method-assign]


# --- elastic networks ---------------------------------------------------------------------------------------


def test_decisions_open_in_the_order_kernel_depth_width() -> None:
    strategy = prepared(OFA(rounds=4), "mobile", horizon=12)  # 8 epochs train, in 4 phases
    assert isinstance(strategy, OFA)
    kinds = elastic(strategy.task.space)
    seen = [strategy.open(epoch) for epoch in range(8)]
    phases = [set(), {"kernel"}, {"kernel", "depth"}, {"kernel", "depth", "width"}]
    assert seen == [phase for phase in phases for _ in range(2)]
    for epoch, opened in enumerate(seen):
        varied = set()
        for step in range(3):
            for path in strategy.sample(epoch, step):
                for d in strategy.task.space.decisions:
                    if any(option != max(d.legal) for _, option in path.choices[d.name]):
                        varied.add(kinds[d.name])
        assert varied == opened


@pytest.mark.parametrize("epochs", range(1, 7))
def test_the_last_epoch_that_trains_opens_everything(epochs: int) -> None:
    strategy = prepared(OFA(rounds=0), "resnet_elastic", horizon=epochs)
    assert isinstance(strategy, OFA)
    sizes = [len(strategy.open(epoch)) for epoch in range(epochs)]
    assert sizes == sorted(sizes)
    assert sizes[-1] == 2  # this space has no kernels
    assert epochs < 3 or sizes[0] == 0


def test_the_sandwich_has_the_largest_first_and_the_smallest_last() -> None:
    strategy = prepared(OFA(rounds=0, between=3), "resnet_elastic")
    first, *between, last = strategy.sample(0, 0)
    assert len(between) == 3
    for d in strategy.task.space.decisions:
        assert {option for _, option in first.choices[d.name]} == {max(d.legal)}
        assert {option for _, option in last.choices[d.name]} == {min(d.legal)}
    assert len(prepared(OFA(sandwich=False, between=3), "resnet_elastic").sample(0, 0)) == 3


def test_smaller_networks_learn_from_the_largest_and_it_from_the_labels() -> None:
    strategy = prepared(OFA(), "resnet_elastic")
    _, y = batch()
    logits = [torch.randn(4, 10, requires_grad=True) for _ in range(2)]
    (first,) = torch.autograd.grad(strategy.loss(0, logits[0], y), logits[0])
    torch.testing.assert_close(first, (logits[0].softmax(1) - torch.eye(10)[y]) / 4)
    (second,) = torch.autograd.grad(strategy.loss(1, logits[1], y), logits[1])
    torch.testing.assert_close(second, (logits[1].softmax(1) - logits[0].softmax(1)).detach() / 4)


@pytest.mark.parametrize("name", ["nasbench201", "enas_macro", "nasbench101"])
def test_spaces_without_elastic_choices_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no elastic"):
        OFA().check(made(name))


# --- all of them --------------------------------------------------------------------------------------------


def test_the_best_path_is_the_best_of_those_scored_at_the_end() -> None:
    strategy = RSWS(**QUICK)
    last = list(strategy.reports(Task(made("nasbench201"), examples=noise())))[-1]
    assert len(strategy.scored) == 2 + 2 * 3  # those watched behind the last trained epoch, and two rounds
    scores = [strategy.score(each.architecture) for each in strategy.scored.values()]
    assert last.metrics["valid_accuracy"] == max(scores) == strategy.score(strategy.best())
