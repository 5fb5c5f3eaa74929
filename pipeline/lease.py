"""The lease on a corpus in an object store. Only one driver at a time holds it.

A driver takes the lease when it creates `runs/lease/<epoch>`, which is never overwritten. The driver with the highest
epoch holds the lease. It writes a counter to `runs/heartbeat/<epoch>` every `BEAT_SECONDS`. If another driver observes
that the heartbeat has not changed for `STALE_SECONDS`, it takes the next epoch. Each driver measures time with its own
clock, so clocks of machines need not agree. A driver that lost the lease may run for a while before it notices. This
does no harm, because a task always writes the same bytes. No file that is hashed contains the epoch.
"""

import contextlib
import platform
import threading
import time
import uuid
from collections.abc import Callable, Iterator

from filters.errors import UserError
from manifests.storage import Storage, StorageError

LEASES, HEARTBEATS = "runs/lease", "runs/heartbeat"
BEAT_SECONDS = 10.0
STALE_SECONDS = 60.0  # Six heartbeat intervals, so that a driver does not lose the lease after one late heartbeat.
ENDED = b"ended"


class Lease:
    """The lease that this driver holds. `each_beat` is called after every heartbeat, and may raise StorageError."""

    def __init__(self, storage: Storage, epoch: int, each_beat: Callable[[], None] = lambda: None) -> None:
        self.storage, self.epoch, self.each_beat = storage, epoch, each_beat
        self.lost, self.last_beat = False, time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def check(self) -> None:
        """Raise StorageError if another driver has taken the lease.

        A driver whose process was suspended first writes a heartbeat and waits for `BEAT_SECONDS`. A driver that read
        the old heartbeat has taken the lease by then. A driver that reads the new heartbeat will not take it.
        """
        if not self.lost and time.monotonic() - self.last_beat > STALE_SECONDS / 2:
            self._write_heartbeat(b"late")
            time.sleep(BEAT_SECONDS)
            self.lost = _highest(self.storage) > self.epoch
        if self.lost:
            raise StorageError(
                f"{self.storage.url}: another run has taken over, because this one wrote no heartbeat for "
                f"{STALE_SECONDS:.0f} s: let that run continue"
            )

    def start(self) -> None:
        """Write the first heartbeat, and start the thread that writes the next ones."""
        self._write_heartbeat(b"0")
        self._thread.start()

    def end(self) -> None:
        """Stop the heartbeat and release the lease."""
        self._stop.set()
        self._thread.join()
        if not self.lost:
            with contextlib.suppress(StorageError):  # If this fails, the next driver waits for `STALE_SECONDS`.
                self.storage.write(f"{HEARTBEATS}/{self.epoch:06d}", ENDED)

    def _write_heartbeat(self, value: bytes) -> None:
        now = time.monotonic()
        self.storage.write(f"{HEARTBEATS}/{self.epoch:06d}", value)
        self.last_beat = now

    def _beat(self) -> None:
        count = 0
        while not self._stop.wait(BEAT_SECONDS):
            count += 1
            with contextlib.suppress(StorageError):  # The reads and writes of the run report storage errors themselves.
                self._write_heartbeat(str(count).encode())
                self.lost = self.lost or _highest(self.storage) > self.epoch
                self.each_beat()


@contextlib.contextmanager
def leased(storage: Storage, each_beat: Callable[[], None] = lambda: None) -> Iterator[Lease]:
    """Hold the lease on a corpus while the block runs.

    Args:
        storage: The object store of the corpus.
        each_beat: Function that is called after every heartbeat.

    Raises:
        UserError: Another driver holds the lease and writes heartbeats.
    """
    last = _highest(storage)
    if last and not _has_ended(storage, last):
        raise UserError(f"another run is writing {storage.url}: wait for it, or give another --output")
    place, ours = f"{LEASES}/{last + 1:06d}", f"{platform.node()} {uuid.uuid4().hex}".encode()
    # If the lease exists, it may still be ours: the client library may have retried a request that had succeeded.
    if not storage.create(place, ours) and storage.read(place) != ours:
        raise UserError(f"another run has just begun to write {storage.url}: wait for it, or give another --output")
    lease = Lease(storage, last + 1, each_beat)
    lease.start()
    try:
        yield lease
    finally:
        lease.end()


def is_leased(storage: Storage) -> bool:
    """Return True if the last driver has not released the lease. It may be running, or it may have been killed."""
    last = _highest(storage)
    return last > 0 and _heartbeat(storage, last) != ENDED


def _highest(storage: Storage) -> int:
    names = (entry.path.rpartition("/")[2] for entry in storage.list_files(LEASES))
    return max((int(name) for name in names if name.isdecimal()), default=0)  # other names: interrupted uploads


def _has_ended(storage: Storage, epoch: int) -> bool:
    """Return True if a driver has released its lease, or writes no heartbeat for `STALE_SECONDS`."""
    first = _heartbeat(storage, epoch)
    waited = time.monotonic() + STALE_SECONDS
    while first != ENDED and time.monotonic() < waited:
        time.sleep(min(BEAT_SECONDS / 2, STALE_SECONDS))
        now = _heartbeat(storage, epoch)
        if now == ENDED:
            return True
        if now != first:
            return False
    return True


def _heartbeat(storage: Storage, epoch: int) -> bytes:
    try:
        return storage.read(f"{HEARTBEATS}/{epoch:06d}")
    except FileNotFoundError:
        return b""
