"""The command `filters`: list the rules that a recipe can use, or write docs/filters.md from their classes."""

import inspect
import re
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from filters.rule import Rule
from filters.rule_list import RULES, load_rule

HEAD = """# Filters

This page is made by `python -m pipeline filters --markdown > docs/filters.md`.

A source of a recipe lists its filters under `filters`. A document passes the rules in that order. Each rule keeps the
document, edits it, or drops it for a named reason. The ledger counts every reason.

An entry of the list is one of these:

- `NAME`: a rule with its default settings;
- `NAME: {SETTING: VALUE}`: a rule with other settings;
- `NAME: VALUE`: the main setting of a rule that has one.

Every rule also has these settings:

- `mode: annotate` changes no document and drops none. The signals of the rule are stored, and the reason for which it
  would drop a document is written to the column `flags` of `clean/`. Rules with "acts at extract" have no such mode.
- `by_language: {de: {threshold: 0.6}}` sets other values for documents in a language. A rule that identifies the
  language must stand before it in the list. (Wikipedia's reader knows the language.)

A rule with "acts at extract" runs while the dump is read, and must stand before all others. A rule with "needs a pass"
uses facts about all documents that the earlier rules keep. The source kind `common_crawl` always has the rule
`http_status`, and `github` always has `code`, even if the list does not name them. `http_status: off` switches a rule
off.

To write your own rules, see [extend.md](extend.md).
"""
BASE = ("at", "mode", "by_language")
_COMMENT = re.compile(r"^    (\w+): .*?(?:  # (.*))?$")


def list_rules() -> str:
    """Return a text with one line per rule: its name, its first sentence and its special properties."""
    lines = [(name, *_facts(load_rule(name))) for name in RULES]
    width = max(len(name) for name in RULES)
    return "\n".join(f"{name:{width}}  {summary} {facts}".rstrip() for name, summary, facts in lines)


def write_markdown() -> str:
    """Return the text of docs/filters.md."""
    parts = [HEAD]
    for name in RULES:
        rule = load_rule(name)
        summary, facts = _facts(rule)
        parts += [f"## {name}", f"{summary} {facts}".rstrip(), _paragraph(rule, 1)]
        if rows := list_settings(rule):
            parts.append("\n".join(["| setting | type | default | meaning |", "|---|---|---|---|", *rows]))
        reasons = [f"`{reason.value}` ({reason.description})" for reason in rule.REASONS]
        parts.append(f"Reasons: {'; '.join(reasons)}.")
        if rule.SIGNALS:
            parts.append(f"Signals: {', '.join(f'`{signal}`' for signal in rule.SIGNALS)}.")
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def list_settings(rule: type[Rule]) -> list[str]:
    """Return a Markdown table row for each setting of a rule, except the settings that all rules have.

    The meaning of a setting is the comment next to its field, or its entry under `Attributes:` in the docstring.
    """
    comments, rows = _comments(rule), []
    for name, field in rule.model_fields.items():
        if name not in BASE:
            default = "" if field.is_required() else f"`{_plain(field.default)}`"
            rows.append(f"| `{name}` | {_type_name(field.annotation)} | {default} | {comments.get(name, '')} |")
    return rows


def _facts(rule: type[Rule]) -> tuple[str, str]:
    """Return the first sentence of a rule's docstring, and its special properties in brackets."""
    special = ["acts at extract"] if rule.model_fields["at"].default == "extract" else []
    special += ["needs a pass"] if rule.needs is not Rule.needs else []
    return _paragraph(rule, 0), f"({', '.join(special)})" if special else ""


def _comments(rule: type) -> dict[str, str]:
    """Return a dict from field name to description.

    A description is the comment next to or above the field, or the entry of the field under `Attributes:`.
    """
    found: dict[str, str] = {}
    above: list[str] = []
    source = inspect.getsource(rule)
    for line in source.split("\n"):
        if line.startswith("    # "):
            above.append(line[6:])
            continue
        if (field := _COMMENT.match(line)) and (field[2] or above):
            found[field[1]] = " ".join([*above, field[2] or ""]).strip()
        above = []
    attributes = re.search(r"Attributes:\n((?:        .*\n)+)", source)
    for item in re.split(r"\n(?=        \S)", attributes[1].rstrip()) if attributes else ():
        name, _, text = item.strip().partition(": ")
        found.setdefault(name, " ".join(text.split()))
    return found


def _paragraph(rule: type[Rule], number: int) -> str:
    """Return a paragraph of a rule's docstring. The first describes the rule, the second names its source."""
    return " ".join((rule.__doc__ or "").split("\n\n")[number].split())


def _plain(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value).replace("'", "")


def _type_name(annotation: Any) -> str:
    """Return the name of a type in plain words for authors of recipes, such as "list of text"."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in (Union, UnionType):
        return " or ".join(_type_name(one) for one in inner if one is not NoneType)
    if origin is list:
        return f"list of {_type_name(inner[0])}"
    if origin is dict:
        return f"mapping of {_type_name(inner[0])} to {_type_name(inner[1])}"
    if origin is not None:
        return _type_name(inner[0])
    names = {int: "whole number", float: "number", str: "text", bool: "true or false"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))
