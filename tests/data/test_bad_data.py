"""Whatever is wrong with a file, the error is a DataError of one line that names it."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from minicnn import data
from minicnn.data import idx, npz


def refuses(spec: str | Path, name: str, reason: str = "", **options) -> None:
    """Loading raises a DataError of one line that holds the file's name and the reason."""
    with pytest.raises(data.DataError) as caught:
        data.load(spec, **options)
    message = str(caught.value)
    assert name in message and reason in message and "\n" not in message, message


def replace(path: Path, change) -> str:
    """Rewrite a file, through gzip where it ends in .gz; its name."""
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(change(gzip.decompress(path.read_bytes()))))
    else:
        path.write_bytes(change(path.read_bytes()))
    return path.name


def find(folder: Path, start: str) -> Path:
    return next(path for path in folder.iterdir() if path.name.startswith(start))


@pytest.mark.parametrize("start", ["train-images", "train-labels", "t10k-images", "t10k-labels"])
class TestIdx:
    def test_missing(self, idx_folder, start):
        find(idx_folder, start).unlink()
        refuses(idx_folder, start, "missing")

    def test_truncated(self, idx_folder, start):
        refuses(idx_folder, replace(find(idx_folder, start), lambda b: b[:-3]), "truncated")

    def test_truncated_stream(self, idx_folder, start):
        path = find(idx_folder, start)
        path.write_bytes(path.read_bytes()[:-6])
        refuses(idx_folder, path.name)

    def test_empty(self, idx_folder, start):
        refuses(idx_folder, replace(find(idx_folder, start), lambda b: b""), "not an IDX file")

    def test_too_long(self, idx_folder, start):
        refuses(idx_folder, replace(find(idx_folder, start), lambda b: b + b"x"), "damaged")

    def test_wrong_type(self, idx_folder, start):
        refuses(idx_folder, replace(find(idx_folder, start), lambda b: b"\0\0\x0d" + b[3:]), "not an IDX file")

    def test_huge_header_is_refused_before_anything_is_allocated(self, idx_folder, start):
        path = find(idx_folder, start)
        refuses(idx_folder, replace(path, lambda b: b[:4] + b"\xff" * (4 * b[3]) + b[4 + 4 * b[3] :]))


def test_idx_bit_flip_fails_the_checksum(idx_gzipped):
    path = find(idx_gzipped, "train-images")
    content = bytearray(path.read_bytes())
    content[-5] ^= 1  # in the stored checksum
    path.write_bytes(content)
    refuses(idx_gzipped, path.name, "damaged")


def test_idx_label_out_of_range(idx_folder):
    refuses(idx_folder, replace(find(idx_folder, "t10k-labels"), lambda b: b[:-1] + b"\x63"), "label 99 of image 19")
    path = find(idx_folder, "train-labels")
    refuses(f"mnist:{idx_folder}", replace(path, lambda b: b[:-1] + b"\x0a"), "label 10 of image 39")


def test_idx_counts_differ(idx_folder):
    path = find(idx_folder, "train-labels")
    refuses(idx_folder, replace(path, lambda b: b[:4] + struct.pack(">I", 39) + b[8:-1]), "40 images but")


def test_idx_without_images(idx_folder):
    replace(find(idx_folder, "train-labels"), lambda b: b[:4] + bytes(4))
    path = find(idx_folder, "train-images")
    refuses(idx_folder, replace(path, lambda b: b[:4] + bytes(4) + b[8:16]), "no images")


def test_gzip_bomb(tmp_path):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    side = 2**15
    with gzip.open(path, "wb") as stream:
        stream.write(bytes((0, 0, 8, 3)) + struct.pack(">3I", 1, side, side))
        for _ in range(64):
            stream.write(bytes(2**20))
    with pytest.raises(data.DataError, match=f"{path.name}.*zip bomb"):
        idx.read_array(path, 3)


def test_cifar_truncated(cifar10_folder):
    refuses(cifar10_folder, replace(cifar10_folder / "data_batch_3.bin", lambda b: b[:-1]), "3073-byte records")


def test_cifar_empty(cifar100_folder):
    refuses(cifar100_folder, replace(cifar100_folder / "test.bin", lambda b: b""), "records")


def test_cifar_missing(cifar10_folder):
    (cifar10_folder / "data_batch_5.bin").unlink()
    refuses(cifar10_folder, "data_batch_5.bin", "No such file")


def test_cifar_label_out_of_range(cifar10_folder):
    refuses(
        cifar10_folder, replace(cifar10_folder / "test_batch.bin", lambda b: b"\x0a" + b[1:]), "label 10 of image 0"
    )


def test_cifar_wrong_number_of_names(cifar100_folder):
    refuses(cifar100_folder, replace(cifar100_folder / "fine_label_names.txt", lambda b: b"a b"), "2 class names")


def test_cifar_pickles_are_never_read(tmp_path):
    (tmp_path / "batches.meta").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    refuses(tmp_path, tmp_path.name, "never read")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"y_train": None}, "y_train missing"),
        ({"x_train": np.zeros((40, 32, 32, 3), np.float32)}, "x_train is float32"),
        ({"x_train": np.zeros((40, 3, 32, 32), np.uint8)}, "channels first"),
        ({"x_train": np.zeros((40, 32), np.uint8)}, "x_train has shape"),
        ({"y_test": np.zeros(20)}, "y_test is float64"),
        ({"y_test": np.zeros((20, 2), np.int64)}, "y_test is int64"),
        ({"y_test": np.zeros(19, np.int64)}, "20 images but"),
        ({"y_test": np.full(20, 10)}, "y_test: label 10 of image 0 is out of range"),
        ({"y_train": np.full(40, -1)}, "y_train: label -1"),
        ({"y_train": np.full(40, 2**40)}, "y_train: label 1099511627776 is out of range"),
        ({"classes": np.array(["a", "b"])}, "out of range; the 2"),
        ({"classes": np.arange(10)}, "class names are a list of strings"),
        ({"x_test": np.zeros((20, 16, 16, 3), np.uint8)}, "give image_size"),
        ({"x_test": np.zeros((0, 32, 32, 3), np.uint8), "y_test": np.zeros(0, np.int64)}, "holds no images"),
    ],
)
def test_npz_contents(tmp_path, colour, change, reason):
    arrays = {name: array for name, array in {**colour, **change}.items() if array is not None}
    np.savez(tmp_path / "bad.npz", **arrays)
    refuses(tmp_path / "bad.npz", "bad.npz", reason)


def test_npz_never_unpickles(tmp_path, colour):
    np.savez(tmp_path / "bad.npz", **{**colour, "classes": np.array([object()] * 10, dtype=object)})
    refuses(tmp_path / "bad.npz", "bad.npz", "never unpickled")


def test_npz_truncated_or_no_archive(npz_file):
    content = npz_file.read_bytes()
    for broken in (content[:-100], content[: len(content) // 2], b"", b"hello"):
        npz_file.write_bytes(broken)
        refuses(npz_file, "own.npz", "damaged")


def npy_bytes(shape: str, content: bytes) -> bytes:
    """An .npy member whose header says `shape`, whatever follows."""
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content


@pytest.mark.parametrize("shape", ["(10000000000000,)", "(-1,)", "(3,)", "(1,)", "(2, 'x')", "((((", "[2]"])
def test_npz_header_that_lies(tmp_path, shape):
    path = tmp_path / "liar.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name in npz.ARRAYS:
            archive.writestr(f"{name}.npy", npy_bytes(shape, b"ab"))
    refuses(path, "liar.npz", "damaged")


def test_npz_bomb(tmp_path):
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in npz.ARRAYS:
            size = 2**27 if name == "x_train" else 1
            archive.writestr(f"{name}.npy", npy_bytes(f"({size},)", bytes(size)))
    refuses(path, "bomb.npz", "zip bomb")


def corrupt(image_folder: Path) -> Path:
    path = image_folder / "train" / "dog" / "1.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    return path


def test_corrupt_image_is_named(image_folder):
    path = corrupt(image_folder)
    refuses(image_folder, str(path), "damaged", image_size=32)


def test_corrupt_images_are_skipped_and_counted(image_folder):
    path = corrupt(image_folder)
    (image_folder / "train" / "cat" / "0.jpg").write_text("no picture")
    train = data.load(image_folder, image_size=32, skip_corrupt=True)
    images, labels = train.take(np.arange(4))
    assert images.shape == (2, 32, 32, 3)
    np.testing.assert_array_equal(labels, [0, 1])
    assert train.corrupt == [str(image_folder / "train" / "cat" / "0.jpg"), str(path)]
    with pytest.raises(data.DataError, match=r"1\.jpg"):
        train.images[3]  # asked for alone, it cannot be skipped


def test_image_that_claims_to_be_huge(image_folder):
    path = image_folder / "train" / "cat" / "0.png"
    buffer = io.BytesIO()
    Image.new("1", (12_000, 6_000)).save(buffer, "PNG")
    path.write_bytes(buffer.getvalue())
    refuses(image_folder, str(path), "too many", image_size=32)


def test_image_of_a_format_that_is_not_read(image_folder):
    path = image_folder / "train" / "cat" / "0.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    refuses(image_folder, str(path), image_size=32)


def test_image_folder_that_is_not_one(image_folder):
    (image_folder / "val" / "bird").mkdir()
    refuses(image_folder, "val", "'bird'")
    (image_folder / "val" / "bird").rename(image_folder / "train" / "bird")
    refuses(image_folder, "bird", "holds no images")
    refuses(f"imagenette:{image_folder}", "train", "3 class folders, but 10")
    (image_folder / "val").rename(image_folder / "held-out")
    refuses(image_folder, image_folder.name, "neither val/ nor test/")


def test_image_folder_without_classes(tmp_path):
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
    refuses(tmp_path, "train", "no class folders")


MUTATIONS = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4)


@pytest.mark.parametrize("kind", ["idx_plain", "idx_gzipped", "cifar100_folder", "npz_file", "image_folder"])
@given(which=st.integers(0, 5), mutations=MUTATIONS, keep=st.floats(0.2, 1))
@settings(deadline=None, suppress_health_check=list(HealthCheck))
def test_only_our_own_errors_come_out(request, kind, which, mutations, keep):
    """Change a few bytes of a file, and perhaps cut off its end: it loads, or a DataError says why not."""
    spec = request.getfixturevalue(kind)
    files = sorted(path for path in spec.rglob("*") if path.is_file()) if spec.is_dir() else [spec]
    path = files[which % len(files)]
    intact = path.read_bytes()
    broken = bytearray(intact)
    for where, value in mutations:
        broken[int(where * len(broken))] = value
    try:
        path.write_bytes(broken[: max(1, int(keep * len(broken)))])
        loaded = data.load(spec, image_size=16)
        loaded.images[:2]
    except data.DataError as error:
        assert "\n" not in str(error)
    finally:
        path.write_bytes(intact)
