"""`statistics.json`: the distribution of a corpus's documents, as the run computed it. No hash covers it."""

import itertools
import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from filters.errors import UserError
from manifests.mirror import fetch

FILE = "statistics.json"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Bins(_Part):
    """A histogram: `counts[i]` values are at least `edges[i]` and below `edges[i + 1]`; one edge more than counts."""

    edges: list[float] = []
    counts: list[int] = []

    def total(self) -> int:
        """Return the number of values."""
        return sum(self.counts)

    def quantile(self, share: float) -> tuple[float, float]:
        """Return the edges of the bin that holds the quantile at `share`; (0, 0) if there are no values."""
        wanted = share * self.total()
        for place, reached in enumerate(itertools.accumulate(self.counts)):
            if reached >= wanted and reached > 0:
                return self.edges[place], self.edges[place + 1]
        return 0.0, 0.0


class Names(_Part):
    """The most frequent names with their counts; each count is short by at most `error`. `total`: of all names."""

    top: list[tuple[str, int]] = []
    total: int = 0
    error: int = 0


class Example(_Part):
    """A dropped document (`id`, `url`, the beginning of its `text`) or damaged record.

    A record has `file`, `offset`, `length`, and as `text` what is wrong with it.
    """

    key: int
    text: str
    id: str = ""
    url: str = ""
    file: str = ""
    offset: int = 0
    length: int = 0


class SourceStatistics(_Part):
    """The documents of one source. `perplexity`: by bucket; `names`: of domains, languages, years and licences."""

    documents: int
    characters: Bins
    tokens: Bins
    score: Bins
    perplexity: dict[str, Bins]
    names: dict[str, Names]
    examples: dict[str, list[Example]]


class Planted(_Part):
    """Recall of copies planted at one similarity: `filters.dedup.recall.Level`, with its 99 % interval."""

    level: float
    jaccard: float
    expected: float
    found: int
    planted: int
    accepted: int
    right: int
    interval: tuple[float, float]


class Bands(_Part):
    """MinHash bands of sources: the curve (similarity, share of pairs that are candidates), and measured recall."""

    sources: list[str]
    bands: int
    rows: int
    threshold: float
    curve: list[tuple[float, float]]
    planted: list[Planted]


class Statistics(_Part):
    """All statistics. `manifest_sha`: of the corpus; `clusters`: the number of documents in a cluster."""

    manifest_sha: str = ""
    sources: dict[str, SourceStatistics] = {}
    clusters: Bins = Bins()
    bands: list[Bands] = []


def load_statistics(corpus: Path) -> Statistics:
    """Return a corpus's statistics; empty without the file. Raises UserError for a file that holds something else."""
    path = fetch(corpus, FILE)
    if not path.is_file():
        return Statistics()
    try:
        return Statistics.model_validate(json.loads(path.read_bytes()))
    except (ValueError, ValidationError) as error:
        first = str(error).splitlines()[0]
        raise UserError(f"{path} cannot be read ({first}): remove it and give the run again") from error
