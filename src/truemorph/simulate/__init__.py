"""Simulate galaxies with known classes: populations, images, annotators, and the same galaxy at other resolutions."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "annotate": ["image_votes", "observed_labels", "vote_fractions"],
        "catalogues": ["simulate_catalogue"],
        "pictures": ["CENTRAL_R90", "FIELD_R90", "render", "write_jpegs"],
        "population": ["at_resolution", "simulate_galaxies"],
        "survey": ["simulate_survey"],
    },
)
