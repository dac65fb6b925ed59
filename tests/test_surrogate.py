"""Laws of the features of architectures, in any space, and of the process that learns from them."""

from __future__ import annotations

import math
from itertools import combinations, pairwise
from random import Random

import numpy as np
import pytest
from data_helpers import tables
from scipy.integrate import quad
from scipy.stats import multivariate_normal, norm, spearmanr
from sklearn.gaussian_process.kernels import Matern

from nas.evaluators.table import Table
from nas.search_space import SPACES, Architecture, SearchSpace, space
from nas.strategies.features import Counts, Features
from nas.strategies.surrogate import (
    NOISES,
    SCALES,
    WEIGHTS,
    GaussianProcess,
    Kernel,
    Surrogate,
    distances,
    expected_improvement,
    fitted,
    quantiles,
)

JOINT = (
    "nasbench201?train.lr=[0.01,0.1,1]",
    "chain?layers=3&train.weight_decay=[0,1e-4,5e-4]",
    "nasbench101?train.nesterov=[true,false]&train.batch=[16,32]",
)


def small(address: str) -> SearchSpace:
    return space(address, **SPACES.facts(address)["small"])


def wandered(made: SearchSpace, walks: int, steps: int) -> list[Architecture]:
    """Samples, and those that single steps lead to from them: also steps that change no network."""
    found = []
    movable = [decision for decision in made.decisions if decision.size > 1]
    for walk in range(walks):
        rng = Random(walk)
        at = made.sample(rng)
        found.append(at)
        for _ in range(steps):
            decision = rng.choice(movable)
            value = decision.mutate(at.choices[decision.name], rng)
            near = made.architecture({**at.choices, decision.name: value})
            if made.why_not(near) is None:
                at = near
                found.append(at)
    return found


def features(made: SearchSpace, architectures: list[Architecture]) -> list[Counts]:
    return Features(made).of([each.choices for each in architectures])


# --- features ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", [*SPACES, *JOINT])
def test_features_tell_apart_what_is_trained_differently_and_nothing_that_is_one(address: str) -> None:
    made = small(address)
    architectures = wandered(made, 6, 5)
    counts = features(made, architectures)
    results = [made.result_digest(each) for each in architectures]
    for i, j in combinations(range(len(architectures)), 2):
        if results[i] != results[j]:
            assert counts[i] != counts[j], (architectures[i].literal, architectures[j].literal)
        if architectures[i].digest == architectures[j].digest:  # one canonical form
            assert counts[i] == counts[j], (architectures[i].literal, architectures[j].literal)


@pytest.mark.parametrize("address", [*SPACES, "nasbench201?train.lr=[0.01,0.1]"])
def test_isomorphic_networks_have_the_same_paths_and_subtrees(address: str) -> None:
    made = space(address)  # at full scale: in few channels different widths may be one network
    architectures = wandered(made, 4, 7)
    counts = features(made, architectures)
    networks = [made.network_digest(each) for each in architectures]
    pairs = [
        (i, j)
        for i, j in combinations(range(len(architectures)), 2)
        if networks[i] == networks[j] and architectures[i].choices != architectures[j].choices
    ]
    if address.startswith("nasbench"):
        assert pairs or address == "nasbench_sss"
    for i, j in pairs:
        assert counts[i].paths == counts[j].paths
        assert counts[i].subtrees == counts[j].subtrees


def test_paths_are_those_of_the_cell() -> None:
    """The ways through a cell of NAS-Bench-201: `none` ends one, a skip connection is no operation."""
    made = space("nasbench201", channels=4, cells=2)
    for architecture in (made.sample(Random(i)) for i in range(40)):
        edges = {
            (source, target): option
            for target, decision in enumerate(made.decisions, 1)
            for source, option in architecture.choices[decision.name]
        }
        wanted: dict[tuple[str, ...], float] = {}
        for way in ((0, 3), (0, 1, 3), (0, 2, 3), (0, 1, 2, 3)):
            picked = [str(edges[edge]) for edge in pairwise(way)]
            if "none" not in picked:
                path = tuple(each for each in picked if each != "skip_connect")
                wanted[path] = wanted.get(path, 0) + 1
        found = {
            tuple(label[0] for label in path[1:]): count  # type: ignore[index]
            for path, count in features(made, [architecture])[0].paths.items()
        }
        assert found == wanted, architecture.literal


def test_features_of_a_recipe_keep_the_order_of_numbers_and_leave_the_network_alone() -> None:
    made = small(JOINT[0])
    at = made.sample(Random(3))
    slow, middle, fast = features(
        made, [made.architecture({**at.choices, "train.lr": ((0, rate),)}) for rate in (0.01, 0.1, 1)]
    )
    assert slow.paths == middle.paths == fast.paths
    assert slow.subtrees == middle.subtrees == fast.subtrees
    near, far = (float(distances([slow], [each])[0][0, 0]) for each in (middle, fast))
    assert 0 < near < far


# --- results and what they promise -------------------------------------------------------------------------


def test_results_count_by_their_ranks() -> None:
    values = [Random(i).gauss(0, 1) for i in range(30)]
    ranked = quantiles(values)
    assert np.array_equal(ranked, quantiles([math.exp(3 * each) - 5 for each in values]))
    assert np.allclose(ranked, -quantiles([-each for each in values]))
    assert np.array_equal(np.argsort(ranked), np.argsort(values))
    tied = quantiles([1, 2, 2, 3])
    assert tied[1] == tied[2] == 0
    assert quantiles([7.0]).tolist() == [0]


@pytest.mark.parametrize("gain", [-7.0, -2.5, -0.3, 0.0, 1.2, 4.0])
@pytest.mark.parametrize("deviation", [0.05, 1.0, 3.0])
def test_expected_improvement_is_the_integral(gain: float, deviation: float) -> None:
    def integrand(u: float) -> float:
        return float((gain + deviation * u) * norm.pdf(u))

    # Where the density is of any size; by parts, since it is narrow.
    start = max(-gain / deviation, -12.0)
    ends = [start, *(start + step for step in (0.2, 1, 3, 10)), max(start, 0) + 14]
    wanted = sum(quad(integrand, a, b, epsabs=0)[0] for a, b in pairwise(ends))
    found = expected_improvement(np.array([2 + gain]), np.array([deviation]), 2.0)[0]
    assert found == pytest.approx(wanted, rel=1e-5, abs=1e-14 * deviation)


def test_nothing_more_is_expected_of_what_is_certain() -> None:
    found = expected_improvement(np.array([1.0, 3.0]), np.zeros(2), 2.0)
    assert found.tolist() == [0, 1]


# --- the process -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cells() -> tuple[list[Counts], np.ndarray]:
    """Cells of NAS-Bench-101 and a number of each."""
    made = small("nasbench101")
    architectures = list({each.literal: each for each in wandered(made, 8, 3)}.values())[:24]
    rng = np.random.default_rng(0)
    return features(made, architectures), rng.standard_normal(len(architectures))


def dense(counts: list[Counts], kind: int) -> np.ndarray:
    labels = sorted({label for each in counts for label in each[kind]}, key=repr)
    return np.array([[each[kind].get(label, 0.0) for label in labels] for each in counts])


def covariance(counts: list[Counts], known: int, kernel: Kernel) -> np.ndarray:
    """Of all pairs, by scikit-learn's Matérn kernel; units are of the first `known`."""
    total = np.zeros((len(counts), len(counts)))
    for kind, weight in enumerate(kernel.weights):
        x = dense(counts, kind)
        unit = ((x[:known, None] - x[None, :known]) ** 2).sum(2).mean()
        total += weight * Matern(length_scale=math.sqrt(unit / kernel.scale), nu=2.5)(x)
    return total / sum(kernel.weights)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("scale", SCALES)
def test_the_posterior_is_that_of_the_closed_form(
    cells: tuple[list[Counts], np.ndarray], weights: tuple[float, ...], scale: float
) -> None:
    counts, values = cells
    known, y = 16, values[:16]
    kernel = Kernel(scale, 0.07, weights)
    mean, deviation = GaussianProcess(counts[:known], y, kernel)(counts)
    whole = covariance(counts, known, kernel)
    inverse = np.linalg.inv(whole[:known, :known] + 0.07 * np.eye(known))
    across = whole[:, :known] @ inverse
    assert np.allclose(mean, across @ y, atol=1e-5)
    variance = (y @ inverse @ y) / known  # Rasmussen & Williams: where the derivative by it is zero
    left = np.maximum(1 - (across * whole[:, :known]).sum(1), 0)
    assert np.allclose(deviation**2, left * variance, atol=1e-5)


def test_the_kernel_is_the_most_likely_one(cells: tuple[list[Counts], np.ndarray]) -> None:
    counts, values = cells
    squared = [each / each.mean() for each in distances(counts, counts)]

    def likelihood(kernel: Kernel) -> float:
        matrix = covariance(counts, len(counts), kernel) + kernel.noise * np.eye(len(counts))
        variance = values @ np.linalg.solve(matrix, values) / len(values)
        return float(multivariate_normal(cov=variance * matrix).logpdf(values))

    every = [Kernel(scale, noise, weights) for weights in WEIGHTS for scale in SCALES for noise in NOISES]
    assert likelihood(fitted(squared, values)) == pytest.approx(max(map(likelihood, every)), abs=1e-4)


def test_what_is_known_is_certain_and_what_is_far_away_is_not(
    cells: tuple[list[Counts], np.ndarray],
) -> None:
    counts = [each for place, each in enumerate(cells[0]) if each not in cells[0][:place]]
    values = cells[1][: len(counts)]
    process = GaussianProcess(counts, values, Kernel(1.0, 0.0))
    mean, deviation = process(counts)
    assert np.allclose(mean, values, atol=1e-3)
    assert deviation.max() < 1e-2
    away = [
        Counts(*({**kind, ("new",): step * 10.0} for kind in counts[0])) for step in (0.01, 0.1, 1, 10, 1000)
    ]
    mean, deviation = process(away)
    assert np.all(np.diff(deviation) > -1e-9)
    assert abs(mean[-1]) < 1e-6
    assert deviation[-1] == pytest.approx(math.sqrt(process.variance))


@pytest.mark.parametrize("values", [[0.3], [1.0, 1.0], [2.0] * 9, [1.0, 2.0], [1e300, -1e300, 5.0]])
@pytest.mark.parametrize("same", [False, True])
def test_any_results_give_a_process(
    cells: tuple[list[Counts], np.ndarray], values: list[float], same: bool
) -> None:
    """One result, constant ones, enormous ones; all of one architecture."""
    known = [cells[0][0 if same else place] for place in range(len(values))]
    mean, deviation = GaussianProcess(known, quantiles(values))(cells[0])
    assert np.isfinite(mean).all()
    assert np.isfinite(deviation).all()
    assert (deviation >= 0).all()


# --- what a strategy was told ------------------------------------------------------------------------------


def told(made: SearchSpace, number: int, *, most: int) -> Surrogate:
    surrogate = Surrogate(Features(made), first=10, most=most)
    surrogate.scored += [(Random(i).gauss(0, 1), made.sample(Random(i)).choices) for i in range(number)]
    return surrogate


def test_the_best_and_the_latest_are_learned_from() -> None:
    made = small("mobile")
    surrogate = told(made, 40, most=10)
    process = surrogate.process()
    before = sorted(surrogate.scored[:35], key=lambda each: each[0])[-5:]
    kept = surrogate.features.of([choices for _, choices in (*before, *surrogate.scored[35:])])
    assert len(process.known) == 10
    assert all(each in process.known for each in kept)


def test_a_process_is_a_function_of_what_was_told() -> None:
    made = small("chain")
    whole = told(made, 35, most=20)
    grown = Surrogate(Features(made), first=10, most=20)
    for each in whole.scored:
        grown.scored.append(each)
        grown.process()
    new = whole.features.of([made.sample(Random(100 + i)).choices for i in range(9)])
    assert grown.process().kernel == whole.process().kernel
    for a, b in zip(grown.process()(new), whole.process()(new), strict=True):
        assert np.array_equal(a, b)


def test_what_is_waited_for_has_its_expected_result() -> None:
    made = small("nasbench201")
    surrogate = told(made, 30, most=300)
    waiting = [made.sample(Random(1000)).choices]
    (mean,), (deviation,) = surrogate.process()(surrogate.features.of(waiting))
    (believed,), (surer,) = surrogate.process(waiting)(surrogate.features.of(waiting))
    assert believed == pytest.approx(mean, abs=0.05)
    assert surer < 0.9 * deviation


def test_it_learns_accuracies() -> None:
    """NAS-Bench-201: from 100 results the order of the others, at least as 0.7 of Spearman's."""
    table = Table.read(tables() / "nasbench201.csv.gz", columns=("cifar10_valid_200",))
    made = space("nasbench201", channels=4, cells=1)
    literals = Random(0).sample(sorted(table.rows), 500)
    values = [table.value(literal, "cifar10_valid_200") for literal in literals]
    counts = Features(made).of([made.parse(literal).choices for literal in literals])
    mean, _ = GaussianProcess(counts[:100], quantiles(values[:100]))(counts[100:])
    assert spearmanr(mean, values[100:]).statistic > 0.7
