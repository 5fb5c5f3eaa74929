"""What a recipe says of one source: how it is read, and by which rules its documents stay.

Thresholds live here, next to where they come from.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from filters.code.rules import GitHub
from filters.quality.c4 import C4
from filters.settings import Count, Positive, Share, Strict

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


class Language(Strict):
    """fastText language identification (LLaMA section 2.1; CCNet keeps a top-1 score of 0.5)."""

    keep: list[str] = Field(default=["en"], min_length=1)
    threshold: Share = 0.5
    characters: Count = 2_000
    """how much of a document the model sees, from its start; 0 = all of it"""
    model: str | None = None
    """path of a fastText model; none = lid.176.ftz as packaged"""


class Lines(Strict):
    """Paragraph de-duplication (CCNet, Wenzek et al. 2020, section 3.1): lines seen more than once within the scope go.

    `scope`: `files` groups of that many `files`, drawn by keyed hash of their names (CCNet's 50 of a dump's 1,600);
    `dump` one crawl; `all` the whole source. `keep`: `none` removes every copy, as CCNet does; `first` leaves the one
    in the document of the smallest id.

    `normalise`: `ccnet` compares lines as extracted, by CCNet's normalisation; `c4` those that C4's page rules leave,
    stripped and in lower case, as C4's builder does after its rules. With `first` the copy stays that is in the page
    whose URL, as C4 normalises it, has the smallest MD5."""

    scope: Literal["files", "dump", "all"] = "dump"
    files: Positive = 50
    keep: Literal["none", "first"] = "none"
    normalise: Literal["ccnet", "c4"] = "ccnet"


class LanguageModelText(Strict):
    """What a language model is trained on, and how (CCNet: SentencePiece unigram of 65,536 pieces, 5-gram modified
    Kneser-Ney)."""

    text: list[str] = Field(min_length=1)
    """paths and globs of Wikipedia dumps (.xml, .xml.bz2) or plain text, gzipped or not"""
    estimator: Literal["own", "lmplz"] = "own"
    """`lmplz` is kenlm's program, built by `make lmplz`"""
    order: Annotated[int, Field(ge=2, le=6)] = 5
    vocabulary: Annotated[int, Field(ge=300, le=1 << 20)] = 65_536
    character_coverage: Annotated[float, Field(gt=0.9, le=1)] = 0.9995
    max_bytes: Positive = 500_000_000
    """UTF-8 bytes of normalised text that are used, drawn by keyed hash of the article; `own` needs some 25 bytes of
    memory for each"""


class Perplexity(Strict):
    """How like Wikipedia a page reads (CCNet, section 3.3): head, middle and tail by perplexity."""

    models: str | None = None
    """folder of LANGUAGE.sp.model with LANGUAGE.arpa.bin or .arpa, as CCNet publishes them"""
    train: dict[str, LanguageModelText] = {}
    """languages whose models this run trains"""
    cutoffs: str | None = None
    """CCNet's cutoff.csv; none = the percentiles of this crawl, by language"""
    head: Annotated[int, Field(ge=1, le=99)] = 30
    tail: Annotated[int, Field(ge=1, le=99)] = 60
    """percentiles: below `head` is head, from `tail` on is tail"""
    keep: list[Literal["head", "middle", "tail", "all"]] = Field(default=["head", "middle"], min_length=1)
    """`all`: languages without a model"""
    unit: Literal["line", "document"] = "line"
    """what the model takes for one sentence; `document` is what CCNet's cut-offs were made with"""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.models is None) == (not self.train):
            raise ValueError("give either models (a folder) or train (texts by language), and not both")
        if self.head > self.tail:
            raise ValueError(f"head ({self.head}) lies above tail ({self.tail})")
        return self


class References(Strict):
    """How like the pages that Wikipedia cites a page is (LLaMA section 2.1: a linear model)."""

    threshold: Share = 0.5
    """the paper: "discarded pages not classified as references"; RedPajama takes 0.25"""
    model: str | None = None
    """a fastText model with the labels __label__wiki and __label__cc"""
    wiki: list[str] = []
    """Wikipedia dumps whose references are the positives to train on"""
    min_positives: Positive = 1_000
    """fewer cited pages in the crawl than this is an error"""
    min_characters: Count = 1_000
    """of a positive (RedPajama's floor); negatives are drawn to the same lengths"""
    max_pages: Positive = 300_000
    """positives at most, chosen by keyed hash"""
    dimension: Positive = 100
    epochs: Positive = 5
    learning_rate: Annotated[float, Field(gt=0)] = 0.5
    """RedPajama left fastText's 0.1, with which a few hundred pages leave all scores at a half"""
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """share of the pages, by domain, that the card is measured on"""

    @model_validator(mode="after")
    def _one_model(self) -> Self:
        if (self.model is None) == (not self.wiki):
            raise ValueError("give either model (a fastText model) or wiki (dumps to train on), and not both")
        return self


class Containment(Strict):
    """Documents that are almost whole in another go (LLaMA section 2.1: books with more than 90 % content overlap),
    which MinHash cannot tell where their lengths differ."""

    threshold: Annotated[float, Field(gt=0, le=1)] = 0.9
    ngram: Positive = 5
    """words a shingle: a changed word takes so many away"""
    scale: Positive = 64
    """one shingle hash in so many is compared at first: 1,500 of a book of 100,000 words"""


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
