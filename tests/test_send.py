"""Tables sent through SAMP, to a program that astropy's own hub connects."""

import warnings

import numpy as np
import pytest
from astropy import units as u
from astropy.table import QTable, Table

import truemorph as tm
from conftest import done, run

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # astropy 8 says that it will move
    from astropy.samp import SAMPHubServer, SAMPIntegratedClient, conf

QUANTITIES = QTable(
    {"object_id": [587722981748572353, 587722981748572354], "radius": [3.5, 6.25] * u.arcsec, "type": ["S0", "Sbc"]}
)


@pytest.fixture
def no_hub(tmp_path, monkeypatch):
    monkeypatch.setenv("SAMP_HUB", f"std-lockurl:{(tmp_path / 'samp').as_uri()}")
    monkeypatch.setattr(conf, "use_internet", False)
    return tmp_path / "samp"


@pytest.fixture
def hub(no_hub):
    server = SAMPHubServer(web_profile=False, addr="localhost", lockfile=str(no_hub))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def topcat(hub):
    """A program that loads tables; what it loaded is in its `loaded`."""
    client = SAMPIntegratedClient(name="topcat", addr="localhost")
    client.connect()
    client.loaded = []

    def load(key, sender, message, mtype, params, extra):
        client.loaded.append(Table.read(params["url"].removeprefix("file://"), format="votable"))
        client.reply(message, {"samp.status": "samp.ok", "samp.result": {}})

    client.bind_receive_call("table.load.votable", load)
    yield client
    client.disconnect()


def test_a_file_arrives_with_its_columns_units_and_rows(topcat, capsys, tmp_path):
    path = tm.write_table(tm.read_table(QUANTITIES), tmp_path / "sizes.ecsv")
    out = done(capsys, "send", path, "--to", "TOPCAT")
    assert "2 rows" in out
    assert "topcat" in out
    (received,) = topcat.loaded
    assert received.colnames == QUANTITIES.colnames
    for name in QUANTITIES.colnames:
        assert received[name].unit == QUANTITIES[name].info.unit, name
        np.testing.assert_array_equal(received[name].value, getattr(QUANTITIES[name], "value", QUANTITIES[name]), name)


def test_a_result_arrives_as_its_table(topcat):
    result = tm.measure_bias(tm.simulate_catalogue(1000), bootstrap=0)
    for sent in (result.send(), tm.send_table(result, to="topcat")):
        assert sent.values["programs"] == ["topcat"]
        received = topcat.loaded.pop()
        assert received.colnames == result.to_table().colnames
        assert len(received) == 1


@pytest.mark.parametrize("running", ["no_hub", "hub"])
def test_without_a_program_one_line_says_what_to_start(request, capsys, tmp_path, running):
    request.getfixturevalue(running)
    status, _, err = run(capsys, "send", tm.write_table(tm.read_table(QUANTITIES), tmp_path / "a.parquet"))
    assert (status, err.count("\n")) == (1, 1)
    assert "TOPCAT" in err


def test_a_wrong_name_lists_the_programs_and_a_program_says_why_it_cannot_load(topcat):
    with pytest.raises(tm.errors.InputError, match="topcat"):
        tm.send_table(QUANTITIES, to="aladin")

    def refuse(key, sender, message, *_):
        topcat.reply(message, {"samp.status": "samp.error", "samp.error": {"samp.errortxt": "out of memory"}})

    topcat.bind_receive_call("table.load.votable", refuse)
    with pytest.raises(tm.errors.TruemorphError, match="out of memory"):
        tm.send_table(QUANTITIES)
