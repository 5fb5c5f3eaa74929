"""Ranks watch each other, so that one that died or hangs ends the run by its name, within a stated time.

A thread of every rank writes a count of beats and of the main thread's progress into the store through which the ranks
met, and reads those of the next rank; the first and the last are neighbors. A rank without beats has died. A rank that
hangs is behind its neighbor, which waits for it.
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

BEAT_SECONDS = 1.0
DEAD_SECONDS = 30.0  # without a beat, after which a rank counts as dead; a busy machine may delay a thread by seconds
_END = "watch/end"


class Watchdog:
    """Watch the next rank while the block runs; without other ranks do nothing.

    Args:
        store: The store of the process group.
        rank: This rank.
        world: Number of ranks.
        hang_seconds: Seconds without progress of this rank, after which a rank that is behind is named.
        dead_seconds: Seconds without a beat of the next rank, after which it is named.
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
        self.progress, self.last_heard = 0, ""
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
        self.moved = self.heard = time.monotonic()  # not of the loading before, which may have taken longer
        if self.world > 1:
            self._beat(0)  # before the first step: a rank that dies at once is named with its machine
            self.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self.world > 1:
            if isinstance(error, RuntimeError) and (isinstance(error, dist.DistError) or "gloo" in str(error)):
                self.thread.join(self.dead_seconds + 5 * self.beat_seconds)  # another rank has gone: wait for its name
            self.ended.set()
            self.thread.join()

    def tick(self) -> None:
        """Note that the main thread has come further."""
        self.progress += 1
        self.rest()

    def rest(self) -> None:
        """Note that the main thread waits for a slow disk, which is no hang."""
        self.moved = time.monotonic()

    def _watch(self) -> None:
        beats = 0
        while not self.ended.wait(self.beat_seconds):
            beats += 1
            try:
                self._beat(beats)
                if self.store.check([_END]):
                    self.end("")
                message = self.judge()
                if message:
                    self.store.set(_END, message)
            except RuntimeError:
                message = "the process that keeps the ranks' store has ended, and with it the run"
            if message:
                self.end(message)
        with contextlib.suppress(RuntimeError):
            self.store.set(f"watch/{self.rank}", "ended")

    def _beat(self, beats: int) -> None:
        self.store.set(f"watch/{self.rank}", f"{beats} {self.progress} {socket.gethostname()}")

    def judge(self) -> str:
        """Return a sentence about the next rank if it has died or hangs, else ""."""
        now, other = time.monotonic(), (self.rank + 1) % self.world
        key = f"watch/{other}"
        said = self.store.get(key).decode() if self.store.check([key]) else ""
        if said != self.last_heard or said == "ended":
            self.heard, self.last_heard = now, said
        if now - self.heard > self.dead_seconds:
            place = f" on {said.split()[2]}" if said else ""
            return f"rank {other}{place} has not responded for {self.dead_seconds:.0f} s: its process has ended"
        still = now - self.moved
        if said in ("", "ended") or still <= self.hang_seconds:
            return ""
        _, progress, host = said.split()
        if int(progress) < self.progress:
            return f"rank {other} on {host} hangs: the other ranks have waited for it for {still:.0f} s"
        if still > 2 * self.hang_seconds:
            return f"no rank has come further for {still:.0f} s, and none is behind the others"
        return ""

    def end(self, message: str) -> None:
        """End this process; the rank that found the reason prints it."""
        if message:
            print(f"error: {message}; the same command resumes from the last checkpoint", file=sys.stderr, flush=True)
        os._exit(1)


def watch(rank: int, world: int, hang_seconds: float) -> Watchdog:
    """Return a watchdog of the default process group."""
    store: Any = dist.distributed_c10d._get_default_store()
    return Watchdog(store.clone() if world > 1 else store, rank, world, hang_seconds)
