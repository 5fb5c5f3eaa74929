"""The catalogue of reasons: nothing leaves the corpus without one of these names.

This is the one module that `filters` may import from `manifests`: a single list cannot disagree with itself.
"""

from enum import StrEnum


class Reason(StrEnum):
    """Why a record, a document or a line is not in the corpus. The values are what ledgers and dead letters hold."""

    # extract, dropped: whole and well understood, but not a document
    ARCHIVE_METADATA = "archive-metadata"
    REQUEST_RECORD = "request-record"
    REVISIT_RECORD = "revisit-record"
    NOT_HTTP = "not-http"
    REDIRECT = "redirect"
    HTTP_STATUS = "http-status"
    CONTENT_TYPE = "content-type"
    EMPTY_BODY = "empty-body"
    NO_TEXT = "no-text"
    TOO_SHORT = "too-short"
    NOT_PLAIN_TEXT = "not-plain-text"
    OTHER_FORM = "other-form"
    BLOCKED_URL = "blocked-url"
    OTHER_NAMESPACE = "other-namespace"
    OLDER_COPY = "older-copy"
    NO_LICENCE = "no-licence"
    FILE_TYPE = "file-type"
    LICENCE_FILE = "licence-file"
    VENDORED_FILE = "vendored-file"
    GENERATED_FILE = "generated-file"
    MINIFIED_FILE = "minified-file"
    CODE_LONG_LINE = "code-long-line"
    CODE_LONG_LINES = "code-long-lines"
    CODE_FEW_ALPHANUMERICS = "code-few-alphanumerics"
    CODE_FEW_LETTERS = "code-few-letters"
    UNUSED_ROW = "unused-row"
    NO_TEX = "no-tex"
    NO_BODY_TEXT = "no-body-text"
    OTHER_POST = "other-post"
    NO_ANSWERS = "no-answers"
    SMALL_SITE = "small-site"

    # extract, records that became part of another record's document
    JOINED = "joined"

    # extract, dead letters: damaged, too large, or of a kind that cannot be read
    UNSUPPORTED_FORMAT = "unsupported-format"
    CORRUPT_GZIP = "corrupt-gzip"
    CORRUPT_RECORD = "corrupt-record"
    TRUNCATED_RECORD = "truncated-record"
    CORRUPT_HTTP = "corrupt-http"
    CORRUPT_BODY = "corrupt-body"
    UNDECODABLE_TEXT = "undecodable-text"
    TOO_LARGE = "too-large"
    EXTRACTION_FAILED = "extraction-failed"
    UNREADABLE_FILE = "unreadable-file"
    ENCRYPTED = "encrypted"
    UNSAFE_PATH = "unsafe-path"
    ENTITY_EXPANSION = "entity-expansion"
    ORPHAN = "orphan"

    # annotate, dropped documents
    ONLY_DUPLICATE_LINES = "only-duplicate-lines"
    LANGUAGE = "language"
    LANGUAGE_UNSURE = "language-unsure"
    PERPLEXITY = "perplexity"
    NOT_REFERENCE_LIKE = "not-reference-like"
    C4_PAGE_TOO_LONG = "c4-page-too-long"
    C4_LOREM_IPSUM = "c4-lorem-ipsum"
    C4_CURLY_BRACKET = "c4-curly-bracket"
    C4_TOO_FEW_SENTENCES = "c4-too-few-sentences"
    C4_BAD_WORD = "c4-bad-word"

    # annotate, lines and characters taken out of documents that stay
    DUPLICATE_LINE = "duplicate-line"
    C4_LONG_WORD = "c4-long-word"
    C4_NO_TERMINAL_MARK = "c4-no-terminal-mark"
    C4_TOO_FEW_WORDS = "c4-too-few-words"
    C4_JAVASCRIPT = "c4-javascript"
    C4_POLICY = "c4-policy"
    C4_EDITED = "c4-edited"

    # neardup, dropped documents
    EXACT_DUPLICATE = "exact-duplicate"
    NEAR_DUPLICATE = "near-duplicate"
    CONTAINED = "contained"

    # tokenize, dropped documents
    ON_REMOVAL_LIST = "on-removal-list"


DEAD_LETTERS: frozenset[Reason] = frozenset(
    {
        Reason.UNSUPPORTED_FORMAT,
        Reason.CORRUPT_GZIP,
        Reason.CORRUPT_RECORD,
        Reason.TRUNCATED_RECORD,
        Reason.CORRUPT_HTTP,
        Reason.CORRUPT_BODY,
        Reason.UNDECODABLE_TEXT,
        Reason.TOO_LARGE,
        Reason.EXTRACTION_FAILED,
        Reason.UNREADABLE_FILE,
        Reason.ENCRYPTED,
        Reason.UNSAFE_PATH,
        Reason.ENTITY_EXPANSION,
        Reason.ORPHAN,
    }
)
"""Reasons of damaged input: such a record is also written to the dead letters, with file, offset and length."""

DESCRIPTIONS: dict[Reason, str] = {
    Reason.ARCHIVE_METADATA: "about the dump, not a record of it: a warcinfo or metadata record, a file's head",
    Reason.REQUEST_RECORD: "the request that led to a page",
    Reason.REVISIT_RECORD: "a page found unchanged since an earlier visit, stored without its body",
    Reason.NOT_HTTP: "a record that holds no HTTP response (dns, ftp)",
    Reason.REDIRECT: "a redirect: the page is elsewhere",
    Reason.HTTP_STATUS: "an HTTP status that the recipe does not keep",
    Reason.CONTENT_TYPE: "not HTML",
    Reason.EMPTY_BODY: "no body",
    Reason.NO_TEXT: "no main text found in the page",
    Reason.TOO_SHORT: "less text than the recipe's minimum",
    Reason.NOT_PLAIN_TEXT: "a file named as text that holds something else (an HTML error page, say)",
    Reason.OTHER_FORM: "a record in a form that the recipe's extractor does not take",
    Reason.BLOCKED_URL: "a URL or domain on one of the recipe's blocklists",
    Reason.OTHER_NAMESPACE: "a wiki page that is no article (talk, user, template, category)",
    Reason.OLDER_COPY: "an older copy of a page that is kept under the same URL",
    Reason.NO_LICENCE: "no licence found, or one that the recipe does not keep",
    Reason.FILE_TYPE: "a file whose extension is not on the recipe's list",
    Reason.LICENCE_FILE: "the text of a licence",
    Reason.VENDORED_FILE: "a copy of another project's file",
    Reason.GENERATED_FILE: "a file that a program wrote",
    Reason.MINIFIED_FILE: "minified code",
    Reason.CODE_LONG_LINE: "code: a line over the length limit",
    Reason.CODE_LONG_LINES: "code: lines too long on average",
    Reason.CODE_FEW_ALPHANUMERICS: "code: too few letters and digits",
    Reason.CODE_FEW_LETTERS: "code: too few letters a token",
    Reason.UNUSED_ROW: "a row of a joined table that no kept record needs",
    Reason.NO_TEX: "no TeX source (a PDF, a figure, a style file)",
    Reason.NO_BODY_TEXT: "a paper of which no body text is left",
    Reason.OTHER_POST: "a post that is neither question nor answer (a tag wiki, say)",
    Reason.NO_ANSWERS: "a question without answers, which the recipe does not keep",
    Reason.SMALL_SITE: "a site that is not among the largest that the recipe keeps",
    Reason.JOINED: "part of another record's document (an answer in its question's)",
    Reason.UNSUPPORTED_FORMAT: "a format this version does not read",
    Reason.CORRUPT_GZIP: "stored bytes that do not inflate",
    Reason.CORRUPT_RECORD: "bytes that are no record",
    Reason.TRUNCATED_RECORD: "a record that ends before its stated length",
    Reason.CORRUPT_HTTP: "an HTTP header that cannot be read",
    Reason.CORRUPT_BODY: "a body whose transfer or content encoding is broken",
    Reason.UNDECODABLE_TEXT: "bytes that are no text in any encoding tried",
    Reason.TOO_LARGE: "over a size limit of the recipe",
    Reason.EXTRACTION_FAILED: "the HTML parser refused the page",
    Reason.UNREADABLE_FILE: "a file that could not be opened or read",
    Reason.ENCRYPTED: "encrypted: cannot be read",
    Reason.UNSAFE_PATH: "an archive member with a path that leads outside, or a link",
    Reason.ENTITY_EXPANSION: "XML that defines entities of its own",
    Reason.ORPHAN: "a record whose other half is not in the dump (an answer without its question)",
    Reason.ONLY_DUPLICATE_LINES: "no line left that is not also elsewhere in the crawl",
    Reason.LANGUAGE: "a language the recipe does not keep",
    Reason.LANGUAGE_UNSURE: "a kept language, below the recipe's confidence",
    Reason.PERPLEXITY: "a perplexity bucket that the recipe does not keep",
    Reason.NOT_REFERENCE_LIKE: "unlike the pages that Wikipedia cites, below the recipe's threshold",
    Reason.C4_PAGE_TOO_LONG: "C4: a page over the length limit",
    Reason.C4_LOREM_IPSUM: "C4: a page with 'lorem ipsum'",
    Reason.C4_CURLY_BRACKET: "C4: a page with a curly bracket",
    Reason.C4_TOO_FEW_SENTENCES: "C4: too few sentences left on the page",
    Reason.C4_BAD_WORD: "C4: a page with a word of the bad-words list",
    Reason.DUPLICATE_LINE: "a line that is also elsewhere in the crawl",
    Reason.C4_LONG_WORD: "C4: a line with an overlong word",
    Reason.C4_NO_TERMINAL_MARK: "C4: a line that does not end in a terminal punctuation mark",
    Reason.C4_TOO_FEW_WORDS: "C4: a line with too few words",
    Reason.C4_JAVASCRIPT: "C4: a line with 'javascript'",
    Reason.C4_POLICY: "C4: a line about terms of use, privacy or cookies",
    Reason.C4_EDITED: "C4: citation marks and outer white space taken out of kept lines",
    Reason.EXACT_DUPLICATE: "the same text as a document that is kept",
    Reason.NEAR_DUPLICATE: "nearly the same text as a document that is kept",
    Reason.ON_REMOVAL_LIST: "on the list given to `python -m manifests remove`",
    Reason.CONTAINED: "almost whole in another document that is kept",
}
