"""After a run: what a corpus really holds beside what would have been estimated, and what a training run mixed."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from filters.errors import UserError
from manifests.display import format_bytes, format_tokens, number_table
from manifests.ledger import tally_from
from manifests.manifest import Manifest
from manifests.mixture import quotas
from manifests.planning.supply import Factors, Figure, Supply, bytes_per_token, default_factors


@dataclass(frozen=True, slots=True)
class Actual:
    """One source as a corpus holds it. `tokens`: of both sides; `supply`: what training gets of it; `estimate`: tokens
    that the default factors make of the same stored bytes."""

    source: str
    documents: int
    tokens: int
    supply: Supply
    defaults: Factors
    estimate: float

    @property
    def ratio(self) -> float:
        """Tokens there are for each that was estimated."""
        return self.tokens / self.estimate if self.estimate else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        factors = {
            name: {"estimated": getattr(self.defaults, name).value, "actual": getattr(self.supply.factors, name).value}
            for name in ("text", "kept", "bytes_per_token")
        }
        return {
            "source": self.source,
            "stored_bytes": self.supply.stored_bytes,
            "documents": self.documents,
            "tokens": self.tokens,
            "estimated_tokens": self.estimate,
            "ratio": self.ratio,
            "factors": factors,
        }


def measure(manifest: Manifest, text_bytes: Mapping[str, int]) -> dict[str, Actual]:
    """The sources of a corpus. `text_bytes`: UTF-8 bytes of the tokenized text; where it is not known, characters are
    taken for bytes."""
    return {name: _measure(manifest, name, text_bytes.get(name, 0)) for name in sorted(manifest.sources)}


def _measure(manifest: Manifest, name: str, text_bytes: int) -> Actual:
    entry = manifest.sources[name]
    tallies = {
        stage: tally_from(found[name]) if name in (found := manifest.ledger.get(stage, {})) else tally_from(_NOTHING)
        for stage in ("extract", "tokenize")
    }
    stored, extracted = tallies["extract"].entered["bytes"], tallies["extract"].out["characters"]
    kept, tokens = tallies["tokenize"].entered["characters"], tallies["tokenize"].out["tokens"]
    kind = str(manifest.recipe["sources"].get(name, {}).get("kind") or name) if "sources" in manifest.recipe else name
    names = list(manifest.recipe.get("sources", {}).get(name, {}).get("inputs", []))
    # the manifest has names without sizes: what most files are counts
    defaults = Counter(default_factors(kind, file) for file in names or [""]).most_common(1)[0][0]
    wide = text_bytes / kept if text_bytes and kept else 1.0
    origin = f"measured: {stored:,} bytes of this source"
    factors = Factors(
        Figure(extracted * wide / stored, origin) if stored and extracted else defaults.text,
        Figure(kept / extracted, origin) if kept else defaults.kept,
        Figure(kept * wide / tokens, origin) if tokens else bytes_per_token(kind),
    )
    supply = Supply(float(entry.unique_tokens), "measured", factors, float(stored), len(names))
    return Actual(name, entry.documents, tokens, supply, defaults, defaults.tokens(stored))


_NOTHING: dict[str, Any] = {"in": {}, "out": {}, "dropped": {}, "removed": {}}


def actual_table(actuals: Mapping[str, Actual]) -> Table:
    """Estimated and actual, side by side."""
    columns = ("stored", "documents", "estimated", "tokens", "ratio", "text a stored byte", "kept", "bytes a token")
    table = number_table("The corpus: estimated from bytes → actual", "source", *columns)
    for actual in actuals.values():
        table.add_row(
            actual.source,
            format_bytes(actual.supply.stored_bytes),
            f"{actual.documents:,}",
            format_tokens(actual.estimate),
            format_tokens(actual.tokens),
            f"{actual.ratio:.2f}",
            *(
                f"{getattr(actual.defaults, name).value:.2g} → {getattr(actual.supply.factors, name).value:.2g}"
                for name in ("text", "kept", "bytes_per_token")
            ),
        )
    return table


@dataclass(frozen=True, slots=True)
class Mixed:
    """One source in a training run: tokens of the whole run and until `step`, and epochs until then."""

    source: str
    asked: float
    planned_tokens: int
    seen_tokens: float
    epochs: float


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """A training run's mixture: its exact quotas, of which after any step each source has had its share to within a few
    sequences (`manifests/order.py`)."""

    step: int
    steps: int
    sources: tuple[Mixed, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        names = Mixed.__dataclass_fields__
        mixed = [{name: getattr(source, name) for name in names} for source in self.sources]
        return {"step": self.step, "steps": self.steps, "sources": mixed}


def read_run(run: Path) -> TrainingRun:
    """The mixture of a run folder of `python -m trainer train`. Raises UserError."""
    try:
        plan = json.loads((run / "run.json").read_bytes())["plan"]
        sources = plan["sources"]
        weights = np.array([source["weight"] for source in sources], np.float64)
        windows = np.array([sum(count for _, count in source["shards"]) for source in sources], np.int64)
        epochs = [source["max_epochs"] for source in sources]
        caps = np.array([int(e * w) for e, w in zip(epochs, windows.tolist(), strict=True)], np.int64)
        counts = quotas(weights, caps, plan["steps"] * plan["global_batch"])
        rows = (run / "metrics.csv").read_text(encoding="utf-8").splitlines()[1:]
        step = int(rows[-1].partition(",")[0]) if rows else 0
        length, done = plan["sequence_length"], step / plan["steps"]
        asked = weights / weights.sum()
        mixed = [
            Mixed(source["name"], float(share), int(count) * length, int(count) * length * done, count * done / w)
            for source, share, count, w in zip(sources, asked, counts.tolist(), windows.tolist(), strict=True)
        ]
        return TrainingRun(step, plan["steps"], tuple(mixed))
    except OSError as error:
        raise UserError(
            f"--run {run}: {error.filename} cannot be read ({error.strerror}): give a run's folder"
        ) from error
    except (ValueError, KeyError, TypeError, IndexError, ArithmeticError) as error:
        raise UserError(f"--run {run} is not the folder of a training run: give the --output of the trainer") from error


def run_table(run: TrainingRun) -> Table:
    """What a training run mixed."""
    title = f"Training run, step {run.step:,} of {run.steps:,}"
    table = number_table(title, "source", "asked", "given", "tokens planned", "tokens seen", "epochs seen")
    whole = sum(source.planned_tokens for source in run.sources)
    for source in run.sources:
        table.add_row(
            source.source,
            f"{source.asked:.1%}",
            f"{source.planned_tokens / whole:.1%}",
            format_tokens(source.planned_tokens),
            format_tokens(source.seen_tokens),
            f"{source.epochs:.2f}",
        )
    return table
