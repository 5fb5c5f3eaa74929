"""The loader: correct windows in every way of reading, prefetching, remote stores, and constant memory."""

import io
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import xxhash
from processes import fork_server
from pyarrow import fs
from trainer_corpus import write_corpus

from filters.errors import UserError
from manifests import order, storage
from manifests.manifest import ShardEntry, load_manifest, write_manifest
from manifests.order import Plan, SourcePlan, plan_for, samples
from manifests.shard import Store, open_cached, open_shard
from manifests.tools import verify
from manifests.tools.verify import check_shards
from trainer import data
from trainer.data import Batch, BatchReader, hash_row, prefetch, read_validation_windows

LENGTH, BATCH, STEPS = 16, 6, 40


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("data") / "corpus")


@pytest.fixture
def copy(corpus: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(corpus, tmp_path / "corpus"))


def plan(corpus: Path) -> Plan:
    return plan_for(load_manifest(corpus), 7, LENGTH, BATCH, STEPS)


def by_hand(corpus: Path, step: int) -> list[list[int]]:
    """Return the windows of a step. They are read from the shards one by one."""
    made = plan(corpus)
    where = samples(made, step * BATCH, (step + 1) * BATCH)
    rows = []
    for source, shard, window in zip(where.source, where.shard, where.window, strict=True):
        tokens = open_shard(corpus / "shards" / made.sources[source].shards[shard][0]).tokens
        rows.append(tokens[window * LENGTH : window * LENGTH + LENGTH + 1].tolist())
    return rows


def same(a: Batch, b: Batch) -> bool:
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("tokens", "sources", "digests"))


@pytest.mark.parametrize("block", [1, 13, 1 << 15])
@pytest.mark.parametrize("world", [1, 2, 3, 6])
def test_batches_are_the_windows_of_the_order(
    corpus: Path, world: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "BLOCK_SAMPLES", block)
    loader = BatchReader(corpus, plan(corpus))
    for step in (0, 1, 17, STEPS - 1, 3):
        rows = by_hand(corpus, step)
        for rank in range(world):
            batch = loader.batch(step, rank, world)
            assert batch.tokens.tolist() == rows[rank::world] and batch.tokens.dtype == torch.uint16
            raw = [np.array(row, np.uint16) for row in rows[rank::world]]
            assert batch.digests.tolist() == [xxhash.xxh3_64_intdigest(row.tobytes()) >> 1 for row in raw]
            assert [hash_row(row.data) for row in raw] == batch.digests.tolist()


def test_digests_tell_order_and_every_token_apart() -> None:
    row = np.arange(100, dtype=np.uint16)
    changed = [row.copy() for _ in row]
    for number, other in enumerate(changed):
        other[number] += 1
    assert len({hash_row(one.data) for one in (row, row[::-1].copy(), *changed)}) == 102


def test_a_step_costs_the_same_wherever_it_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a plan of a trillion tokens, resuming at any step computes the order of only one block."""
    made = tuple(
        SourcePlan(name, weight, 3.0, tuple((f"{name}/{i}", 10**6) for i in range(count)))
        for name, weight, count in (("web", 0.9, 700), ("books", 0.1, 60))
    )
    big = Plan("sha", 1, 2048, 2048, 333_786, made)
    asked: list[int] = []

    def counted(values: Any, size: int, key: int) -> Any:
        asked.append(len(values))
        return permute(values, size, key)

    permute = order.permute
    monkeypatch.setattr(order, "permute", counted)
    costs = []
    for step in (0, 1_000, 333_785, 200_000):
        loader = BatchReader.__new__(BatchReader)
        loader.plan, loader.block = big, None
        asked.clear()
        loader._order(step)
        costs.append(sum(asked))
        before = len(asked)
        loader._order(step)
        assert len(asked) == before, "the block is kept"
    assert max(costs) <= data.BLOCK_SAMPLES


def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    """Compare the memory of a process that reads 600 shards with that of a process that reads 20 shards.

    600 shards of the usual size contain about 100 GB of tokens. The additional memory must be far less than the bytes
    of the additional shards.
    """
    few, many = held_for(tmp_path / "few", 20), held_for(tmp_path / "many", 600)
    stored = sum(path.stat().st_size for path in (tmp_path / "many/shards/web").glob("train-*"))
    assert many - few < stored / 2, f"{few:,} bytes for 20 shards, {many:,} for 600 of {stored:,}"


def held_for(corpus: Path, shards: int) -> int:
    """Return the private memory in bytes of a process that has read from `shards` shards."""
    small = write_corpus(corpus, documents=100)
    manifest = load_manifest(small)
    web = manifest.sources["web"]
    entries = []
    for number in range(shards):
        entry = web.train[number % 3]
        path = f"web/train-{number:05}.arrow"
        shutil.copy(small / "shards" / entry.path, small / "shards" / path)
        entries.append(ShardEntry(**{**entry.model_dump(), "path": path}))
    web = web.model_copy(update={"train": entries, "max_epochs": 1e6})
    write_manifest(small, manifest.model_copy(update={"sources": {**manifest.sources, "web": web}}))
    child = fork_server().Process(target=read_and_measure, args=(small, corpus / "held"))
    child.start()
    child.join(600)
    opened, held = map(int, (corpus / "held").read_text(encoding="utf-8").split())
    assert opened > 0.95 * shards
    return held


def read_and_measure(corpus: Path, said: Path) -> None:
    """Read a few large batches, and write the number of open shards and the private memory of the process in bytes."""
    data = BatchReader(corpus, plan_for(load_manifest(corpus), 0, 32, 2048, 10))
    for step in range(10):
        data.batch(step, 0, 1)
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    own = next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
    said.write_text(f"{len(data.tokens)} {1000 * own}", encoding="utf-8")


def test_batches_are_read_ahead_by_one_thread(corpus: Path) -> None:
    loader = BatchReader(corpus, plan(corpus))
    seen: list[tuple[int, str]] = []
    read = loader.batch

    def noted(step: int, rank: int, world: int) -> Batch:
        seen.append((step, threading.current_thread().name))
        return read(step, rank, world)

    loader.batch = noted  # type: ignore[method-assign]
    with prefetch(loader, range(5, 12), 1, 2, ahead=3) as batches:
        assert not seen, "nothing is read before it is asked for"
        first = next(batches)
        patience = time.monotonic() + 600
        while len(seen) < 4:
            assert time.monotonic() < patience
            time.sleep(0.001)
        time.sleep(0.02)
        assert [step for step, _ in seen] == [5, 6, 7, 8], "the one asked for and three more"
        rest = list(batches)
    assert [step for step, _ in seen] == list(range(5, 12)) and len({name for _, name in seen}) == 1
    assert threading.current_thread().name not in {name for _, name in seen}
    plain = BatchReader(corpus, plan(corpus))
    assert all(same(batch, plain.batch(step, 1, 2)) for step, batch in zip(range(5, 12), [first, *rest], strict=True))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_what_goes_wrong_ahead_is_raised_at_its_step(corpus: Path) -> None:
    loader = BatchReader(corpus, plan(corpus))
    read = loader.batch

    def damaged(step: int, rank: int, world: int) -> Batch:
        if step == 3:
            raise UserError("this shard is damaged")
        return read(step, rank, world)

    loader.batch = damaged  # type: ignore[method-assign]
    got = []
    with pytest.raises(UserError, match="this shard is damaged"), prefetch(loader, range(9), 0, 1) as batches:
        got.extend(iter_noting(batches, got))
    assert len(got) == 3
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def iter_noting(batches: Iterator[Batch], got: list[Batch]) -> Iterator[Batch]:
    for batch in batches:
        got.append(batch)
    return iter(())


def test_a_block_left_early_leaves_no_thread(corpus: Path) -> None:
    with pytest.raises(KeyboardInterrupt), prefetch(BatchReader(corpus, plan(corpus)), range(STEPS), 0, 1) as batches:
        next(batches)
        raise KeyboardInterrupt
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_validation_windows_are_drawn_from_all(corpus: Path) -> None:
    manifest = load_manifest(corpus)
    found = read_validation_windows(corpus, manifest, LENGTH, 5)
    assert sorted(found) == ["books", "web"]
    for name, rows in found.items():
        tokens = open_shard(corpus / "shards" / manifest.sources[name].validation[0].path).tokens
        windows = [tokens[n * LENGTH : (n + 1) * LENGTH + 1].tolist() for n in range((len(tokens) - 1) // LENGTH)]
        places = [windows.index(row.tolist()) for row in rows]
        assert len(rows) == 5 and max(places) > len(windows) / 2, "from all of them, not the first"
    assert len(read_validation_windows(corpus, manifest, LENGTH, 10**6)["web"]) == order.count_windows(
        len(tokens), LENGTH
    )


def damage(copy: Path, path: str, kind: str) -> None:
    """Damage a shard: change a byte, or remove the last byte. With another `kind`, write the same bytes again."""
    file = copy / "shards" / path
    content = bytearray(file.read_bytes())
    if kind == "byte":
        content[len(content) // 2] ^= 1
    file.write_bytes(content[:-1] if kind == "cut" else content)


def refuses(copy: Path, mode: str) -> str:
    return check_shards(copy, load_manifest(copy), mode)


def test_a_changed_byte_refuses_by_name_where_every_byte_is_read(copy: Path) -> None:
    assert [refuses(copy, mode) for mode in ("auto", "full", "fast")] == ["", "", ""]
    damage(copy, "web/train-1.arrow", "byte")
    for mode in ("auto", "full"):
        assert refuses(copy, mode).startswith("shards/web/train-1.arrow: its bytes have changed (sha256)")
    assert refuses(copy, "fast") == ""
    damage(copy, "books/train-0.arrow", "cut")
    assert refuses(copy, "fast").startswith("shards/books/train-0.arrow: ")


def test_every_shard_is_in_one_part_of_the_check(copy: Path) -> None:
    manifest = load_manifest(copy)
    for entry in manifest.shards():
        damage(copy, entry.path, "byte")
        said = [check_shards(copy, manifest, "full", part, 3) for part in range(3)]
        assert [entry.path in problem for problem in said].count(True) == 1 and said.count("") == 2
        damage(copy, entry.path, "byte")


def test_a_sample_reads_some_shards_whole_and_opens_the_others(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = load_manifest(copy)
    biggest = max(entry.bytes for entry in manifest.shards())
    monkeypatch.setattr(verify, "FULL_CHECK_BYTES", 2 * biggest)
    drawn = verify._draw_shards(manifest, manifest.shards())
    assert 2 <= len(drawn) < len(manifest.shards()) and drawn == verify._draw_shards(manifest, manifest.shards()[::-1])
    other = manifest.model_copy(update={"manifest_sha": "another"})
    assert drawn != verify._draw_shards(other, other.shards()), "another corpus, another sample"
    unread = next(entry for entry in manifest.shards() if entry.path not in drawn)
    damage(copy, unread.path, "byte")
    assert refuses(copy, "auto") == ""
    assert f"shards/{unread.path}: its bytes have changed (sha256)" in refuses(copy, "full")
    entry = unread.model_copy(update={"tokens": unread.tokens + 1})
    file = copy / "shards" / unread.path
    assert len(list(verify._check_counts(open_shard(file), entry))) == 1
    whole = file.read_bytes()
    file.write_bytes(bytes(unread.bytes))
    assert f"shards/{unread.path}: not readable" in refuses(copy, "auto"), "no Arrow file"
    assert refuses(copy, "fast") == ""
    file.write_bytes(whole)
    damage(copy, sorted(drawn)[0], "byte")
    assert f"shards/{sorted(drawn)[0]}: its bytes have changed (sha256)" in refuses(copy, "auto")
    with monkeypatch.context() as narrow:
        narrow.setattr(verify, "FULL_CHECK_BYTES", 0)
        assert len(verify._draw_shards(manifest, manifest.shards())) == 1, "one at least"


# A corpus in an object store. In these tests it is a folder that is accessed through a file system of PyArrow.


def shards_here(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder / "shards").as_posix() for path in (folder / "shards").rglob("*.arrow"))


def test_a_path_is_left_alone(corpus: Path, tmp_path: Path) -> None:
    assert open_cached(str(corpus), tmp_path, 1) == corpus and Store(corpus).url == ""


def test_batches_from_a_store_are_those_from_the_disk(corpus: Path, tmp_path: Path) -> None:
    folder = open_cached(f"{corpus.as_uri()}/", tmp_path, 1 << 30)
    assert shards_here(folder) == [] if (folder / "shards").exists() else True
    manifest = load_manifest(folder)
    assert check_shards(folder, manifest, "auto") == ""
    near, far = BatchReader(corpus, plan(corpus)), BatchReader(folder, plan(folder))
    for step in range(0, STEPS, 7):
        assert same(near.batch(step, 0, 1), far.batch(step, 0, 1))
    assert near.trace(5) == far.trace(5)
    assert shards_here(folder) == [entry.path for source in manifest.sources.values() for entry in source.train]
    expected = read_validation_windows(corpus, manifest, LENGTH, 3)
    for name, rows in read_validation_windows(folder, manifest, LENGTH, 3).items():
        assert torch.equal(rows, expected[name])
    assert not list(folder.rglob("*.part"))


def test_the_cache_keeps_within_its_budget_and_forgets_the_oldest(corpus: Path, tmp_path: Path) -> None:
    manifest = load_manifest(corpus)
    biggest = max(entry.bytes for entry in manifest.shards())
    folder = open_cached(corpus.as_uri(), tmp_path, int(2.5 * biggest))
    near, far = BatchReader(corpus, plan(corpus)), BatchReader(folder, plan(folder))
    for step in range(12):
        assert same(near.batch(step, 0, 1), far.batch(step, 0, 1))
        kept = shards_here(folder)
        assert sum((folder / "shards" / path).stat().st_size for path in kept) <= 2.5 * biggest
        assert {far._path(*place) for place in far.tokens} <= set(kept), "no map of a file that is gone"
    opened = Store(folder)
    paths = [entry.path for entry in manifest.sources["web"].train]
    for path in (*paths[:2], paths[0], paths[2]):
        wait_past(opened.open(path).path)
    assert paths[0] in shards_here(folder) and paths[1] not in shards_here(folder)
    with pytest.raises(UserError, match="is less than the largest shard"):
        open_cached(corpus.as_uri(), tmp_path, biggest - 1)


def wait_past(path: Path) -> None:
    """Wait until new files get a later modification time than `path`. Some file systems store only whole seconds."""
    probe = path.with_name(".probe")
    while not probe.exists() or probe.stat().st_mtime_ns <= path.stat().st_mtime_ns:
        time.sleep(0.001)
        probe.touch()
    probe.unlink()


@pytest.mark.parametrize("name", ["a corpus", "Körper 日本", "50% [x]#?&+"])
def test_a_folder_of_any_name_is_a_url(corpus: Path, tmp_path: Path, name: str) -> None:
    """The URL is that of `Path.as_uri`, or the unquoted path if it contains no percent sign."""
    copy = Path(shutil.copytree(corpus, tmp_path / name))
    for url in [copy.as_uri()] + [f"file://{copy}"] * ("%" not in name):
        assert load_manifest(open_cached(url, tmp_path / "cache", 1 << 30)) == load_manifest(corpus)


class Flaky(fs.FileSystemHandler):  # type: ignore[misc]
    """A remote file system whose first reads of shards are truncated, changed, too long, or fail."""

    def __init__(self, base: fs.FileSystem, faults: list[str]) -> None:
        self.base, self.faults, self.reads = base, faults, 0

    def open_input_stream(self, path: str) -> Any:
        if "/shards/" not in path:
            return self.base.open_input_stream(path)
        fault = self.faults[self.reads] if self.reads < len(self.faults) else ""
        self.reads += 1
        if fault == "error":
            raise OSError("connection reset")
        with self.base.open_input_stream(path) as stream:
            content = bytearray(stream.read())
        if fault == "cut":
            del content[-7:]
        elif fault == "long":
            content += bytes(1 << 22)
        elif fault == "byte":
            content[len(content) // 2] ^= 1
        return pa.PythonFile(io.BytesIO(content), mode="r")


Flaky.__abstractmethods__ = frozenset()  # The other abstract methods are not called.


@contextmanager
def remote(corpus: Path, faults: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Flaky]:
    handler = Flaky(fs.LocalFileSystem(), faults)
    storage.connect.cache_clear()
    monkeypatch.setattr(storage, "_connect", lambda url: (fs.PyFileSystem(handler), str(corpus)))
    monkeypatch.setattr(storage, "WAITS", [0.0])
    yield handler


@pytest.mark.parametrize("fault", ["cut", "byte", "error", "long"])
def test_a_bad_download_is_tried_again_and_then_refused_by_name(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    with remote(corpus, [fault], monkeypatch) as handler:
        folder = open_cached("mock://bucket/corpus", tmp_path, 1 << 30)
        shard = Store(folder).open("web/train-0.arrow")
        assert handler.reads == 2 and shard.path.read_bytes() == (corpus / "shards/web/train-0.arrow").read_bytes()
        handler.faults, handler.reads = [fault] * 9, 0
        said = "as fetched from mock://bucket/corpus is not the manifest's"
        if fault == "error":  # A network error does not mean that the shard is damaged.
            said = "failed .* after 2 tries: check .* same command again"
        with pytest.raises(UserError, match=rf"shards/web/train-1\.arrow.* {said}"):
            Store(folder).open("web/train-1.arrow")
        assert handler.reads == 2 and shards_here(folder) == ["web/train-0.arrow"]
        assert not list(folder.rglob("*.part"))


def test_what_a_killed_process_left_is_removed_or_written_over(corpus: Path, tmp_path: Path) -> None:
    folder = open_cached(corpus.as_uri(), tmp_path, 1 << 30)
    for name in ("train-0", "train-1"):
        left = folder / f"shards/web/.{name}.arrow.part"
        left.parent.mkdir(parents=True, exist_ok=True)
        left.write_bytes(bytes(10**6))
    path = Store(folder).open("web/train-0.arrow").path
    assert path.read_bytes() == (corpus / "shards/web/train-0.arrow").read_bytes()
    assert not list(folder.rglob("*.part"))


def test_a_damaged_copy_is_fetched_anew_and_a_new_corpus_has_a_new_copy(copy: Path, tmp_path: Path) -> None:
    folder = open_cached(copy.as_uri(), tmp_path / "cache", 1 << 30)
    Store(folder).open("web/train-0.arrow")
    damage(folder, "web/train-0.arrow", "byte")
    assert check_shards(folder, load_manifest(folder), "full") == ""
    path = Store(folder).open("web/train-0.arrow").path
    assert path.read_bytes() == (copy / "shards/web/train-0.arrow").read_bytes()
    manifest = load_manifest(copy)
    write_manifest(copy, manifest.model_copy(update={"goal_tokens": 5}))
    assert open_cached(copy.as_uri(), tmp_path / "cache", 1 << 30) != folder


@pytest.mark.parametrize(
    ("url", "words"), [("file:///nowhere/at/all", "has no manifest.json"), ("x://y", "cannot be opened")]
)
def test_a_wrong_url_is_one_sentence(tmp_path: Path, url: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        open_cached(url, tmp_path, 1)


def read_all(folder: Path, out: Path) -> None:
    loader = BatchReader(folder, plan(folder))
    total = sum(int(loader.batch(step, 0, 1).tokens.long().sum()) for step in range(10))
    out.write_text(str(total), encoding="utf-8")


def test_processes_of_one_machine_share_a_cache_too_small_for_them(corpus: Path, tmp_path: Path) -> None:
    biggest = max(entry.bytes for entry in load_manifest(corpus).shards())
    folder = open_cached(corpus.as_uri(), tmp_path / "cache", int(1.5 * biggest))
    children = [fork_server().Process(target=read_all, args=(folder, tmp_path / str(n))) for n in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(600)
    assert [child.exitcode for child in children] == [0, 0, 0]
    expected = sum(int(BatchReader(corpus, plan(corpus)).batch(step, 0, 1).tokens.long().sum()) for step in range(10))
    assert {(tmp_path / str(n)).read_text(encoding="utf-8") for n in range(3)} == {str(expected)}
    assert not list(folder.rglob("*.part"))
