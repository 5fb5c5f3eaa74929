"""What each real archive gives: how many records are pages, and why the others are not."""

import gzip
import itertools
from collections import Counter
from pathlib import Path

import pytest
from corpus import SHARED

from filters.reasons import DEAD_LETTERS, Reason
from filters.rule_list import parse_rules
from manifests.source import Source
from pipeline.sources import common_crawl

pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="shared data not present")
RECIPE = Source(weight=1.0, kind="common_crawl", filters=parse_rules(["http_status"]))

ARCHIVES: dict[str, dict[str, int]] = {
    "cc_net-sample.warc.wet.txt": {"corrupt-record": 1, "page": 3},
    "resiliparse-warcfile.warc.gz": {"archive-metadata": 17, "page": 16, "request-record": 17},
    "whirlwind.warc.gz": {"archive-metadata": 2, "page": 1, "request-record": 1},
    "whirlwind.warc.wat.gz": {"archive-metadata": 2},
    "whirlwind.warc.wet.gz": {"archive-metadata": 1, "page": 1},
    "IAH-20080430204825-blackbook.arc.gz": {
        "archive-metadata": 1,
        "content-type": 119,
        "empty-body": 1,
        "http-status": 40,
        "not-http": 38,
        "page": 94,
        "redirect": 7,
    },
    "IAH-20080430204825-blackbook.warc.gz": {
        "archive-metadata": 262,
        "content-type": 119,
        "empty-body": 1,
        "http-status": 40,
        "not-http": 38,
        "page": 94,
        "redirect": 7,
        "request-record": 261,
    },
    "dolma-sample-0000.warc.gz": {"archive-metadata": 2, "not-http": 2, "page": 22, "request-record": 22},
    "ipwb-sample-1.warc.gz": {
        "archive-metadata": 76,
        "content-type": 1,
        "not-http": 5,
        "page": 63,
        "redirect": 1,
        "request-record": 75,
        "revisit-record": 10,
    },
    "node-warc-parseMe.warc.gz": {
        "archive-metadata": 2,
        "content-type": 6,
        "http-status": 1,
        "not-http": 1,
        "page": 1,
        "redirect": 5,
        "request-record": 14,
    },
    "warc2zim-main-entry-403.warc.gz": {
        "archive-metadata": 2,
        "content-type": 9,
        "http-status": 2,
        "not-http": 1,
        "page": 1,
        "request-record": 12,
    },
    "aut-badexample.arc.gz": {
        "archive-metadata": 1,
        "content-type": 1,
        "corrupt-record": 1,
        "not-http": 1,
        "truncated-record": 2,
    },
    "aut-issue-493.warc": {
        "archive-metadata": 2,
        "content-type": 5,
        "page": 4,
        "redirect": 1,
        "request-record": 15,
        "revisit-record": 5,
    },
    "ipwb-1memento_noContentType.warc": {"archive-metadata": 1, "page": 1},
    "ipwb-HTTP204.warc": {"corrupt-record": 2, "page": 1},
    "ipwb-baconIpsum_chunked_httpTrailors.warc": {
        "archive-metadata": 2,
        "corrupt-record": 1,
        "not-http": 2,
        "request-record": 1,
    },
    "ipwb-broken.warc": {"archive-metadata": 2, "corrupt-record": 1, "page": 1, "request-record": 2},
    "jwat-invalid-encoding-headers.warc.gz": {"archive-metadata": 1, "content-type": 1, "page": 2},
    "resiliparse-clipped.warc.gz": {"truncated-record": 1},
    "solrwayback-Evil-Warc-Headers.warc": {"truncated-record": 1},
    "solrwayback-gzip_chunked.warc.gz": {"archive-metadata": 1, "page": 1, "request-record": 1},
    "ukwa-blackbook-truncated.warc": {
        "archive-metadata": 8,
        "content-type": 5,
        "not-http": 1,
        "page": 2,
        "request-record": 7,
    },
    "ukwa-transfer_compression_brotli.warc.gz": {"archive-metadata": 2, "not-http": 1, "page": 1, "request-record": 1},
    "warcio-example-bad-non-chunked.warc.gz": {
        "archive-metadata": 2,
        "page": 1,
        "request-record": 2,
        "revisit-record": 1,
    },
    "warcio-example-digest.warc": {"request-record": 4},
    "warcio-example-iana.org-chunked.warc": {"archive-metadata": 1, "page": 1, "request-record": 1},
    "warcio-example-resource.warc.gz": {"archive-metadata": 2, "page": 1},
    "warcio-example-space-in-target-uri.warc.gz": {"archive-metadata": 1, "not-http": 1},
    "warcio-example-trunc.warc": {"archive-metadata": 2, "corrupt-record": 1, "request-record": 1},
    "warcio-example-wget-bad-target-uri.warc.gz": {
        "archive-metadata": 2,
        "not-http": 2,
        "page": 1,
        "request-record": 1,
    },
    "warcio-example-wrong-chunks.warc.gz": {"corrupt-record": 1, "request-record": 1, "truncated-record": 1},
}
"""by reason; "page" is a document, or a page in which no main text was found.

Not read, and why: the Content-Lengths of cc_net-sample's warcinfo, badexample, HTTP204, broken and trunc lead nowhere;
clipped, Evil-Warc-Headers and the end of badexample are cut off; baconIpsum was edited after its digest was taken;
wrong-chunks spreads a record over two gzip members, the second of which begins no record."""

SETS = {
    "cleaneval-dev.warc.gz": {"archive-metadata": 1, "page": 58},
    "page-signal-a.warc.gz": {"archive-metadata": 1, "page": 120},
    "readability-a.warc.gz": {"archive-metadata": 1, "page": 50},
    "recipes-a.warc.gz": {"archive-metadata": 1, "page": 72},
    "trafilatura-a.warc.gz": {"archive-metadata": 1, "page": 250},
}


def reasons(path: Path, recipe: Source = RECIPE) -> Counter[str]:
    """Return a file's counts: every stored byte is accounted for, each dead letter and each third page found again."""
    stored = path.read_bytes()
    counts: Counter[str] = Counter()
    total = 0
    for outcome in common_crawl.read(stored, path.name, "web", recipe):
        counts["page" if outcome.document or outcome.reason is Reason.NO_TEXT else str(outcome.reason)] += 1
        total += outcome.stored
        if outcome.reason in DEAD_LETTERS or (outcome.document and counts["page"] % 3 == 1):
            assert common_crawl.reread(stored, outcome.locator, "web", recipe) == outcome
    assert total == len(stored)
    return counts


@pytest.mark.parametrize("name", ARCHIVES)
def test_what_each_archive_gives(name: str) -> None:
    (path,) = (SHARED / "common_crawl/warc").rglob(name)
    assert reasons(path) == ARCHIVES[name]


def test_every_archive_is_in_the_table() -> None:
    assert {path.name for path in (SHARED / "common_crawl/warc").rglob("*") if path.is_file()} == set(ARCHIVES)


@pytest.mark.parametrize("name", SETS)
def test_the_packed_pages_are_all_there(name: str) -> None:
    assert reasons(SHARED / "html_extraction" / name) == SETS[name]


def test_text_alone_is_taken_where_the_recipe_says_so() -> None:
    wet = RECIPE.model_copy(update={"extractor": "wet"})
    folder = SHARED / "common_crawl/warc/cc"
    assert reasons(folder / "whirlwind.warc.wet.gz", wet) == {"archive-metadata": 1, "page": 1}
    assert reasons(folder / "whirlwind.warc.gz", wet) == {"archive-metadata": 2, "other-form": 1, "request-record": 1}


def test_wet_files_give_the_text_that_ccnet_reads() -> None:
    folder = SHARED / "common_crawl/warc/cc"
    for name in ("whirlwind.warc.wet.gz", "cc_net-sample.warc.wet.txt"):
        path = folder / name
        stored = path.read_bytes()
        outcomes = common_crawl.read(stored, name, "web", RECIPE)
        found = [outcome.document for outcome in outcomes if outcome.document]
        lines = (gzip.decompress(stored) if name.endswith("gz") else stored).decode().replace("\r\n", "\n").split("\n")
        assert [(d.url, d.timestamp, d.text.replace("\r\n", "\n")) for d in found] == as_ccnet(lines)
    assert found[0].metadata == {} and "Mark Twain" in found[0].text
    (page,) = [o.document for o in common_crawl.read((folder / "whirlwind.warc.wet.gz").read_bytes(), "", "", RECIPE)][
        1:
    ]
    assert page is not None and page.metadata == {"identified_language": "spa"}


def as_ccnet(lines: list[str]) -> list[tuple[str, str, str]]:
    """Documents as cc_net/process_wet_file.py takes them: from version line to version line, without the newlines at
    the end; but for headers, which it finds by their place, and for its first line, which it calls a title."""
    starts = [number for number, line in enumerate(lines) if line == "WARC/1.0"] + [len(lines)]
    found = []
    for begin, end in itertools.pairwise(starts):
        blank = lines.index("", begin)
        fields = dict(line.split(": ", 1) for line in lines[begin + 1 : blank])
        if fields["WARC-Type"] == "conversion":
            text = "\n".join(lines[blank + 1 : end]).strip("\n")
            found.append((fields["WARC-Target-URI"], fields["WARC-Date"], text))
    return found
