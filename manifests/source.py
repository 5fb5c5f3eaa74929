"""Settings of one source in a recipe: how it is read, and the rules that its documents must pass.

Thresholds stand beside their origin, here or in the file of their rule.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from filters.code.rules import GitHub
from filters.dedup.containment import Containment
from filters.dedup.paragraphs import Lines
from filters.quality.c4 import C4
from filters.quality.language import Language
from filters.quality.perplexity import Perplexity
from filters.quality.references import References
from filters.settings import Count, Positive, Strict
from manifests.deduplication import Comparison

SourceKind = Literal["common_crawl", "c4", "github", "wikipedia", "books", "arxiv", "stackexchange"]


class Limits(Strict):
    """Caps on hostile input, in sizes and never in seconds, so that results do not depend on the machine."""

    record_bytes: Positive = 32 << 20  # decoded bytes of one record: headers and body
    stored_bytes: Positive = 32 << 20  # stored bytes of a gzip member that holds one record
    html_depth: Positive = 2_000  # nested elements in a page
    text_characters: Positive = 20_000_000  # characters of one document


class StackExchange(Strict):
    """Questions with their answers (LLaMA section 2.1: the 28 largest websites, answers by score, highest first)."""

    # sites kept, of those given, by number of questions and answers; 0: all. Meta sites are never kept nor counted.
    largest: Count = 28
    unanswered: bool = True  # keep questions without answers; the paper does not say
    layout: Literal["qa", "plain"] = "qa"  # `qa` puts "Q: " and "A: " before questions and answers, as RedPajama does


class Columns(Strict):
    """Columns of JSON lines and Parquet that hold a document; by default those of C4's released files.

    `a.b` is the column `a.b`, else `b` in the column `a` (RedPajama: `meta.url`); an empty name means no column.
    """

    text: Annotated[str, Field(min_length=1)] = "text"
    url: str = "url"
    timestamp: str = "timestamp"
    metadata: list[str] = []  # further columns of text to keep in the document's metadata


class Wikipedia(Strict):
    """Articles of Wikipedia dumps.

    LLaMA section 2.1: twenty languages, without "hyperlinks, comments and other formatting boilerplate".
    """

    # codes; dumps of other languages are skipped
    languages: list[str] = Field(default=["bg", "ca", "cs", "da", "de", "en", "es", "fr", "hr", "hu", "it", "nl", "pl",
                                          "pt", "ro", "ru", "sl", "sr", "sv", "uk"], min_length=1)  # fmt: skip
    language: str | None = None  # of all dumps; without it, by name, as xxwiki-20220801-pages-articles.xml.bz2
    title: bool = True  # begin a document with the article's title and an empty line; the paper does not say
    apparatus: bool = False  # keep sections of notes, links and lists of literature


class ArXiv(Strict):
    """Papers from their TeX (LLaMA section 2.1, after Lewkowycz et al. 2022).

    Macros are expanded; the text begins with the first section and has no bibliography.
    """

    appendix: Literal["keep", "drop"] = "keep"  # the paper does not say; RedPajama drops it with the bibliography
    accents: Literal["keep", "unicode"] = "keep"  # leave \'e as typed, or make it a letter
    inclusion_depth: Positive = 16  # files included by files; deeper ones are left out
    macro_depth: Positive = 32  # macros within macros; deeper calls are left unexpanded
    macro_characters: Positive = 4_000_000  # produced by all macros of a submission, counting 16 more for each call
    # decoded bytes of a submission, figures included, which are not kept; of its text, `limits.record_bytes` are
    archive_bytes: Positive = 1 << 30


class Source(Strict):
    """One source of the mixture. `kind` says how it is read; by default it is the source's own name."""

    weight: Annotated[float, Field(gt=0)]
    max_epochs: Annotated[float, Field(gt=0)] = 4.0
    kind: SourceKind | None = None
    inputs: list[str] = []  # paths, globs (`**`: any depth) and http(s) URLs
    licence: str = ""
    min_characters: Count = 1  # of a document (CCNet: 300)
    http_status: list[int] = [200]
    # how HTML becomes text: `main` our main content, `resiliparse` its own, `all` every visible text; `wet` reads the
    # text records of WET files alone, which the others read as well
    extractor: Literal["main", "resiliparse", "all", "wet"] = "main"
    blocklists: list[str] = []  # paths of lists of domains and URLs, one a line, gzipped or not
    limits: Limits = Limits()
    lines: Lines | None = None
    language: Language | None = None
    perplexity: Perplexity | None = None
    references: References | None = None
    c4: C4 | None = None
    containment: Containment | None = None
    deduplication: Comparison | None = None  # of its documents, where other than the recipe's block
    stackexchange: StackExchange = StackExchange()
    arxiv: ArXiv = ArXiv()
    github: GitHub = GitHub()
    wikipedia: Wikipedia = Wikipedia()
    columns: Columns = Columns()
    # of documents under one URL, as C4's builder normalises it, keep only the newest, before all other rules; of equal
    # times, the one of the smaller id
    newest_per_url: bool = False

    @model_validator(mode="after")
    def _check_page_rules(self) -> Self:
        if self.lines is not None and self.lines.normalise == "c4" and (self.c4 is None or not self.newest_per_url):
            raise ValueError("lines.normalise: c4 needs the page rules (c4) and newest_per_url: true of this source")
        return self


# Keys of a source that hold paths: the recipe's hash depends on the files' content, never on their place.
PATHS = {
    "language": ("model",),
    "c4": ("bad_words",),
    "perplexity": ("models", "cutoffs"),
    "references": ("model", "wiki"),
}
