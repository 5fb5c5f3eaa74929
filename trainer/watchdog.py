"""Detect ranks that died or hang, name them, and end the run within a fixed time.

Every rank has a thread that watches the next rank; the last rank watches the first. The thread writes two counters into
the store of the process group: beats (a heartbeat) and the progress of the main thread. It reads the counters of the
next rank. If the beats stop, the next rank has died. If the next rank hangs, its progress is less than that of the rank
that waits for it.
"""

import contextlib
import os
import socket
import sys
import threading
import time
from types import TracebackType
from typing import Any

import torch.distributed as dist

BEAT_SECONDS = 1.0  # seconds between two beats
# Seconds without a beat after which a rank counts as dead. A busy machine may delay a thread by seconds.
DEAD_SECONDS = 30.0
_END = "watch/end"  # key in the store; it exists when a rank has found a reason to end the run


class Watchdog:
    """A context manager that watches the next rank. With a single rank it does nothing.

    Args:
        store: The store of the process group.
        rank: This rank.
        world: Number of ranks.
        hang_seconds: If this rank has made no progress for this number of seconds and the next rank is behind it, the
            next rank is reported.
        dead_seconds: If the next rank has sent no beat for this number of seconds, it is reported.
        beat_seconds: Seconds between two beats.
    """

    def __init__(
        self,
        store: dist.Store,
        rank: int,
        world: int,
        hang_seconds: float,
        dead_seconds: float = DEAD_SECONDS,
        beat_seconds: float = BEAT_SECONDS,
    ) -> None:
        self.store, self.rank, self.world = store, rank, world
        self.hang_seconds, self.dead_seconds, self.beat_seconds = hang_seconds, dead_seconds, beat_seconds
        self.progress, self.last_beat = 0, ""
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
        # The times are set here and not in __init__, because the loading in between may have taken longer than a limit.
        self.last_progress_at = self.last_heard_at = time.monotonic()
        if self.world > 1:
            self._beat(0)  # The first beat contains the host name, so that a rank that dies at once is named with it.
            self.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self.world > 1:
            if isinstance(error, RuntimeError) and (isinstance(error, dist.DistError) or "gloo" in str(error)):
                # A connection to another rank was lost. Give the thread time to name the rank and end the process.
                self.thread.join(self.dead_seconds + 5 * self.beat_seconds)
            self.ended.set()
            self.thread.join()

    def note_progress(self) -> None:
        """Count one unit of progress of the main thread."""
        self.progress += 1
        self.note_wait()

    def note_wait(self) -> None:
        """Restart the limit of `hang_seconds`: the main thread waits for a slow disk, which is not a hang."""
        self.last_progress_at = time.monotonic()

    def _watch(self) -> None:
        """Send beats and check the next rank until the context exits. End the process if a rank has died or hangs."""
        beats = 0
        while not self.ended.wait(self.beat_seconds):
            beats += 1
            try:
                self._beat(beats)
                if self.store.check([_END]):
                    self.exit_process("")
                message = self.check_neighbor()
                if message:
                    self.store.set(_END, message)
            except RuntimeError:
                message = "the process that keeps the ranks' store has ended, and with it the run"
            if message:
                self.exit_process(message)
        with contextlib.suppress(RuntimeError):
            self.store.set(f"watch/{self.rank}", "ended")

    def _beat(self, beats: int) -> None:
        self.store.set(f"watch/{self.rank}", f"{beats} {self.progress} {socket.gethostname()}")

    def check_neighbor(self) -> str:
        """Return an error message if the next rank has died or hangs, else ""."""
        now, other = time.monotonic(), (self.rank + 1) % self.world
        key = f"watch/{other}"
        beat = self.store.get(key).decode() if self.store.check([key]) else ""
        if beat != self.last_beat or beat == "ended":
            self.last_heard_at, self.last_beat = now, beat
        if now - self.last_heard_at > self.dead_seconds:
            place = f" on {beat.split()[2]}" if beat else ""
            return f"rank {other}{place} has not responded for {self.dead_seconds:.0f} s: its process has ended"
        stalled = now - self.last_progress_at
        if beat in ("", "ended") or stalled <= self.hang_seconds:
            return ""
        _, progress, host = beat.split()
        if int(progress) < self.progress:
            return f"rank {other} on {host} hangs: the other ranks have waited for it for {stalled:.0f} s"
        if stalled > 2 * self.hang_seconds:
            return f"no rank has made progress for {stalled:.0f} s, and none is behind the others"
        return ""

    def exit_process(self, message: str) -> None:
        """Print the message, unless it is "" because another rank prints it, and end this process."""
        if message:
            print(f"error: {message}; the same command resumes from the last checkpoint", file=sys.stderr, flush=True)
        os._exit(1)


def watch(rank: int, world: int, hang_seconds: float) -> Watchdog:
    """Return a watchdog of the default process group."""
    store: Any = dist.distributed_c10d._get_default_store()
    return Watchdog(store.clone() if world > 1 else store, rank, world, hang_seconds)
