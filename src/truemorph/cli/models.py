"""Commands on models: train, label, report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from truemorph import workflow
from truemorph.cli.shell import AsJson, Resamples, Seed, Where, app, names, say, show
from truemorph.errors import InputError


@app.command
def train(
    source: Annotated[Path, Parameter(help="prepared catalogue, or a run.toml")],
    *,
    out: Annotated[Path | None, Parameter(help="run folder to write")] = None,
    transition: Annotated[Path | None, Parameter(help="fit from truemorph transition; fitted if absent")] = None,
    naive: Annotated[bool, Parameter(help="take labels at their word")] = False,
    where: Annotated[
        list[str] | None, Parameter(name="--where", help="fit theta to rows with COLUMN=VALUE only (repeatable)")
    ] = None,
    preset: Annotated[str | None, Parameter(help="quick, paper or dcv14; quick if not given")] = None,
    config: Annotated[Path | None, Parameter(help="TOML file of settings")] = None,
    set: Annotated[
        list[str] | None, Parameter(name="--set", help="any setting as KEY=VALUE (repeatable); --dry-run shows all")
    ] = None,
    features: Annotated[str | None, Parameter(help="columns for dcv14, comma-separated")] = None,
    intrinsic: Annotated[str | None, Parameter(help="columns for CV18 of each epoch, comma-separated")] = None,
    cache: Annotated[Path | None, Parameter(help="folder to keep decoded images in, for the next run")] = None,
    backbone: Annotated[str | None, Parameter(help="any timm model")] = None,
    image_size: Annotated[int | None, Parameter(help="pixels on a side")] = None,
    crop: Annotated[float | None, Parameter(help="central fraction of the image to keep")] = None,
    epochs: Annotated[int | None, Parameter(help="most epochs; stops earlier on its own")] = None,
    batch_size: Annotated[int | None, Parameter(help="galaxies a step")] = None,
    learning_rate: Annotated[float | None, Parameter(help="peak learning rate")] = None,
    folds: Annotated[int | None, Parameter(help="members, each without one fold (1: one network)")] = None,
    seed: Annotated[int | None, Parameter(help="seed of everything random; 0 if not given")] = None,
    dry_run: Annotated[bool, Parameter(help="print the resolved run.toml and stop")] = False,
    json: AsJson = False,
) -> None:
    """Train a classifier through T(alpha), so that it predicts the unbiased class.

    Example: truemorph train cat.parquet --transition transition.json --preset quick --out model
    """
    from truemorph.config import run_config, run_toml

    run = run_config(
        source,
        set or (),
        config,
        out=None if out is None else str(out),
        transition=None if transition is None else str(transition),
        naive=naive or None,
        where=where,
        preset=preset,
        features=names(features) or None,
        intrinsic=names(intrinsic) or None,
        cache=None if cache is None else str(cache),
        backbone=backbone,
        image_size=image_size,
        crop=crop,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        folds=folds,
        seed=seed,
    )
    if dry_run:
        show(run.model_dump(mode="json"), json, [run_toml(run).rstrip()])
        return
    result = workflow.train_on_catalogue(run)
    if not result:  # one of several processes, and not the first
        return
    for note in result["transition"].get("warnings", []):
        say(f"warning: {note}")
    if result["left_out"]:
        say(f"note: {result['left_out']} galaxies left out, listed in {Path(run.out) / 'left_out.csv'}")
    numbers = {k: round(v, 4) if isinstance(v, float) else v for k, v in result["metrics"].items()}
    lines = [
        f"trained on {result['rows']:,d} galaxies through "
        f"{result['transition']['family']} {result['transition']['parameters']}",
        f"metrics: {numbers}",
        f"seconds: {', '.join(f'{k} {v:.1f}' for k, v in result['seconds'].items())}",
        f"wrote    {run.out}",
    ]
    show(result, json, lines)


@app.command
def label(
    model: Annotated[Path, Parameter(help="model folder; or a fit of truemorph transition, for catalogues alone")],
    source: Annotated[
        Path,
        Parameter(
            help="prepared catalogue; folder, list (.txt) or table of images; tar files; Parquet with images in it"
        ),
    ],
    *,
    out: Annotated[Path, Parameter(help="table (.parquet, .fits, .ecsv, .vot, .csv), or a folder to keep partitions")],
    transition: Annotated[Path | None, Parameter(help="T(alpha) for the posterior; default the model's")] = None,
    crowd: Annotated[Path | None, Parameter(help="prepared catalogue with crowd labels, joined by id")] = None,
    id: Annotated[str | None, Parameter(help="column of ids")] = None,
    image_column: Annotated[str | None, Parameter(help="column of image files, or of their contents")] = None,
    images: Annotated[Path | None, Parameter(help="folder that the files of a list or table are in")] = None,
    keep: Annotated[str | None, Parameter(help="columns to keep beside the labels, comma-separated")] = None,
    engine: Annotated[
        Literal["torch", "openvino", "ray"], Parameter(help="what runs networks; ray: on all machines of a cluster")
    ] = "torch",
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "int8"], Parameter(help="auto: bf16 where hardware has it; int8: openvino")
    ] = "auto",
    gate: Annotated[Path | None, Parameter(help="images on which int8 proves itself; default the source's")] = None,
    address: Annotated[str | None, Parameter(help="of a Ray cluster; default one on this machine")] = None,
    shard: Annotated[str | None, Parameter(help="label a share of the parts only, such as 3/64")] = None,
    max_bad: Annotated[float, Parameter(help="largest share of images that can't be read")] = 0.05,
    seed: Annotated[int, Parameter(help="accepted like everywhere; labelling draws nothing at random")] = 0,
    json: AsJson = False,
) -> None:
    """Label galaxies: p(y | x) from pixels, and the posterior where there is a crowd label.

    The same command goes on where it was cut off; several at once share the work.

    Example: truemorph label model cat.parquet --out labels.parquet
    """
    from truemorph.labelling.predict import label_table

    report = label_table(
        workflow.labelling_model(model),
        source,
        out,
        workflow.read_fit(transition) if transition else None,
        crowd=crowd,
        id_column=id,
        image_column=image_column,
        images=images,
        keep=names(keep),
        engine=engine,
        precision=precision,
        gate=gate,
        address=address,
        shard=_shard(shard),
        max_bad=max_bad,
    )
    for note in report.notes:
        say(f"note: {note}")
    if report.problems:
        first, why = report.problems[0]
        say(f"note: {len(report.problems)} rows not labelled, listed in {report.listed} (first: {first}, {why})")
    result = {"out": str(out), "rows_in": report.rows_in, "labelled": report.labelled, "complete": report.complete}
    result |= {"problems": len(report.problems), "notes": report.notes}
    show(
        result,
        json,
        [
            f"{report.rows_in:,d} rows in, {report.labelled:,d} labelled, {len(report.problems):,d} listed as problems",
            *([f"wrote {out}"] if report.complete else []),
        ],
    )


def _shard(value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    try:
        k, n = map(int, value.split("/"))
    except ValueError:
        raise InputError(f"--shard takes k/n, such as 3/64; got {value!r}") from None
    return k, n


@app.command
def report(
    *runs: Annotated[Path, Parameter(help="run folders of truemorph train; or fits of truemorph transition (.json)")],
    out: Annotated[Path, Parameter(help="page to write (.html); figures go to <name>_files beside it")] = Path(
        "report.html"
    ),
    catalogue: Annotated[Path | None, Parameter(help="prepared catalogue; default that of the first run")] = None,
    labels: Annotated[
        list[Path] | None, Parameter(name="--labels", help="labels of the runs, made earlier (repeatable)")
    ] = None,
    gold: Annotated[
        list[str] | None,
        Parameter(name="--gold", help='gold labels: a column or "t_type>=-3" (repeatable); default column gold'),
    ] = None,
    intrinsic: Annotated[str | None, Parameter(help="columns that classes may depend on, comma-separated")] = None,
    also: Annotated[
        list[str] | None,
        Parameter(name="--also", help="NAME=COLUMN: other labels or disk fractions to show beside (repeatable)"),
    ] = None,
    where: Where = None,
    rows: Annotated[
        Literal["auto", "test", "all"], Parameter(help="galaxies to measure on; auto: test ones if there are 1,000")
    ] = "auto",
    better: Annotated[Path | None, Parameter(help="folder of better images, <object id>.jpg (.png, .fits)")] = None,
    galaxies: Annotated[int, Parameter(help="most galaxies in the gallery", validator=Number(gte=0))] = 200,
    compare: Annotated[
        str | None,
        Parameter(help="columns to compare between classes, comma-separated; default sersic_n if it is there"),
    ] = None,
    sersic: Annotated[int, Parameter(help="measure Sersic indices on the pictures of so many galaxies")] = 0,
    field: Annotated[str | None, Parameter(help="arcsec that an image file is across: a number or a column")] = None,
    maps: Annotated[int, Parameter(help="most galaxies whose Grad-CAM maps are averaged; 0: no maps")] = 500,
    align: Annotated[bool, Parameter(help="mean maps of galaxies turned to one angle too")] = False,
    draws: Annotated[int, Parameter(help="random networks that check the maps; 0: none")] = 5,
    leaderboard: Annotated[Path | None, Parameter(help="leaderboard.json to show beside")] = None,
    bootstrap: Annotated[int, Parameter(help="resamples for errors of bias measures", validator=Resamples)] = 100,
    seed: Seed = 0,
    json: AsJson = False,
) -> None:
    """Show the evidence on one page: answer, trust, Table 1, figures, galaxies that changed; runs side by side.

    Example: truemorph report model-naive model-debiased --intrinsic radius_kpc,M_r,redshift --out report.html
    """
    from truemorph.workflow.reporting import ReportOptions, make_report

    if not runs and catalogue is None:
        raise InputError("give run folders, such as: truemorph report model-naive model-debiased; or a --catalogue")
    options = ReportOptions(
        catalogue=catalogue,
        labels=labels or (),
        gold=gold or (),
        intrinsic=names(intrinsic),
        also=also or (),
        where=where or (),
        rows=rows,
        better=better,
        galaxies=galaxies,
        compare=names(compare),
        sersic=sersic,
        field=field,
        maps=maps,
        align=align,
        draws=draws,
        leaderboard=leaderboard,
        bootstrap=bootstrap,
        seed=seed,
    )
    result = make_report(runs, out, options)
    width = max(len(row["labels"]) for row in result["table"])
    measure = result["measure"]
    lines = [f"{'labels':{width}}  disk fraction  {measure} above noise"]
    for row in result["table"]:
        numbers = ("–" if row[name] is None else f"{row[name]:.3f}" for name in ("disk_fraction", "excess"))
        lines.append(f"{row['labels']:{width}}" + "".join(f"  {one:>13}" for one in numbers))
    lines += [result["answer"], result["verdict"]["text"], f"open {out}"]
    show(result, json, lines)
