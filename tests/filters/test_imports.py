"""The libraries of rules and models are imported where they are used."""

import subprocess
import sys

CODE = """
import sys
import manifests.recipe, filters.dedup.recall, filters.models.kneser_ney, filters.models.sentencepiece
import filters.quality.blocklist
print(*sorted({"datasketch", "fasttext", "google.protobuf", "kenlm", "sentencepiece"} & set(sys.modules)))
"""


RULES = """
import sys
from filters.rule_list import RULES, load_rule
print(*map(load_rule, RULES), file=sys.stderr)
print(*sorted({"datasketch", "fasttext", "google.protobuf", "kenlm", "sentencepiece"} & set(sys.modules)))
"""
READING = """
import sys
import manifests.tools.corpus, manifests.tools.show, manifests.tools.sample, manifests.tools.verify, manifests.shard
print(*sorted(name for name in sys.modules if name.startswith("filters.quality.")))
"""


def test_the_rules_load_no_library_before_they_are_applied() -> None:
    assert subprocess.check_output([sys.executable, "-c", RULES], text=True, stderr=subprocess.DEVNULL).strip() == ""


def test_reading_a_corpus_imports_no_rule() -> None:
    assert subprocess.check_output([sys.executable, "-c", READING], text=True).strip() == ""


def test_reading_a_recipe_loads_no_library_of_a_rule() -> None:
    assert subprocess.check_output([sys.executable, "-c", CODE], text=True).strip() == ""
