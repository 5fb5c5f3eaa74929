"""The libraries of rules and models are imported where they are used."""

import subprocess
import sys

CODE = """
import sys
import manifests.recipe, filters.dedup.recall, filters.models.kneser_ney, filters.models.sentencepiece
import filters.quality.blocklist
print(*sorted({"datasketch", "fasttext", "google.protobuf", "kenlm", "sentencepiece"} & set(sys.modules)))
"""


def test_reading_a_recipe_loads_no_library_of_a_rule() -> None:
    assert subprocess.check_output([sys.executable, "-c", CODE], text=True).strip() == ""
