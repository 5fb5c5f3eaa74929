"""What to do about a file of a corpus that is damaged or missing."""

from pathlib import Path

from manifests.mirror import mirror_of

RECEIPTS = "receipts/tokenize"  # left by the run that wrote the shards; a corpus made by `remove` has none


def advise_repair(corpus: Path) -> str:
    """Return how to get files of a corpus again that are damaged or missing, as the end of a sentence."""
    if mirror_of(corpus) is None and not (corpus / RECEIPTS).is_dir():
        return (
            "this folder has no receipts of the run that wrote it, so copy the file from another copy of the corpus "
            "or make the corpus again into a new folder"
        )
    return (
        "give the same `python -m pipeline run` command again, which makes missing files anew and keeps all others "
        "(delete a damaged file before)"
    )
