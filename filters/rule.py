"""The base classes of filter rules. The documents of a source pass its rules in the order of the recipe's list.

A rule is a class of settings with one method, `apply`, which keeps, edits or drops a document. It gives a reason for
what it drops or removes, and it may add signals. Some rules need results about all documents (for example which lines
are duplicates). A stage of the run computes these results, and `apply` receives them as `Found`. Rules with
`at: extract` act while a dump is read, before text is written. `filters.rule_list` applies a list of rules.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple, Self

from filters.reasons import AnyReason, Reason
from filters.settings import Count, Strict, parse_settings

COLUMNS = ("language", "language_score", "perplexity", "bucket", "reference_score")  # signals stored as own columns


@dataclass(frozen=True, slots=True)
class Page:
    """The document that is passed to a rule.

    Attributes:
        text: the text after the earlier rules of the list.
        url: URL, or empty.
        timestamp: ISO 8601 in UTC, or empty.
        language: code of the language, or the programming language of a file of code; empty while it is unknown.
        metadata: canonical JSON, as in the table of documents; empty if there is none.
        signals: the signals of the earlier rules, by name.
    """

    text: str
    url: str = ""
    timestamp: str = ""
    language: str = ""
    metadata: str = ""
    signals: Mapping[str, Any] = field(default_factory=dict)


class Found(NamedTuple):
    """The results of the stage that a rule needs. Both fields are None for a rule that needs no stage.

    Attributes:
        verdict: the decision about this document.
        models: files and cut-offs that the run has made for the rule.
    """

    verdict: Any = None
    models: Any = None


@dataclass(frozen=True, slots=True)
class Removed:
    """Counts of what a rule removed from a text under one reason.

    Attributes:
        lines: number of lines that were changed or dropped.
        characters: number of characters that were removed. A dropped line counts with one line feed.
    """

    lines: int
    characters: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of a rule. Use `keep`, `edit` or `drop` to make one."""

    text: str | None = None
    reason: AnyReason | None = None
    removed: Mapping[AnyReason, Removed] = field(default_factory=dict)
    signals: Mapping[str, Any] = field(default_factory=dict)


def keep(**signals: Any) -> Verdict:
    """Return the verdict that keeps a document unchanged. `signals`: values by name."""
    return Verdict(signals=signals)


def edit(text: str, removed: Mapping[AnyReason, Removed], **signals: Any) -> Verdict:
    """Return the verdict that keeps a document with another text.

    Args:
        text: the new text; not empty.
        removed: the removed lines and characters, by reason. Their characters must add up to the difference between the
            lengths of the old and the new text.
        signals: values by name.
    """
    return Verdict(text, None, removed, signals)


def drop(reason: AnyReason, **signals: Any) -> Verdict:
    """Return the verdict that drops a document. `signals`: values by name."""
    return Verdict(None, reason, {}, signals)


class Rule(Strict):
    """A rule that acts on extracted text. The fields of a subclass are its settings, with their defaults.

    Attributes:
        REASONS: all reasons that the rule may give.
        SIGNALS: names of the signals that the rule may add. Signals without their own column in `clean/` are numbers.
        FILES: names of the settings that contain paths of files. The content of the files is part of cache keys, and
            their paths are not.
        TRAINING: names of the settings that contain lists of paths and globs of training data. The content of these
            files is also part of cache keys.
        FIXED: names of further settings that must be the same for all languages.
        SHORT: name of the setting that a recipe may give without its name, as in `min_characters: 300`; empty if there
            is none.
        AT: the steps that may apply the rule.
        at: the step that applies the rule.
        mode: with `annotate` the rule keeps every document unchanged and stores the reasons that it would have given.
        by_language: settings that are different for documents in a language, by the code of the language.
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
        """Check `at`, `mode` and the settings by language.

        Raises:
            ValueError: the settings contradict each other.
        """
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
        """Return the settings of a recipe's entry as a dict. A value without a name is that of the setting `SHORT`."""
        return settings if isinstance(settings, dict) or not cls.SHORT else {cls.SHORT: settings}

    @property
    def needs(self) -> str:
        """The name of the stage that must run over all documents before this rule; empty if there is none."""
        return ""

    @property
    def needs_verdicts(self) -> bool:
        """True if the stage `needs` gives a verdict about each document."""
        return bool(self.needs)

    def apply(self, page: Page, found: Found) -> Verdict:
        """Return the verdict on a document. It may depend only on the arguments, the settings and their files."""
        raise NotImplementedError

    def check(self) -> None:
        """Load everything that the settings name, to find mistakes before a run starts.

        Raises:
            UserError: a file cannot be used, or a setting is wrong.
        """

    def languages(self) -> list[str] | None:
        """Return the codes of the languages of the documents that this rule keeps; None if they are not known."""
        return None

    def find_files(self, languages: list[str] | None) -> dict[str, str]:
        """Return the paths of the files that this rule reads, by their use.

        Args:
            languages: codes of the languages that the earlier rules keep; None if they are not known.

        Raises:
            UserError: a file is missing or cannot be used.
        """
        found: dict[str, str] = {}
        for key in self.FILES:
            value = getattr(self, key)
            if isinstance(value, str):
                found[key] = value
            else:
                found |= {f"{key}.{number}": path for number, path in enumerate(value or ())}
        return found

    def findings(self) -> dict[str, int]:
        """Return counts about the files of this rule, for the manifest."""
        return {}

    def training_inputs(self) -> dict[str, list[str]]:
        """Return the paths and globs of the training data for this rule, by their use."""
        return {use: paths for use in self.TRAINING if (paths := getattr(self, use))}

    def map_paths(self, change: Callable[[str], str], training: bool = True) -> Self:
        """Return a copy of the rule with changed paths.

        Args:
            change: takes a path and returns the new path.
            training: True to change the paths of training data also.
        """
        changed: dict[str, Any] = {}
        for key in (*self.FILES, *(self.TRAINING if training else ())):
            if value := getattr(self, key):
                changed[key] = change(value) if isinstance(value, str) else [change(path) for path in value]
        return self.model_copy(update=changed)

    def with_trained(self, files: Mapping[str, str]) -> Self:
        """Return a copy of the rule that reads trained files, so that nothing is trained again.

        Args:
            files: the paths of files that a run has trained, by the name of the setting that gives the path.
        """
        return self.model_copy(update={**files, **{use: [] for use in self.TRAINING}} if files else {})

    def key(self) -> dict[str, Any]:
        """Return the settings that are part of a recipe's hash. Paths are None: their files are hashed separately."""
        return {**self.model_dump(), **dict.fromkeys((*self.FILES, *self.TRAINING))}

    def step_key(self) -> dict[str, Any]:
        """Return the settings that are part of the fingerprint of a step that applies the rule."""
        return self.key()

    def for_language(self, code: str) -> Self:
        """Return the rule with its settings for documents in a language. `code`: the code of the language."""
        if code not in self.by_language:
            return self
        return self.model_copy(update={**self.by_language[code], "by_language": {}})


class Record(NamedTuple):
    """A record of a dump before its body is decoded. `status` is the HTTP status; None if the record has none."""

    url: str
    status: int | None


class ExtractRule(Rule):
    """A rule that acts while a dump is read."""

    AT: ClassVar[tuple[str, ...]] = ("extract",)

    at: Literal["extract", "filter"] = "extract"

    def check_record(self, record: Record) -> AnyReason | None:
        """Return the reason to drop a record before its body is read, or None."""
        return None

    def apply(self, page: Page, found: Found) -> Verdict:
        """Keep the document."""
        return keep()


class HttpStatus(ExtractRule):
    """Drop HTTP responses that are not pages, such as errors and redirects. Records without a status stay.

    The rule checks the HTTP status before the body of a page is decoded.
    """

    REASONS = (Reason.REDIRECT, Reason.HTTP_STATUS)
    SHORT = "keep"

    keep: list[int] = [200]  # HTTP statuses to keep

    def check_record(self, record: Record) -> AnyReason | None:
        """Return the reason to drop a record because of its HTTP status, or None."""
        if record.status is None or record.status in self.keep:
            return None
        return Reason.REDIRECT if 300 <= record.status < 400 else Reason.HTTP_STATUS


class MinCharacters(Rule):
    """Drop short documents. Measures the extracted text, or with `at: filter` the text after the earlier rules.

    This is CCNet's rule about the number of characters.
    """

    REASONS = (Reason.TOO_SHORT,)
    SHORT = "least"
    AT = ("extract", "filter")

    least: Count = 300  # smallest number of characters; default: CCNet (process_wet_file.py)
    at: Literal["extract", "filter"] = "extract"

    def apply(self, page: Page, found: Found) -> Verdict:
        """Drop the document if it is too short."""
        return Verdict(reason=Reason.TOO_SHORT if len(page.text) < self.least else None)


def page_of(row: Mapping[str, Any], language_known: bool) -> Page:
    """Convert a row of the table of documents to a `Page`.

    Args:
        row: the row.
        language_known: True to take the language from the metadata of the row.
    """
    metadata = row["metadata"]
    language = str(json.loads(metadata).get("language", "")) if language_known and metadata else ""
    return Page(row["text"], row["url"], row["timestamp"], language, metadata)
