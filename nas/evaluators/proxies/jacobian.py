"""Proxies from the gradients of the summed logits with respect to each image."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nas.evaluators.proxies.proxy import proxy

K = 1e-5  # keeps logarithms and quotients finite, in both papers
MANY = 100  # classes, above which EPE-NAS compares classes with each other


@proxy("jacov")
def jacov(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """How little the images' gradients correlate (Mellor et al., arXiv:2006.04647, first version, 2020)

    Of the eigenvalues v of the matrix of correlations: minus the sum of log(v + k) + 1 / (v + k).
    """
    rows, _ = jacobian(network, images)
    if not rows.std(1).all():
        return -np.inf
    correlations = np.atleast_2d(np.corrcoef(rows))
    values = np.linalg.eigvalsh(correlations).clip(0)  # rounding makes zeros negative
    return -float(np.sum(np.log(values + K) + 1 / (values + K)))


@proxy("epe_nas")
def epe_nas(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """How little the gradients of one class's images correlate (EPE-NAS, Lopes et al., ICANN 2021)

    E of a class is the sum of log(|correlation| + k) over the pairs of its images. The score is the sum of
    |E|; of more than a hundred classes, the mean over them of the summed |differences| of their E, each
    divided by its number of images.
    """
    rows, classes = jacobian(network, images)
    if not rows.std(1).all():
        return -np.inf
    numbers, found = labels.cpu().numpy(), []
    for label in np.unique(numbers):
        correlations = np.atleast_2d(np.corrcoef(rows[numbers == label]))
        total = float(np.log(np.abs(correlations) + K).sum())
        found.append(total / len(correlations) if classes > MANY else total)
    energies = np.array(found)
    if classes <= MANY:
        return float(np.abs(energies).sum())
    return float(np.abs(energies[:, None] - energies).sum() / len(energies))


def jacobian(network: nn.Module, images: Tensor) -> tuple[NDArray[np.float64], int]:
    """The gradients of the summed logits, a row an image (N, C * H * W), and the number of classes."""
    inputs = images.clone().requires_grad_(True)
    logits = network(inputs)
    (found,) = torch.autograd.grad(logits.sum(), [inputs], materialize_grads=True)
    return found.flatten(1).double().cpu().numpy(), logits.shape[-1]
