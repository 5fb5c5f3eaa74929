"""Rules and steps that kill the interpreter, for tests of the quarantine; of their own for worker processes."""

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
    """Kill the interpreter at a word, while dumps are read."""

    REASONS = (NEVER,)

    def apply(self, page: Page, found: Found) -> Verdict:
        if "segmentationfault" in page.text:
            die("SIGSEGV")
        return keep()


class CrashAtFilter(Rule):
    """Kill the interpreter at a word, while documents are filtered."""

    REASONS = (NEVER,)

    def apply(self, page: Page, found: Found) -> Verdict:
        if "abortedbyassertion" in page.text:
            die("SIGABRT")
        return keep()


def at_record(corpus: Path, name: str, *, how: str) -> Result:
    """Die at a record."""
    is_quarantined(Locator("dump", 7, 3))
    die(how)
    return Result([])


def behind_record(corpus: Path, name: str, *, how: str) -> Result:
    """Die where no record is read."""
    is_quarantined(Locator("dump", 7, 3))
    forget_record()
    die(how)
    return Result([])


def tell_and_wait(corpus: Path, name: str) -> Result:
    """Write the number of this process, and take longer than any test waits."""
    write_atomic(corpus / "pid", str(os.getpid()).encode())
    time.sleep(600)
    return Result([])


def by_chance(corpus: Path, name: str) -> Result:
    """Die at a record, and at another when tried again."""
    marker = corpus / "tried"
    is_quarantined(Locator("dump", 7 if marker.exists() else 8, 3))
    marker.touch()
    die("SIGSEGV")
    return Result([])
