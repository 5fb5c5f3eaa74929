"""Define rules and step functions that kill the interpreter, for tests of the quarantine.

They are in a separate module so that worker processes can import them.
"""

import os
import signal
import time
from pathlib import Path

from filters.reasons import CustomReason
from filters.rule import ExtractRule, Found, Page, Rule, Verdict, keep
from manifests.document import Locator
from manifests.files import write_atomic
from pipeline.beam.quarantine import forget_record, is_quarantined
from pipeline.beam.step import Result

NEVER = CustomReason("custom-never", "no record leaves under this reason")


def die(name: str) -> None:
    os.kill(os.getpid(), signal.Signals[name])


class CrashAtExtract(ExtractRule):
    """A rule at extraction that kills the interpreter if a page contains a certain word."""

    REASONS = (NEVER,)

    def apply(self, page: Page, found: Found) -> Verdict:
        if "segmentationfault" in page.text:
            die("SIGSEGV")
        return keep()


class CrashAtFilter(Rule):
    """A rule at filtering that kills the interpreter if a document contains a certain word."""

    REASONS = (NEVER,)

    def apply(self, page: Page, found: Found) -> Verdict:
        if "abortedbyassertion" in page.text:
            die("SIGABRT")
        return keep()


def die_at_record(corpus: Path, name: str, *, how: str) -> Result:
    """Kill the process while it works on a record."""
    is_quarantined(Locator("dump", 7, 3))
    die(how)
    return Result([])


def die_after_record(corpus: Path, name: str, *, how: str) -> Result:
    """Kill the process after it has finished a record."""
    is_quarantined(Locator("dump", 7, 3))
    forget_record()
    die(how)
    return Result([])


def write_pid_and_wait(corpus: Path, name: str) -> Result:
    """Write the process id to a file, and sleep for longer than any test waits."""
    write_atomic(corpus / "pid", str(os.getpid()).encode())
    time.sleep(600)
    return Result([])


def die_at_other_record(corpus: Path, name: str) -> Result:
    """Kill the process at one record in the first attempt, and at another record in later attempts."""
    marker = corpus / "tried"
    is_quarantined(Locator("dump", 7 if marker.exists() else 8, 3))
    marker.touch()
    die("SIGSEGV")
    return Result([])
