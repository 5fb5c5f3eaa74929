"""The signals of documents in shards, which stand in `clean/`: language, its score, perplexity, likeness to references.

A document is found by its locator: the file `clean/<source>/<input>.parquet`, or of an input in pieces the last one
that begins at or before its offset, and in it the row of its id.
"""

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from filters.errors import UserError
from manifests.document import ID_BYTES

SIGNALS = ("language", "language_score", "perplexity", "bucket", "reference_score")
_PIECE = re.compile(r"@([0-9]{15})\.parquet$")


class Signals:
    """The signals in one corpus's `clean/`; of each file that is needed only the columns with them are read."""

    def __init__(self, corpus: Path) -> None:
        self.folder = corpus / "clean"
        self._columns = lru_cache(maxsize=32)(_columns)
        self._pieces = lru_cache(maxsize=1024)(_pieces)

    def there(self) -> bool:
        """Whether the corpus has its `clean/` still."""
        return self.folder.is_dir()

    def of(self, source: str, file: str, offset: int, document: bytes) -> dict[str, Any]:
        """A document's signals, those without a value left out; none where its file or row is not there."""
        path = self.folder / source / f"{file}.parquet"
        if not path.is_file():
            begun = [piece for start, piece in self._pieces(self.folder / source, file) if start <= offset]
            if not begun:
                return {}
            path = begun[-1]
        table = self._columns(path)
        row = pc.index(table["id"], pa.scalar(document, pa.binary(ID_BYTES))).as_py()
        if row < 0:
            return {}
        found = table.slice(row, 1).drop_columns(["id"]).to_pylist()[0]
        return {name: value for name, value in found.items() if value is not None}


def _columns(path: Path) -> pa.Table:
    try:
        return pq.read_table(path, columns=["id", *SIGNALS])
    except (OSError, KeyError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read ({' '.join(str(error).split())}): give the run again") from error


def _pieces(folder: Path, file: str) -> list[tuple[int, Path]]:
    """Where the pieces of an input begin, and their files."""
    above = (folder / file).parent
    pieces = [path for path in above.glob("*.parquet") if path.name.startswith(f"{Path(file).name}@")]
    found = [(_PIECE.search(path.name), path) for path in pieces]
    return sorted((int(match[1]), path) for match, path in found if match)
