"""The part of a recipe that describes one source. The rules of its filters, with their settings: `filters.quality`."""

import json
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BeforeValidator, Field, field_serializer, model_validator

from filters.dedup.containment import Containment
from filters.dedup.settings import Comparison
from filters.rule import Rule
from filters.rule_list import RULES, check_order, dump_rules, load_class, name_of, parse_rules
from filters.settings import Count, Positive, Strict

SourceKind = Literal["common_crawl", "c4", "github", "wikipedia", "books", "arxiv", "stackexchange"]
KINDS: tuple[str, ...] = get_args(SourceKind)
IMPLIED = {"common_crawl": "http_status", "github": "code"}  # rules that a kind has unless its list names them
LANGUAGE_KNOWN = frozenset({"wikipedia"})  # kinds whose reader tells each document's language


class Limits(Strict):
    """Caps on hostile input, in sizes and never in seconds, so that results do not depend on the machine."""

    record_bytes: Positive = 32 << 20  # decoded bytes of one record: headers and body
    stored_bytes: Positive = 32 << 20  # stored bytes of a gzip member that holds one record
    html_depth: Positive = 2_000  # nested elements in a page
    text_characters: Positive = 20_000_000  # characters of one document


class GitHub(Strict):
    """Repositories of code (LLaMA section 2.1: Apache, BSD and MIT licences). The rule `code` judges single files."""

    form: Literal["repositories", "tables"] = "repositories"  # checked out or archived; or BigQuery's `github_repos`
    licences: list[str] = Field(default=["Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "MIT"], min_length=1)  # SPDX
    extensions: list[str] = []  # `.py`, or a whole name such as `Makefile`; empty: RedPajama's 66, and notebooks
    archive_bytes: Positive = 4 << 30  # decoded bytes of one archive; what lies behind them is not read


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
    tables: Literal["drop", "rows"] = "drop"  # `rows`: a row is a line; the paper does not say, RedPajama has none


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
    kind: str | None = None  # one of `SourceKind`, or MODULE:CLASS of a reader of your own
    inputs: list[str] = []  # paths, globs (`**`: any depth) and http(s) URLs
    licence: str = ""
    # how HTML becomes text: `main` our main content, `resiliparse` its own, `all` every visible text; `wet` reads the
    # text records of WET files alone, which the others read as well
    extractor: Literal["main", "resiliparse", "all", "wet"] = "main"
    limits: Limits = Limits()
    filters: Annotated[list[Rule], BeforeValidator(parse_rules)] = []  # a document passes them in this order
    containment: Containment | None = None
    deduplication: Comparison | None = None  # of its documents, where other than the recipe's block
    stackexchange: StackExchange = StackExchange()
    arxiv: ArXiv = ArXiv()
    github: GitHub = GitHub()
    wikipedia: Wikipedia = Wikipedia()
    columns: Columns = Columns()
    settings: dict[str, Any] = {}  # of a reader of your own

    @model_validator(mode="before")
    @classmethod
    def _refuse_rules_as_keys(cls, plain: Any) -> Any:
        """Refuse the name of a rule as a key, with the list that it belongs to."""
        rules = [{name: value} for name, value in plain.items() if name in RULES] if isinstance(plain, dict) else []
        if rules:
            raise ValueError(f"rules are a list: write {json.dumps({'filters': rules}, ensure_ascii=False)[1:-1]}")
        return plain

    @model_validator(mode="after")
    def _check_filters(self) -> Self:
        check_order(self.filters, self.kind in LANGUAGE_KNOWN)
        return self

    @field_serializer("filters")
    def _dump_filters(self, rules: list[Rule]) -> list[dict[str, Any]]:
        return dump_rules(rules)

    def with_kind(self, name: str) -> Self:
        """Return the source with its kind, by default its name, and the rules that its kind implies.

        Raises:
            ValueError: the kind is not known, in words for the recipe's author.
        """
        kind = self.kind or name
        if ":" in kind:
            load_class(kind, "kind")
        elif kind not in KINDS:
            what = (
                "needs a kind: one of" if self.kind is None else f"has a kind that is not known, {kind!r}: give one of"
            )
            raise ValueError(f"source {name!r} {what} {', '.join(KINDS)}, or MODULE:CLASS of your own")
        implied = IMPLIED.get(kind)
        named = [name_of(rule) for rule in self.filters]
        first = parse_rules([implied]) if implied and implied not in named else []
        changed = self.model_copy(update={"kind": kind, "filters": [*first, *self.filters]})
        check_order(changed.filters, kind in LANGUAGE_KNOWN)
        return changed

    def rules_at(self, step: Literal["extract", "filter"]) -> list[Rule]:
        """Return the rules that a step applies, in order."""
        return [rule for rule in self.filters if rule.at == step]

    def rule_for(self, stage: str) -> tuple[list[Rule], Rule | None]:
        """Return the rule that needs a stage, and those before it that `filter` applies; all and None if none does."""
        rules = self.rules_at("filter")
        for number, rule in enumerate(rules):
            if stage and rule.needs == stage:
                return rules[:number], rule
        return rules, None
