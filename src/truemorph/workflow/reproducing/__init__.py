"""The paper's whole experiment as a pipeline of cached stages, from a folder of data to Table 1 and Figures 3 to 7.

Medina-Rosales, Cabrera-Vives & Miller, MNRAS, arXiv:2308.11007.
"""

from truemorph.workflow.reproducing.options import ReproduceOptions
from truemorph.workflow.reproducing.scale import Scale
from truemorph.workflow.reproducing.whole import reproduce

__all__ = ["ReproduceOptions", "Scale", "reproduce"]
