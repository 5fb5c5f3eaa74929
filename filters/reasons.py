"""The reasons for which a record, a document or a line is dropped. Every dropped item is counted under one of them."""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, TypeAlias


class Reason(StrEnum):
    """The reason why a record, a document or a line is not in the corpus.

    Ledgers and dead letters store the value of the member.

    Attributes:
        description: one phrase for people.
        is_damage: True if the input is damaged. Such records are also written to the dead letters, with file, offset
            and length.
    """

    description: str
    is_damage: bool

    def __new__(cls, value: str, description: str = "", is_damage: bool = False) -> "Reason":
        """Create a member. Its value is the string `value` only, without description and `is_damage`."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.description, member.is_damage = description, is_damage
        return member

    # extract, dropped: intact, but not a document
    ARCHIVE_METADATA = (
        "archive-metadata",
        "metadata of the dump, not a record of it: a warcinfo or metadata record, a file's head",
    )
    REQUEST_RECORD = "request-record", "the request that led to a page"
    REVISIT_RECORD = "revisit-record", "a page found unchanged since an earlier visit, stored without its body"
    NOT_HTTP = "not-http", "a record without an HTTP response (dns, ftp)"
    REDIRECT = "redirect", "a redirect: the page is elsewhere"
    HTTP_STATUS = "http-status", "an HTTP status that the recipe does not keep"
    CONTENT_TYPE = "content-type", "not HTML"
    EMPTY_BODY = "empty-body", "no body"
    NO_TEXT = "no-text", "no main text found in the page"
    TOO_SHORT = "too-short", "less text than the recipe's minimum"
    NOT_PLAIN_TEXT = "not-plain-text", "a file named as text with other content (an HTML error page, say)"
    OTHER_FORM = "other-form", "a record in a form that the recipe's extractor does not read"
    BLOCKED_URL = "blocked-url", "a URL or domain on one of the recipe's blocklists"
    OTHER_NAMESPACE = "other-namespace", "a wiki page that is not an article (talk, user, template, category)"
    OLDER_COPY = "older-copy", "an older copy of a page, where the newest is kept under the same URL"
    NO_LICENCE = "no-licence", "no licence found, or one that the recipe does not keep"
    FILE_TYPE = "file-type", "a file whose extension is not on the recipe's list"
    LICENCE_FILE = "licence-file", "the text of a licence"
    VENDORED_FILE = "vendored-file", "a copy of another project's file"
    GENERATED_FILE = "generated-file", "a file that a program wrote"
    MINIFIED_FILE = "minified-file", "minified code"
    CODE_LONG_LINE = "code-long-line", "code: a line over the length limit"
    CODE_LONG_LINES = "code-long-lines", "code: lines too long on average"
    CODE_FEW_ALPHANUMERICS = "code-few-alphanumerics", "code: too few letters and digits"
    CODE_FEW_LETTERS = "code-few-letters", "code: too few letters per token"
    UNUSED_ROW = "unused-row", "a row of a joined table that no kept record needs"
    NO_TEX = "no-tex", "no TeX source (a PDF, a figure, a style file)"
    NO_BODY_TEXT = "no-body-text", "a paper without body text"
    OTHER_POST = "other-post", "a post that is neither question nor answer (a tag wiki, say)"
    NO_ANSWERS = "no-answers", "a question without answers, which the recipe does not keep"
    META_SITE = "meta-site", "a site about another site, which is neither kept nor counted among the largest"
    SMALL_SITE = "small-site", "a site that is not among the largest sites that the recipe keeps"

    # extract, records joined into another record's document
    JOINED = "joined", "part of another record's document (an answer in its question's)"

    # extract, dead letters: damaged, too large, or of an unreadable kind
    UNSUPPORTED_FORMAT = "unsupported-format", "a format this version does not read", True
    CORRUPT_GZIP = "corrupt-gzip", "stored bytes that do not decompress", True
    CORRUPT_RECORD = "corrupt-record", "bytes that are not a valid record", True
    TRUNCATED_RECORD = "truncated-record", "a record that ends before its stated length", True
    CORRUPT_HTTP = "corrupt-http", "an HTTP header that cannot be read", True
    CORRUPT_BODY = "corrupt-body", "a body whose transfer or content encoding is broken", True
    UNDECODABLE_TEXT = "undecodable-text", "bytes that are not text in any encoding tried", True
    TOO_LARGE = "too-large", "over a size limit of the recipe", True
    EXTRACTION_FAILED = "extraction-failed", "the HTML parser refused the page", True
    UNREADABLE_FILE = "unreadable-file", "a file that could not be opened or read", True
    ENCRYPTED = "encrypted", "encrypted: cannot be read", True
    UNSAFE_PATH = "unsafe-path", "an archive member with a path outside the archive, or a link", True
    ENTITY_EXPANSION = "entity-expansion", "XML that defines entities of its own", True
    QUARANTINED = "quarantined", "a record that kills the interpreter, listed in a quarantine file", True
    ORPHAN = "orphan", "a record whose other half is not in the dump (an answer without its question)", True

    # filter, dropped documents
    ONLY_DUPLICATE_LINES = "only-duplicate-lines", "no line left that does not also occur elsewhere in the crawl"
    LANGUAGE = "language", "a language the recipe does not keep"
    LANGUAGE_UNSURE = "language-unsure", "a kept language, below the recipe's confidence"
    PERPLEXITY = "perplexity", "a perplexity bucket that the recipe does not keep"
    NOT_REFERENCE_LIKE = "not-reference-like", "unlike the pages that Wikipedia cites, below the recipe's threshold"
    C4_PAGE_TOO_LONG = "c4-page-too-long", "C4: a page over the length limit"
    C4_LOREM_IPSUM = "c4-lorem-ipsum", "C4: a page with 'lorem ipsum'"
    C4_CURLY_BRACKET = "c4-curly-bracket", "C4: a page with a curly bracket"
    C4_TOO_FEW_SENTENCES = "c4-too-few-sentences", "C4: too few sentences left on the page"
    C4_BAD_WORD = "c4-bad-word", "C4: a page with a word of the bad-words list"
    GOPHER_WORD_COUNT = "gopher-word-count", "Gopher: too few or too many words"
    GOPHER_WORD_LENGTH = "gopher-word-length", "Gopher: words too short or too long on average"
    GOPHER_SYMBOLS = "gopher-symbols", "Gopher: too many '#' or ellipses for its words"
    GOPHER_BULLETS = "gopher-bullets", "Gopher: too many lines that begin with a bullet"
    GOPHER_ELLIPSES = "gopher-ellipses", "Gopher: too many lines that end with an ellipsis"
    GOPHER_FEW_LETTERS = "gopher-few-letters", "Gopher: too few words with a letter"
    GOPHER_STOP_WORDS = "gopher-stop-words", "Gopher: too few of the commonest words"
    GOPHER_DUPLICATE_LINES = "gopher-duplicate-lines", "Gopher: too many lines that are copies of earlier ones"
    GOPHER_DUPLICATE_PARAGRAPHS = "gopher-duplicate-paragraphs", "Gopher: too many paragraphs that are copies"
    GOPHER_TOP_NGRAM = "gopher-top-ngram", "Gopher: a few words repeated over and over"
    GOPHER_DUPLICATE_NGRAMS = "gopher-duplicate-ngrams", "Gopher: too much text in repeated runs of words"
    FINEWEB_LINE_ENDS = "fineweb-line-ends", "FineWeb: too few lines that end in a mark of punctuation"
    FINEWEB_SHORT_LINES = "fineweb-short-lines", "FineWeb: too many short lines"
    FINEWEB_DUPLICATE_LINES = "fineweb-duplicate-lines", "FineWeb: too much text in repeated lines"
    FINEWEB_FEW_WORDS = "fineweb-few-words", "FineWeb: too many lines for its words"

    # filter, lines and characters removed from documents that are kept
    DUPLICATE_LINE = "duplicate-line", "a line that also occurs elsewhere in the crawl"
    C4_LONG_WORD = "c4-long-word", "C4: a line with an overlong word"
    C4_NO_TERMINAL_MARK = "c4-no-terminal-mark", "C4: a line that does not end in a terminal punctuation mark"
    C4_TOO_FEW_WORDS = "c4-too-few-words", "C4: a line with too few words"
    C4_JAVASCRIPT = "c4-javascript", "C4: a line with 'javascript'"
    C4_POLICY = "c4-policy", "C4: a line about terms of use, privacy or cookies"
    C4_EDITED = "c4-edited", "C4: citation marks and surrounding white space removed from kept lines"

    # neardup, dropped documents
    EXACT_DUPLICATE = "exact-duplicate", "the same text as a document that is kept"
    NEAR_DUPLICATE = "near-duplicate", "nearly the same text as a document that is kept"
    CONTAINED = "contained", "almost entirely contained in another document that is kept"

    # tokenize, dropped documents
    ON_REMOVAL_LIST = "on-removal-list", "on the list given to `python -m manifests remove`"


class CustomReason(str):
    """A reason that a user's own rule gives.

    Attributes:
        value: `custom-`, followed by lower case letters, digits and hyphens.
        description: one phrase for people.
    """

    value: str
    description: str

    def __new__(cls, value: str, description: str) -> "CustomReason":
        """Create a reason.

        Raises:
            ValueError: the value does not have the form above.
        """
        if not CUSTOM.fullmatch(value):
            raise ValueError(f"{value!r} must be custom- and then lower case letters, digits and hyphens")
        member = str.__new__(cls, value)
        member.value, member.description = value, description
        return member


AnyReason: TypeAlias = Reason | CustomReason
CUSTOM = re.compile(r"custom-[a-z0-9]+(?:-[a-z0-9]+)*")

DEAD_LETTERS: frozenset[Reason] = frozenset(reason for reason in Reason if reason.is_damage)
DESCRIPTIONS: dict[str, str] = {reason.value: reason.description for reason in Reason}


def describe_reason(reason: str, findings: Mapping[str, Any]) -> str:
    """Return the description of a reason.

    Args:
        reason: the value of a reason, as in a ledger.
        findings: the `findings` of the manifest. They contain the descriptions of a user's own reasons.
    """
    meaning = DESCRIPTIONS.get(reason) or findings.get("reasons", {}).get(reason)
    return meaning or "a reason that this version does not know"
