"""Data that the caller holds already: arrays, tensors, a torch Dataset or DataLoader."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from nas.data.dataset import Dataset, Split, divide, stratified

if TYPE_CHECKING:
    from nas.data.dataset import Images, Indices

TEST_FRACTION = 0.2  # of data that come without a test part
FEW = range(1, 5)  # an axis of so few entries is taken for the channels
LAYOUTS = ("auto", "nchw", "nhwc")


def from_arrays(
    train: tuple[Any, Any],
    test: tuple[Any, Any] | None = None,
    *,
    name: str = "arrays",
    classes: Sequence[str] | None = None,
    layout: str = "auto",
    seed: int = 0,
) -> Dataset:
    """A data set from pairs (images, labels) of numpy arrays, torch tensors or nested lists.

    Images: NHW, NCHW or NHWC (`layout` says which if the shape leaves it open), whole numbers 0..255 or
    floats 0..1. Labels: whole numbers 0..K-1, (N,) or (N, 1). Without `test` a fifth of the examples is
    held out by `seed`, stratified. Without `classes` the numbers are the names. Raises ValueError.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, not {layout!r}")
    training = _split(train, where=f"data {name!r}, training part", layout=layout)
    if test is not None:
        testing = _split(test, where=f"data {name!r}, test part", layout=layout)
    else:
        training, testing = cut_test(training, name=name, seed=seed)
    names = tuple(str(label) for label in classes) if classes is not None else _numbers(training, name=name)
    return Dataset.measured(name, train=training, test=testing, classes=names)


def as_dataset(
    thing: Any, *, name: str = "arrays", classes: Sequence[str] | None = None, seed: int = 0
) -> Dataset:
    """A data set from whatever the caller has; a `Dataset` is returned as it is.

    (images, labels) or a torch Dataset or DataLoader is cut by `seed` into a training and a test part; a
    pair of such things is training and test part. A torch Dataset or DataLoader is read once, in its own
    order, into memory: leave augmentation and normalisation out of its transform. Raises ValueError.
    """
    if isinstance(thing, Dataset):
        return thing
    if isinstance(thing, tuple | list) and len(thing) == 2 and all(_is_part(part) for part in thing):
        train, test = thing
    elif _is_part(thing):
        train, test = thing, None
    else:
        raise ValueError(
            "data must be a nas Dataset, (images, labels), ((images, labels), (images, labels)) or a torch "
            f"Dataset or DataLoader (or a pair of them), not {_kind(thing)}"
        )
    names = classes if classes is not None else _class_names(train)
    held = None if test is None else _collect(test)
    return from_arrays(_collect(train), held, name=name, classes=names, seed=seed)


def cut_test(split: Split, *, name: str, seed: int) -> tuple[Split, Split]:
    """A stratified training and test part of data without a test part. Raises ValueError for one example."""
    count = round(TEST_FRACTION * len(split)) or 1
    if len(split) <= count:
        raise ValueError(f"data {name!r}: {len(split)} examples cannot be cut in training and test part")
    return divide(split, stratified(split.labels, count=count, seed=seed))


def as_images(thing: Any, *, where: str, layout: str = "auto") -> Images:
    """uint8 (N, C, H, W) from NHW, NCHW or NHWC, whole numbers 0..255 or floats 0..1. Raises ValueError."""
    import numpy as np

    images = _numpy(thing, where=where)
    if images.ndim not in (3, 4) or 0 in images.shape:
        raise ValueError(
            f"{where}: images must be NHW, NCHW or NHWC and not empty, not of shape {images.shape}"
        )
    images = images[:, None] if images.ndim == 3 else _channels_first(images, where=where, layout=layout)
    if images.dtype.kind == "f":
        low, high = float(images.min()), float(images.max())
        if not (low >= 0 and high <= 1):  # said so that NaN fails too
            raise ValueError(
                f"{where}: float images must lie in 0..1, found {low:g}..{high:g}; give bytes 0..255 or "
                "divide by the maximum, and leave normalisation out (it is done while training)"
            )
        images = np.rint(images * 255)
    elif images.dtype.kind in "iub" and images.dtype != np.uint8:
        images = images.astype(np.int64) * (255 if images.dtype.kind == "b" else 1)
        if images.min() < 0 or images.max() > 255:
            raise ValueError(
                f"{where}: whole pixels must lie in 0..255, found {images.min()}..{images.max()}"
            )
    elif images.dtype != np.uint8:
        raise ValueError(f"{where}: images must be numbers, not {images.dtype}")
    return np.ascontiguousarray(images, dtype=np.uint8)


def as_labels(thing: Any, *, where: str) -> Indices:
    """int64 (N,) from whole numbers of shape (N,) or (N, 1). Raises ValueError."""
    import numpy as np

    labels = _numpy(thing, where=where)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise ValueError(
            f"{where}: labels must be one class number an image, not of shape {labels.shape} "
            "(one-hot labels: take .argmax(1))"
        )
    if labels.dtype.kind == "f" and len(labels) and bool((labels == np.rint(labels)).all()):
        labels = labels.astype(np.int64)
    if labels.dtype.kind not in "iu":
        raise ValueError(f"{where}: labels must be whole numbers 0..K-1, not {labels.dtype}")
    return np.asarray(labels, dtype=np.int64)


def _split(pair: tuple[Any, Any], *, where: str, layout: str) -> Split:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise ValueError(f"{where}: give a pair (images, labels), not {_kind(pair)}")
    images = as_images(pair[0], where=where, layout=layout)
    labels = as_labels(pair[1], where=where)
    if len(images) != len(labels):
        raise ValueError(
            f"{where}: {len(images)} images and {len(labels)} labels; each image needs one label"
        )
    return Split(images, labels)


def _channels_first(images: Any, *, where: str, layout: str) -> Any:
    first, last = images.shape[1] in FEW, images.shape[3] in FEW
    if layout == "auto" and first == last:
        raise ValueError(
            f"{where}: images of shape {images.shape} may be NCHW or NHWC: set data.layout to nchw or nhwc"
        )
    return images if layout == "nchw" or (layout == "auto" and first) else images.transpose(0, 3, 1, 2)


def _numbers(split: Split, *, name: str) -> tuple[str, ...]:
    """The class numbers as names; a gap in them is more often a mistake than a class without examples."""
    present = set(split.labels.tolist())
    absent = sorted(set(range(max(present) + 1)) - present)
    if absent or min(present) < 0:
        raise ValueError(
            f"data {name!r}: class numbers must be 0..K-1, found {min(present)}..{max(present)} without "
            f"{', '.join(map(str, absent[:5])) or 'a gap'}; renumber them, or name all classes with `classes`"
        )
    return tuple(str(number) for number in range(len(present)))


def _numpy(thing: Any, *, where: str) -> Any:
    """A numpy array of an array, tensor (on any device), PIL image or nested list."""
    import numpy as np

    if hasattr(thing, "detach"):
        tensor = thing.detach().cpu()
        thing = (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()
    try:
        return np.asarray(thing)
    except ValueError as error:
        raise ValueError(
            f"{where}: the images or labels differ in shape ({error}); make them equal"
        ) from error


def _kind(thing: Any) -> str:
    name = type(thing).__name__
    return f"{name} of {len(thing)}" if isinstance(thing, tuple | list) else name


def _is_array(thing: Any) -> bool:
    return hasattr(thing, "shape") or (isinstance(thing, list) and not any(_is_part(item) for item in thing))


def _is_part(thing: Any) -> bool:
    """Whether `thing` is one part of a data set: a pair of arrays, a torch Dataset or DataLoader."""
    if isinstance(thing, tuple | list):
        return len(thing) == 2 and all(_is_array(item) for item in thing)
    return _is_torch(thing)


def _is_torch(thing: Any) -> bool:
    import sys

    if "torch" not in sys.modules:  # then nothing can be of a class of torch's
        return False
    from torch.utils import data

    return isinstance(thing, data.Dataset | data.DataLoader)


def _collect(part: Any) -> tuple[Any, Any]:
    """(images, labels) of one part; what has to be iterated is iterated once."""
    import numpy as np

    if isinstance(part, tuple | list):
        return part[0], part[1]
    batched = getattr(part, "batch_sampler", None) is not None  # a DataLoader, unless batch_size=None
    images, labels = [], []
    for item in _items(part):
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise ValueError(f"a torch Dataset must give pairs (image, label), not {_kind(item)}")
        images.append(_numpy(item[0], where="torch Dataset"))
        labels.append(_numpy(item[1], where="torch Dataset"))
    if not images:
        raise ValueError("the torch Dataset is empty; it needs at least two examples")
    join = np.concatenate if batched else np.stack
    try:
        return join(images), join(labels)
    except ValueError as error:
        raise ValueError(f"torch Dataset: images must have one size ({error}); resize them first") from error


def _items(part: Any) -> Iterable[Any]:
    """The items of a torch Dataset in order; by index and length, as few of them stop by IndexError."""
    from torch.utils.data import DataLoader, IterableDataset

    if isinstance(part, DataLoader | IterableDataset) or not hasattr(part, "__len__"):
        return part  # type: ignore[no-any-return]
    return (part[index] for index in range(len(part)))


def _class_names(part: Any) -> tuple[str, ...] | None:
    """The `classes` that torchvision's data sets carry."""
    names = getattr(getattr(part, "dataset", part), "classes", None)
    return tuple(str(name) for name in names) if isinstance(names, tuple | list) and names else None
