"""Notebooks to text: both formats, fences, languages, broken ones."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filters.code.notebooks import Notebook, render_notebook
from filters.formats.stream import Damage
from filters.reasons import Reason


def made(*cells: Any, **more: Any) -> str:
    return json.dumps({"nbformat": 4, "metadata": {}, "cells": list(cells), **more})


def test_cells_without_their_outputs() -> None:
    raw = made(
        {"cell_type": "markdown", "source": ["# Title\n", "Text."]},
        {"cell_type": "code", "source": "print(1)\n", "outputs": [{"text": "secret"}], "execution_count": 1},
        {"cell_type": "raw", "source": "raw"}, {"cell_type": "code", "source": []}, "no cell", None,
        {"cell_type": "code", "source": ["s = '''```'''"]},
        metadata={"kernelspec": {"language": "R"}, "language_info": {"name": "Julia"}},
    )  # fmt: skip
    text = "# Title\nText.\n\n```julia\nprint(1)\n```\n\n````julia\ns = '''```'''\n````\n"
    assert render_notebook(raw) == Notebook(text, "julia")


def test_pictures_within_markdown_have_no_data() -> None:
    data = "iVBORw0KGgo" * 400
    for form in ("![p](data:image/png;base64,{})", '<img src="data:image/svg+xml;base64,{}" width="9">'):
        typed = form.format(data)
        raw = made({"cell_type": "markdown", "source": typed}, {"cell_type": "code", "source": f"s = '{typed}'"})
        assert render_notebook(raw) == Notebook(f"{form.format('')}\n\n```python\ns = '{typed}'\n```\n", "python")
    assert render_notebook(made({"cell_type": "markdown", "source": "data:a;base64,abc"})) == Notebook(
        "data:a;base64,abc\n", "python"
    )


def test_the_third_format() -> None:
    cells = [{"cell_type": "heading", "level": 2, "source": "Part"}, {"cell_type": "code", "input": ["x = 1"]}]
    raw = json.dumps({"nbformat": 3, "worksheets": [{"cells": cells}, {"cells": "x"}, 3]})
    assert render_notebook(raw) == Notebook("## Part\n\n```python\nx = 1\n```\n", "python")


@pytest.mark.parametrize("raw", ["", "{", "[1]", "{}", '{"cells": 3}', "[" * 100_000, "1" * 10_000, "\ud800", "nan"])
def test_what_is_no_notebook(raw: str) -> None:
    found = render_notebook(raw)
    assert isinstance(found, Damage) and found.problem is Reason.CORRUPT_RECORD


texts = st.text(max_size=9) | st.sampled_from(["\ud800", "a \udfff"])  # of surrogates, too, which JSON can spell
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["cell_type", "source", "level", "metadata", "name"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(
    json_values,
    json_values | texts.map(lambda name: {"language_info": {"name": name}}),
    st.sampled_from(["code", "markdown", "heading"]),
)
def test_any_json_in_its_place_raises_nothing(value: Any, about: Any, kind: str) -> None:
    found = render_notebook(made(value, {"cell_type": kind, "source": value, "level": value}, metadata=about))
    assert isinstance(found, Notebook)
    found.text.encode()
