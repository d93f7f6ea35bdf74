"""Gold labels come into a catalogue from a plan, from a table and from Zooniverse, and go to Zooniverse."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

import truemorph as tm
from conftest import codes, done, refused, run
from gold.conftest import WORDS, give
from truemorph import export_gold, read_table, write_table
from truemorph.errors import InputError
from truemorph.gold.answers import TWINS
from truemorph.gold.session import open_session
from truemorph.io import file_hash

ANSWERS = {0: "Smooth", 1: "Features or disk"}


@pytest.fixture(scope="module")
def labelled_once(planned, ids, truth, tmp_path_factory):
    folder = shutil.copytree(planned, tmp_path_factory.mktemp("labelled") / "gold")
    give(folder, "Ann", {one: WORDS[truth[one]] for one in ids})
    return folder


@pytest.fixture
def labelled(labelled_once, tmp_path):
    """A copy of the plan's folder in which Ann has given every galaxy its true class."""
    return shutil.copytree(labelled_once, tmp_path / "gold")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "with-gold.parquet"


def with_text_ids(table):
    return table.frame.with_columns(pl.col("object_id").cast(pl.String))


def test_a_plans_answers_become_gold_labels_that_the_bias_curve_uses(capsys, labelled, ids, truth, out):
    give(labelled, "Ann", {ids[0]: "unclear", ids[1]: "artefact"})
    said = done(capsys, "gold", "import", labelled, "--out", out, "--gold-source", "better-images")
    assert f"Next: truemorph transition {out} --gold gold" in said
    table = read_table(out)
    frame = with_text_ids(table)
    known = frame.drop_nulls("gold")
    assert sorted(known["object_id"]) == sorted(ids[2:])
    assert known["gold"].to_list() == [truth[one] for one in known["object_id"]]
    assert frame.filter(pl.col("gold_uncertain") == 1)["object_id"].to_list() == [ids[0]]
    assert set(known["gold_people"]) == {"Ann"}
    assert known["gold_time"].str.starts_with("20").all()
    planned = pl.read_parquet(labelled / "plan.parquet")["probability"]
    assert frame["gold_probability"].to_numpy() == pytest.approx(planned.to_numpy())
    assert table.metadata["gold_source"] == "better-images"
    study = tm.estimate_transition(out, gold="gold", compare=False)
    assert {"selection-known", "gold-uncertain"} <= set(codes(study))
    assert "gold-not-random" not in codes(study)
    assert study.to_dict()["method"] == "gold"


def test_gold_labels_of_a_pilot_stay_when_the_next_plan_is_imported(labelled, ids, truth, catalogue, tmp_path):
    """With what is known of the images that they come from, and of what their experts miss."""
    give(labelled, "Ann", {ids[0]: "unclear"})
    give(labelled, "Ann", dict.fromkeys(open_session(labelled, twins=20).twins, "smooth"), "twin")
    pilot = tm.import_gold(labelled, out=tmp_path / "pilot.parquet", catalogue=catalogue, gold_source="same-images")
    plan = tm.plan_gold(pilot.out, budget=40, out=tmp_path / "more")
    more = plan.selected["object_id"].to_list()[:20]
    give(plan.out, "Ann", {one: WORDS[truth[one]] for one in more}, better=True)
    assert not set(ids) & set(more)
    both = tm.import_gold(plan.out, out=tmp_path / "both.parquet", gold_source="better-images").catalogue
    before, after = pilot.catalogue.metadata, both.metadata
    assert before["gold_experts"]["gold"]["disk"]["missed"] == 1
    assert after["gold_experts"] == before["gold_experts"]
    assert after["gold_from_same_images"] == before["gold_from_same_images"] == len(ids) - 1
    frame = with_text_ids(both)
    assert set(frame.drop_nulls("gold")["object_id"]) == {*ids[1:], *more}
    assert frame.filter(pl.col("gold_uncertain") == 1)["object_id"].to_list() == ids[:1]
    before, planned = (one.to_numpy() for one in (pilot.catalogue.frame["gold_probability"], plan.frame["probability"]))
    fraction = len(more) / plan.selected.height
    assert frame["gold_probability"].to_numpy() == pytest.approx(before + (planned - before) * fraction)


def test_all_columns_of_the_catalogue_stay(catalogue, truth, out, tmp_path):
    table = read_table(catalogue)
    own = table.frame.drop("gold").with_columns(_id=pl.col("object_id"))
    write_table(replace(table, frame=own), tmp_path / "own.parquet")
    pl.DataFrame({"object_id": list(truth)[:40], "class": ["disk"] * 40}).write_csv(tmp_path / "gold.csv")
    tm.import_gold(tmp_path / "gold.csv", catalogue=tmp_path / "own.parquet", out=out)
    assert pl.read_parquet(out).select(own.columns).equals(own)
    with pytest.raises(InputError, match="metadata"):
        tm.import_gold(tmp_path / "gold.csv", catalogue=tmp_path / "own.parquet", out=out.with_suffix(".csv"))


def test_ids_as_whole_floats_are_those_of_the_catalogue(out, tmp_path):
    catalogue = tm.simulate_catalogue(100).drop("truth")
    catalogue.write_parquet(tmp_path / "cat.parquet")
    pl.DataFrame({"object_id": np.arange(60.0), "class": ["disk"] * 60}).write_parquet(tmp_path / "gold.parquet")
    found = tm.import_gold(tmp_path / "gold.parquet", catalogue=tmp_path / "cat.parquet", out=out)
    assert found.classes["disk"] == 60


def test_people_who_do_not_agree_are_counted(labelled, ids, truth, out):
    swapped = {one: WORDS[1 - truth[one]] for one in ids[:6]}
    give(labelled, "Ben", {one: WORDS[truth[one]] for one in ids[:30]} | swapped)
    found = tm.import_gold(labelled, out=out)
    assert "Ann and Ben" in found.summary()
    assert found.agreement["pairs"][0]["agree"] == pytest.approx(1 - 6 / 30)
    assert found.agreement["disagreements"] == sorted(swapped)
    assert (found.to_dict()["uncertain"], found.to_dict()["gold"]) == (6, len(ids) - 6)
    page = out.with_name("with-gold_disagreements.html").read_text()
    assert {one for one in ids if one in page} == set(swapped)
    assert page.count("data:image/jpeg") == 6


def test_twins_bring_the_experts_own_curve_into_the_range(labelled, ids, truth, out):
    twins = list(open_session(labelled, twins=20).twins)
    give(labelled, "Ann", {twin: "smooth" if k < 8 else WORDS[truth[twin]] for k, twin in enumerate(twins)}, "twin")
    found = tm.import_gold(labelled, out=out)
    assert found.to_dict()["gold"] == len(ids)
    assert "gold-misses" in codes(tm.estimate_transition(found.out, gold="gold", compare=False))
    # Copies, which are shown alone, do not tell what people miss who see better images, too.
    give(labelled, "Ann", {one: WORDS[truth[one]] for one in ids}, better=True)
    found = tm.import_gold(labelled, out=out, gold_source="better-images")
    assert found.agreement["twins"]["disk"]["galaxies"] == 20 - sum(truth[twin] == 0 for twin in twins)
    assert "gold-misses" not in codes(tm.estimate_transition(found.out, gold="gold", compare=False))
    (labelled / TWINS).unlink()
    with pytest.raises(InputError, match=TWINS):
        tm.import_gold(labelled, out=out)


def test_labels_from_the_same_images_are_a_finding(labelled, ids, out):
    """Also in a session with better images, for galaxies that had none."""
    for source in ("same-images", "better-images"):
        found = tm.import_gold(labelled, out=out, gold_source=source)
        assert codes(found) == ["gold-from-same-images"]
        assert found.catalogue.metadata["gold_from_same_images"] == len(ids)
    give(labelled, "Ann", {one: WORDS[k % 2] for k, one in enumerate(ids)}, better=True)
    assert codes(tm.import_gold(labelled, out=out, gold_source="better-images")) == []


RULE = "CASE WHEN type = 'S0' THEN 'disk' ELSE type END"


@pytest.mark.parametrize(
    ("words", "column"),
    [(["0", "1"], "type"), (["Elliptical", "spiral"], "type"), (["smooth", "Disc"], "type"), (["smooth", "S0"], RULE)],
)
def test_classes_of_a_table_are_words_or_numbers(catalogue, truth, out, tmp_path, words, column):
    """Empty, -1 and missing are not "can't tell": nobody looked."""
    some = list(truth)[:60]
    said = [*(words[truth[one]] for one in some), "", "-1", None, "can't tell", words[0]]
    pl.DataFrame({"name": [*list(truth)[:64], "elsewhere"], "type": said}).write_csv(tmp_path / "mine.csv")
    found = tm.import_gold(tmp_path / "mine.csv", id="name", column=column, catalogue=catalogue, out=out)
    frame = with_text_ids(found.catalogue)
    known = frame.drop_nulls("gold")
    assert dict(known.select("object_id", "gold").rows()) == {one: truth[one] for one in some}
    assert frame.filter(pl.col("gold_uncertain") == 1)["object_id"].to_list() == [list(truth)[63]]
    assert found.catalogue.metadata["gold_source"] == "literature"
    assert "gold_probability" not in known.columns
    assert codes(found) == ["gold-left-out"]
    assert re.findall(r"\d+", found.findings[0].message) == ["1"]


def test_ten_answers_are_imported_and_are_too_few_for_an_estimate(capsys, plan, ids, truth, out):
    give(plan, "Ann", {one: WORDS[truth[one]] for one in ids[:10]})
    status, said, err = run(capsys, "gold", "import", plan, "--out", out)
    assert status == 0
    assert "[gold-too-few]" in err
    assert "Next" not in said
    assert read_table(out).frame["gold"].count() == 10


def zooniverse(path, classifications, hidden="#object_id"):
    """Write a classification export as the platform does; (user, id, answer) each, and seconds and workflow."""
    rows = []
    for k, (user, one, answer, *more) in enumerate(classifications):
        seconds, workflow = more or (k, 25_000)
        task = {"task": "T0", "task_label": "Is the galaxy smooth, or has it a disk?", "value": answer}
        data = {"90000000": {"retired": None, "image": f"{k:06d}.jpg", hidden: one}}
        row = {
            "classification_id": 600_000_000 + k, "user_name": user, "workflow_id": workflow,
            "workflow_version": "12.34",
            "created_at": f"2026-03-01 10:{seconds // 60:02d}:{seconds % 60:02d} UTC",
            "metadata": json.dumps({"source": "api"}), "annotations": json.dumps([task]),
            "subject_data": json.dumps(data),
        }  # fmt: skip
        rows.append(row)
    pl.DataFrame(rows).write_csv(path)


def test_an_export_of_zooniverse_is_read_as_it_is(plan, ids, truth, catalogue, out, tmp_path):
    """Half of a plan: probabilities fall by the fraction answered. The catalogue may be without gold labels."""
    some = ids[:30]
    given = [(user, one, ANSWERS[truth[one]]) for one in some for user in ("anna", "not-logged-in-5f3e", "ben")]
    given += [("ben", ids[0], ANSWERS[1 - truth[ids[0]]]), ("anna", ids[1], "Star or artifact")]
    given += [("eve", ids[2], ["Can't tell"])]  # as of a question with several answers
    zooniverse(tmp_path / "classifications.csv", given)
    without = read_table(catalogue).frame.drop("gold")
    found = tm.import_gold(tmp_path / "classifications.csv", plan=plan, catalogue=without, out=out)
    known = with_text_ids(found.catalogue).drop_nulls("gold")
    assert dict(known.select("object_id", "gold").rows()) == {one: truth[one] for one in some}
    # Ben changed his mind about one, Anna called another an artefact, Eve could not tell a third.
    assert set(known.filter(pl.col("gold_uncertain") == 1)["object_id"]) == set(ids[:3])
    assert known.filter(pl.col("object_id") == ids[2])["gold_people"][0] == "anna, ben, eve, not-logged-in-5f3e"
    assert known.filter(pl.col("object_id") == ids[0])["gold_time"][0] == "2026-03-01 10:01:30 UTC"
    planned = pl.read_parquet(plan / "plan.parquet")["probability"].to_numpy() * 30 / len(ids)
    assert found.catalogue.frame["gold_probability"].to_numpy() == pytest.approx(planned)


def test_workflows_are_separate_questions_and_the_latest_answer_counts(plan, ids, truth, catalogue, out, tmp_path):
    one, other = ((user, k, ANSWERS[truth[k]], 50, 1) for k in ids for user in ("anna", "ben")), ids[0]
    two = (("anna", k, ANSWERS[1 - truth[k]], 60, 2) for k in ids)
    given = [*one, *two, ("Anna ", other, ANSWERS[1 - truth[other]], 40, 1)]
    zooniverse(tmp_path / "classifications.csv", given)
    for workflow in (None, 3):
        with pytest.raises(InputError, match="1, 2"):
            tm.import_gold(tmp_path / "classifications.csv", plan=plan, workflow=workflow, out=out)
    found = tm.import_gold(tmp_path / "classifications.csv", plan=plan, workflow=1, out=out)
    known = with_text_ids(found.catalogue).drop_nulls("gold")
    assert dict(known.select("object_id", "gold").rows()) == {k: truth[k] for k in ids}
    assert found.to_dict()["uncertain"] == 0


def test_indices_instead_of_texts_of_answers_are_refused(plan, ids, out, tmp_path):
    zooniverse(tmp_path / "classifications.csv", [("anna", ids[0], "Smooth"), ("anna", ids[1], 0)])
    with pytest.raises(InputError, match="row 2"):
        tm.import_gold(tmp_path / "classifications.csv", plan=plan, out=out)


def test_rows_without_a_name_are_different_people(catalogue, ids, out, tmp_path):
    said = ["Smooth", "Smooth", "Features or disk"]
    zooniverse(tmp_path / "classifications.csv", [(None, ids[0], one) for one in said])
    table = pl.DataFrame({"object_id": ids[0], "annotator": [" ", None, "Ann"], "class": said})
    table.vstack(table[2:].with_columns(annotator=pl.lit("ann "))).write_csv(tmp_path / "mine.csv")
    for name in ("classifications.csv", "mine.csv"):
        found = tm.import_gold(tmp_path / name, catalogue=catalogue, out=out)
        assert found.catalogue.frame.drop_nulls("gold_people").select("gold", "gold_uncertain").rows() == [(0, 1)]


def test_galaxies_that_the_plan_did_not_draw_get_no_gold_label(plan, ids, truth, catalogue, out, tmp_path):
    others = [one for one in truth if one not in ids][:25]
    table = pl.DataFrame({"object_id": [*ids, *others], "class": [WORDS[truth[one]] for one in (*ids, *others)]})
    table.write_csv(tmp_path / "mine.csv")
    found = tm.import_gold(tmp_path / "mine.csv", plan=plan, catalogue=catalogue, out=out)
    known = with_text_ids(found.catalogue).drop_nulls("gold")
    assert sorted(known["object_id"]) == sorted(ids)
    assert codes(found) == ["gold-left-out"]
    assert re.findall(r"\d+", found.findings[0].message) == ["0", "25"]


def test_a_plan_belongs_to_its_catalogue(capsys, labelled, catalogue, out, tmp_path, monkeypatch):
    """It is found from any folder; another catalogue is refused, the same rows in another order are not."""
    frame = read_table(catalogue).frame
    changed, shuffled = tmp_path / "changed.parquet", tmp_path / "shuffled.parquet"
    frame.with_columns(alpha=pl.col("alpha") * 1.1).write_parquet(changed)
    frame.sample(fraction=1, shuffle=True, seed=1).write_parquet(shuffled)
    monkeypatch.chdir(tmp_path)
    assert tm.import_gold(labelled, out=out).to_dict()["gold"] > 0
    assert tm.import_gold(labelled, out=out, catalogue=shuffled).to_dict()["gold"] > 0
    into = ("--catalogue", changed, "--out", tmp_path / "no.parquet")
    assert "alpha" in refused(capsys, "gold", "import", labelled, *into)


def test_gold_labels_from_a_column_of_votes_are_a_problem(catalogue, truth, out, tmp_path):
    some = list(truth)[:60]
    table = pl.DataFrame({"object_id": some, "gz1_spiral": [truth[one] for one in some]})
    table.write_csv(tmp_path / "flags.csv")
    found = tm.import_gold(tmp_path / "flags.csv", column="gz1_spiral", catalogue=catalogue, out=out)
    assert "gold-from-votes" in codes(found)
    assert "gold-from-votes" in codes(tm.estimate_transition(out, gold="gold", compare=False))


def test_a_subject_set_hides_classes_and_ids(capsys, plan, ids, simulated, tmp_path):
    folder = tmp_path / "subjects"
    done(capsys, "gold", "export", plan, "--out", folder)
    manifest = pl.read_csv(folder / "manifest.csv", schema_overrides={"#object_id": pl.String})
    # A leading # hides a column from volunteers.
    assert manifest.columns == ["image", "#object_id"]
    assert manifest["#object_id"].to_list() == ids
    assert {one.name for one in folder.iterdir()} == {"manifest.csv", *manifest["image"]}
    for name, one in manifest.rows():
        assert re.fullmatch(r"\d{6}\.\w+", name)
        assert (folder / name).read_bytes() == (simulated / "images" / f"{one}.jpg").read_bytes()


def test_only_images_inside_the_folder_are_exported(plan, ids, simulated, tmp_path):
    """A stranger's catalogue may name any file, as may its ids."""
    images = shutil.copytree(simulated / "images", tmp_path / "private" / "images")
    outside = str(shutil.copy(images / f"{ids[0]}.jpg", tmp_path / "private" / "outside.jpg"))
    (images / "passwords.jpg").write_text("secret")
    table = pl.read_parquet(plan / "plan.parquet").sort("position", nulls_last=True)
    names = ["../outside.jpg", outside, f"{images}/../outside.jpg", "passwords.jpg"]
    inside = f"../images/{ids[5]}.jpg"
    chosen = pl.Series([*names, inside, *table["image"][5:]])
    bad = pl.Series("object_id", ["a", "b", "c", "d", "e", *table["object_id"][5:]])
    table.with_columns(bad, image=chosen).write_parquet(plan / "plan.parquet")
    with pytest.raises(InputError, match=r"plan\.parquet"):  # it has changed
        export_gold(plan, out=tmp_path / "subjects", images=images)
    about = json.loads((plan / "plan.json").read_text())
    (plan / "plan.json").write_text(json.dumps(about | {"table_sha256": file_hash(plan / "plan.parquet")}))
    found = export_gold(plan, out=tmp_path / "subjects", images=images)
    assert codes(found) == ["galaxies-left-out"]
    assert pl.read_csv(plan / "left_out.csv")["object_id"].to_list() == ["a", "b", "c", "d"]
    manifest = pl.read_csv(tmp_path / "subjects" / "manifest.csv", schema_overrides={"#object_id": pl.String})
    assert manifest["#object_id"].to_list() == ["e", *ids[5:]]
    assert len(list((tmp_path / "subjects").iterdir())) == 1 + manifest.height


def test_a_table_of_gold_labels_is_not_overwritten(capsys, catalogue, ids, tmp_path):
    mine = tmp_path / "mine.parquet"
    pl.DataFrame({"object_id": ids[:2], "class": ["disk", "smooth"]}).write_parquet(mine)
    before = mine.read_bytes()
    assert "mine.parquet" in refused(capsys, "gold", "import", mine, "--catalogue", catalogue, "--out", mine)
    assert mine.read_bytes() == before


@pytest.mark.slow
def test_mistakes_are_one_line(capsys, plan, catalogue, ids, out, tmp_path):
    rings = pl.DataFrame({"object_id": ids[:4], "class": ["disk", "ring", "smooth", "7"]})
    rings.write_csv(tmp_path / "rings.csv")
    rings.select("class", name="object_id").write_csv(tmp_path / "named.csv")
    pl.DataFrame({"object_id": [ids[0]] * 2, "class": ["disk", "smooth"]}).write_csv(tmp_path / "twice.csv")
    zooniverse(tmp_path / "foreign.csv", [("anna", ids[0], "Smooth")], hidden="file")
    zooniverse(tmp_path / "several.csv", [("anna", ids[0], ["Smooth", "Star"])])
    pl.read_csv(tmp_path / "several.csv").with_columns(annotations=pl.lit("[]")).write_csv(tmp_path / "nothing.csv")
    pl.read_csv(tmp_path / "several.csv").with_columns(created_at=pl.lit("today")).write_csv(tmp_path / "today.csv")
    for says, file, *options in [
        ("'7', 'ring'", "rings.csv", "--catalogue", catalogue),
        ("--id", "named.csv", "--catalogue", catalogue),
        ("--catalogue", "rings.csv"),
        (ids[0], "twice.csv", "--catalogue", catalogue),
        ("truemorph gold export", "foreign.csv", "--catalogue", catalogue),
        ("Smooth, Star", "several.csv", "--catalogue", catalogue),
        ("row 1: annotations", "nothing.csv", "--catalogue", catalogue),
        ("row 1: created_at", "today.csv", "--catalogue", catalogue),
        ("--workflow", "rings.csv", "--catalogue", catalogue, "--workflow", "1"),
        ("truemorph gold label", plan),
        ("truemorph gold plan", "."),
    ]:
        err = refused(capsys, "gold", "import", tmp_path / file, *options, "--out", out)
        assert says in err, err
    assert not out.exists()
