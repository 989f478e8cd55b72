"""Datasets of HDF5 files that users give, read with care.

A dataset can point to other files, and claim any size without a byte behind it: neither is read.
"""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from streamtrain.files import check_memory, one_line

MAX_COMPRESSION = 1000.0
"""A dataset that claims more than this many times its bytes in the file is refused."""


def object_of(file: Any, name: str) -> Any:
    """The group or dataset `name` of a file or group.

    Raises KeyError if there is none, ValueError if it, or a group above it, lies elsewhere.
    """
    parts = [part for part in name.split("/") if part]
    for depth in range(1, len(parts) + 1):
        if isinstance(file.get("/".join(parts[:depth]), getlink=True), h5py.ExternalLink):
            raise ValueError(f"'{'/'.join(parts[:depth])}' lies in another file")
    return file[name]


def dataset_of(file: Any, name: str) -> Any:
    """The dataset `name`; see `object_of`. Raises ValueError if it is a group."""
    found = object_of(file, name)
    if not isinstance(found, h5py.Dataset):
        raise ValueError(f"'{name}' is no dataset")
    return found


def check_here(dataset: Any) -> None:
    """ValueError for a dataset of nothing, or of numbers in other files."""
    name = one_line(dataset.name, 60)
    if dataset.shape is None:
        raise ValueError(f"'{name}' holds nothing")
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"'{name}' lies in another file")


def content_of(dataset: Any) -> NDArray[Any]:
    """All numbers of a dataset. Raises ValueError for one of other files, and for one that claims
    more than is in the file or in memory."""
    check_here(dataset)
    name = one_line(dataset.name, 60)
    claimed, stored = dataset.size * dataset.dtype.itemsize, dataset.id.get_storage_size()
    if claimed > 2**20 and claimed > MAX_COMPRESSION * stored:
        raise ValueError(f"'{name}' claims {claimed} bytes, but {stored} are stored")
    check_memory(claimed, f"'{name}' has")
    return np.asarray(dataset[()])
