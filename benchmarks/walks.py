"""Count the files and function calls that one record passes: `python -m benchmarks walks [--verbose] [NAME…]`.

Each walk is a command on one tiny synthetic record. It is traced in a separate process. A file counts as entered if one
of its functions is called between the start and the end of the walk. Code that runs while a module is imported does not
count. A call is an entry into a function; for a generator only the first entry counts.

If you move code, adapt WALKS: if the start or the end of a walk is never reached, the benchmark fails.
"""

import argparse
import contextlib
import gzip
import importlib
import io
import json
import random
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

import pyarrow as pa

from benchmarks.data import ROOT, table

PIPELINE, MANIFESTS = "pipeline.__main__", "manifests.__main__"  # modules whose `main` takes command-line arguments
NOT_OURS = {".venv", "benchmarks", "build", "tests"}  # folders whose files are not counted
# Files with a thread that a timer drives. These files count as entered. Their calls do not count, because the number of
# calls differs between runs.
TIMED = {"pipeline/beam/progress.py"}


@dataclass(frozen=True)
class Window:
    """The part of a run in which calls are counted: from the entry of `start` to the return of `end`.

    Attributes:
        start: A function, in the form `FILE:FUNCTION`.
        end: A function in the same form. If it is empty, each call of `start` is a window, which its return closes. If
            it is given, only the first call of `start` opens a window.
        everywhere: True counts calls in all threads. False counts only calls in the thread that called `start`.
    """

    start: str
    end: str = ""
    everywhere: bool = False


@dataclass(frozen=True)
class Walk:
    """A command that is traced.

    Attributes:
        title: The title in the table.
        module: The module whose `main` runs the command.
        arguments: The arguments of the command, with the placeholders `{folder}` and `{id}`.
        windows: The windows in which calls are counted.
    """

    title: str
    module: str
    arguments: tuple[str, ...]
    windows: tuple[Window, ...]


def _run(name: str, *more: str) -> tuple[str, ...]:
    """Return the arguments of `python -m pipeline run` for a recipe of `RECIPES`."""
    return ("run", f"{{folder}}/{name}.yaml", "--output", f"{{folder}}/{name}", "--quiet", "--workers", "1", *more)


EXTRACT, JUDGE, ANNOTATE = (
    "pipeline/stages/extract.py:extract",
    "filters/rule_list.py:apply_rules",
    "pipeline/stages/filter.py:filter_documents",
)
WALKS = {
    "warc": Walk(
        "WARC byte to document", PIPELINE, _run("warc", "--stage", "extract"), (Window(EXTRACT),)
    ),
    "shard": Walk(
        "run to shard", PIPELINE, _run("book"),
        (Window("pipeline/run.py:run", "manifests/shard.py:write_shard", everywhere=True),),
    ),
    "lines": Walk(
        "duplicate paragraphs", PIPELINE, _run("lines", "--stage", "filter"),
        (
            Window("pipeline/graph.py:StageGraph.line_dedup", everywhere=True),
            Window("pipeline/stages/filter.py:read_masks"),
            Window(JUDGE),
        ),
    ),
    "tex": Walk("TeX to text", PIPELINE, _run("tex", "--stage", "extract"), (Window(EXTRACT),)),
    "rule": Walk(
        "a recipe's rule to its decision", PIPELINE, _run("rule", "--stage", "filter"),
        (
            Window("manifests/recipe.py:load_recipe"),
            Window("pipeline/stages/models.py:hash_models"),
            Window(ANNOTATE, "filters/quality/c4.py:has_bad_word"),
        ),
    ),
    "picture": Walk(
        "the report's first picture", MANIFESTS, ("report", "{folder}/book", "--output", "{folder}/report.html"),
        (Window("manifests/report/page.py:write_report", "manifests/report/svg.py:flow_chart"),),
    ),
    "find": Walk("find an id", MANIFESTS, ("find", "{folder}/book", "{id}"), (Window("manifests/__main__.py:main"),)),
    "verify": Walk(
        "verify a corpus", MANIFESTS, ("verify", "{folder}/book", "--quiet"), (Window("manifests/__main__.py:main"),)
    ),
}  # fmt: skip
NEEDS_CORPUS = {"picture", "find", "verify"}  # walks that read the corpus written by the walk `shard`

HEAD = "{name: walk, seed: 1, goal_tokens: 1000, tokenizer: {vocabulary: 320}, deduplication: {canaries: 0}, sources: "
RECIPES = {
    "warc": "{common_crawl: {weight: 1, inputs: [FOLDER/page.warc.gz]}}",
    "book": "{books: {weight: 1, inputs: [FOLDER/book.txt]}}",
    "lines": "{common_crawl: {weight: 1, inputs: [FOLDER/pages.warc.wet.gz], filters: [duplicate_lines]}}",
    "tex": "{arxiv: {weight: 1, inputs: [FOLDER/2401.00001.gz]}}",
    "rule": "{common_crawl: {weight: 1, inputs: [FOLDER/page.warc.gz], "
    "filters: [c4: {min_words_per_line: 3, min_sentences: 1}, bad_words: FOLDER/words.txt]}}",
}
BAD = "scoundrel"
SENTENCE = f"The keeper of the lower light called him a {BAD}, and lit the seven lamps of the harbour one by one."
HTML = f"<html><head><title>Lamps</title></head><body><article><p>{SENTENCE}</p></article></body></html>"
TEX = rf"""\documentclass{{article}}
\newcommand{{\lamp}}{{light}}
\begin{{document}}
\section{{Harbours}}
Every \lamp\ of a harbour is seen $d = \sqrt{{2Rh}}$ metres away \cite{{keeper}}.
% nobody reads this
{SENTENCE}
\end{{document}}
"""


class Traced(NamedTuple):
    """The result of one walk.

    Attributes:
        calls: The number of calls by file, in the order in which the files were entered.
        loaded: The number of this project's files that were imported.
    """

    calls: dict[str, int]
    loaded: int


class Tracer:
    """A profile function (`sys.setprofile`) that counts calls of this project's functions while a window is open."""

    def __init__(self, windows: tuple[Window, ...]) -> None:
        self.windows = windows
        self.calls: dict[str, int] = {}
        self.opened = [False] * len(windows)
        self.closed = [False] * len(windows)
        self._depths = [0] * len(windows)
        self._local = threading.local()
        self._codes: dict[int, _Code] = {}  # by id(), because equal code objects of two files compare equal

    def __call__(self, frame: FrameType, event: str, _argument: Any) -> None:
        """Handle one event of the interpreter: the call or the return of a function."""
        if event not in ("call", "return"):
            return
        code = self._codes.get(id(frame.f_code)) or self._describe_code(frame)
        if not code.file:
            return
        if not hasattr(self._local, "depths"):
            self._local.importing, self._local.depths = 0, [0] * len(self.windows)
        entered = event == "call"
        if code.place.endswith(":<module>"):
            self._local.importing += 1 if entered else -1
        elif not self._local.importing and entered:
            self._enter(code, frame)
        elif not self._local.importing:
            self._leave(code)

    def unreached(self) -> list[str]:
        """Return the starts and ends of windows that were never reached, in the form `FILE:FUNCTION`."""
        found = [window.start for window, opened in zip(self.windows, self.opened, strict=True) if not opened]
        for window, closed in zip(self.windows, self.closed, strict=True):
            found += [] if closed else [window.end or window.start]
        return list(dict.fromkeys(found))

    def _describe_code(self, frame: FrameType) -> "_Code":
        """Return and remember the description of the function that a frame executes."""
        path = Path(frame.f_code.co_filename)
        file = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else ""
        ours = file and file.partition("/")[0] not in NOT_OURS
        code = _Code(frame.f_code, file if ours else "", f"{file}:{frame.f_code.co_qualname}", frame.f_lasti)
        self._codes[id(frame.f_code)] = code
        return code

    def _enter(self, code: "_Code", frame: FrameType) -> None:
        """Open the windows that start with a function, and count its call if a window is open."""
        for number, window in enumerate(self.windows):
            if window.start == code.place and (not window.end or not self.opened[number]):
                self._depths_of(window)[number] += 1
                self.opened[number] = True
        if any(self._depths) or any(self._local.depths):
            # Comprehensions are separate functions only in some versions of Python, so they never count.
            is_comprehension = code.place.endswith(("comp>", "genexpr>"))
            is_first_entry = frame.f_lasti == code.first and not is_comprehension and code.file not in TIMED
            self.calls[code.file] = self.calls.get(code.file, 0) + is_first_entry

    def _leave(self, code: "_Code") -> None:
        """Close the windows that end with a function."""
        for number, window in enumerate(self.windows):
            depths = self._depths_of(window)
            if (window.end or window.start) == code.place and depths[number]:
                depths[number] -= 1
                self.closed[number] = True

    def _depths_of(self, window: Window) -> list[int]:
        """Return the list, of all threads or of this thread, that counts how often each window is open."""
        depths: list[int] = self._depths if window.everywhere else self._local.depths
        return depths


class _Code(NamedTuple):
    """A function that was called.

    Attributes:
        code: The code object. It is kept so that its id() is not reused.
        file: The path of its file, or "" if the file is not counted.
        place: The function in the form `FILE:FUNCTION`.
        first: The index of its first instruction, to tell the first entry into a generator from later entries.
    """

    code: CodeType
    file: str
    place: str
    first: int


def main(arguments: list[str]) -> int:
    """Trace walks and print a table of their files and calls.

    Returns:
        The exit code: 0 on success, 1 if a walk failed or its start or end was not reached.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks walks", description="Trace one record through the code."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all of {', '.join(WALKS)}")
    parser.add_argument("--verbose", action="store_true", help="list the files in the order of entry")
    options = parser.parse_args(arguments)
    names = options.names or list(WALKS)
    if unknown := set(names) - set(WALKS):
        parser.error(f"no walk {sorted(unknown)[0]!r}: {', '.join(WALKS)}")
    rows, lists, failed = [], [], False
    with tempfile.TemporaryDirectory() as folder:
        write_inputs(Path(folder))
        if NEEDS_CORPUS & set(names) and "shard" not in names:
            trace_in_new_process("shard", Path(folder))
        for name in sorted(names, key=list(WALKS).index):
            walk = WALKS[name]
            try:
                found = trace_in_new_process(name, Path(folder))
            except RuntimeError as error:
                print(f"error: {name}: {error}", file=sys.stderr)
                failed = True
                continue
            rows.append([f"{walk.title} (`{name}`)", len(found.calls), f"{sum(found.calls.values()):,}", found.loaded])
            lists += [f"\n{walk.title}:", *(f"{calls:8,}  {file}" for file, calls in found.calls.items())]
    print(table(["walk", "files entered", "calls", "files loaded"], rows))
    if options.verbose:
        print("\n".join(lists))
    return 1 if failed else 0


def trace_in_new_process(name: str, folder: Path) -> Traced:
    """Trace a walk in a new process.

    Raises:
        RuntimeError: If the command failed, or the start or end of the walk was not reached.
    """
    command = [sys.executable, "-m", "benchmarks.walks", name, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no message"])[-1])
    plain = json.loads(done.stdout)
    return Traced(plain["calls"], plain["loaded"])


def trace(name: str, folder: Path) -> Traced:
    """Trace a walk in this process. The process must not have imported the modules that the walk loads.

    Raises:
        RuntimeError: If the command failed, or the start or end of the walk was not reached.
    """
    walk, tracer = WALKS[name], Tracer(WALKS[name].windows)
    identity = find_document_id(folder / "book") if name in NEEDS_CORPUS else ""
    arguments = [argument.format(folder=folder, id=identity) for argument in walk.arguments]
    command = importlib.import_module(walk.module).main
    output = io.StringIO()
    threading.setprofile(tracer)
    sys.setprofile(tracer)
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            code = command(arguments)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
    if code:
        raise RuntimeError(f"exit code {code}: {output.getvalue().strip()}")
    if unreached := tracer.unreached():
        raise RuntimeError(f"never reached {' and '.join(unreached)}: adapt WALKS")
    files = {Path(module.__file__) for module in list(sys.modules.values()) if getattr(module, "__file__", None)}
    ours = [path.relative_to(ROOT).parts[0] for path in files if path.is_relative_to(ROOT)]
    return Traced(tracer.calls, sum(part not in NOT_OURS for part in ours))


def find_document_id(corpus: Path) -> str:
    """Return the id of the first document in the largest shard of a corpus, in hexadecimal."""
    path = min((corpus / "shards").rglob("*.arrow"), key=lambda path: -path.stat().st_size)
    with pa.memory_map(str(path)) as mapped:
        return str(pa.ipc.open_file(mapped).read_all().column("document")[0].as_py().hex())


def write_inputs(folder: Path) -> None:
    """Write the synthetic dumps and the recipes of all walks."""
    http = f"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n{HTML}".encode()
    (folder / "page.warc.gz").write_bytes(record("response", "application/http; msgtype=response", "a", http))
    pages = [f"{SENTENCE}\nPage {name} says nothing else.".encode() for name in ("one", "two")]
    wet = [record("conversion", "text/plain", str(number), page) for number, page in enumerate(pages)]
    (folder / "pages.warc.wet.gz").write_bytes(b"".join(wet))
    (folder / "2401.00001.gz").write_bytes(gzip.compress(TEX.encode(), mtime=0))
    (folder / "words.txt").write_text(f"{BAD}\n", encoding="utf-8")
    draw = random.Random(1)
    words = ["".join(draw.choices("aeinorstlmdu", k=draw.randint(2, 9))) for _ in range(400)]
    lines = [f"{' '.join(draw.choices(words, k=12)).capitalize()}." for _ in range(300)]
    (folder / "book.txt").write_text("\n".join(lines), encoding="utf-8")
    for name, sources in RECIPES.items():
        (folder / f"{name}.yaml").write_text(HEAD + sources.replace("FOLDER", str(folder)) + "}", encoding="utf-8")


def record(kind: str, content_type: str, page: str, block: bytes) -> bytes:
    """Return a gzipped WARC record of a page."""
    head = f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: https://walk.example/{page}\r\n"
    head += f"WARC-Date: 2024-01-01T00:00:00Z\r\nContent-Type: {content_type}\r\nContent-Length: {len(block)}\r\n\r\n"
    return gzip.compress(head.encode() + block + b"\r\n\r\n", mtime=0)


if __name__ == "__main__":
    try:
        traced = trace(sys.argv[1], Path(sys.argv[2]))
    except RuntimeError as failure:
        sys.exit(str(failure))
    print(json.dumps(traced._asdict()))
