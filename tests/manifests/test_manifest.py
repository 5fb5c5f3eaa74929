"""Test shards, manifest, verify, trace and show on a small handwritten corpus and on a hundred damaged copies."""

import errno
import hashlib
import json
import os
import random
import re
import shutil
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
import yaml

from filters.errors import UserError
from manifests import tokenizer
from manifests.__main__ import main
from manifests.document import Locator, Part, document_id, locator_from, order_key
from manifests.files import atomic_path, canonical_json, sha256_file, write_atomic
from manifests.ledger import STAGES, Tally
from manifests.manifest import Manifest, ShardEntry, SourceEntry, TokenizerEntry, load_manifest, write_manifest
from manifests.recipe import Tokenizer, parse_recipe
from manifests.shard import open_shard, shard_schema, token_dtype, write_shard
from manifests.tools.trace import trace
from manifests.tools.verify import verify
from pipeline.stages.tokenizer import train_bpe

TEXT = "The keeper of the light walked down to the harbour and counted the boats that had come home. " * 40
VOCABULARY = 320


def shard_batch(documents: int, first: int) -> pa.RecordBatch:
    rows = []
    for number in range(first, first + documents):
        locator = Locator("web/a.warc.gz", number * 100, 90, inner_length=200)
        rows.append(
            {
                "tokens": [1, *range(3, 10 + number % 7), 2],
                "document": document_id("books", locator),
                "source": "books",
                "url": f"http://a.example/{number}",
                "cluster_size": 1 + number % 3,
                **locator.as_dict(),
            }
        )
    return pa.RecordBatch.from_pylist(rows, schema=shard_schema(VOCABULARY))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    corpus = tmp_path_factory.mktemp("manifest") / "corpus"
    plain = {"name": "x", "seed": 7, "goal_tokens": 1000, "sources": {"books": {"weight": 1.0}}}
    recipe = parse_recipe(plain, "r")
    names = {"books": ["web/a.warc.gz"]}
    write_atomic(corpus / "recipe.yaml", yaml.safe_dump(recipe.model_dump(), sort_keys=False).encode())
    write_atomic(corpus / "models/tokenizer.model", train_bpe([TEXT], Tokenizer(vocabulary=VOCABULARY)))
    tokenizer = TokenizerEntry(
        sha256=sha256_file(corpus / "models/tokenizer.model"), vocabulary=VOCABULARY, bos=1, eos=2, dtype="uint16"
    )
    entries = []
    for number in range(3):
        path = corpus / f"shards/books/train-{number:05d}-of-00003.arrow"
        batch = shard_batch(20, 20 * number)
        metadata = {"tokenizer_sha256": tokenizer.sha256, "recipe_sha256": recipe.sha(names), "seed": "7"}
        write_shard(path, batch, metadata)
        tokens = len(batch.column("tokens").values)
        entries.append(
            ShardEntry(
                path=f"books/{path.name}",
                sha256=sha256_file(path),
                bytes=path.stat().st_size,
                tokens=tokens,
                documents=batch.num_rows,
            )
        )
    whole = sum(entry.tokens for entry in entries)
    ledger = {}
    for stage in STAGES:
        tally = Tally()
        tally.enter(records=60, characters=600)
        tally.keep(records=60, characters=600, **({"tokens": whole} if stage == "tokenize" else {}))
        ledger[stage] = {"books": tally.as_dict()}
    write_atomic(corpus / "ledger.json", canonical_json(ledger))
    source = SourceEntry(weight=1.0, max_epochs=4.0, documents=60, unique_tokens=whole, train=entries, validation=[])
    write_manifest(
        corpus,
        Manifest(
            seed=7,
            goal_tokens=1000,
            recipe=recipe.canonical(names),
            recipe_sha=recipe.sha(names),
            tokenizer=tokenizer,
            models={},
            signatures={},
            sources={"books": source},
            ledger=ledger,
            code={},
        ),
    )
    return corpus


@pytest.fixture
def corpus(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "corpus"))


SHARD = "books/train-00001-of-00003.arrow"


def test_a_pipe_or_device_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    """Without this behaviour, `report --output /dev/null` as root would replace the device file."""
    os.mkfifo(tmp_path / "pipe")
    reading = os.open(tmp_path / "pipe", os.O_RDWR | os.O_NONBLOCK)
    write_atomic(tmp_path / "pipe", b"page")
    assert (tmp_path / "pipe").is_fifo() and os.read(reading, 9) == b"page"
    os.close(reading)


def test_a_whole_corpus_verifies(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(corpus) == [] == verify(corpus, fast=True)
    assert main(["verify", str(corpus)]) == 0
    assert "3 shards as the manifest says" in capsys.readouterr().out


def test_flipped_bytes_are_each_found_in_their_shard(corpus: Path) -> None:
    chance = random.Random(1)
    path = corpus / "shards" / SHARD
    good = path.read_bytes()
    for _ in range(40):
        damaged = bytearray(good)
        damaged[chance.randrange(len(good))] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        assert any(problem.startswith(f"shards/{SHARD}: ") for problem in verify(corpus))
    path.write_bytes(good)
    assert verify(corpus) == []


DAMAGE = {
    "a shard gone": lambda c: (c / "shards" / SHARD).unlink(),
    "a shard too many": lambda c: shutil.copy(c / "shards" / SHARD, c / "shards/books/extra.arrow"),
    "a shard cut": lambda c: (c / "shards" / SHARD).write_bytes((c / "shards" / SHARD).read_bytes()[:-8]),
    "another tokenizer": lambda c: (c / "models/tokenizer.model").write_bytes(b"x"),
    "no tokenizer": lambda c: (c / "models/tokenizer.model").unlink(),
    "an edited ledger": lambda c: (c / "ledger.json").write_bytes(b"{}"),
    "no ledger": lambda c: (c / "ledger.json").unlink(),
    "another hash beside it": lambda c: (c / "manifest.json.sha256").write_text("0" * 64 + "\n", encoding="utf-8"),
    "no hash beside it": lambda c: (c / "manifest.json.sha256").unlink(),
}


@pytest.mark.parametrize("damage", sorted(DAMAGE))
def test_every_kind_of_damage_is_named(corpus: Path, damage: str) -> None:
    DAMAGE[damage](corpus)
    assert verify(corpus)
    assert main(["verify", "--json", str(corpus)]) == 1


@pytest.mark.parametrize("key", ["seed", "goal_tokens", "recipe_sha"])
def test_an_edited_manifest_is_found(corpus: Path, key: str) -> None:
    path = corpus / "manifest.json"
    plain = json.loads(path.read_bytes())
    plain[key] = plain[key] + 1 if isinstance(plain[key], int) else "0" * 64
    path.write_bytes(canonical_json(plain))
    assert any("manifest_sha does not match" in problem for problem in verify(corpus))


def test_a_manifest_with_other_spelling_is_found(corpus: Path) -> None:
    path = corpus / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"seed":7', b'"seed": 7'))
    assert verify(corpus) == ["manifest.json: not the canonical bytes of its content"]


def test_a_wrong_count_in_a_resealed_manifest_is_found(corpus: Path) -> None:
    manifest = load_manifest(corpus)
    source = manifest.sources["books"]
    wrong = source.train[0].model_copy(update={"tokens": source.train[0].tokens + 1})
    sources = {"books": source.model_copy(update={"train": [wrong, *source.train[1:]]})}
    write_manifest(corpus, manifest.model_copy(update={"sources": sources}))
    problems = verify(corpus)
    assert any("the manifest says" in problem and "train-00000" in problem for problem in problems)
    assert any("the ledger counts" in problem for problem in problems)


def test_every_token_leads_to_its_document(corpus: Path) -> None:
    shard = open_shard(corpus / "shards" / SHARD)
    for token in range(len(shard.tokens)):
        lineage = trace(corpus, SHARD, token)
        assert shard.offsets[lineage.row] <= token < shard.offsets[lineage.row + 1]
        assert lineage.url == f"http://a.example/{20 + lineage.row}"
        assert lineage.locator.offset == (20 + lineage.row) * 100
        assert lineage.has_derived_id
        assert lineage.token - lineage.start == token - shard.offsets[lineage.row]


def test_trace_and_show_print_and_give_json(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", str(corpus), SHARD, "5"]) == 0
    assert "web/a.warc.gz" in capsys.readouterr().out
    assert main(["trace", str(corpus), SHARD, "5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["locator"]["file"] == "web/a.warc.gz"
    assert main(["show", str(corpus)]) == 0
    shown = capsys.readouterr().out
    assert "balanced" in shown and load_manifest(corpus).manifest_sha in shown
    assert ("No record was dropped." in shown) != ("Dropped records by reason" in shown)
    assert main(["show", str(corpus), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["seed"] == 7


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show", "{}/none"], "is not a folder"),
        (["verify", "{}/shards"], "has no manifest.json"),
        (["trace", "{}", "books/none.arrow", "0"], "no shard 'books/none.arrow'"),
        (["trace", "{}", SHARD, "999999"], "has no token 999999"),
        (["trace", "{}", SHARD, "-1"], "has no token -1"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    corpus: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert main([argument.format(corpus) for argument in arguments]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1 and "Traceback" not in said


@pytest.mark.parametrize("command", ["show", "verify", "report"])
@pytest.mark.parametrize("method", ["read_bytes", "is_file"])
def test_what_may_not_be_read_is_one_sentence(
    corpus: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str, method: str
) -> None:
    """The error is simulated, because root could read a file without read permission."""
    whole = getattr(Path, method)

    def refuse(path: Path) -> object:
        if path == corpus / "manifest.json":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return whole(path)

    monkeypatch.setattr(Path, method, refuse)
    assert main([command, str(corpus)]) == 2
    said = capsys.readouterr().err
    assert f"{corpus}/manifest.json cannot be read (Permission denied): give this user the right" in said


@pytest.mark.parametrize(
    ("receipts", "advice"),
    [
        (True, "give the same `python -m pipeline run` command again, which makes the missing"),
        (False, "has no receipts of"),
    ],
)
def test_a_damaged_or_missing_file_is_named_with_how_to_get_it_again(
    corpus: Path, capsys: pytest.CaptureFixture[str], receipts: bool, advice: str
) -> None:
    if receipts:
        (corpus / "receipts/tokenize").mkdir(parents=True)
    (corpus / "shards" / SHARD).unlink()
    (corpus / "models/tokenizer.model").write_bytes(b"damaged")
    assert main(["verify", str(corpus)]) == 1
    said = capsys.readouterr().out
    assert f"shards/{SHARD}: missing" in said and said.count(advice) == 1
    assert main(["verify", str(corpus), "--json"]) == 1
    assert advice in json.loads(capsys.readouterr().out)["advice"]
    assert main(["trace", str(corpus), SHARD, "0"]) == 2
    said = capsys.readouterr().err
    assert f"shards/{SHARD} is missing: " in said and advice in said and "it has" not in said
    assert main(["sample", str(corpus)]) == 2
    with pytest.raises(UserError, match=f"tokenizer.model cannot be read or is damaged: .*{advice}"):
        tokenizer.load(corpus)


def test_no_name_of_a_file_drives_the_terminal(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "a\n\x1b[2J\u202eb.arrow"
    (corpus / "shards" / hostile).write_bytes(b"")
    assert main(["verify", str(corpus)]) == 1
    assert main(["trace", str(corpus / hostile), "x", "0"]) == 2
    said = capsys.readouterr()
    for text in (said.out, said.err):
        assert "a\\n\\x1b[2J\\u202eb.arrow" in text and not {"\x1b", "\u202e"} & set(text)


def test_hashes_and_ids_follow_from_the_words_of_the_page(corpus: Path) -> None:
    """Compute hashes and ids by the definitions in docs/format.md, with only `json` and `hashlib`."""

    def digest(value: object) -> str:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode() + b"\n").hexdigest()

    data = (corpus / "manifest.json").read_bytes()
    plain = json.loads(data)
    assert data == json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
    sha = plain.pop("manifest_sha")
    assert digest(plain) == sha == (corpus / "manifest.json.sha256").read_text(encoding="utf-8").strip()
    fields = ("file", "offset", "length", "member", "inner_offset", "inner_length")
    with pa.memory_map(str(corpus / "shards" / SHARD)) as mapped:
        rows = pa.ipc.open_file(mapped).read_all().to_pylist()
    for row in rows:
        parts = [{name: part[name] for name in fields} for part in row["parts"] or []]
        locator = {**{name: row[name] for name in fields}, "parts": parts}
        assert digest([row["source"], locator])[:32] == row["document"].hex()
    page = (Path(__file__).parents[2] / "docs/format.md").read_text(encoding="utf-8")
    example = re.search(r"`([0-9a-f]{32})`:\n\n```\n(.*)\n```", page)
    assert rows and example and digest(json.loads(example[2]))[:32] == example[1]


def test_a_reason_that_only_other_sources_have_is_not_denied(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tallies = {"web": {"dropped": {"language": {"records": 1_234}}}, "books": {"dropped": {}}}
    write_manifest(corpus, load_manifest(corpus).model_copy(update={"ledger": {"filter": tallies}}))
    assert main(["sample", str(corpus), "--reason", "language", "--source", "books"]) == 2
    assert "nothing dropped as language in books, but 1,234 in web: " in capsys.readouterr().err
    assert main(["sample", str(corpus), "--reason", "redirect"]) == 2
    assert "nothing dropped as redirect: `show` lists" in capsys.readouterr().err


def test_what_cannot_be_written_is_one_sentence(
    corpus: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (corpus / "file").write_text("", encoding="utf-8")
    assert main(["report", str(corpus), "--output", str(corpus / "file/report.html")]) == 2
    assert "report.html cannot be written (" in capsys.readouterr().err
    full = OSError(errno.ENOSPC, "No space left on device", "there\n")
    monkeypatch.setattr("manifests.report.page.write_report", mock.Mock(side_effect=full))
    assert main(["report", str(corpus)]) == 1
    assert "there\\n cannot be used (No space left on device)" in capsys.readouterr().err


def test_a_manifest_of_another_kind_is_refused(corpus: Path) -> None:
    (corpus / "manifest.json").write_text('{"format": "other"}', encoding="utf-8")
    with pytest.raises(UserError, match="give the same `python -m pipeline run` again, which writes it again"):
        load_manifest(corpus)


@pytest.mark.parametrize("path", ["../../x.arrow", "/x.arrow", "books/../../x.arrow", "books/..", ""])
def test_a_manifest_that_names_files_elsewhere_is_refused(corpus: Path, path: str) -> None:
    """With such a path in an untrusted manifest, `remove` and downloads could write files anywhere."""
    plain = json.loads((corpus / "manifest.json").read_bytes())
    plain["sources"]["books"]["train"][0]["path"] = path
    (corpus / "manifest.json").write_bytes(canonical_json(plain))
    with pytest.raises(UserError, match="is not a manifest this version reads"):
        load_manifest(corpus)


def test_shards_are_read_without_our_code_and_without_a_copy(corpus: Path) -> None:
    path = corpus / "shards" / SHARD
    with pa.memory_map(str(path)) as mapped:
        before = pa.total_allocated_bytes()
        table = pa.ipc.open_file(mapped).read_all()
        assert pa.total_allocated_bytes() - before < 1024, "a memory map costs no memory"
    ours = open_shard(path)
    assert np.array_equal(table.column("tokens").combine_chunks().flatten().to_numpy(), ours.tokens)
    assert table.column("document").to_pylist() == ours.batch.column("document").to_pylist()
    assert not ours.tokens.flags.writeable


def test_an_empty_shard_is_a_shard(tmp_path: Path) -> None:
    path = tmp_path / "empty.arrow"
    write_shard(path, pa.RecordBatch.from_pylist([], schema=shard_schema(VOCABULARY)), {})
    shard = open_shard(path)
    assert len(shard.tokens) == 0 and shard.batch.num_rows == 0
    with pytest.raises(IndexError):
        shard.row_of(0)


def test_token_types() -> None:
    assert token_dtype(65_536) is np.uint16 and token_dtype(65_537) is np.uint32


def test_ids_depend_on_source_and_locator_alone() -> None:
    here = Locator("a", 0, 1, parts=(Part("a", 1, 2),))
    assert locator_from(json.loads(canonical_json(here.as_dict()))) == here
    assert document_id("books", here) == document_id("books", Locator("a", 0, 1, parts=(Part("a", 1, 2),)))
    others = [Locator("b", 0, 1), Locator("a", 1, 1), Locator("a", 0, 2)]
    others += [Locator("a", 0, 1, member="x"), Locator("a", 0, 1)]
    ids = {document_id("books", locator) for locator in [here, *others]} | {document_id("web", here)}
    assert len(ids) == 7 and all(len(identity) == 16 for identity in ids)


def test_order_keys_are_spread_and_independent_by_purpose_and_seed() -> None:
    identities = [n.to_bytes(16, "big") for n in range(2000)]
    keys = np.array([order_key(1, "shuffle", i) for i in identities], dtype=np.float64) / 2**64
    counts = np.histogram(keys, bins=10, range=(0, 1))[0]
    assert counts.min() > 140 and counts.max() < 260
    others = np.array([order_key(1, "sample", i) for i in identities], dtype=np.float64) / 2**64
    assert abs(np.corrcoef(keys, others)[0, 1]) < 0.1
    assert order_key(1, "shuffle", identities[0]) != order_key(2, "shuffle", identities[0])


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_atomic(path, b"before")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"before" and list(tmp_path.iterdir()) == [path]
