"""perplexity: train language models, score documents, and compute the cut-offs of head, middle and tail (CCNet, 3.3).

There are three steps. Each runs only for sources whose recipe needs it:

- `train` trains a SentencePiece model and an n-gram model per language, on texts that the recipe gives.
- `score` computes the perplexity of each document that the earlier rules keep.
- `cuts` computes percentiles of these perplexities, by an exact histogram.
"""

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from filters.errors import UserError
from filters.formats.charset import decode
from filters.formats.mediawiki import Page, read_dump
from filters.formats.stored import open_stored
from filters.formats.stream import Damage, read_decoded
from filters.models.kneser_ney import estimate, run_lmplz, write_arpa
from filters.quality import perplexity
from filters.quality.perplexity import Cuts, LanguageModelText, Perplexity, find_lmplz
from filters.quality.pieces import PieceEncoder, lm_lines, number_pieces, train_pieces
from filters.reasons import Reason
from filters.rule import Found, Rule, page_of
from filters.wikitext.render import render_text
from manifests.document import order_key
from manifests.files import atomic_path, canonical_json, sha256_file, write_atomic
from manifests.recipe import Recipe
from pipeline.beam.step import Awaited, Keyed, Receipt, Receipts, Result, Step, Unit
from pipeline.beam.tables import read_ipc, write_ipc
from pipeline.sources.inputs import Input
from pipeline.stages.filter import SourceRules, Verdicts, filter_pages, units_for, verdict_path
from pipeline.stages.models import cuts_path, trained_language_model

STAGE = "perplexity"
TRAIN, SCORE, CUTS = (f"{STAGE}/{step}" for step in ("train", "score", "cuts"))

# Bytes of text that the SentencePiece model is trained on. More text hardly changes it (CCNet: 400,000 articles).
PIECES_BYTES = 200_000_000
MAX_TEXT_BYTES = 4 << 30  # Decompressed bytes of one plain text file. The whole file is held in memory.
SCORE_SCHEMA = pa.schema([("language", pa.string()), ("perplexity", pa.float32())])


def train_step(recipe: Recipe, texts: Mapping[str, list[Input]]) -> Step:
    """Return the step that trains language models, with a unit per source and language.

    Args:
        recipe: Recipe of the run.
        texts: Files to train on, by `SOURCE/LANGUAGE`.
    """
    units = []
    for name, files in sorted(texts.items()):
        source, _, code = name.partition("/")
        rules = rule_of(recipe, source).train[code]
        arguments = {
            "source": source,
            "code": code,
            "rules": Keyed(rules, rules.model_dump(exclude={"text"})),
            "paths": Keyed(
                [file.path for file in files],
                [[file.name, file.key] for file in files],
                tuple(file.version for file in files),
            ),
        }
        units.append(Unit(name, arguments, (), sum(file.size for file in files)))
    return Step(TRAIN, train_language_model, units, {"seed": recipe.seed}, owns=("models/perplexity",))


def score_step(
    recipe: Recipe, extracted: Receipts, by_source: Mapping[str, Mapping[str, Any]], verdicts: Verdicts
) -> Step:
    """Return the step that scores documents, with a unit per split of the sources whose cut-offs the run computes."""
    rules = {name: source.rule_for(STAGE)[1] for name, source in recipe.sources.items()}
    arguments = {
        name: {**by_source[name], "rule": Keyed(rule, rule.step_key())}
        for name, rule in rules.items()
        if rule is not None and rule.needs_verdicts
    }
    units = [unit for unit in units_for(recipe, STAGE, extracted, verdicts) if unit.source in arguments]
    return Step(SCORE, score_documents, units, {}, arguments)


def cut_step(recipe: Recipe, score: Step) -> Step:
    """Return the step that computes cut-offs, with a unit per source whose documents are scored."""
    units = []
    for source, splits in score.names_by_source().items():
        rule = rule_of(recipe, source)
        arguments = {"head": rule.head, "tail": rule.tail, "splits": splits}
        units.append(Unit(source, arguments, awaits=tuple(Awaited(SCORE, split) for split in splits)))
    return Step(CUTS, compute_cutoffs, units, owns=("models/cuts",))


def rule_of(recipe: Recipe, source: str) -> Perplexity:
    """Return the rule of a source that needs this stage."""
    _, rule = recipe.sources[source].rule_for(STAGE)
    assert isinstance(rule, Perplexity), "only such sources have units here"
    return rule


def train_language_model(
    corpus: Path, unit: str, *, source: str, code: str, rules: LanguageModelText, paths: list[str], seed: int
) -> Result:
    """Train the SentencePiece model and the n-gram model of one language. Write both and a card (JSON)."""
    chosen, damaged = _choose_lines(paths, rules, seed)
    model = train_pieces(_take_bytes(chosen, PIECES_BYTES), rules.vocabulary, rules.character_coverage)
    pieces, ngrams = map(Path, trained_language_model(corpus, source, code))
    write_atomic(pieces, model)
    tokens = _estimate(ngrams, chosen, PieceEncoder(str(pieces)), rules)
    card = corpus / f"models/perplexity/{source}/{code}.card.json"
    facts = {
        "language": code,
        "damaged": damaged,
        "lines": len(chosen),
        "bytes": sum(len(line.encode("utf-8")) for line in chosen),
        "tokens": tokens,
        "pieces_sha256": sha256_file(pieces),
        "ngrams_sha256": sha256_file(ngrams),
        "settings": rules.model_dump(exclude={"text"}),
    }
    write_atomic(card, canonical_json(facts))
    return Result([path.relative_to(corpus).as_posix() for path in (pieces, ngrams, card)], {}, facts)


def score_documents(corpus: Path, split: str, *, applied: SourceRules, rule: Rule) -> Result:
    """Write the language and perplexity of each document of a split; null if an earlier rule drops the document."""
    given = Found(None, applied.models[STAGE])
    languages: list[str | None] = []
    values: list[float | None] = []
    for row, found in filter_pages(corpus, split, applied):
        if found.reason is None:
            page = replace(page_of(row, applied.language_known), text=found.text, signals=found.signals)
            page = replace(page, language=found.language or page.language)
            languages.append(page.language)
            values.append(rule.apply(page, given).signals["perplexity"])
        else:
            languages.append(None)
            values.append(None)
    columns = [pa.array(languages, pa.string()), pa.array(values, pa.float32())]
    write_ipc(corpus / verdict_path(STAGE, split), SCORE_SCHEMA, columns)
    return Result([verdict_path(STAGE, split)])


def compute_cutoffs(corpus: Path, source: str, *, head: int, tail: int, splits: list[str]) -> Result:
    """Compute the cut-offs of a source from the perplexities in all its splits, and write them by language.

    `head` and `tail` are percentiles. A language whose documents all have infinite perplexity has no cut-offs.
    """
    histograms: dict[str, Counter[int]] = {}
    for split in splits:
        batch = read_ipc(corpus / verdict_path(STAGE, split))
        languages, values = (batch.column(name).to_numpy(False) for name in ("language", "perplexity"))
        for code in {*languages} - {None}:
            found = perplexity.histogram(values[languages == code])
            if found:
                histograms.setdefault(code, Counter()).update(found)
    facts: dict[str, Any] = {}
    for code, histogram in sorted(histograms.items()):
        low, high = perplexity.cuts_from(histogram, head, tail)
        facts[code] = {"head": low, "tail": high, "documents": histogram.total()}
    write_atomic(corpus / cuts_path(source), canonical_json(facts))
    return Result([cuts_path(source)], {}, {"cuts": facts})


def cuts_of(receipt: Receipt) -> dict[str, Cuts]:
    """Return a dict from language to (head, tail) cut-offs, from the receipt of `compute_cutoffs`."""
    return {code: (cuts["head"], cuts["tail"]) for code, cuts in receipt.facts["cuts"].items()}


def read_articles(path: Path) -> Iterator[Page | Damage]:
    """Yield the articles of a Wikipedia dump (namespace 0, no redirects), and a `Damage` for each damaged part."""
    for page in read_dump(path):
        if isinstance(page, Damage) or (page.namespace == 0 and not page.redirect):
            yield page


def read_texts(path: Path) -> Iterator[str | Damage]:
    """Yield the training texts of a file.

    A file with `.xml` in its name is a Wikipedia dump. It yields the text of each article, and a `Damage` for each
    damaged part. Any other file is plain text, compressed or not, and yields one text.

    Raises:
        UserError: A plain text file cannot be read.
    """
    if ".xml" in path.name:
        for page in read_articles(path):
            yield page if isinstance(page, Damage) else render_text(page.wikitext)
        return
    try:
        with open_stored(path) as stored:
            raw = read_decoded(stored, MAX_TEXT_BYTES)
    except OSError as error:
        raw = Damage(Reason.CORRUPT_RECORD, error.strerror or str(error))
    if isinstance(raw, Damage):
        raise UserError(f"{path} cannot be read ({raw.detail}): give Wikipedia dumps or plain text, compressed or not")
    yield decode(raw, None)


def _choose_lines(paths: list[str], rules: LanguageModelText, seed: int) -> tuple[list[str], int]:
    """Select the lines to train on: normalised lines of the texts with the smallest keyed hashes.

    Returns:
        The lines, which have at most `rules.max_bytes` of UTF-8 in total, and the number of damaged texts.
    """
    keyed: list[tuple[int, str]] = []
    damaged = 0
    for path in paths:
        for text in read_texts(Path(path)):
            if isinstance(text, Damage):
                damaged += 1
            else:
                keyed.append((order_key(seed, "perplexity/train", text.encode("utf-8")), text))
    lines = (line for _, text in sorted(keyed) for line in lm_lines(text) if line)
    return list(_take_bytes(lines, rules.max_bytes)), damaged


def _take_bytes(found: Iterable[str], limit: int) -> Iterator[str]:
    """Yield lines while their total size in UTF-8 is at most `limit` bytes."""
    size = 0
    for line in found:
        size += len(line.encode("utf-8"))
        if size > limit:
            return
        yield line


def _estimate(path: Path, chosen: list[str], encoder: PieceEncoder, rules: LanguageModelText) -> int:
    """Estimate an n-gram model, write it in ARPA format, and return the number of tokens it is estimated from."""
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
        run_lmplz(find_lmplz(), lines_path, temporary, rules.order)
    return tokens
