"""What a lightcone says of itself beside its rows: `Header`, read from a file without them.

The digest of a lightcone is over rows, tiles, cosmology and footprint, and names it in test sets
and checkpoints. The seal is over the digest and everything else that is used. Files from before
there was one are checked for what can be known from their rows. The marks, which come from the
heaviest halos, tell which lightcones are of one sky, whatever they are called.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from streamtrain.cosmology import Cosmology
from streamtrain.machine.files import one_line, reading
from streamtrain.machine.hdf5file import check_here, content_of, dataset_of, group_of, holds

FORMAT = "streamtrain lightcone"
FORMAT_VERSION = 1
NEEDED = ("halos/x_Mpc", "halos/y_Mpc", "halos/z_Mpc", "halos/mass_Msun", "halos/z_obs",
          "tile_offsets", "cosmology", "columns", "provenance")  # fmt: skip
SEALED = ("footprint_deg", "z_range", "min_mass_Msun", "tile_deg", "tile_shape")
VELOCITIES = "halos/velocities_kms"
DAMAGED = "truncated or damaged lightcone file"
MAKER = "streamtrain.catalogs.synthesize"
"""The program that lightcones of streamtrain's own making name in their provenance."""
NO_PART = ("version", "method_revision", "device", "mass_definition", "mass_function_reference",
           "box_cells", "prior")  # fmt: skip
"""What such a provenance says besides the recipe: by whom and on what the lightcone was made, and
what follows from the rest."""

Marks = NDArray[np.uint64]

NUM_MARKS = 4096
"""The heaviest halos of a lightcone that are compared with those of others."""
SAME_SKY = 3
"""So many heaviest halos in common are no chance: two random skies share far less than one."""


class CatalogError(ValueError):
    """A halo catalog that cannot be used; the message is one sentence for its owner."""


@dataclass(frozen=True, eq=False)
class Header:
    """What a lightcone says of itself; see `Rows` for what is not explained here."""

    path: Path | None
    """The file; None for a lightcone in memory."""
    digest: str
    realisation: str
    provenance: str
    cosmology: dict[str, float]
    footprint_deg: tuple[float, float, float, float]
    z_range: tuple[float, float]
    min_mass_Msun: float
    tile_deg: float
    tile_shape: tuple[int, int]
    num_halos: int
    numbers_per_halo: int
    """Position, mass, redshift, further columns and three of a velocity, in float32."""
    marks: Marks = field(repr=False)
    """Marks of the heaviest halos, see `marks_of`."""
    sealed: bool = True
    """Whether all of it was compared with the seal of the file."""

    @classmethod
    def read(cls, path: Path) -> Header:
        """The header of a lightcone file, which is opened once as long as it does not change.

        Without a seal, the masses and redshifts of its halos are read too, for the marks. Raises
        CatalogError, one sentence with the file's name.
        """
        with reading(path, CatalogError, DAMAGED):
            status = path.stat()
            return _read(path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)

    @property
    def name(self) -> str:
        """The file's name, or the realisation of a lightcone in memory."""
        return self.path.name if self.path else self.realisation

    @property
    def nbytes(self) -> int:
        """Memory that its rows and tiles take when they are read [bytes]."""
        n_dec, n_ra = self.tile_shape
        return 4 * self.num_halos * self.numbers_per_halo + 8 * (n_dec * n_ra + 1)

    @property
    def seal(self) -> str:
        """sha256 [hex] over all of it but the number of columns; `digest` stands for the rows."""
        content = {
            "digest": self.digest,
            "num_halos": self.num_halos,
            "cosmology": {name: float(value).hex() for name, value in self.cosmology.items()},
            "realisation": self.realisation,
            "provenance": self.provenance,
            "marks": hashlib.sha256(np.ascontiguousarray(self.marks, "<u8").tobytes()).hexdigest(),
        }
        for name in SEALED:
            content[name] = [float(value).hex() for value in np.ravel(getattr(self, name))]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @cached_property
    def recipe(self) -> str | None:
        """sha256 [hex] of what streamtrain made the lightcone from: the method with its version,
        the seed, the options, and whether rates of star formation are among its columns; None for
        a lightcone of another maker.

        Lightcones of one recipe have the same halos but for their last bits, and with these for a
        few halos in a million, wherever they were made.
        """
        try:
            record = json.loads(self.provenance)
        except ValueError:
            return None
        if not isinstance(record, dict) or record.get("program") != MAKER:
            return None
        parts: dict[str, Any] = {name: record[name] for name in record if name not in NO_PART}
        seen = {name: getattr(self, name) for name in ("footprint_deg", "z_range", "min_mass_Msun")}
        seen["columns"] = (self.numbers_per_halo - 5) % 3  # velocities are three, and change no map
        text = json.dumps({**parts, "seen": seen, "in": self.cosmology}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def same_sky(self, other: Header) -> bool:
        """Whether two lightcones are cuts of one sky, by its name or by their halos."""
        return (
            self.realisation == other.realisation
            or self.digest == other.digest
            or num_shared(self.marks, other.marks) >= SAME_SKY
        )


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """A lightcone file, open for reading. Whatever is wrong with it is a CatalogError, one sentence
    with its name."""
    with reading(path, CatalogError, DAMAGED):
        if not h5py.is_hdf5(path):
            raise CatalogError("not an HDF5 file, so not a streamtrain lightcone")
        with h5py.File(path, "r") as file:
            yield file


@lru_cache(maxsize=4096)
def _read(path: Path, *version: int) -> Header:
    """version: what tells that the file is another one by now."""
    with opened(path) as file:
        return read_header(file, path)


def read_header(file: h5py.File, path: Path) -> Header:
    """What an open lightcone file says, compared with its seal if it has one.

    Raises CatalogError, or what h5py makes of a damaged file.
    """
    attributes = file.attrs
    if _text_or_none(attributes.get("format")) != FORMAT:
        raise CatalogError(
            "an HDF5 file, but not a streamtrain lightcone (its attribute 'format' is not "
            f"'{FORMAT}'); `streamtrain catalog import --columns map.yaml` reads other tables"
        )
    version = attributes.get("format_version")
    if np.ndim(version) or isinstance(version, np.bool_) or version != FORMAT_VERSION:
        raise CatalogError(
            f"lightcone format version {one_line(version, 40)}, "
            f"this streamtrain reads version {FORMAT_VERSION}"
        )
    for name in NEEDED:
        if not holds(file, name):
            raise CatalogError(f"the lightcone file lacks '{name}'")
    for name in ("digest", "realisation", *SEALED):
        if name not in attributes:
            raise CatalogError(f"the lightcone file lacks the attribute '{name}'")
    shape = dataset_of(file, "halos/mass_Msun").shape
    if shape is None or len(shape) != 1:
        raise CatalogError("halos/mass_Msun must have one number per halo")
    n_dec, n_ra = _numbers(attributes, "tile_shape", 2)
    ra_min, ra_max, dec_min, dec_max = _numbers(attributes, "footprint_deg", 4)
    z_low, z_high = _numbers(attributes, "z_range", 2)
    if not -1.0 < z_low <= z_high:
        raise CatalogError(f"z_range = {z_low:g}..{z_high:g} must rise from above -1")
    sealed = "seal" in attributes
    found = Header(
        path=path,
        digest=_text(attributes, "digest"),
        realisation=_text(attributes, "realisation"),
        provenance=_provenance(file),
        cosmology=_cosmology(group_of(file, "cosmology").attrs),
        footprint_deg=(ra_min, ra_max, dec_min, dec_max),
        z_range=(z_low, z_high),
        min_mass_Msun=_positive(attributes, "min_mass_Msun"),
        tile_deg=_positive(attributes, "tile_deg"),
        tile_shape=(int(n_dec), int(n_ra)),
        num_halos=shape[0],
        numbers_per_halo=5 + len(group_of(file, "columns")) + 3 * holds(file, VELOCITIES),
        marks=_marks(file) if sealed else _marks_of_rows(file),
        sealed=sealed,
    )
    if sealed and _text(attributes, "seal") != found.seal:
        raise CatalogError(
            "damaged or edited lightcone file: what it says of itself is not what its seal says"
        )
    return found


def _text_or_none(value: Any) -> str | None:
    return value.decode() if isinstance(value, bytes) else value if isinstance(value, str) else None


def _text(attributes: Any, name: str) -> str:
    value = _text_or_none(attributes[name])
    if value is None or not value.isprintable():
        raise CatalogError(f"the attribute '{name}' is not one line of text")
    return value


def _numbers(attributes: Any, name: str, count: int) -> list[float]:
    value = np.asarray(attributes[name])
    wanted = (count,) if count > 1 else ()
    if value.dtype.kind not in "fiu" or value.shape != wanted or not np.isfinite(value).all():
        raise CatalogError(
            f"the attribute '{name}' must be {count if count > 1 else 'a'} finite "
            f"number{'s' if count > 1 else ''}, not {one_line(value, 60)}"
        )
    return [float(a) for a in value.ravel()]


def _positive(attributes: Any, name: str) -> float:
    (value,) = _numbers(attributes, name, 1)
    if not value > 0.0:
        raise CatalogError(f"{name} = {value:g} must be positive")
    return value


def _cosmology(attributes: Any) -> dict[str, float]:
    try:
        return Cosmology.from_dict(
            {str(k): _numbers(attributes, k, 1)[0] for k in attributes}
        ).to_dict()
    except ValueError as error:
        raise CatalogError(str(error)) from error


def _provenance(file: h5py.File) -> str:
    dataset = dataset_of(file, "provenance")
    check_here(dataset)
    value = dataset[()] if dataset.shape == () else None
    if not isinstance(value, bytes):
        raise CatalogError("its provenance is no text")
    return value.decode()


def _marks(file: h5py.File) -> Marks:
    values = content_of(dataset_of(file, "marks"))
    if values.dtype.kind != "u" or values.ndim != 1 or len(values) > NUM_MARKS:
        raise CatalogError(f"its marks are no list of numbers (they are {values.dtype})")
    return values.astype(np.uint64)


def _marks_of_rows(file: h5py.File) -> Marks:
    mass, z_obs = (content_of(dataset_of(file, f"halos/{name}")) for name in ("mass_Msun", "z_obs"))
    return marks_of(mass, z_obs)


def marks_of(mass_Msun: ArrayLike, z_obs: ArrayLike) -> Marks:
    """The bits of mass and redshift of the heaviest halos (at most `NUM_MARKS`), sorted.

    They stay what they are when a sky is cut, turned, renamed or copied, so that two cuts share
    the heaviest halos of what they have in common.
    """
    mass = np.ascontiguousarray(mass_Msun, np.float32)
    redshift = np.ascontiguousarray(z_obs, np.float32)
    if mass.size > NUM_MARKS:
        least = np.partition(mass, mass.size - NUM_MARKS)[mass.size - NUM_MARKS]
        heavy = mass >= least
        mass, redshift = mass[heavy], redshift[heavy]
    bits = mass.view(np.uint32).astype(np.uint64) << np.uint64(32)
    bits |= redshift.view(np.uint32).astype(np.uint64)
    marks: Marks = np.unique(bits)
    return marks[-NUM_MARKS:]


def num_shared(one: Marks, other: Marks) -> int:
    """How many of their heaviest halos two lightcones have in common."""
    return len(np.intersect1d(one, other, assume_unique=True))
