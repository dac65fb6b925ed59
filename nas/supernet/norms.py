"""What batch norms normalise by when a supernet is evaluated.

A supernet's running statistics are a mixture of those of all paths that were trained; no path has them. On
NAS-Bench-201 this choice alone moves published results by tens of points, so it is always explicit:

- ``batch``: by the statistics of the batch that is evaluated;
- ``tracked``: by the running statistics of training;
- ``recalibrated``: by statistics collected for this path over some batches (Yu & Huang 2019, section 3.3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

Policy = Literal["batch", "tracked", "recalibrated"]


def norms(network: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """The batch norms of a network."""
    return [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


@contextmanager
def still(network: nn.Module) -> Iterator[None]:
    """Within it no running statistics move, whatever is computed."""
    own = [module for module in norms(network) if module.track_running_stats]
    for module in own:
        module.track_running_stats = False  # in training it normalises by its batch all the same
    try:
        yield
    finally:
        for module in own:
            module.track_running_stats = True


@contextmanager
def normalising(
    network: nn.Module, policy: Policy, *, forward: Callable[[Tensor], Tensor], images: Iterable[Tensor] = ()
) -> Iterator[None]:
    """Within it `forward` evaluates by `policy`; then all is as before: modes, statistics, counts.

    `images`: batches (N, C, H, W) that are looked at to recalibrate.
    """
    own = norms(network)
    modes = {module: module.training for module in network.modules()}
    kept = [{name: buffer.clone() for name, buffer in module.named_buffers()} for module in own]
    momenta = [module.momentum for module in own]
    network.eval()
    try:
        if policy == "recalibrated":
            for module in own:
                module.reset_running_stats()
                module.momentum = None  # the plain mean over batches
                module.train()
            with torch.no_grad():
                for batch in images:
                    forward(batch)
            for module in own:
                module.eval()
        elif policy == "batch":
            for module in own:
                module.train()
        yield
    finally:
        for module, buffers, momentum in zip(own, kept, momenta, strict=True):
            module.momentum = momentum
            for name, buffer in module.named_buffers():
                buffer.copy_(buffers[name])
        for each, mode in modes.items():
            each.training = mode
