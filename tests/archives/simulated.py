"""A simulated sky in the format of the archives: files and tables for `truemorph fetch`, and the truth.

Column names, formats and file names are those of the real archives, and so are their faults: galaxies that are in only
some archives, galaxies without redshift, values that were not measured, the same galaxy in several fields, images
without a table row and rows without an image, objects of the Stripe 82 coadd with ids that are not in DR7.
"""

import gzip
import zipfile

import numpy as np
import polars as pl
import simplejpeg
from astropy import units as u
from astropy.cosmology import FlatLambdaCDM

from truemorph import RayleighTransition
from truemorph.benchmark.methods import matched_fractions
from truemorph.simulate.annotate import vote_fractions
from truemorph.simulate.pictures import FIELD_R90, GZ2_SIZE, render
from truemorph.simulate.population import at_resolution, simulate_galaxies

UNMEASURED, MISSING = -9999.0, -99.99  # in SDSS and in Simard et al.
_FROM_SPACE = 100.0  # α of HST's images
_SHARP = 0.85  # arcsec; seeing of fields that have a star but not the galaxy next to it
_ANSWERS = ("a01_smooth", "a02_features_or_disk", "a03_star_or_artifact")
_COSMOLOGY = FlatLambdaCDM(H0=70, Om0=0.3)  # from Simard et al., section 2
_WHEN = (2019, 12, 6, 0, 0, 0)


def write_archive(folder, n, seed, *, size=GZ2_SIZE, hst=0.2):
    """Write the archives of `n` galaxies; images are `size` pixels wide; HST observed a fraction `hst`.

    `files` is downloaded, `skyserver` and `vizier` have tables for queries, `hubble` images and their coverage;
    `truth.parquet` is not on the server and has a row per galaxy. Labels are biased with α by eq. 5, θ = 11.25.
    """
    rng = np.random.default_rng([seed, 11])
    for name in ("files", "skyserver", "vizier", "hubble"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    population = simulate_galaxies(n, seed).with_row_index("galaxy")
    lacking = {"in_sdss": 0.02, "has_redshift": 0.04, "measured": 0.02, "in_simard": 0.06}
    population = population.with_columns(pl.Series(name, ~_some(rng, n, share)) for name, share in lacking.items())
    population = population.with_columns(pl.col("has_redshift") & pl.col("in_sdss"))
    population = _sdss(folder / "skyserver", population, rng)
    _simard(folder / "vizier", population, rng)
    _votes(folder / "files", population, rng, seed)
    _images(folder / "files", population, rng, size, seed)
    status = _hubble(folder / "hubble", population, rng.random(n) < hst, min(256, 2 * size), seed)
    population.with_columns(hst=pl.Series(status)).write_parquet(folder / "truth.parquet")
    return folder


def _some(rng, n, share):
    """Choose a fraction of n, at least one, shape (n,)."""
    return np.isin(np.arange(n), rng.permutation(n)[: max(1, round(share * n))])


def _object_id(run, obj):
    """DR7 objID for camcol 1, field 20, rerun 40; with obj 0 it is the fieldID."""
    # Layout from the SDSS documentation of fObjidFromSDSS.
    return (1 << 59) + (40 << 48) + run.cast(pl.Int64) * (1 << 32) + (1 << 29) + (20 << 16) + obj


def _colours(population):
    """Yield bands and magnitudes minus that in r: redder for bulges than for young disks."""
    bulge, young = population["bulge_fraction"], population["young_fraction"]
    disk = (1 - young) * population["g_r_disk"] + young * population["g_r_young"]
    g_r = (bulge * population["g_r_bulge"] + (1 - bulge) * disk).to_numpy()
    for band, slope in zip("ugriz", (3.4, 1, 0, -0.5, -0.8), strict=True):
        yield band, slope * g_r


def _sdss(folder, population, rng):
    """Write PhotoObjAll, SpecObj, Field and Neighbors; return galaxies with objid, ra, dec, and psf_best.

    An object has a row for each field that contains it, measured with that field's seeing: one is primary (mode 1), the
    others are secondary (mode 2). Run 1000 + k is the field of the galaxies, 3000 + k overlaps some of them, and
    7000 + k has a star near a galaxy: close but primary, or secondary but too far.
    """
    n, fields = population.height, population["field"].max() + 1
    centre = np.column_stack([rng.uniform(120, 240, fields), np.rad2deg(np.arcsin(rng.uniform(0, 0.86, fields)))])
    place = centre[population["field"]] + rng.uniform(-0.07, 0.07, (n, 2))
    extinction = np.minimum(rng.exponential(0.08, n), 0.6)
    r = population["magnitude"].to_numpy() + extinction
    values = {
        "petroRad_r": population["radius"].to_numpy(),
        "petroRadErr_r": population["radius"].to_numpy() * 0.02 * rng.lognormal(0, 0.4, n),
        "petroR50_r": population["r50"].to_numpy(),
        "petroR90_r": population["r90"].to_numpy(),
        **{
            f"petroMag_{band}": r + 0.874 * extinction * (band == "u") + colour for band, colour in _colours(population)
        },
    }
    values = {name: np.where(population["measured"], value, UNMEASURED) for name, value in values.items()}
    own = population.select("galaxy", "field", psf="psf_fwhm", run=1000 + pl.col("field"), mode=1).with_columns(
        ra=pl.Series(place[:, 0]).round(8), dec=pl.Series(place[:, 1]).round(8), extinction_r=pl.Series(extinction)
    )
    own = own.with_columns(pl.Series(name, value) for name, value in values.items())
    seeing = pl.Series(np.clip(1.3 * np.exp(0.14 * rng.normal(size=fields)), 0.9, 2.4))
    over = own.filter(pl.Series((rng.random(fields) < 0.5)[population["field"]]))
    over = over.with_columns(
        psf=seeing.gather(over["field"]), run=3000 + pl.col("field"), mode=2, dec=pl.col("dec") + 3e-5
    )
    far = pl.col("galaxy") % 10 == 0
    stars = own.filter(pl.col("galaxy") % 5 == 0).with_columns(
        psf=_SHARP,
        run=7000 + pl.col("galaxy").cast(pl.Int64),
        mode=pl.when(far).then(2).otherwise(1),
        dec=pl.col("dec") + pl.when(far).then(15).otherwise(2) / 3600,
    )
    found = pl.concat([own, over, stars], how="vertical_relaxed").with_columns(
        pl.col("mode", "run").cast(pl.Int64),
        objID=_object_id(pl.col("run"), pl.col("galaxy").cast(pl.Int64) + 10),
        fieldID=_object_id(pl.col("run"), 0),
        rerun=pl.lit(40),
        camcol=pl.lit(1),
    )
    population = population.with_columns(objid=found["objID"][:n], ra=own["ra"], dec=own["dec"]).join(
        pl.concat([own, over], how="vertical_relaxed").group_by("galaxy").agg(psf_best=pl.col("psf").min()),
        on="galaxy",
        maintain_order="left",
    )
    there = found.join(population.filter("in_sdss"), on="galaxy", how="semi")
    there.select(pl.exclude("galaxy", "mode", "psf", "field"), field=pl.lit(20)).write_parquet(
        folder / "PhotoObjAll.parquet"
    )
    found.unique("fieldID").select("fieldID", psfWidth_r="psf").write_parquet(folder / "Field.parquet")
    pairs = there[:, ["galaxy", "objID", "dec"]].join(there.select("galaxy", "objID", "dec", "mode"), on="galaxy")
    pairs.filter(pl.col("objID") != pl.col("objID_right")).select(
        "objID",
        NeighborObjID="objID_right",
        neighborMode="mode",
        distance=(pl.col("dec") - pl.col("dec_right")).abs() * 60,  # arcmin
    ).write_parquet(folder / "Neighbors.parquet")
    spectra = population.filter("has_redshift").select(bestObjID="objid", z="redshift", zConf=0.97)
    spectra.write_parquet(folder / "SpecObj.parquet")
    return population


def _simard(folder, population, rng):
    """Write table 3 of Simard et al. (2011) with VizieR's column names.

    Lengths are an angle times Scale. Without redshift, Scale is -99.99 and circular radii are negative.
    """
    table = population.filter("in_simard").sort("objid")
    n, has_redshift = table.height, table["has_redshift"].to_numpy()
    redshift, ratio = table["redshift"].to_numpy(), table["axis_ratio"].to_numpy()
    scale = np.round(_COSMOLOGY.kpc_proper_per_arcmin(redshift).to_value(u.kpc / u.arcsec), 3)
    scale = np.where(has_redshift, scale, MISSING)
    circular = table["r50"].to_numpy() * np.exp(0.05 * rng.normal(size=n))  # arcsec
    failed = _some(rng, n, 0.01)
    bulge, index = table["bulge_fraction"].to_numpy(), table["sersic_index"].to_numpy()
    # A single Sérsic fit to bulge and exponential disk: closer to the index of the disk.
    single = np.clip((1 + (index - 1) * bulge**1.3) * np.exp(0.12 * rng.normal(size=n)), 0.5, 8)
    columns = {
        "recno": np.arange(1, n + 1),
        "objID": table["objid"].cast(pl.String),
        "z": np.round(np.where(has_redshift, redshift, MISSING), 6),
        "Scale": scale,
    }
    radii = {"Rchl,r": circular * scale}
    sersic = {"e": 1 - ratio, "e_e": 0.02, "ng": single, "e_ng": 0.03 * single}
    sersic = {name: np.where(failed, MISSING, values) for name, values in sersic.items()}
    columns |= {name: np.round(values, 2) for name, values in (radii | sersic).items()}
    pl.DataFrame(columns).write_parquet(folder / "table3.parquet")


def _votes(folder, population, rng, seed):
    """Write Galaxy Zoo 2's vote tables, first question only.

    Debiased fractions are those of the votes, matched to the nearest galaxies of similar luminosity and size, as Hart
    et al. (2016) match them.
    """
    n = population.height
    artefact = np.where(rng.random(n) < 0.015, rng.uniform(0.5, 0.9, n), rng.beta(0.6, 30, n))
    said = vote_fractions(
        population["truth"].to_numpy(), population["alpha"].to_numpy(), RayleighTransition(11.25), seed
    )
    shares = np.column_stack([*(answer * (1 - artefact) for answer in said), artefact])
    total = rng.integers(34, 57, n)
    counts = rng.multinomial(total, shares / shares.sum(axis=1, keepdims=True))
    galaxies = counts[:, :2].sum(axis=1) / total  # the others said star or artefact
    disk = counts[:, 1] / np.maximum(counts[:, :2].sum(axis=1), 1)
    near = 1 / population["redshift"].to_numpy()
    alike = np.column_stack(
        [population["M_r"], np.log(population["r50"] * population["radius_kpc"] / population["radius"])]
    )
    disk = matched_fractions(disk, near, alike, seed=seed)
    debiased = np.column_stack([galaxies * (1 - disk), galaxies * disk, counts[:, 2] / total])
    columns = {"dr7objid": population["objid"], "ra": population["ra"].round(5), "dec": population["dec"].round(5)}
    columns |= {"sample": np.full(n, "original"), "total_classifications": total}
    for k, answer in enumerate(_ANSWERS):
        name = f"t01_smooth_or_features_{answer}"
        columns |= {
            f"{name}_count": counts[:, k],
            f"{name}_weighted_fraction": np.round(counts[:, k] / total, 3),
            f"{name}_debiased": np.round(debiased[:, k], 3),
        }
    votes = pl.DataFrame(columns)
    # Galaxy Zoo's own table has all redshifts, slightly other ones than SDSS.
    z_gz = pl.DataFrame({"OBJID": population["objid"], "REDSHIFT": (population["redshift"] + 1e-5).round(6)})
    hart = votes.filter(pl.Series(~_some(rng, n, 0.015)))
    files = {"gz2sample": z_gz, "zoo2MainSpecz": votes, "gz2_hart16": hart}
    for name, frame in files.items():
        (folder / f"{name}.csv.gz").write_bytes(gzip.compress(frame.write_csv().encode(), mtime=0))


def _images(folder, population, rng, size, seed):
    """Write the mapping of images to galaxies, and the zip of the original sample.

    Some galaxies are in two samples; in the Stripe 82 coadd they have another id.
    """
    n = population.height
    again = population["objid"].filter(pl.Series(_some(rng, n, 0.04)))
    samples = np.where(rng.random(n) < 0.1, "extra", "original")
    mapping = pl.DataFrame(
        {
            "objid": pl.concat([population["objid"], again - again[0] + 8647474690000000000]),
            "sample": np.concatenate([samples, np.full(again.len(), "stripe82_coadd_1")]),
            "asset_id": 58 + 2 * rng.permutation(n + again.len()),
        }
    ).sort("asset_id")
    mapping.write_csv(folder / "gz2_filename_mapping.csv")
    missing = population["objid"].filter(pl.Series(_some(rng, n, 0.02)))
    imaged = mapping.filter(pl.col("sample") == "original", ~pl.col("objid").is_in(missing.implode()))
    drawn = population.join(imaged, on="objid", maintain_order="left")
    with zipfile.ZipFile(folder / "images_gz2.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo("images/", _WHEN), b"")
        for row, image in render(drawn, size, seed, field=FIELD_R90):
            data = simplejpeg.encode_jpeg(image, quality=75, colorspace="RGB", colorsubsampling="420")
            archive.writestr(zipfile.ZipInfo(f"images/{drawn['asset_id'][row]}.jpg", _WHEN), data)
        # A file added by macOS, and an image that is not in the mapping.
        archive.writestr(zipfile.ZipInfo("__MACOSX/images/._60.jpg", _WHEN), b"\0\5\26\7")
        archive.writestr(zipfile.ZipInfo("images/1.jpg", _WHEN), data)


def _hubble(folder, population, seen, size, seed):
    """Write HST images, `size` pixels wide; return "image", "blank" (covered, but empty) or "outside"."""
    status = np.where(seen, np.where(np.cumsum(seen) % 8 == 3, "blank", "image"), "outside")
    drawn = population.filter(pl.Series(status == "image"))
    drawn = at_resolution(drawn, np.full(drawn.height, _FROM_SPACE))
    for row, image in render(drawn, size, seed, field=FIELD_R90):
        data = simplejpeg.encode_jpeg(image, quality=92, colorspace="RGB", colorsubsampling="444")
        (folder / f"{drawn['objid'][row]}.jpg").write_bytes(data)
    covered = population.select(
        "objid", "ra", "dec", side=pl.col("r90") * FIELD_R90, image=pl.Series(status == "image")
    )
    covered.filter(pl.Series(seen)).write_parquet(folder / "coverage.parquet")
    return status
