"""inspect(): the files of one look into a network; inspect_subject(): of one that a command names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from nas.data import Dataset, load
from nas.data.batches import Batches
from nas.data.dataset import Split
from nas.documents import read_yaml
from nas.inspection.inspection import INSPECTIONS, Case, Finding
from nas.report.event_file import event_file
from nas.report.scene import rendered
from nas.report.tensorboard import FILES
from nas.run import CONFIG, read_environment
from nas.run import replace as replace_file
from nas.seeding import randomness
from nas.signature import bind
from nas.subject import Subject, trained
from nas.training import load_data, trained_network

DPI = 130
DEFAULT = ("gradcam", "saliency", "receptive_field")  # kinds; without data those that need none
NOISE = 16  # images of noise where there are no data

Settings = Mapping[str, Mapping[str, Any]]  # kind -> its keyword arguments


@dataclass(frozen=True)
class Inspected:
    """What a look into a network gave.

    Attributes:
        folder: where the files are.
        files: kind -> its files.
        findings: kind -> what was seen.
        trained: whether the weights are trained ones.
    """

    folder: Path
    files: Mapping[str, tuple[Path, ...]]
    findings: Mapping[str, Finding]
    trained: bool

    def to_dict(self) -> dict[str, Any]:
        """The document that `nas inspect --json` prints."""
        return {
            "folder": str(self.folder),
            "files": {kind: [str(path) for path in paths] for kind, paths in self.files.items()},
            "layers": {kind: found.layer for kind, found in self.findings.items()},
            "trained": self.trained,
            "values": {kind: found.values for kind, found in self.findings.items()},
        }


def checked(kinds: Sequence[str], settings: Settings, *, layer: str | None) -> dict[str, dict[str, Any]]:
    """Kind -> all its arguments. Raises ValueError for a kind, a setting or a layer that has no meaning."""
    if not kinds:
        raise ValueError(f"no kind of inspection: name some of {', '.join(INSPECTIONS)}")
    bound = {
        kind: bind(INSPECTIONS[kind], settings.get(kind, {}), where=kind, skip=1)
        for kind in dict.fromkeys(kinds)
    }
    deaf = [kind for kind in bound if layer is not None and not INSPECTIONS.facts(kind)["layer"]]
    if deaf:
        able = ", ".join(kind for kind in INSPECTIONS if INSPECTIONS.facts(kind)["layer"])
        raise ValueError(f"{' and '.join(deaf)} looks at no layer of one's choice: --layer goes with {able}")
    return bound


def inspect(
    case: Case,
    kinds: Sequence[str],
    *,
    out: Path,
    settings: Settings | None = None,
    seen: Callable[[str], None] = lambda kind: None,
) -> Inspected:
    """Look at `case` in each of `kinds`, and write pictures and tables into the folder `out`, as each is
    done.

    Args:
        case: the network; its weights, its mode and its hooks are afterwards as before.
        kinds: names in `INSPECTIONS`.
        out: made if it is missing. Files of the same kind and layer are replaced.
        settings: kind -> keyword arguments.
        seen: is told each kind that is done.

    Raises ValueError for an unknown kind, setting or layer, and for a network that a kind does not apply to.
    """
    bound = checked(kinds, settings or {}, layer=case.layer)
    for kind in bound:
        if case.data is None and INSPECTIONS.facts(kind)["images"]:
            raise ValueError(
                f"{kind} needs images, and {case.name} has no data of its own: name some with --data"
            )
    files: dict[str, tuple[Path, ...]] = {}
    findings = {}
    with _evaluating(case.network), randomness(case.seed, "inspection"):
        for kind, given in bound.items():
            findings[kind] = found = INSPECTIONS[kind](case, **given)
            files[kind] = _write(found, kind, out, layer=case.layer)
            seen(kind)
    return Inspected(out, files, findings, case.trained)


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """In evaluation mode inside the block; each module as before afterwards."""
    before = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, mode in before.items():
            module.training = mode


def _write(found: Finding, kind: str, out: Path, *, layer: str | None) -> tuple[Path, ...]:
    out.mkdir(parents=True, exist_ok=True)
    stem = kind if layer is None else "-".join((kind, re.sub(r"[^\w.]+", "_", layer)))
    written = []
    for word, picture in found.pictures.items():
        path = out / (f"{stem}-{word}.png" if word else f"{stem}.png")
        replace_file(path, rendered(picture, kind="png", dpi=DPI))
        written.append(path)
    for word, text in found.tables.items():
        path = out / (f"{stem}-{word}.md" if word else f"{stem}.md")
        replace_file(path, text)
        written.append(path)
    return tuple(written)


def examples(split: Split, count: int) -> Split:
    """The first `count` images, in turn of each class: the first of each, then the second of each."""
    labels = split.labels
    by_class = np.argsort(labels, kind="stable")
    rank = np.empty_like(by_class)
    rank[by_class] = np.arange(len(labels)) - np.searchsorted(labels[by_class], labels[by_class])
    return split.take(np.lexsort((labels, rank))[:count])


def inspect_subject(
    subject: Subject,
    kinds: Sequence[str] | None = None,
    *,
    out: Path | None = None,
    data: str | None = None,
    layer: str | None = None,
    images: int = 8,
    settings: Settings | None = None,
    device: str = "cpu",
    seed: int = 0,
    root: Path | None = None,
    download: bool = False,
    seen: Callable[[str], None] = lambda kind: None,
) -> Inspected:
    """Look into a network that a command names: with its trained weights if it has some, on its own data.

    `data`: other data, whose images and number of classes must be those of a trained network. `images`: how
    many test images are shown, in turn of each class. `out`: by default ``inspection`` in the run, or
    ``inspection-<name>``. In a run the pictures go into its TensorBoard folder, too.
    """
    checked(DEFAULT if kinds is None else kinds, settings or {}, layer=layer)
    if images < 1:
        raise ValueError(f"--images is a number of pictures, 1 or more, not {images}")
    found = _data(subject, data, root=root, download=download)
    if kinds is None:
        kinds = [kind for kind in DEFAULT if found or not INSPECTIONS.facts(kind)["images"]]
    network, was_trained = _network(subject, found, seed=seed)
    case = Case(
        subject.name, network.to(device).eval(), torch.empty(0), trained=was_trained, seed=seed, layer=layer
    )
    if found is None:
        _, shape, _ = subject.cost()
        noise = torch.randn(NOISE, *shape, generator=torch.Generator().manual_seed(seed))
        case = replace(case, images=noise.to(device))
    else:
        part = examples(found.test, images)
        batches = Batches(
            part, mean=found.mean, std=found.std, batch=images, device=device, seed=0, shuffle=False
        )
        x, y = next(batches.epoch(0))
        case = replace(case, images=x.contiguous(), labels=tuple(y.tolist()), data=found)
    folder = out or (subject.run / "inspection" if subject.run else Path(f"inspection-{subject.name}"))
    result = inspect(case, kinds, out=folder, settings=settings, seen=seen)
    if subject.run is not None:
        show(folder, subject.run / "tensorboard" / "inspection")
    return result


def _data(subject: Subject, data: str | None, *, root: Path | None, download: bool) -> Dataset | None:
    if data is not None:
        return load(data, root=root or Path("data"), download=download)
    if subject.run is None:
        return None
    return load_data(read_yaml((trained(subject.run) or subject.run) / CONFIG), root=root, download=download)


def _network(subject: Subject, data: Dataset | None, *, seed: int) -> tuple[nn.Module, bool]:
    """The network, with trained weights if there are some, and whether there are."""
    folder = trained(subject.run) if subject.run else None
    if folder is None:
        sizes: dict[str, Any] = {} if data is None else {"classes": len(data.classes), "input": data.input}
        with randomness(seed, "network"):
            return subject.build(**sizes), False
    assert data is not None
    began = read_environment(folder).get("data", {})
    same = [list(data.input), len(data.classes)]
    if began and [began["input"], began["classes"]] != same:
        raise ValueError(
            f"{folder} was trained on images {began['input']} of {began['classes']} classes, and {data.name} "
            f"has {same[0]} of {same[1]}: leave out --data, or name data of that shape"
        )
    return trained_network(folder, data)[1], True


def show(pictures: Path, board: Path) -> None:
    """Rewrite a TensorBoard folder from the pictures in a folder, whenever they were made."""
    from PIL import Image

    for old in board.glob(FILES):
        old.unlink()
    writer = event_file(board)
    for path in sorted(pictures.glob("*.png")):
        with Image.open(path) as image:
            writer.add_image(
                f"inspection/{path.stem}", np.asarray(image.convert("RGB")), 0, dataformats="HWC"
            )
    writer.close()
