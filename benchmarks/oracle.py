"""Hash a corpus, to compare it with a corpus of changed code: `python -m benchmarks oracle CORPUS [--against FILE]`.

Use it to check a change of the code that must not change any output. Build corpora before the change and write their
hashes to files. Build them again after the change and compare. For Arrow and Parquet files, the columns are hashed
without the schema's metadata, which contains the recipe's hash and other hashes that may change. For other files, the
bytes are hashed. Counts of the ledger and of the stages' findings are compared as numbers.

The module only reads the files of corpora and imports nothing of this project, so changes of the project do not affect
it.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

FORMAT = "teratoken-oracle-1"
# The folders that are hashed. Blocks, receipts and times are not part of the result of a run.
FOLDERS = (
    "clean", "clusters", "deadletters", "documents", "dropped", "duplicates", "index", "models", "shards", "skipped",
    "verdicts",
)  # fmt: skip
JSON_FILES = ("canaries.json", "statistics.json")
NAMED_BY_STAGE = ("findings", "ledger", "verdicts")  # below these, the next part of a name is a stage
COUNTS = ("findings", "ledger")  # keys of manifest.json
UNSTABLE = ("manifest_sha",)  # keys of JSON_FILES that are left out, because they depend on the code and the recipe

Entries = dict[str, Any]


def main(arguments: list[str]) -> int:
    """Write a corpus's hashes, or compare them.

    Returns:
        The exit code: 0 without differences, 1 with differences, 2 for a mistake of the user.
    """
    description = "Hash the files of a corpus, or compare them with earlier hashes."
    parser = argparse.ArgumentParser(prog="python -m benchmarks oracle", description=description)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the hashes to this file")
    parser.add_argument("--against", type=Path, metavar="FILE", help="compare with the hashes in this file")
    parser.add_argument(
        "--rename", action="append", default=[], metavar="OLD=NEW",
        help="new name of a stage or of the beginning of a path "
        "(verdicts/lines=verdicts/line_dedup); may be repeated",
    )  # fmt: skip
    parser.add_argument("--metadata", action="store_true", help="count files that differ only in metadata as different")
    options = parser.parse_args(arguments)
    try:
        renames = [parse_rename(text) for text in options.rename]
        found = hash_corpus(options.corpus)
        before = rename_entries(read_hashes(options.against), renames) if options.against else None
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    text = json.dumps({"format": FORMAT, "entries": found}, indent=1, sort_keys=True, ensure_ascii=False)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(f"{text}\n", encoding="utf-8")
    if before is None:
        if not options.output:
            print(text)
        return 0
    different, in_metadata = compare(before, found)
    if options.metadata:
        different, in_metadata = sorted([*different, *in_metadata]), []
    print("\n".join([*different, *in_metadata, f"{len(found):,} entries, {len(different):,} differences"]))
    return 1 if different else 0


def hash_corpus(corpus: Path) -> Entries:
    """Return the hashes and counts of a corpus and of its appended generations, by name.

    Raises:
        ValueError: If the folder has no finished corpus, or a file cannot be read.
    """
    roots = [corpus, *sorted(path for path in corpus.glob("generations/*") if path.is_dir())]
    found: Entries = {}
    for root in roots:
        if not (root / "manifest.json").is_file():
            raise ValueError(f"{root} has no manifest.json: finish the run first")
        prefix = "" if root == corpus else f"{root.relative_to(corpus).as_posix()}/"
        found |= {f"{prefix}{name}": value for name, value in _entries_of(root)}
    return found


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return two lists of lines that describe the differences.

    The first list names all entries that are missing, added or different. The second list names files with the same
    columns but different metadata or layout.
    """
    different = [f"missing: {name}" for name in sorted(before.keys() - after.keys())]
    different += [f"added: {name}" for name in sorted(after.keys() - before.keys())]
    in_metadata = []
    for name in sorted(before.keys() & after.keys()):
        old, new = before[name], after[name]
        if old == new:
            continue
        if _without_bytes(old) == _without_bytes(new):
            in_metadata.append(f"same columns in another file: {name}")
        else:
            different.append(f"different: {name}: {_describe(old, new)}")
    return different, in_metadata


def rename_entries(entries: Mapping[str, Any], renames: list[tuple[str, str]]) -> Entries:
    """Return the entries under their new names.

    Raises:
        ValueError: If two entries would have the same name.
    """
    found: Entries = {}
    for name, value in entries.items():
        new = _rename(name, renames)
        if new in found:
            raise ValueError(f"--rename gives two entries the name {new!r}")
        found[new] = value
    return found


def parse_rename(text: str) -> tuple[str, str]:
    """Return the old and the new name of an option `OLD=NEW`.

    Raises:
        ValueError: If the text has another form.
    """
    old, equals, new = text.partition("=")
    if not old or not equals or not new:
        raise ValueError(f"--rename {text!r} is not OLD=NEW")
    return old.strip("/"), new.strip("/")


def read_hashes(path: Path) -> Entries:
    """Return the entries of a file that `--output` wrote.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If the file has no hashes of this format.
    """
    plain = json.loads(path.read_bytes())
    if not isinstance(plain, dict) or plain.get("format") != FORMAT:
        raise ValueError(f"{path} holds no hashes of format {FORMAT}")
    return dict(plain["entries"])


def hash_table(path: Path) -> dict[str, Any]:
    """Return the number of rows of a Parquet or Arrow file, the order of its columns, and their types and hashes."""
    table = pq.ParquetFile(path).read() if path.suffix == ".parquet" else _read_arrow(path)
    columns = {}
    for number, name in enumerate(table.column_names):
        column = table.column(
            number
        ).combine_chunks()  # One chunk, so that the hash does not depend on row groups and batches.
        chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
        hashed = hashlib.sha256()
        for chunk in chunks:
            # A serialized batch has no schema, so it contains no metadata of the table or of nested fields.
            hashed.update(pa.RecordBatch.from_arrays([chunk], names=[""]).serialize())
        columns[name] = f"{column.type} {hashed.hexdigest()}"
    return {"rows": table.num_rows, "order": table.column_names, "columns": columns}


def _entries_of(root: Path) -> Iterator[tuple[str, Any]]:
    """Yield (name, hashes or count) of each entry of one generation."""
    for path in sorted(path for folder in FOLDERS for path in (root / folder).rglob("*") if path.is_file()):
        with path.open("rb") as file:
            entry: Entries = {"file": hashlib.file_digest(file, "sha256").hexdigest()}
        if path.suffix in (".arrow", ".parquet"):
            entry |= hash_table(path)
        yield path.relative_to(root).as_posix(), entry
    for name in JSON_FILES:
        if (root / name).is_file():
            plain = json.loads((root / name).read_bytes())
            kept = {key: value for key, value in plain.items() if key not in UNSTABLE}
            yield name, {"values": hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()}
    manifest = json.loads((root / "manifest.json").read_bytes())
    for name in COUNTS:
        yield from _flatten(name, manifest[name])


def _flatten(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield (path, value) of each leaf of nested JSON objects. An empty object is a leaf."""
    if isinstance(value, dict) and value:
        for key in value:
            yield from _flatten(f"{name}/{key}", value[key])
    else:
        yield name, value


def _read_arrow(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as mapped:
        return pa.ipc.open_file(mapped).read_all()


def _rename(name: str, renames: list[tuple[str, str]]) -> str:
    """Return the new name of an entry: apply the first (old, new) pair whose old stage or path prefix matches."""
    parts = name.split("/")
    skipped = 2 if parts[0] == "generations" else 0  # Skip "generations/N": a generation has the layout of a corpus.
    for old, new in renames:
        stage = "/" not in old
        if stage and (len(parts) < skipped + 2 or parts[skipped] not in NAMED_BY_STAGE):
            continue
        first, wanted = skipped + stage, old.split("/")
        if parts[first : first + len(wanted)] == wanted:
            return "/".join([*parts[:first], *new.split("/"), *parts[first + len(wanted) :]])
    return name


def _without_bytes(entry: Any) -> Any:
    """Return an entry without the hash of the file's bytes, if the entry has hashes of columns."""
    if isinstance(entry, dict) and "columns" in entry:
        return {key: value for key, value in entry.items() if key != "file"}
    return entry


def _describe(old: Any, new: Any) -> str:
    """Return a description of the difference between two values of an entry."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return f"{old!r} before, {new!r} now"
    if "columns" not in old or "columns" not in new:
        return "other bytes" if "file" in old else "other values"
    names = sorted({*old["columns"], *new["columns"]})
    changed = [name for name in names if old["columns"].get(name) != new["columns"].get(name)]
    said = [f"{old['rows']:,} rows before, {new['rows']:,} now"] if old["rows"] != new["rows"] else []
    return "; ".join([*said, f"columns {', '.join(changed)}" if changed else "columns in another order"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
