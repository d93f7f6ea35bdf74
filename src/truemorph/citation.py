"""What to cite, as BibTeX: one source for `truemorph cite`, the report and the documentation."""

from truemorph._version import __version__

BIBTEX = """\
@article{medinarosales_debiasing,
  author        = {Medina-Rosales, Esteban and Cabrera-Vives, Guillermo and Miller, Christopher J.},
  title         = {{Mitigating Bias in Deep Learning: Training Unbiased Models on Biased Data for the Morphological \
Classification of Galaxies}},
  journal       = {Monthly Notices of the Royal Astronomical Society},
  year          = {2023},
  eprint        = {2308.11007},
  archivePrefix = {arXiv},
  primaryClass  = {astro-ph.GA},
  doi           = {10.48550/arXiv.2308.11007}
}
@article{cabreravives2018,
  author        = {Cabrera-Vives, Guillermo and Miller, Christopher J. and Schneider, Jeff},
  title         = {{Systematic Labeling Bias in Galaxy Morphologies}},
  journal       = {The Astronomical Journal},
  year          = {2018},
  volume        = {156},
  number        = {6},
  pages         = {284},
  doi           = {10.3847/1538-3881/aae9f4}
}
@software{truemorph,
  author        = {{The truemorph developers}},
  title         = {{truemorph: unbiased galaxy morphologies from biased labels}},
  version       = {VERSION}
}""".replace("VERSION", __version__)
