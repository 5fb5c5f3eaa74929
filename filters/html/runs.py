"""Find the maximal scoring runs of a sequence in linear time (Ruzzo and Tompa, ISMB 1999)."""

from collections.abc import Sequence


def find_maximal_runs(scores: Sequence[float]) -> list[tuple[int, int, float]]:
    """Return all maximal scoring runs of a sequence as (start, end, sum of scores), in order."""
    # Each run: start, end, cumulative sum at the start, cumulative sum at the end, index of the last run whose
    # cumulative sum at the start is smaller.
    runs: list[tuple[int, int, float, float, int]] = []
    total = 0.0
    for index, score in enumerate(scores):
        before, total = total, total + score
        if score <= 0:
            continue
        start, lower = index, len(runs) - 1
        while True:
            while lower >= 0 and runs[lower][2] >= before:
                lower = runs[lower][4]
            if lower < 0 or runs[lower][3] >= total:
                break
            start, before = runs[lower][0], runs[lower][2]
            del runs[lower:]
            lower -= 1
        runs.append((start, index + 1, before, total, lower))
    return [(start, end, after - before) for start, end, before, after, _ in runs]
