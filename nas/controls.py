"""controls(): the found network and its opponents, trained under one recipe inside the run of a search."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from nas import hand_designed
from nas.search_space import Architecture, SearchSpace
from nas.search_space.joint import with_choices
from nas.seeding import derive, generator
from nas.subject import Subject
from nas.training import train_network

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from nas.loop import Search

DRAWS = 100  # for each architecture that is wanted: a small space may have fewer


def controls(search: Search, best: Architecture) -> dict[str, dict[str, float]]:
    """Train what was not trained before; mean and deviation of each group's test accuracy."""
    scores: dict[str, list[float]] = {}
    opponents = _opponents(search, best)
    search.watcher.stage("controls", len(opponents))
    done = {event["name"]: event for event in search.run.events() if event["kind"] == "control"}
    for name, group, subject, seed in opponents:
        event = done.get(name)
        if event is None:
            event = _train(search, name, group, subject, seed)
            search.tell(event)
        scores.setdefault(group, []).append(event["metrics"]["test_accuracy"])
    return {
        group: {
            "mean": statistics.fmean(values),
            "std": statistics.stdev(values) if len(values) > 1 else 0.0,
            "n": len(values),
        }
        for group, values in scores.items()
    }


def strangers(
    space: SearchSpace, count: int, draw: Callable[[], Architecture], *, known: Iterable[Architecture] = ()
) -> list[Architecture]:
    """Drawn architectures that are different networks, and none of the `known` ones; fewer if there are no
    more.
    """
    seen = set(map(space.result_digest, known))
    found: list[Architecture] = []
    for _ in range(DRAWS * (count + 1)):
        if len(found) == count:
            break
        sampled = draw()
        digest = space.result_digest(sampled)
        if digest not in seen:
            seen.add(digest)
            found.append(sampled)
    return found


def _opponents(search: Search, best: Architecture) -> list[tuple[str, str, Subject, int]]:
    """(name, group, network, seed): in rounds, so that an early look shows something of each group."""
    n = search.config["controls"]
    found = Subject("found", best)
    rng = generator(search.seed, "controls")
    randoms = strangers(search.space, n, lambda: search.space.sample(rng), known=[best])
    figures = search.figures(best)
    label, arguments = hand_designed.like(figures.params, figures.macs, **search.shape)
    designed = Subject(label, arguments=arguments)
    listed: list[tuple[str, str, Subject, int]] = []
    for i in range(n):
        listed.append((f"found-{i}", "found", found, i))
        if i < len(randoms):
            listed.append((f"random-{i}", "random", Subject("random", randoms[i]), i))
        listed.append((f"{label}-{i}", label, designed, i))
    return listed


def _train(search: Search, name: str, group: str, subject: Subject, seed: int) -> dict[str, Any]:
    keys = ("recipe", "data", "train", "device", "deterministic", "threads")
    shared = {key: search.config[key] for key in keys}
    scale = {} if subject.architecture is None else dict(search.config["network"])
    chosen = subject.architecture.recipe if subject.architecture else {}
    config = with_choices({"command": "train", "what": subject.to_config(), **shared}, chosen)
    config["network"] = scale
    config["seed"] = derive(search.seed, "control", seed) % 2**31
    train = search.config["train"]
    search.watcher.stage(f"training {name}", None if train.get("seconds") else train["epochs"])
    result = train_network(
        search.run.folder / "controls" / name, config,
        data=search.data, tick=search.watcher.tick, seen=search.watcher.event,
    )  # fmt: skip
    literal = {"literal": subject.architecture.literal} if subject.architecture else {}
    return search.run.log(
        "control",
        name=name,
        group=group,
        **literal,
        **({"recipe": dict(chosen)} if chosen else {}),
        params=result["params"],
        macs=result["macs"],
        metrics={"test_accuracy": result["accuracy"], "test_loss": result["loss"]},
    )
