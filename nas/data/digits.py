"""The 1,797 handwritten digits of 8 x 8 that come with scikit-learn: no files, no network.

E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI (1998); scikit-learn carries its test
part. The cut in training and test part is ours, fixed for good.
"""

from __future__ import annotations

from pathlib import Path

from nas.data.dataset import DATA, Dataset, Split, divide, stratified

TEST = 360  # images in the test part, about one in five
SEED = 1797  # of the cut; another one is another data set


@DATA.register("digits", recipe="digits", augment={"crop": 1, "flip": False})
def digits(*, root: Path, download: bool = False) -> Dataset:
    """Handwritten digits, 8x8 gray, 1,437 training and 360 test images (comes with scikit-learn).

    `root` and `download` mean nothing here, as the images lie in scikit-learn itself. Grey levels 0..16 are
    stretched to 0..255.
    """
    import numpy as np
    from sklearn.datasets import load_digits

    del root, download
    grey, labels = load_digits(return_X_y=True)
    images = np.rint(grey.reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
    everything = Split(images, labels.astype(np.int64))
    train, test = divide(everything, stratified(everything.labels, count=TEST, seed=SEED))
    return Dataset.measured("digits", train=train, test=test, classes=tuple("0123456789"))
