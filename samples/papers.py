"""Write papers in the formats of arXiv: a monthly tar, OUT/arXiv_src_2401_001.tar, and a file of a single paper.

OUT/../planted-papers.json describes each member of the tar and the expected result. The papers in papers/ were written
for this project.
"""

import io
import tarfile
from pathlib import Path

from deflate import gzipped

PAPERS = Path(__file__).parent / "papers"
MONTH = "arXiv_src_2401_001.tar"


def make(out: Path) -> list[dict[str, str]]:
    """Write the files below `out` and return the entries of planted-papers.json."""
    out.mkdir(parents=True, exist_ok=True)
    grid = gzipped(tar({**read("grid"), "._main.tex": b"\0\5\x16\7", "figure.eps": b"%!PS-Adobe-3.0 EPSF\n" * 200}))
    letter = read("loaves")["letter.tex"].decode().encode("latin-1")
    laughs = "".join(
        f"\\def\\{a}{{\\{b}\\{b}\\{b}\\{b}}}" for a, b in zip("abcdefghijklmno", "bcdefghijklmnop", strict=True)
    )
    stub = b"%auto-ignore\nThis paper has been withdrawn by the author, who found that the river had a bridge.\n"
    members = {
        "00001.gz": (grid, "a gzipped tar of several files", "kept"),
        "00002.gz": (gzipped(letter, "letter.tex"), "one gzipped file, latin-1, no section", "kept"),
        "00003.pdf": (b"%PDF-1.5\n%\xe2\xe3\xcf\xd3\n" + bytes(900), "a PDF", "no-tex"),
        "00004.gz": (gzipped(bytes(range(256)) * 4, "paper.tex.cry"), "encrypted", "encrypted"),
        "00005.gz": (gzipped(stub), "a withdrawn paper", "no-body-text"),
        "00006.gz": (grid[: len(grid) // 2], "a truncated gzip file", "truncated-record"),
        "00007.gz": (gzipped(f"{laughs}\\section{{Ha}} \\a\\bye".encode()), "macros that blow up", "too-large"),
        "00008.gz": (gzipped(tar({"../../paper.tex": letter})), "a path that leads outside", "unsafe-path"),
        "00009.gz": (gzipped(tar({"fig1.eps": b"%!PS", "fig2.eps": b"%!PS"})), "figures only", "no-tex"),
    }  # fmt: skip
    month = {"2401/": b"", **{f"2401/2401.{name}": data for name, (data, _, _) in members.items()}}
    (out / MONTH).write_bytes(tar(month))
    (out / "physics0401001.gz").write_bytes(gzipped(read("pendulum")["main.tex"].replace(b"\n", b"\r\n"), "main.tex"))
    planted = [
        {"file": f"arxiv/{MONTH}", "member": f"2401/2401.{name}", "what": what, "expect": expect}
        for name, (_, what, expect) in members.items()
    ]
    what = "LaTeX 2.09 with macros of plain TeX, CRLF"
    return [*planted, {"file": "arxiv/physics0401001.gz", "member": "", "what": what, "expect": "kept"}]


def read(name: str) -> dict[str, bytes]:
    """Return the TeX files of a paper by path."""
    files = sorted(path for path in (PAPERS / name).rglob("*.tex"))
    return {path.relative_to(PAPERS / name).as_posix(): path.read_bytes() for path in files}


def tar(files: dict[str, bytes]) -> bytes:
    """Return a tar archive of files and folders, without owners and dates. Names of folders end in `/`."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.type, info.size = (tarfile.DIRTYPE, 0) if name.endswith("/") else (tarfile.REGTYPE, len(data))
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()
