"""CPU time and requests of a run into an S3 server on loopback, over those of the same run onto this machine's disk.

Both build the demo's corpus with one worker; the server is a process of its own and does not count.
"""

import json
import os
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

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1"}


def run() -> str:
    """Return the table."""
    if find_spec("moto") is None:
        return "skipped: moto is not installed here"
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        make = [sys.executable, ROOT / "samples/make.py", scratch / "build/samples"]
        subprocess.run(make, check=True, stdout=subprocess.DEVNULL)
        (scratch / "samples").symlink_to(ROOT / "samples")  # the recipe's paths begin in the current folder
        port = servers.free_port()
        endpoint = f"http://127.0.0.1:{port}"
        added = {**CREDENTIALS, "AWS_ENDPOINT_URL": endpoint, "TERATOKEN_SCRATCH": str(scratch / "mirrors")}
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        with servers.serving(command, port, scratch / "server"), mock.patch.dict(os.environ, added):
            urllib.request.urlopen(urllib.request.Request(f"{endpoint}/bucket", method="PUT")).close()
            disk, disk_sha = _measure(str(scratch / "corpus"), scratch)
            store, store_sha = _measure("s3://bucket/corpus", scratch)
        assert disk_sha == store_sha, "the corpora differ"
        (record,) = (scratch / "mirrors").glob("*/runs/2*.json")
        tasks = json.loads(record.read_bytes())["tasks"]
    requests = {kind: sum(task["requests"].get(kind, 0) for task in tasks) / len(tasks) for kind in ("get", "put")}
    rows = [["disk", f"{disk:.1f}", "1.00", "", ""]]
    rows.append(["S3", f"{store:.1f}", f"{store / disk:.2f}", f"{requests['get']:.1f}", f"{requests['put']:.1f}"])
    return table(["corpus", "CPU s", "over disk", "reads a task", "uploads a task"], rows)


def _measure(output: str, scratch: Path) -> tuple[float, str]:
    """Return the CPU seconds of a run, and the manifest hash that it prints."""
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
