"""The signature files of a run and of earlier corpora that it is compared with, as one list of splits.

A *row reference* is a document's place in all of them: split number << 32 | row, as int64. Splits of the run come
first, in the order of their names; those of earlier corpora follow.
"""

from dataclasses import dataclass
from pathlib import Path

from filters.errors import UserError
from manifests.files import relative_files, sha256_file
from manifests.manifest import load_manifest
from manifests.recipe import Recipe
from pipeline.beam.task import RECEIPTS, Receipt, read_receipt
from pipeline.stages.line_dedup import dump_of
from pipeline.stages.signatures import signature_path


@dataclass(frozen=True)
class Split:
    """A file of signatures. `name`: the split's; `corpus`: where it lies; `earlier`: whether that is an earlier one;
    `source`, `dump`: what its `documents`, so many, are of; `fingerprint`: the hash of what it holds."""

    name: str
    corpus: str
    earlier: bool
    source: str
    dump: str
    documents: int
    fingerprint: str

    @property
    def path(self) -> Path:
        """The signature file."""
        return Path(self.corpus) / signature_path(self.name)


def splits_of(corpus: Path, extracted: dict[str, Receipt], annotated: dict[str, Receipt]) -> list[Split]:
    """The splits of this run."""
    return [
        _split(corpus, name, False, extracted[name], receipt, receipt.sha())
        for name, receipt in sorted(annotated.items())
    ]


def earlier_splits(recipe: Recipe) -> list[Split]:
    """The splits of the corpora that the recipe compares with, every signature file checked against its receipt. Raises
    UserError that names a corpus of another scheme, or a file that is not what its run wrote."""
    found: list[Split] = []
    minhash = recipe.deduplication.minhash
    wanted = minhash.scheme if minhash else ""
    for path in map(Path, recipe.deduplication.against):
        scheme = load_manifest(path).signatures
        if scheme != wanted:
            raise UserError(
                f"deduplication.against: {path} has signatures of the scheme {scheme or 'none'!r}, this recipe's is "
                f"{wanted or 'none'!r}: give minhash the same settings"
            )
        found += _checked(path)
    return found


def _checked(corpus: Path) -> list[Split]:
    """The splits of one earlier corpus, in the order of their names."""
    stage = "annotate"
    found = []
    for file in relative_files(corpus / RECEIPTS / stage):
        name = file.removesuffix(".json")
        receipt, extracted = (read_receipt(corpus, step, name) for step in (stage, "extract"))
        outputs = {output.path: output for output in receipt.outputs} if receipt else {}
        output = outputs.get(signature_path(name))
        if receipt is None or extracted is None or output is None:
            raise UserError(
                f"deduplication.against: {corpus}/{RECEIPTS}/{stage}/{file} cannot be read: rebuild {corpus}"
            )
        path = corpus / output.path
        if not path.is_file() or sha256_file(path) != output.sha256:
            raise UserError(f"deduplication.against: {path} is not what its run wrote: rebuild {corpus}")
        found.append(_split(corpus, name, True, extracted, receipt, output.sha256))
    return found


def _split(corpus: Path, name: str, earlier: bool, extracted: Receipt, annotated: Receipt, fingerprint: str) -> Split:
    source = name.partition("/")[0]
    documents = annotated.tallies[source].out["records"]
    return Split(name, str(corpus), earlier, source, dump_of(extracted.facts["file"]), documents, fingerprint)
