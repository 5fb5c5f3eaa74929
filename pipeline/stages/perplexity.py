"""perplexity: language models trained on chosen text, and the cut-offs between head, middle and tail (CCNet, 3.3).

Three steps, each only where the recipe asks for it: `train` makes SentencePiece pieces and an n-gram model a language;
`score` takes the perplexity of each document that the filters before it keep; `cuts` turns these into percentiles of
this crawl, by an exact histogram.
"""

import itertools
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from filters.formats.stream import Damage
from filters.models.kneser_ney import estimate, run_lmplz, write_arpa
from filters.quality import perplexity
from filters.quality.perplexity import LanguageModelText, PieceEncoder, lm_lines, number_pieces, train_pieces
from manifests.document import order_key
from manifests.files import atomic_path, canonical_json, sha256_file, sha256_json, write_atomic
from manifests.recipe import Recipe
from manifests.source import Source
from pipeline.beam.fingerprint import code_version
from pipeline.beam.tables import read_rows
from pipeline.beam.task import Receipt, Result, Task
from pipeline.sources.inputs import Input
from pipeline.stages import line_dedup as lines
from pipeline.stages.judge import Cuts, Models, judge
from pipeline.stages.models import lmplz, trained_language_model
from pipeline.stages.texts import read_texts

STAGE = "perplexity"
TRAIN, SCORE, CUTS = (f"{STAGE}/{step}" for step in ("train", "score", "cuts"))
OWNED = {TRAIN: ("models/perplexity",), SCORE: (f"blocks/{SCORE}",), CUTS: ("models/cuts",)}

PIECES_BYTES = 200_000_000
"""text that the pieces are trained on: SentencePiece's memory grows with it, the pieces hardly change (CCNet takes
400,000 articles)"""
SCORE_SCHEMA = pa.schema([("language", pa.string()), ("perplexity", pa.float32())])


def train_tasks(recipe: Recipe, texts: dict[str, list[Input]]) -> list[Task]:
    """One task a source and language. `texts`: the files to train on, by `SOURCE/LANGUAGE`."""
    code, made = code_version(__name__), []
    for name, files in sorted(texts.items()):
        source, _, language = name.partition("/")
        rules = recipe.sources[source].perplexity
        assert rules is not None
        settings = rules.train[language].model_dump(exclude={"text"})
        hashes = [(file.name, file.sha256) for file in files]
        arguments = {"source": source, "language": language, "paths": [file.path for file in files]}
        fingerprint = sha256_json([code, recipe.seed, settings, hashes])
        made.append(Task(TRAIN, name, fingerprint, sum(file.size for file in files), arguments))
    return made


def train(corpus: Path, settings: dict[str, Any], task: Task) -> Result:
    """Train one language's pieces and n-grams; write both and a card. `settings`: `seed`, `sources`."""
    source, language = task.arguments["source"], task.arguments["language"]
    whole = Source.model_validate(settings["sources"][source]).perplexity
    assert whole is not None
    rules = whole.train[language]
    chosen, damaged = _chosen_lines(task.arguments["paths"], rules, settings["seed"])
    model = train_pieces(_head(chosen, PIECES_BYTES), rules.vocabulary, rules.character_coverage)
    pieces_path, ngrams_path = (
        Path(path).relative_to(corpus).as_posix() for path in trained_language_model(corpus, source, language)
    )
    write_atomic(corpus / pieces_path, model)
    tokens = _estimate(corpus / ngrams_path, chosen, PieceEncoder(str(corpus / pieces_path)), rules)
    card_path = f"models/perplexity/{source}/{language}.card.json"
    facts = {
        "language": language,
        "damaged": damaged,
        "lines": len(chosen),
        "bytes": sum(len(line.encode("utf-8")) for line in chosen),
        "tokens": tokens,
        "pieces_sha256": sha256_file(corpus / pieces_path),
        "ngrams_sha256": sha256_file(corpus / ngrams_path),
        "settings": rules.model_dump(exclude={"text"}),
    }
    write_atomic(corpus / card_path, canonical_json(facts))
    return Result([pieces_path, ngrams_path, card_path], {}, facts)


def score_tasks(recipe: Recipe, extracted: dict[str, Receipt], judged: dict[str, str]) -> list[Task]:
    """One task a split of the sources whose cut-offs are this crawl's own. `judged`: by split, what its documents'
    perplexities depend on beside the text."""
    code, made = code_version(__name__), []
    for split, receipt in sorted(extracted.items()):
        source = split.partition("/")[0]
        rules = recipe.sources[source].perplexity
        if rules is not None and rules.cutoffs is None:
            fingerprint = sha256_json([code, judged[split], receipt.sha()])
            size = sum(output.bytes for output in receipt.outputs)
            made.append(Task(SCORE, split, fingerprint, size, {"source": source}))
    return made


def score(corpus: Path, settings: dict[str, Any], task: Task) -> Result:
    """Take the perplexity of a split's documents. `settings`: `sources`, and `models` by source."""
    name = task.arguments["source"]
    source = Source.model_validate(settings["sources"][name]).model_copy(update={"references": None})
    models: Models = settings["models"][name]
    rows = read_rows(corpus / f"documents/{task.name}.parquet", ["text"])
    masks = lines.masks(corpus, task.name, source)
    signals = [judge(row["text"], source, models, mask).signals for row, mask in zip(rows, masks, strict=False)]
    columns = [[found.get(column) for found in signals] for column in ("language", "perplexity")]
    batch = pa.RecordBatch.from_arrays(
        [pa.array(columns[0], pa.string()), pa.array(columns[1], pa.float32())], schema=SCORE_SCHEMA
    )
    path = score_path(task.name)
    with atomic_path(corpus / path) as temporary, pa.ipc.new_file(str(temporary), SCORE_SCHEMA) as writer:
        writer.write_batch(batch)
    return Result([path])


def cut_tasks(recipe: Recipe, scored: dict[str, Receipt]) -> list[Task]:
    """One task a source."""
    made = []
    for source in sorted({split.partition("/")[0] for split in scored}):
        rules = recipe.sources[source].perplexity
        assert rules is not None
        splits = [split for split in sorted(scored) if split.startswith(f"{source}/")]
        shas = [(split, scored[split].sha()) for split in splits]
        arguments = {"head": rules.head, "tail": rules.tail, "splits": splits}
        made.append(Task(CUTS, source, sha256_json([code_version(__name__), arguments, shas]), 0, arguments))
    return made


def cut(corpus: Path, settings: dict[str, Any], task: Task) -> Result:
    """The percentiles of a source's documents, by language, over all its splits."""
    histograms: dict[str, Counter[int]] = {}
    for split in task.arguments["splits"]:
        with pa.memory_map(str(corpus / score_path(split))) as mapped:
            batch = pa.ipc.open_file(mapped).get_batch(0)
        languages, values = batch.column("language").to_pylist(), batch.column("perplexity").to_numpy(False)
        scored = ~np.isnan(values)
        for code in sorted({name for name, is_scored in zip(languages, scored, strict=True) if is_scored}):
            mine = scored & np.array([name == code for name in languages])
            histograms.setdefault(code, Counter()).update(perplexity.histogram(values[mine]))
    facts: dict[str, Any] = {}
    for code, histogram in sorted(histograms.items()):
        low, high = perplexity.cuts_from(histogram, task.arguments["head"], task.arguments["tail"])
        facts[code] = {"head": low, "tail": high, "documents": histogram.total()}
    path = cuts_path(task.name)
    write_atomic(corpus / path, canonical_json(facts))
    return Result([path], {}, {"cuts": facts})


def cuts_of(receipt: Receipt) -> dict[str, Cuts]:
    """The cut-offs of a source, by language."""
    return {code: (cuts["head"], cuts["tail"]) for code, cuts in receipt.facts["cuts"].items()}


def cuts_path(source: str) -> str:
    """Where a source's cut-offs lie, below the corpus."""
    return f"models/cuts/{source}.json"


def score_path(split: str) -> str:
    """Where a split's perplexities lie, below the corpus."""
    return f"blocks/{SCORE}/{split}.arrow"


def scores(corpus: Path, split: str, source: Source) -> Iterator[float | None]:
    """The perplexity of each document of a split, in order, as far as `score` took it; None where it did not."""
    if source.perplexity is None or source.perplexity.cutoffs is not None:
        return itertools.repeat(None)
    with pa.memory_map(str(corpus / score_path(split))) as mapped:
        values = pa.ipc.open_file(mapped).get_batch(0).column("perplexity").to_pylist()
    return iter(values)


def _chosen_lines(paths: list[str], rules: LanguageModelText, seed: int) -> tuple[list[str], int]:
    """Normalised lines of the texts with the smallest keyed hashes, up to the recipe's bytes, and how many texts were
    damaged."""
    keyed: list[tuple[int, str]] = []
    damaged = 0
    for path in paths:
        for text in read_texts(Path(path)):
            if isinstance(text, Damage):
                damaged += 1
            else:
                keyed.append((order_key(seed, TRAIN, text.encode("utf-8")), text))
    lines_in_order = (line for _, text in sorted(keyed) for line in lm_lines(text) if line)
    return list(_head(lines_in_order, rules.max_bytes)), damaged


def _head(found: Iterator[str] | list[str], limit: int) -> Iterator[str]:
    """Lines until their UTF-8 bytes pass a limit."""
    size = 0
    for line in found:
        size += len(line.encode("utf-8"))
        if size > limit:
            return
        yield line


def _estimate(path: Path, chosen: list[str], encoder: PieceEncoder, rules: LanguageModelText) -> int:
    """Write the n-gram model as ARPA; gives how many tokens it is estimated from."""
    sentences = map(encoder.sentence, chosen)
    if rules.estimator == "own":
        ids, offsets, pieces = number_pieces(sentences)
        model = estimate(ids, offsets, pieces, rules.order)
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            write_arpa(model, file)
        return len(ids)
    tokens = 0
    with tempfile.TemporaryDirectory() as folder, atomic_path(path) as temporary:
        lines_path = Path(folder) / "sentences"
        with lines_path.open("wb") as file:
            for sentence in sentences:
                file.write(sentence.strip() + b"\n")
                tokens += sentence.count(b" ")
        run_lmplz(lmplz(), lines_path, temporary, rules.order)
    return tokens
