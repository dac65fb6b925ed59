"""Arrays in a NumPy archive: ``npz:FILE``. Nothing in it is unpickled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nas.data.arrays import from_arrays
from nas.data.dataset import DATA, Dataset

PARTS = ("x_train", "y_train", "x_test", "y_test")
WHOLES = (("images", "labels"), ("X", "y"), ("x", "y"))
RULE = "x_train, y_train, x_test, y_test; or images, labels; or X, y"


@DATA.register("npz", recipe="quick", augment={"crop": 4, "flip": True})
def npz(*, root: Path, download: bool = False, path: str, layout: str = "auto", seed: int = 0) -> Dataset:
    """Arrays in a NumPy archive (npz:FILE): x_train, y_train, x_test, y_test, or images and labels.

    Images NHW, NCHW or NHWC (`layout` nchw or nhwc says which if the shape leaves it open), whole numbers
    0..255 or floats 0..1; labels whole numbers 0..K-1; `classes`, if there, the K names. images and labels
    (or X and y) alone are cut by `seed`, stratified, a fifth for the test part. `path` is taken from the
    current folder, or else from `root`; `download` means nothing here. Raises ValueError.
    """
    del download
    given = Path(path).expanduser()
    file = next((candidate for candidate in (given, root / given) if candidate.is_file()), None)
    if file is None:
        raise ValueError(f"data npz:{path}: there is no file {given}; name an .npz file with arrays {RULE}")
    arrays = _load(file)
    name, classes = f"npz:{file.stem}", arrays.get("classes")
    if classes is not None and (classes.ndim != 1 or classes.dtype.kind not in "USiu"):
        raise ValueError(f"{file}: classes must be one name a class, not {classes.dtype} {classes.shape}")
    names = None if classes is None else [_text(label) for label in classes.tolist()]
    train, test = _parts(arrays, file)
    return from_arrays(train, test, name=name, classes=names, layout=layout, seed=seed)


def _parts(arrays: Mapping[str, Any], file: Path) -> tuple[tuple[Any, Any], tuple[Any, Any] | None]:
    if all(part in arrays for part in PARTS):
        return (arrays["x_train"], arrays["y_train"]), (arrays["x_test"], arrays["y_test"])
    partial = [part for part in PARTS if part in arrays]
    whole = next((pair for pair in WHOLES if all(key in arrays for key in pair)), None)
    if whole is None or partial:
        raise ValueError(
            f"{file} must hold the arrays {RULE} (and classes if you like); it holds "
            f"{', '.join(sorted(arrays)) or 'nothing'}"
        )
    return (arrays[whole[0]], arrays[whole[1]]), None


def _load(file: Path) -> dict[str, Any]:
    """All arrays of the archive. Raises ValueError if it is none, is damaged or holds Python objects."""
    import zipfile
    import zlib

    import numpy as np

    try:
        with file.open("rb") as stream:
            archive = np.load(stream, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it is a single array")
            return {key: archive[key] for key in archive.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{file} is no usable .npz archive ({error}): write it with np.savez and arrays of numbers"
        ) from error


def _text(label: object) -> str:
    return label.decode("utf-8", errors="replace") if isinstance(label, bytes) else str(label)
