"""Tar archives in memory, with the same bytes each time."""

import gzip
import io
import tarfile


def tar(files: dict[str, bytes | tuple[bytes, str]], kind: int = tarfile.USTAR_FORMAT) -> bytes:
    """Return an archive of files.

    A value (type letter, target) makes a member of another type; a name with / at its end makes a folder.
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
    """Return gzipped data, with a file's name in its header if one is given."""
    out = io.BytesIO()
    with gzip.GzipFile(name, "wb", fileobj=out, mtime=0) as file:
        file.write(data)
    return out.getvalue()
