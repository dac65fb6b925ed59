"""Laws of policies (REINFORCE, PPO): chances that sum to 1, gradients, rewards, and what is proposed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from functools import cache
from itertools import product
from random import Random

import pytest
import torch
from scipy.stats import chisquare
from strategy_helpers import Evaluated
from torch import Tensor

from nas.execution import Trial
from nas.goal import Goal
from nas.graph import Builder, Hole
from nas.search_space import Architecture, Decision, Limit, SearchSpace, space
from nas.search_space.listed import Listed
from nas.seeding import randomness
from nas.strategies import PPO, Reinforce, Task
from nas.strategies.policy import Policy, Tabular, policy, propose
from nas.strategies.reward import Reward

KINDS = ["tabular", "lstm"]
SPACES = [
    "pnas?blocks=1",  # one of two rows
    "nasbench101?vertices=4",  # illegal ones
    "chain?layers=1&train.lr=[0.01,0.1]",  # a setting of the recipe
    "kept",
]
every_policy = pytest.mark.parametrize("kind", KINDS)
every_space = pytest.mark.parametrize("address", SPACES)
every_strategy = pytest.mark.parametrize("strategy", [Reinforce, PPO])


@cache
def made(address: str) -> SearchSpace:
    return kept() if address == "kept" else space(address)


def kept() -> SearchSpace:
    """Decisions that keep two of three rows, two of four, one of two, and one that keeps all."""
    shapes = {"a": (2, 3, 2), "b": (1, 4, 2), "c": (2, 2, 1), "d": (2, 1, 1)}  # options, rows, keep
    options = ("conv_1x1", "conv_bn_3x3", "avg_pool_3x3")
    build = Builder((3, 6, 6))
    last = build("stem", "conv_bn_3x3", "input", out=4)
    for name, (_, rows, _) in shapes.items():
        edges = [build(f"{name}{row}", Hole(name, row), last) for row in range(rows)]
        last = build(name, "sum", *edges)
    build("classifier", "linear", build("pool", "global_avg_pool", last), out=3)
    decisions = (Decision(name, options[:n], rows, keep) for name, (n, rows, keep) in shapes.items())
    return SearchSpace(tuple(decisions), build.graph())


@cache
def everything(address: str) -> list[Architecture]:
    """All architectures, legal or not."""
    on = made(address)
    names = [decision.name for decision in on.decisions]
    values = product(*(decision.values() for decision in on.decisions))
    found = [on.architecture(dict(zip(names, each, strict=True))) for each in values]
    assert len(set(found)) == on.size
    return found


def random_policy(kind: str, address: str, seed: int = 0) -> Policy:
    """One with random weights, so that hardly any two architectures are equally likely."""
    found = policy(kind, made(address), seed=seed)
    with randomness(seed, "weights"), torch.no_grad():
        for parameter in found.parameters():
            parameter.normal_(0, 0.8 if kind == "tabular" else 0.3)
    return found


@every_policy
@every_space
def test_with_a_bound_nothing_is_certain(kind: str, address: str) -> None:
    """Of k entries with logits within +-b, no chance is further than exp(2 b k) from the uniform one."""
    found = policy(kind, made(address), seed=0, bound=0.4)  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.normal_(0, 30.0)
        chances = found.log_prob(everything(address))
        kept = sum(slot.keep for slot in found.layout.slots)
        assert (chances + math.log(len(chances))).abs().max() <= 0.8 * kept
        assert chances.exp().sum() == pytest.approx(1.0)
        found.bound = None
        assert (found.log_prob(everything(address)) + math.log(len(chances))).abs().max() > 0.8 * kept


def chances(found: Policy, address: str) -> Tensor:
    return found.log_prob(everything(address)).detach().exp()


def exact_entropy(found: Policy, address: str) -> float:
    p = chances(found, address)
    return -(p * p.log()).sum().item()


# --- the distribution ---


def test_some_of_the_enumerated_are_illegal() -> None:
    on = made("nasbench101?vertices=4")
    assert any(on.why_not(each) for each in everything("nasbench101?vertices=4"))


@every_policy
@every_space
def test_chances_sum_to_one(kind: str, address: str) -> None:
    found = chances(random_policy(kind, address), address)
    assert found.sum().item() == pytest.approx(1, abs=1e-6)
    assert found.max() > 3 * found.min()


@every_space
def test_a_table_begins_uniform(address: str) -> None:
    found = chances(policy("tabular", made(address), seed=0), address)
    assert torch.allclose(found, torch.full_like(found, 1 / made(address).size), rtol=1e-9)


def test_a_value_is_as_likely_as_the_product_of_its_weights() -> None:
    """The definition, value by value, where two of three and of four rows are kept."""
    found = random_policy("tabular", "kept")
    assert isinstance(found, Tabular)
    logits = dict(zip(found.layout.entries, found.logits.tolist(), strict=True))

    def weight(name: str, value: tuple) -> float:
        return math.prod(math.exp(logits[name, row, option]) for row, option in value)

    totals = {d.name: sum(weight(d.name, value) for value in d.values()) for d in made("kept").decisions}
    some = Random(0).sample(everything("kept"), 200)
    expected = [math.prod(weight(n, v) / totals[n] for n, v in each.choices.items()) for each in some]
    assert found.log_prob(some).exp().tolist() == pytest.approx(expected, rel=1e-9)


@every_policy
@every_space
def test_entropy_is_that_of_the_enumeration(kind: str, address: str) -> None:
    """Of an autoregressive policy: in the mean over samples, by the chain rule."""
    found = random_policy(kind, address)
    _, entropies = found.measure(found.layout.chosen(everything(address)))
    mean = (chances(found, address) * entropies.detach()).sum().item()
    assert mean == pytest.approx(exact_entropy(found, address), rel=1e-5)
    if kind == "tabular":
        assert entropies.unique().numel() == 1


@every_policy
@pytest.mark.parametrize("address", [each for each in SPACES if each != "kept"])
def test_divergence_is_that_of_the_enumeration(kind: str, address: str) -> None:
    """From independent chances in every slot: in the mean over samples, by the chain rule."""
    found = random_policy(kind, address)
    generator = torch.Generator().manual_seed(1)
    sizes = [sum(len(row) for row in slot.rows) for slot in found.layout.slots]
    aims = {i: torch.rand(n, generator=generator).double().softmax(0) for i, n in enumerate(sizes)}
    chosen = found.layout.chosen(everything(address))
    aimed_at = torch.cat(list(aims.values()))[chosen].log().sum(1)
    p = chances(found, address)
    expected = (p * (p.log() - aimed_at)).sum().item()
    divergence = found.divergence(chosen, aims)
    assert (p * divergence.detach()).sum().item() == pytest.approx(expected, rel=1e-5)
    assert found.divergence(chosen, {}).count_nonzero() == 0


@every_policy
@every_space
@pytest.mark.parametrize("temperature", [1.0, 1e6])
def test_samples_are_as_frequent_as_their_chances(kind: str, address: str, temperature: float) -> None:
    """At a high temperature all values are equally likely."""
    found, count = random_policy(kind, address), 10_000
    drawn = found.draw(torch.Generator().manual_seed(0), count, temperature)
    seen = Counter(map(tuple, drawn.tolist()))
    p = (
        chances(found, address).tolist()
        if temperature == 1
        else [1 / made(address).size] * made(address).size
    )
    keys = list(map(tuple, found.layout.chosen(everything(address)).tolist()))
    assert set(seen) <= set(keys)
    pairs = [(seen[key], count * chance) for key, chance in zip(keys, p, strict=True)]
    often = [pair for pair in pairs if pair[1] >= 5]
    rest = [sum(column) for column in zip(*(pair for pair in pairs if pair[1] < 5), strict=True)]
    observed, expected = zip(*often, *([tuple(rest)] if rest else []), strict=True)
    assert chisquare(observed, [each * count / sum(expected) for each in expected]).pvalue > 1e-3


def test_a_temperature_divides_logits() -> None:
    """Samples at temperature 2 are those of the policy with half the logits, draw for draw."""
    warm, halved = random_policy("tabular", "kept"), random_policy("tabular", "kept")
    with torch.no_grad():
        next(halved.parameters()).div_(2)
    samples = [
        found.draw(torch.Generator().manual_seed(1), 500, temperature)
        for found, temperature in ((warm, 2.0), (halved, 1.0), (warm, 1.0))
    ]
    assert torch.equal(samples[0], samples[1])
    assert not torch.equal(samples[0], samples[2])


@every_policy
@every_space
def test_what_is_drawn_is_what_is_measured(kind: str, address: str) -> None:
    """Architectures and their entries are two ways of saying one thing."""
    found = random_policy(kind, address)
    drawn = found.draw(torch.Generator().manual_seed(3), 50)
    sampled = list(found.sample(torch.Generator().manual_seed(3), 50))
    assert torch.equal(found.layout.chosen(sampled), drawn)


@every_policy
def test_a_chance_depends_on_no_other_in_the_batch(kind: str) -> None:
    found = random_policy(kind, "kept")
    some = Random(0).sample(everything("kept"), 20)
    together = found.log_prob(some)
    alone = torch.cat([found.log_prob([each]) for each in reversed(some)]).flip(0)
    assert torch.allclose(together, alone, atol=1e-5)


@every_policy
@every_space
def test_gradients_are_finite_differences(kind: str, address: str) -> None:
    found = random_policy(kind, address).double()
    some = Random(0).sample(everything(address), 5)
    parameters = list(found.parameters())

    def value() -> Tensor:
        log_prob, entropy = found.measure(found.layout.chosen(some))
        return (log_prob * torch.arange(1, 6)).sum() - 3 * entropy.sum()

    gradients = torch.autograd.grad(value(), parameters)
    generator, step = torch.Generator().manual_seed(0), 1e-5
    for _ in range(3):
        direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
        ends = []
        for sign in (1, -2):
            with torch.no_grad():
                for parameter, each in zip(parameters, direction, strict=True):
                    parameter.add_(each, alpha=sign * step)
                ends.append(value().item())
        with torch.no_grad():
            for parameter, each in zip(parameters, direction, strict=True):
                parameter.add_(each, alpha=step)
        expected = sum((g * d).sum().item() for g, d in zip(gradients, direction, strict=True))
        assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(expected, rel=1e-5)


@every_space
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_a_step_of_a_table_is_its_gradient(address: str, scale: float) -> None:
    """In closed form, equal to autograd's; also where nearly everything is sure."""
    found = random_policy("tabular", address)
    assert isinstance(found, Tabular)
    with torch.no_grad():
        found.logits *= scale
    for each in Random(0).sample(everything(address), 5):
        (gradient,) = torch.autograd.grad(found.log_prob([each]).sum(), found.logits)
        before = found.logits.detach().clone()
        found.ascend(each, 0.5)
        assert torch.allclose(found.logits - before, 0.5 * gradient, rtol=1e-9, atol=1e-11)


# --- rewards ---


def rewards(scores: list[float | None]) -> list[float]:
    """Each result's own reward: without memory, the baseline is the reward before, at first the mean, 1."""
    reward, found = Reward(0.0), 1.0
    return [found := found + reward.advantage(score) for score in scores]


@pytest.mark.parametrize("change", [lambda x: 100 * x - 7, math.exp, lambda x: -math.exp(-9 * x)])
def test_rewards_know_no_scale(change: Callable[[float], float]) -> None:
    scores = [round(Random(i).gauss(0, 1), 1) for i in range(200)]
    assert rewards([change(score) for score in scores]) == rewards(scores)
    assert rewards([-score for score in scores]) != rewards(scores)


@pytest.mark.parametrize("count", [1, 2, 5, 30])
@pytest.mark.parametrize("digits", [0, 6])
def test_the_mean_reward_is_one(count: int, digits: int) -> None:
    """Over all scores, each as the last one told; equal ones too (digits=0)."""
    scores = [round(Random(i).gauss(0, 1), digits) for i in range(count)]
    last = [rewards([*scores[:i], *scores[i + 1 :], scores[i]])[-1] for i in range(count)]
    assert sum(last) / count == pytest.approx(1, rel=1e-9)
    assert [x for _, x in sorted(zip(scores, last, strict=True))] == sorted(last)


def test_the_deviation_of_rewards_is_one() -> None:
    found = torch.tensor(rewards([Random(i).gauss(0, 1) for i in range(4000)]))
    assert found.mean().item() == pytest.approx(1, abs=0.06)
    assert found.std().item() == pytest.approx(1, abs=0.1)


def test_equal_scores_teach_nothing() -> None:
    reward = Reward(0.9)
    assert [reward.advantage(0.1) for _ in range(50)] == [0.0] * 50


def test_advantages_of_steady_scores_are_zero_in_the_mean() -> None:
    """The baseline follows the rewards; a better score than any has more than any other."""
    reward = Reward(0.9)
    found = [reward.advantage(Random(i).random()) for i in range(2000)]
    assert sum(found) / len(found) == pytest.approx(0, abs=0.05)
    assert reward.advantage(2.0) > max(found[200:]) - 3 > 0


def test_a_failure_is_like_the_worst() -> None:
    scores = [0.5, 0.2, 0.9, 0.2, 0.7]
    one, other = Reward(0.9), Reward(0.9)
    assert [one.advantage(None), one.advantage(None)] == [0.0, 0.0]
    for score in scores:
        assert one.advantage(score) == other.advantage(score)
    failed = one.advantage(None)
    assert failed == other.advantage(0.2) < 0
    assert one.advantage(0.9) == other.advantage(0.9) > failed


# --- what is learned ---


def begun(strategy: Reinforce | PPO, address: str | SearchSpace, **more: object) -> Reinforce | PPO:
    on = made(address) if isinstance(address, str) else address
    strategy.resume(Task(on, goals=(Goal("a"),), **more), [], None)
    return strategy


def tell(strategy: Reinforce | PPO, architecture: Architecture, score: float | None) -> None:
    number = len(strategy.told)
    strategy.tell(Trial(number, architecture, 1), None if score is None else {"a": score})


@every_policy
@pytest.mark.parametrize("made_strategy", [Reinforce, lambda policy: PPO(policy, batch=1, entropy=0)])
@pytest.mark.parametrize("better", [True, False])
def test_a_result_above_the_baseline_becomes_likelier(
    kind: str, made_strategy: Callable[[str], Reinforce | PPO], better: bool
) -> None:
    strategy = begun(made_strategy(kind), "kept")
    first, second = Random(1).sample(everything("kept"), 2)
    before = strategy.policy.log_prob([second]).item()
    tell(strategy, first, 0.5)
    assert strategy.policy.log_prob([second]).item() == before  # there is nothing to compare it with
    tell(strategy, second, 0.9 if better else 0.1)
    assert (strategy.policy.log_prob([second]).item() > before) == better
    assert strategy.policy.log_prob([second]).item() != before


@every_strategy
@every_policy
def test_the_best_of_many_becomes_likely(strategy: type, kind: str) -> None:
    """Told of all architectures of a space, a policy likes the best more than chance, the worst less."""
    address = "chain?layers=1&train.lr=[0.01,0.1]"
    learner, found = begun(strategy(kind), address), everything(address)
    for _ in range(10):
        for score, each in Random(0).sample(list(enumerate(found)), len(found)):
            tell(learner, each, score)
    after = chances(learner.policy, address)
    assert after[-1] > 2 / len(found)
    assert after[0] < 0.5 / len(found)


def test_ppo_learns_a_batch_at_a_time() -> None:
    strategy = begun(PPO(batch=3), "pnas?blocks=1")
    changed = []
    for each in Random(0).sample(everything("pnas?blocks=1"), 12):
        before = chances(strategy.policy, "pnas?blocks=1")
        tell(strategy, each, Random(each.literal).random())
        changed.append(not torch.equal(before, chances(strategy.policy, "pnas?blocks=1")))
    assert changed == [False, False, True] * 4


@every_policy
@pytest.mark.parametrize("likelier", [True, False])
@pytest.mark.parametrize("better", [True, False])
def test_beyond_the_clip_there_is_no_gradient(kind: str, likelier: bool, better: bool) -> None:
    """A trial is asked, the policy changes (two updates) before its result is there: the ratio is to what the
    policy was when it was asked, and a step that would lead further away is not made.
    """
    strategy = begun(PPO(kind, batch=1, passes=1, entropy=0), "pnas?blocks=1")
    late, *others = Random(2).sample(everything("pnas?blocks=1"), 3)
    strategy.pending[9] = Trial(9, late, 1)
    asked = strategy.policy.log_prob([late]).item()
    for each in others:
        tell(strategy, each, 0.5)  # equal scores: nothing is learned
        move(strategy.policy, late, 0.15 if likelier else -0.15)
    change = strategy.policy.log_prob([late]).item() - asked
    assert abs(change) == pytest.approx(0.3, abs=0.01)  # each half is within the clip, both are not
    before = [parameter.clone() for parameter in strategy.policy.parameters()]
    strategy.tell(strategy.pending.pop(9), {"a": 0.9 if better else 0.1})
    same = all(torch.equal(a, b) for a, b in zip(before, strategy.policy.parameters(), strict=True))
    assert same == (likelier == better)


def move(learned: Policy, architecture: Architecture, by: float) -> None:
    """Change the log-probability of an architecture by so much, along its gradient."""
    aim = learned.log_prob([architecture]).item() + by
    for _ in range(50):
        now = learned.log_prob([architecture]).sum()
        gradients = torch.autograd.grad(now, list(learned.parameters()))
        length = sum(g.square().sum() for g in gradients)
        with torch.no_grad():
            for parameter, gradient in zip(learned.parameters(), gradients, strict=True):
                parameter.add_(gradient * ((aim - now) / length / 4))


@every_strategy
@every_policy
def test_the_entropy_bonus_flattens(strategy: type, kind: str) -> None:
    address = "chain?layers=1&train.lr=[0.01,0.1]"
    found = {}
    for weight in (0.0, 1.0):
        learner = begun(strategy(kind, entropy=weight), address)
        learner.policy.load_state_dict(random_policy(kind, address).state_dict())
        for each in Random(0).sample(everything(address), 12) * 2:
            tell(learner, each, 0.5)
        found[weight] = exact_entropy(learner.policy, address)
    assert found[0.0] == pytest.approx(exact_entropy(random_policy(kind, address), address), abs=1e-9)
    assert found[0.0] + 1e-3 < found[1.0] <= math.log(made(address).size) + 1e-6


# --- what is proposed ---


def proposals(learned: Policy, count: int) -> list[Architecture]:
    """What is proposed one after the other, where equal literals are equal."""
    found: list[Architecture] = []
    for number in range(count):
        found.append(propose(learned, lambda each: each in found, seed=0, number=number))
    return found


def towards(learned: Tabular, architecture: Architecture, strength: float) -> None:
    with torch.no_grad():
        learned.logits[learned.layout.chosen([architecture])] += strength


def test_a_sure_policy_proposes_the_rest_too() -> None:
    """The likeliest first; then each of the others once, then any."""
    address = "chain?layers=1&train.lr=[0.01,0.1]"
    learned = policy("tabular", made(address), seed=0)
    favourite = everything(address)[7]
    towards(learned, favourite, 30.0)
    found = proposals(learned, made(address).size + 1)
    assert found[0] == favourite
    assert set(found) == set(everything(address))


@every_strategy
@every_policy
def test_proposals_are_legal_where_networks_decide_what_is_seen(strategy: type, kind: str) -> None:
    """Draws that are no network at all are among them; identities of networks are not asked of those."""
    on = made("nasbench101?vertices=4")
    executor = scored(lambda each: len(each.literal))
    learner = begun(strategy(kind), on, executor=executor, trials=25)
    started = [each.architecture for each in learner.reports(learner.task) if each.kind == "start"]
    assert len({on.network_digest(each) for each in started}) >= 12
    assert not [each for each in started if on.why_not(each)]


def weight(architecture: Architecture) -> int:
    """The number of layers that are no skip connection."""
    return sum(option != "skip_connect" for _, option in architecture.choices["layers"])


@every_policy
def test_proposals_are_repaired_under_a_tight_limit(kind: str) -> None:
    """41 of 6^8 architectures are legal, one step from the lightest; draws never meet them."""
    on = space("chain?layers=8").limited(Limit("weight", 1, weight))
    found = proposals(policy(kind, on, seed=0), 12)
    assert not [each for each in found if on.why_not(each)]
    assert len(set(found)) >= 10


def test_a_limit_that_none_meets_names_the_closest() -> None:
    on = space("chain?layers=3").limited(Limit("weight", 0.5, lambda each: 1 + weight(each)))
    with pytest.raises(ValueError, match=r"within the limits; the closest is \|skip_connect~0.*weight is 1"):
        propose(policy("tabular", on, seed=0), lambda each: False, seed=0, number=0)


def test_of_a_list_the_policy_chooses_members() -> None:
    """Draws never meet a list that is thin: members are chosen by their chances."""
    whole = space("chain?layers=8")
    on = Listed.of(whole, (whole.sample(Random(i)) for i in range(40)))
    learned = policy("tabular", on, seed=0)
    assert len(set(proposals(learned, 15))) == 15
    assert set(proposals(learned, 15)) <= set(on.members)
    favourite = on.members[3]
    towards(learned, favourite, 3.0)

    def shared(each: Architecture) -> int:
        return sum(a == b for a, b in zip(each.choices["layers"], favourite.choices["layers"], strict=True))

    near = [propose(learned, lambda each: each == favourite, seed=0, number=i) for i in range(10)]
    others = [each for each in on.members if each != favourite]
    assert favourite not in near
    assert sum(map(shared, near)) / len(near) > sum(map(shared, others)) / len(others) + 0.7


def scored(score: Callable[[Architecture], float]) -> Evaluated:
    return Evaluated(lambda trial: {"a": score(trial.architecture)})


@every_strategy
@every_policy
def test_nothing_is_proposed_twice_and_asking_changes_nothing(strategy: type, kind: str) -> None:
    """Also not what has no result yet, with a lag and a policy that is rather sure."""
    executor = scored(lambda each: Random(each.literal).random())
    more = {"lag": 3, "replay": False, "trials": 50, "executor": executor}
    learner = begun(strategy(kind, lr=0.5 if kind == "tabular" else 0.02), "pnas?blocks=1", **more)
    started = []
    for report in learner.reports(learner.task):
        if report.kind == "start":
            started.append(report.architecture)
            assert len(learner.pending) <= 4
            state = {key: value.clone() for key, value in learner.policy.state_dict().items()}
            number = report.step + 1
            assert learner.ask(number) == learner.ask(number)
            assert all(torch.equal(state[key], value) for key, value in learner.policy.state_dict().items())
    assert len(started) == len(set(started)) == 50
    assert exact_entropy(learner.policy, "pnas?blocks=1") < math.log(256) - 0.1
