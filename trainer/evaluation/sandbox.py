"""Run a program that a model wrote: confined, limited, and unable to pass by ending early.

`confine.py` is the inner half and says which rights the program keeps. This half starts it with an empty environment in
a session of its own, watches the clock and the scratch folder, and reads what it reported.

A program has passed if it ran to its last line. The proof is a random token that the interpreter reports after that
line; ending the process, printing, or replacing builtins does not report it. The token lies in the memory of the
program's own process: code written against this file could search for it. No test that runs in the interpreter of the
tested code can exclude that.
"""

import contextlib
import json
import math
import secrets
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from filters.errors import UserError
from trainer.evaluation import confine

FILE_BYTES = 8 << 20  # most bytes of one file, and of the output
SCRATCH_BYTES, SCRATCH_FILES = 32 << 20, 100  # most bytes and files in the scratch folder
POLL_SECONDS = 0.005  # between two looks at the process and its scratch folder
OUTPUT_CHARACTERS = 2_000  # characters kept of the end of the output


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a program's run.

    Attributes:
        passed: It ran to its last line.
        reason: "passed", "exception", "early exit", "time", "signal N", or "files" (too much in the scratch folder).
        output: The end of what it wrote to standard output and standard error.
    """

    passed: bool
    reason: str
    output: str


def run_program(program: str, *, timeout_s: float = 10.0, memory_bytes: int = 1 << 30) -> Outcome:
    """Run a Python program without network, other processes, environment, and files outside a scratch folder.

    Args:
        program: Source text; the tests stand in it, and a failed one raises an exception.
        timeout_s: Wall-clock limit in seconds; rounded up to whole seconds, the limit of CPU time.
        memory_bytes: Limit of address space.

    Raises:
        UserError: This system cannot confine a program.
        RuntimeError: The sandbox did not start.
    """
    if obstacle := confine.find_obstacle():
        raise UserError(obstacle)
    token = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="sandbox-") as folder:
        scratch, output, report = (Path(folder, name) for name in ("scratch", "output", "report"))
        scratch.mkdir()
        with output.open("wb") as printed, report.open("wb") as reported:
            request = {
                "program": program.encode("utf-8", "replace").decode(),
                "token": token,
                "report": reported.fileno(),
                "scratch": str(scratch),
                "memory_bytes": memory_bytes,
                "cpu_seconds": math.ceil(timeout_s),
                "file_bytes": FILE_BYTES,
            }
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-B", confine.__file__],
                stdin=subprocess.PIPE,
                stdout=printed,
                stderr=printed,
                pass_fds=[reported.fileno()],
                env={},
                cwd=folder,
                start_new_session=True,
            )
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError), process.stdin as stdin:  # of a sandbox that has not started
            stdin.write(json.dumps(request).encode())
        stopped = _wait(process, scratch, time.monotonic() + timeout_s)
        text = output.read_bytes()[-4 * OUTPUT_CHARACTERS :].decode("utf-8", "replace")[-OUTPUT_CHARACTERS:]
        found = report.read_bytes()
    if not found.startswith(confine.READY) and not stopped:
        raise RuntimeError(f"the sandbox did not start: {text}")
    passed = process.returncode == 0 and found == confine.READY + token.encode()
    return Outcome(passed, stopped or ("passed" if passed else _name_reason(process.returncode)), text)


def _wait(process: subprocess.Popen[bytes], scratch: Path, deadline: float) -> str:
    """Wait for the process to end, or kill it; return the reason to kill it, or ""."""
    reason = ""
    while process.poll() is None and not reason:
        if time.monotonic() > deadline:
            reason = "time"
        elif _is_full(scratch):
            reason = "files"
        else:
            time.sleep(POLL_SECONDS)
    if reason:
        process.kill()
        process.wait()
    return reason


def _is_full(scratch: Path) -> bool:
    sizes = []
    for path in scratch.iterdir():  # Landlock lets the program make regular files only, no folders
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile
            sizes.append(path.stat().st_size)
    return len(sizes) > SCRATCH_FILES or sum(sizes) > SCRATCH_BYTES


def _name_reason(status: int) -> str:
    if status < 0:
        return "time" if -status in (9, 24) else f"signal {-status}"  # SIGKILL, SIGXCPU: the limit of CPU time
    return "exception" if status == 1 else "early exit"
