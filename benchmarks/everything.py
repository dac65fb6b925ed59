"""All ratios in one table, by `make bench`: of the supernet, of a path, of a network alone, of waiting."""

from __future__ import annotations

from dataclasses import replace

import network_step
import sampled_step
import supernet_step
import timing
import waiting

if __name__ == "__main__":
    on = supernet_step.Setting()
    timing.show(
        supernet_step.lines(on, 5, ["weight", "alpha"]),
        supernet_step.lines(replace(on, order=2), 3, ["alpha"]),
        supernet_step.lines(replace(on, batch=64), 2, ["weight", "alpha"]),
        supernet_step.lines(replace(on, batch=64, order=2), 2, ["alpha"]),
        supernet_step.counts(on),
        supernet_step.scaling(on, 2),
        supernet_step.spaces(on, 3),
        *(sampled_step.lines(name, rounds=10, batch=64, size=32) for name in sampled_step.SCALES),
        network_step.lines(rounds=3, batch=16, channels=36, cells=20, size=32),
        waiting.commands(5),
        waiting.inner(5),
        waiting.candidate(5),
        waiting.files(2),
    )
