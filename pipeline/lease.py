"""The lease on a corpus in an object store: one driver at a time, a dead one's place can be taken.

`runs/lease/<epoch>` is created, never overwritten, and the highest epoch holds the corpus. Its driver writes a counter
to `runs/heartbeat/<epoch>` again and again; another driver that sees it unchanged for `STALE_SECONDS` by its own clock
takes the next epoch. No clocks are compared. A driver that lost the lease does no harm before it sees so: the same task
writes the same bytes. No hashed file holds the epoch.
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
STALE_SECONDS = 60.0  # six beats: one that is late is not taken for the last
ENDED = b"ended"


class Lease:
    """The lease that this driver holds. `each_beat` is called with every sign of life, and may fail."""

    def __init__(self, storage: Storage, epoch: int, each_beat: Callable[[], None] = lambda: None) -> None:
        self.storage, self.epoch, self.each_beat = storage, epoch, each_beat
        self.lost, self.beaten = False, time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def check(self) -> None:
        """Raise StorageError if another driver has taken the corpus.

        A driver that was suspended gives a sign of life and waits first: a driver that looked before the sign has taken
        the corpus by then, and one that looks after it will not.
        """
        if not self.lost and time.monotonic() - self.beaten > STALE_SECONDS / 2:
            self._give_sign(b"late")
            time.sleep(BEAT_SECONDS)
            self.lost = _highest(self.storage) > self.epoch
        if self.lost:
            raise StorageError(
                f"{self.storage.url}: another run has taken over, because this one wrote no heartbeat for "
                f"{STALE_SECONDS:.0f} s: let that run continue"
            )

    def start(self) -> None:
        """Begin to show that this driver lives."""
        self._give_sign(b"0")
        self._thread.start()

    def end(self) -> None:
        """Give the corpus back."""
        self._stop.set()
        self._thread.join()
        if not self.lost:
            with contextlib.suppress(StorageError):  # then the next driver waits until the heartbeat is stale
                self.storage.write(f"{HEARTBEATS}/{self.epoch:06d}", ENDED)

    def _give_sign(self, sign: bytes) -> None:
        now = time.monotonic()
        self.storage.write(f"{HEARTBEATS}/{self.epoch:06d}", sign)
        self.beaten = now

    def _beat(self) -> None:
        count = 0
        while not self._stop.wait(BEAT_SECONDS):
            count += 1
            with contextlib.suppress(StorageError):  # the run's own reads and writes say so by name
                self._give_sign(str(count).encode())
                self.lost = self.lost or _highest(self.storage) > self.epoch
                self.each_beat()


@contextlib.contextmanager
def leased(storage: Storage, each_beat: Callable[[], None] = lambda: None) -> Iterator[Lease]:
    """Hold the lease on a corpus while the block runs. `each_beat`: called with every sign of life.

    Raises:
        UserError: another driver holds it and lives.
    """
    last = _highest(storage)
    if last and not _has_ended(storage, last):
        raise UserError(f"another run is writing {storage.url}: wait for it, or give another --output")
    place, ours = f"{LEASES}/{last + 1:06d}", f"{platform.node()} {uuid.uuid4().hex}".encode()
    # The client library may have repeated a request that had succeeded: then the lease there is ours.
    if not storage.create(place, ours) and storage.read(place) != ours:
        raise UserError(f"another run has just begun to write {storage.url}: wait for it, or give another --output")
    lease = Lease(storage, last + 1, each_beat)
    lease.start()
    try:
        yield lease
    finally:
        lease.end()


def is_leased(storage: Storage) -> bool:
    """Return True if the last driver has not said that it ended; it may have died."""
    last = _highest(storage)
    return last > 0 and _heartbeat(storage, last) != ENDED


def _highest(storage: Storage) -> int:
    names = (entry.path.rpartition("/")[2] for entry in storage.list_files(LEASES))
    return max((int(name) for name in names if name.isdecimal()), default=0)  # others: a create that was broken off


def _has_ended(storage: Storage, epoch: int) -> bool:
    """Return True if a driver said that it ended, or gives no sign of life for `STALE_SECONDS`."""
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
