"""Values from the paper: Medina-Rosales, Cabrera-Vives & Miller, MNRAS, arXiv:2308.11007."""

from typing import NamedTuple

from truemorph.catalogs.sampling import PAPER_SAMPLE, PAPER_SPLIT

GZ2B, GZ2D, RESNET_GZ2B, RESNET_GZ2D, DCV14, DDB = "gz2b", "gz2d", "resnet-gz2b", "resnet-gz2d", "dcv14", "ddb"


# Preset of `truemorph prepare` for the paper's sample, and of its networks.
PAPER = "paper"


class Row(NamedTuple):
    """A row of the paper's Table 1; accuracy and precision are vs the labels that it was trained on."""

    letter: str
    labels: str
    cv18: float
    stderr: float
    accuracy: float | None = None
    precision: float | None = None


TABLE_1 = {
    GZ2B: Row("a", "GZ2B", 0.3696, 0.0095),
    GZ2D: Row("b", "GZ2D", 0.3106, 0.0108),
    RESNET_GZ2B: Row("c", "network, GZ2B", 0.3781, 0.0091, 0.921, 0.921),
    RESNET_GZ2D: Row("d", "network, GZ2D", 0.3258, 0.0107, 0.896, 0.866),
    DCV14: Row("e", "DCV14", 0.2994, 0.0102),
    DDB: Row("f", "DDB", 0.2866, 0.0112),
}
# Section 3.1.
THETA = {DCV14: 9.18, DDB: 11.25}
# Section 2.5: smooth and disk; training, validation, test.
SAMPLE, SPLIT = PAPER_SAMPLE, PAPER_SPLIT
# CV18 and CV14 in published code of the same lineage: depth of the tree and bins of α; bins of CV14.
TREE, BINS_CV14 = (3, 8), 10
# Section 3.2: fraction of GZ2B's smooth galaxies with the light profile of a disk.
DISK_LIKE_AMONG_SMOOTH = 0.40
# Section 3.3: changed test galaxies with HST images; of these, with spiral arms and lenticular.
HST_PAIRS = (11, 8, 3)
# Curves of Figure 3, inferred from the paper's text.
FIGURE_3 = (GZ2B, GZ2D, DDB)
