"""Run steps by calling their functions, without an engine, for property tests over many small corpora."""

from collections import defaultdict
from pathlib import Path
from typing import Any

from manifests.files import sha256_file
from pipeline.beam.exchange import Mapped
from pipeline.beam.step import Keyed, Output, Receipt, Receipts, Result, Step, Unit


def run_map(corpus: Path, step: Step) -> Receipts:
    """Run all units of a step and return the receipts by name of the unit."""
    return {unit.name: _receipt(corpus, _call(corpus, step, unit)) for unit in step.units}


def run_exchange(corpus: Path, mapping: Step, reducing: Step) -> Receipts:
    """Run an exchange and return the receipts of its reducers by name of the unit."""
    ranges: dict[int, list[bytes]] = defaultdict(list)
    for unit in sorted(mapping.units, key=lambda one: one.name):
        mapped: Mapped = _call(corpus, mapping, unit)
        for number, block in mapped.blocks:
            ranges[number].append(block)
    return {
        unit.name: _receipt(corpus, _call(corpus, reducing, unit, ranges[number]))
        for number, unit in enumerate(reducing.units)
    }


def _call(corpus: Path, step: Step, unit: Unit, *blocks: Any) -> Any:
    arguments = {**step.settings, **step.by_source.get(unit.source, {}), **unit.arguments}
    plain = {key: value.value if isinstance(value, Keyed) else value for key, value in arguments.items()}
    return step.function(corpus, unit.name, *blocks, **plain)


def _receipt(corpus: Path, result: Result) -> Receipt:
    outputs = [Output(path, (corpus / path).stat().st_size, sha256_file(corpus / path)) for path in result.paths]
    return Receipt("", outputs, result.tallies, result.facts)
