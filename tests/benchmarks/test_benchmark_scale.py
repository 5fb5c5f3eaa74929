"""The benchmark `scale`: its object server answers like S3, and the driver stays within bounds at 100,000 splits."""

import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from benchmarks import scale
from benchmarks.data import ROOT
from benchmarks.scale import Clock, Figures, object_server, pretend_objects, report
from manifests.storage import Entry, Storage
from pipeline.dryrun import GraphSize

STAMP = 1_767_225_600_000_000_000  # modification time of all objects, in nanoseconds


def test_the_object_server_holds_what_is_written_and_what_is_pretended(tmp_path: Path) -> None:
    with object_server(tmp_path):
        storage = Storage("s3://bucket/corpus")
        assert storage.is_empty() and storage.list_files("a") == [] and storage.find("a/b") is None
        large = bytes(range(256)) * (12 << 12)
        for path, data in (("a/b c&d", b"small"), ("a/empty", b""), ("large", large)):
            storage.write(path, data)
            assert storage.read(path) == data
        assert storage.read_range("large", 255, 3) == large[255:258]
        pretend_objects(storage.root, {f"many/{number:04d}": number for number in range(2_500)})
        assert storage.list_files("many") == [Entry(f"many/{number:04d}", number, STAMP) for number in range(2_500)]
        assert storage.list_sizes("many") == {f"many/{number:04d}": number for number in range(2_500)}
        assert storage.read("many/0003") == bytes(3)
        storage.remove("a/empty")
        assert [entry.path for entry in storage.list_files("a")] == ["a/b c&d"] and not storage.is_empty()


@pytest.mark.parametrize("size", [1, 6 << 20, (6 << 20) + 1, (20 << 20) + 7])
def test_a_file_is_the_same_when_it_is_uploaded_piece_by_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr("manifests.storage.SENT_BYTES", 6 << 20)
    data = random.Random(size).randbytes(size)
    (tmp_path / "made").write_bytes(data)
    with object_server(tmp_path):
        storage = Storage("s3://bucket/corpus")
        storage.publish(tmp_path / "made", "a/made")
        assert storage.read("a/made") == data and storage.list_sizes("a") == {"a/made": size}
    assert (tmp_path / "made").read_bytes() == data


def test_every_second_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(scale.time, "process_time", lambda: now[0])
    clock = Clock(last=0.0)

    def work(seconds: float) -> None:
        now[0] += seconds

    def work_twice() -> None:
        work(1.0)
        clock.timed("inner", work)(2.0)
        work(4.0)

    clock.timed("outer", work_twice)()
    work(8.0)
    clock.add_elapsed()
    assert clock.seconds == {"outer": 5.0, "inner": 2.0, clock.stack[0]: 8.0}


def test_the_report_is_by_thousand_splits_and_task() -> None:
    graphs = [GraphSize(("extract",), 2_000, 500), GraphSize(("filter", "recall"), 1_000, 600)]
    first = Figures(Counter(tasks=4.0, graphs=2.0), 3_000, Counter(get=20, list=10), graphs, 1)
    said = report(2_000, first, first, Figures(Counter(tasks=1.0), 0, Counter(), [], 5_000_000))
    assert "| in all | 3.000 | 0.500 |" in said and "peak memory of the driver: 5 MB" in said
    assert "600 bytes (filter, recall)" in said and "20 get, 10 list; 0.0100 per task" in said


@pytest.mark.slow
def test_the_driver_of_100_000_splits(capsys: pytest.CaptureFixture[str]) -> None:
    """The bounds are wider than the goals of one second and 1,000 MB, because a busy machine misses the goals."""
    command = [sys.executable, "-m", "benchmarks", "scale", "--splits", "100000", "--store"]
    said = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    with capsys.disabled():
        print(f"\n{said}")
    seconds = [float(cell) for cell in re.findall(r"\| in all \| (\S+) \| (\S+) \|", said)[0]]
    peak, graph = (
        int(re.findall(pattern, said)[0].replace(",", ""))
        for pattern in (r"peak memory of the driver: (\S+) MB", r"largest graph: (\S+) bytes")
    )
    assert max(seconds) < 2 and peak < 1_100 and graph < 1_000_000
