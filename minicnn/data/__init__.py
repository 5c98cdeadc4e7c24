"""Data sets, augmentation and the loader: `load(spec)` reads a data set, `Loader` makes batches of it."""

from minicnn.data import augment
from minicnn.data.dataset import Dataset, split_validation
from minicnn.data.errors import DataError
from minicnn.data.loader import Loader
from minicnn.data.registry import load, load_pair

__all__ = ["DataError", "Dataset", "Loader", "augment", "load", "load_pair", "split_validation"]
