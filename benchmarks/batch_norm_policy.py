"""What batch norms normalise by, and how well a supernet ranks by it.

    python benchmarks/batch_norm_policy.py RUN [--data-dir DIR]

RUN is a finished search with a supernet and a ranking. The networks of the ranking are measured in the
supernet once more by each policy (`nas.supernet.norms`), and compared with what they reached alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import fmean
from typing import get_args

from nas.correlation import SHARED, Correlation
from nas.goal import Goal
from nas.inherit import taken_up
from nas.report.markdown import table_of
from nas.strategies.shared_weights import SharedWeights
from nas.supernet.norms import Policy
from nas.training import load_data, settled

HEADS = ("batch norms by", "accuracy in the supernet, %", "Kendall's tau", "Spearman's rho", "the best alone")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--data-dir", type=Path)
    options = parser.parse_args()
    from nas.report.ledger import record

    read = record(options.run)
    events = [event for event in read.of("ranked") if "error" not in event]
    search, strategy = taken_up(
        options.run, load_data(read.config, root=options.data_dir), device=read.config["device"]
    )
    assert isinstance(strategy, SharedWeights)
    goal = Goal.parse(search.config["ranking"]["metric"])
    alone = [goal.score(event["metrics"]) for event in events]
    paths = [strategy.path(search.space.parse(event["literal"])) for event in events]
    lines = []
    with settled(search.config):
        for policy in get_args(Policy):
            shared = [strategy.checked(path, policy)["accuracy"] for path in paths]
            if policy == strategy.norm:
                assert shared == [event["metrics"][SHARED] for event in events]
            found = Correlation(list(zip(shared, alone, strict=True)))
            best = alone[shared.index(max(shared))]
            told = []
            for name in ("kendall", "spearman"):
                low, high = found.intervals[name]
                told.append(f"{getattr(found, name):.3f} ({low:.2f} to {high:.2f})")
            lines.append((policy, f"{100 * fmean(shared):.2f}", *told, f"{best:.2f}"))
    print(f"{search.config['strategy']['name']}, {len(events)} networks, {goal.metric}")
    print(table_of(HEADS, lines))


if __name__ == "__main__":
    main()
