"""Make tar archives and gzip files in memory, which always have the same bytes."""

import gzip
import io
import tarfile


def tar(files: dict[str, bytes | tuple[bytes, str]], kind: int = tarfile.USTAR_FORMAT) -> bytes:
    """Return a tar archive.

    Args:
        files: The content of each file by name. A name that ends in `/` makes a folder. A value (type, target) makes a
            member of another type, such as a link to `target`.
        kind: The tar format.
    """
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=kind) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, tuple):
                info.type, info.linkname = content
                archive.addfile(info)
            elif name.endswith("/"):
                info.type = tarfile.DIRTYPE
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def zipped(data: bytes, name: str = "") -> bytes:
    """Return gzipped data. If a file name is given, it is in the header."""
    out = io.BytesIO()
    with gzip.GzipFile(name, "wb", fileobj=out, mtime=0) as file:
        file.write(data)
    return out.getvalue()
