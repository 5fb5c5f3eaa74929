"""Texts that models are trained on: plain, gzipped in several members, cut short, or a Wikipedia dump."""

import gzip
from pathlib import Path

import pytest

from filters.errors import UserError
from pipeline.stages.perplexity import read_texts


def test_a_plain_text_is_read_whole_gzipped_or_not(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo", encoding="utf-8")
    (tmp_path / "b.gz").write_bytes(gzip.compress(b"one\n") + gzip.compress(b"two"))
    assert [list(read_texts(tmp_path / name)) for name in ("a.txt", "b.gz")] == [["one\ntwo"]] * 2


def test_a_text_that_is_cut_short_or_not_there_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"many words " * 100)[:-9])
    for name in ("cut.gz", "none.txt"):
        with pytest.raises(UserError, match="cannot be read"):
            list(read_texts(tmp_path / name))


def test_of_a_dump_the_articles_are_read(tmp_path: Path) -> None:
    page = "<page><title>{}</title><ns>{}</ns><id>1</id><revision><text>{}</text></revision></page>"
    body = page.format("A", 0, "An '''article'''.") + page.format("T", 1, "Talk.")
    (tmp_path / "w.xml").write_text(f"<mediawiki>{body}</mediawiki>", encoding="utf-8")
    assert list(read_texts(tmp_path / "w.xml")) == ["An article."]
