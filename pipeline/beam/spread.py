"""Apply a function to each element of a PCollection, in the local engine's pool if there is one.

This module imports Beam, which takes a second. So other modules import it only when they build a job.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from pipeline.beam.counters import LIVE, NAMESPACE, collect_counts
from pipeline.beam.pool import POOLS, Called, Pool

Function = Callable[[Any], Iterable[Any] | None]


def spread(function: Function, pool: Pool | None) -> beam.PTransform:
    """Return a transform that calls a function with each element, emits the results, and counts finished tasks.

    Args:
        function: a function that can be pickled. It returns an iterable of output elements, or None.
        pool: the running pool in which the function is called; None to call it in the engine's workers.
    """
    return beam.ParDo(_Calling(function) if pool is None else _InPool(function, id(pool)))


class _Calling(beam.DoFn):  # type: ignore[misc]
    """A DoFn that calls the function in the worker that runs the DoFn."""

    def __init__(self, function: Function) -> None:
        self.function = function

    def process(self, element: Any) -> Iterator[Any]:
        with collect_counts() as counts:
            yield from self.function(element) or ()
        LIVE.add(counts)
        _report(counts)


class _InPool(beam.DoFn):  # type: ignore[misc]
    """A DoFn that submits elements to the pool, and emits the results at the end of the bundle."""

    def __init__(self, function: Function, key: int) -> None:
        self.function, self.key = function, key

    def start_bundle(self) -> None:
        self.waiting: list[Future[Called]] = []

    def process(self, element: Any) -> None:
        future = POOLS[self.key].submit(self.function, element)
        future.add_done_callback(_count_live)
        self.waiting.append(future)

    def finish_bundle(self) -> Iterator[WindowedValue]:
        window = GlobalWindow()
        for future in self.waiting:
            called = future.result()
            _report(called.counts)
            for value in called.values:
                yield WindowedValue(value, window.max_timestamp(), (window,))


def _count_live(future: "Future[Called]") -> None:
    """Add the counts of a finished call to the live counts."""
    if not future.cancelled() and future.exception() is None:
        LIVE.add(future.result().counts)


def _report(counts: Mapping[str, int]) -> None:
    """Add counts to Beam's counters."""
    for name, count in counts.items():
        Metrics.counter(NAMESPACE, name).inc(count)
