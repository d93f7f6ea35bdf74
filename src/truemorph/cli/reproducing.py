"""The command that makes the paper's experiment again: reproduce."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from truemorph import workflow
from truemorph.cli.shell import AsJson, Seed, Where, app, names, show
from truemorph.errors import TruemorphError


@app.command
def reproduce(
    *,
    data: Annotated[Path, Parameter(help="folder of data, as truemorph fetch leaves it")] = Path("data"),
    out: Annotated[Path, Parameter(help="folder to write; a run goes on there")] = Path("reproduction"),
    scale: Annotated[str, Parameter(help="paper, quick (0.05), or a share of the paper's 121,984 galaxies")] = "quick",
    fetch: Annotated[bool, Parameter(help="fetch what the folder of data lacks")] = False,
    stages: Annotated[str | None, Parameter(help="these alone, with what they rest on; comma-separated")] = None,
    again: Annotated[
        str | None, Parameter(name="--from", help="make this stage anew, and all that follow from it")
    ] = None,
    dry_run: Annotated[bool, Parameter(help="say what is there, what would be made, and how long it takes")] = False,
    config: Annotated[
        Path | None, Parameter(help="TOML file that says which files hold what; default reproduce.toml among the data")
    ] = None,
    table: Annotated[str | None, Parameter(help="votes of the crowd (GZ2B)")] = None,
    mapping: Annotated[str | None, Parameter(help="how its columns are named: a preset or a TOML file")] = None,
    id: Annotated[str | None, Parameter(help="its column of object ids")] = None,
    radius: Annotated[str | None, Parameter(help="column of Petrosian radii, arcsec")] = None,
    psf_fwhm: Annotated[str | None, Parameter(help="column of PSF FWHM, or one number, arcsec")] = None,
    psf: Annotated[Literal["sigma", "fwhm"] | None, Parameter(help="alpha = radius / this; sigma if not given")] = None,
    where: Where = None,
    images: Annotated[str | None, Parameter(help="folder of images")] = None,
    hart: Annotated[str | None, Parameter(help="votes debiased by Hart et al. 2016 (GZ2D), or the same table")] = None,
    photometry: Annotated[str | None, Parameter(help="table of radii, PSF widths, redshifts, magnitudes by id")] = None,
    sersic_table: Annotated[str | None, Parameter(help="table of Sersic indices, ellipticities, radii by id")] = None,
    better: Annotated[str | None, Parameter(help="folder of HST images, <object id>.jpg")] = None,
    intrinsic: Annotated[str | None, Parameter(help="columns of CV18; default radius_kpc,M_r,redshift")] = None,
    features: Annotated[str | None, Parameter(help="columns of DCV14; default sersic_n,ellipticity,r_half")] = None,
    preset: Annotated[str | None, Parameter(help="of the networks; default paper at full scale, quick below")] = None,
    set: Annotated[
        list[str] | None,
        Parameter(name="--set", help="any setting of the networks as KEY=VALUE (repeatable)"),
    ] = None,
    depth: Annotated[int | None, Parameter(help="levels of CV18's tree; default: at least 25 galaxies a bin")] = None,
    bins: Annotated[int | None, Parameter(help="bins of alpha; default as for depth")] = None,
    bootstrap: Annotated[int, Parameter(help="resamples for errors of bias measures", validator=Number(gte=2))] = 100,
    draws: Annotated[int, Parameter(help="random networks that check the maps; 0: none")] = 5,
    cache: Annotated[Path | None, Parameter(help="folder to keep decoded images in")] = None,
    addresses: Annotated[Path | None, Parameter(help="TOML file of other addresses to fetch from")] = None,
    rate: Annotated[float | None, Parameter(help="most requests a second to one host, in fetching")] = None,
    seed: Seed = 0,
    json: AsJson = False,
) -> None:
    """Make the paper's experiment again: Table 1 beside the paper's, Figures 3 to 7, reasons why they may differ.

    Stages are kept: the same command goes on where it was cut off, and makes again only what has changed. Stages whose
    data are not there are said, with what would provide them.

    Example: truemorph reproduce --data data --fetch --scale paper --out reproduction
    """
    result = workflow.reproduce(
        data,
        out,
        workflow.ReproduceOptions(
            scale=workflow.Scale.of(scale),
            fetch=fetch,
            only=names(stages),
            again=again,
            changes=set or (),
            preset=preset,
            depth=depth,
            bins=bins,
            bootstrap=bootstrap,
            draws=draws,
            cache=cache,
            addresses=addresses,
            rate=rate,
            dry_run=dry_run,
            seed=seed,
        ),
        config=config,
        table=table,
        mapping=mapping,
        id=id,
        radius=radius,
        psf_fwhm=psf_fwhm,
        psf=psf,
        where=tuple(where or ()),
        images=images,
        hart=hart,
        photometry=photometry,
        sersic_table=sersic_table,
        better=better,
        intrinsic=names(intrinsic),
        features=names(features),
    )
    lines = [f"{one['name']:13s} {one['status']:8s} {one['text']}".rstrip() for one in result["stages"]]
    if result.get("table1"):
        lines.append(f"{'':36s} {result['table1']['measure'] + ' here':>17s} {'paper':>17s}")
        for row in result["table1"]["rows"]:
            here = "–" if row["bootstrap_mean"] is None else f"{row['bootstrap_mean']:.4f} ± {row['bootstrap_std']:.4f}"
            lines.append(
                f"{row['letter']}) {row['labels']:33s} {here:>17s} {row['paper']:.4f} ± {row['paper_std']:.4f}"
            )
    lines += [one for one in (result["answer"],) if one]
    lines += [f"open {name}" for key, name in result["files"].items() if key.endswith(".html")]
    show(result, json, lines)
    failed = [one["name"] for one in result["stages"] if one["status"] == "failed"]
    if failed:
        raise TruemorphError(
            f"{len(failed)} stages failed: {', '.join(failed)} (see above, or {out / 'reproduce.json'})"
        )
