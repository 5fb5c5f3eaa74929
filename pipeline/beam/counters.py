"""Counts of finished tasks: Beam counters for every engine's own display, and the driver's live view of local ones.

`pipeline.beam.task.perform` adds a task's counts to the collection around it. The transform of `pipeline.beam.spread`
makes Beam counters of them, and adds them to `LIVE` where the driver is the process that runs it.
"""

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextvars import ContextVar

from manifests.ledger import Tally, total

NAMESPACE = "teratoken"
TASKS, RECORDS, BYTES, DROPPED = "tasks", "records", "bytes", "dropped/"  # a reason follows the last

_collection: ContextVar["Counter[str] | None"] = ContextVar("_collection", default=None)


def counts_of(tallies: Mapping[str, Tally]) -> Counter[str]:
    """Return the counts of one finished task: records and bytes that it took in, and dropped records by reason."""
    whole = total(tallies.values())
    counts = Counter({TASKS: 1, RECORDS: whole.entered["records"], BYTES: whole.entered["bytes"]})
    for reason, units in whole.dropped.items():
        counts[DROPPED + reason] += units["records"]
    return counts


@contextlib.contextmanager
def collect_counts() -> Iterator[Counter[str]]:
    """Collect the counts of tasks while the block runs."""
    counts = Counter[str]()
    token = _collection.set(counts)
    try:
        yield counts
    finally:
        _collection.reset(token)


def add(counts: Mapping[str, int]) -> None:
    """Add to the collection, if there is one."""
    collection = _collection.get()
    if collection is not None:
        collection.update(counts)


class Live:
    """The counts of the job that the local engine is running."""

    def __init__(self) -> None:
        self._lock, self._counts = threading.Lock(), Counter[str]()

    def clear(self) -> None:
        """Begin a job."""
        with self._lock:
            self._counts.clear()

    def add(self, counts: Mapping[str, int]) -> None:
        """Add a task's counts."""
        with self._lock:
            self._counts.update(counts)

    def read(self) -> Counter[str]:
        """Return the counts so far."""
        with self._lock:
            return Counter(self._counts)


LIVE = Live()
