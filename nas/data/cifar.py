"""CIFAR-10 and CIFAR-100 as published: the binary version or the Python one (pickles, read inertly).

A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images (2009).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.data.dataset import DATA, Dataset, Split
from nas.data.download import extract, fetch, missing

URL = "https://www.cs.toronto.edu/~kriz/"
PIXELS = 3 * 32 * 32
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_NAMES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard
lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear
pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal
shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank
telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
CIFAR100_CLASSES = tuple(_NAMES.split())


@dataclass(frozen=True)
class Layout:
    """One of the published forms of the files: where they lie and what they are called."""

    folder: str
    train: tuple[str, ...]
    test: str
    names: str  # the file with the class names, which may be missing
    pickled: bool

    def present(self, root: Path) -> tuple[str, ...]:
        """The training files that are there, if the test file is there too."""
        folder = root / self.folder
        if not (folder / self.test).is_file():
            return ()
        return tuple(name for name in self.train if (folder / name).is_file())


@dataclass(frozen=True)
class Kind:
    """What tells one of the two sets from the other."""

    name: str
    classes: tuple[str, ...]
    layouts: tuple[Layout, ...]
    header: int  # label bytes before the pixels of a binary record; the last of them is the class
    labels: str  # key of the labels in a pickle
    names: str  # key of the class names in the pickle of names
    archive: str
    digest: str


CIFAR10 = Kind(
    name="cifar10",
    classes=CIFAR10_CLASSES,
    layouts=(
        Layout(
            "cifar-10-batches-bin",
            train=tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
            test="test_batch.bin",
            names="batches.meta.txt",
            pickled=False,
        ),
        Layout(
            "cifar-10-batches-py",
            train=tuple(f"data_batch_{i}" for i in range(1, 6)),
            test="test_batch",
            names="batches.meta",
            pickled=True,
        ),
    ),
    header=1,
    labels="labels",
    names="label_names",
    archive="cifar-10-binary.tar.gz",
    digest="md5:c32a1d4ab5d03f1284b67883e8d87530",
)
CIFAR100 = Kind(
    name="cifar100",
    classes=CIFAR100_CLASSES,
    layouts=(
        Layout("cifar-100-binary", ("train.bin",), "test.bin", names="fine_label_names.txt", pickled=False),
        Layout("cifar-100-python", ("train",), "test", names="meta", pickled=True),
    ),
    header=2,
    labels="fine_labels",
    names="fine_label_names",
    archive="cifar-100-binary.tar.gz",
    digest="md5:03b5dce01913d631647c71ecec9e9cb8",
)


@DATA.register("cifar10", recipe="darts_cifar10", augment={"crop": 4, "flip": True})
def cifar10(*, root: Path, download: bool = False, url: str = URL) -> Dataset:
    """CIFAR-10: photographs of 10 classes, 32x32 colour, 50,000 training and 10,000 test images.

    Read from ``cifar-10-batches-bin`` or ``cifar-10-batches-py`` below `root`. A set with some of the five
    training batches is read with a warning; `url` is the folder to download the archive from. Raises
    ValueError if files are missing or damaged.
    """
    return _read(CIFAR10, root=root, download=download, url=url)


@DATA.register("cifar100", recipe="darts_cifar10", augment={"crop": 4, "flip": True})
def cifar100(*, root: Path, download: bool = False, url: str = URL) -> Dataset:
    """CIFAR-100: photographs of 100 (fine) classes, 32x32 colour, 50,000 training and 10,000 test images.

    Read from ``cifar-100-binary`` or ``cifar-100-python`` below `root`; a training part of fewer whole
    records is read with a warning. `url` is the folder to download the archive from. Raises ValueError if
    files are missing or damaged.
    """
    return _read(CIFAR100, root=root, download=download, url=url)


def _read(kind: Kind, *, root: Path, download: bool, url: str) -> Dataset:
    if download and not any(layout.present(root) == layout.train for layout in kind.layouts):
        archive = fetch(f"{url.rstrip('/')}/{kind.archive}", root / kind.archive, digest=kind.digest)
        extract(archive, root)
        archive.unlink()
    layout = max(kind.layouts, key=lambda layout: len(layout.present(root)))  # the first of the fullest
    present = layout.present(root)
    if not present:
        raise ValueError(
            missing(
                kind.name,
                folders=[root / layout.folder for layout in kind.layouts],
                files=[*layout.train, layout.test],
                url=url,
            )
        )
    import numpy as np

    folder = root / layout.folder
    batches = [_batch(folder / name, kind=kind, pickled=layout.pickled) for name in present]
    train = Split(
        np.concatenate([batch.images for batch in batches]),
        np.concatenate([batch.labels for batch in batches]),
    )
    test = _batch(folder / layout.test, kind=kind, pickled=layout.pickled)
    _warn_if_partial(kind, train=len(train), absent=[name for name in layout.train if name not in present])
    return Dataset.measured(kind.name, train=train, test=test, classes=_classes(kind, layout, folder))


def _warn_if_partial(kind: Kind, *, train: int, absent: list[str]) -> None:
    """Numbers from a part of the data cannot be compared with published ones: say so."""
    if train < 50_000:
        lacking = f" ({', '.join(absent)} missing)" if absent else ""
        warnings.warn(
            f"data {kind.name!r}: {train:,} of the 50,000 training images are there{lacking}; results "
            "cannot be compared with published ones (--download completes the data)",
            stacklevel=5,
        )


def _batch(path: Path, *, kind: Kind, pickled: bool) -> Split:
    return _pickled_batch(path, kind) if pickled else _binary_batch(path, kind)


def _binary_batch(path: Path, kind: Kind) -> Split:
    """Records of `kind.header` label bytes and 3072 pixel bytes, red plane first, rows from the top."""
    import numpy as np

    content = np.fromfile(path, dtype=np.uint8)
    record = kind.header + PIXELS
    if not len(content) or len(content) % record:
        raise ValueError(
            f"{path} has {len(content)} bytes, which is no whole number of {record}-byte records: "
            "it is cut off or damaged; fetch it again"
        )
    rows = content.reshape(-1, record)
    labels = rows[:, kind.header - 1].astype(np.int64)
    return _checked(path, np.ascontiguousarray(rows[:, kind.header :]), labels, kind)


def _pickled_batch(path: Path, kind: Kind) -> Split:
    import numpy as np

    batch = _entries(path)
    rows, labels = batch.get("data"), batch.get(kind.labels)
    if not isinstance(rows, np.ndarray) or rows.dtype != np.uint8 or rows.shape[1:] != (PIXELS,):
        raise ValueError(f"{path} is no batch of {kind.name}: 'data' must be an N x {PIXELS} array of bytes")
    numbers = np.asarray(labels) if isinstance(labels, list | np.ndarray) else np.empty(0)
    if numbers.dtype.kind not in "iu" or numbers.shape != (len(rows),) or not len(rows):
        raise ValueError(
            f"{path} is no batch of {kind.name}: {kind.labels!r} must be whole numbers, one an image"
        )
    return _checked(path, np.ascontiguousarray(rows), numbers.astype(np.int64), kind)


def _checked(path: Path, rows: Any, labels: Any, kind: Kind) -> Split:
    if labels.min() < 0 or labels.max() >= len(kind.classes):
        raise ValueError(
            f"{path} has class numbers {labels.min()}..{labels.max()}, {kind.name} has "
            f"0..{len(kind.classes) - 1}: the file is damaged or of another set; fetch it again"
        )
    return Split(rows.reshape(-1, 3, 32, 32), labels)


def _entries(path: Path) -> dict[str, Any]:
    """The dict in a pickle, its keys as text whichever Python wrote it."""
    from nas.data.unpickle import read_pickle  # here: it takes longer to import than all other sources

    batch = read_pickle(path)
    if not isinstance(batch, dict):
        raise ValueError(f"{path} is no data batch: it holds a {type(batch).__name__}, not a dict")
    return {_text(key): value for key, value in batch.items()}


def _classes(kind: Kind, layout: Layout, folder: Path) -> tuple[str, ...]:
    """The class names of the folder, or the published ones where the file of names is missing."""
    path = folder / layout.names
    if not path.is_file():
        return kind.classes
    if layout.pickled:
        entry = _entries(path).get(kind.names)
        names = tuple(_text(name) for name in entry) if isinstance(entry, list) else ()
    else:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        names = tuple(line.strip() for line in lines if line.strip())
    if len(names) != len(kind.classes):
        raise ValueError(f"{path} names {len(names)} classes, {kind.name} has {len(kind.classes)}: delete it")
    return names


def _text(thing: object) -> str:
    return thing.decode("utf-8", errors="replace") if isinstance(thing, bytes) else str(thing)
