"""The transform that calls a function on each element, in the local engine's pool where there is one.

This module imports Beam, which takes a second: it is imported where a job is built.
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
    """Return a transform that calls a function on each element and emits what it returns, counting finished tasks.

    Args:
        function: returns an iterable, or None for no output. It can be pickled.
        pool: where it is called; None to leave it to the engine.
    """
    return beam.ParDo(_Calling(function) if pool is None else _InPool(function, id(pool)))


class _Calling(beam.DoFn):  # type: ignore[misc]
    """Call the function where Beam runs this."""

    def __init__(self, function: Function) -> None:
        self.function = function

    def process(self, element: Any) -> Iterator[Any]:
        with collect_counts() as counts:
            yield from self.function(element) or ()
        LIVE.add(counts)
        _report(counts)


class _InPool(beam.DoFn):  # type: ignore[misc]
    """Hand elements to the pool, and emit the results at the end of the bundle."""

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
    if not future.cancelled() and future.exception() is None:
        LIVE.add(future.result().counts)


def _report(counts: Mapping[str, int]) -> None:
    for name, count in counts.items():
        Metrics.counter(NAMESPACE, name).inc(count)
