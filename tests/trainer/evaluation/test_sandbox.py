"""Programs that try to leave the sandbox, to outlive it, to exhaust resources, or to pass without passing tests."""

import platform
import socket
import struct
import time
from pathlib import Path

import pytest

from filters.errors import UserError
from trainer.evaluation import confine
from trainer.evaluation.sandbox import OUTPUT_CHARACTERS, run_program

needs_sandbox = pytest.mark.skipif(bool(confine.find_obstacle()), reason=confine.find_obstacle() or "it is there")

REFUSED = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)

def refused(action, *arguments):
    try:
        result = action(*arguments)
    except (OSError, RuntimeError):
        return
    assert isinstance(result, int) and result < 0, (action, arguments, result)
"""


@needs_sandbox
def test_a_correct_program_passes_and_a_wrong_one_does_not() -> None:
    good = run_program(
        "import dataclasses, math, re\nopen('a', 'w').write('x')\nprint('seen')\nassert open('a').read() == 'x'"
    )
    assert (good.passed, good.reason, good.output) == (True, "passed", "seen\n")
    wrong = run_program("def f(x):\n    return x\nassert f(1) == 2, 'one is not two'")
    assert (wrong.passed, wrong.reason) == (False, "exception")
    assert "AssertionError: one is not two" in wrong.output
    assert run_program("def f(:").reason == run_program("\0").reason == "exception"
    assert run_program("print('\udc80')").passed, "a lone surrogate becomes a question mark"


@needs_sandbox
def test_there_is_no_network() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        program = f"""
import socket
for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK):
    refused(lambda: bool(socket.socket(family)))
refused(lambda: bool(socket.create_connection(("127.0.0.1", {server.getsockname()[1]}))))
refused(libc.socketpair, 1, 1, 0, ctypes.create_string_buffer(8))
"""
        assert run_program(REFUSED + program).passed


@needs_sandbox
def test_there_are_no_other_processes_and_no_threads() -> None:
    program = """
import subprocess, threading, time
for _ in range(100):
    refused(os.fork)
refused(libc.vfork)
refused(libc.syscall, 435, ctypes.create_string_buffer(88), 88)  # clone3
refused(subprocess.run, ["true"])
assert os.system("true") != 0
refused(os.execv, "/bin/true", ["true"])
refused(threading.Thread(target=time.sleep, args=(60,)).start)
"""
    assert run_program(REFUSED + program).passed


@needs_sandbox
@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("while True: pass", "time"),
        ("import time\ntime.sleep(60)", "time"),
        ("import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass", "time"),
        ("x = bytearray(1 << 32)", "exception"),
        ("x = [0]\nwhile True: x += x", "exception"),
        ("import resource\nresource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40))", "exception"),
        ("with open('a', 'wb') as file: file.write(bytes(1 << 24))", "exception"),
        ("import os, time\nfor n in range(20): os.write(os.open(str(n), 65), bytes(4 << 20))\ntime.sleep(99)", "files"),
        ("import time\nfor n in range(200): open(str(n), 'w').close()\ntime.sleep(99)", "files"),
    ],
)  # fmt: skip
def test_time_memory_and_files_are_limited(program: str, reason: str) -> None:
    timeout = 0.7 if reason == "time" else 60  # Other programs end at once, except on a busy machine.
    started = time.monotonic()
    outcome = run_program(program, timeout_s=timeout, memory_bytes=1 << 28)
    assert (outcome.passed, outcome.reason) == (False, reason), outcome.output
    assert time.monotonic() - started < timeout + 5


@needs_sandbox
def test_output_is_limited() -> None:
    outcome = run_program("line = 'x' * 1023\nwhile True: print(line)")
    assert (outcome.reason, len(outcome.output)) == ("exception", OUTPUT_CHARACTERS)


@needs_sandbox
def test_nothing_outside_the_scratch_folder_is_read_or_changed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("kept")
    before = secret.stat()
    program = f"""
path, folder = {str(secret)!r}, {str(tmp_path)!r}
refused(open, path)
refused(open, path, "a")
for flags in (os.O_RDONLY | os.O_TRUNC, os.O_RDWR, os.O_WRONLY | os.O_CREAT, os.O_TMPFILE | os.O_RDWR):
    refused(os.open, path, flags)
    refused(os.open, folder + "/new", flags | os.O_CREAT)
refused(os.open, os.__file__, os.O_RDONLY | os.O_TRUNC)
for action in (os.remove, os.mkdir, os.mkfifo, os.listdir, os.utime, os.rmdir):
    refused(action, path)
refused(os.truncate, path, 0)
refused(os.chmod, path, 0o777)
refused(os.chown, path, 1, 1)
refused(os.rename, path, "here")
refused(os.link, path, "here")
refused(os.symlink, path, "here")
refused(os.setxattr, path, "user.x", b"")
refused(os.mkdir, "here")
refused(os.chroot, ".")
refused(libc.mount, b"none", b".", b"tmpfs", 0, None)
refused(libc.unshare, 0x10000000)
"""
    outcome = run_program(REFUSED + program)
    assert outcome.passed, outcome.output
    assert secret.read_text() == "kept"
    assert (secret.stat().st_mode, secret.stat().st_mtime_ns) == (before.st_mode, before.st_mtime_ns)
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


@needs_sandbox
def test_the_parent_is_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN_OF_THE_TEST", "secret")
    program = """
import fcntl, signal
parent = os.getppid()
assert "secret" not in str(os.environ)
for name in ("environ", "mem", "maps", "cmdline", "status", "fd"):
    refused(open, f"/proc/{parent}/{name}")
    refused(open, f"/proc/self/{name}")
refused(os.listdir, "/proc")
refused(os.kill, parent, signal.SIGKILL)
refused(os.kill, parent, 0)
refused(os.killpg, parent, signal.SIGKILL)
refused(lambda: bool(os.pidfd_open(parent)))
refused(libc.ptrace, 16, parent, None, None)  # PTRACE_ATTACH
refused(libc.process_vm_readv, parent, None, 0, None, 0, 0)
refused(libc.prlimit, parent, 0, ctypes.create_string_buffer(16), None)
refused(os.setpriority, os.PRIO_PROCESS, parent, 19)
reader, writer = os.pipe()
refused(fcntl.fcntl, reader, fcntl.F_SETOWN, parent)  # the parent would get the pipe's signals
"""
    outcome = run_program(REFUSED + program)
    assert outcome.passed, outcome.output


@needs_sandbox
@pytest.mark.parametrize(
    "program",
    [
        "import sys\nsys.exit(0)",
        "import os\nos._exit(0)",
        "raise SystemExit",
        "import atexit, os\natexit.register(os._exit, 0)\nassert False",
        "import sys\nsys.excepthook = print\nassert False",
        "import os\nos.abort()",
        "import builtins, os\nleave = os._exit\nos._exit = lambda status: leave(0)\nassert False",
        "import builtins, os, sys, traceback\nbuiltins.exec = builtins.compile = builtins.print = lambda *_: None\n"
        "os.write = lambda *_: 0\ntraceback.print_exc = lambda: None\nsys.stdout = sys.stderr = None\nassert False",
        "AssertionError = KeyError\nassert False",
        "import os\nfor fd in range(64):\n    try: os.write(fd, b'0' * 32)\n    except OSError: pass\nos._exit(0)",
        "from signal import *\nimport os\nsignal(SIGALRM, lambda *_: os._exit(0))\nsetitimer(0, 0.05)\npause()",
    ],
)  # fmt: skip
def test_only_the_last_line_passes(program: str) -> None:
    assert not run_program(program + "\n").passed


@needs_sandbox
def test_nothing_is_left_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    fds = len([*Path("/proc/self/fd").iterdir()])
    run_program("open('a', 'w').write('x')")
    run_program("while True: pass", timeout_s=0.2)
    assert not [*tmp_path.iterdir()]
    assert len([*Path("/proc/self/fd").iterdir()]) <= fds, "others may have closed theirs meanwhile"


def test_a_system_that_cannot_confine_is_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    confine.find_obstacle.cache_clear()
    try:
        with pytest.raises(UserError, match="Linux on x86_64 or aarch64 only"):
            run_program("pass")
    finally:
        monkeypatch.undo()
        confine.find_obstacle.cache_clear()


@pytest.mark.parametrize("machine", sorted(confine.MACHINES))
def test_the_filter_allows_what_the_tables_allow(machine: str) -> None:
    """Run the filter in an interpreter of its instructions, for every call and for selected arguments."""
    program = [*struct.iter_unpack("=HBBI", confine.build_filter(machine))]
    column, architecture = confine.MACHINES[machine]

    def answer(number: int, *arguments: int, architecture: int = architecture) -> int:
        data = struct.pack("=iIQ6Q", number, architecture, 0, *[*arguments, 0, 0, 0, 0, 0, 0][:6])
        place = value = 0
        while True:
            code, yes, no, k = program[place]
            place += 1
            if code == 0x20:
                (value,) = struct.unpack_from("=I", data, k)
            elif code == 0x54:
                value &= k
            elif code == 0x15:
                place += yes if value == k else no
            else:
                assert code == 0x06
                return int(k)

    allowed = {numbers[column] for numbers in confine.CALLS.values()} - {None}
    checked = {numbers[column]: rule for numbers, *rule in confine.CHECKED_CALLS.values()}
    for number in range(512):
        if number not in checked:
            assert (answer(number) == confine.ALLOW) == (number in allowed), number
        assert answer(number, architecture=architecture ^ 1) == confine.KILL
        assert answer(number | 1 << 30) == confine.FAIL, "the calls of x86's x32"
    for number, (argument, mask, values) in checked.items():
        for value in range(2048):
            arguments = [0, 0, 0, 0, 0, 0]
            arguments[argument] = value | 1 << 40
            assert (answer(number, *arguments) == confine.ALLOW) == (value & mask in values)
