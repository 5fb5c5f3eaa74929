"""Runs into object stores: the same manifest wherever a corpus lies, resumed anywhere, one driver at a time."""

import contextlib
import json
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faults
import object_stores
import pytest

from filters.errors import UserError
from manifests import storage
from manifests.__main__ import main as manifests
from manifests.files import relative_files
from manifests.manifest import load_manifest
from manifests.mirror import fetch, open_corpus
from manifests.storage import StorageError, connect
from manifests.tools.verify import verify
from pipeline import lease
from pipeline.__main__ import main
from pipeline.beam import task
from pipeline.lease import leased
from pipeline.trace import Rederiver

RECIPE = """
name: x
seed: 1
goal_tokens: 1000
split_bytes: 150
sources:
  books: {weight: 1.0, inputs: ["DUMPS/books/**"], containment: {}}
  c4: {weight: 1.0, inputs: ["DUMPS/c4/*.jsonl"], filters: [blocklist: [DUMPS/blocked.txt], duplicate_lines]}
deduplication: {canaries: 4}
tokenizer: {vocabulary: 320}
"""
PERFORM = task.perform
PROSE = "The keeper walked down to the harbour and counted the boats, as she did every evening of the year.\n"


@pytest.fixture(scope="module")
def dumps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dumps")
    for number in range(2):
        (folder / f"books/{number}").mkdir(parents=True)
        (folder / f"books/{number}/a.txt").write_text(f"Book number {number}.\n" + PROSE * (4 + number), "utf-8")
        rows = [
            {
                "text": f"{PROSE}The {word} came home in the {'rain' if number else 'sun'}.",
                "url": f"http://x.example/{word}",
            }
            for word in ("heron", "otter", "marten", "hare")
        ]
        (folder / "c4").mkdir(exist_ok=True)
        (folder / f"c4/{number}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", "utf-8")
    (folder / "blocked.txt").write_text("blocked.example\n", "utf-8")
    (folder / "recipe.yaml").write_text(RECIPE.replace("DUMPS", str(folder)), "utf-8")
    return folder


def build(recipe: Path, out: str, *more: str) -> int:
    return main(["run", str(recipe), "--output", out, "--quiet", "--workers", "1", *more])


@pytest.fixture(scope="module")
def built(dumps: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The manifest hash of the corpus on this machine."""
    out = tmp_path_factory.mktemp("built") / "corpus"
    assert build(dumps / "recipe.yaml", str(out)) == 0
    return load_manifest(out).manifest_sha


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TERATOKEN_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setattr(storage, "WAITS", [0.0, 0.0, 0.0])
    object_stores.forget()
    return tmp_path / "scratch"


def leave_mirror(scratch: Path) -> None:
    """Let the next command begin as on another machine."""
    shutil.rmtree(scratch)
    object_stores.forget()


def without_copies(one: Any, *blocks: Any, job: Any) -> None:
    """Perform a task as on a machine that has no dumps."""
    shutil.rmtree(Path(job.corpus).parent / "inputs", ignore_errors=True)
    PERFORM(one, *blocks, job=job)


def upload(folder: Path, url: str) -> None:
    for path in filter(Path.is_file, folder.rglob("*")):
        connect(url).publish(path, path.relative_to(folder).as_posix())


@pytest.mark.parametrize("store", ["s3", "s3 failing", "gs"])
def test_a_corpus_in_a_store_has_the_same_hash_and_is_read_by_every_tool(
    dumps: Path, built: str, scratch: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], store: str
) -> None:
    with object_stores.gs() if store == "gs" else object_stores.s3(0.05 if "failing" in store else 0.0) as bucket:
        url = f"{bucket}/corpora/one"
        upload(dumps, f"{bucket}/dumps")
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(RECIPE.replace("DUMPS", f"{bucket}/dumps"), "utf-8")
        with faults.performing(without_copies if "failing" in store else PERFORM):
            assert build(recipe, url) == 0
        assert f"{url}: built in" in capsys.readouterr().out
        assert json.loads(connect(url).read("manifest.json"))["manifest_sha"] == built
        assert not connect(url).list_files("runs/tasks")
        leave_mirror(scratch)
        assert build(recipe, url) == 0
        assert "nothing to do, already finished" in capsys.readouterr().out
        leave_mirror(scratch)
        if store == "s3":
            read_with_every_tool(url, bucket, tmp_path, capsys)


def read_with_every_tool(url: str, bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(name: str, *more: str, code: int = 0) -> Any:
        assert manifests([name, url, "--json", *more]) == code
        return json.loads(capsys.readouterr().out)

    assert run("show")["manifest_sha"] and run("verify")["problems"] == []
    (document,) = run("sample", "-n", "1", "--source", "c4")["documents"]
    (found,) = run("find", document["id"] if "id" in document else document["document"])["held"]
    assert run("trace", found["shard"], str(found["start"]))
    assert main(["trace", url, found["shard"], str(found["start"])]) == 0
    assert "the same" in capsys.readouterr().out
    rederiver = Rederiver(open_corpus(url), {})
    dumps = [rederiver._find_dump("c4", f"{number}.jsonl") for number in range(2)]
    assert [str(dump) for dump in dumps] == [f"{bucket}/dumps/c4/{number}.jsonl" for number in range(2)]
    (tmp_path / "list").write_text(f"{found['document']}\n", "utf-8")
    assert manifests(["remove", url, "--list", str(tmp_path / "list"), "--output", f"{bucket}/corpora/less"]) == 0
    capsys.readouterr()
    assert manifests(["verify", f"{bucket}/corpora/less", "--quiet"]) == 0
    assert manifests(["diff", url, f"{bucket}/corpora/less"]) == 1
    assert manifests(["remove", url, "--list", str(tmp_path / "list"), "--output", f"{bucket}/corpora/less"]) == 2
    assert "already exists" in capsys.readouterr().err


def test_verify_reads_what_is_stored_now_in_ranges_and_leaves_nothing(
    dumps: Path, scratch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that were fetched before the store's were damaged vouch for nothing."""
    monkeypatch.setattr(storage, "RANGE_BYTES", 1000)
    url = (tmp_path / "store").as_uri()
    assert build(dumps / "recipe.yaml", url) == 0
    corpus = open_corpus(url)
    names = ["ledger.json", f"shards/{load_manifest(corpus).shards()[0].path}"]
    for name in names:
        fetch(corpus, name)
    held = relative_files(corpus / "shards")
    assert verify(corpus) == []
    assert relative_files(corpus / "shards") == held and not list(scratch.glob("tmp*"))
    assert connect(url).requests["get"] > sum(entry.bytes for entry in load_manifest(corpus).shards()) // 1000
    assert verify(corpus, fast=True) == [] and not list(scratch.glob("tmp*"))
    for name in names:
        stored = tmp_path / "store" / name
        stored.write_bytes(stored.read_bytes().replace(b"1", b"2"))
    assert all(any(problem.startswith(name) for problem in verify(corpus)) for name in names)
    (tmp_path / "store" / names[1]).unlink()
    assert f"{names[1]}: missing" in verify(corpus)


def test_tasks_find_what_they_read_on_an_empty_machine(
    dumps: Path, built: str, scratch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before each task everything goes but receipts: what a task reads is what its unit names.

    Of a dump that is cut, the tasks together fetch little more than it has.
    """
    monkeypatch.setattr("filters.formats.stored.FETCH_BLOCK", 16)
    url, recipe = (tmp_path / "store").as_uri(), tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.replace("DUMPS", dumps.as_uri()), "utf-8")

    def on_an_empty_machine(one: Any, *blocks: Any, job: Any) -> None:
        for path in Path(job.corpus).iterdir():
            if path.is_dir() and path.name not in ("receipts", "runs"):
                shutil.rmtree(path)
        without_copies(one, *blocks, job=job)

    with faults.performing(on_an_empty_machine):
        assert build(recipe, url) == 0
    assert load_manifest(open_corpus(url)).manifest_sha == built
    assert manifests(["verify", url, "--quiet"]) == 0
    (record,) = (tmp_path / "store/runs").glob("2*.json")
    tasks = [
        one for one in json.loads(record.read_bytes())["tasks"] if one["stage"] == "extract" and "c4/" in one["task"]
    ]
    fetched, size = sum(one["fetched_bytes"] for one in tasks), sum(path.stat().st_size for path in dumps.glob("c4/*"))
    assert len(tasks) == 8 and size <= fetched < 1.5 * size, "4 times the size if each task copies its dump"


def test_a_run_killed_anywhere_goes_on_from_another_machine(
    dumps: Path, built: str, scratch: Path, tmp_path: Path
) -> None:
    url, perform, ran = (tmp_path / "store").as_uri(), task.perform, []

    class KilledError(Exception):
        pass

    def until_killed(one: Any, *blocks: Any, job: Any) -> None:
        if len(ran) % 23 == 22:
            ran.append(one.name)
            raise KilledError
        perform(one, *blocks, job=job)
        ran.append(one.name)

    for _ in range(20):
        with faults.performing(until_killed):
            try:
                finished = build(dumps / "recipe.yaml", url) == 0
            except Exception as error:
                assert "KilledError" in repr(error)  # Beam wraps it
                finished = False
        leave_mirror(scratch)
        if finished:
            break
    assert finished and load_manifest(open_corpus(url)).manifest_sha == built


def test_files_that_are_no_corpus_are_refused(dumps: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store/mine.txt").write_text("x", "utf-8")
    assert build(dumps / "recipe.yaml", (tmp_path / "store").as_uri()) == 2
    assert "holds files that are not a corpus" in capsys.readouterr().err


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(lease, "STALE_SECONDS", 0.5)


@pytest.mark.usefixtures("quick")
def test_a_second_driver_is_refused_and_a_dead_ones_place_is_taken(tmp_path: Path) -> None:
    store = connect((tmp_path / "store").as_uri())
    store.write("runs/lease/.2fd4e1c6.tmp", b"left by a driver that was killed while it began")
    with leased(store) as first:
        with pytest.raises(UserError, match="another run is writing file://"), leased(store):
            pass
        first.check()
    with leased(store) as second:
        assert second.epoch == 2
        second._stop.set()  # it dies: no more signs of life
        second._thread.join()
        with leased(store) as third:
            assert third.epoch == 3
            assert lease._highest(store) == 3
    assert store.read("runs/heartbeat/000003") == b"ended"


@pytest.mark.usefixtures("quick")
def test_a_driver_that_was_taken_for_dead_stops(tmp_path: Path) -> None:
    store, lost = connect((tmp_path / "store").as_uri()), threading.Event()
    with leased(store) as first:
        store.create("runs/lease/000002", b"another")
        for _ in range(200):
            if first.lost:
                lost.set()
                break
            threading.Event().wait(0.02)
        assert lost.is_set()
        with pytest.raises(StorageError, match="another run has taken over"):
            first.check()
    assert store.read("runs/heartbeat/000001") != b"ended"


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("taken", [True, False])
def test_a_driver_that_was_suspended_looks_whether_another_has_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: bool
) -> None:
    """No thread of it runs between the moment when it goes on and that when it removes files."""
    store = connect((tmp_path / "store").as_uri())
    monkeypatch.setattr(lease.Lease, "_beat", lambda self: None)
    with leased(store) as first:
        time.sleep(0.3)
        if taken:
            store.create("runs/lease/000002", b"another")
        with pytest.raises(StorageError, match="another run has taken over") if taken else contextlib.nullcontext():
            first.check()
        assert first.lost == taken


@pytest.mark.usefixtures("quick")
def test_a_run_that_was_taken_over_removes_and_publishes_nothing_more(
    dumps: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, perform = (tmp_path / "store").as_uri(), task.perform
    store = connect(url)

    def taken_over(one: Any, *blocks: Any, job: Any) -> None:
        perform(one, *blocks, job=job)
        if one.step == "filter" and store.create("runs/lease/000099", b"another"):
            store.write("clean/of-the-other.parquet", b"x")
            time.sleep(20 * lease.BEAT_SECONDS)

    with faults.performing(taken_over):
        assert build(dumps / "recipe.yaml", url) == 1
    assert "another run has taken over" in capsys.readouterr().err
    assert store.find("clean/of-the-other.parquet") is not None, "it sweeps no more"
    assert store.find("recipe.yaml") is None and store.find("manifest.json") is None


@pytest.mark.usefixtures("quick")
def test_two_that_take_a_dead_ones_place_at_once_do_not_both_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = connect((tmp_path / "store").as_uri())
    create: Callable[[str, bytes], bool] = store.create
    monkeypatch.setattr(store, "create", lambda path, data: create(path, b"the other") and False)
    with pytest.raises(UserError, match="has just begun to write"), leased(store):
        pass
