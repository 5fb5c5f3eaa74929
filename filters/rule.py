"""Rules: a source's filters are an ordered list of them, and a document passes them in that order.

A rule is a class of settings with one function, `apply`. It keeps a document, edits it or drops it, each under a named
reason, and may leave signals. What a rule needs beside the document is found by a stage of the run that looks at all
documents, and is handed to `apply` as `Found`. Rules with `at: extract` act while a dump is read, before text is
written.
"""

import difflib
import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, NamedTuple, Self

from filters.errors import UserError
from filters.reasons import AnyReason, Reason
from filters.settings import Count, Strict, parse_settings

# Places of the rules that a recipe names without a module, loaded on demand: a corpus is read without them.
RULES = {
    "bad_words": "filters.quality.c4:BadWords",
    "blocklist": "filters.quality.blocklist:Blocked",
    "c4": "filters.quality.c4:C4",
    "code": "filters.quality.code:Code",
    "duplicate_lines": "filters.quality.duplicate_lines:DuplicateLines",
    "fineweb_lines": "filters.quality.fineweb_lines:FineWebLines",
    "gopher_quality": "filters.quality.gopher:GopherQuality",
    "gopher_repetition": "filters.quality.gopher:GopherRepetition",
    "http_status": "filters.rule:HttpStatus",
    "language": "filters.quality.language:Language",
    "max_characters": "filters.quality.c4:MaxCharacters",
    "min_characters": "filters.rule:MinCharacters",
    "min_sentences": "filters.quality.c4:MinSentences",
    "newest_url": "filters.quality.c4:NewestUrl",
    "perplexity": "filters.quality.perplexity:Perplexity",
    "references": "filters.quality.references:References",
}
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

    def map_paths(self, change: Callable[[str], str]) -> Self:
        """Return the rule with each path changed."""
        changed: dict[str, Any] = {}
        for key in (*self.FILES, *self.TRAINING):
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


class Off(ExtractRule):
    """A rule that a recipe switches off, so that the source's kind does not imply it."""

    rule: str


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


@dataclass(frozen=True, slots=True)
class Filtered:
    """A document after its rules.

    Attributes:
        text: what stays of it, empty if it was dropped.
        reason: why it was dropped.
        signals: the signals of the rules that were applied.
        removed: what was taken out of the text, by reason.
        flags: reasons that rules with `mode: annotate` would have had.
    """

    text: str
    reason: AnyReason | None
    signals: dict[str, Any]
    removed: dict[AnyReason, Removed]
    flags: list[str]

    @property
    def language(self) -> str:
        """The code of its language, empty if no rule has told it."""
        return str(self.signals.get("language") or "")


def page_of(row: Mapping[str, Any], language_known: bool) -> Page:
    """Return a row of documents as rules see it."""
    metadata = row["metadata"]
    language = str(json.loads(metadata).get("language", "")) if language_known and metadata else ""
    return Page(row["text"], row["url"], row["timestamp"], language, metadata)


def apply_rules(page: Page, rules: Sequence[Rule], found: Sequence[Found]) -> Filtered:
    """Pass a document through rules in order, up to the one that drops it.

    Args:
        page: the document as extracted.
        rules: the rules of its source.
        found: the results that each rule needs.

    Raises:
        UserError: a rule's text or characters do not add up; the message names the rule.
    """
    signals: dict[str, Any] = dict(page.signals)
    removed: dict[AnyReason, Removed] = {}
    flags: list[str] = []
    for rule, given in zip(rules, found, strict=True):
        if page.language and "language" not in rule.SIGNALS:  # a rule that tells the language goes by what it finds
            rule = rule.for_language(page.language)
        verdict = rule.apply(page, given)
        signals |= verdict.signals
        if rule.mode == "annotate":
            flags += [str(reason) for reason in (verdict.reason, *verdict.removed) if reason is not None]
        elif verdict.reason is not None:
            return Filtered("", verdict.reason, signals, {}, flags)
        elif verdict.text is not None:
            _check_edit(rule, page.text, verdict)
            for reason, more in verdict.removed.items():
                old = removed.get(reason, Removed(0, 0))
                removed[reason] = Removed(old.lines + more.lines, old.characters + more.characters)
            page = replace(page, text=verdict.text)
        if verdict.signals:
            page = replace(page, signals=dict(signals), language=str(signals.get("language") or page.language))
    return Filtered(page.text, None, signals, removed, flags)


def first_reason(rules: Sequence[Rule], page: Page) -> AnyReason | None:
    """Return the reason of the first rule with `at: extract` that drops a document, or None."""
    for rule in rules:
        if rule.at == "extract" and (reason := rule.apply(page, Found()).reason) is not None:
            return reason
    return None


def first_record_reason(rules: Sequence[Rule], record: Record) -> AnyReason | None:
    """Return the reason of the first rule that drops a record without a look at its body, or None."""
    for rule in rules:
        if isinstance(rule, ExtractRule) and (reason := rule.check_record(record)) is not None:
            return reason
    return None


def load_rule(name: str) -> type[Rule]:
    """Return a rule's class by its name in a recipe: one of `RULES`, or `MODULE:CLASS` of the user's own.

    Raises:
        ValueError: there is no such rule, in words for the recipe's author.
    """
    if name not in RULES and ":" not in name:
        close = difflib.get_close_matches(name, RULES, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(f"there is no rule {name!r}: {hint}known are {', '.join(RULES)}, and MODULE:CLASS of your own")
    found = load_class(RULES.get(name, name), "rule")
    if not issubclass(found, Rule):
        raise ValueError(f"{name} is not a rule: derive it from filters.rule.Rule")
    if name not in RULES:
        _check_custom(name, found)
    return found


def load_class(place: str, what: str) -> type:
    """Import `MODULE:CLASS`. Raises ValueError in words for the recipe's author."""
    module, _, name = place.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise ValueError(
            f"{what} {place}: {error}: run where {module} can be imported, or install it beside Teratoken"
        ) from error
    except AttributeError as error:
        raise ValueError(f"{what} {place}: module {module} has no {name}: check the spelling") from error
    except Exception as error:
        raise ValueError(f"{what} {place}: importing {module} fails ({type(error).__name__}: {error})") from error
    if not isinstance(found, type):
        raise ValueError(f"{what} {place} is not a class: give the name of a class")
    return found


def name_of(rule: Rule) -> str:
    """Return the name of a rule in recipes."""
    if isinstance(rule, Off):
        return rule.rule
    place = f"{type(rule).__module__}:{type(rule).__qualname__}"
    return next((name for name, known in RULES.items() if known == place), place)


def parse_rules(plain: Any) -> list[Rule]:
    """Return the rules of a recipe's list.

    Args:
        plain: a list whose entries are a rule's name, or a mapping of the name alone to the rule's settings.

    Raises:
        ValueError: in words for the recipe's author.
    """
    if not isinstance(plain, list):
        raise ValueError("give a list of rules, such as [min_characters: 300, language: {keep: [en]}]")
    rules = []
    for number, item in enumerate(plain, 1):
        if isinstance(item, Rule):
            rules.append(item)
            continue
        if isinstance(item, dict) and len(item) != 1:
            raise ValueError(f"entry {number} has {len(item)} keys: give each rule its own entry, which begins with -")
        name, settings = next(iter(item.items())) if isinstance(item, dict) else (item, None)
        if not isinstance(name, str):
            raise ValueError(f"entry {number} ({item!r}) is not the name of a rule, nor NAME: SETTINGS")
        rule = load_rule(name)
        try:
            settings = {} if settings is None else settings
            rules.append(Off(rule=name) if settings is False else parse_settings(rule, rule.expand(settings)))
        except ValueError as error:
            raise ValueError(f"entry {number}, {name}: {error}") from error
    return rules


def dump_rules(rules: Sequence[Rule]) -> list[dict[str, Any]]:
    """Return rules as a recipe writes them, defaults filled in."""
    return [{name_of(rule): False if isinstance(rule, Off) else rule.model_dump()} for rule in rules]


def check_order(rules: Sequence[Rule], language_is_known: bool) -> None:
    """Check what a list of rules must be as a whole. `language_is_known`: by the source's reader.

    Raises:
        ValueError: in words for the recipe's author.
    """
    needed: set[str] = set()
    late = ""
    for rule in rules:
        if isinstance(rule, Off):
            continue
        name = name_of(rule)
        if rule.at == "extract" and late:
            raise ValueError(f"{name} acts at extract, before {late}: put it before {late}")
        late = late or (name if rule.at == "filter" else "")
        if rule.needs and rule.needs in needed:
            raise ValueError(f"{name} compares all documents and can stand in the list only once: remove the others")
        needed.add(rule.needs)
        tells = "language" in rule.SIGNALS
        if rule.by_language and not (language_is_known or tells):
            raise ValueError(f"{name} has settings by_language before the language is known: put language before it")
        language_is_known = language_is_known or tells


def kept_languages(rules: Sequence[Rule]) -> list[str] | None:
    """Return the languages of the documents that rules leave; None if that is not known."""
    found = [languages for rule in rules if (languages := rule.languages()) is not None]
    return found[-1] if found else None


def rule_labels(rules: Sequence[Rule]) -> list[str]:
    """Return a name for each rule of a list that no other rule of it has, for files and models: c4, then c4-2."""
    names = [name_of(rule) for rule in rules]
    numbers = [names[: place + 1].count(name) for place, name in enumerate(names)]
    return [name if number == 1 else f"{name}-{number}" for name, number in zip(names, numbers, strict=True)]


def _check_edit(rule: Rule, before: str, verdict: Verdict) -> None:
    assert verdict.text is not None
    lost = sum(more.characters for more in verdict.removed.values())
    if not verdict.text or len(before) - len(verdict.text) != lost:
        taken = f"takes {len(before) - len(verdict.text)} characters and accounts for {lost}"
        raise UserError(f"rule {name_of(rule)} {taken if verdict.text else 'leaves no text: let it drop the document'}")


def _check_custom(name: str, rule: type[Rule]) -> None:
    """Raise ValueError unless a user's rule has the documented interface."""
    own = {attribute for one in rule.__mro__ if one not in (Rule, ExtractRule) for attribute in vars(one)}
    if not own & ({"apply", "check_record"} if issubclass(rule, ExtractRule) else {"apply"}):
        raise ValueError(f"{name} has no function apply(self, page, found): write one (docs/extend.md)")
    strange = [reason for reason in rule.REASONS if isinstance(reason, Reason) or not reason.startswith("custom-")]
    if strange or not rule.REASONS:
        raise ValueError(
            f"{name}: REASONS must name its reasons, made by filters.reasons.CustomReason and beginning with custom-"
        )
