"""The command line: one thin command per verb, results on stdout, progress on stderr."""

from __future__ import annotations

import io
import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter
from cyclopts.validators import Number

from truemorph import workflow
from truemorph._version import __version__
from truemorph.errors import InputError, TruemorphError

app = App(
    name="truemorph",
    version=__version__,
    help="Unbiased galaxy morphologies from biased labels. Start with: truemorph demo",
    help_format="plaintext",
    result_action="return_value",
    suppress_keyboard_interrupt=False,
    default_parameter=Parameter(negative=()),
)

Where = Annotated[list[str] | None, Parameter(name="--where", help="keep rows with COLUMN=VALUE (repeatable)")]
AsJson = Annotated[bool, Parameter(name="--json", help="print the result as JSON")]
Seed = Annotated[int, Parameter(help="seed of everything random", validator=Number(gte=0, lt=2**31))]
Resamples = Number(gte=0)


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _one_line_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    _say(f"warning: {' '.join(str(message).split())}")


def _show(result: dict[str, Any], as_json: bool, lines: Sequence[str]) -> None:
    print(json.dumps(workflow.plain(result), indent=2) if as_json else "\n".join(lines))


def _psf(value: str | None) -> str | float | None:
    """A PSF width is a column name, or a number of arcsec."""
    if value is None:
        return None
    try:
        return float(value)
    except ValueError:
        return value


def _names(value: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in value.split(",") if name.strip()) if value else ()


@app.command
def prepare(
    table: Path,
    *,
    out: Annotated[Path, Parameter(help="catalogue to write (.parquet)")],
    preset: Annotated[str | None, Parameter(help="gz2, gz2-debiased or gz-challenge; found if not given")] = None,
    id: Annotated[str | None, Parameter(help="column of object ids")] = None,
    radius: Annotated[str | None, Parameter(help="column of Petrosian radii, arcsec")] = None,
    psf_fwhm: Annotated[str | None, Parameter(help="column of PSF FWHM, or one number, arcsec")] = None,
    psf: Annotated[Literal["sigma", "fwhm"], Parameter(help="alpha = radius / this")] = "sigma",
    images: Annotated[Path | None, Parameter(help="folder of images")] = None,
    where: Where = None,
    balance: Annotated[bool, Parameter(help="train on equally many of each label")] = False,
    split: Annotated[str, Parameter(help="train, validation and test shares")] = "0.8,0.1,0.1",
    truth: Annotated[
        str | None, Parameter(help="trusted classes: a column of 0 and 1, or a rule such as t_type>=-3")
    ] = None,
    seed: Seed = 0,
    json: AsJson = False,
) -> None:
    """Turn a table of votes into a catalogue: labels, alpha, splits, and an account of every row.

    Example: truemorph prepare gz2.fits --radius petroRad_r --psf-fwhm psfWidth_r --images jpegs --out cat.parquet
    """
    from truemorph.catalogs.prepare import prepare_catalogue, write_preparation

    try:
        train, validation, test = (float(share) for share in split.split(","))
    except ValueError:
        raise InputError(f"--split takes three shares such as 0.8,0.1,0.1; got {split!r}") from None
    chosen = {"object_id": id, "radius": radius}
    prepared = prepare_catalogue(
        table,
        preset=preset,
        columns={key: name for key, name in chosen.items() if name},
        psf_fwhm=_psf(psf_fwhm),
        psf=psf,
        images=images,
        where=where or (),
        balance=balance,
        split=(train, validation, test),
        truth=truth,
        seed=seed,
    )
    result = workflow.preparation_result(prepared, write_preparation(prepared, out))
    for note in prepared.notes:
        _say(f"note: {note}")
    lines = [f"{rule:32s} {count:>9,d}" for rule, count in prepared.funnel]
    lines += [f"labels: {', '.join(f'{name} {n:,d}' for name, n in result['labels'].items())}"]
    lines += [f"splits: {', '.join(f'{name} {n:,d}' for name, n in result['splits'].items())}"]
    lines += [f"alpha:  {result['alpha']}", f"wrote   {out}"]
    _show(result, json, lines)


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
        intrinsic=_names(intrinsic),
        bins=bins,
        depth=depth,
        where=where or (),
        bootstrap=bootstrap,
        seed=seed,
    )
    if out:
        workflow.write_json(out, result)
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
        _say(f"note: {note}")
    _show(result, json, lines)


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
        str | None, Parameter(help="trusted classes: a column of 0 and 1, or a rule such as t_type>=-3")
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
        intrinsic=_names(intrinsic),
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
        _say(f"warning: {note}")
    _show(study.described, json, _study_lines(study))


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
    lines.append(f"{found.by:>10s} {'labelled':>9s} {'debiased':>9s} {'error':>7s} {'band':>15s}   truth")
    for b in range(found.counts.size):
        true = "" if study.truth is None else f"{study.truth[b]:8.3f}"
        lines.append(
            f"{found.middles[b]:10.2f} {found.labelled[b, 1]:9.3f} {found.fractions[b, 1]:9.3f} "
            f"{found.stderr[b, 1]:7.3f} {found.low[b, 1]:7.3f}-{found.high[b, 1]:.3f} {true}"
        )
    return lines


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
        features=_names(features) or None,
        intrinsic=_names(intrinsic) or None,
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
        _show(run.model_dump(mode="json"), json, [run_toml(run).rstrip()])
        return
    result = workflow.train_on_catalogue(run)
    if not result:  # one of several processes, and not the first
        return
    for note in result["transition"].get("warnings", []):
        _say(f"warning: {note}")
    if result["left_out"]:
        _say(f"note: {result['left_out']} galaxies left out, listed in {Path(run.out) / 'left_out.csv'}")
    numbers = {k: round(v, 4) if isinstance(v, float) else v for k, v in result["metrics"].items()}
    lines = [
        f"trained on {result['rows']:,d} galaxies through "
        f"{result['transition']['family']} {result['transition']['parameters']}",
        f"metrics: {numbers}",
        f"seconds: {', '.join(f'{k} {v:.1f}' for k, v in result['seconds'].items())}",
        f"wrote    {run.out}",
    ]
    _show(result, json, lines)


@app.command
def label(
    model: Path,
    source: Annotated[Path, Parameter(help="a prepared catalogue, or a folder of images")],
    *,
    out: Annotated[Path, Parameter(help="table to write (.parquet, .fits, .ecsv, .vot, .csv)")],
    transition: Annotated[Path | None, Parameter(help="T(alpha) for the posterior; default the model's")] = None,
    seed: Annotated[int, Parameter(help="accepted like everywhere; labelling draws nothing at random")] = 0,
    json: AsJson = False,
) -> None:
    """Label galaxies: p(y | x) from pixels, and the posterior where there is a crowd label.

    Example: truemorph label model cat.parquet --out labels.parquet
    """
    from truemorph.classifiers.checkpoint import load
    from truemorph.labelling.predict import label_table

    report = label_table(load(model), source, out, workflow.read_fit(transition) if transition else None)
    for note in report.notes:
        _say(f"note: {note}")
    if report.problems:
        listed = out.with_name(f"{out.stem}.problems.csv")
        first, why = report.problems[0]
        _say(f"note: {len(report.problems)} rows not labelled, listed in {listed} (first: {first}, {why})")
    result = {"out": str(out), "rows_in": report.rows_in, "labelled": report.labelled}
    result |= {"problems": len(report.problems), "notes": report.notes}
    _show(
        result,
        json,
        [
            f"{report.rows_in:,d} rows in, {report.labelled:,d} labelled, {len(report.problems):,d} listed as problems",
            f"wrote {out}",
        ],
    )


@app.command
def report(
    *runs: Annotated[Path, Parameter(help="run folders of truemorph train")],
    out: Annotated[Path, Parameter(help="page to write (.html)")] = Path("runs.html"),
    json: AsJson = False,
) -> None:
    """Compare training runs on one page: settings, held-out likelihood, bias by epoch.

    Example: truemorph report model-naive model-debiased --out runs.html
    """
    from truemorph.report.page import write_page
    from truemorph.report.runs import compare_runs

    if not runs:
        raise InputError("give one run folder or more, such as: truemorph report model-naive model-debiased")
    page, content = compare_runs(runs)
    write_page(page, out)
    width = max(len(row[0]) for row in page.table)
    lines = [f"{'run':{width}}  held-out loss  p(disk) in quintiles of alpha  bias above noise"]
    lines += [f"{row[0]:{width}}  {row[2]:>13}  {' '.join(row[3:8]):29}  {row[8]}" for row in page.table]
    lines.append(f"open {out}")
    _show({**content, "out": str(out)}, json, lines)


@app.command
def demo(
    *,
    out: Annotated[Path, Parameter(help="folder to write")] = Path("demo"),
    galaxies: Annotated[int, Parameter(help="simulated galaxies")] = 9000,
    epochs: Annotated[int | None, Parameter(help="most epochs of training")] = None,
    folds: Annotated[int | None, Parameter(help="members a model")] = None,
    seed: Seed = 0,
    json: AsJson = False,
) -> None:
    """Show that it works, on simulated galaxies whose truth is known: report.html and summary.json.

    Example: truemorph demo --out demo
    """
    from truemorph.demo import run_demo

    summary = run_demo(out, galaxies=galaxies, epochs=epochs, folds=folds, seed=seed)
    lines = [
        f"{'trained on the same labels':28s} {'accuracy':>9s} {'rms hard':>9s} {'rms soft':>9s} {'CV18 excess':>12s}"
    ]
    for name, one in summary["models"].items():
        lines.append(
            f"{name:28s} {one['balanced_accuracy']:9.3f} {one['fraction_rms_hard']:9.3f} "
            f"{one['fraction_rms_soft']:9.3f} {one['cv18']['excess']:12.3f}"
        )
    theta = summary["theta"]
    lines.append(f"theta {theta['estimate']:.2f} ± {theta['stderr']:.2f} (true {theta['true']:.2f})")
    lines.append(f"open {out / 'report.html'}")
    _show(summary, json, lines)


@app.command
def benchmark(
    *,
    out: Annotated[Path, Parameter(help="folder to write")],
    quick: Annotated[bool, Parameter(help="plain and real worlds, six methods, one seed: minutes")] = False,
    catalogue_only: Annotated[bool, Parameter(help="labels, votes and columns, no images: seconds")] = False,
    data: Annotated[Path | None, Parameter(help="folder of real data; without it, simulated worlds only")] = None,
    worlds: Annotated[str | None, Parameter(help="comma-separated; default all")] = None,
    methods: Annotated[str | None, Parameter(help="comma-separated; default all")] = None,
    seeds: Annotated[int | None, Parameter(help="how many; default 3", validator=Number(gte=1))] = None,
    train: Annotated[int | None, Parameter(help="training galaxies of a simulated world")] = None,
    test: Annotated[int | None, Parameter(help="test galaxies of a simulated world")] = None,
    epochs: Annotated[int | None, Parameter(help="epochs of every network", validator=Number(gte=1))] = None,
    jobs: Annotated[int | None, Parameter(help="processes; default 1, for catalogues one a core")] = None,
    cache: Annotated[Path | None, Parameter(help="where stages are kept; default OUT/cache")] = None,
    seed: Seed = 0,
    json: AsJson = False,
) -> None:
    """Score every way to deal with biased labels where the truth is known: leaderboard.json, .md, .html and .png.

    A run that was cut off goes on where it was.

    Example: truemorph benchmark --quick --data shared/data --out leaderboard
    """
    from truemorph.benchmark.tables import cell

    sizes = {"train": train, "test": test, "epochs": epochs}
    written = {"--quick": quick, "--catalogue-only": catalogue_only}
    given = {"--worlds": worlds, "--methods": methods, "--seeds": seeds, "--train": train, "--test": test,
             "--epochs": epochs, "--seed": seed or None}  # fmt: skip
    command = " ".join(
        ["truemorph benchmark", *(name for name, on in written.items() if on)]
        + [f"{name} {value!r}" if " " in str(value) else f"{name} {value}" for name, value in given.items() if value]
        + (["--data DATA"] if data else [])
    )
    result = workflow.run_benchmark(
        out,
        quick=quick,
        catalogue_only=catalogue_only,
        worlds=_names(worlds),
        methods=_names(methods),
        seeds=seeds,
        data=data,
        cache=cache,
        jobs=jobs,
        seed=seed,
        command=command,
        **{name: value for name, value in sizes.items() if value is not None},
    )
    lines = []
    for world in dict.fromkeys(row["world"] for row in result["rows"]):
        lines.append(f"{world:38s} {'accuracy':>16s} {'log-loss':>16s} {'rms soft':>16s} {'CV18 excess':>16s}")
        for row in (one for one in result["rows"] if one["world"] == world):
            numbers = [cell(row, m) for m in ("balanced_accuracy", "log_loss", "fraction_rms_soft", "cv18_excess")]
            title = result["titles"].get(row["method"], row["method"])
            lines.append(f"  {title:36s} " + " ".join(f"{number:>16s}" for number in numbers))
    lines.append(f"open {out / 'leaderboard.html'}")
    _show(result, json, lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line: exit 2 for bad input, 1 for a failure, 130 for Ctrl-C."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.showwarning = _one_line_warning
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # Greek letters on a terminal that has none
    try:
        app(arguments, exit_on_error=False, print_error=False)
    except CycloptsError as problem:
        _say(f"truemorph: {' '.join(str(problem).split())} (see truemorph --help)")
        sys.exit(2)
    except TruemorphError as problem:
        _say(f"truemorph: {' '.join(str(problem).split())}")
        sys.exit(problem.exit_code)
    except KeyboardInterrupt:
        _say("truemorph: interrupted")
        sys.exit(130)
    except OSError as problem:
        _say(f"truemorph: {problem.filename or ''}: {problem.strerror or problem}")
        sys.exit(1)


if __name__ == "__main__":
    main()
