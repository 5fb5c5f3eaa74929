"""Test commands with output encodings that lack characters, and with closed pipes."""

import io
import os
import subprocess
import sys

import pytest
from corpus import ROOT

from manifests.display import CLOSED_PIPE, end_quietly, number_table, print_parts


@pytest.mark.parametrize("command", [["manifests"], ["pipeline", "plan"], ["trainer", "launch"]])
def test_help_comes_on_a_terminal_of_ascii(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command, "--help"],
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        timeout=600,
        check=True,
    )
    assert done.stdout.startswith(b"usage: ") and done.stdout.isascii()


def test_what_a_terminal_lacks_is_spelled_out() -> None:
    code = "from manifests.display import escape_unencodable_output as f; f(); print('a\\u2026\\u65e5')"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, check=True)
    assert done.stdout.split() == [rb"a\u2026\u65e5"]


def test_lines_of_tables_are_dashes_on_a_terminal_of_ascii() -> None:
    code = "from manifests.display import *; print_parts([number_table('', 'source', 'tokens')])"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, check=True)
    assert b"--------" in done.stdout


@pytest.mark.parametrize("command", ["pipeline filters", "trainer evaluate --list"])
def test_a_closed_pipe_ends_a_command_without_a_traceback_and_not_as_a_success(command: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)  # `head` does this before the command has printed all its output.
    words = [sys.executable, "-m", *command.split()]
    done = subprocess.run(words, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (CLOSED_PIPE, b"")
    assert end_quietly(lambda: 2) == 2


def test_closed_streams_do_not_give_their_places_to_files() -> None:
    code = (
        "import os, sys; from manifests.display import escape_unencodable_output as f; f(); print('x', flush=True);"
        "print('y', file=sys.stderr, flush=True); sys.exit(os.open(os.devnull, os.O_RDONLY) - 3)"
    )
    closed = [sys.executable, "-c", "import os, sys; os.closerange(0, 3); os.execv(sys.executable, sys.argv[1:])"]
    done = subprocess.run([*closed, sys.executable, "-c", code], cwd=ROOT, check=False)
    assert done.returncode == 0


def test_a_narrow_terminal_cuts_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm")
    table = number_table("Sources", "source", *(f"column {number}" for number in range(6)))
    table.add_row("stackexchange", *(f"{10**number:,}" for number in range(6, 12)))
    print_parts([table])
    assert all(f"{10**number:,}" in terminal.getvalue() for number in range(6, 12))
