"""A folder of pictures, one sub-folder a class: ``folder:DIR``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.data.arrays import cut_test
from nas.data.dataset import DATA, Dataset, Split

if TYPE_CHECKING:
    from nas.data.dataset import Images

SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
)
GRAY = frozenset(("1", "L", "LA", "I", "I;16", "I;16L", "I;16B", "I;16N"))
TEST_NAMES = ("test", "val", "valid")  # the first that is there is the test part

Class = tuple[str, list[Path]]  # its name and its pictures


@DATA.register("folder", recipe="quick", augment={"crop": 4, "flip": True})
def folder(
    *, root: Path, download: bool = False, path: str, size: int | None = None, seed: int = 0
) -> Dataset:
    """Pictures in a folder, one sub-folder a class (folder:DIR).

    With ``train/`` and ``test/`` (or ``val/``, ``valid/``) below `path` those are the parts; otherwise a
    fifth is held out by `seed`, stratified. `path` is taken from the current folder, or else from `root`.
    `size`: pixels of the square that every picture is scaled and cut to, from its centre; needed if they
    differ. Grayscale if every picture is, otherwise RGB (transparency is dropped, of an animation the first
    picture is read). `download` means nothing here. Raises ValueError for what cannot be used, naming it.
    """
    del download
    if size is not None and (not isinstance(size, int) or size < 1):
        raise ValueError(f"data.size must be a number of pixels, 1 or more, not {size!r}")
    directory = _directory(path, root)
    trunk = directory / "train" if _subfolders(directory / "train") else directory
    held = next((directory / name for name in TEST_NAMES if _subfolders(directory / name)), None)
    if trunk == directory:
        held = None  # without train/ a folder called test is a class
    train_classes = _list_classes(trunk)
    test_classes = _list_classes(held) if held is not None else []
    names = tuple(name for name, _ in train_classes)
    if held is not None and names != tuple(name for name, _ in test_classes):
        raise ValueError(_difference(trunk, names, held, [name for name, _ in test_classes]))
    everything = [file for _, files in [*train_classes, *test_classes] for file in files]
    mode, side = _survey(everything, size=size)
    train = _read(train_classes, mode=mode, size=side)
    label = f"folder:{directory.name}"
    train, test = (
        (train, _read(test_classes, mode=mode, size=side))
        if held is not None
        else cut_test(train, name=label, seed=seed)
    )
    return Dataset.measured(label, train=train, test=test, classes=names)


def _directory(path: str, root: Path) -> Path:
    """The folder that is meant. Raises ValueError if there is none."""
    given = Path(path).expanduser()
    for directory in (given, root / given):
        if directory.is_dir():
            return directory.resolve()
    what = "is a file" if given.is_file() else "does not exist"
    raise ValueError(f"data folder:{path}: {given} {what}; name a folder with one sub-folder a class")


def _subfolders(directory: Path) -> list[Path]:
    if not directory.is_dir():
        return []
    found = sorted(entry for entry in directory.iterdir() if entry.is_dir())
    return [entry for entry in found if not entry.name.startswith((".", "__"))]  # .git, __MACOSX


def _list_classes(directory: Path) -> list[Class]:
    """The classes in order of their names, each with its pictures. Raises ValueError."""
    classes = [
        (entry.name, sorted(file for file in entry.iterdir() if _is_picture(file)))
        for entry in _subfolders(directory)
    ]
    if not classes:
        raise ValueError(
            f"{directory} has no sub-folders: put the pictures of each class into one of its own"
        )
    if len(classes) == 1:
        raise ValueError(
            f"{directory} has one class only ({classes[0][0]!r}): a classifier needs two or more"
        )
    empty = [name for name, files in classes if not files]
    if empty:
        raise ValueError(
            f"{directory / empty[0]} holds no pictures ({len(empty)} such folders): add some "
            f"({' '.join(sorted(SUFFIXES))}) or remove the folder"
        )
    return classes


def _is_picture(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()


def _difference(train: Path, names: Sequence[str], test: Path, others: Sequence[str]) -> str:
    only = [f"{name!r} only in {train.name}/" for name in names if name not in others]
    only += [f"{name!r} only in {test.name}/" for name in others if name not in names]
    return f"{train} and {test} must have the same classes: {', '.join(only)}"


def _survey(files: Sequence[Path], *, size: int | None) -> tuple[str, tuple[int, int]]:
    """The mode ("L" or "RGB") and (width, height) that all pictures are brought to, from their headers."""
    gray, sizes = True, dict[tuple[int, int], Path]()
    for file in files:
        with _open(file) as picture:
            gray = gray and picture.mode in GRAY
            sizes.setdefault(picture.size, file)
    if size is None and len(sizes) > 1:
        small, large = min(sizes), max(sizes)
        raise ValueError(
            f"the pictures differ in size ({sizes[small]}: {small[0]}x{small[1]}, {sizes[large]}: "
            f"{large[0]}x{large[1]}): set data.size to the pixels of the square to scale them to"
        )
    return "L" if gray else "RGB", next(iter(sizes)) if size is None else (size, size)


def _read(classes: Sequence[Class], *, mode: str, size: tuple[int, int]) -> Split:
    import numpy as np

    images = [_pixels(file, mode=mode, size=size) for _, files in classes for file in files]
    labels = np.repeat(np.arange(len(classes)), [len(files) for _, files in classes])
    return Split(np.stack(images), labels.astype(np.int64))


def _pixels(file: Path, *, mode: str, size: tuple[int, int]) -> Images:
    """One picture, uint8 (C, H, W), scaled to cover `size` (bilinear, antialiased) and cut at its centre."""
    import numpy as np
    from PIL import Image, ImageOps

    with _open(file) as picture:
        try:
            picture.load()
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            raise ValueError(_broken(file, error)) from error
        if picture.mode == "F":
            raise ValueError(_broken(file, ValueError("floating-point pixels, whose range is not stated")))
        if picture.mode.startswith("I"):  # 16-bit grey; convert() would cut it off at 255
            wide = np.asarray(picture).astype(np.int64) >> 8
            picture = Image.fromarray(wide.clip(0, 255).astype(np.uint8))
        flat = picture.convert(mode)
        if flat.size != size:
            flat = ImageOps.fit(flat, size, method=Image.Resampling.BILINEAR)
        array = np.asarray(flat)
    return np.ascontiguousarray(array.reshape(size[1], size[0], -1).transpose(2, 0, 1))


def _open(file: Path) -> Any:
    """A picture whose header has been read. Raises ValueError, naming the file, if it has none."""
    from PIL import Image

    try:
        return Image.open(file)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(_broken(file, error)) from error


def _broken(file: Path, error: Exception) -> str:
    return f"{file} is no readable picture ({error}): repair or remove it"
