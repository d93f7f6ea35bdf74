"""The paper's experiment on a simulated archive and on real votes: the numbers of docs/reproduce.md.

    python benchmarks/reproduction.py archive | full | votes DATA

archive: 7,000 galaxies with θ = 11.25, whose true disk fraction rises with α, fetched from a local server and
reproduced at scale "quick". full: 240,000 of them at scale "paper", without networks. votes: CV14 of Galaxy Zoo 2's
votes and of Hart et al.'s, θ, and both against experts' types (T >= -3), without networks.
"""

import os
import sys
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np

import truemorph as tm
from truemorph.archives import gz2, hst, sdss, simard

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from archives import simulated
from archives.server import Observatory

GALAXIES, ALL, SEED = 7000, 240_000, 8
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


@contextmanager
def archives(galaxies, **options):
    """Write archives and serve them; yield a folder for data and results."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        with Observatory(simulated.write_archive(folder / "archive", galaxies, SEED, **options)) as served:
            for one in (gz2, sdss, simard, hst):
                one.PER_SECOND = 1e6  # a local server
            addresses = str(served.write_addresses(folder / "addresses.toml"))
            with patch.dict(os.environ, {"TRUEMORPH_ADDRESSES": addresses, "NO_PROXY": "*", "no_proxy": "*"}):
                yield folder


def reproduced(folder, **options):
    """Reproduce the paper; return the result as a dict."""
    options = tm.ReproduceOptions(fetch=True, **options)
    return tm.reproduce_paper(data=folder / "data", out=folder / "out", options=options).to_dict()


def archive():
    with archives(GALAXIES, size=SIZE) as folder:
        told = reproduced(folder)
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


def full():
    """Networks fail at once: images have 8 pixels and are black."""

    def black(drawn, size, *_, **__):
        return ((row, np.zeros((size, size, 3), np.uint8)) for row in range(drawn.height))

    with patch.object(simulated, "render", black), archives(ALL, size=8, hst=1e-4) as folder:
        stages = ("theta", "dcv14", "table1", "reasons")
        told = reproduced(folder, scale="paper", stages=stages)
        more = reproduced(folder, scale="paper", stages=("dcv14", "table1"), depth=6, bins=7)
    print("## reproduced_full")
    rows = [
        [f"{one['letter']}) {one['labels']}"]
        + [f"{with_error(row['bootstrap_mean'], row['bootstrap_std'])} ({row['floor']:.3f})" for row in (one, other)]
        for one, other in zip(told["table1"]["rows"], more["table1"]["rows"], strict=True)
    ]
    heads = ["CV18 of 12,192 test galaxies (floor)", "8 leaves, 8 bins, as in the lineage's code", "64 leaves, 7 bins"]
    table(heads, rows)
    thetas = {one["name"]: with_error(one["theta"], one["stderr"], ".2f") for one in told["table1"]["theta"]}
    print(f"\nθ is {thetas['dcv14']} by DCV14 and {thetas['ddb']} as DDB fits it, both without weights.")
    print("## reproduced_choices")
    chosen = ("intrinsic columns", "leaves and bins", "galaxies on which bias is measured", "estimator of θ")
    rows = [[one["what"], one["here"], one["effect"]] for one in told["reasons"] if one["what"] in chosen]
    table(["what the paper leaves open", "chosen here", "what other choices give"], rows)


def votes(data):
    rows = []
    with TemporaryDirectory() as name:
        for number, (title, (file, columns, where)) in enumerate(VOTES.items()):
            catalogue = Path(name) / f"{number}.parquet"
            chosen = {"where": [where], "gold": "t_type >= -3"} if where else {"psf_fwhm": 1.32}
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
                    *against_experts(told["table1"]),
                ]
            )
    heads = ["experts' types", "balanced accuracy of GZ2B, GZ2D", "rms of their disk fraction"]
    table(["galaxies", "number", "GZ2B", "GZ2D", "θ", *heads], rows)


def against_experts(found):
    """Number of test galaxies with experts' types, and what they say of GZ2B and GZ2D."""
    if not found["gold"]:
        return "–", "–", "–"
    scores = (
        [row[f"{score}: gold labels"] for row in found["rows"][:2]] for score in ("balanced_accuracy", "fraction_rms")
    )
    return f"{found['gold']:,}", *(
        ", ".join("–" if value is None else f"{value:.3f}" for value in pair) for pair in scores
    )


if __name__ == "__main__":
    what, *where = sys.argv[1:]
    {"archive": archive, "full": full, "votes": votes}[what](*map(Path, where))
