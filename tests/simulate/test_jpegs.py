"""Pictures as files."""

import numpy as np
import pytest
import simplejpeg

from truemorph.errors import InputError
from truemorph.images.decode import load_image
from truemorph.simulate.galaxies import simulate_galaxies
from truemorph.simulate.jpegs import write_jpegs
from truemorph.simulate.observe import FIELD_R90, render


def test_files_hold_the_pictures(tmp_path):
    galaxies = simulate_galaxies(3, seed=2)
    paths = write_jpegs(galaxies, tmp_path / "images", seed=5)
    assert [path.stem for path in paths] == [str(one) for one in galaxies["object_id"]]
    for path, (_, image) in zip(paths, render(galaxies, 424, 5, field=FIELD_R90), strict=True):
        header = simplejpeg.decode_jpeg_header(path.read_bytes())
        assert header[:2] == (424, 424)
        assert header[3] == "420"  # as Galaxy Zoo 2's
        back = simplejpeg.decode_jpeg(path.read_bytes(), colorspace="RGB").astype(float)
        assert np.abs(back - image).mean() < 4
        assert load_image(path, 64).shape == (64, 64, 3)
    first = paths[0].read_bytes()
    write_jpegs(galaxies[:1], tmp_path / "images", seed=5)
    assert paths[0].read_bytes() == first
    with pytest.raises(InputError, match="quality"):
        write_jpegs(galaxies, tmp_path, quality=0)
