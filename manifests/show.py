"""`show`: what a corpus holds, as tables for people."""

import io
from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from manifests.ledger import STAGES, imbalances, tally_from
from manifests.manifest import Manifest
from manifests.reasons import DEAD_LETTERS, DESCRIPTIONS, Reason

WIDTH = 118


def summary(manifest: Manifest) -> str:
    """The sources, where every record went, and the corpus's hashes, as text of at most `WIDTH` columns."""
    page = io.StringIO()
    console = Console(file=page, width=WIDTH, highlight=False)
    console.print(_sources(manifest))
    console.print(_reasons(manifest.ledger))
    for line in _findings(manifest.findings):
        console.print(line)
    balance = imbalances(manifest.ledger)
    console.print("ledger    " + ("balanced" if not balance else "NOT balanced: " + "; ".join(balance)))
    shards = manifest.shards()
    size = sum(shard.bytes for shard in shards)
    console.print(f"shards    {len(shards)}, {size / 1e6:,.1f} MB, {sum(s.tokens for s in shards):,} tokens")
    console.print(f"tokenizer {manifest.tokenizer.vocabulary:,} pieces, sha256 {manifest.tokenizer.sha256[:16]}…")
    console.print(f"manifest  {manifest.manifest_sha}")
    return "\n".join(line.rstrip() for line in page.getvalue().rstrip().splitlines())


def _sources(manifest: Manifest) -> Table:
    table = Table("source", "weight", title="Sources", title_justify="left", box=SIMPLE_HEAD)
    for heading in ("records in", "dead letters", "dropped", "documents", "train tokens", "held out", "epochs at goal"):
        table.add_column(heading, justify="right")
    whole = sum(source.weight for source in manifest.sources.values())
    for name, source in sorted(manifest.sources.items()):
        tallies = [tally_from(manifest.ledger[stage][name]) for stage in STAGES]
        dead = sum(_records(tally.dropped, damaged=True) for tally in tallies)
        dropped = sum(_records(tally.dropped, damaged=False) for tally in tallies)
        share = source.weight / whole
        epochs = share * manifest.goal_tokens / source.unique_tokens if source.unique_tokens else 0.0
        capped = f"{source.max_epochs:.2f} (cap)" if epochs > source.max_epochs else f"{epochs:.2f}"
        table.add_row(
            name,
            f"{share:.1%}",
            f"{tallies[0].entered['records']:,}",
            f"{dead:,}",
            f"{dropped:,}",
            f"{source.documents:,}",
            f"{source.unique_tokens:,}",
            f"{sum(shard.tokens for shard in source.validation):,}",
            capped if source.unique_tokens else "no tokens",
        )
    return table


def _reasons(ledger: Mapping[str, Mapping[str, Any]]) -> Table:
    sources = sorted({source for found in ledger.values() for source in found})
    table = Table("stage", "reason", title="Why records are not in the corpus", title_justify="left", box=SIMPLE_HEAD)
    for source in sources:
        table.add_column(source, justify="right")
    table.add_column("meaning", overflow="fold")
    for stage in STAGES:
        dropped = {source: tally_from(tally).dropped for source, tally in ledger[stage].items()}
        for reason in sorted({reason for found in dropped.values() for reason in found}):
            counts = [
                dropped[source][reason]["records"] if reason in dropped.get(source, {}) else 0 for source in sources
            ]
            shown = [f"{count:,}" if count else "" for count in counts]
            table.add_row(stage, reason, *shown, DESCRIPTIONS[Reason(reason)])
    return table


def _findings(findings: Mapping[str, Any]) -> list[str]:
    """What stages found out on the way, a line each."""
    said = []
    if lines := findings.get("lines"):
        missed, found = lines["missed_by_ccnet_scope"], lines["duplicates"]
        said.append(
            f"lines     {found:,} of {lines['lines']:,} are also elsewhere; CCNet's scope (one part in 32) "
            f"would have missed {missed:,} of them" + (f" ({missed / found:.0%})" if found else "")
        )
    if pairs := findings.get("neardup"):
        said.append(
            f"pairs     {pairs['edges']:,} near-duplicates joined, {pairs['rejected']:,} candidates rejected, "
            f"{pairs['capped']:,} unjoined when the rounds ended, {pairs['divided_buckets']:,} large buckets"
        )
    for source, held in findings.get("blocklists", {}).items():
        none = f"; {held['malformed']:,} lines are none" if held["malformed"] else ""
        said.append(f"blocked   {source}: lists of {held['patterns']:,} domains and addresses{none}")
    for source, card in findings.get("cuts", {}).items():
        for language, cuts in card["cuts"].items():
            said.append(
                f"buckets   {source}, {language}: head below {cuts['head']:,}, tail from {cuts['tail']:,} "
                f"({cuts['documents']:,} documents)"
            )
    for source, card in findings.get("references", {}).items():
        said.append(
            f"cited     {source}: classifier of {card['trained_on']['positives']:,} cited pages, "
            f"area under the curve {card['auc']:.3f} on {card['held_out_by']}s held out"
        )
    return said


def _records(dropped: Mapping[str, Mapping[str, int]], damaged: bool) -> int:
    return sum(units["records"] for reason, units in dropped.items() if (Reason(reason) in DEAD_LETTERS) == damaged)
