"""Classify source files by their names: language, licence, vendored, generated, minified.

The whitelist has the 66 entries of RedPajama's filter (`github_run_filter.py`, of which `Dockerfile` and `Makefile` are
whole names) and notebooks, which this project turns into text. The other tables are this project's own.
"""

import re
from collections.abc import Collection
from pathlib import PurePosixPath

WHITELIST = frozenset(
    """
    .asm .bat .cmd .c .h .cs .cpp .hpp .c++ .h++ .cc .hh .C .H .cmake .css .dockerfile .f90 .f .f03 .f08
    .f77 .f95 .for .fpp .go .hs .html .java .js .jl .lua .md .markdown .php .php3 .php4 .php5 .phps
    .phpt .pl .pm .pod .perl .ps1 .psd1 .psm1 .py .rb .rs .sql .scala .sh .bash .command .zsh .ts .tsx
    .tex .vb Dockerfile Makefile .xml .rst .m .smali
    """.split()
)
NOTEBOOK = ".ipynb"

_LANGUAGES = {
    "Assembly": ".asm .s .nasm",
    "Batchfile": ".bat .cmd",
    "C": ".c .h",  # a header may also be C++ or Objective-C: nothing in its name tells
    "C#": ".cs",
    "C++": ".cpp .hpp .c++ .h++ .cc .hh .C .H .cxx .hxx",
    "CMake": ".cmake CMakeLists.txt",
    "CSS": ".css",
    "Dart": ".dart",
    "Dockerfile": ".dockerfile Dockerfile",
    "Erlang": ".erl .hrl",
    "Fortran": ".f90 .f .f03 .f08 .f77 .f95 .for .fpp",
    "Go": ".go",
    "Groovy": ".groovy .gradle",
    "HTML": ".html .htm",
    "Haskell": ".hs",
    "Java": ".java",
    "JavaScript": ".js .jsx .mjs",
    "Julia": ".jl",
    "Kotlin": ".kt .kts",
    "Lua": ".lua",
    "Makefile": ".mk .mak Makefile GNUmakefile",
    "Markdown": ".md .markdown",
    "Notebook": NOTEBOOK,
    "OCaml": ".ml .mli",
    "Objective-C or MATLAB": ".m",  # GitHub tells them apart by their text
    "PHP": ".php .php3 .php4 .php5 .phps .phpt",
    "Perl": ".pl .pm .pod .perl",
    "PowerShell": ".ps1 .psd1 .psm1",
    "Python": ".py .pyi .pyx",
    "R": ".r .R",
    "Ruby": ".rb Rakefile Gemfile",
    "Rust": ".rs",
    "SQL": ".sql",
    "Scala": ".scala",
    "Shell": ".sh .bash .command .zsh",
    "Smali": ".smali",
    "Swift": ".swift",
    "TOML": ".toml",
    "TeX": ".tex .sty .cls",
    "TypeScript": ".ts .tsx",
    "Visual Basic": ".vb",
    "XML": ".xml",
    "YAML": ".yaml .yml",
    "reStructuredText": ".rst",
}
_BY_NAME = {name: language for language, names in _LANGUAGES.items() for name in names.split()}

_VENDORED_FOLDERS = frozenset(
    """
    node_modules bower_components jspm_packages vendor vendors third_party third-party thirdparty
    3rdparty 3rd_party 3rd-party external externals extern deps site-packages dist-packages dist pods
    carthage godeps _vendor .venv venv virtualenv .yarn .bundle
    """.split()
)
_VENDORED_FILE = re.compile(
    r"(?:jquery|bootstrap|angular|ember|react|vue|backbone|underscore|lodash|modernizr|prototype|d3|require|moment|"
    r"handlebars|mootools|dojo|raphael|three|socket\.io|html5shiv|respond|normalize|font-awesome|ckeditor|tinymce|"
    r"foundation|knockout|zepto|highlight\.pack|polyfill|googletest|gtest-all|sqlite3|catch)"
    r"(?:[-.](?:\d[\w.]{0,15}|min|core|slim|bundle|ui[\w.-]{0,30}))*\.(?:js|css|cc|hpp|c|h)|"
    r"(?:mvnw|gradlew)(?:\.bat|\.cmd)?|config\.(?:guess|sub)|ltmain\.sh|install-sh|libtool\.m4",
)
_AMBIGUOUS_WITHOUT_VERSION = frozenset(  # names that projects give to files of their own, too
    """
    ember.js react.js vue.js prototype.js require.js three.js respond.js foundation.js catch.c catch.h
    react.css normalize.css foundation.css polyfill.js
    """.split()
)
_GENERATED_FILE = re.compile(
    r".*(?:_pb2(?:_grpc)?\.py|\.pb\.(?:go|cc|h)|\.pb-c\.[ch]|_pb\.(?:js|rb)|\.g\.cs|\.g\.i\.cs|\.designer\.(?:cs|vb)|"
    r"\.generated\.\w{1,8}|[._]gen\.go|_generated\.\w{1,4}|\.xcworkspacedata|-lock\.\w{1,5}|\.lock)|"
    r"(?:r\.java|buildconfig\.java|bindata\.go|parsetab\.py|lextab\.py|aclocal\.m4)"
)
_MINIFIED_FILE = re.compile(r".*[.-]min\.(?:js|css|html)")
_LICENCE = re.compile(r"(?:[\w+-]{1,40}[-_.])?(?:licen[cs]es?|copying|unlicen[cs]e|copyright)(?:[-_.][\w+.-]{0,60})?")
_LICENCE_ENDINGS = frozenset({".md", ".markdown", ".rst", ".html", ".tex"})


def get_extension(path: str) -> str:
    """Return a file's extension with its case, or the whole name if that has a language (`Makefile`)."""
    name = path.rpartition("/")[2]
    if name in _BY_NAME and not name.startswith("."):
        return name
    return PurePosixPath(name).suffix


def detect_language(path: str) -> str:
    """Return the language of a file by its name, or an empty string. Only in `.C` and `.H` (C++) does case count."""
    extension = get_extension(path)
    return _BY_NAME.get(extension) or _BY_NAME.get(extension.lower(), "")


def is_listed(path: str, extensions: Collection[str] = ()) -> bool:
    """Return True if a file's extension is one of these; by default the whitelist's and the notebooks'."""
    extension = get_extension(path)
    listed = extensions or WHITELIST
    return extension in listed or extension.lower() in listed or (not extensions and extension == NOTEBOOK)


def is_licence_file(path: str) -> bool:
    """Return True for names of licence files: `LICENSE`, `COPYING.LIB`, `MIT-LICENSE.txt`, but not `license.py`."""
    name = path.rpartition("/")[2]
    if not _LICENCE.fullmatch(name.lower()):
        return False
    extension = get_extension(path).lower()
    return extension in _LICENCE_ENDINGS or extension not in _BY_NAME


def is_vendored(path: str) -> bool:
    """Return True if a path is that of a copy of another project's file."""
    *folders, name = path.lower().split("/")
    if not _VENDORED_FOLDERS.isdisjoint(folders):
        return True
    return bool(_VENDORED_FILE.fullmatch(name)) and name not in _AMBIGUOUS_WITHOUT_VERSION


def is_named_generated(path: str) -> bool:
    """Return True if a file's name is one that programs give to their output."""
    return bool(_GENERATED_FILE.fullmatch(path.rpartition("/")[2].lower()))


def is_named_minified(path: str) -> bool:
    """Return True if a file's name marks it as minified."""
    return bool(_MINIFIED_FILE.fullmatch(path.rpartition("/")[2].lower()))
