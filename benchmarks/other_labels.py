"""Willett et al.'s (2013) debiased votes for bars against experts: the table of docs/comparison.md.

    python benchmarks/other_labels.py [DRAWS]

Needs the shared data: 687 galaxies of Stripe 82 with votes, debiased votes and the bars of Nair & Abraham (2010). Rms
error of the bar fraction over octiles of α, of labels as they are and after correction with random gold labels.
"""

import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
import polars as pl
from question_fractions import DATA, HEAD, draw, line, real

from truemorph.catalogs.other_labels import with_other_labels
from truemorph.questions import Asked, read_tree
from truemorph.tables import CatalogTable

N_GOLD = 300
TASKS = ("t01_smooth_or_features_a02_features_or_disk", "t02_edgeon_a05_no", "t03_bar_a06_bar")


def main():
    draws = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    case, _ = real()[f"gz2_tree × bar_nair, {N_GOLD} gold"]
    frame = pl.read_parquet(DATA / "gz2_tree.parquet").drop_nulls(["bar_nair", "petroR90", "t_type"])
    tree, quantity, cut = read_tree("gz2"), case.quantities[0], case.cut()
    asked = Asked(tree, "bar")
    table, [willett] = with_other_labels(CatalogTable(frame.select(object_id="objid")), asked, [frame])
    votes = willett.votes(table.frame)
    hard, soft = willett.probabilities(table.frame, asked)
    bar, no_bar = (frame[f"t03_bar_{one}_count"].to_numpy() for one in ("a06_bar", "a07_no_bar"))
    features, face, barred = (frame[f"{task}_debiased"].to_numpy() for task in TASKS)

    def of(classes):
        return quantity.of(np.stack([cut.sums(one) for one in classes.T], axis=1))

    def among(least, of_disk, of_face):
        rows = (bar + no_bar >= least) & (features > of_disk) & (face > of_face)
        return cut.sums(rows & (barred > 0.5)) / cut.sums(rows)

    cuts = {"at least 10 votes, above 0.5 at both gates": (10, 0.5, 0.5)}
    cuts |= {"at least 20 votes, above 0.430 and 0.715": (20, 0.43, 0.715)}  # their Table 3
    sets = {"volunteers: majority paths": of(np.eye(3)[case.labels])}
    sets |= {f"volunteers: {name}": found for name, found in case.others.items() if "Willett" not in name}
    sets |= {"Willett: majority paths": of(hard), "Willett: fractions": of(soft)}
    sets |= {f"Willett: {name}": among(*some) for name, some in cuts.items()}
    true = case.fractions(case.truth)
    moved = np.abs(barred - frame[f"{TASKS[2]}_weighted_fraction"].to_numpy())[bar + no_bar > 0]
    print("## other_labels")
    size = f"{moved.mean():.3f}"
    print(f"{moved.size} galaxies have votes for bars. Debiasing changes their bar fraction by {size} on average.")
    lowest = [[np.sum((cut.index == 0) & (case.truth == k) & (bar + no_bar >= n)) for n in (0, 10)] for k in (1, 2)]
    few = (
        "In the lowest octile, {} of {} face-on disks without a bar have at least 10 votes, and {} of {} with a bar.\n"
    )
    print(few.format(*lowest[0][::-1], *lowest[1][::-1]))
    print("| bar fraction from | rms error vs experts | lowest octile | highest octile |\n|---|---|---|---|")
    print(f"| experts | | {true[0]:.2f} | {true[-1]:.2f} |")
    for name, found in sets.items():
        print(f"| {name} | {np.sqrt(np.nanmean((found - true) ** 2)):.3f} | {found[0]:.2f} | {found[-1]:.2f} |")
    print(f"\n## other_labels_with_gold\n| {N_GOLD} gold labels, and | {HEAD}")
    both = replace(case, votes=np.column_stack([case.votes, votes.log_odds]))
    instead = replace(case, votes=votes.log_odds, paths=votes.paths, labels=hard.argmax(axis=1))
    with ProcessPoolExecutor() as pool:
        for name, one in {"votes": case, "votes and Willett's fractions": both, "Willett's fractions": instead}.items():
            print(line(name, pool.map(partial(draw, one, N_GOLD), range(draws), chunksize=10)), flush=True)


if __name__ == "__main__":
    main()
