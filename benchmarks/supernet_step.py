"""A search step of DARTS: this package's supernet against the plain formulation, in the same run.

    python benchmarks/supernet_step.py [--batch 16 64] [--channels 16] [--cells 8] [--rounds 5] [--order 1 2]
    [--size 32] [--threads N] [--device cpu] [--scaling]

The reference is `reference_darts.py`: one mixture module an edge, NCHW. Here: `plain`, our supernet with one
mixture an edge; `fused`, with what `nas.supernet.fuse` makes of it, by PyTorch's own operations; and
`compiled`, the same with the compiled kernels of `nas.kernels`. That all are one function is what
`tests/test_supernet.py` and `tests/test_fuse.py` check.

Weight step: forward, backward, clipping, SGD. Alpha step: the gradient of the alphas of first or second
order, Adam. Kernels: operations that compute, views and allocations not counted, a call of a compiled kernel
as one. Kept: bytes of the distinct tensors that the forward pass leaves to the backward pass; on CUDA the
peak of allocated memory. `--scaling` adds weight steps of other widths, depths, batches and operations, and
on other spaces.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import reference_darts as plain
import timing
import torch
from timing import Step
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from nas.kernels import build, convolution, mixing
from nas.search_space import SearchSpace, space
from nas.strategies import Darts
from nas.supernet import Supernet

SCALES: dict[str, dict[str, Any]] = {
    "nasbench201": {"channels": 16, "cells": 1},
    "nasnet": {"channels": 8, "cells": 3},
    "mobile": {"width": 0.5},
}
NAMES = ("plain", "fused", "compiled")
FREE = (
    "empty", "detach", "alias", "_unsafe_view", "_local_scalar", "record_function", "lift_fresh", "new_empty",
)  # fmt: skip
CALLS = [(convolution, "_call"), (mixing, "_call")]  # of compiled kernels


@dataclass(frozen=True)
class Setting:
    """What is stepped: the supernet's size, the batch, which operations there are."""

    channels: int = 16
    cells: int = 8
    batch: int = 16
    size: int = 32
    order: int = 1
    device: str = "cpu"
    operations: tuple[str, ...] = plain.OPTIONS

    def __str__(self) -> str:
        found = f"C={self.channels}, {self.cells} cells, batch {self.batch}"
        less = len(self.operations) < len(plain.OPTIONS)
        return f"{found}, {len(self.operations)} operations" if less else found


@dataclass
class Subject:
    """One way to compute the same: its steps, its loss, its number of parameter tensors."""

    steps: dict[str, Step]
    loss: Callable[[], Tensor]
    tensors: int
    compiled: bool = False

    @contextmanager
    def kernels(self) -> Iterator[None]:
        """With compiled kernels, or without."""
        with nullcontext() if self.compiled else build.off():
            yield

    def step(self, name: str) -> None:
        with self.kernels():
            self.steps[name]()


def ours(on: Setting, name: str) -> Subject:
    """Our supernet of the space of DARTS."""
    made = space("darts", channels=on.channels, cells=on.cells, input=(3, on.size, on.size))
    made = SearchSpace(
        tuple(replace(each, options=on.operations) for each in made.decisions),
        made.graph,
        supernet=made.supernet,
    )
    return searched(made, on, name)


def searched(made: SearchSpace, on: Setting, name: str) -> Subject:
    """The supernet of a space, under DARTS."""
    strategy = Darts(batch=on.batch, order=on.order)
    strategy.horizon, strategy.rate = 1, 0.025
    torch.manual_seed(0)
    strategy.build = lambda: Supernet(made, fuse=name != "plain")  # type: ignore[method-assign]
    strategy.prepare(timing.task(made, batch=on.batch, size=on.size, device=on.device))
    strategy.supernet.train()
    x, y = timing.pair(on.batch, on.size, on.device)
    pair = (x.to(memory_format=torch.channels_last), y)
    return Subject(
        {"weight": lambda: strategy.weight_step(pair), "alpha": lambda: strategy.alpha_step(pair, pair)},
        lambda: strategy.loss(strategy.weights, pair),
        len(strategy.weights),
        compiled=name == "compiled",
    )


def reference(on: Setting) -> Subject:
    """The plain formulation."""
    torch.manual_seed(0)
    network = plain.Network(C=on.channels, layers=on.cells, options=on.operations).to(on.device).train()
    first, second = plain.initial_alphas(options=on.operations)
    alphas = tuple(each.detach().to(on.device).requires_grad_() for each in (first, second))
    pair = timing.pair(on.batch, on.size, on.device)
    step = plain.SearchStep(network, alphas=alphas, order=on.order)
    return Subject(
        {"weight": lambda: step.weights(pair), "alpha": lambda: step.architecture(pair, valid=pair)},
        lambda: plain.loss_of(network, alphas=alphas, batch=pair),
        len(list(network.parameters())),
    )


class Counting(TorchDispatchMode):
    """Counts operations that compute something."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        view = any(each.alias_info and not each.alias_info.is_write for each in func._schema.returns)
        name = str(func).partition(".")[2]
        found = func(*args, **(kwargs or {}))
        if name.startswith("_foreach"):  # on CPUs one of each tensor
            self.count += len(args[0])
        elif not view and not name.startswith(FREE):
            self.count += 1
        return found


def kernels(subject: Subject) -> int:
    """Operations of a weight step, when the optimizer has its momenta and statistics are laid out."""
    for _ in range(2):
        subject.step("weight")
    calls, originals = [0], [getattr(module, name) for module, name in CALLS]

    def counted(original: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls[0] += 1
            return original(*args, **kwargs)

        return call

    for (module, name), original in zip(CALLS, originals, strict=True):
        setattr(module, name, counted(original))
    try:
        with Counting() as counting:
            subject.step("weight")
    finally:
        for (module, name), original in zip(CALLS, originals, strict=True):
            setattr(module, name, original)
    return counting.count + calls[0]


def memory(subject: Subject, device: str) -> float:
    """MiB: what the forward pass leaves to the backward pass; on CUDA what a step allocates at most."""
    if device.startswith("cuda"):
        subject.step("weight")
        torch.cuda.reset_peak_memory_stats()
        subject.step("weight")
        return torch.cuda.max_memory_allocated() / 2**20
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with subject.kernels(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        found = subject.loss()
    del found
    return sum(sizes.values()) / 2**20


def ways(on: Setting) -> Sequence[str]:
    """Of ours, what there is here."""
    kernels = on.device == "cpu" and all(build.compiled(name) for name in build.LIBRARIES)
    return NAMES if kernels else NAMES[:-1]


def subject(on: Setting, name: str) -> Subject:
    return reference(on) if name == "reference" else ours(on, name)


def lines(on: Setting, rounds: int, steps: Sequence[str], names: Sequence[str] = ()) -> Iterator[str]:
    """Of the table: a step of each way."""
    made = {name: subject(on, name) for name in ("reference", *(names or ways(on)))}
    for step in steps:
        calls = {name: partial(each.step, step) for name, each in made.items()}
        found = timing.alternated(calls, rounds, on.device)
        what = f"{step} step" if step == "weight" else f"alpha step, order {on.order}"
        for name in list(made)[1:]:
            yield timing.line(f"{what}, {name}; {on}", found["reference"], found[name])


def counts(on: Setting) -> Iterator[str]:
    """Of the table: kernels, memory, tensors."""
    found: dict[str, tuple[float, float, float]] = {}
    for name in ("reference", *ways(on)):
        each = subject(on, name)  # one at a time, so that memory is its own
        found[name] = kernels(each), memory(each, on.device), each.tensors
        del each
    units = {"kernels of a weight step": "", "kept for the gradient": "MiB", "parameter tensors": ""}
    for place, (what, unit) in enumerate(units.items()):
        for name in ways(on):
            figures = ([found[each][place]] for each in ("reference", name))
            yield timing.line(f"{what}, {name}; {on}", *figures, unit)


def scaling(on: Setting, rounds: int) -> Iterator[str]:
    """Of the table: weight steps of other sizes."""
    others = [
        *({"channels": channels} for channels in (8, 32)),
        *({"cells": cells} for cells in (4, 14)),
        *({"batch": batch} for batch in (4, 32)),
        *({"operations": operations} for operations in (plain.OPTIONS[::2], plain.OPTIONS[:6])),
    ]
    for change in others:
        yield from lines(replace(on, **change), rounds, ["weight"], ways(on)[-1:])


def spaces(on: Setting, rounds: int) -> Iterator[str]:
    """Of the table: weight steps on other spaces, beside our own supernet with one mixture an edge."""
    way = ways(on)[-1]
    for name, scale in SCALES.items():
        made = space(name, **scale, input=(3, on.size, on.size))
        calls = {each: partial(searched(made, on, each).step, "weight") for each in ("plain", way)}
        found = timing.alternated(calls, rounds, on.device)
        yield timing.line(f"weight step, {way} beside plain; {name}", found["plain"], found[way])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in {"channels": 16, "cells": 8, "rounds": 5, "size": 32, "threads": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--batch", type=int, nargs="+", default=[16])
    parser.add_argument("--order", type=int, nargs="+", default=[1], choices=(1, 2))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--scaling", action="store_true")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    on = Setting(options.channels, options.cells, options.batch[0], options.size, device=options.device)
    timing.show(
        *(
            lines(
                replace(on, batch=batch, order=order),
                options.rounds,
                ["weight", "alpha"] if order == options.order[0] else ["alpha"],
            )
            for batch in options.batch
            for order in options.order
        ),
        counts(on),
        *([scaling(on, options.rounds), spaces(on, options.rounds)] if options.scaling else []),
    )


if __name__ == "__main__":
    main()
