"""Explain models on the galaxies of a catalogue: write tables, maps and figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from truemorph._version import __version__
from truemorph.arrays import ratio
from truemorph.catalogs.sampling import TEST
from truemorph.classifiers.checkpoint import load
from truemorph.classifiers.classifier import Classifier
from truemorph.errors import InputError
from truemorph.explain.profiles import PIXELS, RADIUS
from truemorph.findings import Finding, Findings
from truemorph.io import plain, save_as_pdf_and_png, write_json, written_whole
from truemorph.results import Result
from truemorph.tables import CatalogTable, numeric_columns, read_table, to_astropy, write_table

if TYPE_CHECKING:
    from truemorph.explain.study import Explanation

_DESCRIBED = ("model_hash", "backbone", "layer", "cells", "image_size", "galaxies")


class ExplainResult(Result):
    """Explanations of models, and the folder `out` of the files that were written."""

    out: Path
    content: dict[str, Any]  # of `summary.json`
    explanations: dict[str, Explanation]  # by model
    findings: Findings

    def summary(self) -> str:
        """Return models, numbers of galaxies and the check with random weights as text."""
        lines = []
        for name, explanation in self.explanations.items():
            maps = f"maps of {explanation.layer} ({explanation.cells}×{explanation.cells} cells)"
            lines.append(f"{name}: {explanation.backbone} at {explanation.image_size} pixels, {maps}")
            lines += [f"  predicted {group.name:8s} {group.galaxies:7,d} galaxies" for group in explanation.classes]
            if explanation.check is not None:
                lines.append(f"  {explanation.check.statement}")
        return "\n".join([*lines, f"wrote {self.out}"])

    def to_dict(self) -> dict[str, Any]:
        """Return the content of `summary.json` with the findings."""
        return plain(self.content | {"findings": self.findings})

    def to_table(self) -> Any:
        """Return the mean intensity of maps against distance from the centre in pixels."""
        return to_astropy(read_table(self.out / "profiles_pixel.ecsv"))

    def draw(self, ax: Any) -> None:
        """Draw mean intensity against distance from the centre, by predicted class."""
        for name, explanation in self.explanations.items():
            for group in explanation.classes:
                rings = group.rings[PIXELS]
                ax.plot(rings.middles, rings.average.mean, label=f"{name}, predicted {group.name}")
        ax.set(xlabel="distance from the centre (pixels)", ylabel="mean intensity of maps")
        ax.legend(frameon=False, fontsize=8)


def write_explanations(
    explanations: Mapping[str, Explanation], compared: Mapping[str, pl.DataFrame], out: Path, about: Mapping[str, Any]
) -> ExplainResult:
    """Write tables, maps, figures and `summary.json`; `about` is added to it: catalogue, galaxies and settings."""
    out.mkdir(parents=True, exist_ok=True)
    _write_tables(explanations, compared, out)
    _write_maps(explanations, out / "maps.fits")
    content = {
        "models": {
            name: {key: getattr(explanation, key) for key in _DESCRIBED}
            | {
                "problems": len(explanation.problems),
                "classes": {maps.name: maps.galaxies for maps in explanation.classes},
            }
            for name, explanation in explanations.items()
        },
        "random_weights": {
            name: {
                "passes": check.passes,
                "statement": check.statement,
                "random_weights": check.mean,
                "threshold": check.threshold,
                "another_galaxy": check.other.mean(),
                "same_galaxy_turned": check.same.mean(),
            }
            for name, check in ((name, maps.check) for name, maps in explanations.items())
            if check is not None
        },
        **about,
        "truemorph_version": __version__,
        "figures": _write_figures(explanations, compared, out),
    }
    result = ExplainResult(out, content, dict(explanations), tuple(findings_of(explanations)))
    write_json(out / "summary.json", result.to_dict())
    return result


def findings_of(explanations: Mapping[str, Explanation]) -> Iterator[Finding]:
    """Report galaxies without maps, and maps that were not or could not be shown to depend on the weights."""
    for name, explanation in explanations.items():
        if explanation.problems:
            text = f"{name}: {len(explanation.problems):,} galaxies without a readable image were left out."
            yield Finding("galaxies-left-out", "note", text)
        if explanation.unchecked:
            text = f"{name}: Grad-CAM maps could not be compared with those of random weights: {explanation.unchecked}."
            yield Finding("maps-not-checked", "caution", text, "Do not interpret these maps.")
        if explanation.check is not None and not explanation.check.passes:
            text = f"{name}: {explanation.check.statement}"
            action = "Do not interpret these maps as what the model has learned; try another layer (`layer`)."
            yield Finding("maps-not-specific", "caution", text, action)


def named_models(given: Sequence[Any]) -> dict[str, Classifier]:
    """Load models; name them by their folders, or by more of the path if names are not unique."""
    # Not the folders of loaded models: those of the Hugging Face hub are named by a hash.
    folders = [
        model.folder or f"model {k}" if isinstance(model, Classifier) else model for k, model in enumerate(given, 1)
    ]
    names = [Path(folder).resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    if len(set(names)) < len(names):
        raise InputError("a model is given twice; give each once")
    return dict(zip(names, map(load, given), strict=True))


def chosen_galaxies(frame: pl.DataFrame, source: str, rows: str, galaxies: int, seed: int) -> pl.DataFrame:
    """Select test galaxies of a catalogue (or all) and draw a random subset; 0 means no limit."""
    if "image" not in frame.columns or not frame["image"].count():
        raise InputError(f"{source}: has no images; prepare it with `images`")
    if rows == "test":
        frame = frame.filter(split=TEST)
        if not frame.height:
            raise InputError(f"{source}: has no test galaxies; choose `rows`=all")
    if galaxies and frame.height > galaxies:
        frame = frame.sample(galaxies, seed=seed)
    return frame


def with_radii(frame: pl.DataFrame, source: str, radius: str | None, field: str | None) -> pl.DataFrame:
    """Add radii in units of the image width (a number or a column); NaN if unknown."""
    if radius is None and field is None:
        return frame
    if radius is None or field is None:
        raise InputError("give both `radius_column` (arcsec) and `field` (width of an image file, arcsec), or neither")
    try:
        across: Any = float(field)
    except ValueError:
        across = numeric_columns(frame, [field], source)[:, 0]
    radii = ratio(numeric_columns(frame, [radius], source)[:, 0], across)
    usable = np.isfinite(radii) & (radii > 0)
    if not usable.any():
        raise InputError(f"{source}: no galaxy has a radius above 0 ({radius}) and a field above 0 ({field})")
    return frame.with_columns(pl.Series(RADIUS, np.where(usable, radii, np.nan)))


def _write_tables(explanations: Mapping[str, Explanation], compared: Mapping[str, pl.DataFrame], out: Path) -> None:
    """Write mean profiles and their differences as ECSV, one file per unit, and profiles of galaxies as Parquet."""
    from truemorph.explain.study import profile_table  # needs the networks

    metadata = {"kind": "explanation", "truemorph_version": __version__}
    galaxies = []
    for name, explanation in explanations.items():
        for group in explanation.classes:
            if group.galaxies:
                columns = {f"profile_{unit.lower()}": rings.profiles for unit, rings in group.rings.items()}
                ids = group.table.cast({"object_id": pl.String}).to_dict()
                galaxies.append(pl.DataFrame({"model": name, "class": group.name} | ids | columns))
    write_table(CatalogTable(pl.concat(galaxies), {}, metadata), out / "galaxies.parquet")
    units = next(iter(explanations.values())).classes[0].rings
    tables = {("profiles", unit): profile_table(explanations, unit) for unit in units}
    tables |= {("differences", unit): table for unit, table in compared.items()}
    for (kind, unit), table in tables.items():
        pixels = dict.fromkeys(("inner", "outer"), "pix") if unit == PIXELS else {}
        write_table(CatalogTable(table, pixels, metadata | {"distance": unit}), out / f"{kind}_{unit.lower()}.ecsv")


def _write_maps(explanations: Mapping[str, Explanation], path: Path) -> None:
    """Write mean maps as FITS, with planes for mean, error and number of galaxies."""
    from astropy.io import fits

    units = [fits.PrimaryHDU()]
    for explanation in explanations.values():
        for group in explanation.classes:
            if group.galaxies:
                # FITS rows start at the bottom.
                planes = np.stack([group.mean.mean, group.mean.stderr, group.mean.count])[:, ::-1].astype(np.float32)
                unit = fits.ImageHDU(planes, name=f"mean_{len(units)}")
                unit.header.update(
                    MODEL=(explanation.model[-60:], "model"),
                    CLASS=(group.name, "predicted class"),
                    LAYER=(explanation.layer, "layer of the backbone"),
                    CELLS=(explanation.cells, "cells per side of a map"),
                    NGAL=(group.galaxies, "galaxies"),
                    PLANES="mean, standard error, galaxies",
                )
                units.append(unit)
    with written_whole(path) as partial:
        fits.HDUList(units).writeto(partial)


def _write_figures(
    explanations: Mapping[str, Explanation], compared: Mapping[str, pl.DataFrame], out: Path
) -> list[str]:
    from truemorph.explain import plots

    first = next(iter(explanations.values())).classes[0]
    figures = {"average_maps": plots.mean_map_figure(explanations)}
    for unit in first.rings:
        figures[f"profiles_{unit.lower()}"] = plots.profile_figure(explanations, unit)
    for unit, table in compared.items():
        figures[f"differences_{unit.lower()}"] = plots.difference_figure(table, unit)
    for name, figure in figures.items():
        save_as_pdf_and_png(figure, out, name)
    return list(figures)
