"""Commands on catalogues: prepare, bias, transition."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from truemorph import workflow
from truemorph.cli.shell import AsJson, Resamples, Seed, Where, app, names, say, show
from truemorph.errors import InputError
from truemorph.io import write_json


@app.command
def prepare(
    table: Annotated[Path | None, Parameter(help="table of votes (.fits, .vot, .ecsv, .parquet, .csv, …)")] = None,
    *,
    out: Annotated[Path | None, Parameter(help="catalogue to write (.parquet)")] = None,
    preset: Annotated[
        str | None,
        Parameter(
            help="gz2, gz-challenge, desi, gz-decals, gz-hubble, candels or truemorph, recognised by the columns if "
            "not given; gz2-debiased or paper"
        ),
    ] = None,
    mapping: Annotated[Path | None, Parameter(help="instead of a preset, a TOML file that describes the table")] = None,
    join: Annotated[
        list[str] | None, Parameter(name="--join", help="table to add by object id, FILE or FILE=COLUMN (repeatable)")
    ] = None,
    match: Annotated[
        list[str] | None, Parameter(name="--match", help="table to add by position, FILE or FILE=RA,DEC (repeatable)")
    ] = None,
    within: Annotated[float, Parameter(help="largest separation for --match, arcsec")] = 2.0,
    id: Annotated[str | None, Parameter(help="column of object ids")] = None,
    smooth: Annotated[str | None, Parameter(help="column of votes for smooth: fractions or numbers")] = None,
    disk: Annotated[str | None, Parameter(help="column of votes for disk")] = None,
    artifact: Annotated[str | None, Parameter(help="column of votes for star or artifact")] = None,
    label: Annotated[str | None, Parameter(help="instead of votes, column of labels 0 (smooth) and 1 (disk)")] = None,
    radius: Annotated[str | None, Parameter(help="column of Petrosian radii, arcsec")] = None,
    psf_fwhm: Annotated[str | None, Parameter(help="column of the PSF's FWHM, or one number, arcsec")] = None,
    psf: Annotated[
        Literal["sigma", "fwhm"], Parameter(help="PSF width in alpha = radius / width: its sigma or its FWHM")
    ] = "sigma",
    images: Annotated[Path | None, Parameter(help="folder of images")] = None,
    where: Where = None,
    keep: Annotated[
        list[str] | None, Parameter(name="--keep", help='rule for rows, such as "petroMag_r < 17" (repeatable)')
    ] = None,
    cosmology: Annotated[
        str | None, Parameter(help="astropy cosmology for radii in kpc and absolute magnitudes; default WMAP9")
    ] = None,
    sample: Annotated[
        str | None, Parameter(help="numbers of smooth and disk galaxies to draw, such as 62225,59759; balanced; or all")
    ] = None,
    split: Annotated[
        str | None, Parameter(help="fractions or numbers to train, validate and test on; default 0.8,0.1,0.1")
    ] = None,
    gold: Annotated[
        str | None, Parameter(help="gold labels: a column of 0 and 1, or a rule such as t_type>=-3")
    ] = None,
    dry_run: Annotated[
        bool, Parameter(help="print the mapping as TOML, to change and use as --mapping, and stop")
    ] = False,
    seed: Seed = 0,
    json: AsJson = False,
) -> None:
    """Turn a table of votes into a catalogue: labels, alpha, splits, and an account of every row.

    Wherever a column is named, an SQL expression over columns may stand.

    Example: truemorph prepare gz2.fits --radius petroRad_r --psf-fwhm psfWidth_r --images jpegs --out cat.parquet
    """
    from truemorph.catalogs.crossmatch import read_join
    from truemorph.catalogs.prepare import prepare_catalogue, write_preparation

    named = {"object_id": id, "smooth": smooth, "disk": disk, "artefact": artifact, "label": label, "radius": radius}
    asked: dict[str, Any] = {
        "preset": preset,
        "mapping": mapping,
        "joins": [*(read_join(one) for one in join or ()), *(read_join(one, "sky", within) for one in match or ())],
        "columns": {name: column for name, column in named.items() if column is not None},
        "psf_fwhm": psf_fwhm,
        "keep": keep or (),
        "cosmology": cosmology,
        "sample": sample,
        "split": split,
    }
    if dry_run:
        _show_mapping(table, asked, json)
        return
    if table is None or out is None:
        raise InputError("prepare needs a table, and --out, the catalogue to write (.parquet)")
    prepared = prepare_catalogue(table, **asked, psf=psf, images=images, where=where or (), gold=gold, seed=seed)
    result = workflow.preparation_result(prepared, write_preparation(prepared, out))
    for note in prepared.notes:
        say(f"note: {note}")
    held = prepared.catalogue.metadata
    lines = [f"{rule:32s} {count:>9,d}" for rule, count in prepared.funnel]
    lines += [f"labels: {', '.join(f'{name} {n:,d}' for name, n in result['labels'].items())}"]
    lines += [f"splits: {', '.join(f'{name} {n:,d}' for name, n in result['splits'].items())}"]
    lines += [f"votes:  {held['votes']} ({held['preset']})"]
    lines += [f"alpha:  {result['alpha']}", f"wrote   {out}, and {result['datasheet']} beside it"]
    show(result, json, lines)


def _show_mapping(table: Path | None, asked: dict[str, Any], as_json: bool) -> None:
    """Print how a table would be read; without a table, a preset or mapping as it is."""
    from truemorph.catalogs.mapping import PRESETS, mapping_toml, narrowed, read_mapping
    from truemorph.catalogs.prepare import read_tables

    if table is not None:
        joined, mapping = read_tables(table, **asked)
        mapping = narrowed(mapping, joined.table.frame.columns, joined.own)
    elif described := asked["preset"] or asked["mapping"]:
        mapping = read_mapping(described)
    else:
        raise InputError(f"give a table, --preset ({', '.join(PRESETS)}) or --mapping")
    show(mapping.model_dump(mode="json", exclude_defaults=True), as_json, [mapping_toml(mapping).rstrip()])


@app.command
def bias(
    catalogue: Path,
    *,
    labels: Annotated[Path | None, Parameter(help="labels of a model, from truemorph label")] = None,
    intrinsic: Annotated[str | None, Parameter(help="intrinsic columns, comma-separated, for CV18")] = None,
    bins: Annotated[int | None, Parameter(help="bins of alpha; default: at least 25 galaxies each")] = None,
    depth: Annotated[int | None, Parameter(help="levels of the intrinsic tree; default as for bins")] = None,
    bootstrap: Annotated[int, Parameter(help="resamples for the error", validator=Resamples)] = 100,
    where: Where = None,
    out: Annotated[Path | None, Parameter(help="write the result here (.json)")] = None,
    seed: Seed = 0,
    json: AsJson = False,
) -> None:
    """Measure how class fractions drift with resolution: CV18, or CV14 without intrinsic columns.

    Example: truemorph bias cat.parquet --labels labels.parquet --intrinsic radius_kpc,M_r,redshift
    """
    result = workflow.measure_bias(
        catalogue,
        labels_path=labels,
        intrinsic=names(intrinsic),
        bins=bins,
        depth=depth,
        where=where or (),
        bootstrap=bootstrap,
        seed=seed,
    )
    if out:
        write_json(out, result)
    lines = [
        f"{result['measure']} of {result['galaxies']:,d} galaxies, {2 ** result['depth']} leaves × "
        f"{result['bins']} bins; alpha = {result['alpha']}",
        f"{'labels':24s} {'value':>8s} {'bootstrap':>17s} {'floor':>16s} {'excess':>8s} {'galaxies':>9s}",
    ]
    notes: dict[str, None] = {}
    for name, one in result["results"].items():
        lines.append(
            f"{name:24s} {one['value']:8.4f} {one['bootstrap_mean']:8.4f} ±{one['bootstrap_std']:7.4f} "
            f"{one['floor']:8.4f} ±{one['floor_std']:6.4f} {one['excess']:8.4f} {one['n_objects']:9,d}"
        )
        notes |= dict.fromkeys(f"{name}: {note}" for note in one["warnings"])
    fractions = result["fractions_by_alpha"]
    lines.append("disk fraction by alpha   " + " ".join(f"{value:7.1f}" for value in fractions["alpha"]))
    lines += [
        f"{name:24s} " + " ".join(f"{value:7.3f}" for value in values)
        for name, values in fractions.items()
        if name != "alpha"
    ]
    for note in notes:
        say(f"note: {note}")
    show(result, json, lines)


@app.command
def transition(
    catalogue: Path,
    *,
    out: Annotated[Path, Parameter(help="fit to write (.json; pictures .png beside it)")],
    family: Annotated[
        str, Parameter(help="rayleigh, weibull, fisk, monotone, constant, matrix, logistic, tabulated, or best")
    ] = "rayleigh",
    method: Annotated[
        Literal["likelihood", "binned", "conditional", "gold"] | None,
        Parameter(help="binned is the paper's; default: gold, conditional or likelihood, by what is given"),
    ] = None,
    intrinsic: Annotated[
        str | None, Parameter(help="columns that classes may depend on, comma-separated (conditional)")
    ] = None,
    gold: Annotated[
        str | None, Parameter(help="gold labels: a column of 0 and 1, or a rule such as t_type>=-3")
    ] = None,
    false_disk: Annotated[str | None, Parameter(help="p(disk | smooth): a number, or fit")] = None,
    class_model: Annotated[Literal["logistic", "trees"], Parameter(help="p(class | intrinsic)")] = "logistic",
    bins: Annotated[int, Parameter(help="bins of the binned method")] = 1525,
    by: Annotated[str | None, Parameter(help="give debiased fractions in bins of this column; default alpha")] = None,
    fraction_bins: Annotated[int, Parameter(help="most bins of the debiased fractions")] = 8,
    compare: Annotated[bool, Parameter(negative="--no-compare", help="fit the other families too")] = True,
    where: Where = None,
    bootstrap: Annotated[
        int, Parameter(help="refits on resampled galaxies, to check the error", validator=Resamples)
    ] = 0,
    seed: Seed = 0,
    json: AsJson = False,
) -> None:
    """Learn how labels flip with alpha, with errors, checks, and what it does to class fractions.

    Example: truemorph transition cat.parquet --gold "t_type>=-3" --family best --out transition.json
    """
    from truemorph.catalogs.catalogue import read_catalogue

    workflow.check_fit_path(out)
    study = workflow.study_transition(
        read_catalogue(catalogue),
        family=family,
        method=method,
        intrinsic=names(intrinsic),
        gold=gold,
        false_disk=_number_or_fit(false_disk),
        class_model=class_model,
        bins=bins,
        by=by,
        fraction_bins=fraction_bins,
        compare=compare,
        where=where or (),
        bootstrap=bootstrap,
        seed=seed,
    )
    workflow.write_study(study, out)
    for note in dict.fromkeys(study.described["warnings"]):
        say(f"warning: {note}")
    show(study.described, json, _study_lines(study))


def _number_or_fit(value: str | None) -> float | str | None:
    if value is None or value == "fit":
        return value
    try:
        return float(value)
    except ValueError:
        raise InputError(f'--false-disk takes a number or "fit"; got {value!r}') from None


def _study_lines(study: workflow.TransitionStudy) -> list[str]:
    fit, described = study.fit, study.described
    lines = []
    for name, value in fit.values.items():
        interval = ""
        if study.profile is not None and study.profile.name == name:
            interval = f"   95 % interval {study.profile.low:.3f} to {study.profile.high:.3f}"
        lines.append(f"{name} = {value:.3f} ± {fit.stderr[name]:.3f}{interval}")
    lines += [f"{name} (bootstrap spread) ± {v:.3f}" for name, v in described.get("bootstrap_std", {}).items()]
    lines += [
        f"true disk fraction {fit.class_fractions[1]:.3f} ± {fit.stderr['disk_fraction']:.3f} "
        f"(labelled {float((fit.labels == 1).mean()):.3f})",
        f"{fit.family}, {fit.method}, {fit.n_objects:,d} galaxies; log-likelihood {fit.log_likelihood:.1f}",
        f"alpha = {described['alpha']}",
        f"definition: {described['definition']}",
        f"assumes: {fit.assumption}",
        f"check: {study.check.statement}",
    ]
    if study.families is not None:
        lines.append(
            f"{'family':12s} {'log-likelihood':>14s} {'AIC above best':>14s} {'disk fraction':>13s}  parameters"
        )
        for row in study.families.table():
            values = "  ".join(
                f"{name} {value:.3f} ± {row['stderr'].get(name, float('nan')):.3f}"
                for name, value in list(row["values"].items())[:3]
            )
            more = f"  … {len(row['values']) - 3} more" if len(row["values"]) > 3 else ""
            lines.append(
                f"{row['family']:12s} {row['log_likelihood']:14.1f} {row['delta_aic']:14.1f} "
                f"{row['disk_fraction']:13.3f}  {values}{more}"
            )
        lines += [f"{name:12s} not fitted: {why}" for name, why in study.families.failed.items()]
    found = study.fractions
    lines.append(f"disk fraction by {found.by} ({found.method}; band: 95 %, statistical and over families)")
    lines.append(f"{found.by:>10s} {'labelled':>9s} {'debiased':>9s} {'error':>7s} {'band':>15s}     gold")
    for b in range(found.counts.size):
        true = "" if study.gold_fractions is None else f"{study.gold_fractions[b]:8.3f}"
        lines.append(
            f"{found.middles[b]:10.2f} {found.labelled[b, 1]:9.3f} {found.fractions[b, 1]:9.3f} "
            f"{found.stderr[b, 1]:7.3f} {found.low[b, 1]:7.3f}-{found.high[b, 1]:.3f} {true}"
        )
    return lines
