"""The part of a recipe that describes one source. The filter rules and their settings are in `filters.quality`."""

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
# For some kinds of sources, the rule that is applied first unless the list of filters contains it.
IMPLIED = {"common_crawl": "http_status", "github": "code"}
LANGUAGE_KNOWN = frozenset({"wikipedia"})  # Kinds whose reader sets the language of each document.


class Limits(Strict):
    """Limits for malicious or broken input. There are no time limits, because results must not depend on the machine.

    Attributes:
        record_bytes: decoded bytes of one record, including its headers.
        stored_bytes: compressed bytes of a gzip member that contains one record.
        html_depth: nesting depth of the elements of a page.
        text_characters: characters of one document.
    """

    record_bytes: Positive = 32 << 20
    stored_bytes: Positive = 32 << 20
    html_depth: Positive = 2_000
    text_characters: Positive = 20_000_000


class GitHub(Strict):
    """Settings for repositories of code (LLaMA section 2.1: Apache, BSD and MIT licences).

    The rule `code` filters single files.

    Attributes:
        form: `repositories` for checked out or archived repositories, `tables` for the tables of BigQuery's
            `github_repos`.
        licences: SPDX identifiers of the licences of repositories to keep.
        extensions: extensions such as `.py`, or whole names such as `Makefile`, of the files to keep. If it is empty,
            the 66 extensions of RedPajama and notebooks are kept.
        archive_bytes: decoded bytes that are read from one archive. The remainder of the archive is skipped.
    """

    form: Literal["repositories", "tables"] = "repositories"
    licences: list[str] = Field(default=["Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "MIT"], min_length=1)
    extensions: list[str] = []
    archive_bytes: Positive = 4 << 30


class StackExchange(Strict):
    """Settings for questions with their answers.

    LLaMA section 2.1: the 28 largest websites, with the answers sorted by score, highest first.

    Attributes:
        largest: number of sites to keep, those with most questions and answers; 0 keeps all. Meta sites are neither
            kept nor counted.
        unanswered: keep questions without answers. The paper does not mention them.
        layout: `qa` inserts "Q: " and "A: " before questions and answers, like RedPajama.
    """

    largest: Count = 28
    unanswered: bool = True
    layout: Literal["qa", "plain"] = "qa"


class Columns(Strict):
    """Names of the columns of JSON lines and Parquet files. The defaults are those of the released files of C4.

    `a.b` is the column `a.b` if it exists, or else the field `b` of the column `a` (RedPajama: `meta.url`). An empty
    name means that there is no such column.

    Attributes:
        metadata: further columns of strings to keep in the metadata of a document.
    """

    text: Annotated[str, Field(min_length=1)] = "text"
    url: str = "url"
    timestamp: str = "timestamp"
    metadata: list[str] = []


class Wikipedia(Strict):
    """Settings for Wikipedia dumps.

    LLaMA section 2.1: twenty languages, without "hyperlinks, comments and other formatting boilerplate".

    Attributes:
        languages: language codes. Dumps of other languages are skipped.
        language: the language of all dumps. If it is None, it is read from the file name, such as
            xxwiki-20220801-pages-articles.xml.bz2.
        title: start each document with the title of the article and an empty line. The paper does not mention titles.
        apparatus: keep sections of notes, links and references.
        tables: `rows` writes each table row as one line. The paper does not mention tables; RedPajama has none.
    """

    languages: list[str] = Field(default=["bg", "ca", "cs", "da", "de", "en", "es", "fr", "hr", "hu", "it", "nl", "pl",
                                          "pt", "ro", "ru", "sl", "sr", "sv", "uk"], min_length=1)  # fmt: skip
    language: str | None = None
    title: bool = True
    apparatus: bool = False
    tables: Literal["drop", "rows"] = "drop"


class ArXiv(Strict):
    r"""Settings for papers in TeX (LLaMA section 2.1, after Lewkowycz et al. 2022).

    Macros are expanded. The text starts at the first section, and the bibliography is removed.

    Attributes:
        appendix: keep or drop appendices. The paper does not mention them; RedPajama drops them with the bibliography.
        accents: `keep` leaves commands such as \'e as typed, `unicode` replaces them by a letter.
        inclusion_depth: nesting depth of included files. Files below this depth are left out.
        macro_depth: nesting depth of macro calls. Deeper calls are not expanded.
        macro_characters: characters that all macros of a submission may produce, plus 16 for each call.
        archive_bytes: decoded bytes of a submission, including figures, which are discarded. The size of its text is
            limited by `limits.record_bytes`.
    """

    appendix: Literal["keep", "drop"] = "keep"
    accents: Literal["keep", "unicode"] = "keep"
    inclusion_depth: Positive = 16
    macro_depth: Positive = 32
    macro_characters: Positive = 4_000_000
    archive_bytes: Positive = 1 << 30


class Source(Strict):
    """One source of the mixture.

    Attributes:
        weight: its weight in the mixture, relative to the sum of all weights.
        max_epochs: maximum number of passes over its training tokens.
        kind: the reader to use, one of `SourceKind` or MODULE:CLASS of a user's own reader. The default is the name of
            the source.
        inputs: paths, globs (`**` matches any depth) and http(s) URLs.
        extractor: how HTML becomes text: `main` extracts the main content by this project's algorithm, `resiliparse`
            by the library of this name, and `all` keeps all visible text. `wet` reads only the text records of WET
            files, which the other extractors also read.
        filters: the rules, in the order in which they are applied.
        deduplication: settings for its documents that differ from those of the recipe.
        settings: settings of a user's own reader.
    """

    weight: Annotated[float, Field(gt=0)]
    max_epochs: Annotated[float, Field(gt=0)] = 4.0
    kind: str | None = None
    inputs: list[str] = []
    licence: str = ""
    extractor: Literal["main", "resiliparse", "all", "wet"] = "main"
    limits: Limits = Limits()
    filters: Annotated[list[Rule], BeforeValidator(parse_rules)] = []
    containment: Containment | None = None
    deduplication: Comparison | None = None
    stackexchange: StackExchange = StackExchange()
    arxiv: ArXiv = ArXiv()
    github: GitHub = GitHub()
    wikipedia: Wikipedia = Wikipedia()
    columns: Columns = Columns()
    settings: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _refuse_rules_as_keys(cls, plain: Any) -> Any:
        """Reject the name of a rule as a key of the source. The message shows it as an entry of `filters`."""
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
        """Return the source with its default kind filled in, and with the rules that the kind implies.

        Args:
            name: the name of the source, which is the default kind.

        Raises:
            ValueError: the kind is unknown. The message is shown to the user.
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
        """Return the rules that the step `extract` or `filter` applies, in order."""
        return [rule for rule in self.filters if rule.at == step]

    def rule_for(self, stage: str) -> tuple[list[Rule], Rule | None]:
        """Find the rule of the step `filter` that needs the results of a stage, such as `perplexity`.

        Returns:
            The rules before it, and the rule. If no rule needs the stage: all rules, and None.
        """
        rules = self.rules_at("filter")
        for number, rule in enumerate(rules):
            if stage and rule.needs == stage:
                return rules[:number], rule
        return rules, None
