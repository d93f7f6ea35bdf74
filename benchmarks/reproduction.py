"""The paper's experiment on a simulated archive and on real votes: the numbers of docs/reproduce.md.

    python benchmarks/reproduction.py archive | votes DATA

archive: 7,000 galaxies with θ = 11.25, whose class fractions do not depend on α, fetched from a local server and
reproduced at scale "quick". votes: CV14 of Galaxy Zoo 2's votes and of Hart et al.'s, and θ, without networks.
"""

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import truemorph as tm
from truemorph.archives import gz2, hst, sdss, simard

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from archives.server import Observatory
from archives.simulated import write_archive

GALAXIES, SEED = 7000, 8
SIZE = 212  # pixels on a side: half of Galaxy Zoo 2's, drawn four times as fast; networks see 64
VOTES = {
    "`source=nuy2e_hart16` (single exposures)": ("gz2_votes.csv", {"radius": "petroR90"}, "source=nuy2e_hart16"),
    "`source=S82coadd` (deeper images)": ("gz2_votes.csv", {"radius": "petroR90"}, "source=S82coadd"),
    "688 images": ("gz2_images.csv", {"radius": "petroR90_est"}, None),
}


def table(heads, rows):
    print(f"| {' | '.join(heads)} |\n|---" + "|---" * (len(heads) - 1) + "|")
    for cells in rows:
        print(f"| {' | '.join(cells)} |")


def with_error(value, error, form=".3f"):
    return f"{value:{form}} ± {error:{form}}"


def archive():
    with TemporaryDirectory() as name:
        folder = Path(name)
        with Observatory(write_archive(folder / "archive", GALAXIES, SEED, size=SIZE)) as served:
            for one in (gz2, sdss, simard, hst):
                one.PER_SECOND = 1e6  # a local server
            addresses = str(served.write_addresses(folder / "addresses.toml"))
            with patch.dict(os.environ, {"TRUEMORPH_ADDRESSES": addresses, "NO_PROXY": "*", "no_proxy": "*"}):
                options = tm.ReproduceOptions(fetch=True)
                told = tm.reproduce_paper(data=folder / "data", out=folder / "out", options=options).to_dict()
    found = told["table1"]
    print("## reproduced_table")
    heads = ["CV18 of test galaxies", "here", "paper", "floor", "disk fraction"]
    table(
        heads,
        [
            [
                f"{row['letter']}) {row['labels']}",
                with_error(row["bootstrap_mean"], row["bootstrap_std"]),
                with_error(row["paper"], row["paper_std"]),
                f"{row['floor']:.3f}",
                f"{row['disk_fraction']:.2f}",
            ]
            for row in found["rows"]
        ],
    )
    print("## reproduced_statements")
    rows = [[one["text"], one["here"], one["paper"], one["verdict"]] for one in told["statements"]]
    table(["statement of the paper", "here", "in the paper", "here it is"], rows)


def votes(data):
    rows = []
    with TemporaryDirectory() as name:
        for number, (title, (file, columns, where)) in enumerate(VOTES.items()):
            catalogue = Path(name) / f"{number}.parquet"
            chosen = {"where": [where]} if where else {"psf_fwhm": 1.32}
            tm.prepare_catalogue(data / file, **columns, **chosen, out=catalogue)
            told = tm.reproduce_paper(
                data=Path(name),
                out=Path(name) / f"out{number}",
                inputs={"table": str(catalogue), "hart": str(data / file)},
                options=tm.ReproduceOptions(stages=("theta", "table1")),
            ).to_dict()
            values = [with_error(row["bootstrap_mean"], row["bootstrap_std"]) for row in told["table1"]["rows"]]
            theta = next(one for one in told["table1"]["theta"] if one["name"] == "ddb")
            rows.append(
                [
                    title,
                    f"{told['catalogue']['galaxies']:,}",
                    *values[:2],
                    with_error(theta["theta"], theta["stderr"], ".1f"),
                ]
            )
    table(["galaxies", "number", "GZ2B", "GZ2D", "θ"], rows)


if __name__ == "__main__":
    archive() if sys.argv[1] == "archive" else votes(Path(sys.argv[2]))
