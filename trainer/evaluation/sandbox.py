"""Run a program that a model wrote, with restricted rights and limited resources.

This module is the outer half of the sandbox. It starts the inner half, `confine.py`, in a new session and with an empty
environment. It limits the time and the size of the scratch folder, and reads the report. `confine.py` defines which
rights the program has.

A program has passed if it was executed to its last line. To prove this, the inner half writes a random token to the
report after the last line. If a program ends its process early, prints text or replaces builtins, the token is not
written. The token is in the memory of the program's process, so a program that was written to deceive this module could
search for it. This cannot be prevented if the test runs in the same interpreter as the tested code.
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

FILE_BYTES = 8 << 20  # maximum size in bytes of one file, and of the output
SCRATCH_BYTES, SCRATCH_FILES = 32 << 20, 100  # maximum size in bytes and number of files of the scratch folder
POLL_SECONDS = 0.005  # seconds between two checks of the process and its scratch folder
OUTPUT_CHARACTERS = 2_000  # number of last characters of the output that are kept


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of running a program.

    Attributes:
        passed: True if the program was executed to its last line.
        reason: "passed", "exception", "early exit", "time", "signal N", or "files" (the scratch folder is too large).
        output: The last OUTPUT_CHARACTERS characters of standard output and standard error.
    """

    passed: bool
    reason: str
    output: str


def run_program(program: str, *, timeout_s: float = 10.0, memory_bytes: int = 1 << 30) -> Outcome:
    """Run a Python program in the sandbox.

    The program has no access to the network, to other processes, to environment variables, or to files outside its
    scratch folder and the standard library.

    Args:
        program: Source code, including its tests. A failed test must raise an exception.
        timeout_s: Wall-clock limit in seconds. The limit of CPU time is the same, rounded up to whole seconds.
        memory_bytes: Limit of address space in bytes.

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
        with contextlib.suppress(BrokenPipeError), process.stdin as stdin:  # The sandbox did not start.
            stdin.write(json.dumps(request).encode())
        stopped = _wait(process, scratch, time.monotonic() + timeout_s)
        text = output.read_bytes()[-4 * OUTPUT_CHARACTERS :].decode("utf-8", "replace")[-OUTPUT_CHARACTERS:]
        found = report.read_bytes()
    if not found.startswith(confine.READY) and not stopped:
        raise RuntimeError(f"the sandbox did not start: {text}")
    passed = process.returncode == 0 and found == confine.READY + token.encode()
    return Outcome(passed, stopped or ("passed" if passed else _name_reason(process.returncode)), text)


def _wait(process: subprocess.Popen[bytes], scratch: Path, deadline: float) -> str:
    """Wait until the process ends, or kill it at a limit. Return "time" or "files" if it was killed, else ""."""
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
    for path in scratch.iterdir():  # Landlock allows regular files, but no folders.
        with contextlib.suppress(FileNotFoundError):  # The program has removed the file.
            sizes.append(path.stat().st_size)
    return len(sizes) > SCRATCH_FILES or sum(sizes) > SCRATCH_BYTES


def _name_reason(status: int) -> str:
    if status < 0:
        return "time" if -status in (9, 24) else f"signal {-status}"  # SIGKILL or SIGXCPU: limit of CPU time
    return "exception" if status == 1 else "early exit"
