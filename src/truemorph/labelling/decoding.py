"""Images of batches, decoded in threads while the caller works on the batch before."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from truemorph.config import TrainingConfig
from truemorph.errors import InputError
from truemorph.images.decode import fits_reading, load_image
from truemorph.labelling.parts import Image, Rows

NO_IMAGE = "no image"


def decoded(
    config: TrainingConfig, batches: Iterator[Rows], threads: int | None = None
) -> Iterator[tuple[Rows, list[np.ndarray | str]]]:
    """Decode images as a model takes them.

    Parameters
    ----------
    config : TrainingConfig
        Image size, crop, and how FITS images are read.
    batches : iterator of Rows
    threads : int, optional
        Default one a core, two at least.

    Yields
    ------
    rows : Rows
    images : list
        A uint8 array (S, S, 3) for each good image, the reason as a string for each other one.
    """
    size, crop, reading = config.image_size, config.crop, fits_reading(config)

    def one(image: Image) -> np.ndarray | str:
        if image is None:
            return NO_IMAGE
        try:
            return load_image(image, size, crop, reading)
        except InputError as problem:
            return str(problem)

    with ThreadPoolExecutor(threads or max(2, os.cpu_count() or 2), "decode") as pool:
        ahead: tuple[Rows, list[Future[Any]]] | None = None
        for rows in batches:
            now, ahead = ahead, (rows, [pool.submit(one, image) for image in rows.images])
            if now is not None:
                yield now[0], [future.result() for future in now[1]]
        if ahead is not None:
            yield ahead[0], [future.result() for future in ahead[1]]
