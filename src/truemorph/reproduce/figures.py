"""Figures of the paper: a galaxy from the ground and from space, the network, Sérsic indices, pairs, Grad-CAM."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from string import ascii_lowercase

import numpy as np
import polars as pl
from matplotlib.colors import Normalize

from truemorph.bias.curves.transitions import DISK, SMOOTH
from truemorph.catalogs.catalogue import find_images, image_folder
from truemorph.catalogs.physical import FIELD_R90
from truemorph.classifiers.checkpoint import load
from truemorph.config import PRESETS
from truemorph.errors import InputError
from truemorph.explain.plots import mean_map_figure, profile_figure
from truemorph.explain.profiles import MeanMap, Profiles
from truemorph.explain.study import PIXELS, Explained, Explanation, explain, galaxies_of, profile_table
from truemorph.plotting import BLUE, GREEN, GREY, ORANGE, RED, SKY
from truemorph.report.figures import Style, new_panel, pairs_figure
from truemorph.report.gallery import annotated, jpeg_source, whole_picture
from truemorph.report.page import Illustration, Pair, Section
from truemorph.reproduce.catalogue import fetch_archive
from truemorph.reproduce.distributions import Distributions, compare_distributions, cumulative_panels
from truemorph.reproduce.models import MODEL, NETWORKS
from truemorph.reproduce.paper import DDB, FIGURE_3, GZ2B, PAPER, TABLE_1
from truemorph.reproduce.stages import (
    FAILED,
    TEST_ROWS,
    Lacks,
    Stage,
    Values,
    Work,
    files_digest,
    images_digest,
    rows_digest,
)
from truemorph.reproduce.table1 import all_labels, measured, sersic_indices
from truemorph.tables import read_columns, write_table

CHANGED, VERDICTS, KINDS = "changed.csv", "verdicts.csv", ("arms", "lenticular", "unclear")
COLOUR = "u_r"
# A_u - A_r in units of A_r (Schlegel, Finkbeiner & Davis 1998, ApJ 500, 525: 5.155 and 2.751 E(B-V)), and the colour
# that best separates early from late types (Strateva et al. 2001, AJ 122, 1861).
_REDDENING, _EARLY_OR_LATE = (5.155 - 2.751) / 2.751, 2.22
# Part of the image that Figure 1 zooms to, which is that of the paper's network.
_ZOOM = PRESETS[PAPER].crop
_FEWEST = 10
# Of pairs on the page: a to z, aa to dv; the figure in the folder and the diagram of colours have the first.
_LETTERS = [first + second for first in ("", *"abcd") for second in ascii_lowercase][:100]
_IN_FIGURE = 24
_COLOURS = (GREY, ORANGE, RED, SKY, GREEN, BLUE)
_LINES = ("--", "-.", "-", "--", ":", "-")
_STYLES: dict[str, Style] = {
    row.labels: {"color": color, "ls": line}
    for row, color, line in zip(TABLE_1.values(), _COLOURS, _LINES, strict=True)
}


def sersic_curves(work: Work) -> Distributions | None:
    """Return the distributions of the Sérsic index by label set (Figure 3); None without such a column."""
    tested = measured(work)
    values = sersic_indices(work, tested.frame)
    if values is None:
        return None
    drawn = tested.sets if work.options.every_curve else FIGURE_3
    sets = {label_set.name: label_set.p for name, label_set in tested.sets.items() if name in drawn}
    return compare_distributions(values, sets)


def sersic_figure(curves: Distributions, circular: bool) -> Illustration:
    """Draw Figure 3; `circular`: with DCV14, which is trained on this index."""
    text = (
        "As in the paper: Sérsic index n of galaxies labelled smooth, changed from smooth to disk, and labelled "
        "disk. Which labels that figure has is inferred from the text. "
        + ("DCV14 is trained on this index, so its curves are circular. " if circular else "")
        + f"{curves.n_dropped:,} of {curves.n_galaxies:,} galaxies have no index."
    )
    return Illustration("figure3", cumulative_panels(curves, _STYLES), text, curves.data(), number="3")


def _with_colour(frame: pl.DataFrame) -> pl.DataFrame:
    """Add the Petrosian colour u - r without Galactic extinction, if the sample has SDSS's magnitudes."""
    if not {"petroMag_u", "petroMag_r", "extinction_r"} <= {*frame.columns}:
        return frame
    colour = pl.col("petroMag_u") - pl.col("petroMag_r") - _REDDENING * pl.col("extinction_r")
    return frame.with_columns(colour.alias(COLOUR))


def _list_changed(work: Work, folder: Path) -> Values:
    """List test galaxies labelled smooth by volunteers and disk by DDB, highest p(disk) first, with positions."""
    frame = _with_colour(all_labels(work))
    names = ("object_id", "ra", "dec", "alpha", "image", "disk_fraction", "M_r", COLOUR)
    own = [name for name in names if name in frame.columns]
    # HST images show the field of the volunteers' image.
    width = FIELD_R90 * pl.col("petroR90_r") if "petroR90_r" in frame.columns else pl.lit(None, pl.Float64)
    chosen = frame.filter(pl.col(GZ2B) == SMOOTH, pl.col(DDB) == DISK).select(*own, fov=width, p_disk=f"p {DDB}")
    chosen = chosen.sort("p_disk", "object_id", descending=[True, False])
    write_table(chosen, folder / CHANGED)
    return {"changed": chosen.height, "places": "ra" in own and "dec" in own}


def _verdicts(work: Work) -> dict[str, str]:
    """Read a reader's verdicts on HST images, by object id; empty text where there is none yet."""
    path = work.out / VERDICTS
    if not path.is_file():
        return {}
    frame = read_columns(path, dict.fromkeys(("object_id", "verdict"), pl.String), nulls=True).fill_null("")
    verdicts = {name: verdict.strip().lower() for name, verdict in frame.iter_rows()}
    for name, verdict in verdicts.items():
        if verdict not in ("", *KINDS):
            raise InputError(f"{path}: verdict of {name} is {verdict!r}; write {', '.join(KINDS)}, or nothing")
    return verdicts


def _better(work: Work) -> tuple[Path, pl.DataFrame]:
    """Return the folder of HST images, and the changed galaxies that have one: its file `better`, and the `verdict`."""
    folder = Path(work.inputs.better or work.data / "hst").resolve()
    table = pl.read_csv(work.file("changed", CHANGED), schema_overrides={"object_id": pl.String, "fov": pl.Float64})
    table = table.with_columns(
        better=pl.Series(find_images(table["object_id"], None, folder), dtype=pl.String),
        verdict=pl.col("object_id").replace_strict(_verdicts(work), default="", return_dtype=pl.String),
    )
    return folder, table.drop_nulls("better")


def _pairs_settings(work: Work) -> Values:
    """Fetch missing HST images, if asked for; identify those that exist, and the verdicts."""
    changed, listed, ours = work.result("changed"), work.file("changed", CHANGED), work.data / "hst"
    fetch = work.options.fetch and not work.options.dry_run and work.inputs.better in (None, str(ours.resolve()))
    if fetch and changed["places"] and changed["changed"]:
        outcome = fetch_archive("hst", work.data, positions=listed)
        if outcome.status == FAILED:  # show existing images
            work.outcomes[outcome.name] = outcome
    folder, table = _better(work)
    if not folder.is_dir():
        places = "" if changed["places"] else " (and columns ra, dec)"
        raise Lacks(f"HST images{places}: truemorph fetch hst --positions {listed} --out {ours}, or `better`")
    return {"changed": changed, "folder": folder, "files": files_digest(folder, table["better"]), "rows": table.rows()}


def _make_pairs(work: Work, folder: Path) -> Values:
    """Count the pairs and the reader's verdicts; add rows without a verdict to the file for them."""
    _, table = _better(work)
    every = _verdicts(work) | dict(table.select("object_id", "verdict").rows())
    write_table(pl.DataFrame({"object_id": every.keys(), "verdict": every.values()}), work.out / VERDICTS)
    return {
        "changed": work.result("changed")["changed"],
        "with_better": table.height,
        "verdicts": {kind: (table["verdict"] == kind).sum() for kind in KINDS},
    }


def hst_images(work: Work) -> tuple[list[Section], list[Illustration]]:
    """Return Figure 4 as a section of the page, and as a figure for the folder.

    Ids and, where the width of the field is known, a bar of 5 arcsec are drawn on the images.
    """
    if not work.have("figure4"):
        return [], []
    changed = work.result("figure4")
    note = (
        f"The paper's Figure 4: test galaxies labelled smooth by volunteers and disk by DDB. Of {changed['changed']:,} "
        f"galaxies, {changed['with_better']:,} have an HST image. Left: image that the volunteers saw. Right: HST. "
        f"truemorph does not classify HST images: inspect them, and write {', '.join(KINDS)} beside each id in "
        f"{VERDICTS}; the same command then counts them, beside the paper's, and Figure 1 shows the first with arms."
    )
    folder, table = _better(work)
    root, rows, on_page = image_folder(work.catalogue()), [], []
    for letter, row in zip(_LETTERS, table.iter_rows(named=True), strict=False):
        name, title_of = row["object_id"], f"α = {row['alpha']:.1f}, p(disk) = {row['p_disk']:.2f}"
        with suppress(InputError):  # skip unreadable images
            paths = root / row["image"], folder / row["better"]
            seen, better = (annotated(whole_picture(path), name, row["fov"]) for path in paths)
            rows.append({"title": f"({letter}) {title_of}", "seen": seen, "better": better})
            sources = [("seen by volunteers", jpeg_source(seen)), ("HST", jpeg_source(better))]
            on_page.append(Pair(f"({letter}) {name}: {title_of}", sources))
    section = Section("SDSS and HST images", note, pairs=on_page)
    if not rows:
        return [section], []
    text = "Galaxies that changed from smooth to disk. Top: image that the volunteers saw. Bottom: HST."
    data = table.head(_IN_FIGURE).select("object_id", "alpha", "p_disk")
    return [section], [Illustration("figure4", pairs_figure(rows[:_IN_FIGURE]), text, data)]


def galaxy_from_space(work: Work) -> list[Illustration]:
    """Draw Figure 1: a changed galaxy as it was seen, the same zoomed in, and from space.

    It is the one with the highest p(disk) of those in which the reader saw arms, or of all.
    """
    if not work.have("figure4"):
        return []
    folder, table = _better(work)
    root, arms = image_folder(work.catalogue()), pl.col("verdict") == KINDS[0]
    for row in table.sort(arms, descending=True, maintain_order=True).iter_rows(named=True):
        with suppress(InputError):  # skip unreadable images
            seen, better = root / row["image"], folder / row["better"]
            pictures = {"as seen by the volunteers": (seen, 1.0), "the same, zoomed in": (seen, _ZOOM)}
            pictures["from space (HST)"] = (better, _ZOOM)
            panels = []
            for letter, (title, (path, crop)) in zip("abc", pictures.items(), strict=True):
                axes = new_panel(3.0, 3.3)
                axes.imshow(annotated(whole_picture(path, crop), "", (row["fov"] or 0) * crop))
                axes.set_title(f"({letter}) {title}", fontsize=10)
                axes.set_axis_off()
                panels.append(axes.figure)
            text = (
                f"As in the paper: a galaxy that most volunteers call smooth and DDB a disk ({row['object_id']}, "
                f"α = {row['alpha']:.1f}), in the volunteers' image (a, b) and from above the atmosphere (c)."
            )
            return [Illustration("figure1", panels, text, number="1")]
    return []


def colour_magnitude(work: Work) -> list[Illustration]:
    """Draw u - r against M_r: changed galaxies among those that volunteers and DDB call smooth, or both call disk."""
    frame = _with_colour(all_labels(work)) if work.have(DDB) else pl.DataFrame()
    if not {COLOUR, "M_r"} <= {*frame.columns} or frame.drop_nulls((COLOUR, "M_r")).height < _FEWEST:
        return []
    pairs = _better(work)[1]["object_id"].head(_IN_FIGURE) if work.have("figure4") else ()
    letters = dict(zip(pairs, _LETTERS, strict=False))
    letter = pl.col("object_id").replace_strict(letters, default=None, return_dtype=pl.String).alias("letter")
    frame, axes, groups = frame.with_columns(letter).drop_nulls((COLOUR, "M_r")), new_panel(5.6, 4.4), []
    for name, label, ours, colour, marker in (
        ("disk, both", DISK, DISK, SKY, "."),
        ("smooth, both", SMOOTH, SMOOTH, RED, "."),
        ("changed to disk", SMOOTH, DISK, GREY, "x"),
    ):
        group = frame.filter(pl.col(GZ2B) == label, pl.col(DDB) == ours)
        groups.append(group.select(pl.lit(name).alias("group"), "object_id", "M_r", COLOUR, "letter"))
        plain = group.filter(pl.col("letter").is_null())
        about = f"{name} ({group.height:,})"
        axes.scatter(plain["M_r"], plain[COLOUR], s=14, c=colour, marker=marker, lw=0.8, label=about)
        for row in group.drop_nulls("letter").iter_rows(named=True):
            place = row["M_r"], row[COLOUR]
            axes.annotate(row["letter"], place, fontsize=11, weight="bold", ha="center", va="center")
    axes.axhline(_EARLY_OR_LATE, color=GREY, lw=0.8, ls=":")
    low, high = np.quantile(frame[COLOUR], (0.002, 0.998))
    axes.set(xlabel="$M_r$ (mag)", ylabel="$u - r$ (mag)", ylim=(low - 0.2, high + 0.2))
    axes.legend(frameon=False, fontsize=8, loc="upper right")
    text = (
        "Colours and magnitudes, which the paper names as what may settle its lenticulars: u - r (Petrosian, without "
        "Galactic extinction or K-correction) against M_r of test galaxies; letters are those of Figure 4's pairs. "
        f"Dotted: u - r = {_EARLY_OR_LATE}, which separates early from late types best (Strateva et al. 2001). Both "
        "columns are in changed.csv."
    )
    return [Illustration("figure4_colours", axes.figure, text, pl.concat(groups), number="beside 4")]


def _maps_settings(work: Work) -> Values:
    if not (there := list(filter(work.have, NETWORKS))):
        raise Lacks(f"a network for Grad-CAM: {work.outcomes[DDB].text or f'stage {DDB}'}")
    test = work.catalogue(TEST_ROWS).frame
    return {
        "models": {name: work.result(name)["model_hash"] for name in there},
        "galaxies": rows_digest(test, ("object_id", "image")),
        "images": images_digest(work),
    }


def _make_maps(work: Work, folder: Path) -> Values:
    """Make mean Grad-CAM maps and profiles of all test galaxies; save them, because this may take hours."""
    test = work.catalogue(TEST_ROWS)
    frame = test.frame.drop_nulls("image")
    models = {TABLE_1[name].labels: load(work.file(name, MODEL)) for name in filter(work.have, NETWORKS)}
    explanations = explain(models, galaxies_of(frame, image_folder(test)), frame.height)
    for number, explanation in enumerate(explanations.values()):
        for group in explanation.classes:
            rings = group.rings[PIXELS]
            np.savez(folder / f"{number}-{group.name}.npz", **vars(group.mean), edges=rings.edges, rings=rings.profiles)
    names = ("model_hash", "backbone", "layer", "cells", "image_size")
    return {
        "models": {
            model: {name: getattr(explanation, name) for name in names} for model, explanation in explanations.items()
        }
    }


def explained(work: Work, kind: str) -> dict[str, Explanation]:
    """Read maps and profiles of the galaxies that each network calls smooth or disk; galaxies are numbered."""
    out = {}
    for number, (model, about) in enumerate(work.result("maps")["models"].items()):
        with np.load(work.file("maps", f"{number}-{kind}.npz"), allow_pickle=False) as kept:
            mean = MeanMap(kept["mean"], kept["stderr"], kept["count"])
            profiles = Profiles(kept["edges"], kept["rings"])
        numbered = pl.DataFrame({"object_id": np.arange(len(profiles.profiles))})
        group = Explained(kind, numbered, mean, {PIXELS: profiles})
        out[model] = Explanation(model, **about, classes=(group,))
    return out


def maps_and_profiles(explanations: Mapping[str, dict[str, Explanation]]) -> list[Illustration]:
    """Draw Figures 5 to 7 of the classes, by name, that some network predicts."""
    colours = {title: style["color"] for title, style in _STYLES.items()}
    maps, profiles = [], []
    for name, of_map, letter in (("disk", 5, "a"), ("smooth", 6, "b")):
        of_labels = explanations.get(name, {})
        if not any(explanation.galaxies for explanation in of_labels.values()):
            continue
        about = "; ".join(
            f"{model}: {explanation.layer}, {explanation.cells}×{explanation.cells} cells"
            for model, explanation in of_labels.items()
        )
        caption = (
            f"As in the paper: mean Grad-CAM maps of test galaxies predicted {name}. {about}. truemorph explain "
            "compares maps with random weights."
        )
        means = [explanation.classes[0].mean.mean for explanation in of_labels.values() if explanation.galaxies]
        scale = Normalize(min(mean.min() for mean in means), max(mean.max() for mean in means))
        panels = [
            mean_map_figure({model: explanation}, scale, letters)
            for letters, (model, explanation) in zip("abc", of_labels.items(), strict=False)
        ]
        maps.append(Illustration(f"figure{of_map}", panels, caption, number=str(of_map)))
        caption = (
            f"As in the paper: mean Grad-CAM intensity of galaxies predicted {name} against distance from the centre, "
            "with standard errors."
        )
        figure, data = profile_figure(of_labels, PIXELS, colours), profile_table(of_labels, PIXELS)
        profiles.append(Illustration(f"figure7{letter}", figure, caption, data, number=f"7{letter}"))
    return maps + profiles


STAGES = (
    Stage("changed", "test galaxies that changed from smooth to disk", _list_changed, ("catalogue", DDB)),
    Stage("figure4", "Figure 4: SDSS and HST images", _make_pairs, ("catalogue", DDB, "changed"),
          settings=_pairs_settings),
    Stage("maps", "Figures 5 to 7: Grad-CAM", _make_maps, ("catalogue",), NETWORKS, _maps_settings),
)  # fmt: skip
