"""checklist(): the NAS best-practice checklist, answered from what one run recorded, and only from that.

M. Lindauer, F. Hutter, Best Practices for Scientific Research on Neural Architecture Search, JMLR 21(243),
2020. The questions are theirs, shortened. What a single run cannot show is answered "no".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from nas.report.comparison import Row
from nas.report.ledger import Record

Answer = Literal["yes", "no", "not applicable"]

RELEASE, COMPARE, DETAILS = "Releasing code", "Comparing methods", "Reporting details"


@dataclass(frozen=True)
class Item:
    """One question of the list, its answer, and the fact of the run that the answer rests on."""

    part: str
    question: str
    answer: Answer
    fact: str


def checklist(run: Record, *, rows: Sequence[Row]) -> list[Item]:
    """Every item, in the order of the paper, for a run with this comparison."""
    return [*_release(run), *_compare(run, rows), *_details(run)]


def _release(run: Record) -> list[Item]:
    train, strategy, seed = run.section("train"), run.section("strategy"), run.config.get("seed")
    return [
        Item(RELEASE, "Code of the training pipeline of the final networks", *_code(run, "")),
        Item(RELEASE, "Code of the search space", *_code(run, run.section("space").get("name"))),
        Item(RELEASE, "Hyperparameters of the final training, and seeds", *_settings("train", train, seed)),
        Item(RELEASE, "Code of the NAS method", *_code(run, strategy.get("name"))),
        Item(RELEASE, "Hyperparameters of the NAS method, and seeds", *_settings("strategy", strategy, seed)),
    ]


def _code(run: Record, address: Any) -> tuple[Answer, str]:
    """Whether the code of a thing can be had: part of the package at a recorded, clean commit."""
    if address is None:
        return "no", "config.yaml does not name it"
    if ".py" in str(address) or ".yaml" in str(address):
        return "no", f"`{address}` is a file of its own: publish it with the run"
    commit = run.environment.get("commit")
    if not commit:
        return "no", "part of the package, but the run recorded no commit"
    if "dirty" in str(commit) or run.environment.get("dirty"):
        return "no", f"commit `{commit}`, with changes that were not committed"
    named = f" (`{address}`)" if address else ""
    return "yes", f"part of the package{named}, commit `{commit}`; changes not committed are not recorded"


def _settings(section: str, content: Any, seed: Any) -> tuple[Answer, str]:
    if not content or seed is None:
        missing = " and ".join(
            n for n, gone in ((f"`{section}`", not content), ("`seed`", seed is None)) if gone
        )
        return "no", f"config.yaml lacks {missing}"
    return "yes", f"config.yaml, section `{section}` ({len(content)} settings), seed {seed}"


def _compare(run: Record, rows: Sequence[Row]) -> list[Item]:
    random = next((row for row in rows if row.group == "random"), None)
    compared = len(rows) > 1
    nothing: tuple[Answer, str] = ("not applicable", "this run compares nothing: no controls")
    if random:
        sampled = f"{random.n} random networks of the space were trained like the found one"
        search = f"{sampled}; that is random sampling, not a random search of the same budget"
    else:
        search = "no random network was trained"
    seed = run.config.get("seed")
    found = next((row.n for row in rows if row.group == "found"), 0)
    repeated = (
        f"one search (seed {seed}); the found network was trained {found} time{'' if found == 1 else 's'}"
    )
    over_time = "one-shot: accuracies of shared weights are no trained networks"
    if run.trials:
        over_time = f"the curve below is of this search alone ({len(run.trials)} trials)"
    own = own_settings(run)
    one = f"one recipe but for {own}, which networks of the space choose" if own else "one recipe"
    protocol: tuple[Answer, str] = (
        "yes",
        f"test accuracy of {sum(row.n for row in rows)} networks, {one}, one run",
    )
    return [
        Item(
            COMPARE,
            "Same data, split, space, training code and settings",
            *(_same(run) if compared else nothing),
        ),
        Item(COMPARE, "Confounding factors controlled", *(_confounding(run) if compared else nothing)),
        Item(
            COMPARE,
            "Ablation studies",
            "no",
            "one run shows none: `nas search --set strategy.…` makes another",
        ),
        Item(COMPARE, "Same evaluation protocol for all", *(protocol if compared else nothing)),
        Item(COMPARE, "Performance over time compared", "no", over_time),
        Item(COMPARE, "Compared with random search", "no", search),
        Item(COMPARE, "Several runs, seeds reported", "no", repeated),
        Item(
            COMPARE,
            "Tabular or surrogate benchmarks",
            "no",
            "none in this run: `nas bench` runs the strategy on one",
        ),
    ]


def own_settings(run: Record) -> str:
    """The settings of the recipe that networks of the space chose for themselves; empty if there are none."""
    return ", ".join(dict.fromkeys(key for event in run.of("control") for key in event.get("recipe", ())))


def _same(run: Record) -> tuple[Answer, str]:
    if own := own_settings(run):
        return "no", f"all but {own}: networks of the space choose it, hand-designed ones have the run's"
    data = run.environment.get("data") or {}
    digest, split = data.get("digest"), data.get("split_digest")
    if not digest or not split:
        return "no", "all were trained inside this run, but the digests of data and split were not recorded"
    train = run.section("train")
    recipe = f", section `train` of config.yaml ({len(train)} settings)" if train else ""
    return "yes", f"all trained inside this run: data `{_short(digest)}`, split `{_short(split)}`{recipe}"


def _confounding(run: Record) -> tuple[Answer, str]:
    hardware, versions = run.environment.get("hardware"), run.environment.get("versions")
    if not hardware or not versions:
        return "no", "hardware or versions were not recorded"
    resumed = run.of("resume")
    hosts = {event.get("host") for event in resumed}
    if resumed and (None in hosts or len(hosts) > 1):
        return (
            "no",
            f"the run was interrupted {len(resumed)} times; that it stayed on one machine is not recorded",
        )
    told = ", ".join(f"{name} {version}" for name, version in list(versions.items())[:4])
    threads = run.environment.get("threads") or run.config.get("threads")
    return "yes", f"one run, one machine ({words(hardware)}; threads {threads}); {told}"


def _details(run: Record) -> list[Item]:
    phases = run.phases()
    told = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in phases.items())
    lacks = [name for name in ("versions", "hardware", "data", "command") if not run.environment.get(name)]
    lacks += [] if run.config else ["config.yaml"]
    command = run.environment.get("command")
    setup = (
        f"config.yaml, environment.json; `{words(command)}`"
        if not lacks
        else f"not recorded: {', '.join(lacks)}"
    )
    time = f"{told}, on {words(run.environment.get('hardware') or 'hardware that was not recorded')}"
    whole = run.finished and bool(run.environment.get("hardware"))
    return [
        Item(
            DETAILS,
            "How hyperparameters were tuned, and its cost",
            "no",
            "a run does not record this: say it",
        ),
        Item(
            DETAILS,
            "Time of the whole method, end to end, and hardware",
            "yes" if whole else "no",
            time if run.finished else f"not finished: {time} so far",
        ),
        Item(DETAILS, "All details of the setup", "no" if lacks else "yes", setup),
    ]


def _short(digest: Any) -> str:
    return str(digest)[:12]


def words(value: Any) -> str:
    """A recorded value in one line."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {words(inner)}" for key, inner in value.items())
    return " ".join(map(str, value)) or "none" if isinstance(value, list | tuple) else str(value)
