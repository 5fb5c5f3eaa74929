"""Texts that models are trained on, and cut-offs: exact percentiles, whatever the splits and the order of documents."""

import gzip
import json
import math
import random
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from filters.errors import UserError
from filters.quality.perplexity import LanguageModels, Perplexity
from filters.rule import Found, Page
from pipeline.beam.tables import write_ipc
from pipeline.stages.filter import verdict_path
from pipeline.stages.models import cuts_path
from pipeline.stages.perplexity import SCORE_SCHEMA, compute_cutoffs, read_texts


def test_a_plain_text_is_read_whole_gzipped_or_not(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo", encoding="utf-8")
    (tmp_path / "b.gz").write_bytes(gzip.compress(b"one\n") + gzip.compress(b"two"))
    assert [list(read_texts(tmp_path / name)) for name in ("a.txt", "b.gz")] == [["one\ntwo"]] * 2


def test_a_text_that_is_cut_short_or_not_there_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"many words " * 100)[:-9])
    for name in ("cut.gz", "none.txt"):
        with pytest.raises(UserError, match="cannot be read"):
            list(read_texts(tmp_path / name))


def test_of_a_dump_the_articles_are_read(tmp_path: Path) -> None:
    page = "<page><title>{}</title><ns>{}</ns><id>1</id><revision><text>{}</text></revision></page>"
    body = page.format("A", 0, "An '''article'''.") + page.format("T", 1, "Talk.")
    (tmp_path / "w.xml").write_text(f"<mediawiki>{body}</mediawiki>", encoding="utf-8")
    assert list(read_texts(tmp_path / "w.xml")) == ["An article."]


LANGUAGES = st.sampled_from(["en", "de", None])
SCORES = (
    st.none() | st.just(math.inf) | st.sampled_from([10.0, 10.1, 10.2]) | st.integers(10, 10**6).map(lambda n: n / 10)
)


@given(
    st.lists(st.tuples(LANGUAGES, SCORES)), st.lists(st.integers(0, 40), max_size=3), st.randoms(), st.integers(1, 99)
)
@example([("en", math.inf)], [], None, 50)
@example([("en", 10.0)], [], None, 1)
@example([("en", 10.0)] * 9, [4], None, 99)
def test_cuts_are_percentiles_of_all_documents_whatever_the_splits(
    tmp_path_factory: pytest.TempPathFactory,
    documents: list[tuple[str | None, float | None]],
    edges: list[int],
    order: random.Random | None,
    percentile: int,
) -> None:
    corpus = tmp_path_factory.mktemp("cuts")
    expected = {}
    for code in {name for name, score in documents if name is not None}:
        ranked = sorted(score for name, score in documents if name == code and score is not None and score < math.inf)
        if ranked:
            nearest = [ranked[math.ceil(at * len(ranked) / 100) - 1] for at in (percentile, 99)]
            expected[code] = {"head": nearest[0], "tail": nearest[1], "documents": len(ranked)}
    if order is not None:
        order.shuffle(documents)
    bounds = [0, *sorted(edges), len(documents)]
    splits = [f"web/{number}" for number in range(len(bounds) - 1)]
    for split, start, end in zip(splits, bounds, bounds[1:], strict=False):
        names, scores = ([one[side] for one in documents[start:end]] for side in (0, 1))
        columns = [pa.array(names, pa.string()), pa.array(scores, pa.float32())]
        write_ipc(corpus / verdict_path("perplexity", split), SCORE_SCHEMA, columns)
    result = compute_cutoffs(corpus, "web", head=percentile, tail=99, splits=splits)
    assert result.facts["cuts"] == json.loads((corpus / cuts_path("web")).read_bytes()) == expected


@pytest.mark.parametrize(
    ("language", "score", "place"),
    [("en", 9.9, "head"), ("en", 10.0, "tail"), ("en", math.inf, "tail"), ("de", 9.9, "all"), ("de", math.inf, "tail")],
)
def test_a_page_with_infinite_perplexity_is_tail_with_and_without_cuts(language: str, score: float, place: str) -> None:
    made = LanguageModels(dict.fromkeys(("en", "de"), ("pieces", "ngrams")), {"en": (10.0, 10.0)})
    verdict = Perplexity(models="models").apply(Page("text", language=language), Found(score, made))
    assert verdict.signals == {"perplexity": score, "bucket": place}
