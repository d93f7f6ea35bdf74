"""Commands that show that it works, and what it looks at: demo, benchmark, explain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from truemorph import workflow
from truemorph.cli.shell import AsJson, Seed, app, names, say, show


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
    show(summary, json, lines)


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
        worlds=names(worlds),
        methods=names(methods),
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
    show(result, json, lines)


@app.command
def explain(
    *models: Annotated[Path, Parameter(help="model folders of truemorph train")],
    catalogue: Annotated[Path, Parameter(help="prepared catalogue with images")],
    out: Annotated[Path, Parameter(help="folder to write")],
    layer: Annotated[str | None, Parameter(help="of the backbone; default the deepest of 7×7 cells or more")] = None,
    rows: Annotated[
        Literal["test", "all"], Parameter(help="all: training galaxies too, by members that didn't see their labels")
    ] = "test",
    galaxies: Annotated[int, Parameter(help="most to explain, at random; 0: all", validator=Number(gte=0))] = 2000,
    align: Annotated[
        bool, Parameter(help="mean maps of galaxies turned to one angle, scaled where radii are known")
    ] = False,
    angle_column: Annotated[
        str | None, Parameter(help="position angles, degrees north through east; default measured on the pictures")
    ] = None,
    radius_column: Annotated[
        str | None, Parameter(help="radii in arcsec, for profiles in radii; needs --field")
    ] = None,
    field: Annotated[str | None, Parameter(help="arcsec that an image file is across: a number or a column")] = None,
    rings: Annotated[int, Parameter(help="rings of a profile", validator=Number(gte=1))] = 16,
    bootstrap: Annotated[int, Parameter(help="resamples of differences", validator=Number(gte=1))] = 1000,
    draws: Annotated[int, Parameter(help="random networks that check the maps; 0: none", validator=Number(gte=0))] = 5,
    seed: Seed = 0,
    json: AsJson = False,
) -> None:
    """Show where models look: Grad-CAM maps, mean intensity against distance from the centre, differences.

    Example: truemorph explain naive debiased --catalogue cat.parquet --out explained
    """
    result = workflow.explain_models(
        models,
        catalogue,
        out,
        layer=layer,
        rows=rows,
        galaxies=galaxies,
        align=align,
        angle_column=angle_column,
        radius_column=radius_column,
        field=field,
        rings=rings,
        bootstrap=bootstrap,
        draws=draws,
        seed=seed,
    )
    lines = []
    for name, one in result["models"].items():
        if one["problems"]:
            say(f"note: {one['problems']} galaxies without a good image left out")
        cells = "×".join(map(str, one["map_cells"]))
        lines.append(f"{name}: {one['backbone']} at {one['image_size']} pixels, maps of {one['layer']} ({cells} cells)")
        for kind, some in one["classes"].items():
            blank = f", {some['blank_maps']:,} of them with nothing for it" if some["blank_maps"] else ""
            lines.append(f"  predicted {kind:8s} {some['galaxies']:7,d} galaxies{blank}")
        check = result["random_weights"].get(name)
        if check:
            lines.append(f"  {check['statement']}")
    lines.append(f"wrote {out}")
    show(result, json, lines)
