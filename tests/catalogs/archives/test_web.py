"""Polite requests: what is tried again, what is waited, what is refused."""

import threading

import pytest
import pyvo

from catalogs.archives.server import Answer, Proxy, busy, cut, http_date, page, redirect
from truemorph.catalogs.archives.failures import ComeBackError, UnansweredError
from truemorph.catalogs.archives.patience import Pace, Patience
from truemorph.catalogs.archives.web import Web
from truemorph.errors import InputError, TruemorphError

CSV = b"objid,ra\n587722981742084144,10.5\n"


def test_whole_body_with_parameters(server, web):
    server.route("/sql", lambda request: request.params["cmd"].encode())
    assert web.get(server.url("/sql"), {"cmd": "select 1", "format": "csv"}) == b"select 1"
    asked = server.requests[0]
    assert asked.params == {"cmd": "select 1", "format": "csv"}
    assert asked.headers["User-Agent"].startswith("truemorph/")


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_passing_statuses_are_tried_again(server, web, status):
    url = server.put("/t.csv", CSV)
    server.script("/t.csv", busy(status), busy(status))
    assert web.get(url, expect="csv") == CSV
    assert len(server.requests) == 3


@pytest.mark.parametrize("fault", [cut(5), cut(0), Answer(chunked=True, cut=5)])
def test_cut_connections_are_tried_again(server, web, fault):
    url = server.put("/t.csv", CSV)
    server.script("/t.csv", fault)
    assert web.get(url, expect="csv") == CSV
    assert len(server.requests) == 2


@pytest.mark.parametrize("fault", [cut(5, hang=30.0), Answer(wait=30.0)])
def test_silence_is_a_cut(server, impatient, fault):
    url = server.put("/t.csv", CSV)
    server.script("/t.csv", fault)
    assert impatient.get(url, expect="csv") == CSV
    assert len(server.requests) >= 2


def test_time_outs_are_named(server, waits):
    url = server.put("/t.csv", CSV)
    server.script("/t.csv", Answer(wait=30.0))
    with pytest.raises(TruemorphError, match=r"nothing came for 0.2 s \(1 try\)"):
        Web(attempts=1, timeout=(20.0, 0.2)).get(url)


def test_giving_up_says_why_and_what_to_do(server, web, waits):
    url = server.put("/t.csv", CSV)
    server.script("/t.csv", *[cut(5)] * 5)
    with pytest.raises(TruemorphError, match=r"the table \(http.*: the connection was cut \(5 tries\); run the same"):
        web.get(url, what="the table")
    assert len(waits) == 4


def test_back_off_doubles_with_jitter():
    waits = {failed: [Patience(9, 1.0, 60.0, None).wait(failed) for _ in range(400)] for failed in (1, 2, 3, 9)}
    for failed, most in ((1, 1.0), (2, 2.0), (3, 4.0), (9, 60.0)):
        assert most / 2 <= min(waits[failed]) < 0.55 * most
        assert 0.95 * most < max(waits[failed]) <= most


@pytest.mark.parametrize(("as_date", "least"), [(False, 7.0), (True, 28.0)])
def test_retry_after_is_honoured(server, web, waits, as_date, least, capsys):
    url = server.put("/t.csv", CSV)
    server.script("/t.csv", busy(429, http_date(30) if as_date else "7"))
    assert web.get(url) == CSV
    # Never sooner than asked; a little later, so that not everybody comes at that second.
    assert least <= waits[0] <= least + 2.6
    assert 'HTTP 429 Too Many Requests ("try later"); again in' in capsys.readouterr().err


@pytest.mark.parametrize("as_date", [False, True])
def test_longer_waits_than_allowed_end_it_at_once(server, web, waits, as_date):
    url = server.put("/t.csv", CSV)
    server.script("/t.csv", busy(503, http_date(3600) if as_date else "3600"))
    with pytest.raises(TruemorphError, match=r"asks to wait 3,\d{3} s: run the same again after \d{4}-.* UTC"):
        web.get(url)
    assert waits == []
    assert len(server.requests) == 1


@pytest.mark.parametrize("given", ["soon", "-3", "past"])
def test_useless_retry_after_backs_off_as_usual(server, web, waits, given):
    url = server.put("/t.csv", CSV)
    server.script("/t.csv", busy(503, http_date(-100) if given == "past" else given))
    assert web.get(url) == CSV
    assert 0.5 <= waits[0] <= 1.0


def test_lasting_statuses_are_refused_at_once(server, web, waits):
    with pytest.raises(TruemorphError, match=r"/gone: HTTP 404 Not Found \(\"not here\"\); nothing is there"):
        web.get(server.url("/gone"))
    assert waits == []


def test_page_in_place_of_data_is_refused_with_its_words(server, web):
    url = server.put("/t.csv", CSV)
    server.script("/t.csv", page("The <b>database</b> is down &amp; will be back."))
    with pytest.raises(TruemorphError) as problem:
        web.get(url, expect="csv")
    assert f"{url}: wanted a CSV table, got a web page" in str(problem.value)
    assert "Sorry The database is down & will be back." in str(problem.value)


@pytest.mark.parametrize(
    ("expect", "body"),
    [
        ("csv", CSV),
        ("csv", b"\xef\xbb\xbfobjid\n"),
        ("json", b' {"files": []}'),
        ("votable", b'<?xml version="1.0"?>\n<VOTABLE version="1.4"></VOTABLE>\n'),
        ("image", b"\xff\xd8\xff\xe0 ... \xff\xd9"),
        ("image", b"\x89PNG\r\n\x1a\n....IEND\xaeB`\x82"),
        ("fits", b"SIMPLE  =                    T".ljust(2880)),
        ("zip", b"PK\x05\x06" + bytes(18)),
        ("gzip", b"\x1f\x8b\x08"),
    ],
)
def test_kinds_of_content(server, web, expect, body):
    url = server.put("/data", body)
    assert web.get(url, expect=expect) == body
    other = "fits" if expect != "fits" else "csv"
    if expect != "fits":
        with pytest.raises(TruemorphError, match="wanted a FITS file"):
            web.get(url, expect=other)


@pytest.mark.parametrize(
    ("expect", "body"),
    [
        ("votable", b"<VOTABLE><TR><TD>1</TD></TR></VOTABLE>"),
        ("json", b'{"files": [1]}'),
        ("image", b"\xff\xd8\xff\xe0 pixels \xff\xd9"),
        ("fits", b"SIMPLE  =                    T".ljust(5760)),
    ],
)
def test_cut_bodies_without_length_are_noticed_where_their_kind_allows(server, web, expect, body):
    url = server.put("/data", body)
    server.script("/data", Answer(length=False, cut=len(body) - 3))
    assert web.get(url, expect=expect) == body
    assert len(server.requests) == 2


def test_answers_compressed_for_the_way(server, web):
    url = server.put("/t.csv", CSV, encoded=True)
    assert web.get(url, expect="csv") == CSV
    assert server.requests[0].headers["Accept-Encoding"] == "identity"


def test_redirects_are_followed_and_circles_are_not(server, web):
    server.put("/new.csv", CSV)
    server.script("/old.csv", redirect("/new.csv"))
    assert web.get(server.url("/old.csv")) == CSV
    server.route("/a", lambda request: redirect("/a"))
    with pytest.raises(TruemorphError, match="redirected in circles"):
        web.get(server.url("/a"))


@pytest.fixture
def _stopped_clock(monkeypatch):
    monkeypatch.setattr(Pace, "_now", staticmethod(lambda: 0.0))


@pytest.mark.usefixtures("_stopped_clock")
def test_pace_is_kept_by_host_whatever_client_asks(server, waits):
    web = Web(per_second=4.0, sleep=waits.append)
    server.put("/t.csv", CSV)
    server.script("/old", redirect("/t.csv"))
    web.get(server.url("/t.csv"))
    web.get(server.url("/old"))  # two requests
    web.session.get(server.url("/t.csv"))
    # Each request is due a quarter of a second after the one before.
    assert waits == [0.25, 0.5, 0.75]
    # Another host has its own turn.
    web.get(server.url("/t.csv").replace("127.0.0.1", "localhost"))
    assert len(waits) == 3


@pytest.mark.usefixtures("_stopped_clock")
def test_threads_share_one_pace(server, waits):
    web = Web(per_second=8.0, sleep=waits.append)
    server.put("/t.csv", CSV)
    threads = [threading.Thread(target=web.get, args=(server.url("/t.csv"),)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(waits) == [0.125, 0.25, 0.375, 0.5, 0.625]


def test_offline_asks_nobody(server):
    url = server.put("/t.csv", CSV)
    web = Web(offline=True)
    with pytest.raises(TruemorphError, match=r"the table: not here, and this is offline; .* \(it is at http"):
        web.get(url, what="the table")
    with pytest.raises(TruemorphError, match="this is offline"):
        web.session.get(url)
    assert server.requests == []


def test_proxies_of_the_environment(server, web, monkeypatch):
    url = server.put("/t.csv", CSV)
    with Proxy() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url())
        assert web.get(url) == CSV
        assert [request.path for request in proxy.requests] == [url]
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert web.get(url) == CSV
        assert len(proxy.requests) == 1


def test_dead_proxies_and_hosts_are_named(server, waits, monkeypatch):
    web = Web(attempts=2, sleep=waits.append)
    with Proxy() as proxy:
        dead = proxy.url()
    with pytest.raises(TruemorphError, match=r"no connection \(refused or out of reach\) \(2 tries\)"):
        web.get(dead + "/t.csv")
    monkeypatch.setenv("http_proxy", dead)
    with pytest.raises(TruemorphError, match=r"the proxy does not answer \(HTTP_PROXY"):
        web.get(server.url("/t.csv"))


def test_other_clients_get_the_same(server, web):
    """pyvo on the session: a busy server and a cut answer, which it would not survive by itself."""
    table = (
        '<?xml version="1.0"?><VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3">'
        '<RESOURCE type="results"><INFO name="QUERY_STATUS" value="OK"/><TABLE><FIELD name="objID" datatype="long"/>'
        "<DATA><TABLEDATA><TR><TD>587722981742084144</TD></TR></TABLEDATA></DATA></TABLE></RESOURCE></VOTABLE>"
    )
    server.route("/tap/sync", lambda request: Answer(table.encode(), type="application/x-votable+xml"))
    server.script("/tap/sync", busy(503), cut(200))
    service = pyvo.dal.TAPService(server.url("/tap"), session=web.session)
    result = service.run_sync('select objID from "J/ApJS/196/11/table3"')
    assert result["objID"].tolist() == [587722981742084144]
    assert [request.method for request in server.asked("/tap/sync")] == ["POST"] * 3
    assert web.session.get(server.url("/nothing")).status_code == 404


def test_session_responses_can_be_read_in_every_way(server, web):
    url = server.put("/j", b'{"a": 1}')
    assert web.session.get(url).json() == {"a": 1}
    assert web.session.get(url, stream=True).raw.read() == b'{"a": 1}'
    assert list(web.session.get(url).iter_lines()) == [b'{"a": 1}']


@pytest.mark.parametrize("url", ["ftp://example.org/a", "nowhere", "http://"])
def test_addresses_that_cannot_be_asked(web, url):
    with pytest.raises(InputError, match="not an address that can be asked"):
        web.get(url)


@pytest.mark.parametrize("value", ["9" * 20, "9" * 400, "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_waits_beyond_any_calendar_are_said(server, web, value):
    server.script("/t.csv", busy(503, value))
    with pytest.raises(ComeBackError, match=r"asks to wait .* s: run the same again after"):
        web.get(server.url("/t.csv"))


def test_failures_tell_what_they_are(server, web):
    server.script("/t.csv", *[busy(504)] * 5, page(), Answer(b"no", 404, "text/plain", ranges=False))
    found = []
    for expect in (None, "csv", "csv"):
        with pytest.raises(UnansweredError) as caught:
            web.get(server.url("/t.csv"), expect=expect)
        found.append((caught.value.status, caught.value.page, caught.value.passing))
    assert found == [(504, False, True), (None, True, True), (404, False, False)]


@pytest.mark.parametrize("wrong", [{"per_second": 0}, {"attempts": 0}, {"back_off": -1}, {"longest_wait": -1}])
def test_settings_out_of_range(wrong):
    with pytest.raises(InputError, match="got"):
        Web(**wrong)


def test_unknown_kind_of_content(web):
    with pytest.raises(InputError, match="expect is one of csv, json"):
        web.get("http://127.0.0.1:1/", expect="cvs")


def test_missing_extra_says_how_to_install_it(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "truemorph.catalogs.archives.session", None)
    with pytest.raises(InputError, match=r"pip install 'truemorph\[archives\]'"):
        Web()
