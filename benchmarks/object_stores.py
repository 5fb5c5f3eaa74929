"""Measure CPU time and requests of a run that writes to an S3 server on loopback, beside the same run on a local disk.

Both runs build the demo's corpus with one worker. The server is a separate process, whose CPU time is not counted. A
second table shows how many bytes tasks download to read all splits of one dump, if no machine has a copy of the dump.
"""

import gzip
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import urllib.request
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

from benchmarks import servers
from benchmarks.data import ROOT, table
from benchmarks.measure import cpu_seconds
from filters.formats.stored import open_stored
from filters.formats.warc import Limits, find_boundaries, read_frames
from manifests.mirror import StoredDump, open_range
from manifests.storage import Storage, connect

LIMITS = Limits(1 << 20)
DUMP_BYTES = 64 << 20
SPLITS = (8, 2)  # The dump is read once in 8 splits and once in 2 splits.
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1"}


def run() -> str:
    """Return both tables."""
    if find_spec("moto") is None:
        return "skipped: moto is not installed"
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        make = [sys.executable, ROOT / "samples/make.py", scratch / "build/samples"]
        subprocess.run(make, check=True, stdout=subprocess.DEVNULL)
        (scratch / "samples").symlink_to(ROOT / "samples")  # The recipe's paths are relative to the current folder.
        port = servers.free_port()
        endpoint = f"http://127.0.0.1:{port}"
        added = {**CREDENTIALS, "AWS_ENDPOINT_URL": endpoint, "TERATOKEN_SCRATCH": str(scratch / "mirrors")}
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        with servers.serving(command, port, scratch / "server"), mock.patch.dict(os.environ, added):
            urllib.request.urlopen(urllib.request.Request(f"{endpoint}/bucket", method="PUT")).close()
            disk, disk_sha = _measure(str(scratch / "corpus"), scratch)
            store, store_sha = _measure("s3://bucket/corpus", scratch)
            splits = _measure_splits(scratch)
        assert disk_sha == store_sha, "the corpora differ"
        (record,) = (scratch / "mirrors").glob("*/runs/2*.json")
        tasks = json.loads(record.read_bytes())["tasks"]
    requests = {kind: sum(task["requests"].get(kind, 0) for task in tasks) / len(tasks) for kind in ("get", "put")}
    rows = [["disk", f"{disk:.1f}", "1.00", "", ""]]
    rows.append(["S3", f"{store:.1f}", f"{store / disk:.2f}", f"{requests['get']:.1f}", f"{requests['put']:.1f}"])
    runs = table(["corpus", "CPU s", "relative to disk", "reads per task", "uploads per task"], rows)
    return "\n\n".join([runs, table(["splits", "bytes relative to the dump", "additional bytes per split"], splits)])


def _measure_splits(scratch: Path) -> list[list[str]]:
    """Upload a dump and read all its splits.

    Returns:
        One row for each number in `SPLITS`: the number of splits, the bytes downloaded relative to the dump, and the
        bytes downloaded per split beyond the split itself.
    """
    chance, dump = random.Random(1), scratch / "a.warc.gz"
    with dump.open("wb") as file:
        while file.tell() < DUMP_BYTES:
            block = chance.randbytes(chance.randrange(20_000, 60_000))
            head = b"WARC/1.0\r\nWARC-Type: metadata\r\nContent-Length: %d\r\n\r\n" % len(block)
            file.write(gzip.compress(head + block + b"\r\n\r\n", 1, mtime=0))
    storage = connect("s3://bucket/dumps")
    storage.publish(dump, dump.name)
    entry = storage.find(dump.name)
    assert entry is not None, "the dump was published above"
    place, rows = StoredDump(f"{storage.url}/{dump.name}", str(entry.changed), entry.bytes), []
    for count in SPLITS:
        with open_stored(dump) as stored:
            pieces = find_boundaries(stored, LIMITS, DUMP_BYTES // count)
        before, read = Storage.fetched_bytes, 0
        for piece in pieces:
            with open_range(place, scratch / "corpus", piece.start, piece.end) as part:
                read += sum(frame.stored for frame in read_frames(part, LIMITS, *piece))
        assert read == entry.bytes, "every byte of the dump is in one frame"
        fetched = Storage.fetched_bytes - before
        rows.append([f"{len(pieces)}", f"{fetched / read:.3f}", f"{(fetched - read) // len(pieces):,}"])
    return rows


def _measure(output: str, scratch: Path) -> tuple[float, str]:
    """Run the demo's recipe. Return its CPU seconds and the manifest hash that it prints."""
    command = [sys.executable, "-m", "pipeline", "run", ROOT / "recipes/demo.yaml", "--output", output]
    begun = cpu_seconds()
    done = subprocess.run(
        [*command, "--workers", "1", "--quiet"],
        cwd=scratch,
        env=servers.environment(),
        check=True,
        capture_output=True,
        text=True,
    )
    cpu = cpu_seconds() - begun
    found = re.search(r"manifest ([0-9a-f]{64})", done.stdout)
    assert found is not None, done.stdout
    return cpu, found[1]
