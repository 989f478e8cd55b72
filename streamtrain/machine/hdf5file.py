"""Datasets of HDF5 files that users give, read with care.

A dataset can point to other files, pipes and devices among them, and claim any size without a byte
behind it: neither is read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from streamtrain.machine.files import check_memory, one_line, why_not_a_file

MAX_COMPRESSION = 1000.0
"""A dataset that claims more than this many times its bytes in the file is refused."""
MAX_LINKS = 8
"""So many links, one to the other, are followed."""

MARKS = ("_FillValue", "missing_value")
"""Attributes of a dataset that say what stands for no value, as of netCDF."""


def fill_value(dataset: Any) -> Any:
    """What stands for no value since whoever made a dataset chose it to fill it; None: nothing, or
    0, which HDF5 itself chooses."""
    chosen = dataset.id.get_create_plist().fill_value_defined() == h5py.h5d.FILL_VALUE_USER_DEFINED
    return dataset.fillvalue if chosen and dataset.fillvalue != 0 else None


def holds(file: Any, name: str, depth: int = 0) -> bool:
    """Whether a file or group has the group or dataset `name`, also by links within the file.

    No link to another file is followed: ValueError if one is on the way.
    """
    if depth > MAX_LINKS:
        raise ValueError(f"'{one_line(name, 60)}' is a link to a link and so on")
    start = "/" if name.startswith("/") else ""
    parts = [part for part in name.split("/") if part]
    for number in range(1, len(parts) + 1):
        path = start + "/".join(parts[:number])
        link = file.get(path, getlink=True)
        if link is None:
            return False
        if isinstance(link, h5py.ExternalLink):
            raise ValueError(f"'{one_line(path, 60)}' lies in another file")
        if isinstance(link, h5py.SoftLink):
            above = start + "/".join(parts[: number - 1])
            target = link.path if link.path.startswith("/") else f"{above}/{link.path}"
            return holds(file, "/".join([target, *parts[number:]]), depth + 1)
    return True


def object_of(file: Any, name: str) -> Any:
    """The group or dataset `name` of a file or group.

    Raises KeyError if there is none, ValueError if it, or a group above it, lies elsewhere.
    """
    if not holds(file, name):
        raise KeyError(f"there is no '{name}'")
    return file[name]


def dataset_of(file: Any, name: str) -> Any:
    """The dataset `name`; see `object_of`. Raises ValueError if it is a group."""
    found = object_of(file, name)
    if not isinstance(found, h5py.Dataset):
        raise ValueError(f"'{name}' is no dataset")
    return found


def group_of(file: Any, name: str) -> Any:
    """The group `name`; see `object_of`. Raises ValueError if it is a dataset."""
    found = object_of(file, name)
    if not isinstance(found, h5py.Group):
        raise ValueError(f"'{name}' is no group")
    return found


def check_here(dataset: Any) -> None:
    """ValueError for a dataset of nothing, or of numbers in other files, unless it is a virtual
    one of files that are there (for those that are not HDF5 would put in zeros)."""
    name = one_line(dataset.name, 60)
    if dataset.shape is None:
        raise ValueError(f"'{name}' holds nothing")
    if dataset.external:
        raise ValueError(f"'{name}' lies in another file")
    for part in dataset.virtual_sources() if dataset.is_virtual else ():
        beside = Path(dataset.file.filename).parent / part.file_name
        if part.file_name != "." and (problem := why_not_a_file(beside)):
            raise ValueError(f"'{name}' is in {one_line(part.file_name, 60)}: {problem}")


def content_of(dataset: Any) -> NDArray[Any]:
    """All numbers of a dataset. Raises ValueError for one of other files, and for one that claims
    more than is in the file or in memory."""
    check_here(dataset)
    name = one_line(dataset.name, 60)
    claimed, stored = dataset.size * dataset.dtype.itemsize, dataset.id.get_storage_size()
    if not dataset.is_virtual and claimed > 2**20 and claimed > MAX_COMPRESSION * stored:
        raise ValueError(f"'{name}' claims {claimed} bytes, but {stored} are stored")
    check_memory(claimed, f"'{name}' has")
    return np.asarray(dataset[()])
