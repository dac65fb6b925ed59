"""constrained(): a space whose networks stay below limits on parameters, multiply-adds or latency.

    nas search --space blocks --set space.max_params=3e6

Limits hold for the networks that are found, so at the scale of `network`, not at that of the search.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Annotated, Any

from pydantic import Field

from nas.registry import Registry
from nas.search_space import Architecture, Limit, Rule, SearchSpace, space
from nas.signature import bind, parameters

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
RULES: Registry[Rule] = Registry("rule")


def limits(
    max_params: Positive | None = None,
    max_macs: Positive | None = None,
    max_latency_ms: Positive | None = None,
    rule: str | None = None,
) -> None:
    """The keys of section ``space`` that limit what may be chosen.

    max_params, max_macs: of the found network. max_latency_ms: of one forward pass of one image, measured on
    the processor of this machine, so not reproducible. rule: ``file.py:name`` of a function that says why an
    architecture is not legal, or returns None.
    """


@dataclass(frozen=True)
class Measured:
    """A figure of the network that an architecture gives at a scale."""

    figure: Callable[[SearchSpace, Architecture], float]
    address: str
    scale: str
    known: dict[str, float] = field(default_factory=dict, compare=False)

    def __call__(self, architecture: Architecture) -> float:
        found = self.known.get(architecture.digest)
        if found is None:
            sized = _sized(self.address, self.scale)
            found = self.known[architecture.digest] = self.figure(sized, architecture)
        return found


def constrained(made: SearchSpace, given: Mapping[str, Any], *, scale: Mapping[str, Any]) -> SearchSpace:
    """`made` with the limits that are given, on networks at `scale`.

    Raises ValueError for an unknown rule or a limit that is no positive number.
    """
    given = bind(limits, given, where="space")
    figures: dict[str, Callable[[SearchSpace, Architecture], float]] = {
        "max_params": partial(_count, "params"),
        "max_macs": partial(_count, "macs"),
        "max_latency_ms": _latency,
    }
    text = json.dumps(dict(scale), sort_keys=True)
    rules: list[Rule] = [
        Limit(key.removeprefix("max_"), float(given[key]), Measured(figure, made.name, text))
        for key, figure in figures.items()
        if given.get(key) is not None
    ]
    if given.get("rule") is not None:
        rules.append(RULES.resolve(given["rule"]))
    return made.limited(*rules)


def parted(section: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A section ``space`` as the arguments of the space, and the limits."""
    known = parameters(limits)
    own = {key: value for key, value in section.items() if key not in known}
    return own, {key: value for key, value in section.items() if key in known}


def _count(figure: str, sized: SearchSpace, architecture: Architecture) -> float:
    from nas.counting import cost

    return float(getattr(cost(sized.fill(architecture)), figure))


def _latency(sized: SearchSpace, architecture: Architecture) -> float:
    from nas.counting import latency
    from nas.network import Network

    return latency(Network(sized.fill(architecture)).eval(), input=sized.graph.input)


@lru_cache(maxsize=8)
def _sized(address: str, scale: str) -> SearchSpace:
    return space(address, **json.loads(scale))
