"""Getting a public data set: resumed where it broke off, verified, and put in its place only when it is whole.

While a set is being fetched it lives in NAME.partial; NAME itself appears by one rename, so what is there is complete.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from minicnn.data.catalogue import PUBLIC, File, cache_folder, unknown
from minicnn.data.errors import DataError, reading

CHUNK = 2**18
TIMEOUT = 30  # seconds without a byte


def get(name: str, folder: Path | None = None) -> Path:
    """Download a public data set into `folder`/NAME (default: the cache folder), unless it is there already.

    Returns that folder. Raises DataError in one line for an unknown name, no network, or a wrong checksum.
    """
    if name not in PUBLIC:
        raise unknown(name)
    chosen, target = PUBLIC[name], (folder or cache_folder()) / name
    if target.is_dir():
        return target
    work = target.with_name(f"{name}.partial")
    work.mkdir(parents=True, exist_ok=True)
    for file in chosen.files:
        fetch(file, work / file.name)
    if chosen.archive_folder:
        shutil.rmtree(work / "unpacked", ignore_errors=True)
        for file in chosen.files:
            unpack(work / file.name, work / "unpacked")
        os.replace(work / "unpacked" / chosen.archive_folder, target)
        shutil.rmtree(work)
    else:
        os.replace(work, target)
    return target


def fetch(file: File, path: Path) -> None:
    """Download one file and verify its checksum; what an earlier attempt left in PATH.part is not fetched again."""
    if path.is_file():
        return
    part = path.with_name(f"{path.name}.part")
    _receive(file, part)
    algorithm, expected = ("sha256", file.sha256) if file.sha256 else ("md5", file.md5)
    with part.open("rb") as stream:
        found = hashlib.file_digest(stream, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()
    if not expected or not found.startswith(expected):
        part.unlink()
        raise DataError(f"{file.url}: its checksum is {found}, not {expected}; it was removed, try again")
    os.replace(part, path)


def _receive(file: File, part: Path) -> None:
    """Append to `part` what it still lacks of the file."""
    start = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(file.url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            if response.status != 206:
                start = 0  # the server sends the whole file
            expected = start + int(response.headers["Content-Length"]) if response.headers["Content-Length"] else None
            with (
                part.open("ab" if start else "wb") as stream,
                tqdm(desc=file.name, total=expected, initial=start, unit="B", unit_scale=True, disable=None) as bar,
            ):
                while chunk := response.read(CHUNK):
                    stream.write(chunk)
                    bar.update(len(chunk))
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing lies beyond `start`: the part is whole, as far as the server knows
            return
        raise DataError(f"{file.url}: the server answers {error.code} {error.reason}; try again later") from error
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
        raise DataError(f"{file.url}: cannot be reached ({reason}); check the network and try again") from error
    if expected and part.stat().st_size < expected:
        raise DataError(f"{file.url}: the connection broke off; try again, it goes on from there")


def unpack(archive: Path, folder: Path) -> None:
    """The regular files of a tar archive, below `folder`; links, devices and names that lead elsewhere are left out."""
    with reading(archive), tarfile.open(archive) as tar:
        for member in tar:
            name = PurePosixPath(member.name)
            source = tar.extractfile(member) if member.isfile() else None
            if source is None or name.is_absolute() or ".." in name.parts:
                continue
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with source, target.open("wb") as stream:
                shutil.copyfileobj(source, stream, CHUNK)
