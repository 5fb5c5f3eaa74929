"""The inner half of the sandbox: a process that restricts its own rights and then runs one program.

`sandbox.run_program` starts this file as a script in a separate interpreter. Only the standard library is imported.

- Landlock (Linux 5.13) restricts access to files: the process can read the standard library, and read and write its
  scratch folder.
- A seccomp filter restricts system calls to those that a computation on files needs. The process can start no other
  process or thread, open no socket, send no signal, trace no process, and change no owner or mode of a file.

Both restrictions are inherited by child processes, need no privilege, and cannot be undone.
"""

import ctypes
import functools
import json
import os
import platform
import struct
import sys
import traceback
import types

READY = b"ready\n"  # written to the report when the process is confined

# Allowed system calls: name -> (number on x86_64, number on aarch64), from Linux's unistd.h. None: no such call.
CALLS: dict[str, tuple[int, int | None]] = {
    "read": (0, 63), "write": (1, 64), "close": (3, 57), "stat": (4, None), "fstat": (5, 80), "lstat": (6, None),
    "poll": (7, None), "lseek": (8, 62), "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215), "brk": (12, 214),
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "pread64": (17, 67),
    "pwrite64": (18, 68), "readv": (19, 65), "writev": (20, 66), "access": (21, None), "select": (23, None),
    "sched_yield": (24, 124), "mremap": (25, 216), "madvise": (28, 233), "dup": (32, 23), "dup2": (33, None),
    "pause": (34, None), "nanosleep": (35, 101), "getitimer": (36, 102), "alarm": (37, None), "setitimer": (38, 103),
    "getpid": (39, 172), "exit": (60, 93), "uname": (63, 160), "fsync": (74, 82), "fdatasync": (75, 83),
    "ftruncate": (77, 46), "getcwd": (79, 17), "chdir": (80, 49), "rename": (82, None), "unlink": (87, None),
    "readlink": (89, None), "umask": (95, 166), "gettimeofday": (96, 169), "getrusage": (98, 165),
    "sysinfo": (99, 179), "times": (100, 153), "getuid": (102, 174), "getgid": (104, 176), "geteuid": (107, 175),
    "getegid": (108, 177), "getppid": (110, 173), "getgroups": (115, 158), "rt_sigsuspend": (130, 133),
    "sigaltstack": (131, 132), "arch_prctl": (158, None), "gettid": (186, 178), "time": (201, None), "futex": (202, 98),
    "sched_getaffinity": (204, 123), "epoll_wait": (232, None), "epoll_ctl": (233, 21), "set_tid_address": (218, 96),
    "restart_syscall": (219, 128), "getdents64": (217, 61), "clock_gettime": (228, 113), "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115), "exit_group": (231, 94), "newfstatat": (262, 79), "unlinkat": (263, 35),
    "renameat": (264, 38), "readlinkat": (267, 78), "faccessat": (269, 48), "pselect6": (270, 72), "ppoll": (271, 73),
    "set_robust_list": (273, 99), "epoll_pwait": (281, 22), "eventfd2": (290, 19), "epoll_create1": (291, 20),
    "dup3": (292, 24), "pipe2": (293, 59), "renameat2": (316, 276), "getrandom": (318, 278), "membarrier": (324, 283),
    "statx": (332, 291), "rseq": (334, 293), "faccessat2": (439, 439),
}  # fmt: skip
# Calls that are allowed for some values of one argument: name -> (numbers as in CALLS, index of the argument, mask,
# allowed values of argument & mask). `fcntl` is checked because F_SETOWN selects a process that receives signals.
# `openat` is checked because before Landlock version 3 it could truncate a file that it opens for reading.
CHECKED_CALLS = {
    "fcntl": ((72, 25), 1, 0xFFFFFFFF, (0, 1, 2, 3, 1030)),  # F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_DUPFD_CLOEXEC
    "openat": ((257, 56), 2, os.O_TRUNC | 3, (0, 1, 2, os.O_TRUNC | 1, os.O_TRUNC | 2)),
}
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column of the tables, AUDIT_ARCH_*
LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446  # system calls, the same on both machines
FILE_READ = 1 << 2 | 1 << 3  # READ_FILE, READ_DIR
FILE_WRITE = 1 << 1 | 1 << 5 | 1 << 8  # WRITE_FILE, REMOVE_FILE, MAKE_REG
HANDLED = ((1, (1 << 13) - 1), (2, 1 << 13), (3, 1 << 14))  # (version of Landlock, access rights that it added)
LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/share/zoneinfo")
SET_SECCOMP, GET_SECCOMP, SET_NO_NEW_PRIVILEGES, FILTER_MODE = 22, 21, 38, 2  # arguments of prctl
ALLOW, FAIL, KILL = 0x7FFF0000, 0x00050000 | 38, 0x80000000  # return values of a filter; 38 is ENOSYS


@functools.cache
def find_obstacle() -> str:
    """Return a sentence that says why this system cannot confine a program, or "" if it can."""
    if sys.platform != "linux" or platform.machine() not in MACHINES:
        return f"model-written code is run on Linux on {' or '.join(MACHINES)} only: evaluate such tasks there"
    libc = ctypes.CDLL(None, use_errno=True)
    if _landlock_version(libc) < 1:
        return (
            "this kernel has no Landlock, which keeps model-written code from the files: "
            "use Linux 5.13 or newer with landlock among the boot option lsm="
        )
    if libc.prctl(GET_SECCOMP, 0, 0, 0, 0) < 0:
        return "this kernel has no seccomp filters, which keep model-written code from the network: use one that has"
    return ""


def _landlock_version(libc: ctypes.CDLL) -> int:
    return int(libc.syscall(LANDLOCK_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(1)))


def _check(result: int, name: str) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")
    return result


def restrict_files(libc: ctypes.CDLL, readable: list[str], writable: str) -> None:
    """Restrict this process by Landlock.

    Args:
        libc: The C library.
        readable: Folders below which the process may read files.
        writable: Folder in which the process may also create, write and remove regular files, but no folders.
    """
    version = _landlock_version(libc)
    handled = sum(rights for since, rights in HANDLED if since <= version)
    rules = struct.pack("=Q", handled)
    fd = _check(libc.syscall(LANDLOCK_CREATE, rules, ctypes.c_size_t(len(rules)), 0), "landlock_create_ruleset")
    granted = {**dict.fromkeys(readable, FILE_READ), writable: FILE_READ | FILE_WRITE | handled & 1 << 14}
    for path, rights in granted.items():
        try:
            folder = os.open(path, os.O_PATH | os.O_DIRECTORY)
        except OSError:  # The folder does not exist on this system.
            continue
        _check(libc.syscall(LANDLOCK_ADD, fd, 1, struct.pack("=Qi", rights, folder), 0), "landlock_add_rule")
        os.close(folder)
    _check(libc.syscall(LANDLOCK_RESTRICT, fd, 0), "landlock_restrict_self")
    os.close(fd)


def build_filter(machine: str) -> bytes:
    """Return the seccomp program (classic BPF) for the tables `CALLS` and `CHECKED_CALLS`.

    Calls that the tables do not allow fail with ENOSYS. A call for another architecture kills the process.

    Args:
        machine: A key of `MACHINES`.
    """
    column, architecture = MACHINES[machine]

    def load(offset: int) -> tuple[int, int, int, int]:
        return 0x20, 0, 0, offset

    def skip_unless(value: int, skipped: int) -> tuple[int, int, int, int]:
        return 0x15, 0, skipped, value

    def answer(value: int) -> tuple[int, int, int, int]:
        return 0x06, 0, 0, value

    # struct seccomp_data: nr at offset 0, arch at 4, instruction pointer at 8, arguments from 16, of 8 bytes each.
    lines = [load(4), (0x15, 1, 0, architecture), answer(KILL), load(0)]
    for numbers in CALLS.values():
        if (number := numbers[column]) is not None:
            lines += [skip_unless(number, 1), answer(ALLOW)]
    for numbers, argument, mask, values in CHECKED_CALLS.values():
        tests = [line for value in values for line in (skip_unless(value, 1), answer(ALLOW))]
        body = [load(16 + 8 * argument), (0x54, 0, 0, mask), *tests, answer(FAIL)]  # lower 32 bits; 0x54 is AND
        lines += [skip_unless(numbers[column], len(body)), *body]
    return b"".join(struct.pack("=HBBI", *line) for line in [*lines, answer(FAIL)])


def restrict_calls(libc: ctypes.CDLL) -> None:
    """Restrict this process to the system calls of the tables `CALLS` and `CHECKED_CALLS`."""
    program = ctypes.create_string_buffer(build_filter(platform.machine()))
    packed = struct.pack("HP", (len(program) - 1) // 8, ctypes.addressof(program))
    _check(libc.prctl(SET_SECCOMP, ctypes.c_ulong(FILTER_MODE), packed, 0, 0), "prctl(PR_SET_SECCOMP)")


def confine(scratch: str, memory_bytes: int, cpu_seconds: int, file_bytes: int) -> None:
    """Restrict this process permanently: resource limits, then access to files, then system calls.

    Args:
        scratch: The folder in which the process may write.
        memory_bytes: Limit of address space.
        cpu_seconds: Limit of CPU time.
        file_bytes: Maximum size of a file.
    """
    import resource

    for kind, limit in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (limit, limit))
    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.prctl(SET_NO_NEW_PRIVILEGES, ctypes.c_ulong(1), 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)")
    restrict_files(libc, [*filter(None, sys.path), *LIBRARIES], scratch)
    restrict_calls(libc)


def main() -> None:
    """Read a request from standard input, confine this process, run the program, and report how it ended.

    The code after the program uses only local names, because the program may have replaced every name that it can
    access.
    """
    request = json.loads(sys.stdin.buffer.read())
    report, token, program = request["report"], request["token"].encode(), request["program"]
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(request["scratch"])
    confine(request["scratch"], request["memory_bytes"], request["cpu_seconds"], request["file_bytes"])
    write, leave, print_error = os.write, os._exit, traceback.print_exc
    write(report, READY)
    module = sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        exec(compile(program, "<program>", "exec", dont_inherit=True), module.__dict__)
        write(report, token)
        status = 0
    except SystemExit:
        status = 2
    except BaseException:
        status = 1
        print_error()
    finally:
        try:
            sys.stdout.flush()
        finally:
            leave(status)


if __name__ == "__main__":
    main()
