"""A rule: one of the filters that a document passes, in the order of its source's list (`filters.rule_list`).

It is a class of settings with one function, `apply`. It keeps a document, edits it or drops it, each under a named
reason, and may leave signals. What a rule needs beside the document is found by a stage of the run that looks at all
documents, and is handed to `apply` as `Found`. Rules with `at: extract` act while a dump is read, before text is
written.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple, Self

from filters.reasons import AnyReason, Reason
from filters.settings import Count, Strict, parse_settings

COLUMNS = ("language", "language_score", "perplexity", "bucket", "reference_score")  # signals with columns of their own


@dataclass(frozen=True, slots=True)
class Page:
    """A document as a rule sees it.

    Attributes:
        text: what the rules before have left of it.
        url: its URL, or empty.
        timestamp: ISO 8601 in UTC, or empty.
        language: code of its language, or for a file of code its programming language; empty until it is known.
        metadata: canonical JSON, as in the documents' table; empty for none.
        signals: left by the rules before.
    """

    text: str
    url: str = ""
    timestamp: str = ""
    language: str = ""
    metadata: str = ""
    signals: Mapping[str, Any] = field(default_factory=dict)


class Found(NamedTuple):
    """The results of the stage that a rule needs, as the step `filter` passes them; None for a rule that needs none.

    Attributes:
        verdict: the decision about this document.
        models: files and cut-offs that the run has made for the rule.
    """

    verdict: Any = None
    models: Any = None


@dataclass(frozen=True, slots=True)
class Removed:
    """The number of lines changed or dropped, and of the characters removed (a dropped line has one line feed)."""

    lines: int
    characters: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """A rule's result: see `keep`, `edit` and `drop`."""

    text: str | None = None
    reason: AnyReason | None = None
    removed: Mapping[AnyReason, Removed] = field(default_factory=dict)
    signals: Mapping[str, Any] = field(default_factory=dict)


def keep(**signals: Any) -> Verdict:
    """Return the verdict that a document stays as it is."""
    return Verdict(signals=signals)


def edit(text: str, removed: Mapping[AnyReason, Removed], **signals: Any) -> Verdict:
    """Return the verdict that a document stays with another text.

    Args:
        text: what stays; not empty.
        removed: what was removed, by reason; it accounts for all characters that the text has lost.
        signals: values by name.
    """
    return Verdict(text, None, removed, signals)


def drop(reason: AnyReason, **signals: Any) -> Verdict:
    """Return the verdict that a document goes."""
    return Verdict(None, reason, {}, signals)


class Rule(Strict):
    """A rule that acts on extracted text. The fields of a subclass are its settings, with their defaults.

    Attributes:
        REASONS: every reason that it may give.
        SIGNALS: names of the signals that it may leave. Those without a column in `clean/` are numbers.
        FILES: settings that hold paths: their files count by content, never by place.
        TRAINING: settings with lists of paths and globs of what the run trains on, whose files count by content, too.
        FIXED: further settings that cannot differ between languages.
        SHORT: the setting that a recipe may give alone, as in `min_characters: 300`; empty for none.
        AT: the steps that may apply it.
        at: the step that applies it.
        mode: `annotate` keeps every document as it is, and notes the reasons that it would have had.
        by_language: other settings for documents in a language, by its code.
    """

    REASONS: ClassVar[tuple[AnyReason, ...]] = ()
    SIGNALS: ClassVar[tuple[str, ...]] = ()
    FILES: ClassVar[tuple[str, ...]] = ()
    TRAINING: ClassVar[tuple[str, ...]] = ()
    FIXED: ClassVar[tuple[str, ...]] = ()
    SHORT: ClassVar[str] = ""
    AT: ClassVar[tuple[str, ...]] = ("filter",)

    at: Literal["extract", "filter"] = "filter"
    mode: Literal["drop", "annotate"] = "drop"
    by_language: dict[str, dict[str, Any]] = {}

    def model_post_init(self, context: Any, /) -> None:
        """Check the settings by language. Raises ValueError."""
        if self.at not in self.AT:
            raise ValueError(f"at: {self.at} is not possible here, only {self.AT[0]}")
        if self.at == "extract" and (self.mode == "annotate" or self.by_language):
            raise ValueError("mode: annotate and by_language are for rules that act after extract")
        fixed = {"at", "mode", "by_language", *self.FILES, *self.TRAINING, *self.FIXED}
        for code, changed in self.by_language.items():
            if wrong := sorted(fixed & set(changed)):
                raise ValueError(f"by_language.{code}: {wrong[0]} is the same for all languages: set it once")
            try:
                parse_settings(type(self), {**self.model_dump(exclude={"by_language"}), **changed})
            except ValueError as error:
                raise ValueError(f"by_language.{code}: {error}") from error

    @classmethod
    def expand(cls, settings: Any) -> Any:
        """Return the settings of a recipe's entry, of which one may be given alone."""
        return settings if isinstance(settings, dict) or not cls.SHORT else {cls.SHORT: settings}

    @property
    def needs(self) -> str:
        """The stage that looks at all documents for this rule; empty for none."""
        return ""

    @property
    def needs_verdicts(self) -> bool:
        """True if that stage finds something about each document."""
        return bool(self.needs)

    def apply(self, page: Page, found: Found) -> Verdict:
        """Return what becomes of a document. Depends on nothing but its arguments, the settings and their files."""
        raise NotImplementedError

    def check(self) -> None:
        """Load everything that the settings name, so that a run ends before it begins. Raises UserError."""

    def languages(self) -> list[str] | None:
        """Return the languages of the documents that it leaves; None if that is not known."""
        return None

    def find_files(self, languages: list[str] | None) -> dict[str, str]:
        """Return the files that it reads, by use. `languages`: those that the rules before leave. Raises UserError."""
        found: dict[str, str] = {}
        for key in self.FILES:
            value = getattr(self, key)
            if isinstance(value, str):
                found[key] = value
            else:
                found |= {f"{key}.{number}": path for number, path in enumerate(value or ())}
        return found

    def findings(self) -> dict[str, int]:
        """Return counts about its files, for the manifest."""
        return {}

    def training_inputs(self) -> dict[str, list[str]]:
        """Return paths and globs of what the run trains on for it, by use."""
        return {use: paths for use in self.TRAINING if (paths := getattr(self, use))}

    def map_paths(self, change: Callable[[str], str], training: bool = True) -> Self:
        """Return the rule with each path changed. `training`: those of what the run trains on as well."""
        changed: dict[str, Any] = {}
        for key in (*self.FILES, *(self.TRAINING if training else ())):
            if value := getattr(self, key):
                changed[key] = change(value) if isinstance(value, str) else [change(path) for path in value]
        return self.model_copy(update=changed)

    def with_trained(self, files: Mapping[str, str]) -> Self:
        """Return the rule with what a run has trained given by path, by setting, so that nothing is trained again."""
        return self.model_copy(update={**files, **{use: [] for use in self.TRAINING}} if files else {})

    def key(self) -> dict[str, Any]:
        """Return the settings that count in a recipe's hash: all without paths, whose files count by their hashes."""
        return {**self.model_dump(), **dict.fromkeys((*self.FILES, *self.TRAINING))}

    def step_key(self) -> dict[str, Any]:
        """Return the settings that count in the fingerprint of a step that applies it."""
        return self.key()

    def for_language(self, code: str) -> Self:
        """Return the rule with its settings for a language."""
        if code not in self.by_language:
            return self
        return self.model_copy(update={**self.by_language[code], "by_language": {}})


class Record(NamedTuple):
    """A record of a dump before its body is decoded. `status`: of HTTP; None for a record that has none."""

    url: str
    status: int | None


class ExtractRule(Rule):
    """A rule that acts while a dump is read."""

    AT: ClassVar[tuple[str, ...]] = ("extract",)

    at: Literal["extract", "filter"] = "extract"

    def check_record(self, record: Record) -> AnyReason | None:
        """Return the reason to drop a record without a look at its body, or None."""
        return None

    def apply(self, page: Page, found: Found) -> Verdict:
        """Return what becomes of a document."""
        return keep()


class HttpStatus(ExtractRule):
    """Drop HTTP responses that are not pages, such as errors and redirects. Records without a status stay.

    The rule of the HTTP status, before a page's body is decoded.
    """

    REASONS = (Reason.REDIRECT, Reason.HTTP_STATUS)
    SHORT = "keep"

    keep: list[int] = [200]  # HTTP statuses to keep

    def check_record(self, record: Record) -> AnyReason | None:
        """Return the reason to drop a record, or None."""
        if record.status is None or record.status in self.keep:
            return None
        return Reason.REDIRECT if 300 <= record.status < 400 else Reason.HTTP_STATUS


class MinCharacters(Rule):
    """Drop short documents: as extracted, or with `at: filter` after the earlier rules.

    The rule of CCNet about length, in characters.
    """

    REASONS = (Reason.TOO_SHORT,)
    SHORT = "least"
    AT = ("extract", "filter")

    least: Count = 300  # smallest number of characters; default: CCNet (process_wet_file.py)
    at: Literal["extract", "filter"] = "extract"

    def apply(self, page: Page, found: Found) -> Verdict:
        """Return whether the document stays."""
        return Verdict(reason=Reason.TOO_SHORT if len(page.text) < self.least else None)


def page_of(row: Mapping[str, Any], language_known: bool) -> Page:
    """Return a row of documents as rules see it."""
    metadata = row["metadata"]
    language = str(json.loads(metadata).get("language", "")) if language_known and metadata else ""
    return Page(row["text"], row["url"], row["timestamp"], language, metadata)
