"""Write files of this version for tests/test_versions.py, before a release: python tests/versions/write.py RELEASE

400 simulated galaxies: the catalogue, an estimate of smooth or disk from labels, one of bars from gold labels, a
logistic model of two folds and its labels.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import truemorph as tm
from truemorph.simulate import simulate_survey

FILES = ("catalogue.parquet", "transition.json", "bars.json", "bars.npz", "labels.parquet", "model")


def write():
    """Write files into the current folder."""
    _, votes = simulate_survey(400, seed=2)
    votes = votes.select("dr7objid", "^t0[123].*$", "^petro.*$", "psfWidth_r", "radius_kpc", "M_r", "^truth.*$")
    tm.prepare_catalogue(votes, question="bar", gold="truth", out="catalogue.parquet")
    tm.estimate_transition("catalogue.parquet", compare=False, out="transition.json")
    tm.estimate_transition("catalogue.parquet", question="bar", gold="truth_bar", fraction_bins=4, out="bars.json")
    settings = {"features": ("radius_kpc", "M_r"), "folds": 2}
    tm.train_classifier(
        "catalogue.parquet", preset="dcv14", transition="transition.json", out="model", settings=settings
    )
    tm.label_galaxies("model", "catalogue.parquet", out="labels.parquet")


def main(release):
    out = Path(__file__).resolve().parent / release
    out.mkdir()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        write()
        for name in FILES:
            copy = shutil.copytree if Path(name).is_dir() else shutil.copyfile
            copy(name, out / name)
        os.chdir(out)


if __name__ == "__main__":
    main(sys.argv[1])
