"""The report on questions: it quotes the fractions that it is given, to the digit."""

import numpy as np
import polars as pl
import pytest

from truemorph.bias.fractions import debiased_fractions
from truemorph.bias.population import PopulationFractions
from truemorph.commands.prepare import prepare_catalogue
from truemorph.commands.report import write_report
from truemorph.commands.transition import estimate_transition
from truemorph.errors import InputError
from truemorph.questions import read_tree
from truemorph.report.options import ReportOptions


@pytest.fixture(scope="module")
def galaxies(tmp_path_factory):
    """A catalogue with the votes for bars and arms, and files of the fractions of both."""
    folder, rng, n = tmp_path_factory.mktemp("questions"), np.random.default_rng(0), 900
    kind = rng.choice(3, n, p=[0.4, 0.4, 0.2])
    alpha = rng.lognormal(2.6, 0.4, n)
    disk = rng.binomial(30, np.where(kind > 0, 0.3 + 0.5 * (alpha > 13), 0.2))
    bar = rng.binomial(disk, np.where(kind == 2, 0.6, 0.1))
    arms = rng.binomial(disk, 0.5)
    stems = {"01_smooth_or_features_a01_smooth": 30 - disk, "01_smooth_or_features_a02_features_or_disk": disk}
    stems |= {"01_smooth_or_features_a03_star_or_artifact": 0 * disk, "02_edgeon_a04_yes": 0 * disk}
    stems |= {"02_edgeon_a05_no": disk, "03_bar_a06_bar": bar, "03_bar_a07_no_bar": disk - bar}
    stems |= {"04_spiral_a08_spiral": arms, "04_spiral_a09_no_spiral": disk - arms}
    table = pl.DataFrame({f"t{stem}_count": votes for stem, votes in stems.items()} | {"objid": range(n)})
    smooth = "t01_smooth_or_features_a01_smooth_weighted_fraction"
    known = pl.Series(np.where(rng.random(n) < 0.3, kind, -1)).replace(-1, None)
    table = table.with_columns((1 - pl.Series(disk) / 30).alias(smooth), alpha=alpha, kind=known)
    prepare_catalogue(table, question="bar,spiral", preset="gz2", alpha="alpha", out=folder / "cat.parquet")
    rules = {"bar": "applies: kind >= 1; bar: kind = 2", "spiral": "applies: kind >= 1; spiral arms: kind = 1"}
    for question, rule in rules.items():
        estimate_transition(
            folder / "cat.parquet", question=question, gold=rule, fraction_bins=4, out=folder / f"{question}.json"
        )
    return folder


def test_the_page_quotes_the_fractions_that_it_is_given(galaxies):
    given = PopulationFractions.read(galaxies / "bar.json")
    found = write_report(galaxies / "bar.json", out=galaxies / "page.html")
    page = (galaxies / "page.html").read_text(encoding="utf-8")
    one = given["bar fraction"]
    for b in range(4):
        assert f"{one.fraction[b]:.3f}" in page
        assert f"{one.low[b]:.3f} to {one.high[b]:.3f}" in page
        assert f"{given.gold_counts[b]}" in page
    assert f"{100 * one.total[1]:.0f} %" in found.content["answer"]
    assert found.content["questions"][0] == given.to_dict()
    assert (galaxies / "page_files" / "report.json").is_file()
    assert {path.suffix for path in (galaxies / "page_files" / "figures").iterdir()} == {".pdf", ".png", ".ecsv"}


def test_several_questions_begin_with_one_table_and_a_catalogue_shows_who_was_asked(galaxies):
    names = ("bar", "spiral")
    options = ReportOptions(catalogue=galaxies / "cat.parquet")
    found = write_report(*(galaxies / f"{one}.json" for one in names), out=galaxies / "two.html", options=options)
    assert [one["question"] for one in found.content["questions"]] == list(names)
    assert len(found.to_table()) == 2
    page = (galaxies / "two.html").read_text(encoding="utf-8")
    frame = pl.read_parquet(galaxies / "cat.parquet").sort("alpha")
    lowest = frame.head(round(frame.height / 5))["label_bar"].is_in(["bar", "no bar"]).mean()
    assert f"{lowest:.3f}" in page
    few = frame.head(round(frame.height / 5)).with_columns(n=pl.col("votes_bar_bar") + pl.col("votes_bar_no_bar"))
    asked = few.filter(pl.col("n") >= 10)
    assert f"{asked.height / few.height:.3f}" in page
    assert f"{(asked['votes_bar_bar'] > asked['votes_bar_no_bar']).mean():.3f}" in page


def test_labels_of_others_are_shown_in_the_bins_of_the_estimate(galaxies):
    frame = pl.read_parquet(galaxies / "cat.parquet")
    ids, alpha, disk = (frame[one].to_numpy() for one in ("object_id", "alpha", "votes_smooth_disk"))
    rng = np.random.default_rng(1)
    p = {"bar": rng.random(ids.size), "disk": np.clip(disk / 30, 0.02, 0.98)}
    parts = {"smooth-or-featured-gz2_smooth": 1 - p["disk"], "smooth-or-featured-gz2_featured-or-disk": p["disk"]}
    parts |= {"smooth-or-featured-gz2_artifact": 0 * alpha, "disk-edge-on-gz2_yes": 0 * alpha}
    parts |= {"disk-edge-on-gz2_no": 1 + 0 * alpha, "bar-gz2_yes": p["bar"], "bar-gz2_no": 1 - p["bar"]}
    table = pl.DataFrame({f"{name}_pred": values for name, values in parts.items()} | {"id_str": ids})
    table.write_csv(galaxies / "zoobot.csv")
    options = ReportOptions(catalogue=galaxies / "cat.parquet", labels=[galaxies / "zoobot.csv"])
    found = write_report(galaxies / "bar.json", out=galaxies / "others.html", options=options)
    page = (galaxies / "others.html").read_text(encoding="utf-8")
    given = PopulationFractions.read(galaxies / "bar.json")
    b = np.digitize(alpha, given.edges[1:-1])
    soft = [np.sum((p["disk"] * p["bar"])[b == k]) / np.sum(p["disk"][b == k]) for k in range(4)]
    hard = [np.mean(p["bar"][(b == k) & (p["disk"] > 0.5)] > 0.5) for k in range(4)]
    shown = found.content["other_labels"]["bar"]["bar fraction"]
    np.testing.assert_allclose(shown["zoobot, fractions"], soft, rtol=1e-6)
    np.testing.assert_allclose(shown["zoobot"], hard, atol=0.02)  # ties at p(disk) = 1/2
    one = given["bar fraction"]
    assert all(f"{value:.3f} ({value - one.fraction[k]:+.3f})" in page for k, value in enumerate(soft))
    with pytest.raises(InputError):
        write_report(galaxies / "bar.json", out=galaxies / "no.html", options=ReportOptions(labels=options.labels))
    by_two = estimate_transition(
        galaxies / "cat.parquet", question="bar", gold="applies: kind >= 1; bar: kind = 2", by="votes_smooth_disk,alpha"
    )
    again = write_report(by_two, out=galaxies / "two_columns.html", options=options)
    assert len(again.content["other_labels"]["bar"]["bar fraction"]["zoobot"]) == by_two.counts.size


def test_fractions_are_read_as_they_were_written(galaxies):
    again = PopulationFractions.read(galaxies / "bar.json")
    assert again.to_dict() == PopulationFractions.from_dict(again.to_dict(), again.samples).to_dict()
    assert again.quantities == read_tree("gz2").quantities("bar")[1]
    assert again.draws(5).shape == (5, 4, 3)


def test_questions_and_runs_are_not_mixed_and_other_files_are_refused(galaxies, tmp_path):
    with pytest.raises(InputError):
        write_report(galaxies / "bar.json", tmp_path / "model", out=tmp_path / "page.html")
    with pytest.raises(InputError):
        write_report(galaxies / "bar.json", out=tmp_path / "page.pdf")
    labels = np.repeat([0, 1], 60)
    plain = debiased_fractions(labels, np.arange(1.0, 121), gold=labels, bins=1)
    with pytest.raises(InputError):
        write_report(plain, out=tmp_path / "page.html")
    (tmp_path / "other.json").write_text('{"quantities": {}}')
    with pytest.raises(InputError):
        write_report(tmp_path / "other.json", out=tmp_path / "page.html")
