"""Test that folders, S3 and Google Cloud Storage behave alike, and that mirrors never return a wrong file."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import object_stores
import pytest

from filters.errors import UserError
from filters.formats.stored import open_stored
from manifests import storage
from manifests.files import sha256_bytes
from manifests.mirror import (
    RECORDS,
    Mirror,
    StoredDump,
    fetch,
    fetch_url,
    list_folder,
    mirror_folder,
    mirror_of,
    new_corpus,
    open_corpus,
    open_mirror,
    open_range,
    trim,
)
from manifests.storage import Entry, Storage, StorageError, connect


@pytest.fixture(scope="module", params=["file", "s3", "gs"])
def bucket(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if request.param == "file":
        yield tmp_path_factory.mktemp("store").as_uri()
        return
    with object_stores.s3() if request.param == "s3" else object_stores.gs() as url:
        yield url


@pytest.fixture
def stored(bucket: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Storage:
    monkeypatch.setattr(storage, "WAITS", [0.0])
    return connect(f"{bucket}/{sha256_bytes(request.node.name.encode())[:8]}/corpus ä#1?[x]=2")


def test_no_mark_in_a_url_ends_its_path(bucket: str) -> None:
    """If `#` or `?` ended a path, two corpora whose names differ only after this character would be the same."""
    for mark in "#?[]&=;,@!":
        connect(f"{bucket}/marks{mark}{ord(mark)}").write("file", mark.encode())
    for mark in "#?[]&=;,@!":
        here = connect(f"{bucket}/marks{mark}{ord(mark)}")
        assert here.read("file") == mark.encode() and [entry.path for entry in here.list_files()] == ["file"]


@pytest.mark.parametrize("name", ["a/b.bin", "dump.warc.gz", "dump.xml.bz2", "x.zst", "x.lz4", "ä b/c"])
def test_bytes_come_back_as_they_were_written_whatever_the_name(stored: Storage, tmp_path: Path, name: str) -> None:
    data = os.urandom(3000)
    (tmp_path / "local").write_bytes(data)
    stored.publish(tmp_path / "local", name)
    assert stored.read(name) == data and stored.read_range(name, 5, 7) == data[5:12]
    entry = stored.find(name)
    assert entry is not None and (entry.path, entry.bytes) == (name, 3000)
    stored.download(name, tmp_path / "back/again", sha256_bytes(data))
    assert (tmp_path / "back/again").read_bytes() == data
    stored.write(name, b"")
    assert stored.read(name) == b"" and stored.list_files(name.partition("/")[0] if "/" in name else "")


def test_a_new_corpus_that_cannot_be_uploaded_leaves_nothing(stored: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    def write() -> None:
        with new_corpus(stored.url) as folder:
            for name in ("manifest.json", "shards/a", "shards/b"):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_text(name, "utf-8")

    real, sent = Storage.publish, list[str]()

    def publish(self: Storage, source: Path, path: str) -> None:
        if path == "shards/b":
            raise StorageError("the store is full")
        sent.append(path)
        real(self, source, path)

    with monkeypatch.context() as patch, pytest.raises(StorageError):
        patch.setattr(Storage, "publish", publish)
        write()
    assert sent == ["shards/a"] and stored.list_files() == []
    write()
    assert [entry.path for entry in stored.list_files()] == ["manifest.json", "shards/a", "shards/b"]
    with pytest.raises(UserError, match="already exists"):
        write()


@pytest.mark.parametrize("path", ["../x", "/x", "shards/../../x", "a//b", ".", "", "x/.."])
def test_no_name_in_a_store_leads_out_of_its_mirror(stored: Storage, tmp_path: Path, path: str) -> None:
    mirror = Mirror(tmp_path / "here/mirror", stored)
    for fetched in (mirror.fetch, mirror.download, lambda name: mirror.fetch_all([name])):
        with pytest.raises(UserError, match="is no name of a file of a corpus"):
            fetched(path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bucket", ["s3"], indirect=True)
def test_a_small_file_is_sent_by_one_request(stored: Storage) -> None:
    obstore = pytest.importorskip("obstore")
    stored.write("small", b"abc")
    bucket, _, prefix = stored.root.partition("/")
    client = obstore.store.S3Store(bucket, client_options={"allow_http": True}, endpoint=os.environ["AWS_ENDPOINT_URL"])
    tag = obstore.head(client, f"{prefix}/small")["e_tag"]
    assert "-" not in tag, "an upload in parts, which takes three requests"


def test_what_is_not_there_is_named(stored: Storage, tmp_path: Path) -> None:
    assert stored.find("nothing") is None and stored.list_files("nothing") == [] and stored.is_empty()
    with pytest.raises(FileNotFoundError):
        stored.read("nothing")
    with pytest.raises(FileNotFoundError):
        stored.download("nothing", tmp_path / "nothing")
    stored.remove("nothing")
    stored.write("short", b"abc")
    with pytest.raises(StorageError, match=r"short failed \(the file is shorter than expected\)"):
        stored.read_range("short", 1, 5)
    with pytest.raises(StorageError, match="its SHA-256 is not"):
        stored.download("short", tmp_path / "short", "0" * 64)
    assert not list(tmp_path.iterdir())


def test_files_are_listed_sorted_and_all(stored: Storage, tmp_path: Path) -> None:
    names = ["a", "b/1", "b/2/3", "b2"]
    for name in reversed(names):
        stored.write(name, name.encode())
    assert [(entry.path, entry.bytes) for entry in stored.list_files()] == [(name, len(name)) for name in names]
    assert [entry.path for entry in stored.list_files("b")] == ["b/1", "b/2/3"]
    assert not stored.is_empty()
    stored.remove("b/1")
    assert [entry.path for entry in stored.list_files("b")] == ["b/2/3"]
    assert isinstance(stored.list_files()[0], Entry) and stored.requests["put"] >= 4


def test_one_of_many_creates(stored: Storage) -> None:
    made: list[bool] = []
    threads = [
        threading.Thread(target=lambda n=number: made.append(stored.create("lease/1", str(n).encode())))
        for number in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [False, False, False, True]
    first = stored.read("lease/1")
    assert not stored.create("lease/1", b"late") and stored.read("lease/1") == first


def test_a_create_that_fails_says_so_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        path.touch()
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError, match="No space left on device"):
        connect(tmp_path.as_uri()).create("lease/1", b"x")
    assert not list((tmp_path / "lease").iterdir())


def test_a_mirror_takes_no_older_file_for_the_one_that_is_wanted(stored: Storage, tmp_path: Path) -> None:
    mirror = Mirror(tmp_path / "here", stored)
    stored.write("x", b"first")
    first, second = sha256_bytes(b"first"), sha256_bytes(b"other")
    assert mirror.fetch("x", first).read_bytes() == b"first"
    stored.write("x", b"other")
    assert mirror.fetch("x", first).read_bytes() == b"first", "it is here"
    assert mirror.fetch("x", second).read_bytes() == b"other"
    assert mirror.has_copy("x", second[:16]) and not mirror.has_copy("x", first)
    (tmp_path / "here/x").write_bytes(b"touch")
    assert not mirror.has_copy("x", second)
    mirror.fetch("x", second)


def test_the_files_unused_for_longest_go_first(stored: Storage, tmp_path: Path) -> None:
    mirror = Mirror(tmp_path / "here", stored)
    for age, name in enumerate("abc"):
        stored.write(name, name.encode() * 10)
        mirror.fetch(name)
        os.utime(mirror.folder / RECORDS / name, (age, age))
    mirror.fetch("a")
    (tmp_path / "here/receipt").write_bytes(bytes(1000))
    trim(mirror.folder, 30)
    assert all((mirror.folder / name).exists() for name in "abc")
    trim(mirror.folder, 29)
    assert [name for name in "abc" if (mirror.folder / name).exists()] == ["a", "c"]
    trim(mirror.folder, 1)
    assert [name for name in "abc" if (mirror.folder / name).exists()] == ["a"], "one file stays, however large"
    assert (tmp_path / "here/receipt").exists(), "it has no record"


def test_a_copy_is_of_the_version_that_the_run_began_with(
    stored: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERATOKEN_SCRATCH", str(tmp_path / "scratch"))
    stored.write("dump.gz", b"first")
    entry = stored.find("dump.gz")
    assert entry is not None
    url, version = f"{stored.url}/dump.gz", str(entry.changed)
    assert fetch_url(url, version, tmp_path).read_bytes() == b"first"
    stored.remove("dump.gz")
    assert fetch_url(url, version, tmp_path).read_bytes() == b"first", "it is here"
    with pytest.raises(StorageError, match=r"dump\.gz has changed or gone since the run began"):
        fetch_url(url, "1", tmp_path)
    stored.write("dump.gz", b"other")
    with pytest.raises(StorageError, match="has changed or gone"):
        fetch_url(url, "1", tmp_path)
    assert len(list((tmp_path / "scratch/inputs").rglob("dump.gz"))) == 2, "the first, and its record"


def test_a_part_of_a_dump_is_fetched_alone_and_of_the_version_that_the_run_began_with(
    stored: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERATOKEN_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setattr("filters.formats.stored.FETCH_BLOCK", 100)
    monkeypatch.setattr(storage, "RANGE_BYTES", 130)
    data = os.urandom(5_000)
    stored.write("dump.gz", data)
    entry = stored.find("dump.gz")
    assert entry is not None
    dump, before = StoredDump(f"{stored.url}/dump.gz", str(entry.changed), 5_000), Storage.fetched_bytes
    with open_range(dump, tmp_path, 1_010, 2_390) as part:
        assert Storage.fetched_bytes - before == 1_400, "whole blocks"
        assert (part[1_010:2_390], part[:6], len(part)) == (data[1_010:2_390], data[:6], 5_000)
        assert Storage.fetched_bytes - before == 1_500
        stored.write("dump.gz", data + b"more")
        assert part[1_000:2_400] == data[1_000:2_400], "it is here"
        with pytest.raises(StorageError, match=r"dump\.gz has changed or gone since the run began"):
            part[3_000:3_001]
    for change in (lambda: stored.write("dump.gz", data[:900]), lambda: stored.remove("dump.gz")):
        change()
        with (
            pytest.raises(StorageError, match=r"dump\.gz has changed or gone"),
            open_range(dump, tmp_path, 1_010, 2_390),
        ):
            pass
    assert not list(filter(Path.is_file, (tmp_path / "scratch").rglob("*")))
    stored.write("dump.gz", data)
    now = stored.find("dump.gz")
    assert now is not None
    dump = dump._replace(version=str(now.changed))
    copy = fetch_url(dump.url, dump.version, tmp_path)
    before = Storage.fetched_bytes
    with open_range(dump, tmp_path, 1_010, 2_390) as part, open_stored(copy) as same:
        assert part[:] == same[:] == data and Storage.fetched_bytes == before, "there is a copy here"


def test_a_disk_that_fills_up_within_a_copy_leaves_no_hole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bucket: str
) -> None:
    """`os.pwrite` may write fewer bytes than requested, and returns their number."""
    store, write, data = connect(bucket), os.pwrite, os.urandom(1_000)
    store.write("dump", data)
    monkeypatch.setattr(os, "pwrite", lambda file, part, place: write(file, part[:7], place))
    with (tmp_path / "copy").open("wb") as file:
        store.copy_spans("dump", file.fileno(), [(0, 1_000)])
    assert (tmp_path / "copy").read_bytes() == data


def test_a_mirror_is_found_by_its_folder_and_by_that_of_a_generation(stored: Storage, tmp_path: Path) -> None:
    stored.write("models/m", b"m")
    stored.write("generations/1/models/n", b"n")
    folder = open_mirror(tmp_path / "here", stored.url).folder
    assert mirror_of(tmp_path) is None and mirror_of(folder) is not None
    assert fetch(folder, "models/m").read_bytes() == b"m" and not fetch(folder, "models/none").exists()
    generation = folder / "generations/1"
    assert list_folder(generation, "models") == ["n"]
    assert fetch(generation, "models/n").read_bytes() == b"n"


def test_a_corpus_that_has_changed_is_read_anew(
    stored: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERATOKEN_SCRATCH", str(tmp_path))
    with pytest.raises(UserError, match=r"has no manifest\.json: give the URL of a finished corpus"):
        open_corpus(stored.url)
    stored.write("manifest.json", b"{}")
    first = open_corpus(stored.url)
    assert open_corpus(f"{stored.url}/") == first != mirror_folder(stored.url)
    stored.write("manifest.json", b"{ }")
    assert open_corpus(stored.url) != first and open_corpus(str(tmp_path)) == tmp_path


def test_a_bucket_that_does_not_exist_is_named(stored: Storage) -> None:
    if not stored.url.startswith("s3://"):
        pytest.skip("the bucket is looked for by the create-only write of S3 alone")
    with pytest.raises(UserError, match="the bucket s3://missing does not exist: create it, or check the URL"):
        connect("s3://missing/corpus").create("lease", b"x")


def test_a_url_of_no_store_is_refused() -> None:
    with pytest.raises(UserError, match=r"cannot be opened .* give s3://, gs://, hdfs:// or file://"):
        connect("ftp://example.org/a")


@pytest.mark.parametrize("url", ["s3://", "gs://", "s3:///path", "gs:///path"])
def test_a_url_without_a_bucket_is_refused(url: str) -> None:
    with pytest.raises(UserError, match=f"names no bucket: give {url[:2]}://BUCKET/PATH"):
        connect(url.rstrip("/"))


def test_a_bucket_that_cannot_be_reached_is_no_mistake_in_the_form_of_its_url(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(bucket: str) -> str:
        raise OSError("Could not resolve host")

    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(storage.fs, "resolve_s3_region", fail)
    with pytest.raises(UserError, match="check the bucket's name, the credentials and the network, AWS_REGION and"):
        connect("s3://nowhere/x")


def test_a_machine_without_hadoop_is_told_what_it_needs_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(url: str) -> None:
        raise OSError("Unable to load libjvm\n" + "dlopen(/usr/lib/jvm/libjvm.so) failed: cannot open\n" * 200)

    monkeypatch.setattr(storage.fs, "FileSystem", SimpleNamespace(from_uri=fail))
    with pytest.raises(UserError, match=r"^hdfs://a:1/b cannot be opened \(Unable to load .*JAVA_HOME") as raised:
        Storage("hdfs://a:1/b")
    assert len(str(raised.value)) < 400 and "\n" not in str(raised.value)


def test_google_cloud_storage_is_not_tried_for_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, Any]] = []
    monkeypatch.setattr(storage.fs, "GcsFileSystem", lambda **settings: made.append(settings))
    for emulator in ("", "http://127.0.0.1:1"):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator)
        storage._gcs()
    tries = len(storage.WAITS) + 1
    assert all(tries * settings["retry_time_limit"].total_seconds() <= 20 for settings in made) and len(made) == 2


@pytest.mark.parametrize(
    ("place", "advice"), [("gs://b/x", "credentials, bucket and network"), ("/x", "check the disk")]
)
def test_a_failure_says_what_to_check_of_such_a_store(place: str, advice: str) -> None:
    assert advice in str(storage.storage_error(OSError(5, "no answer"), place))
