"""Write an invented manifest with hostile strings, and the files beside it, for tests that read no other files."""

import json
from pathlib import Path

from filters.reasons import Reason
from manifests.ledger import STAGES, Tally
from manifests.manifest import Manifest, ModelEntry, ShardEntry, SourceEntry, TokenizerEntry, write_manifest

HOSTILE = (
    "</script><img src=http://hostile.example/x onerror=alert(1)>",
    "</title></style><script>document.title='taken'</script>",
    '" onmouseover="alert(1)" x=\'',
    "https://hostile.example/\u202egpj.exe\u202c?<b>&amp;",
    "\x00\x1b[31m\x07\u200f\u2066\ufeff \ud800",
    "<svg/onload=fetch('http://hostile.example/')>",
)


def ledger(sources: list[str], reasons: list[Reason], records: int = 1_000) -> dict[str, dict[str, object]]:
    """Return a balanced ledger.

    In each stage and source, each reason drops `records` records. At the end as many records are kept as are dropped.
    """
    found: dict[str, dict[str, object]] = {stage: {} for stage in STAGES}
    for source in sources:
        left = records * len(reasons) * len(STAGES) * 2
        for stage in STAGES:
            tally, taken = Tally(), records * len(reasons)
            unit = "bytes" if stage == "extract" else "characters"
            tally.enter(records=left, **{unit: left * 10})
            for reason in reasons:
                tally.drop(reason, records=records, **{unit: records * 10})
            left -= taken
            tally.keep(records=left, characters=left * 10, **({"bytes": left * 10} if unit == "bytes" else {}))
            if stage == "tokenize":
                tally.keep(tokens=left * 3)
            found[stage][source] = tally.as_dict()
    return found


def write_hostile(corpus: Path, sources: int = 200, reasons: int = 60, long: int = 100_000) -> Manifest:
    """Write manifest.json, statistics.json, model cards and records of runs in which all strings are hostile or long.

    Args:
        corpus: The folder to write.
        sources: The number of sources.
        reasons: The number of reasons.
        long: The number of characters of long strings.
    """
    names = [f"s{number}{HOSTILE[number % len(HOSTILE)]}" for number in range(sources)]
    chosen = list(Reason)[:reasons]
    balanced = ledger(names, chosen)
    left = {name: balanced["tokenize"][name]["out"] for name in names}  # type: ignore[index]
    entries = {
        name: SourceEntry(
            weight=1.0,
            max_epochs=2.0,
            documents=left[name]["records"],
            unique_tokens=left[name]["tokens"] - 300,
            train=[shard(name, "train", left[name]["records"] - 100, left[name]["tokens"] - 300)],
            validation=[shard(name, "validation", 100, 300)],
        )
        for name in names
    }
    manifest = Manifest(
        seed=1,
        goal_tokens=10**12,
        recipe={"name": HOSTILE[1] + "n" * long, "sources": {name: {"inputs": [name * 50]} for name in names}},
        recipe_sha="0" * 64,
        tokenizer=TokenizerEntry(sha256="1" * 64, vocabulary=32_000, bos=1, eos=2, dtype="uint16"),
        models={f"{name}.{number}": ModelEntry(sha256="2" * 64, path=name) for name in names for number in range(5)},
        signatures={HOSTILE[1]: HOSTILE[0]},
        sources=entries,
        ledger=balanced,
        findings={"cuts": {name: {"cuts": {"<en>": {"head": 100.0, "tail": 200.0}}} for name in names}},
        code={f"{HOSTILE[0]}{number}": "3" * long for number in range(100)},
    )
    corpus.mkdir(parents=True, exist_ok=True)
    write_json(corpus / "statistics.json", statistics(names, [reason.value for reason in chosen], long))
    card = {"sha256": "4" * 64, "nested": {HOSTILE[0]: [1, 2, {"deep": "x" * 1_000}]}, "many": list(range(1_000))}
    for number in range(100):
        write_json(corpus / f"models/{number:03}.card.json", card)
    task = {"stage": "", "task": "x", "bytes": 1, "seconds": 1.0, "cpu_seconds": 1.0, "records": 5, "peak_rss_bytes": 9}
    tasks = [{**task, "stage": f"{HOSTILE[number % 6]}/{number}"} for number in range(500)]
    write_json(corpus / "runs/20260101T000000Z.json", {"tasks": tasks, "jobs": [{"job": "extract", "seconds": 2.0}]})
    write_json(corpus / "runs/20260102T000000Z.json", {"tasks": [{"no": "task"}]})
    return write_manifest(corpus, manifest)


def statistics(names: list[str], reasons: list[str], long: int) -> dict[str, object]:
    """Return the contents of statistics.json. All lists are at least as long as those that the stage writes."""
    bins = {"edges": [float(edge) for edge in range(122)], "counts": [7] * 121}
    example = {"key": 1, "text": HOSTILE[0] + "t" * long, "url": HOSTILE[3], "id": "ab" * 16}
    short = {**example, "text": HOSTILE[4], "file": HOSTILE[5]}
    top = {"top": [[f"{number}{HOSTILE[number % 6]}", 9] for number in range(50)], "total": 10_000, "error": 3}
    source = {
        "documents": 100,
        **dict.fromkeys(("characters", "tokens", "score"), bins),
        "perplexity": dict.fromkeys(("head", "middle", "tail", "all", HOSTILE[0]), bins),
        "names": dict.fromkeys(("domains", "language", "year", "licence"), top),
    }
    first = {reason: [example, short, short, short] for reason in reasons}
    many = {name: {**source, "examples": first if place < 2 else {}} for place, name in enumerate(names)}
    level = {"level": 0.7, "jaccard": 0.7, "expected": 0.5, "found": 5, "planted": 10, "accepted": 3, "right": 2}
    bands = {"sources": [HOSTILE[0]], "bands": 14, "rows": 8, "threshold": 0.7, "curve": [[0.3, 0.0], [1.0, 1.0]],
             "planted": [{**level, "interval": [0.2, 0.8]}] * 20}  # fmt: skip
    return {"manifest_sha": "5" * 64, "sources": many, "clusters": bins, "bands": [bands, bands]}


def shard(source: str, side: str, documents: int, tokens: int) -> ShardEntry:
    """Return the manifest entry of a shard."""
    path = f"{source}/{side}-00000-of-00001.arrow"
    return ShardEntry(path=path, sha256="6" * 64, bytes=2 * tokens, tokens=tokens, documents=documents)


def write_json(path: Path, value: object) -> None:
    """Write a value as ASCII JSON, in which lone surrogates are escaped."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), "utf-8")
