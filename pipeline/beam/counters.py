"""Count finished tasks, records and bytes, for Beam's counters and for the progress of local jobs.

`pipeline.beam.task.perform` adds a task's counts to the collection of the current context (`collect_counts`). The
transform of `pipeline.beam.spread` adds the collected counts to Beam counters, which every engine can display. In the
driver's process, it also adds them to `LIVE`, from which the progress of a local job is read.
"""

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextvars import ContextVar

from manifests.ledger import Tally, total

NAMESPACE = "teratoken"
TASKS, RECORDS, BYTES, DROPPED = "tasks", "records", "bytes", "dropped/"  # DROPPED is followed by a reason

_collection: ContextVar["Counter[str] | None"] = ContextVar("_collection", default=None)


def counts_of(tallies: Mapping[str, Tally]) -> Counter[str]:
    """Return the counts of one finished task: input records and bytes, and the number of dropped records per reason.

    Args:
        tallies: a dict from source name to tally.
    """
    whole = total(tallies.values())
    counts = Counter({TASKS: 1, RECORDS: whole.entered["records"], BYTES: whole.entered["bytes"]})
    for reason, units in whole.dropped.items():
        counts[DROPPED + reason] += units["records"]
    return counts


@contextlib.contextmanager
def collect_counts() -> Iterator[Counter[str]]:
    """Yield a counter, to which `add` adds the counts of tasks while the `with` block runs."""
    counts = Counter[str]()
    token = _collection.set(counts)
    try:
        yield counts
    finally:
        _collection.reset(token)


def add(counts: Mapping[str, int]) -> None:
    """Add counts to the counter of the enclosing `collect_counts`, if there is one."""
    collection = _collection.get()
    if collection is not None:
        collection.update(counts)


class Live:
    """The counts of the job that the local engine is running. The methods can be called from several threads."""

    def __init__(self) -> None:
        self._lock, self._counts = threading.Lock(), Counter[str]()

    def clear(self) -> None:
        """Set all counts to 0 at the start of a job."""
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
