"""Commands that only look into a corpus start without libraries that they do not need."""

import subprocess
import sys

import pytest

HEAVY = "apache_beam datasketch fasttext kenlm pandas pyarrow.compute rich sentencepiece torch".split()


@pytest.mark.parametrize(
    "module", ["manifests.__main__", "manifests.recipe", "manifests.tools.find", "manifests.tools.trace"]
)
def test_a_module_loads_no_library_that_its_commands_may_not_need(module: str) -> None:
    code = f"import sys, {module}; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
