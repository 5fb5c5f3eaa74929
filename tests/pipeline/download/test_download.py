"""Downloads from a server that misbehaves: whole files or none, resumed where they broke off, each failure named."""

import email.utils
import gzip
import http.client
import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from corpus import ROOT
from hypothesis import given
from hypothesis import strategies as st
from misbehaving_server import Answer, Server, file, hang_up, mute, raw, serving, silent, status

from filters.errors import UserError
from pipeline.__main__ import main
from pipeline.download import http as http_module
from pipeline.download.download import check_target, download, format_results
from pipeline.download.http import DownloadResult, RemoteFile, RetryPolicy, State
from pipeline.download.layouts import MAX_LIST_LINES, parse_slice

QUICK = RetryPolicy(attempts=4, backoff=0.001, max_wait=0.01, timeout=120)
"""soon tries again, but leaves a busy machine the time to answer"""

IMPATIENT = RetryPolicy(attempts=4, backoff=0.001, max_wait=0.01, timeout=1)
"""for a server that says nothing"""

BODY = random.Random(0).randbytes(300_000)
CUT = 100_000
LIST = "/crawl-data/CC-MAIN-2019-30/warc.paths.gz"
REDIRECT = "HTTP 302, a redirect in circles, too long, or without a valid target"
DATE = "Mon, 15 Jul 2019 10:00:00 GMT"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving() as running:
        yield running


def get(url: str, folder: Path, policy: RetryPolicy = QUICK) -> DownloadResult:
    (outcome,) = download([RemoteFile(url, "deep/a.gz")], folder, policy)
    return outcome


def said(code: int) -> str:
    """Return what is reported of a code: its words are of Python's library, which has changed some."""
    return f"HTTP {code} {http.client.responses[code]}"


def left(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def begin(server: Server, folder: Path, etag: str | None = '"1"', **headers: str) -> None:
    """Leave a partial file of the first CUT bytes."""
    url = server.plan("/a", file(BODY, etag, cut=CUT, **headers))
    assert get(url, folder, RetryPolicy(attempts=1)).state is State.FAILED
    assert (folder / "deep/a.gz.part").read_bytes() == BODY[:CUT]
    server.requests.clear()


@pytest.mark.parametrize(
    "answers",
    [
        [file(BODY)],
        [status(403), file(BODY)],
        [status(503), status(503), status(503), file(BODY)],
        [status(500), status(502), status(504), file(BODY)],
        [status(429, Retry_After="soon"), status(429, Retry_After=DATE), file(BODY)],
        [file(BODY, cut=CUT), file(BODY)],
        [file(BODY, cut=CUT), file(BODY, ranges=False)],
        [file(BODY, None, cut=CUT), file(BODY, None)],
        [file(BODY, 'W/"1"', cut=CUT), file(BODY, 'W/"1"')],
        [file(BODY, cut=CUT), file(BODY[::-1], '"0"', cut=CUT), file(BODY, '"2"')],
        [file(BODY, cut=CUT), status(416), file(BODY)],
        [raw(200, BODY[:CUT], ETag='"1"', Transfer_Encoding="chunked"), file(BODY)],
        [raw(200, b"493e0\r\n" + BODY + b"\r\n0\r\n\r\n", Transfer_Encoding="chunked", Content_Length="5")],
        [hang_up, file(BODY)],
        [status(302, Location="/b")],
        [raw(200, BODY)],
        [raw(200, BODY + b"more than it said", Content_Length=str(len(BODY)))],
    ],
)
def test_the_file_comes_whole_in_the_end(server: Server, tmp_path: Path, answers: list[Answer]) -> None:
    server.plan("/b", file(BODY))
    wanted = RemoteFile(server.plan("/a", *answers), "deep/a.gz")
    assert get(wanted.url, tmp_path) == DownloadResult(wanted, State.FETCHED)
    assert (tmp_path / "deep/a.gz").read_bytes() == BODY
    assert left(tmp_path) == ["deep/a.gz"]


@pytest.mark.parametrize("answer", [mute, silent(), silent(BODY[:CUT], len(BODY))])
def test_a_server_that_goes_silent_is_asked_again(server: Server, tmp_path: Path, answer: Answer) -> None:
    assert get(server.plan("/a", answer, file(BODY)), tmp_path, IMPATIENT).state is State.FETCHED
    assert (tmp_path / "deep/a.gz").read_bytes() == BODY
    assert left(tmp_path) == ["deep/a.gz"]


@pytest.mark.parametrize(
    ("answer", "reason", "attempts"),
    [
        (status(404), said(404), 1),
        (status(410), said(410), 1),
        (status(418), said(418), 1),
        (status(799), "HTTP 799", 1),
        (status(204), said(204), 1),
        (status(206, BODY), said(206), 1),
        (status(416), said(416), 1),
        (status(503), f"{said(503)}; 4 attempts", 4),
        (status(429, Retry_After="86400"), f"{said(429)}; the server asks to wait 86,400 s", 1),
        (status(302, Location="/a"), REDIRECT, 5),
        (status(302, Location="file:///etc/passwd"), REDIRECT, 1),
        (status(302, Location="ftp://a.example/"), REDIRECT, 1),
        (status(302, Location="http://[/"), "not a valid URL", 1),
        (status(302), REDIRECT, 1),
        (hang_up, "connection broken (RemoteDisconnected); 4 attempts", 4),
        (mute, "no data for 1 s; 4 attempts", 4),
    ],
)
def test_what_cannot_be_had_is_named_and_leaves_nothing(
    server: Server, tmp_path: Path, answer: Answer, reason: str, attempts: int
) -> None:
    outcome = get(server.plan("/a", answer), tmp_path, IMPATIENT if answer is mute else QUICK)
    assert (outcome.state, outcome.reason) == (State.FAILED, reason)
    assert len(server.requests) == attempts
    assert left(tmp_path) == []
    assert format_results([outcome]) == f"1 files: 1 failed\n  deep/a.gz: {reason}"


def test_a_body_that_is_always_short_is_never_taken_for_the_file(server: Server, tmp_path: Path) -> None:
    outcome = get(server.plan("/a", raw(200, BODY[:CUT], Content_Length="300000")), tmp_path)
    assert outcome.reason == "broke off after 100,000 of 300,000 bytes; 4 attempts"
    assert left(tmp_path) == ["deep/a.gz.part", "deep/a.gz.part.json"]


def test_the_rest_is_asked_for_of_the_same_version(server: Server, tmp_path: Path) -> None:
    begin(server, tmp_path)
    assert get(server.plan("/a", file(BODY)), tmp_path).state is State.FETCHED
    assert server.asked("/a") == ["bytes=100000-"] and server.asked("/a", "If-Range") == ['"1"']
    assert (tmp_path / "deep/a.gz").read_bytes() == BODY


def test_a_modification_date_does_where_there_is_no_strong_etag(server: Server, tmp_path: Path) -> None:
    begin(server, tmp_path, 'W/"1"', Last_Modified=DATE)
    assert get(server.plan("/a", file(BODY, 'W/"1"', Last_Modified=DATE)), tmp_path).state is State.FETCHED
    assert server.asked("/a", "If-Range") == [DATE]


@pytest.mark.parametrize("etag", [None, 'W/"1"'])
def test_nothing_is_resumed_that_may_have_changed_unseen(server: Server, tmp_path: Path, etag: str | None) -> None:
    begin(server, tmp_path, etag)
    assert get(server.plan("/a", file(BODY, etag)), tmp_path).state is State.FETCHED
    assert server.asked("/a") == [None]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content_Range": "bytes 0-199999/300000"},
        {"Content_Range": "bytes 100000-299999/300001"},
        {"Content_Range": "bytes 100000-299999/299999"},
        {"Content_Range": "bytes 100000-99999/300000"},
        {"Content_Range": "bytes 100000-299998/300000"},
        {"Content_Range": "bytes 100000-299999/300000", "ETag": '"2"'},
        {"Content_Range": "bytes 100000-٣/300000".encode().decode("latin-1")},
    ],
)
def test_a_partial_answer_that_does_not_fit_starts_the_file_anew(
    server: Server, tmp_path: Path, headers: dict[str, str]
) -> None:
    begin(server, tmp_path)
    wrong = status(206, b"x" * 200_000, **headers)
    assert get(server.plan("/a", wrong, file(BODY)), tmp_path).state is State.FETCHED
    assert server.asked("/a") == ["bytes=100000-", None]
    assert (tmp_path / "deep/a.gz").read_bytes() == BODY


def test_a_server_may_answer_with_less_than_the_rest(server: Server, tmp_path: Path) -> None:
    begin(server, tmp_path)
    some = status(206, BODY[CUT:150_000], Content_Range="bytes 100000-149999/300000")
    assert get(server.plan("/a", some, file(BODY)), tmp_path).state is State.FETCHED
    assert server.asked("/a") == ["bytes=100000-", "bytes=150000-"]
    assert (tmp_path / "deep/a.gz").read_bytes() == BODY


@pytest.mark.parametrize("notes", [b"", b"[]", b"{}", b'{"url": 1}', b"\xff", None, b"other"])
def test_a_partial_file_without_sound_notes_is_started_anew(
    server: Server, tmp_path: Path, notes: bytes | None
) -> None:
    begin(server, tmp_path)
    path = tmp_path / "deep/a.gz.part.json"
    if notes is None:
        path.unlink()
    elif notes == b"other":
        path.write_text(
            json.dumps(json.loads(path.read_bytes()) | {"url": "http://elsewhere.example/a"}), encoding="utf-8"
        )
    else:
        path.write_bytes(notes)
    assert get(server.plan("/a", file(BODY)), tmp_path).state is State.FETCHED
    assert server.asked("/a") == [None]
    assert (tmp_path / "deep/a.gz").read_bytes() == BODY


def test_a_run_killed_before_the_renaming_needs_no_request(server: Server, tmp_path: Path) -> None:
    begin(server, tmp_path)
    (tmp_path / "deep/a.gz.part").write_bytes(BODY)
    assert get(f"{server.url}/a", tmp_path).state is State.FETCHED
    assert not server.requests and (tmp_path / "deep/a.gz").read_bytes() == BODY


def test_a_partial_file_longer_than_the_file_is_started_anew(server: Server, tmp_path: Path) -> None:
    begin(server, tmp_path)
    (tmp_path / "deep/a.gz.part").write_bytes(BODY + b"x")
    assert get(server.plan("/a", file(BODY)), tmp_path).state is State.FETCHED
    assert (tmp_path / "deep/a.gz").read_bytes() == BODY


def test_an_empty_file_is_a_file(server: Server, tmp_path: Path) -> None:
    assert get(server.plan("/a", file(b"")), tmp_path).state is State.FETCHED
    assert (tmp_path / "deep/a.gz").read_bytes() == b""


def test_what_is_there_is_not_asked_for_again(server: Server, tmp_path: Path) -> None:
    get(server.plan("/a", file(BODY)), tmp_path)
    server.requests.clear()
    said = io.StringIO()
    (outcome,) = download([RemoteFile(f"{server.url}/a", "deep/a.gz")], tmp_path, QUICK, terminal=said)
    assert outcome.state is State.PRESENT and not server.requests
    assert said.getvalue() == "deep/a.gz: already there\n"


def test_a_folder_of_that_name_costs_that_file_only(server: Server, tmp_path: Path) -> None:
    (tmp_path / "deep/a.gz").mkdir(parents=True)
    (tmp_path / "flat").write_text("", encoding="utf-8")
    url = server.plan("/a", file(BODY))
    outcomes = download([RemoteFile(url, target) for target in ("deep/a.gz", "flat/a.gz", "b.gz")], tmp_path, QUICK)
    assert [outcome.state for outcome in outcomes] == [State.FAILED, State.FAILED, State.FETCHED]
    assert outcomes[0].reason == "its name is taken by something that is not a file"
    assert outcomes[1].reason.startswith("cannot be written: ")


def test_a_file_that_another_process_fetches_is_left_to_it(server: Server, tmp_path: Path) -> None:
    hold = (
        "import fcntl, sys; f = open(sys.argv[1], 'ab'); fcntl.flock(f, fcntl.LOCK_EX); print(1, flush=True); input()"
    )
    (tmp_path / "deep").mkdir()
    command = [sys.executable, "-c", hold, str(tmp_path / "deep/a.gz.part")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout and other.stdout.readline()
        outcome = get(server.plan("/a", file(BODY)), tmp_path)
        other.communicate(b"\n")
    assert outcome.reason == "another process is fetching it" and not server.requests


def test_a_partial_file_that_another_process_has_removed_and_begun_anew_is_left_to_it(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that failed removes its empty file after this one has opened it, and a third begins another."""
    locks = http_module.lock

    def lock(file: IO[bytes]) -> bool:
        Path(file.name).unlink()
        Path(file.name).write_bytes(b"a beginning")
        return locks(file)

    monkeypatch.setattr(http_module, "lock", lock)
    result = get(server.plan("/a", file(BODY)), tmp_path)
    assert (result.state, result.reason) == (State.FAILED, "another process is fetching it")
    assert [path.read_bytes() for path in tmp_path.rglob("*.*")] == [b"a beginning"]


def test_the_bytes_are_on_the_disk_before_the_name(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = list[int]()

    def sync(descriptor: int) -> None:
        assert [path.suffix for path in tmp_path.rglob("a.gz*") if path.suffix != ".json"] == [".part"]
        synced.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(os, "fsync", sync)
    assert get(server.plan("/a", file(BODY)), tmp_path).state is State.FETCHED
    assert synced[-1] == len(BODY)


def test_a_wait_that_the_server_asks_for_holds_for_every_file_of_that_host(server: Server, tmp_path: Path) -> None:
    first = server.plan("/a", status(429, Retry_After="1"), file(BODY))
    second = server.plan("/b", file(BODY))
    begun = time.monotonic()
    outcomes = download([RemoteFile(first, "a"), RemoteFile(second, "b")], tmp_path, QUICK, parallel=1)
    assert [outcome.state for outcome in outcomes] == [State.FETCHED] * 2
    assert time.monotonic() - begun >= 1
    date = email.utils.formatdate(time.time() + 7200, usegmt=True)
    outcome = get(server.plan("/a", status(503, Retry_After=date)), tmp_path)
    assert "the server asks to wait 7," in outcome.reason


def test_waits_double_up_to_the_longest() -> None:
    policy = RetryPolicy(backoff=2, max_wait=100)
    assert [policy.wait(n) for n in range(1, 8)] == [2, 4, 8, 16, 32, 64, 100]
    assert policy.wait(10**9) == 100


def test_several_files_at_a_time_in_the_order_given(server: Server, tmp_path: Path) -> None:
    together = threading.Barrier(3, timeout=600)

    def meet(answer: Answer) -> Answer:
        return lambda handler: (together.wait(), answer(handler))[1]

    answers = [file(b"0"), status(404), file(b"2")]
    wanted = [RemoteFile(server.plan(f"/{n}", meet(answer)), f"f{n}") for n, answer in enumerate(answers)]
    outcomes = download(wanted, tmp_path, QUICK, parallel=3)
    assert [outcome.state for outcome in outcomes] == [State.FETCHED, State.FAILED, State.FETCHED]
    assert [outcome.file for outcome in outcomes] == wanted


@pytest.mark.parametrize(
    "url", ["ftp://a.example/a", "file:///etc/passwd", "http://[/a", "http://a.example/\x00", "", "http://a.example:x/"]
)
def test_an_address_that_is_none_is_not_tried_twice(tmp_path: Path, url: str) -> None:
    outcome = get(url, tmp_path)
    assert outcome.reason in ("not a valid URL", "not an http or https URL")


@pytest.mark.parametrize(
    "target",
    ["", "/etc/x", "../x", "a/../../x", "a//b", "a/", "./a", "a/.", "a\\b", "a\nb", "a\0", "a\x1b[2J", "\ud800",
     "a" * 201, "a.part", "a.part.json"],
)  # fmt: skip
def test_a_target_outside_the_folder_is_refused(tmp_path: Path, target: str) -> None:
    with pytest.raises(UserError):
        download([RemoteFile("http://a.example/a", target)], tmp_path, QUICK)
    assert left(tmp_path) == []


def test_two_urls_of_one_target_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="have the same file name 'a'"):
        download([RemoteFile("http://a.example/1", "a"), RemoteFile("http://a.example/2", "a")], tmp_path)


@given(st.text(alphabet="ab./\\\0 ~:\u2215", max_size=12))
def test_a_target_that_is_taken_stays_below(target: str) -> None:
    try:
        check_target(target)
    except UserError:
        return
    joined = os.path.normpath(f"/top/{target}")
    assert joined == f"/top/{target}" and joined != "/top"


# Common Crawl


def crawl(server: Server, lines: int = 3, body: bytes = BODY[:1000]) -> list[str]:
    paths = [f"crawl-data/CC-MAIN-2019-30/segments/1/warc/{n:05}.warc.gz" for n in range(lines)]
    server.plan(LIST, file(gzip.compress("".join(f"{path}\n" for path in paths).encode())))
    for path in paths:
        server.plan(f"/{path}", file(body))
    return paths


def command(server: Server | None, folder: Path, *options: str, files: str = "0:2") -> list[str]:
    given = {"--crawl": "CC-MAIN-2019-30", "--files": files, "--output": str(folder), "--attempts": "3"}
    given |= {"--base-url": server.url if server else "http://a.example/", "--backoff": "0.001", "--timeout": "120"}
    given |= dict(zip(options[::2], options[1::2], strict=True))
    return ["download", "common_crawl", *(f"{name}={value}" for name, value in given.items())]


def test_a_crawls_files_land_under_their_own_paths(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = crawl(server)
    assert main(command(server, tmp_path)) == 0
    assert left(tmp_path) == sorted([*paths[:2], LIST[1:]])
    assert capsys.readouterr().out == "2 files: 2 fetched\n"
    server.requests.clear()
    assert main(command(server, tmp_path, files="1:3")) == 0
    assert [path for path, _ in server.requests] == [f"/{paths[2]}"]
    out, err = capsys.readouterr()
    assert out == "2 files: 1 fetched, 1 already there\n" and f"{paths[1]}: already there\n" in err


def test_a_file_that_cannot_be_had_is_named_at_the_end(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = crawl(server)
    server.plan(f"/{paths[0]}", status(404))
    server.plan(f"/{paths[1]}", status(503))
    assert main(command(server, tmp_path, files=":")) == 1
    out, err = capsys.readouterr()
    assert out == (f"3 files: 1 fetched, 2 failed\n  {paths[0]}: {said(404)}\n  {paths[1]}: {said(503)}; 3 attempts\n")
    assert err.count(f"{paths[1]}: {said(503)}; next attempt in 0 s\n") == 2
    server.plan(LIST, status(503))
    assert main(command(server, tmp_path / "new")) == 1
    assert f"{LIST[1:]}: HTTP 503" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["wet", "wat"])
def test_other_kinds_have_lists_of_their_own(server: Server, tmp_path: Path, kind: str) -> None:
    server.plan(LIST.replace("warc.", f"{kind}."), file(gzip.compress(b"a%20b/c d.gz\r\n\n\na\n")))
    server.plan("/a%2520b/c%20d.gz", file(b"x"))
    assert main(command(server, tmp_path, "--kind", kind, files="0")) == 0
    assert (tmp_path / "a%20b/c d.gz").read_bytes() == b"x"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--crawl", "CC-MAIN-2019"], "is not the name of a crawl: give year and week, such as CC-MAIN-2019-30"),
        (["--crawl", "../CC-MAIN-2019-30"], "is not the name of a crawl"),
        (["--crawl", "CC-MAIN-2019-30\n"], "is not the name of a crawl"),
        (["--crawl", "CC-MAIN-2019-31"], "no such crawl: "),
        (["--files", "a:b"], "is not a slice: give START:STOP, such as 0:8, or one number"),
        (["--files", "0:8:0"], "is not a slice"),
        (["--files", "1:2:3:4"], "is not a slice"),
        (["--files", ""], "is not a slice"),
        (["--files", "9" * 5000], "is not a slice"),
        (["--files", "3:"], "selects nothing: CC-MAIN-2019-30 has 3 warc files"),
        (["--files", "7"], "selects nothing"),
        (["--base-url", "ftp://a.example"], "is not an http or https URL"),
        (["--output", "a-file/below"], "cannot be written"),
    ],
)
def test_mistakes_are_one_sentence(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    options: list[str], words: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("a-file").write_text("", encoding="utf-8")
    crawl(server)
    assert main(command(server, tmp_path, *options)) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and words in said


@pytest.mark.parametrize(
    ("text", "picked"),
    [("5", [5]), ("-1", [9]), ("-2", [8]), ("0:8", list(range(8))), (":3", [0, 1, 2]), ("8:", [8, 9]), ("12", []),
     ("0:10:4", [0, 4, 8]), ("::-1", list(range(9, -1, -1))), (":", list(range(10)))],
)  # fmt: skip
def test_slices_are_pythons(text: str, picked: list[int]) -> None:
    assert list(range(10))[parse_slice(text)] == picked


@pytest.mark.parametrize(
    "lines",
    [b"a\n/etc/passwd\n", b"../x\n", b"a/../../x\n", b"a\\b\n", b"a\x1b[2Jb\n", b"\xff\xfe\n", b"a\0\n", b"x.part\n",
     b"\r\r\n", b"a" * 100_000],
)  # fmt: skip
def test_a_hostile_list_is_refused_whole(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], lines: bytes
) -> None:
    server.plan(LIST, file(gzip.compress(lines)))
    server.plan("/a", file(b"a"))
    assert main(command(server, tmp_path, files=":")) == 2
    said = capsys.readouterr().err
    assert "is not a path below a folder" in said and said.replace("\n", "").isprintable()
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        (b"<html>Sign in to this network</html>", "not a complete gzip file"),
        (gzip.compress(b"a\n" * 1000, mtime=0)[:-9], "not a complete gzip file"),
        (gzip.compress(b"a\n" * 1000, mtime=0)[:-4] + b"\0\0\0\0", "not a complete gzip file"),
        (gzip.compress(b"\n" * (MAX_LIST_LINES + 1), mtime=0), "too large"),
        (gzip.compress(bytes(65 << 20), mtime=0), "too large"),
        (b"", "it lists no files"),
        (gzip.compress(b"\n", mtime=0), "it lists no files"),
    ],
)
def test_a_list_that_is_none_is_refused_and_not_kept(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], stored: bytes, words: str
) -> None:
    server.plan(LIST, file(stored))
    assert main(command(server, tmp_path)) == 2
    assert words in capsys.readouterr().err
    assert left(tmp_path) == []
    crawl(server)
    assert main(command(server, tmp_path)) == 0


def test_a_list_without_end_is_not_stored(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.plan(LIST, raw(200, b"x", Content_Length=str(1 << 40)))
    assert main(command(server, tmp_path)) == 1
    assert "more than 67,108,864 bytes" in capsys.readouterr().out
    (outcome,) = download([RemoteFile(server.plan("/a", raw(200, BODY)), "a", max_bytes=1000)], tmp_path, QUICK)
    assert outcome.reason == "more than 1,000 bytes, too large for such a file"
    assert not (tmp_path / "a").exists()


def test_an_interruption_leaves_partial_files_that_the_same_command_goes_on_with(
    server: Server, tmp_path: Path
) -> None:
    (path,) = crawl(server, 1)
    server.plan(f"/{path}", silent(BODY[:CUT], len(BODY)))
    arguments = command(server, tmp_path, "--timeout", "600", files="0")
    part = tmp_path / f"{path}.part"
    with subprocess.Popen(
        [sys.executable, "-m", "pipeline", *arguments],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell may have had it ignored
    ) as run:
        deadline = time.monotonic() + 600
        while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
            time.sleep(0.02)
        run.send_signal(signal.SIGINT)
        assert run.stderr
        said = run.stderr.read()
        assert run.wait(600) == 130 and said.endswith("stopped: run the same command again to continue\n")
    assert BODY.startswith(part.read_bytes())
    have = part.stat().st_size
    assert have
    server.plan(f"/{path}", file(BODY))
    assert main(arguments) == 0
    assert server.asked(f"/{path}") == [None, f"bytes={have}-"]
    assert (tmp_path / path).read_bytes() == BODY


def test_an_interrupted_call_leaves_no_thread_that_waits(server: Server, tmp_path: Path) -> None:
    wanted = [RemoteFile(server.plan(f"/{n}", status(503)), f"f{n}") for n in range(3)]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    others = set(threading.enumerate())
    main_thread = threading.main_thread().ident
    assert main_thread

    def interrupt() -> None:
        patience = time.monotonic() + 600
        while len(server.requests) < 2 and time.monotonic() < patience:
            time.sleep(0.01)
        signal.pthread_kill(main_thread, signal.SIGINT)

    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            download(wanted, tmp_path, RetryPolicy(backoff=60), parallel=2)
    finally:
        interrupter.join()
        signal.signal(signal.SIGINT, before)
    for thread in set(threading.enumerate()) - others:
        thread.join(60)
        assert not thread.is_alive()
    assert len(server.requests) == 2
