"""Explanations on disk and back, without pickles: what models look at takes hours at full size, drawing it a second."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from truemorph.io import written_whole

if TYPE_CHECKING:
    from collections.abc import Mapping

    from truemorph.explain.study import Explanation

_ABOUT = ("model", "model_hash", "backbone", "layer", "cells", "image_size", "angles")


def write_explanations(explanations: Mapping[str, Explanation], path: Path) -> None:
    """Write them, whole or not at all."""
    arrays: dict[str, np.ndarray] = {}
    about: list[dict[str, Any]] = []
    for number, one in enumerate(explanations.values()):
        about.append({name: getattr(one, name) for name in _ABOUT} | {"problems": len(one.problems), "classes": []})
        for k, some in enumerate(one.classes):
            start = f"{number}.{k}."
            about[-1]["classes"].append(
                {"name": some.name, "relations": list(some.relations), "units": list(some.rings)}
            )
            arrays |= {
                f"{start}ids": some.ids.cast(pl.String).to_numpy().astype(str),
                f"{start}blank": some.blank,
                **{f"{start}{name}": getattr(some.mean, name) for name in ("mean", "stderr", "count")},
            }
            for place, rings in enumerate(some.rings.values()):
                arrays |= {f"{start}edges{place}": rings.edges, f"{start}profiles{place}": rings.profiles}
    with written_whole(path) as partial:
        np.savez_compressed(partial, allow_pickle=False, about=np.array(json.dumps(about)), **arrays)


def read_explanations(path: Path) -> dict[str, Explanation]:
    """Read them back; galaxies that were left out are not kept."""
    from truemorph.explain.profiles import MeanMap, Profiles
    from truemorph.explain.study import Explained, Explanation

    out = {}
    with np.load(path, allow_pickle=False) as kept:
        for number, one in enumerate(json.loads(str(kept["about"]))):
            classes = []
            for k, some in enumerate(one["classes"]):
                start = f"{number}.{k}."
                mean = MeanMap(*(kept[f"{start}{name}"] for name in ("mean", "stderr", "count")))
                rings = {
                    unit: Profiles(kept[f"{start}edges{place}"], unit, kept[f"{start}profiles{place}"])
                    for place, unit in enumerate(some["units"])
                }
                ids = pl.Series("object_id", kept[f"{start}ids"].tolist(), dtype=pl.String)
                classes.append(
                    Explained(some["name"], ids, some["relations"], kept[f"{start}blank"], mean, None, rings)
                )
            about = {name: one[name] for name in _ABOUT}
            out[one["model"]] = Explanation(**about, classes=tuple(classes))
    return out
