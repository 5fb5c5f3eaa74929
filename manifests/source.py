"""What a recipe says of one source: how it is read, and by which rules its documents stay.

Thresholds live here, next to where they come from.
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

SourceKind = Literal["common_crawl", "c4", "github", "wikipedia", "books", "arxiv", "stackexchange"]


class Limits(Strict):
    """Caps on hostile input, in sizes and never in seconds, so that results do not depend on the machine."""

    record_bytes: Positive = 32 << 20
    """decoded bytes of one record: headers and body"""
    stored_bytes: Positive = 32 << 20
    """stored bytes of a gzip member that holds one record"""
    html_depth: Positive = 2_000
    """nested elements in a page"""
    text_characters: Positive = 20_000_000
    """characters of one document"""


class StackExchange(Strict):
    """Questions with their answers (LLaMA section 2.1: the 28 largest websites, answers by score, highest first)."""

    largest: Count = 28
    """so many sites with the most questions and answers are kept, those of the dumps given; 0 = all. Meta sites never
    are, nor do they count"""
    unanswered: bool = True
    """whether questions without answers are documents; the paper does not say"""
    layout: Literal["qa", "plain"] = "qa"
    """`qa` puts "Q: " and "A: " before questions and answers, as RedPajama does; `plain` does not"""


class Columns(Strict):
    """Where rows of JSON lines and Parquet have what a document needs: by default as in C4's released files. `a.b` is
    the column `a.b`, else `b` in the column `a` (RedPajama: `meta.url`); an empty name stands for nothing."""

    text: Annotated[str, Field(min_length=1)] = "text"
    url: str = "url"
    timestamp: str = "timestamp"
    metadata: list[str] = []
    """further columns of text to keep in the document's metadata"""


class Wikipedia(Strict):
    """Articles of Wikipedia dumps (LLaMA section 2.1: twenty languages, without "hyperlinks, comments and other
    formatting boilerplate")."""

    languages: list[str] = Field(default=["bg", "ca", "cs", "da", "de", "en", "es", "fr", "hr", "hu", "it", "nl", "pl",
                                          "pt", "ro", "ru", "sl", "sr", "sv", "uk"], min_length=1)  # fmt: skip
    """codes; dumps of other languages are left out"""
    language: str | None = None
    """of all dumps given; none = by their names, such as xxwiki-20220801-pages-articles.xml.bz2"""
    title: bool = True
    """whether a document begins with the article's title and an empty line; the paper does not say"""
    apparatus: bool = False
    """whether sections of notes, links and lists of literature stay"""


class ArXiv(Strict):
    """Papers from their TeX (LLaMA section 2.1, after Lewkowycz et al. 2022): macros written out, the text from the
    first section on, without the bibliography."""

    appendix: Literal["keep", "drop"] = "keep"
    """the paper says nothing of appendices; RedPajama drops them with the bibliography"""
    accents: Literal["keep", "unicode"] = "keep"
    """whether \\'e stays as the author typed it or becomes a letter"""
    inclusion_depth: Positive = 16
    """files included by files; deeper ones are left out"""
    macro_depth: Positive = 32
    """macros within macros; deeper ones are left as they are called"""
    macro_characters: Positive = 4_000_000
    """characters that all macros of a submission may come to, counting 16 more for each call"""
    archive_bytes: Positive = 1 << 30
    """decoded bytes of a submission, figures included, which are inflated and forgotten; of its text,
    `limits.record_bytes` are held"""


class Source(Strict):
    """One source of the mixture. `kind` says how it is read; by default it is the source's own name."""

    weight: Annotated[float, Field(gt=0)]
    max_epochs: Annotated[float, Field(gt=0)] = 4.0
    kind: SourceKind | None = None
    inputs: list[str] = []
    """paths, globs (`**` = any depth) and http(s) URLs"""
    licence: str = ""
    min_characters: Count = 1
    """documents with less text are dropped (CCNet: 300)"""
    http_status: list[int] = [200]
    extractor: Literal["main", "resiliparse", "all", "wet"] = "main"
    """how HTML becomes text: `main` our main content, `resiliparse` its own, `all` every visible text; `wet` reads none
    and takes only the text records of WET files, which the others take as well"""
    blocklists: list[str] = []
    """paths of lists of domains and URLs, one a line, gzipped or not"""
    limits: Limits = Limits()
    lines: Lines | None = None
    language: Language | None = None
    perplexity: Perplexity | None = None
    references: References | None = None
    c4: C4 | None = None
    containment: Containment | None = None
    stackexchange: StackExchange = StackExchange()
    arxiv: ArXiv = ArXiv()
    github: GitHub = GitHub()
    wikipedia: Wikipedia = Wikipedia()
    columns: Columns = Columns()
    newest_per_url: bool = False
    """of documents under one URL (as C4's builder normalises it) only the newest stays, before all other rules; equal
    times: the one of the smaller id"""

    @model_validator(mode="after")
    def _pages_before_lines(self) -> Self:
        if self.lines is not None and self.lines.normalise == "c4" and (self.c4 is None or not self.newest_per_url):
            raise ValueError("lines.normalise: c4 needs the page rules (c4) and newest_per_url: true of this source")
        return self


PATHS = {
    "language": ("model",),
    "c4": ("bad_words",),
    "perplexity": ("models", "cutoffs"),
    "references": ("model", "wiki"),
}
"""keys of a source that hold paths: what lies there counts by its hash, never by its place"""
