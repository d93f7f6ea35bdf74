"""Figures of the front page, drawn at each build from simulated galaxies."""

import matplotlib.pyplot as plt
import numpy as np
import polars as pl

import truemorph as tm
from truemorph.simulate import at_resolution, render, simulate_galaxies, simulate_survey


def draw_gallery(folder):
    """Write the figures to a folder."""
    folder.mkdir(exist_ok=True)
    galaxies = tm.simulate_catalogue(6000, seed=2, drift=-0.4, gold=500)
    study = tm.estimate_transition(galaxies, gold="gold", compare=False)
    _fractions(galaxies, study, folder / "fractions.png")
    _save(study.fit.plot(), folder / "curve.png", "Bias curve from 500 gold labels")
    _save(tm.plan_gold(galaxies.drop("gold")).plot(), folder / "plan.png", "Gold labels needed")
    _save(tm.calibration(study.fit).plot(), folder / "calibration.png", "Does the curve describe the labels?")
    _bars(folder / "bars.png")
    _twins(folder / "twins.png")
    _drift(folder / "drift.png")


def _save(axes, path, title):
    axes.set_title(title, fontsize=11)
    axes.figure.set_size_inches(3.9, 2.9)  # so that letters can be read in a card
    axes.figure.savefig(path, dpi=170, bbox_inches="tight")
    plt.close(axes.figure)


def _fractions(galaxies, study, path):
    parts = np.array_split(np.argsort(galaxies["alpha"].to_numpy()), len(study.fractions.fractions))
    truth = galaxies["truth"].to_numpy()
    _save(study.fractions.plot(truth=[truth[one].mean() for one in parts]), path, "Disk fraction, corrected")


def _bars(path):
    """Draw the bar fraction of a simulated survey, corrected with 300 gold labels."""
    _, votes = simulate_survey(4000, seed=1, world="drift up")
    experts = pl.when(pl.int_range(pl.len()) < 300).then("truth_bar")
    catalogue = tm.prepare_catalogue(votes.with_columns(experts=experts), question="bar").catalogue
    _save(tm.estimate_transition(catalogue, question="bar", gold="experts").plot(), path, "Bar fraction, corrected")


def _twins(path):
    """Draw four disks at four resolutions."""
    disks = simulate_galaxies(400, seed=3, confounded=False)
    disks = disks.filter((disks["truth"] == 1) & (disks["alpha"] > 25) & (disks["arm_strength"] > 0.5)).head(4)
    figure, grid = plt.subplots(4, 4, figsize=(3.4, 3.5))
    for column, alpha in enumerate((25, 12, 7, 4)):
        twins = at_resolution(disks, np.full(disks.height, float(alpha)), how="distance")
        for row, (_, image) in enumerate(render(twins, size=96, exposure=1)):
            grid[row, column].imshow(image[12:84, 12:84])
            grid[row, column].set_axis_off()
        grid[0, column].set_title(f"α = {alpha}", fontsize=11)
    figure.subplots_adjust(0.01, 0.01, 0.99, 0.93, 0.03, 0.03)
    figure.savefig(path, dpi=190)
    plt.close(figure)


def _drift(path):
    """Draw the observed disk fraction against resolution, for three values of θ."""
    _, axes = plt.subplots()
    for theta in (6.0, 11.25, 20.0):
        galaxies = tm.simulate_catalogue(20_000, seed=1, transition=tm.RayleighTransition(theta)).sort("alpha")
        parts = np.array_split(galaxies.select("alpha", "label").to_numpy(), 12)
        axes.plot(*zip(*(one.mean(axis=0) for one in parts), strict=True), "o-", label=f"θ = {theta:g}")
    axes.axhline(0.7, color="0.3", ls="--", label="truth")
    axes.set(xlabel="resolution α = R_petro / σ_PSF", ylabel="fraction labelled disk", ylim=(0, 1))
    axes.legend(frameon=False)
    _save(axes, path, "What resolution bias does to labels")
