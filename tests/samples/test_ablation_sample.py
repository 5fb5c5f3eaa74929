"""The sample of `make ablation`: the mirrored pages, and the recipes, which differ only in the intended settings."""

import gzip
import json
import sys
import zlib
from pathlib import Path
from unittest import mock

from manifests.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[2]


def test_every_fourth_page_is_on_four_mirrors_below_a_menu(tmp_path: Path) -> None:
    with mock.patch.object(sys, "path", [str(ROOT / "samples"), *sys.path]):
        import mirrors
        import wet
    texts = {f"https://site.example/{number}.html": f"Page {number}\nfull of text, ä\u2028." for number in range(40)}
    wet.write(tmp_path, [wet.Text(url, text, "eng", (0,)) for url, text in texts.items()], 2)
    rows = [json.dumps({"url": url, "text": text}) for url, text in texts.items()]
    (tmp_path / "c4").mkdir()
    (tmp_path / "c4/a.json.gz").write_bytes(gzip.compress("\n".join([*rows, "{", "[]", '{"url": "x"}']).encode()))
    for out in ("one", "two"):
        mirrors.main(tmp_path, tmp_path / out)
    files = sorted((tmp_path / "one").rglob("*.gz"))
    assert [path.read_bytes() for path in files] == [
        path.read_bytes() for path in sorted((tmp_path / "two").rglob("*.gz"))
    ]
    menu = "\n".join(text.split("\n")[0] for _, text in sorted(texts.items()))
    expected = {
        f"https://{host}/{url.removeprefix('https://')}": f"{menu}\n{text}"
        for host in mirrors.HOSTS
        for url, text in texts.items()
        if zlib.crc32(url.encode()) % 4 == 0
    }
    assert expected
    assert dict(mirrors.read_rows(files[0])) == dict(mirrors.read_wet(files[1])) == expected


def test_the_recipes_differ_in_nothing_else() -> None:
    recipes = {
        name: load_recipe(ROOT / "recipes" / f"{name}.yaml").model_dump()
        for name in ("ablation", "ablation-raw", "ablation-null", "ablation-held-out")
    }
    first = recipes["ablation"]
    differing = {
        name: {key for key in first if recipe[key] != first[key]} - {"name"} for name, recipe in recipes.items()
    }
    assert differing["ablation-raw"] == {"sources", "deduplication"}
    assert differing["ablation-null"] == {"shards"}
    assert differing["ablation-held-out"] == {"sources"}
    for recipe in recipes.values():
        assert recipe["seed"] == first["seed"]
        assert recipe["shards"]["validation"] == first["shards"]["validation"]
        for name, source in recipe["sources"].items():
            changed = {key for key, value in source.items() if value != first["sources"][name][key]}
            assert changed <= {"filters"}
