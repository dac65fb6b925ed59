"""MNIST and Fashion-MNIST from their four IDX files each, gzipped or not.

Y. LeCun, C. Cortes, C. Burges, The MNIST database of handwritten digits (1998). H. Xiao, K. Rasul,
R. Vollgraf, Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms (2017).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from nas.data.dataset import DATA, Dataset, Split
from nas.data.download import fetch, missing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PARTS = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
MNIST_MD5 = (
    "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "d53e105ee54ea40749a09fcbcd1e9432",
    "9fb629c4189551a2d022fa330f9573f3",
    "ec29112dd5afa0611ce80d1b7f02629c",
)
FASHION_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
FASHION_MD5 = (
    "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "25c81989df183df01b3e8a0aad5dffbe",
    "bef4ecab320f06d8554ea6380940ec79",
    "bb300cfdad3c16e7a12a480ee83cd310",
)
FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"
)  # fmt: skip


@DATA.register("mnist", recipe="quick", augment={"crop": 4, "flip": False})
def mnist(*, root: Path, download: bool = False, url: str = MNIST_URL) -> Dataset:
    """MNIST: handwritten digits, 28x28 gray, 60,000 training and 10,000 test images.

    Read from ``MNIST/raw`` or ``mnist`` below `root`; `url` is the folder to download the files from.
    Raises ValueError if files are missing or damaged.
    """
    folders = (root / "MNIST" / "raw", root / "mnist")
    parts = _read("mnist", folders=folders, download=download, url=url, digests=MNIST_MD5)
    return Dataset.measured("mnist", train=parts[0], test=parts[1], classes=tuple("0123456789"))


@DATA.register("fashion_mnist", recipe="quick", augment={"crop": 4, "flip": True})
def fashion_mnist(*, root: Path, download: bool = False, url: str = FASHION_URL) -> Dataset:
    """Fashion-MNIST: articles of clothing, 28x28 gray, 60,000 training and 10,000 test images.

    Read from ``FashionMNIST/raw`` or ``fashion_mnist`` below `root`; `url` is the folder to download the
    files from. Raises ValueError if files are missing or damaged.
    """
    folders = (root / "FashionMNIST" / "raw", root / "fashion_mnist")
    parts = _read("fashion_mnist", folders=folders, download=download, url=url, digests=FASHION_MD5)
    return Dataset.measured("fashion_mnist", train=parts[0], test=parts[1], classes=FASHION_CLASSES)


def _read(
    name: str, *, folders: tuple[Path, ...], download: bool, url: str, digests: tuple[str, ...]
) -> tuple[Split, Split]:
    """The training and the test part, from the first folder that has all four files."""
    found = next(
        (files for folder in folders if all(files := [_locate(folder, part) for part in PARTS])), None
    )
    if found is None and download:
        for part, digest in zip(PARTS, digests, strict=True):
            if _locate(folders[0], part) is None:
                fetch(f"{url.rstrip('/')}/{part}.gz", folders[0] / f"{part}.gz", digest=f"md5:{digest}")
        found = [_locate(folders[0], part) for part in PARTS]
    paths = [path for path in found or () if path is not None]
    if not paths:
        expected = [f"{part}[.gz]" for part in PARTS]
        raise ValueError(missing(name, folders=folders, files=expected, url=url))
    return _part(paths[0], paths[1]), _part(paths[2], paths[3])


def _locate(folder: Path, part: str) -> Path | None:
    """The file of a part; some copies spell it ``train-images.idx3-ubyte``."""
    spellings = (part, part.replace("-idx", ".idx"))
    names = [f"{spelling}{suffix}" for spelling in spellings for suffix in ("", ".gz")]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _part(images: Path, labels: Path) -> Split:
    import numpy as np

    pictures, numbers = read_idx(images, dimensions=3), read_idx(labels, dimensions=1)
    if len(pictures) != len(numbers):
        raise ValueError(
            f"{images} holds {len(pictures)} images and {labels} {len(numbers)} labels: they are of "
            "different parts; put both of one part there"
        )
    return Split(pictures[:, None], numbers.astype(np.int64))


def read_idx(path: Path, *, dimensions: int) -> NDArray[np.uint8]:
    """The unsigned bytes of an IDX file, gzipped or not (told by content), in the shape that it states.

    Raises ValueError if it is no such file or its size is not what it states.
    """
    import gzip
    import zlib

    import numpy as np

    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f"{path} is damaged or cut off ({error}): fetch it again") from error
    header = 4 + 4 * dimensions
    magic = bytes((0, 0, 8, dimensions))  # 8: unsigned byte
    if content[:4] != magic or len(content) < header:
        raise ValueError(
            f"{path} is no IDX file of {dimensions} dimensions: it must begin with {magic.hex(' ')}, "
            f"it begins with {content[:4].hex(' ') or 'nothing'}; fetch it again"
        )
    shape = [int.from_bytes(content[at : at + 4], "big") for at in range(4, header, 4)]
    expected = header + math.prod(shape)
    if len(content) != expected:
        raise ValueError(
            f"{path} has {len(content)} bytes, its header states {shape} which makes {expected}: "
            "it is cut off or damaged; fetch it again"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
