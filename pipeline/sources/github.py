"""GitHub: what files of code must be like, and what their documents say (LLaMA section 2.1: BigQuery's public dataset;
Apache, BSD and MIT; line lengths, alphanumerics; headers taken out).

Files come from repositories (`pipeline.sources.repositories`) or from BigQuery's tables
(`pipeline.sources.github_bigquery`), as the recipe's `github.form` says.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple
from urllib.parse import quote

from filters.code.encoding import decode_source
from filters.code.headers import strip_licence
from filters.code.languages import (
    NOTEBOOK,
    detect_language,
    get_extension,
    is_licence_file,
    is_listed,
    is_named_generated,
    is_named_minified,
    is_vendored,
)
from filters.code.licences import identify_header_licence
from filters.code.notebooks import render_notebook
from filters.code.rules import find_drop_reason
from filters.formats.stream import Damage
from filters.reasons import Reason
from manifests.document import Document, Locator
from manifests.source import Source
from pipeline.sources.base import Outcome, Row

VERSION_CONTROL = frozenset({".git", ".hg", ".svn"})
HEAD = "HEAD"
"""the ref of files whose commit is not known: GitHub shows the newest"""
_OWNER, _NAME = re.compile(r"[A-Za-z0-9-]{1,39}"), re.compile(r"[A-Za-z0-9._-]{1,100}")


class Code(NamedTuple):
    """A file's text as it becomes a document, its language, and the licence that it names itself, if it does."""

    text: str
    language: str
    licence: str


def refused(path: str, recipe: Source) -> Reason | None:
    """Why a file is not looked into, by its path in the repository; None if it is."""
    if not VERSION_CONTROL.isdisjoint(path.split("/")):
        return Reason.FILE_TYPE
    if is_licence_file(path):
        return Reason.LICENCE_FILE
    if not is_listed(path, recipe.github.extensions):
        return Reason.FILE_TYPE
    if is_vendored(path):
        return Reason.VENDORED_FILE
    if is_named_generated(path):
        return Reason.GENERATED_FILE
    return Reason.MINIFIED_FILE if is_named_minified(path) else None


def code_of(raw: bytes, path: str, recipe: Source) -> Code | Damage:
    """A file's bytes as text without a licence at its top, or why it is not kept."""
    text = decode_source(raw)
    if isinstance(text, Reason):
        return Damage(text, path)
    language = detect_language(path)
    if get_extension(path) == NOTEBOOK:
        found = render_notebook(text)
        if isinstance(found, Damage):
            return found
        text = found.text
    headed = strip_licence(text, language)
    reason = find_drop_reason(headed.text, language, recipe.github)
    if reason is None and len(headed.text) > recipe.limits.text_characters:
        reason = Reason.TOO_LARGE
    if reason is None and len(headed.text) < recipe.min_characters:
        reason = Reason.TOO_SHORT
    if reason is not None:
        return Damage(reason, path)
    return Code(headed.text, language, identify_header_licence(headed.legal) if headed.legal else "")


def document(
    source: str, place: Locator, code: Code, repository: str, path: str, ref: str, licence: str, **more: Any
) -> Document:
    """A file's document. Its URL is known where the repository's name is OWNER/REPOSITORY."""
    metadata = {"repository": repository, "path": path, "ref": ref, "language": code.language, **more}
    owner, _, name = repository.partition("/")
    known = bool(_OWNER.fullmatch(owner) and _NAME.fullmatch(name))
    short = ref.removeprefix("refs/heads/") or HEAD
    url = f"https://github.com/{repository}/blob/{quote(short)}/{quote(path)}" if known else ""
    return Document(
        source, place, code.text, url, "", licence, {key: value for key, value in metadata.items() if value != ""}
    )


def shared_out(
    items: Iterable[tuple[int, Row | Outcome]], size: int, total: int, nothing: Outcome
) -> Iterator[Row | Outcome]:
    """Items with their shares of `size` stored bytes, by where each ends among `total` decoded ones; the last has what
    is left, and `nothing` has all if there are none."""
    held: Row | Outcome | None = None
    accounted = 0
    for position, item in items:
        if held is not None:
            yield held
        share = max(size * min(position, total) // max(total, 1) - accounted, 0)
        accounted += share
        held = replace(item, stored=share)
    last = nothing if held is None else held
    yield replace(last, stored=(0 if held is None else held.stored) + size - accounted)
