"""What is reproduced, how large, and from which files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from truemorph import config
from truemorph.arguments import Count, Names, Seed
from truemorph.errors import InputError, nearest
from truemorph.io import read_toml
from truemorph.reproduce.scale import Scale

CONFIG = "reproduce.toml"
# Where `truemorph fetch` leaves things below the folder of data.
_FETCHED = {
    "table": "gz2/zoo2MainSpecz.csv.gz",
    "hart": "gz2/gz2_hart16.csv.gz",
    "image_table": "gz2/images.parquet",
    "photometry": "sdss/photometry.parquet",
    "sersic_table": "simard/table3.parquet",
    "better": "hst",
}


def _number_or_name(value: Any) -> Any:
    try:
        return float(value)
    except (TypeError, ValueError):
        return value


class Inputs(BaseModel):
    """Which files hold what: `reproduce.toml`, or options; what is not given is looked for where `fetch` leaves it.

    Paths are below the folder of data, or else below the working directory.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    table: str | None = Field(None, description="votes of the crowd (GZ2B)")
    mapping: str | None = Field(None, description="how its columns are named: a preset or TOML; found if not given")
    id: str | None = Field(None, description="column of object ids")
    radius: str | None = Field(None, description="column of Petrosian radii, arcsec")
    psf_fwhm: Annotated[str | float | None, BeforeValidator(_number_or_name)] = Field(
        None, description="column of PSF FWHM, or one number, arcsec"
    )
    psf: Literal["sigma", "fwhm"] = Field("sigma", description="alpha = radius / this")
    where: tuple[str, ...] = Field((), description="keep rows with COLUMN=VALUE only (repeatable)")
    images: str | None = Field(None, description="folder of images")
    image_table: str | None = Field(None, description="table of ids and image files")
    hart: str | None = Field(None, description="votes debiased by Hart et al. 2016 (GZ2D); may be the same table")
    hart_mapping: str = Field("gz2-debiased", description="how its columns are named")
    photometry: str | None = Field(None, description="table of radii, PSF widths, redshifts, magnitudes by id")
    sersic_table: str | None = Field(None, description="table of Sersic indices, ellipticities, radii by id")
    better: str | None = Field(None, description="folder of HST images, OBJECT_ID.jpg")
    intrinsic: config.Names = Field(("radius_kpc", "M_r", "redshift"), description="columns of CV18's tree")
    features: config.Names = Field(("sersic_n", "ellipticity", "r_half"), description="columns of DCV14")
    sersic_index: str = Field("sersic_n", description="column of Sersic indices (Figure 3)")
    training: dict[str, Any] = Field({}, description="settings of the networks, such as crop")

    @classmethod
    def of(cls, data: Path, file: Path | None = None, **given: Any) -> Inputs:
        """Settle what there is: options, then a TOML file, then what `truemorph fetch` left.

        Parameters
        ----------
        data : Path
            Folder of data.
        file : Path, optional
            TOML file; `reproduce.toml` in the folder if there is one.
        **given
            Fields; None leaves one alone.

        Raises
        ------
        InputError
            If a file that was named is not there, or a field is unknown.
        """
        path = file or (data / CONFIG if (data / CONFIG).is_file() else None)
        settings: dict[str, Any] = {} if path is None else read_toml(path)
        settings |= {name: value for name, value in given.items() if value not in (None, (), [])}
        unknown = [name for name in settings if name not in cls.model_fields]
        if unknown:
            raise InputError(f"{path or data}: no setting {unknown[0]!r}; {nearest(unknown[0], [*cls.model_fields])}")
        for name in ("table", "image_table", "hart", "photometry", "sersic_table", "images", "better"):
            if settings.get(name) is not None:
                settings[name] = str(_found(data, str(settings[name]), name))
            elif name in _FETCHED and (data / _FETCHED[name]).exists():
                settings[name] = str((data / _FETCHED[name]).resolve())
        for name in ("mapping", "hart_mapping"):
            if str(settings.get(name, "")).endswith(".toml"):
                settings[name] = str(_found(data, str(settings[name]), name))
        try:
            return cls(**settings)
        except ValidationError as problem:
            first = problem.errors()[0]
            name = ".".join(map(str, first["loc"]))
            raise InputError(f"{path or data}: {name}: {first['msg'].lower()}; got {first['input']!r}") from problem

    def columns(self) -> dict[str, str]:
        """Columns that were named, by truemorph's names."""
        chosen = {"object_id": self.id, "radius": self.radius}
        return {name: column for name, column in chosen.items() if column}


def _found(data: Path, name: str, what: str) -> Path:
    for path in (data / name, Path(name)):
        if path.exists():
            return path.resolve()
    raise InputError(f"{name} ({what}): neither in {data} nor from here; give its path, or leave it out")


@Parameter(name="*")
@dataclass(frozen=True)
class ReproduceOptions:
    """How a reproduction is made.

    Attributes
    ----------
    scale : str
        paper, quick (0.05), or a fraction of the paper's 121,984 galaxies.
    fetch : bool
        Fetch what is lacking.
    stages : sequence of str
        Run only these, with what they need; comma-separated.
    again : str, optional
        Run this stage again, and all that follow from it.
    preset : str, optional
        Preset of the networks; default: paper at scale paper, quick below.
    depth : int, optional
        Levels of the tree of CV18; default: as many as leave 25 galaxies a bin.
    bins : int, optional
        Bins of α of CV18; default as for depth.
    bootstrap : int
        Resamples of CV18.
    draws : int
        Networks of random weights that check the maps; 0 for none.
    cache : Path, optional
        Folder for decoded images.
    addresses : Path, optional
        TOML file of addresses in place of the packaged ones, to fetch from.
    rate : float, optional
        Most requests a second to one host; by default as each archive likes it.
    dry_run : bool
        Say what would be done, and how long it would take.
    seed : int
        Random seed.

    Raises
    ------
    InputError
        If a number is out of range.
    """

    scale: str = "quick"
    fetch: bool = False
    stages: Names = ()
    again: str | None = None
    preset: str | None = None
    depth: int | None = None
    bins: int | None = None
    bootstrap: Count = 100
    draws: Count = 5
    cache: Path | None = None
    addresses: Path | None = None
    rate: float | None = None
    dry_run: bool = False
    seed: Seed = 0

    def __post_init__(self) -> None:
        if self.draws < 0 or self.draws == 1:
            raise InputError(f"`draws` is 0, for no check of the maps, or at least 2; got {self.draws}")
        Scale.of(self.scale)  # refuses what is none
        for name, least in (("bootstrap", 2), ("depth", 0), ("bins", 2)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"`{name}` is {least} or more; got {value}")

    @property
    def size(self) -> Scale:
        """How large the experiment is."""
        return Scale.of(self.scale)
