"""Lists of rules in a recipe: load the classes by name, check the list, and apply the rules to documents in order."""

import difflib
import importlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, NoReturn

from filters.errors import UserError
from filters.reasons import AnyReason, Reason
from filters.rule import ExtractRule, Found, Page, Record, Removed, Rule, Verdict
from filters.settings import parse_settings

# MODULE:CLASS of the built-in rules, by their names in recipes. The modules are imported only when they are needed,
# since reading a corpus needs none of them.
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


class Off(ExtractRule):
    """A rule that a recipe switches off (`RULE: false`), so that it is not added as a default of the source's kind."""

    rule: str


@dataclass(frozen=True, slots=True)
class Filtered:
    """The result of all rules for one document.

    Attributes:
        text: the text after all rules; empty if the document was dropped.
        reason: the reason why the document was dropped; None if it was kept.
        signals: the signals of the rules that were applied, by name.
        removed: the lines and characters removed from the text, by reason.
        flags: the reasons that rules with `mode: annotate` would have given.
    """

    text: str
    reason: AnyReason | None
    signals: dict[str, Any]
    removed: dict[AnyReason, Removed]
    flags: list[str]

    @property
    def language(self) -> str:
        """The code of the document's language; empty if no rule has identified it."""
        return str(self.signals.get("language") or "")


def load_rule(name: str) -> type[Rule]:
    """Return the class of a rule.

    Args:
        name: the name in a recipe: a key of `RULES`, or `MODULE:CLASS` of a user's own rule.

    Raises:
        ValueError: there is no such rule. The message is for the author of the recipe.
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
    """Import a class.

    Args:
        place: `MODULE:CLASS`.
        what: what the class is, for messages ("rule").

    Raises:
        ValueError: the class cannot be imported. The message is for the author of the recipe.
    """
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
    """Return the name by which recipes refer to a rule."""
    if isinstance(rule, Off):
        return rule.rule
    place = f"{type(rule).__module__}:{type(rule).__qualname__}"
    return next((name for name, known in RULES.items() if known == place), place)


def parse_rules(plain: Any) -> list[Rule]:
    """Return the rules of a list in a recipe.

    Args:
        plain: a list. Each entry is the name of a rule, or a mapping with one key, the name, whose value is the rule's
            settings.

    Raises:
        ValueError: an entry is invalid. The message is for the author of the recipe.
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
    """Return rules as plain values, as in a recipe, with all settings including the defaults."""
    return [{name_of(rule): False if isinstance(rule, Off) else rule.model_dump()} for rule in rules]


def check_order(rules: Sequence[Rule], language_is_known: bool) -> None:
    """Check that the order of a list of rules is possible.

    Rules with `at: extract` come before rules with `at: filter`, rules that need the same stage do not occur twice, and
    settings by language occur only where the language is known.

    Args:
        rules: the rules of a source.
        language_is_known: True if the reader of the source gives the language of each document.

    Raises:
        ValueError: the order is not possible. The message is for the author of the recipe.
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
    """Return the codes of the languages of the documents that the rules keep; None if they are not known."""
    found = [languages for rule in rules if (languages := rule.languages()) is not None]
    return found[-1] if found else None


def rule_labels(rules: Sequence[Rule]) -> list[str]:
    """Return a unique name for each rule of a list, for files and models. The second rule `c4` is named `c4-2`."""
    names = [name_of(rule) for rule in rules]
    numbers = [names[: place + 1].count(name) for place, name in enumerate(names)]
    return [name if number == 1 else f"{name}-{number}" for name, number in zip(names, numbers, strict=True)]


def apply_rules(page: Page, rules: Sequence[Rule], found: Sequence[Found]) -> Filtered:
    """Apply rules to a document in order, until a rule drops it.

    Args:
        page: the document as extracted.
        rules: the rules of its source.
        found: for each rule, the results that the rule needs.

    Raises:
        UserError: the removed characters that a rule reports do not add up, or the rule gives a reason or signal that
            it does not declare. The message names the rule.
    """
    signals: dict[str, Any] = dict(page.signals)
    removed: dict[AnyReason, Removed] = {}
    flags: list[str] = []
    for rule, given in zip(rules, found, strict=True):
        # A rule that identifies the language selects its settings by the language that it finds.
        if page.language and "language" not in rule.SIGNALS:
            rule = rule.for_language(page.language)
        verdict = rule.apply(page, given)
        _check_names(rule, verdict)
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
    """Return the reason of the first rule with `at: extract` that drops a document, or None.

    Raises:
        UserError: a user's own rule has failed.
    """
    for rule in rules:
        if rule.at == "extract":
            try:
                verdict = rule.apply(page, Found())
                _check_names(rule, verdict)
            except Exception as error:
                raise_failure([rule], error, f"the text that begins {page.text[:40]!r}")
            if verdict.text is not None or verdict.signals:
                raise UserError(f"rule {name_of(rule)} acts at extract, where it can only keep or drop: use at: filter")
            if verdict.reason is not None:
                return verdict.reason
    return None


def first_record_reason(rules: Sequence[Rule], record: Record) -> AnyReason | None:
    """Return the reason of the first rule that drops a record before its body is read, or None.

    Raises:
        UserError: a user's own rule has failed.
    """
    for rule in rules:
        if isinstance(rule, ExtractRule):
            try:
                reason = rule.check_record(record)
                _check_names(rule, Verdict(reason=reason))
            except Exception as error:
                raise_failure([rule], error, f"the record of {record.url or 'no URL'}")
            if reason is not None:
                return reason
    return None


def raise_failure(rules: Sequence[Rule], error: Exception, place: str) -> NoReturn:
    """Raise an error that occurred while rules were applied.

    If the rules include a user's own rule, the error is raised as a UserError that names the rule and the place.
    Without such a rule, the error is raised unchanged. UserError and OSError are always raised unchanged.

    Args:
        rules: the rules, any of which may have failed.
        error: the error.
        place: a description of the document or record.
    """
    own = [name_of(rule) for rule in rules if ":" in name_of(rule)]
    if not own or isinstance(error, UserError | OSError):
        raise error
    raise UserError(
        f"{' or '.join(own)} failed on {place} ({type(error).__name__}: {error}): correct the rule and run again; the "
        "run continues from here"
    ) from error


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


def _check_names(rule: Rule, verdict: Verdict) -> None:
    """Raise UserError if a verdict has a reason or signal that its rule does not declare, or that cannot be stored."""
    for reason in (verdict.reason, *verdict.removed):
        if reason is not None and not (isinstance(reason, AnyReason) and reason in rule.REASONS):
            raise UserError(f"rule {name_of(rule)} gives the reason {reason!r}: list it in its REASONS")
    for name, value in verdict.signals.items():
        kind = str if name in ("language", "bucket") else Real
        if name not in rule.SIGNALS or not (value is None or isinstance(value, kind)):
            wanted = "text" if kind is str else "a number"
            raise UserError(
                f"rule {name_of(rule)} gives the signal {name} = {value!r}: list it in its SIGNALS, and give {wanted}"
            )


def _check_edit(rule: Rule, before: str, verdict: Verdict) -> None:
    """Raise UserError if the new text of a verdict is empty, or if the removed characters do not add up."""
    assert verdict.text is not None
    lost = sum(more.characters for more in verdict.removed.values())
    if not verdict.text or len(before) - len(verdict.text) != lost:
        taken = f"takes {len(before) - len(verdict.text)} characters and accounts for {lost}"
        raise UserError(f"rule {name_of(rule)} {taken if verdict.text else 'leaves no text: let it drop the document'}")
