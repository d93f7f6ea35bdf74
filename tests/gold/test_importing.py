"""Gold labels come into a catalogue from a plan, from a table and from Zooniverse, and go to Zooniverse."""

import csv
import json
import re
import shutil

import numpy as np
import polars as pl
import pytest

import truemorph as tm
from conftest import codes, run
from truemorph.errors import InputError
from truemorph.gold.answers import create_answers, read_answers, record_answer, undo_answer
from truemorph.gold.plan import read_plan
from truemorph.gold.session import open_session
from truemorph.tables import read_table

WORDS = {0: "smooth", 1: "disk"}


@pytest.fixture(scope="session")
def truth(catalogue):
    frame = read_table(catalogue).frame
    return dict(zip(frame["object_id"].cast(pl.String), frame["gold"], strict=True))


def give(plan, annotator, answers):
    create_answers(plan)
    for one, answer in answers.items():
        record_answer(plan, annotator, one, "first", answer)


@pytest.fixture(scope="session")
def labelled_once(planned, truth, tmp_path_factory):
    folder = shutil.copytree(planned, tmp_path_factory.mktemp("labelled") / "gold")
    give(folder, "Ann", {one: WORDS[truth[one]] for one in read_plan(folder)[1]["object_id"]})
    return folder


@pytest.fixture
def labelled(labelled_once, tmp_path):
    """A copy of the plan's folder in which Ann has given every galaxy its true class."""
    return shutil.copytree(labelled_once, tmp_path / "gold")


@pytest.fixture
def ids(planned):
    return read_plan(planned)[1]["object_id"].to_list()


def test_a_plans_answers_become_gold_labels_that_the_bias_curve_uses(capsys, labelled, ids, truth, tmp_path):
    plan = labelled
    give(plan, "Ann", {ids[0]: "unclear", ids[1]: "artefact"})
    out = tmp_path / "with-gold.parquet"
    status, said, _ = run(capsys, "gold", "import", plan, "--out", out, "--gold-source", "better-images")
    assert status == 0
    assert f"Next: truemorph transition {out} --gold gold" in said
    table = read_table(out)
    frame = table.frame.with_columns(pl.col("object_id").cast(pl.String))
    known = frame.filter(pl.col("gold").is_not_null())
    assert sorted(known["object_id"]) == sorted(ids[2:])
    assert known["gold"].to_list() == [truth[one] for one in known["object_id"]]
    assert frame.filter(pl.col("gold_uncertain") == 1)["object_id"].to_list() == [ids[0]]
    assert set(known["gold_people"]) == {"Ann"}
    assert known["gold_time"].str.starts_with("20").all()
    assert frame["gold_probability"].to_numpy() == pytest.approx(
        pl.read_parquet(plan / "plan.parquet")["probability"].to_numpy()
    )
    assert table.metadata["gold_source"] == "better-images"
    arguments = ["--gold", "gold", "--no-compare", "--json"]
    status, said, _ = run(capsys, "transition", out, *arguments)
    assert status == 0
    found = json.loads(said)
    assert {"selection-known", "gold-uncertain"} <= {one["code"] for one in found["findings"]}
    assert "gold-not-random" not in {one["code"] for one in found["findings"]}
    assert found["method"] == "gold"


def test_when_labelling_stops_early_probabilities_fall_by_the_fraction_answered(plan, ids, truth, tmp_path):
    every, ids = ids, ids[: len(ids) // 2]
    give(plan, "Ann", {one: WORDS[truth[one]] for one in ids})
    found = tm.import_gold(plan, out=tmp_path / "gold.parquet")
    planned = pl.read_parquet(plan / "plan.parquet")["probability"].to_numpy()
    fraction = len(ids) / len(every)
    assert found.catalogue.frame["gold_probability"].to_numpy() == pytest.approx(planned * fraction)
    assert found.to_dict()["gold"] == len(ids)


def test_answers_that_were_undone_are_not_imported(labelled, ids, tmp_path):
    assert undo_answer(labelled, "Ann") == (ids[-1], "first")
    assert tm.import_gold(labelled, out=tmp_path / "gold.parquet").to_dict()["gold"] == len(ids) - 1


def test_gold_labels_of_a_pilot_stay_when_the_next_plan_is_imported(labelled, ids, truth, catalogue, tmp_path):
    pilot = ids
    give(labelled, "Ann", {pilot[0]: "unclear"})
    tm.import_gold(labelled, out=tmp_path / "pilot.parquet", catalogue=catalogue)
    tm.plan_gold(tmp_path / "pilot.parquet", budget=40, out=tmp_path / "more")
    more = read_plan(tmp_path / "more")[1]["object_id"].to_list()[:20]
    give(tmp_path / "more", "Ann", {one: WORDS[truth[one]] for one in more})
    assert not set(pilot) & set(more)
    found = tm.import_gold(tmp_path / "more", out=tmp_path / "both.parquet")
    frame = found.catalogue.frame.with_columns(pl.col("object_id").cast(pl.String))
    assert set(frame.filter(pl.col("gold").is_not_null())["object_id"]) == {*pilot[1:], *more}
    assert frame.filter(pl.col("gold_uncertain") == 1)["object_id"].to_list() == pilot[:1]
    before = read_table(tmp_path / "pilot.parquet").frame["gold_probability"].to_numpy()
    both, plan_of_both = frame["gold_probability"].to_numpy(), pl.read_parquet(tmp_path / "more" / "plan.parquet")
    fraction = len(more) / plan_of_both["position"].count()
    assert both == pytest.approx(before + (plan_of_both["probability"].to_numpy() - before) * fraction)


def test_a_catalogue_without_gold_labels_gets_them(labelled, ids, catalogue, tmp_path):
    without = read_table(catalogue).frame.drop("gold")
    found = tm.import_gold(labelled, catalogue=without, out=tmp_path / "gold.parquet")
    assert found.catalogue.frame["gold"].count() == len(ids)
    assert found.catalogue.frame.drop("gold", "gold_probability").columns[: without.width] == without.columns


def test_people_who_do_not_agree_are_counted(capsys, labelled, ids, truth, tmp_path):
    swapped = {one: WORDS[1 - truth[one]] for one in ids[:6]}
    give(labelled, "Ben", {one: WORDS[truth[one]] for one in ids[:30]} | swapped)
    status, out, _ = run(capsys, "gold", "import", labelled, "--out", tmp_path / "gold.parquet")
    assert status == 0
    assert "Ann and Ben" in out
    found = tm.import_gold(labelled, out=tmp_path / "gold.parquet")
    assert found.agreement["pairs"][0]["agree"] == pytest.approx(1 - 6 / 30)
    assert found.agreement["disagreements"] == sorted(swapped)
    assert found.to_dict()["uncertain"] == 6
    assert found.to_dict()["gold"] == len(ids) - 6
    page = (tmp_path / "gold_disagreements.html").read_text()
    assert found.page == tmp_path / "gold_disagreements.html"
    assert {one for one in ids if one in page} == set(swapped)


def test_twins_bring_the_experts_own_curve_into_the_range(labelled, ids, truth, tmp_path):
    plan = labelled
    session = open_session(plan, twins=20)
    for k, one in enumerate(session.twins):
        answer = "smooth" if k < 8 else WORDS[truth[one]]
        record_answer(plan, "Ann", one, "twin", answer)
    found = tm.import_gold(plan, out=tmp_path / "gold.parquet")
    disks = [k for k, one in enumerate(session.twins) if truth[one] == 1]
    assert found.agreement["twins"] == {"disks": len(disks), "called_smooth": sum(k < 8 for k in disks) / len(disks)}
    assert found.to_dict()["gold"] == len(ids)
    study = tm.estimate_transition(found.out, gold="gold", compare=False)
    assert "gold-misses-disks" in codes(study)


def test_labels_from_the_same_images_are_a_finding(labelled, tmp_path):
    found = tm.import_gold(labelled, out=tmp_path / "gold.parquet", gold_source="same-images")
    assert codes(found) == ["gold-from-same-images"]
    # Also in a session with better images, for galaxies that had none.
    assert codes(tm.import_gold(labelled, out=tmp_path / "gold.parquet", gold_source="better-images")) != []
    for one, answer in read_answers(labelled).filter(~pl.col("undone")).select("galaxy", "answer").rows():
        record_answer(labelled, "Ann", one, "first", answer, better=True)
    assert codes(tm.import_gold(labelled, out=tmp_path / "gold.parquet", gold_source="better-images")) == []


def test_classes_of_a_table_are_words_or_numbers(catalogue, truth, tmp_path):
    ids = list(truth)[:60]
    said = [truth[one] for one in ids]
    words = [["Elliptical", "Smooth"][k % 2] if one == 0 else ["spiral", "Disc"][k % 2] for k, one in enumerate(said)]
    tables = {
        "numbers.csv": pl.DataFrame({"object_id": ids, "class": said}),
        "words.parquet": pl.DataFrame({"object_id": ids, "class": words}),
        "names.csv": pl.DataFrame({"name": ids, "type": words}),
    }
    for name, table in tables.items():
        path = tmp_path / name
        table.write_csv(path) if path.suffix == ".csv" else table.write_parquet(path)
        columns = {"id": "name", "column": "type"} if name == "names.csv" else {}
        found = tm.import_gold(path, catalogue=catalogue, out=tmp_path / "gold.parquet", **columns)
        frame = found.catalogue.frame.filter(pl.col("gold").is_not_null())
        assert frame["gold"].to_list() == [truth[one] for one in frame["object_id"].cast(pl.String)]
        assert frame.height == 60
        assert found.catalogue.metadata["gold_source"] == "literature"
        assert "gold_probability" not in frame.columns
        assert codes(found) == []


def test_galaxies_that_are_not_in_the_catalogue_are_a_finding(catalogue, truth, tmp_path):
    rows = {"object_id": [*list(truth)[:30], "elsewhere-1", "elsewhere-2"], "class": ["disk"] * 32}
    pl.DataFrame(rows).write_csv(tmp_path / "mine.csv")
    found = tm.import_gold(tmp_path / "mine.csv", catalogue=catalogue, out=tmp_path / "gold.parquet")
    assert codes(found) == ["gold-not-in-catalogue"]
    assert found.findings[0].message.startswith("2 galaxies")
    assert found.to_dict()["gold"] == 30


def zooniverse(path, classifications):
    """Write a classification export as the platform does; (user, id, answer) each."""
    subjects = {one: 90_000_000 + k for k, one in enumerate(dict.fromkeys(one for _, one, _ in classifications))}
    metadata = {
        "source": "api", "session": "4f2a", "viewport": {"width": 1300, "height": 800}, "live_project": True,
        "started_at": "2026-03-01T10:00:00.000Z", "finished_at": "2026-03-01T10:00:04.000Z",
        "user_agent": "Mozilla/5.0", "utc_offset": "0", "user_language": "en",
        "subject_dimensions": [{"clientWidth": 424, "clientHeight": 424}],
    }  # fmt: skip
    rows = []
    for k, (user, one, answer) in enumerate(classifications):
        task = {"task": "T0", "task_label": "Is the galaxy smooth, or has it a disk?", "value": answer}
        data = {str(subjects[one]): {"retired": None, "image": f"{k:06d}.jpg", "#object_id": one}}
        row = {
            "classification_id": 600_000_000 + k, "user_name": user,
            "user_id": "" if user.startswith("not-logged-in") else 1234567, "user_ip": "9c1b3a5d7e",
            "workflow_id": 28_000, "workflow_name": "Smooth or disk", "workflow_version": "12.34",
            "created_at": f"2026-03-01 10:{k // 60:02d}:{k % 60:02d} UTC", "gold_standard": "", "expert": "",
            "metadata": json.dumps(metadata), "annotations": json.dumps([task]), "subject_data": json.dumps(data),
            "subject_ids": subjects[one],
        }  # fmt: skip
        rows.append(row)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_an_export_of_zooniverse_is_read_as_it_is(catalogue, truth, tmp_path):
    ids = list(truth)[:40]
    names = {0: "Smooth", 1: "Features or disk"}
    given = [(user, one, names[truth[one]]) for one in ids for user in ("anna", "not-logged-in-5f3e", "ben")]
    given += [("ben", ids[0], names[1 - truth[ids[0]]]), ("anna", ids[1], "Star or artifact")]
    given += [("eve", ids[2], "Can't tell")]
    zooniverse(tmp_path / "classifications.csv", given)
    found = tm.import_gold(tmp_path / "classifications.csv", catalogue=catalogue, out=tmp_path / "gold.parquet")
    frame = found.catalogue.frame.with_columns(pl.col("object_id").cast(pl.String)).filter(pl.col("gold").is_not_null())
    assert frame["gold"].to_list() == [truth[one] for one in frame["object_id"]]
    assert frame.height == 40
    # Ben changed his mind about one, Anna called another an artefact, Eve could not tell a third.
    assert set(frame.filter(pl.col("gold_uncertain") == 1)["object_id"]) == set(ids[:3])
    assert frame.filter(pl.col("object_id") == ids[2])["gold_people"][0] == "anna, ben, eve, not-logged-in-5f3e"
    assert frame.filter(pl.col("object_id") == ids[0])["gold_time"][0] == "2026-03-01 10:02:00 UTC"


def test_a_table_or_an_export_gets_the_probabilities_of_its_plan(plan, truth, catalogue, tmp_path):
    ids = read_plan(plan)[1]["object_id"].to_list()
    answered = ids[: len(ids) // 2]
    zooniverse(tmp_path / "classifications.csv", [("anna", one, WORDS[truth[one]]) for one in answered])
    found = tm.import_gold(
        tmp_path / "classifications.csv", plan=plan, catalogue=catalogue, out=tmp_path / "gold.parquet"
    )
    planned = pl.read_parquet(plan / "plan.parquet")["probability"].to_numpy() * len(answered) / len(ids)
    assert found.catalogue.frame["gold_probability"].to_numpy() == pytest.approx(planned)
    assert found.to_dict()["gold"] == len(answered)


def test_a_subject_set_hides_classes_and_ids(capsys, plan, simulated, tmp_path):
    out = tmp_path / "subjects"
    status, _, _ = run(capsys, "gold", "export", plan, "--out", out)
    assert status == 0
    manifest = pl.read_csv(out / "manifest.csv", schema_overrides={"#object_id": pl.String})
    chosen = read_plan(plan)[1]
    # A leading # hides a column from volunteers.
    assert manifest.columns == ["image", "#object_id"]
    assert manifest["#object_id"].to_list() == chosen["object_id"].to_list()
    assert {one.name for one in out.iterdir()} == {"manifest.csv", *manifest["image"]}
    for name, picture in zip(manifest["image"], chosen["image"], strict=True):
        assert re.fullmatch(r"\d{6}\.\w+", name)
        assert (out / name).read_bytes() == (simulated / "images" / picture).read_bytes()


def test_mistakes_are_one_line(capsys, plan, catalogue, truth, tmp_path):
    ids = list(truth)[:4]
    tables = {
        "rings.csv": {"object_id": ids, "class": ["disk", "ring", "smooth", "7"]},
        "others.csv": {"object_id": ["x", "y"], "class": ["disk", "smooth"]},
        "named.csv": {"name": ids, "class": ["disk"] * 4},
    }
    for name, rows in tables.items():
        pl.DataFrame(rows).write_csv(tmp_path / name)
    zooniverse(tmp_path / "zoo.csv", [("anna", ids[0], "Merger")])
    text = (tmp_path / "zoo.csv").read_text()
    (tmp_path / "foreign.csv").write_text(text.replace("#object_id", "file"))
    given = ["--catalogue", catalogue]
    for says, arguments in [
        ("'7', 'ring'", [tmp_path / "rings.csv", *given]),
        ("none of the 2", [tmp_path / "others.csv", *given]),
        ("--id", [tmp_path / "named.csv", *given]),
        ("--catalogue", [tmp_path / "rings.csv"]),
        ("Merger", [tmp_path / "zoo.csv", *given]),
        ("truemorph gold export", [tmp_path / "foreign.csv", *given]),
        ("truemorph gold label", [plan]),
        ("truemorph gold plan", [tmp_path]),
    ]:
        status, out, err = run(capsys, "gold", "import", *arguments, "--out", tmp_path / "gold.parquet")
        assert status == 2, (says, out)
        assert says in err, err
        assert err.count("\n") == 1, err
    assert not (tmp_path / "gold.parquet").exists()


def test_answers_for_another_catalogue_are_refused(labelled, tmp_path):
    other = pl.DataFrame({"object_id": np.arange(99) + 10**6, "label": 1, "alpha": 3.0, "split": "train"})
    with pytest.raises(InputError, match="none of the"):
        tm.import_gold(labelled, catalogue=other, out=tmp_path / "gold.parquet")


def test_rows_without_a_class_have_no_gold_label(tmp_path):
    """Empty, -1 and missing are not "can't tell": nobody looked."""
    ids = [str(k) for k in range(40)]
    words = ["smooth", "disk", "", "-1", None, "can't tell"]
    pl.DataFrame({"object_id": ids[:6], "class": words}).write_csv(tmp_path / "mine.csv")
    catalogue = {"object_id": ids, "label": [0, 1] * 20, "alpha": np.arange(40) + 1.0, "split": ["train"] * 40}
    found = tm.import_gold(tmp_path / "mine.csv", catalogue=pl.DataFrame(catalogue), out=tmp_path / "gold.parquet")
    assert found.catalogue.frame["gold"][:6].to_list() == [0, 1, None, None, None, None]
    assert found.catalogue.frame["gold_uncertain"][:6].to_list() == [0, 0, None, None, None, 1]
    assert found.catalogue.frame["gold_time"].null_count() == 40


def test_galaxies_outside_the_plan_are_left_out_of_its_import(labelled, tmp_path):
    plan = read_table(labelled / "plan.parquet").frame
    catalogue = read_plan(labelled)[0]["catalogue"]
    frame = read_table(catalogue).frame
    selectable = plan.filter(pl.col("probability") > 0)["object_id"][0]
    rows = {"object_id": [selectable, "elsewhere"], "class": ["disk", "disk"]}
    pl.DataFrame(rows).write_csv(tmp_path / "mine.csv")
    found = tm.import_gold(tmp_path / "mine.csv", plan=labelled, out=tmp_path / "gold.parquet")
    assert "gold-not-in-plan" in codes(found)
    assert found.catalogue.frame["gold"].count() == 1
    assert found.catalogue.frame.height == frame.height
