"""INSPECTIONS: the ways to look inside a network, by name; what each is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nas.data.batches import Batches
from nas.data.dataset import Dataset, Split
from nas.registry import Registry

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Case:
    """What is looked at.

    Attributes:
        name: of the network, as a person reads it.
        network: in evaluation mode, on the device of `images`. No inspection changes it.
        images: normalised, (n, channels, height, width); noise where there are no data.
        labels: the class of each image; empty where there are no data.
        data: where the images are from.
        layer: the layer that is asked for; None: each kind has its own default.
        trained: whether the weights are trained ones; pictures of others say so.
        seed: of everything random.
    """

    name: str
    network: nn.Module
    images: Tensor
    labels: tuple[int, ...] = ()
    data: Dataset | None = None
    layer: str | None = None
    trained: bool = True
    seed: int = 0

    @property
    def title(self) -> str:
        """The name for the head of a picture."""
        return self.name if self.trained else f"{self.name} (untrained)"

    def class_name(self, number: int) -> str:
        """The name of a class; its number where there are no data."""
        return self.data.classes[number] if self.data else str(number)

    def batches(self, split: Split, *, batch: int = 128) -> Batches:
        """Another part of the data, normalised, in its order. Only where there are data."""
        assert self.data is not None
        mean, std, device = self.data.mean, self.data.std, self.images.device
        return Batches(split, mean=mean, std=std, batch=batch, device=device, seed=0, shuffle=False)

    def pictures(self, images: Tensor | None = None) -> Any:
        """Images (n, channels, height, width), these or others, as an array (n, height, width, 1 or 3) of
        0..1. Without data, and for other numbers of channels, they are grey and fill the range.
        """
        shown = (self.images if images is None else images).detach().cpu().float()
        if self.data is not None:
            mean, std = (torch.tensor(each)[:, None, None] for each in (self.data.mean, self.data.std))
            shown = (shown * std + mean).clamp(0, 1)
        if shown.shape[1] not in (1, 3):
            shown = shown.mean(1, keepdim=True)
        if self.data is None:
            low, high = shown.amin(), shown.amax()
            shown = (shown - low) / (high - low).clamp(min=1e-12)
        return shown.permute(0, 2, 3, 1).numpy()


@dataclass(frozen=True)
class Finding:
    """What was seen.

    Attributes:
        pictures: figures by what they add to the file's name: ``""`` is the kind's own picture.
        values: figures that ``--json`` gives; plain numbers, texts, lists and mappings.
        layer: the layer that was looked at, if it is one.
        tables: texts in Markdown, by what they add to the file's name.
    """

    pictures: Mapping[str, Figure]
    values: Mapping[str, Any] = field(default_factory=dict)
    layer: str | None = None
    tables: Mapping[str, str] = field(default_factory=dict)


#: The kinds: functions ``(case: Case, *, setting=default ...) -> Finding``. They raise ValueError for a
#: network that they do not apply to, with the way out. Facts beside each: `layer`, whether a layer may be
#: asked for; `images`, whether it needs images of a data set.
INSPECTIONS: Registry[Callable[..., Finding]] = Registry("kind of inspection")
