"""The 1,797 handwritten digits of 8 x 8 that come with scikit-learn: no files, no network.

E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI (1998); scikit-learn carries its test
part. The cut in training and test part is ours, fixed for good.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from nas.data.dataset import DATA, Dataset, Split, divide, stratified

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TEST = 360  # images in the test part, about one in five
SEED = 1797  # of the cut; another one is another data set


@DATA.register("digits", recipe="digits", augment={"crop": 1, "flip": False})
def digits(*, root: Path, download: bool = False) -> Dataset:
    """Handwritten digits, 8x8 gray, 1,437 training and 360 test images (comes with scikit-learn).

    `root` and `download` mean nothing here, as the images lie in scikit-learn itself. Grey levels 0..16 are
    stretched to 0..255.
    """
    import numpy as np

    del root, download
    table = _table()
    images = np.rint(table[:, :-1].reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
    everything = Split(images, table[:, -1].astype(np.int64))
    train, test = divide(everything, stratified(everything.labels, count=TEST, seed=SEED))
    return Dataset.measured("digits", train=train, test=test, classes=tuple("0123456789"))


def _table() -> NDArray[np.float64]:
    """(images, pixels and label). Importing scikit-learn takes two seconds; its file is read without that."""
    import numpy as np

    package = find_spec("sklearn")
    if package is not None and package.origin is not None:
        path = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            return np.loadtxt(path, delimiter=",")
    from sklearn.datasets import load_digits  # where it lies elsewhere in other versions

    return np.column_stack(load_digits(return_X_y=True))
