"""Simulate galaxies with known classes: populations, images, annotators, and the same galaxy at other resolutions.

>>> from truemorph.simulate import at_resolution, render, simulate_galaxies
>>> galaxies = simulate_galaxies(4, seed=1)
>>> pictures = [image for _, image in render(galaxies, size=32)]
>>> worse = [image for _, image in render(at_resolution(galaxies, galaxies["alpha"].to_numpy() / 2), size=32)]
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "annotate": ["image_votes", "observed_labels", "vote_fraction_evidence", "vote_fractions"],
        "catalogues": ["simulate_catalogue"],
        "pictures": ["CENTRAL_R90", "FIELD_R90", "render", "write_jpegs"],
        "population": ["at_resolution", "simulate_galaxies"],
    },
)
