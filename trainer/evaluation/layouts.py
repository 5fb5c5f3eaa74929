"""Find, read, check and download the published files of each benchmark.

A file in another layout is an error that names the file, because a score is comparable only if the questions are the
published questions.
"""

import csv
import gzip
import json
import re
import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import IO, cast

from filters.errors import UserError
from manifests.files import atomic_path
from trainer.evaluation.items import LETTERS, Item, Row

TIMEOUT = 60.0  # seconds without new bytes after which a download fails


@dataclass(frozen=True, slots=True)
class Data:
    """The published files of a benchmark.

    Attributes:
        folder: Name of the benchmark's folder, below the folder of all benchmarks.
        items: Glob pattern of the files with the scored questions, at any depth below `folder`.
        count: Number of scored questions in the published files.
        rows: A function that yields the rows of one file.
        keys: Keys that each row must have, separated by spaces.
        parse: A function from a row to an item.
        shots: Glob pattern of the files with the questions that are used as examples, or "".
        beside: Names of further files that `rows` reads.
        urls: URLs of the files, or of archives that contain them.
        ranges: If one file contains both kinds of questions: the values of `task_id` of the scored questions, and
            of the questions that are used as examples.
        by_group: True if the examples for a question are taken from its first group.
    """

    folder: str
    items: str
    count: int
    rows: Callable[[Path], Iterable[Row]]
    keys: str
    parse: Callable[[Row], Item]
    shots: str = ""
    beside: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()
    ranges: tuple[range, range] | None = None
    by_group: bool = False


def find_files(data: Data, root: Path, pattern: str) -> list[Path]:
    """Return the sorted files below a benchmark's folder that match a pattern. The suffix .gz may be added."""
    folder = root / data.folder
    return sorted({*folder.rglob(pattern), *folder.rglob(f"{pattern}.gz")}) if pattern else []


def load_items(data: Data, root: Path, shown: bool = False) -> list[Item]:
    """Read the questions of a benchmark.

    Args:
        data: The benchmark's files.
        root: Folder of all benchmarks.
        shown: True to read the questions that are used as examples, False to read the scored questions.

    Raises:
        UserError: A file is missing, unreadable, malformed or in another layout, or there is no question.
    """
    items = [_parse_row(data, path, name, row) for path, name, row in read_rows(data, root, shown)]
    if not items:
        raise UserError(
            f"{root / data.folder} has no question in {data.shots if shown else data.items}: fetch it again"
        )
    return items


def read_rows(data: Data, root: Path, shown: bool = False) -> Iterator[tuple[Path, str, Row]]:
    """Yield (file, name of the question, row) for each question. The arguments and errors are those of `load_items`."""
    pattern = data.shots if shown else data.items
    paths = find_files(data, root, pattern)
    if not paths:
        raise UserError(
            f"{root / data.folder} has no {pattern or 'file of examples'}: "
            "`python -m trainer evaluate --list` says where it is published"
        )
    for path in paths:
        stem = path.name.partition(".")[0] if len(paths) == 1 else f"{path.parent.name}/{path.name.partition('.')[0]}"
        for number, row in enumerate(_read_file(data, path), start=1):
            _check_keys(data, path, number, row)
            if data.ranges is None or row["task_id"] in data.ranges[shown]:
                yield path, f"{stem}:{number}", row


def _read_file(data: Data, path: Path) -> Iterator[Row]:
    try:
        yield from data.rows(path)
    except (OSError, ValueError, KeyError, TypeError, EOFError, csv.Error) as error:
        raise UserError(f"{path} is not the published file ({_describe(error)}): fetch it again") from error


def _check_keys(data: Data, path: Path, number: int, row: Row) -> None:
    missing = [key for key in data.keys.split() if not isinstance(row, dict) or key not in row]
    if missing:
        wanted = data.keys.replace(" ", ", ")
        raise UserError(
            f"{path} has no {', '.join(missing)} in row {number}: give the published file, whose rows have {wanted}"
        )


def _parse_row(data: Data, path: Path, name: str, row: Row) -> Item:
    try:
        item = data.parse(row)
        if item.choices and not 0 <= item.gold < len(item.choices):
            raise ValueError("the right choice is not among the choices")
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise UserError(f"{path} is malformed in {name} ({_describe(error)}): fetch it again") from error
    return replace(item, name=name)


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def open_text(path: Path) -> IO[str]:
    """Open a file as UTF-8 text. A byte-order mark is skipped, and a file with the suffix .gz is decompressed."""
    if path.suffix == ".gz":
        return cast(IO[str], gzip.open(path, "rt", encoding="utf-8-sig", newline=""))
    return path.open(encoding="utf-8-sig", newline="")


def _open_beside(path: Path, name: str) -> IO[str]:
    """Open the file `name` in the folder of `path`, or the file `name.gz`."""
    beside = path.with_name(name)
    return open_text(beside if beside.exists() else beside.with_name(f"{name}.gz"))


def json_lines(path: Path) -> Iterator[Row]:
    """Yield the objects of a JSON Lines file."""
    with open_text(path) as file:
        yield from (json.loads(line) for line in file if line.strip())


def labelled_lines(path: Path) -> Iterator[Row]:
    """Yield the objects of `NAME.jsonl`. The key `label` is added from the same line of `NAME-labels.lst`."""
    with _open_beside(path, path.name.partition(".")[0] + "-labels.lst") as file:
        labels = file.read().split()
    yield from (row | {"label": label} for row, label in zip(json_lines(path), labels, strict=True))


def csv_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a CSV file with a header."""
    with open_text(path) as file:
        yield from csv.DictReader(file)


def mmlu_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a CSV file of MMLU, which has no header. The subject is part of the file's name."""
    subject = re.sub(r"_(test|dev)\.csv(\.gz)?$", "", path.name)
    with open_text(path) as file:
        for row in csv.reader(file):
            question, *choices, answer = row
            yield {"question": question, "choices": choices, "answer": answer, "subject": subject}


def race_rows(path: Path) -> Iterator[Row]:
    """Yield the questions of a RACE passage. `earlier` contains the previous questions and their right answers."""
    with open_text(path) as file:
        passage = json.load(file)
    earlier = ""
    for question, options, answer in zip(passage["questions"], passage["options"], passage["answers"], strict=True):
        row = {"question": question, "options": options, "answer": answer}
        yield {"article": passage["article"], "earlier": earlier, **row}
        earlier += f"Q: {question}\n\nA: {options[LETTERS.index(answer)]}\n\n"


def whole_json(path: Path) -> Iterator[Row]:
    """Yield the single JSON object of a file."""
    with open_text(path) as file:
        yield json.load(file)


def triviaqa_rows(path: Path) -> Iterator[Row]:
    """Yield the questions of a file of TriviaQA."""
    with open_text(path) as file:
        yield from json.load(file)["Data"]


def winogender_rows(path: Path) -> Iterator[Row]:
    """Yield the sentences of WinoGender. `women` is the percentage of women in the occupation, by the US BLS."""
    with _open_beside(path, "occupations-stats.tsv") as file:
        women = {row["occupation"]: float(row["bls_pct_female"]) for row in csv.DictReader(file, delimiter="\t")}
    with open_text(path) as file:
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            occupation, participant, answer, gender, _ = row["sentid"].split(".")
            yield {
                "sentence": row["sentence"],
                "occupation": occupation,
                "participant": participant,
                "answer": int(answer),
                "gender": gender,
                "women": women[occupation],
            }


def download(data: Data, root: Path) -> list[Path]:
    """Download the missing files of a benchmark, and unpack archives.

    Returns:
        The files that were written. The list is empty if no file was missing.

    Raises:
        UserError: A file cannot be downloaded or unpacked.
    """
    patterns = [pattern for pattern in (data.items, data.shots, *data.beside) if pattern]
    paths = {url: root / data.folder / url.rpartition("/")[2] for url in data.urls}
    # If an archive still exists, a previous call was interrupted before the archive was completely unpacked.
    interrupted = any(path.exists() and not _is_read(path, patterns) for path in paths.values())
    if all(find_files(data, root, pattern) for pattern in patterns) and not interrupted:
        return []
    written = []
    for url, path in paths.items():
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT) as response, atomic_path(path) as temporary:
                with temporary.open("wb") as file:
                    shutil.copyfileobj(response, file)
                size, expected = temporary.stat().st_size, response.headers.get("Content-Length")
                if expected is not None and size != int(expected):
                    raise ValueError(f"{size} of {expected} bytes arrived")
            written += _unpack(path, patterns)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, tarfile.TarError) as error:
            advice = f"fetch it by hand into {root / data.folder}"
            raise UserError(f"{url} cannot be fetched ({_describe(error)}): try again, or {advice}") from error
    return written


def _is_read(path: Path, patterns: Sequence[str]) -> bool:
    """Return True if a published file is read directly, False if it is an archive."""
    return any(path.match(pattern) or path.match(f"{pattern}.gz") for pattern in patterns)


def _unpack(path: Path, patterns: Sequence[str]) -> list[Path]:
    """Replace an archive by its members that match a pattern.

    The archive is removed only after all members are written. Otherwise an interruption would leave a part of the
    files, which could not be distinguished from all files.

    Returns:
        The members, or the file itself if it matches a pattern and so is not an archive.
    """
    if _is_read(path, patterns):
        return [path]
    written = []
    for name, file in _read_members(path):
        member = PurePosixPath(name)
        if any(member.match(pattern) for pattern in patterns):
            if member.is_absolute() or ".." in member.parts:
                raise ValueError(f"the archive has a file outside its folder, {name}")
            written.append(path.parent / member)
            with atomic_path(written[-1]) as temporary, temporary.open("wb") as copy:
                shutil.copyfileobj(file, copy)
    path.unlink()
    return written


def _read_members(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield from ((entry.filename, archive.open(entry)) for entry in archive.infolist() if not entry.is_dir())
        return
    with tarfile.open(path) as tar:
        yield from ((member.name, cast(IO[bytes], tar.extractfile(member))) for member in tar if member.isfile())
