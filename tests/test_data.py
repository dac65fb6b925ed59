"""Laws of the data sets: what every source must give, and what damaged or hostile files must not do."""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import io
import os
import pickle
import random
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from data_helpers import Server, tiny, unpacked, write_cifar, write_idx, write_pictures
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from nas.data import DATA, Dataset, as_dataset, cifar, defaults, from_arrays, load
from nas.data.batches import Augment, Batches, draw, keyed
from nas.data.download import extract, fetch
from nas.data.mnist import read_idx
from nas.data.unpickle import read_pickle

pytestmark = pytest.mark.filterwarnings("ignore:data 'cifar:UserWarning")


def write_npz(root: Path) -> None:
    images, labels = tiny(60, classes=3, size=(3, 8, 8))
    np.savez(root / "tiny.npz", images=images, labels=labels)


# How to lay out a small set of each source below a root, and its address. A new source needs an entry.
SOURCES: dict[str, tuple[Callable[[Path], object], str]] = {
    "digits": (lambda root: None, "digits"),
    "mnist": (lambda root: write_idx(root / "MNIST" / "raw"), "mnist"),
    "fashion_mnist": (lambda root: write_idx(root / "fashion_mnist", zipped=False), "fashion_mnist"),
    "cifar10": (lambda root: write_cifar(root, classes=10, pickled=False), "cifar10"),
    "cifar100": (lambda root: write_cifar(root, classes=100, pickled=True), "cifar100"),
    "folder": (lambda root: write_pictures(root / "pets", n=10), "folder:pets"),
    "npz": (write_npz, "npz:tiny.npz"),
}


@pytest.fixture(autouse=True)
def _direct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture(params=sorted(DATA))
def source(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """The address of a small set of every registered source, and its root."""
    write, address = SOURCES[request.param]
    write(tmp_path)
    return address, tmp_path


def test_import_is_light() -> None:
    heavy = "{'torch', 'numpy', 'PIL', 'sklearn', 'urllib.request', 'tarfile'}"
    code = f"import sys, nas.data; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_every_source_keeps_the_laws(source: tuple[str, Path]) -> None:
    address, root = source
    data = load(address, root=root)
    again = load(address, root=root)
    channels = data.input[0]
    everything = data.train.images.astype(np.float64).transpose(1, 0, 2, 3).reshape(channels, -1) / 255
    np.testing.assert_allclose(data.mean, everything.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(data.std, everything.std(axis=1), rtol=1e-12)
    assert data.digest == again.digest != data.limited(len(data.train) - 1).digest
    assert set(data.train.labels.tolist()) <= set(range(len(data.classes)))
    facts = defaults(address)
    assert facts["recipe"] in {"digits", "quick", "darts_cifar10"}
    Augment(**facts["augment"])
    assert 10 < len(DATA.summary(address.partition(":")[0])) <= 110


def test_every_source_refuses_unknown_options(source: tuple[str, Path]) -> None:
    with pytest.raises(ValueError, match=r"no option of data .* 'siez'"):
        load(source[0], root=source[1], siez=3)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "cifar100"])
def test_missing_data_say_where_and_how(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError) as error:
        load(name, root=tmp_path)
    for part in (
        str(tmp_path),
        "test" if "cifar" in name else "train",
        "http",
        "--download",
        "--data-dir",
        "NAS_DATA",
    ):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("cifar", "did you mean 'cifar10'"),
        ("folder", "folder:DIR"),
        ("npz:", "npz:FILE"),
        ("npz:none.npz", "no file"),
        ("folder:none", "does not exist"),
        ("some/file.npz", "say npz:some/file.npz"),
        ("tests", "say folder:tests"),
    ],
)
def test_wrong_addresses(address: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tests").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        load(address, root=tmp_path)


def test_a_source_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "import numpy as np\n"
        "def blobs(*, root, download=False, n=20):\n"
        "    return np.zeros((n, 4, 8, 8), np.uint8), np.arange(n) % 2\n"
    )
    data = load(f"{file}:blobs", root=tmp_path, n=40)
    assert (len(data.train), len(data.test), data.input) == (32, 8, (4, 8, 8))
    assert defaults(f"{file}:blobs")["recipe"] == "quick"


@pytest.mark.parametrize("found", [True, False])
def test_digits_are_those_of_scikit_learn(
    found: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each image once, with its label; whether its file is where it is expected, or not."""
    from sklearn.datasets import load_digits

    if not found:
        monkeypatch.setattr("nas.data.digits.find_spec", lambda name: None)
    data = load("digits", root=tmp_path)
    grey = [np.rint(part.images[:, 0].reshape(-1, 64) * (16 / 255)) for part in (data.train, data.test)]
    ours = zip(np.concatenate(grey).tolist(), [*data.train.labels, *data.test.labels], strict=True)
    assert sorted(ours) == sorted(zip(*(each.tolist() for each in load_digits(return_X_y=True)), strict=True))


# Cuts


@pytest.mark.parametrize("amount", [0.5, 0.1, 1, 333, 1436])
def test_split_is_stratified_disjoint_and_keyed_by_the_seed(amount: float, tmp_path: Path) -> None:
    data = load("digits", root=tmp_path)
    np.random.seed(1)
    cut = data.split(amount, seed=3)
    np.random.seed(2)
    again, other = data.split(amount, seed=3), data.split(amount, seed=4)
    assert cut.digest == again.digest != other.digest
    assert np.array_equal(cut.valid.images, again.valid.images)
    total = len(data.train)
    wanted = amount if isinstance(amount, int) else round(amount * total)
    assert (len(cut.valid), len(cut.train)) == (wanted, total - wanted)
    share = np.bincount(data.train.labels, minlength=10) * wanted / total
    assert np.abs(np.bincount(cut.valid.labels, minlength=10) - share).max() < 1
    rows = sorted(part.images[i].tobytes() for part in (cut.train, cut.valid) for i in range(len(part)))
    assert rows == sorted(image.tobytes() for image in data.train.images)


def test_split_never_touches_the_test_part() -> None:
    images = np.arange(100, dtype=np.uint8)[:, None, None, None].repeat(8, 2).repeat(8, 3)
    labels = np.arange(100) % 4
    data = from_arrays((images[:60], labels[:60]), (images[60:], labels[60:]))
    for seed in range(20):
        cut = data.split(0.5, seed=seed)
        seen = {int(image[0, 0, 0]) for part in (cut.train, cut.valid) for image in part.images}
        assert seen == set(range(60))


@pytest.mark.parametrize("amount", [0, 1437, -1, 0.0, 1.0, 1.5, True, float("nan")])
def test_split_refuses_empty_sides(amount: float, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="fraction in"):
        load("digits", root=tmp_path).split(amount, seed=0)


def test_limit_takes_the_first_of_each_class() -> None:
    labels = np.array([0] * 30 + [1] * 5 + [2] * 25)
    images = np.arange(60, dtype=np.uint8)[:, None, None, None].repeat(8, 2).repeat(8, 3)
    data = from_arrays((images, labels), (images, labels))
    for n in range(1, 61):
        kept = data.limited(n).train
        counts = np.bincount(kept.labels, minlength=3)
        assert counts.sum() == n
        fill = [c for c, size in zip(counts, (30, 5, 25), strict=True) if c < size]
        assert not fill or counts.max() - min(fill) <= 1
        firsts = [i for k, start in enumerate((0, 30, 35)) for i in range(start, start + counts[k])]
        assert [int(image[0, 0, 0]) for image in kept.images] == firsts
    for n in (0, 61, -3):
        with pytest.raises(ValueError, match=r"1\.\.60"):
            data.limited(n)


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_shrinking_averages_over_squares(factor: int, tmp_path: Path) -> None:
    data = load("digits", root=tmp_path)
    small = load("digits", root=tmp_path, shrink=factor)
    assert small.input == (data.input[0], data.input[1] // factor, data.input[2] // factor)
    for before, after in ((data.train, small.train), (data.test, small.test)):
        means = torch.nn.functional.avg_pool2d(torch.as_tensor(before.images).double(), factor)
        off = after.images - means.numpy()
        assert off.min() > -0.5
        assert off.max() <= 0.5
        assert (after.labels == before.labels).all()
    for wrong in (0, -1, 3 * max(data.input)):
        with pytest.raises(ValueError, match=f"; {wrong} does not"):
            data.shrunk(wrong)


# Published layouts


@pytest.mark.parametrize("classes", [10, 100])
def test_binary_and_python_versions_are_the_same_data(classes: int, tmp_path: Path) -> None:
    digests = set()
    for pickled in (True, False):
        root = tmp_path / str(pickled)
        write_cifar(root, classes=classes, pickled=pickled)
        digests.add(load(f"cifar{classes}", root=root).digest)
    assert len(digests) == 1


def test_some_training_batches_are_enough_with_a_warning(tmp_path: Path) -> None:
    folder = write_cifar(tmp_path, classes=10, pickled=False)
    (folder / "data_batch_2.bin").unlink()
    with pytest.warns(UserWarning, match=r"data_batch_2\.bin missing"):
        assert len(load("cifar10", root=tmp_path).train) == 800
    write_cifar(tmp_path, classes=10, pickled=True, train=5)  # the fuller version is read
    assert len(load("cifar10", root=tmp_path).train) == 1000


@pytest.mark.parametrize("classes", [10, 100])
@pytest.mark.parametrize("pickled", [True, False])
def test_damaged_batches(classes: int, pickled: bool, tmp_path: Path) -> None:
    folder = write_cifar(tmp_path, classes=classes, pickled=pickled)
    file = min(folder.iterdir())
    whole = file.read_bytes()
    for content in (whole[:-1], whole[: len(whole) // 2 + 1], b"", b"<html>no</html>"):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=file.name):
            load(f"cifar{classes}", root=tmp_path)


def test_labels_outside_the_classes(tmp_path: Path) -> None:
    folder = write_cifar(tmp_path, classes=10, pickled=False)
    content = bytearray((folder / "test_batch.bin").read_bytes())
    content[0] = 10
    (folder / "test_batch.bin").write_bytes(content)
    with pytest.raises(ValueError, match=r"0\.\.9"):
        load("cifar10", root=tmp_path)


def test_class_names_of_the_folder(tmp_path: Path) -> None:
    folder = write_cifar(tmp_path, classes=100, pickled=False)
    published = load("cifar100", root=tmp_path).classes
    assert len(set(published)) == 100
    assert list(published) == sorted(published)
    (folder / "fine_label_names.txt").write_text("\n".join(f"c{i}" for i in range(100)) + "\n\n")
    assert load("cifar100", root=tmp_path).classes[7] == "c7"
    (folder / "fine_label_names.txt").write_text("one\n")
    with pytest.raises(ValueError, match="names 1 classes"):
        load("cifar100", root=tmp_path)


@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_idx_files(zipped: bool, tmp_path: Path) -> None:
    folder = tmp_path / "MNIST" / "raw"
    write_idx(folder, zipped=zipped)
    for file in sorted(folder.iterdir()):
        whole = file.read_bytes()
        for content in (whole[:-9], whole[:3], b"", b"PK" + whole[2:]):
            file.write_bytes(content)
            with pytest.raises(ValueError, match=file.name):
                load("mnist", root=tmp_path)
        file.write_bytes(whole)
    shutil.copy(folder / min(os.listdir(folder)), tmp_path / "images")
    with pytest.raises(ValueError, match="1 dimensions"):
        read_idx(tmp_path / "images", dimensions=1)


def test_published_cifar10() -> None:
    """All images, the known constants to eight digits, and one content in both versions."""
    root = unpacked("cifar10")
    data = load("cifar10", root=root)
    assert (len(data.train), len(data.test), data.input) == (50_000, 10_000, (3, 32, 32))
    assert np.bincount(data.train.labels).tolist() == [5000] * 10
    np.testing.assert_allclose(data.mean, (0.49139968, 0.48215841, 0.44653091), atol=6e-9)
    np.testing.assert_allclose(data.std, (0.24703223, 0.24348513, 0.26158784), atol=6e-9)
    pickled = read_pickle(root / "cifar-10-batches-py" / "data_batch_1")
    assert np.array_equal(pickled[b"data"], data.train.images[:10_000].reshape(10_000, -1))


def test_published_mnist() -> None:
    data = load("mnist", root=unpacked("mnist"))
    assert (len(data.train), len(data.test), data.input) == (60_000, 10_000, (1, 28, 28))
    np.testing.assert_allclose((*data.mean, *data.std), (0.1307, 0.3081), atol=5e-5)
    known = "6bbc9ace898e44ae57da46a324031adb"  # MD5 of the training images' file
    header = bytes((0, 0, 8, 3)) + b"".join(n.to_bytes(4, "big") for n in (60_000, 28, 28))
    assert hashlib.md5(header + data.train.images.tobytes()).hexdigest() == known


# Pickles

ROWS = np.arange(24, dtype=np.uint8).reshape(4, 6)
PLAIN = {
    b"data": ROWS,
    b"labels": [1, 2, 3, 4],
    b"name": b"x\xff",
    "f": ROWS.T[::2] / 7,
    b"n": np.int64(5),
    b"e": b"",
}
PYTHON2 = (  # what cPickle of Python 2 with numpy 1 writes, as in the published archives
    b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85U\x01b"
    b"\x87Rq\x05(K\x01K\x04K\x06\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87Rq\x07(K\x03U\x01|NNNJ\xff\xff\xff\xff"
    b"J\xff\xff\xff\xffK\x00tb\x89U\x18" + ROWS.tobytes() + b"tbU\x06labelsq\x08](K\x01K\x02eu."
)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_pickles_of_numpy_1_and_2_are_read(protocol: int, tmp_path: Path) -> None:
    contents = [pickle.dumps(PLAIN, protocol=protocol)]
    if protocol < 4:  # names are lines, later they carry their length
        names = (b"numpy._core.", b"numpy.core.")
        contents += [contents[0].replace(*names), contents[0].replace(*reversed(names))]
        assert len(set(contents)) == 2
    for content in contents:
        (tmp_path / "batch").write_bytes(content)
        batch = read_pickle(tmp_path / "batch")
        assert batch.keys() == PLAIN.keys()
        for key, value in PLAIN.items():
            assert np.array_equal(batch[key], value), key
        assert batch[b"data"].dtype == np.uint8


def test_pickles_of_python_2_are_read(tmp_path: Path) -> None:
    (tmp_path / "batch").write_bytes(PYTHON2)
    batch = read_pickle(tmp_path / "batch")
    assert np.array_equal(batch[b"data"], ROWS)
    assert batch[b"labels"] == [1, 2]


class Gadget:
    """Pickles as a call of anything."""

    def __init__(self, call: Callable[..., object], *arguments: object) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[object, ...]:
        return self.call, self.arguments


def hostile(sentinel: Path) -> dict[str, bytes]:
    """Pickles that would create `sentinel`, or otherwise go beyond plain data."""
    touch = f"touch {sentinel}"
    write = f"open({str(sentinel)!r}, 'w')"
    system = Gadget(os.system, touch)
    reconstruct, _, _ = np.zeros(1).__reduce__()
    nd = b"cnumpy\nndarray\n"
    u1 = b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR"
    empty = b"cnumpy.core.multiarray\n_reconstruct\n(" + nd + b"(K\x00tU\x01btR"
    return {
        "os.system": pickle.dumps(system),
        "old os.system": pickle.dumps({b"data": system}, protocol=0),
        "eval": pickle.dumps({b"data": ROWS, b"labels": Gadget(eval, write)}),
        "eval of Python 2": f"c__builtin__\neval\n(S{write!r}\ntR.".encode(),
        "exec in a key": pickle.dumps({Gadget(exec, write): 1}),
        "objects in an array": pickle.dumps({b"data": np.array([system, 1], dtype=object)}),
        "array of a class": pickle.dumps(Gadget(reconstruct, Gadget, (0,), b"b")),
        "array of a call": pickle.dumps(Gadget(reconstruct, system, (0,), b"b")),
        "record type": pickle.dumps(np.zeros(2, dtype=[("a", "u1")])),
        "object type": empty + b"(K\x01(K\x01tcnumpy\ndtype\n(U\x02O8K\x00K\x01tR\x89](K\x01etb.",
        "list for bytes": empty + b"(K\x01(K\x01t" + u1 + b"\x89](K\x01etb.",
        "more than its bytes": empty + b"(K\x01(J\xff\xff\xff\x7ft" + u1 + b"\x89U\x04abcdtb.",
        "negative shape": empty + b"(K\x01(J\xff\xff\xff\xfft" + u1 + b"\x89U\x04abcdtb.",
        "other codec": pickle.dumps(Gadget(codecs.encode, "abc", "rot13")),
        "codec of bytes": pickle.dumps(Gadget(codecs.encode, b"abc", "zlib")),
        "getattr": pickle.dumps(Gadget(getattr, "abc", "upper")),
        "state of a name": nd + b"}U\x01xK\x01sb.",
        "state of a function": b"c_codecs\nencode\n(}}U\x08__call__K\x01stb.",
        "call of a class": nd + b"((K\x01ttR.",
        "instance": f"(S{touch!r}\nios\nsystem\n.".encode(),
        "new object": nd + b")\x81.",
        "dotted": b"\x80\x04\x8c\x05numpy\x8c\x19core.multiarray.scalar.xx\x93.",
        "persistent": b"Pabc\n.",
        "extension": b"\x80\x02\x82\x01.",
        "memo bomb": b"\x80\x02}r\xff\xff\xff\xff.",
        "long bytes": b"\x80\x04\x8e" + (1 << 40).to_bytes(8, "little") + b"abc.",
        "deep": b"]" * 5000 + b"a" * 4999 + b".",
        "itself": b"]q\x01h\x01a.",
        "set": pickle.dumps({1, 2}),
        "complex": pickle.dumps(1j),
    }


@pytest.mark.parametrize("name", hostile(Path("x")))
def test_hostile_pickles_are_refused_and_not_run(name: str, tmp_path: Path) -> None:
    sentinel = tmp_path / "sentinel"
    (tmp_path / "data_batch_1").write_bytes(hostile(sentinel)[name])
    with pytest.raises(ValueError, match=r"data_batch_1 is no data batch: .*Nothing in it was run"):
        read_pickle(tmp_path / "data_batch_1")
    assert not sentinel.exists()


def test_the_refusal_names_what_was_asked_for_and_the_gadget_is_live(tmp_path: Path) -> None:
    folder = write_cifar(tmp_path, classes=10, pickled=True)
    content = hostile(tmp_path / "sentinel")["os.system"]
    (folder / "data_batch_3").write_bytes(content)
    with pytest.raises(ValueError, match=r"data_batch_3 is no data batch: it asks for \w+\.system"):
        load("cifar10", root=tmp_path)
    assert not (tmp_path / "sentinel").exists()
    pickle.loads(content)
    assert (tmp_path / "sentinel").exists()


def test_damaged_pickles_give_a_value_error(tmp_path: Path) -> None:
    file, dice = tmp_path / "batch", random.Random(0)
    for whole in (PYTHON2, pickle.dumps(PLAIN, protocol=2), pickle.dumps(PLAIN, protocol=5)):
        for length in range(len(whole)):
            file.write_bytes(whole[:length])
            with pytest.raises(ValueError, match="no data batch"):
                read_pickle(file)
        for _ in range(300):
            damaged = bytearray(whole)
            damaged[dice.randrange(len(whole))] = dice.randrange(256)
            file.write_bytes(damaged)
            with contextlib.suppress(
                ValueError
            ):  # a changed number is not noticed; nothing else may come out
                read_pickle(file)


# Pictures and arrays


def test_pictures_gray_colour_and_parts(tmp_path: Path) -> None:
    write_pictures(tmp_path / "a", mode="L")
    gray = load("folder:a", root=tmp_path)
    assert (gray.input, gray.classes) == ((1, 12, 12), ("cat", "dog"))
    assert (len(gray.train), len(gray.test)) == (8, 2)
    pixels = {np.asarray(Image.open(file)).tobytes() for file in (tmp_path / "a").rglob("*.png")}
    assert {image.tobytes() for part in (gray.train, gray.test) for image in part.images} == pixels
    write_pictures(tmp_path / "b" / "train", mode="L", n=4)
    write_pictures(tmp_path / "b" / "val", n=3)
    colour = load(f"folder:{tmp_path / 'b'}", root=tmp_path)
    assert (colour.input, len(colour.train), len(colour.test)) == ((3, 12, 12), 8, 6)
    first = np.asarray(Image.open(tmp_path / "b" / "val" / "cat" / "0.png"))
    assert np.array_equal(colour.test.images[0], first.transpose(2, 0, 1))


def test_pictures_of_several_sizes_need_one(tmp_path: Path) -> None:
    write_pictures(tmp_path)
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 200  # the centre square
    Image.fromarray(wide).save(tmp_path / "cat" / "wide.png")
    with pytest.raises(ValueError, match=r"data\.size"):
        load(f"folder:{tmp_path}", root=tmp_path)
    data = load(f"folder:{tmp_path}", root=tmp_path, size=10)
    assert data.input == (3, 10, 10)
    assert any((image == 200).all() for part in (data.train, data.test) for image in part.images)
    with pytest.raises(ValueError, match="1 or more"):
        load(f"folder:{tmp_path}", root=tmp_path, size=0)


def test_sixteen_bit_pictures_keep_their_range(tmp_path: Path) -> None:
    for name, level in (("dark", 0x1000), ("light", 0xF000)):
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.fromarray(np.full((8, 8), level, np.uint16)).save(tmp_path / name / f"{i}.png")
    data = load(f"folder:{tmp_path}", root=tmp_path)
    assert {(int(y), int(x.max())) for x, y in zip(data.train.images, data.train.labels, strict=True)} == {
        (0, 0x10),
        (1, 0xF0),
    }


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: (root / "cat" / "0.png").write_bytes(b"no picture"), "0.png is no readable picture"),
        (lambda root: os.truncate(root / "dog" / "1.png", 300), "1.png is no readable picture"),
        (lambda root: (root / "empty").mkdir(), "empty holds no pictures"),
        (lambda root: shutil.rmtree(root / "dog"), "one class only"),
        (lambda root: [shutil.rmtree(root / name) for name in ("cat", "dog")], "has no sub-folders"),
        (
            lambda root: [shutil.copytree(root / "cat", root / sub) for sub in ("train/cat", "test/cat")],
            "one class",
        ),
        (
            lambda root: [write_pictures(root / "train"), write_pictures(root / "test", classes="ab")],
            "same classes",
        ),
    ],
)
def test_folders_that_cannot_be_used(damage: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    write_pictures(tmp_path)
    damage(tmp_path)
    with pytest.raises(ValueError, match=message):
        load(f"folder:{tmp_path}", root=tmp_path)


def test_archives_in_every_layout_are_the_same_data(tmp_path: Path) -> None:
    x, y = tiny(30, classes=3, size=(3, 8, 8))
    forms = {
        "nchw": {"x_train": x, "y_train": y, "x_test": x[:9], "y_test": y[:9]},
        "nhwc": {"x_train": x.transpose(0, 2, 3, 1), "y_train": y[:, None], "x_test": x[:9], "y_test": y[:9]},
        "float": {
            "x_train": x / 255,
            "y_train": y * 1.0,
            "x_test": (x[:9] / 255).astype("f4"),
            "y_test": y[:9],
        },
        "wide": {"x_train": x.astype(int), "y_train": y.astype("u1"), "x_test": x[:9], "y_test": y[:9]},
        "named": {"x_train": x, "y_train": y, "x_test": x[:9], "y_test": y[:9], "classes": ["0", "1", "2"]},
    }
    for name, arrays in forms.items():
        np.savez(tmp_path / f"{name}.npz", **arrays)
    digests = {name: load(f"npz:{name}.npz", root=tmp_path).digest for name in forms}
    assert len(set(digests.values())) == 1, digests
    np.savez(tmp_path / "gray.npz", X=x[:, 0], y=y)
    assert load("npz:gray.npz", root=tmp_path).input == (1, 8, 8)
    np.savez(tmp_path / "open.npz", images=x[:, :, :3, :3], labels=y)
    with pytest.raises(ValueError, match=r"data\.layout"):
        load("npz:open.npz", root=tmp_path)
    assert load("npz:open.npz", root=tmp_path, layout="nhwc").input == (3, 3, 3)


def test_archives_that_cannot_be_used(tmp_path: Path) -> None:
    x, y = tiny(30, classes=3, size=(3, 8, 8))
    cases = {
        "objects": ({"images": np.array([Gadget(print, "run"), 1], dtype=object), "labels": y[:2]}, "usable"),
        "lacking": ({"x_train": x, "y_train": y}, "x_test"),
        "normalised": ({"images": x / 127.5 - 1, "labels": y}, r"0\.\.1"),
        "nan": ({"images": np.full((30, 8, 8), np.nan), "labels": y}, r"0\.\.1"),
        "one_hot": ({"images": x, "labels": np.eye(3)[y]}, "argmax"),
        "unequal": ({"images": x, "labels": y[:-1]}, "30 images and 29 labels"),
        "gap": ({"images": x, "labels": y * 2}, "without 1"),
        "few_names": ({"images": x, "labels": y, "classes": ["a", "b"]}, r"0\.\.1"),
    }
    for name, (arrays, message) in cases.items():
        np.savez(tmp_path / f"{name}.npz", **arrays)
        with pytest.raises(ValueError, match=message):
            load(f"npz:{name}.npz", root=tmp_path)
    content = (tmp_path / "gap.npz").read_bytes()
    for damaged in (content[: len(content) // 2], b"", content[:200] + b"abcd" + content[204:]):
        (tmp_path / "broken.npz").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"broken\.npz is no usable"):
            load("npz:broken.npz", root=tmp_path)


def test_whatever_the_caller_has_is_the_same_data() -> None:
    x, y = tiny(50, classes=5, size=(3, 8, 8))
    tensors = TensorDataset(torch.tensor(x), torch.tensor(y))
    floats = TensorDataset(torch.tensor(x) / 255, torch.tensor(y))
    things = [
        (x, y),
        (torch.tensor(x), torch.tensor(y)),
        (x.transpose(0, 2, 3, 1).tolist(), y.tolist()),
        tensors,
        DataLoader(tensors, batch_size=7),
        DataLoader(floats, batch_size=None),
    ]
    wholes = [as_dataset(thing) for thing in things]
    assert len({data.digest for data in wholes}) == 1
    assert (len(wholes[0].train), len(wholes[0].test)) == (40, 10)
    pairs = [as_dataset((thing, (x[:5], y[:5]))) for thing in things]
    assert {data.digest for data in pairs} == {from_arrays((x, y), (x[:5], y[:5])).digest}
    assert as_dataset(pairs[0]) is pairs[0]
    for wrong in (3, (x, y, x), "cifar10", {"x": x}):
        with pytest.raises(ValueError, match="must be a nas Dataset"):
            as_dataset(wrong)


# Downloads

CONTENT = bytes(range(256)) * 4000
DIGEST = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("part", [None, b"", CONTENT[:5000], CONTENT, CONTENT + b"!", b"stale" * 99])
def test_fetch_whatever_was_left_before(ranges: bool, part: bytes | None, tmp_path: Path) -> None:
    target = tmp_path / "sub" / "file"
    target.parent.mkdir()
    if part is not None:
        (tmp_path / "sub" / "file.part").write_bytes(part)
    with Server({"file": CONTENT}, ranges=ranges) as server:
        fetch(f"{server.url}/file", target, digest=DIGEST)
        assert target.read_bytes() == CONTENT
        asked = len(server.asked)
        fetch(f"{server.url}/file", target, digest=DIGEST)
        assert len(server.asked) == asked  # it is there
    assert os.listdir(tmp_path / "sub") == ["file"]
    if part == CONTENT[:5000]:
        assert server.asked == ["bytes=5000-"]


@pytest.mark.parametrize("ranges", [True, False])
def test_fetch_resumes_after_an_interruption(ranges: bool, tmp_path: Path) -> None:
    target, seen = tmp_path / "file", list[tuple[int, int | None]]()
    with Server({"file": CONTENT}, ranges=ranges, cut=100_000) as server:
        with pytest.raises(OSError, match=r"ended after 100000 of 1024000 bytes.*run the same command again"):
            fetch(f"{server.url}/file", target, digest=DIGEST)
        assert not target.exists()
        fetch(f"{server.url}/file", target, digest=DIGEST, progress=lambda *at: seen.append(at))
    assert server.asked == [None, "bytes=100000-"]
    assert target.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))


def test_fetch_errors(tmp_path: Path) -> None:
    target = tmp_path / "file"
    with Server({"file": CONTENT}) as server:
        for wrong in ("md5:" + "0" * 32, "sha256:" + "0" * 64):
            with pytest.raises(ValueError, match=f"expected {wrong}, got {wrong.partition(':')[0]}:"):
                fetch(f"{server.url}/file", target, digest=wrong)
        with pytest.raises(OSError, match="HTTP 404"):
            fetch(f"{server.url}/none", target, digest=None)
    with pytest.raises(OSError, match="Check the network"):
        fetch(f"{server.url}/file", target, digest=DIGEST)
    with pytest.raises(ValueError, match="http"):
        fetch("file:///etc/hostname", target, digest=None)
    assert os.listdir(tmp_path) == []


def pack(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(folder, arcname=folder.name)
    return buffer.getvalue()


def test_download_of_an_archive_completes_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = pack(write_cifar(tmp_path / "there", classes=10, pickled=False))
    write_cifar(tmp_path / "here", classes=10, pickled=False, train=2)
    digest = f"md5:{hashlib.md5(archive).hexdigest()}"
    kind = cifar.CIFAR10
    monkeypatch.setattr(cifar, "CIFAR10", type(kind)(**{**vars(kind), "digest": digest}))
    with Server({kind.archive: archive}) as server:
        data = load("cifar10", root=tmp_path / "here", download=True, url=server.url)
        assert len(data.train) == 1000
        load("cifar10", root=tmp_path / "here", download=True, url=server.url)
    assert len(server.asked) == 1
    assert os.listdir(tmp_path / "here") == ["cifar-10-batches-bin"]


def test_archives_cannot_write_elsewhere(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("../outside"), io.BytesIO(b""))
    (tmp_path / "evil.tar.gz").write_bytes(buffer.getvalue())
    write_pictures(tmp_path / "data")
    (tmp_path / "cut.tar.gz").write_bytes(pack(tmp_path / "data")[:-2000])
    for name in ("evil", "cut"):
        with pytest.raises(ValueError, match=f"{name}.tar.gz cannot be unpacked"):
            extract(tmp_path / f"{name}.tar.gz", tmp_path / "dest")
        assert os.listdir(tmp_path / "dest") == []
    assert not (tmp_path / "outside").exists()


# Batches


def batches(data: Dataset, **options: object) -> Batches:
    given = {"batch": 16, "device": "cpu", "seed": 7, "shuffle": True} | options
    return Batches(data.train, mean=data.mean, std=data.std, **given)


@pytest.fixture(scope="module")
def small() -> Dataset:
    x, y = tiny(50, classes=5, size=(3, 10, 8))
    return from_arrays((x, y), (x[:5], y[:5]))


@pytest.mark.parametrize(
    "augment",
    [Augment(), Augment(crop=2), Augment(flip=True), Augment(cutout=3), Augment(crop=3, flip=True, cutout=4)],
)
def test_augmentation_equals_the_obvious_loop(augment: Augment, small: Dataset) -> None:
    x, y = (torch.cat(parts) for parts in zip(*batches(small, augment=augment).epoch(2), strict=True))
    order = torch.randperm(50, generator=keyed(7, 2, "order")).tolist()
    draws = draw(augment, 50, size=(10, 8), generator=keyed(7, 2, "augment"))
    assert y.tolist() == small.train.labels[order].tolist()
    for i, index in enumerate(order):
        border = [(0, 0), (augment.crop, augment.crop), (augment.crop, augment.crop)]
        image = np.pad(small.train.images[index], border)
        top, left = int(draws.top[i]), int(draws.left[i])
        image = image[:, top : top + 10, left : left + 8]
        if draws.mirrored[i]:
            image = image[:, :, ::-1]
        expected = (image / 255 - np.array(small.mean)[:, None, None]) / np.array(small.std)[:, None, None]
        if augment.cutout:
            first, left = int(draws.row[i]) - augment.cutout // 2, int(draws.column[i]) - augment.cutout // 2
            last, right = first + augment.cutout, left + augment.cutout
            expected[:, max(first, 0) : max(last, 0), max(left, 0) : max(right, 0)] = 0
        np.testing.assert_allclose(x[i].numpy(), expected, atol=1e-5)


def test_draws_cover_their_range_evenly() -> None:
    draws = draw(Augment(crop=4, flip=True), 9000, size=(32, 16), generator=keyed(0, 0, "augment"))
    for values, high in (
        (draws.top, 9),
        (draws.left, 9),
        (draws.mirrored, 2),
        (draws.row, 32),
        (draws.column, 16),
    ):
        counts = torch.bincount(values, minlength=high)
        assert len(counts) == high
        assert ((counts - 9000 / high).abs() < 5 * (9000 / high) ** 0.5).all()
    assert draw(Augment(crop=4), 100, size=(8, 8), generator=keyed(0, 0, "augment")).mirrored.sum() == 0


def test_an_epoch_has_the_same_bits_whenever_it_is_asked_for(small: Dataset) -> None:
    def bits(source: Batches, number: int) -> list[tuple[bytes, bytes]]:
        return [(x.contiguous().numpy().tobytes(), y.numpy().tobytes()) for x, y in source.epoch(number)]

    augment = Augment(crop=2, flip=True, cutout=3)
    source = batches(small, augment=augment)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = bits(source, 3)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(2)
    list(source.epoch(0))
    assert bits(source, 3) == first == bits(batches(small, augment=augment), 3)
    assert bits(source, 4) != first != bits(batches(small, augment=augment, seed=8), 3)
    plain = [y.tolist() for _, y in batches(small).epoch(3)]
    assert plain == [y.tolist() for _, y in source.epoch(3)]  # the order does not hang on the augmentation


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("batch", [1, 7, 10, 49, 50, 51, 1000])
def test_batches_of_an_epoch(batch: int, drop_last: bool, small: Dataset) -> None:
    source = batches(small, batch=batch, drop_last=drop_last)
    epoch = list(source.epoch(0))
    assert source.examples == 50
    assert len(epoch) == len(source) == (max(50 // batch, 1) if drop_last else -(-50 // batch))
    assert {len(y) for _, y in epoch[:-1]} <= {batch}
    images = [image.numpy().tobytes() for x, _ in epoch for image in x]
    everything = next(batches(small, batch=50, shuffle=False).epoch(0))[0]
    assert len(set(images)) == len(images) == (len(source) * min(batch, 50) if drop_last else 50)
    assert set(images) <= {image.numpy().tobytes() for image in everything}


def test_form_of_a_batch(small: Dataset) -> None:
    x, y = next(batches(small, dtype=torch.bfloat16, augment=Augment(crop=1)).epoch(0))
    assert (x.shape, x.dtype, y.dtype) == ((16, 3, 10, 8), torch.bfloat16, torch.int64)
    assert x.is_contiguous(memory_format=torch.channels_last)
    x, y = next(batches(small, batch=50, shuffle=False).epoch(0))
    assert y.tolist() == small.train.labels.tolist()
    torch.testing.assert_close(x.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std(dim=(0, 2, 3), correction=0), torch.ones(3), atol=1e-5, rtol=0)


def test_wrong_batches(small: Dataset) -> None:
    empty = small.train.take(np.empty(0, dtype=np.int64))
    with pytest.raises(ValueError, match="1 image or more"):
        batches(small, batch=0)
    with pytest.raises(ValueError, match="no images"):
        Batches(empty, mean=small.mean, std=small.std, batch=1, device="cpu", seed=0, shuffle=False)
    with pytest.raises(ValueError, match="3 values"):
        Batches(small.train, mean=(0.5,), std=(0.5,), batch=1, device="cpu", seed=0, shuffle=False)
    for fields in ({"crop": -1}, {"cutout": 1.5}, {"flip": 1}):
        with pytest.raises(ValueError, match=r"data\.augment"):
            Augment(**fields)
