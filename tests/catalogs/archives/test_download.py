"""Files that arrive whole or not at all, whatever happens on the way."""

import errno
import gzip
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile

import numpy as np
import pytest

from catalogs.archives.server import Answer, busy, cut, http_date, page, redirect
from truemorph.catalogs.archives import parts
from truemorph.catalogs.archives.addresses import addresses
from truemorph.catalogs.archives.download import download
from truemorph.catalogs.archives.provenance import record
from truemorph.catalogs.archives.web import Web
from truemorph.errors import InputError, TruemorphError

BODY = np.random.default_rng(0).bytes(300_000)
OTHER = np.random.default_rng(1).bytes(300_000)
MD5 = f"md5:{hashlib.md5(BODY).hexdigest()}"
SHA256 = hashlib.sha256(BODY).hexdigest()


def zipped(body=b"x" * 100):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a.txt", body)
    return out.getvalue()


def left(folder):
    """What is in a folder, locks aside."""
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data.bin"


def test_a_file_arrives_once(server, web, path):
    url = server.put("/data", BODY)
    done = download(web, url, path, checksum=MD5, size=len(BODY))
    assert path.read_bytes() == BODY
    assert (done.path, done.url, done.bytes, done.sha256, done.fetched) == (path, url, len(BODY), SHA256, True)
    assert left(path.parent) == ["data.bin"]
    again = download(web, url, path, checksum=MD5)
    assert not again.fetched
    assert again.sha256 == SHA256
    assert len(server.requests) == 1


@pytest.mark.parametrize("after", [0, 5_000, 100_000, 299_999])
def test_cut_files_go_on_where_they_were(server, web, path, after):
    url = server.put("/data", BODY)
    server.script("/data", cut(after))
    download(web, url, path)
    assert path.read_bytes() == BODY
    ranges = [request.headers.get("Range") for request in server.requests]
    assert ranges == [None, f"bytes={after}-" if after else None]
    if after:
        assert server.requests[1].headers["If-Range"].startswith('"')


def test_a_file_cut_again_and_again_arrives(server, web, path):
    url = server.put("/data", BODY)
    server.script("/data", *[cut(20_000)] * 14)
    download(web, url, path, checksum=MD5)
    assert path.read_bytes() == BODY
    assert len(server.requests) == 15  # three times as many as tries without any gain


def test_a_server_that_drips_is_given_up_and_what_came_is_kept(server, web, path):
    url = server.put("/data", BODY)
    server.script("/data", cut(5000), *[cut(10)] * 4)
    with pytest.raises(TruemorphError, match=r"the connection was cut \(5 tries\); run the same again later, what has"):
        download(web, url, path)
    assert not path.exists()
    assert (path.parent / "data.bin.part").read_bytes() == BODY[:5040]
    download(web, url, path)
    assert path.read_bytes() == BODY
    assert server.requests[-1].headers["Range"] == "bytes=5040-"


def test_silence_in_the_middle_is_a_cut(server, impatient, path):
    url = server.put("/data", BODY)
    server.script("/data", cut(100_000, hang=30.0))
    download(impatient, url, path)
    assert path.read_bytes() == BODY
    assert server.requests[1].headers["Range"] == "bytes=100000-"


def test_busy_servers_are_waited_for(server, web, path, waits):
    url = server.put("/data", BODY)
    server.script("/data", cut(100_000), busy(503, "9"))
    download(web, url, path, checksum=MD5)
    assert path.read_bytes() == BODY
    assert 9.0 <= waits[1] <= 10.0


def test_servers_without_ranges_start_anew(server, web, path):
    url = server.put("/data", BODY, ranges=False)
    server.script("/data", Answer(cut=100_000, ranges=False))
    download(web, url, path)
    assert path.read_bytes() == BODY


def test_a_file_replaced_between_two_parts_starts_anew(server, web, path):
    url = server.put("/data", OTHER)
    server.script("/data", Answer(BODY, cut=100_000))
    download(web, url, path)
    assert path.read_bytes() == OTHER
    assert server.requests[1].headers["If-Range"] == f'"{MD5[4:]}"'
    assert len(server.requests) == 2


def test_a_server_that_ignores_if_range_is_found_out(server, web, path):
    url = server.put("/data", BODY)
    part = OTHER[100_000:]
    server.script(
        "/data",
        cut(100_000),
        # The rest of another file, as a 206: by its ETag it is another.
        Answer(part, 206, headers={"ETag": '"other"', "Content-Range": "bytes 100000-299999/300000"}),
    )
    download(web, url, path)
    assert path.read_bytes() == BODY
    assert len(server.requests) == 3


def test_a_server_that_tells_dates_only(server, web, path):
    """No ETag: Last-Modified says whether a file is the same."""
    first, second = ({"Last-Modified": http_date(-seconds)} for seconds in (9000, 8000))
    url = server.put("/data", BODY, etag=None, headers=second)
    server.script(
        "/data",
        Answer(OTHER, cut=100_000, etag=None, headers=first),
        Answer(BODY[100_000:], 206, headers={"Content-Range": "bytes 100000-299999/300000"} | second),
    )
    download(web, url, path)
    assert path.read_bytes() == BODY
    assert server.requests[1].headers["If-Range"] == first["Last-Modified"]
    assert len(server.requests) == 3


@pytest.mark.parametrize("content_range", ["bytes 0-199999/300000", "bytes 100000-299999/300001", "nonsense"])
def test_parts_that_were_not_asked_for_are_refused(server, web, path, content_range):
    url = server.put("/data", BODY)
    server.script("/data", cut(100_000), Answer(BODY[:200_000], 206, headers={"Content-Range": content_range}))
    download(web, url, path)
    assert path.read_bytes() == BODY


def test_without_etag_and_date_nothing_is_resumed(server, web, path):
    url = server.put("/data", BODY, etag=None)
    server.script("/data", Answer(cut=100_000, etag=None))
    download(web, url, path)
    assert path.read_bytes() == BODY
    assert "Range" not in server.requests[1].headers


def test_weak_etags_promise_nothing(server, web, path):
    url = server.put("/data", BODY, etag='W/"1"')
    server.script("/data", Answer(cut=100_000, etag='W/"1"'))
    download(web, url, path)
    assert path.read_bytes() == BODY
    assert "Range" not in server.requests[1].headers


def test_a_part_of_another_address_is_not_gone_on_with(server, web, path):
    one, two = server.put("/one", BODY), server.put("/two", OTHER, etag=f'"{hashlib.md5(BODY).hexdigest()}"')
    server.script("/one", *[cut(10)] * 5)
    with pytest.raises(TruemorphError):
        download(web, one, path)
    download(web, two, path)
    assert path.read_bytes() == OTHER
    assert "Range" not in server.asked("/two")[0].headers


@pytest.mark.parametrize("about", ["", "[]", '{"url": 3, "more": 1}', None])
def test_a_part_that_nobody_describes_starts_anew(server, web, path, about):
    url = server.put("/data", BODY)
    (path.parent / "data.bin.part").write_bytes(OTHER[:1000])
    if about is not None:
        (path.parent / "data.bin.part.json").write_text(about)
    download(web, url, path)
    assert path.read_bytes() == BODY


def test_a_part_that_is_whole_needs_no_more_than_its_name(server, web, path):
    url = server.put("/data", BODY)
    part = parts.Part(path)
    part.begin(parts.Source(url, '"1"', None, len(BODY)))
    part.path.write_bytes(BODY)
    download(web, url, path, checksum=MD5)
    assert path.read_bytes() == BODY
    assert server.requests == []


def test_a_part_longer_than_the_file_starts_anew(server, web, path):
    url = server.put("/data", BODY)
    part = parts.Part(path)
    part.begin(parts.Source(url, f'"{hashlib.md5(BODY).hexdigest()}"', None, None))
    part.path.write_bytes(BODY + b"more")
    download(web, url, path)
    assert path.read_bytes() == BODY
    assert [request.headers.get("Range") for request in server.requests] == ["bytes=300004-", None]


def test_wrong_checksum_is_tried_once_more_and_then_refused(server, web, path, capsys):
    url = server.put("/data", BODY)
    server.script("/data", Answer(OTHER))
    download(web, url, path, checksum=MD5)
    assert path.read_bytes() == BODY
    assert "fetched once more from the start" in capsys.readouterr().err
    path.unlink()
    server.script("/data", Answer(OTHER), Answer(OTHER))
    with pytest.raises(TruemorphError, match=rf"twice not the file that was published: its md5 is {'.' * 32} in place"):
        download(web, url, path, checksum=MD5)
    assert left(path.parent) == []


def test_wrong_size_is_refused_before_it_is_fetched(server, web, path):
    url = server.put("/data", BODY)
    with pytest.raises(TruemorphError, match=r"twice not the file .* the server has 300,000 bytes in place of 300,001"):
        download(web, url, path, size=300_001)
    assert left(path.parent) == []


def test_wrong_size_without_length_is_refused(server, web, path):
    url = server.put("/data", BODY, length=False)
    with pytest.raises(TruemorphError, match="more than 299,000 bytes came"):
        download(web, url, path, size=299_000)
    with pytest.raises(TruemorphError, match="it has 300,000 bytes in place of 300,001"):
        download(web, url, path, size=300_001)
    assert left(path.parent) == []


@pytest.mark.parametrize("answer", [{"chunked": True}, {"length": False}, {"encoded": True}])
def test_other_ways_to_send_a_file(server, web, path, answer):
    url = server.put("/data", BODY, **answer)
    server.script("/data", Answer(cut=100_000, **answer))
    download(web, url, path, checksum=MD5)
    assert path.read_bytes() == BODY


def test_gzip_files_that_a_store_calls_encoded_stay_gzip_files(server, web, path):
    table = gzip.compress(b"a,b\n1,2\n", mtime=0)
    for name in ("/t.csv.gz", "/t.csv.gz?download=1"):
        server.put("/t.csv.gz", table, headers={"Content-Encoding": "gzip"})
        download(web, server.url(name), path, expect="gzip")
        assert path.read_bytes() == table
        path.unlink()
    server.put("/t.csv.gz", table, encoded=True)  # compressed once more for the way
    download(web, server.url("/t.csv.gz"), path, expect="gzip")
    assert path.read_bytes() == table


@pytest.mark.parametrize("encoding", ["br", "gzip"])
def test_bodies_that_cannot_be_decompressed(server, web, path, encoding):
    url = server.put("/data", b"neither", headers={"Content-Encoding": encoding})
    with pytest.raises(TruemorphError, match=r"sent as br, which was not asked for|the answer can't be decompressed"):
        download(web, url, path)
    assert not path.exists()


@pytest.mark.parametrize(
    ("expect", "whole"), [("zip", zipped()), ("gzip", gzip.compress(BODY[:5000], mtime=0))], ids=["zip", "gzip"]
)
def test_archives_without_their_end_are_noticed_without_length(server, web, path, expect, whole):
    url = server.put("/data", whole)
    server.script("/data", Answer(length=False, cut=len(whole) - 9, etag=None))
    download(web, url, path, expect=expect)
    assert path.read_bytes() == whole
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("expect", "whole"),
    [
        ("votable", b"<VOTABLE><TR><TD>1</TD></TR></VOTABLE>\n"),
        ("json", b'{"files": [1]}'),
        ("image", b"\xff\xd8\xff\xe0 pixels \xff\xd9"),
        ("fits", b"SIMPLE  =                    T".ljust(5760)),
    ],
)
def test_files_that_say_where_they_end_are_noticed_too(server, web, path, expect, whole):
    url = server.put("/data", whole)
    server.script("/data", Answer(length=False, cut=len(whole) - 4, etag=None))
    download(web, url, path, expect=expect)
    assert path.read_bytes() == whole
    assert len(server.requests) == 2


def test_what_cannot_be_checked_is_said(server, web, path, capsys):
    table = b"a,b\n1,2\n"
    url = server.put("/t.csv", table, length=False)
    download(web, url, path, expect="csv")
    assert "whether all of it came can't be checked" in capsys.readouterr().err
    path.unlink()
    download(web, url, path, expect="csv", size=len(table))
    path.unlink()
    download(web, server.put("/u.csv", table, chunked=True), path, expect="csv")
    assert capsys.readouterr().err == ""


def test_a_page_is_named_before_its_size(server, web, path):
    url = server.put("/data", zipped())
    server.script("/data", page())
    with pytest.raises(TruemorphError, match="wanted a zip file, got a web page"):
        download(web, url, path, expect="zip", size=len(zipped()))


def test_page_in_place_of_a_file_is_refused_and_nothing_written(server, web, path):
    url = server.put("/data", zipped())
    server.script("/data", page())
    with pytest.raises(TruemorphError, match=r"wanted a zip file, got a web page, which says \"Sorry We are down"):
        download(web, url, path, expect="zip")
    assert not path.exists()
    assert parts.Part(path).size() == 0
    download(web, url, path, expect="zip")
    assert path.read_bytes() == zipped()


def test_page_after_a_cut_leaves_the_part_as_it_is(server, web, path):
    whole = zipped(BODY)
    url = server.put("/data", whole)
    server.script("/data", cut(100_000), page())
    with pytest.raises(TruemorphError, match="wanted a zip file, got a web page"):
        download(web, url, path, expect="zip")
    assert parts.Part(path).size() == 100_000
    download(web, url, path, expect="zip")
    assert path.read_bytes() == whole
    assert server.requests[-1].headers["Range"] == "bytes=100000-"


def test_redirects_are_followed(server, web, path):
    server.put("/new", BODY)
    server.script("/old", redirect("/new"), redirect("/new"))
    server.script("/new", cut(100_000))
    download(web, server.url("/old"), path, checksum=MD5)
    assert path.read_bytes() == BODY
    assert server.asked("/new")[1].headers["Range"] == "bytes=100000-"


def test_missing_files_are_named(server, web, path):
    with pytest.raises(TruemorphError, match=r"data.bin \(http.*/gone\): HTTP 404 .* it may have moved"):
        download(web, server.url("/gone"), path)
    assert left(path.parent) == []


def test_offline_a_file_is_there_or_it_is_said_how_to_get_it(server, path):
    url = server.put("/data", BODY)
    offline = Web(offline=True)
    with pytest.raises(TruemorphError, match=rf"data.bin: not there, and this is offline; .* put the file from {url}"):
        download(offline, url, path, checksum=MD5)
    path.write_bytes(BODY)
    assert not download(offline, url, path, checksum=MD5).fetched
    assert not download(offline, url, path).fetched
    path.write_bytes(BODY[:-1])
    with pytest.raises(TruemorphError, match=r"not the file from .*its md5 is .*and this is offline"):
        download(offline, url, path, checksum=MD5)
    assert server.requests == []


def test_a_file_that_is_not_what_it_was_is_fetched_anew(server, web, path, capsys):
    url = server.put("/data", BODY)
    done = download(web, url, path)
    record(path.parent, path, address=addresses()["gz2.mapping"], url=url, sha256=done.sha256, bytes=done.bytes)
    assert not download(web, url, path).fetched
    path.write_bytes(OTHER)
    assert download(web, url, path).fetched
    assert path.read_bytes() == BODY
    assert "fetched anew: it has changed since" in capsys.readouterr().err
    # Another address, and no checksum to say that it is the same file.
    assert download(web, server.put("/other", OTHER), path).fetched
    assert path.read_bytes() == OTHER


def test_a_wrong_file_stays_until_the_right_one_is_whole(server, web, path):
    path.write_bytes(OTHER)
    url = server.put("/data", BODY)
    server.script("/data", *[cut(10)] * 5)
    with pytest.raises(TruemorphError):
        download(web, url, path, checksum=MD5)
    assert path.read_bytes() == OTHER


def test_a_full_disk_keeps_what_came_and_says_where(server, web, path, monkeypatch):
    url = server.put("/data", BODY)
    append, written = parts.Part.append, []

    def full(self, file, piece):
        if sum(written) + len(piece) > 150_000:
            append(self, file, piece[: 150_000 - sum(written)])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(len(piece))
        append(self, file, piece)

    monkeypatch.setattr(parts.Part, "append", full)
    with pytest.raises(TruemorphError) as problem:
        download(web, url, path)
    assert str(problem.value) == (
        f"data.bin: 300.0 kB to come, and {path.parent} takes no more (No space left on device); make room there and "
        "run the same again, what has arrived is kept, or choose another folder (--out)"
    )
    assert not path.exists()
    monkeypatch.setattr(parts.Part, "append", append)
    download(web, url, path, checksum=MD5)
    assert path.read_bytes() == BODY
    assert server.requests[-1].headers["Range"] == "bytes=150000-"


LIMITED = """
import resource, signal, sys
from pathlib import Path
from truemorph.catalogs.archives.download import download
from truemorph.catalogs.archives.web import Web
from truemorph.errors import TruemorphError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))
try:
    download(Web(per_second=1e6), sys.argv[1], Path(sys.argv[2]))
except TruemorphError as problem:
    print(problem)
"""


def test_a_file_system_that_really_takes_no_more(server, web, path):
    """The kernel refuses: a file may not grow beyond 150,000 bytes."""
    url = server.put("/data", BODY)
    child = subprocess.run([sys.executable, "-c", LIMITED, url, str(path)], capture_output=True, text=True, check=True)
    assert f"data.bin: 300.0 kB to come, and {path.parent} takes no more (File too large)" in child.stdout
    assert child.stderr == ""
    assert not path.exists()
    assert parts.Part(path).path.read_bytes() == BODY[:150_000]
    download(web, url, path, checksum=MD5)
    assert path.read_bytes() == BODY
    assert server.requests[-1].headers["Range"] == "bytes=150000-"


def test_a_disk_too_small_is_said_before_anything_comes(server, web, path, monkeypatch):
    url = server.put("/data", BODY)
    usage = parts.shutil.disk_usage(path.parent)
    monkeypatch.setattr(parts.shutil, "disk_usage", lambda folder: usage._replace(free=1000))
    with pytest.raises(TruemorphError, match=r"data.bin: 300.0 kB to come, and 1.0 kB are free in"):
        download(web, url, path)
    assert not path.exists()


def test_ctrl_c_leaves_a_part_that_goes_on(server, web, path, monkeypatch):
    url = server.put("/data", BODY)
    append = parts.Part.append

    def interrupted(self, file, piece):
        append(self, file, piece[:100_000])
        raise KeyboardInterrupt

    monkeypatch.setattr(parts.Part, "append", interrupted)
    with pytest.raises(KeyboardInterrupt):
        download(web, url, path)
    monkeypatch.setattr(parts.Part, "append", append)
    have = parts.Part(path).size()
    assert 0 < have <= 100_000
    assert not path.exists()
    download(web, url, path, checksum=MD5)
    assert path.read_bytes() == BODY
    assert server.requests[-1].headers["Range"] == f"bytes={have}-"


CHILD = """
import sys
from truemorph.catalogs.archives.download import download
from truemorph.catalogs.archives.web import Web
download(Web(per_second=1e6), sys.argv[1], sys.argv[2])
"""


def start(url, path):
    return subprocess.Popen([sys.executable, "-c", CHILD, url, str(path)], stderr=subprocess.PIPE, text=True)


def wait_for(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.01)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_process_leaves_a_part_that_goes_on(server, web, path, how):
    url = server.put("/data", BODY)
    server.script("/data", cut(200_000, hang=30.0))
    with start(url, path) as child:
        wait_for(lambda: parts.Part(path).size() == 200_000)
        child.send_signal(how)
        child.wait()
    assert not path.exists()
    download(web, url, path, checksum=MD5)
    assert path.read_bytes() == BODY
    assert server.requests[-1].headers["Range"] == "bytes=200000-"


@pytest.mark.slow
def test_killed_at_any_time_nothing_half_is_taken_for_whole(server, web, path):
    url = server.put("/data", BODY, slow=0.02)
    rng, kills = np.random.default_rng(2), 0
    while not path.exists():
        before = parts.Part(path).size()
        with start(url, path) as child:
            # At least a tenth more each time, so that it comes to an end.
            wait_for(lambda least=before + 30_000: path.exists() or parts.Part(path).size() >= least)
            time.sleep(rng.uniform(0, 0.05))
            child.kill()
            child.wait()
        kills += 1
        if path.exists():
            assert path.read_bytes() == BODY
        else:
            assert BODY.startswith(parts.Part(path).path.read_bytes())
    assert kills >= 3
    assert not download(web, url, path, checksum=MD5).fetched


def test_of_two_processes_one_fetches_and_the_other_waits(server, path):
    go_on = threading.Event()

    def late(request):
        go_on.wait(30)
        return BODY

    url = server.route("/data", late)
    with start(url, path) as one:
        wait_for(lambda: server.requests)
        with start(url, path) as two:
            assert "another process is fetching it; waiting for that" in two.stderr.readline()
            go_on.set()
            assert one.wait() == 0
            assert two.wait() == 0
    assert path.read_bytes() == BODY
    assert len(server.requests) == 1


def test_progress_is_told(server, web, path, monkeypatch):
    told = []

    class Bar:
        def __init__(self, total, what, unit, initial=0):
            told.append([total, what, unit, initial])

        def update(self, n):
            told[-1].append(n)

        def __enter__(self):
            return self

        def __exit__(self, *problem):
            pass

    monkeypatch.setattr("truemorph.catalogs.archives.download.progress", Bar)
    url = server.put("/data", BODY)
    server.script("/data", cut(100_000))
    download(web, url, path)
    assert [one[:4] for one in told] == [[300_000, "data.bin", "B", 0], [300_000, "data.bin", "B", 100_000]]
    assert [sum(one[4:]) for one in told] == [100_000, 200_000]


@pytest.mark.parametrize("checksum", ["d41d8cd98f00b204e9800998ecf8427e", "md6:00", "md5:00"])
def test_checksums_that_are_none(server, web, path, checksum):
    with pytest.raises(InputError, match="a checksum is"):
        download(web, server.put("/data", BODY), path, checksum=checksum)


def test_places_that_cannot_be_written_to(server, web, tmp_path):
    url = server.put("/data", BODY)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="choose another folder"):
        download(web, url, tmp_path / "file" / "data.bin")
    with pytest.raises(InputError, match="a folder is where the file should be"):
        download(web, url, tmp_path)


def test_a_part_says_of_what_it_is(server, web, path):
    url = server.put("/data", BODY)
    server.script("/data", cut(5000), *[cut(10)] * 4)
    with pytest.raises(TruemorphError):
        download(web, url, path)
    about = json.loads((path.parent / "data.bin.part.json").read_text())
    assert about == {"url": url, "etag": f'"{MD5[4:]}"', "last_modified": None, "size": 300_000}
