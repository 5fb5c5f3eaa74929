"""Classify source files by their paths: language, licence file, vendored, generated, minified.

The file languages.tsv contains several tables:

- Extensions and whole file names by language.
- `whitelist`: the 66 entries of RedPajama's filter (`github_run_filter.py`).
- `further`: languages that are missing in the whitelist but accepted here. Notebooks are accepted too, because this
  project renders them as text.
- Folders of vendored code and of generated files.
- Libraries that are often copied into other projects, and file names that are vendored only if a version follows.
- Patterns of names that programs give to generated files.
"""

import re
from collections.abc import Collection
from pathlib import PurePosixPath

from filters.data_files import read_lists

DATA_FILES = ("languages.tsv",)  # The cache keys of steps that use this module contain the hashes of these files.
NOTEBOOK = ".ipynb"

_TABLES = read_lists("filters.code", "languages.tsv")
WHITELIST = frozenset(_TABLES["whitelist"]["*"])
FURTHER = frozenset(_TABLES["further"]["*"])
_LISTED = WHITELIST | FURTHER | {NOTEBOOK}
_BY_NAME = {name: language for language, names in _TABLES["language"].items() for name in names}
_GENERATED_FOLDERS = frozenset(_TABLES["generated folder"]["*"])
_VENDORED_FOLDERS = frozenset(_TABLES["vendored folder"]["*"])
_OWN_OR_VENDORED_FILES = frozenset(_TABLES["own or vendored file"]["*"])
_VENDORED_FILE = re.compile(
    rf"(?:{'|'.join(map(re.escape, _TABLES['vendored library']['*']))})"
    r"(?:[-.](?:v?\d[\w.]{0,15}|min|core|slim|bundle|with-locales|ui[\w.-]{0,30}))*\.(?:js|css|cc|hpp|c|h)|"
    r"(?:mvnw|gradlew)(?:\.bat|\.cmd)?|config\.(?:guess|sub)|ltmain\.sh|install-sh|libtool\.m4",
)
_ENDINGS, _NAMES = (
    "|".join(pattern for patterns in _TABLES[table].values() for pattern in patterns)
    for table in ("generated ending", "generated name")
)
_GENERATED_FILE = re.compile(f".*(?:{_ENDINGS})|{_NAMES}")
_MINIFIED_FILE = re.compile(r".*[.-]min\.(?:js|css|html)")
_LICENCE = re.compile(r"(?:[\w+-]{1,40}[-_.])?(?:licen[cs]es?|copying|unlicen[cs]e|copyright)(?:[-_.][\w+.-]{0,60})?")
_LICENCE_ENDINGS = frozenset({".md", ".markdown", ".rst", ".html", ".tex"})


def get_extension(path: str) -> str:
    """Return the extension of a file, or the whole name if the name is listed (`Makefile`). Case is not changed."""
    name = path.rpartition("/")[2]
    if name in _BY_NAME and not name.startswith("."):
        return name
    return PurePosixPath(name).suffix


def detect_language(path: str) -> str:
    """Return the language of a file by its name, or "". Case matters only for `.C` and `.H` (C++)."""
    extension = get_extension(path)
    return _BY_NAME.get(extension) or _BY_NAME.get(extension.lower(), "")


def is_listed(path: str, extensions: Collection[str] = ()) -> bool:
    """Return True if the extension of a file is in `extensions`.

    The default is the whitelist with further languages and notebooks.
    """
    extension = get_extension(path)
    listed = extensions or _LISTED
    return extension in listed or extension.lower() in listed


def is_licence_file(path: str) -> bool:
    """Return True for the name of a licence file: `LICENSE`, `COPYING.LIB`, `MIT-LICENSE.txt`, but not `license.py`."""
    name = path.rpartition("/")[2]
    if not _LICENCE.fullmatch(name.lower()):
        return False
    extension = get_extension(path).lower()
    return extension in _LICENCE_ENDINGS or extension not in _BY_NAME


def is_vendored(path: str) -> bool:
    """Return True if the path of a file shows that it is copied from another project."""
    *folders, name = path.lower().split("/")
    if not _VENDORED_FOLDERS.isdisjoint(folders):
        return True
    return bool(_VENDORED_FILE.fullmatch(name)) and name not in _OWN_OR_VENDORED_FILES


def is_named_generated(path: str) -> bool:
    """Return True if the name of a file, or of a folder above it, shows that a program generated the file."""
    *folders, name = path.lower().split("/")
    return bool(_GENERATED_FILE.fullmatch(name)) or not _GENERATED_FOLDERS.isdisjoint(folders)


def is_named_minified(path: str) -> bool:
    """Return True if the name of a file marks it as minified."""
    return bool(_MINIFIED_FILE.fullmatch(path.rpartition("/")[2].lower()))
