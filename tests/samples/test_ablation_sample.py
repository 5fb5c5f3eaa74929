"""The planted fault of `make ablation`: mirrored pages, and recipes that differ in what they are to differ in."""

import sys
import zlib
from pathlib import Path
from unittest import mock

from warcio.archiveiterator import ArchiveIterator

from manifests.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[2]


def test_every_fourth_page_is_on_three_mirrors_within_a_menu_and_a_footer(tmp_path: Path) -> None:
    with mock.patch.object(sys, "path", [str(ROOT / "samples"), *sys.path]):
        import mirrors
        import wet
    texts = {f"https://site.example/{number}.html": f"Page {number}\nfull of text, ä\u2028." for number in range(40)}
    wet.write(
        tmp_path, [wet.Text(url, text, "eng", (number % 2,)) for number, (url, text) in enumerate(texts.items())], 2
    )
    for out in ("one", "two"):
        mirrors.main(tmp_path, tmp_path / out)
    (written,) = (tmp_path / "one").iterdir()
    assert written.read_bytes() == (tmp_path / "two" / written.name).read_bytes()
    with written.open("rb") as file:
        found = {
            record.rec_headers.get_header("WARC-Target-URI"): record.content_stream().read().decode()
            for record in ArchiveIterator(file)
            if record.rec_type == "conversion"
        }
    chosen = {url for url in texts if zlib.crc32(url.encode()) % 4 == 0}
    assert chosen
    assert found == {
        f"https://{host}/{url.removeprefix('https://')}": f"{mirrors.MENU}\n{texts[url]}\n{mirrors.FOOTER}\n"
        for host in mirrors.MIRRORS
        for url in chosen
    }


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
