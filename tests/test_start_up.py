"""Commands that only read a corpus or print their help start without importing modules that they do not need."""

import subprocess
import sys

import pytest

LIBRARIES = "apache_beam datasketch fasttext kenlm pandas pyarrow.compute rich sentencepiece torch"
RUNS = "pipeline.beam.step pipeline.dedup pipeline.download pipeline.folder filters.quality"
FORBIDDEN = {
    "manifests.__main__": f"{LIBRARIES} numpy pyarrow pydantic yaml",
    "pipeline.__main__": f"{LIBRARIES} numpy pyarrow pydantic yaml",
    "trainer.__main__": f"{LIBRARIES} numpy pyarrow pydantic yaml",
    "manifests.recipe": f"{LIBRARIES} filters.quality",
    "manifests.tools.find": f"{LIBRARIES} filters.quality",
    "manifests.tools.show": f"{LIBRARIES} filters.quality",
    "manifests.tools.trace": f"{LIBRARIES} filters.quality",
    "pipeline.trace": f"{LIBRARIES} {RUNS}",
}


@pytest.mark.parametrize("module", FORBIDDEN)
def test_a_module_loads_no_other_that_its_commands_may_not_need(module: str) -> None:
    code = f"import sys, {module}; print(*(name for name in {FORBIDDEN[module].split()} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
