"""Settings of one source in a recipe: how it is read, and the rules that its documents must pass.

Thresholds stand beside their origin, here or in the file of their rule.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from filters.code.rules import GitHub
from filters.quality.c4 import C4
from filters.settings import Count, Positive, Share, Strict

SourceKind = Literal["common_crawl", "c4", "github", "wikipedia", "books", "arxiv", "stackexchange"]


class Limits(Strict):
    """Caps on hostile input, in sizes and never in seconds, so that results do not depend on the machine."""

    record_bytes: Positive = 32 << 20  # decoded bytes of one record: headers and body
    stored_bytes: Positive = 32 << 20  # stored bytes of a gzip member that holds one record
    html_depth: Positive = 2_000  # nested elements in a page
    text_characters: Positive = 20_000_000  # characters of one document


class Language(Strict):
    """fastText language identification (LLaMA section 2.1; CCNet keeps a top-1 score of 0.5)."""

    keep: list[str] = Field(default=["en"], min_length=1)
    threshold: Share = 0.5
    characters: Count = 2_000  # of a document, from its start, that the model reads; 0: all
    model: str | None = None  # path of a fastText model; without it, lid.176.ftz as packaged


class Lines(Strict):
    """Paragraph de-duplication (CCNet, Wenzek et al. 2020, section 3.1) of lines that repeat within the scope.

    Attributes:
        scope: `files`: groups of that many `files`, drawn by keyed hash of their names (CCNet: 50 of a dump's 1,600);
            `dump`: one crawl; `all`: the whole source.
        keep: `none` removes every copy, as CCNet does; `first` keeps the one in the document of the smallest id or,
            with `normalise: c4`, in the page whose URL, as C4 normalises it, has the smallest MD5.
        normalise: `ccnet` compares lines as extracted, by CCNet's normalisation; `c4` those that C4's page rules leave,
            stripped and in lower case, as C4's builder does after its rules.
    """

    scope: Literal["files", "dump", "all"] = "dump"
    files: Positive = 50
    keep: Literal["none", "first"] = "none"
    normalise: Literal["ccnet", "c4"] = "ccnet"


class LanguageModelText(Strict):
    """Training of a language model (CCNet: SentencePiece unigram of 65,536 pieces, 5-gram modified Kneser-Ney)."""

    # paths and globs of Wikipedia dumps (.xml, .xml.bz2) or plain text, gzipped or not
    text: list[str] = Field(min_length=1)
    estimator: Literal["own", "lmplz"] = "own"  # `lmplz` is kenlm's program, built by `make lmplz`
    order: Annotated[int, Field(ge=2, le=6)] = 5
    vocabulary: Annotated[int, Field(ge=300, le=1 << 20)] = 65_536
    character_coverage: Annotated[float, Field(gt=0.9, le=1)] = 0.9995
    # UTF-8 bytes of normalised text, drawn by keyed hash of the article; `own` needs some 25 bytes of memory for each
    max_bytes: Positive = 500_000_000


class Perplexity(Strict):
    """Similarity of a page to Wikipedia (CCNet, section 3.3): head, middle and tail by perplexity."""

    models: str | None = None  # folder of LANGUAGE.sp.model with LANGUAGE.arpa.bin or .arpa, as CCNet publishes them
    train: dict[str, LanguageModelText] = {}  # languages whose models this run trains
    cutoffs: str | None = None  # path of CCNet's cutoff.csv; without it, the percentiles of this crawl, by language
    head: Annotated[int, Field(ge=1, le=99)] = 30  # percentile below which a page is head
    tail: Annotated[int, Field(ge=1, le=99)] = 60  # percentile from which a page is tail
    # `all` stands for languages without a model
    keep: list[Literal["head", "middle", "tail", "all"]] = Field(default=["head", "middle"], min_length=1)
    unit: Literal["line", "document"] = "line"  # a sentence for the model; CCNet's cut-offs were made with `document`

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        if (self.models is None) == (not self.train):
            raise ValueError("give either models (a folder) or train (texts by language), and not both")
        if self.head > self.tail:
            raise ValueError(f"head ({self.head}) lies above tail ({self.tail})")
        return self


class References(Strict):
    """Similarity of a page to those that Wikipedia cites (LLaMA section 2.1: a linear model)."""

    threshold: Share = 0.5  # the paper: "discarded pages not classified as references"; RedPajama takes 0.25
    model: str | None = None  # path of a fastText model with the labels __label__wiki and __label__cc
    wiki: list[str] = []  # Wikipedia dumps whose references are the positives to train on
    min_positives: Positive = 1_000  # fewer cited pages in the crawl are an error
    min_characters: Count = 1_000  # of a positive (RedPajama's floor); negatives are drawn to the same lengths
    max_pages: Positive = 300_000  # positives at most, chosen by keyed hash
    dimension: Positive = 100
    epochs: Positive = 5
    # RedPajama left fastText's 0.1, with which all scores stay at one half after a few hundred pages
    learning_rate: Annotated[float, Field(gt=0)] = 0.5
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.2  # share of the pages, by domain, that the card is measured on

    @model_validator(mode="after")
    def _check_one_model(self) -> Self:
        if (self.model is None) == (not self.wiki):
            raise ValueError("give either model (a fastText model) or wiki (dumps to train on), and not both")
        return self


class Containment(Strict):
    """Removal of documents contained in another (LLaMA section 2.1: books with more than 90 % content overlap).

    MinHash cannot find them where the lengths differ.
    """

    threshold: Annotated[float, Field(gt=0, le=1)] = 0.9
    ngram: Positive = 5  # words per shingle
    scale: Positive = 64  # one shingle hash in 64 is compared at first: 1,500 of a book of 100,000 words


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
