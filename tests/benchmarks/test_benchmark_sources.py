"""The benchmark `sources`: rates and ratios are computed as described, and each case reads documents."""

import pytest

from benchmarks import measure, sources
from benchmarks.sources import Case


def test_rates_are_over_cpu_time(monkeypatch: pytest.MonkeyPatch) -> None:
    spent = iter([0, 2, 10, 11] * sources.ROUNDS)
    monkeypatch.setattr(measure, "cpu_seconds", lambda: next(spent))
    case = Case("rows", 6_000_000, lambda: 8, lambda: 99, "a bare parse")
    monkeypatch.setattr(sources, "CASES", {"here": lambda: case, "gone": lambda: None})
    said = sources.run()
    assert "| here | rows | 6.00 | 8 | 3.0 | 4 | a bare parse | 6.0 | 2.00 (2.00 to 2.00) |" in said
    assert "gone: skipped" in said


@pytest.mark.skipif(not sources.SHARED.exists(), reason="the real sample data (../shared/data) is not here")
@pytest.mark.parametrize("name", sorted(sources.CASES))
def test_every_source_gives_documents(name: str) -> None:
    case = sources.CASES[name]()
    assert case is not None and case.size > 0 and case.ours() > 0 and case.bare() > 0
