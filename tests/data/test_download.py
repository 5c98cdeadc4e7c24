"""Downloads: whole, resumed, refused, and without a network; from a server on this machine."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import re
import tarfile
import threading

import numpy as np
import pytest

from minicnn import data
from minicnn.data import __main__ as command
from minicnn.data import catalogue, download

CONTENT = np.random.default_rng(0).bytes(700_000)


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.files`, with ranges if `server.ranges`; breaks off after `server.limit` bytes of an answer."""

    def do_GET(self):
        self.server.requests.append((self.path, self.headers.get("Range")))
        content = self.server.files.get(self.path)
        if content is None:
            return self.send_error(404, "Not Found")
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")) if self.server.ranges else None
        start = int(wanted[1]) if wanted else 0
        if wanted and start >= len(content):
            return self.send_error(416, "Range Not Satisfiable")
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(content) - start))
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        self.wfile.write(content[start:][: self.server.limit])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        served.files, served.requests, served.ranges, served.limit = {"/file.bin": CONTENT}, [], True, None
        thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        served.url = f"http://127.0.0.1:{served.server_port}"
        yield served
        served.shutdown()
        thread.join()


@pytest.fixture
def file(server):
    return catalogue.File(f"{server.url}/file.bin", hashlib.md5(CONTENT).hexdigest())


def test_whole(server, file, tmp_path):
    download.fetch(file, tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert [p.name for p in tmp_path.iterdir()] == ["file.bin"]
    download.fetch(file, tmp_path / "file.bin")  # there already
    assert server.requests == [("/file.bin", None)]


def test_broken_off_and_resumed(server, file, tmp_path):
    server.limit = 300_000
    for _ in range(2):
        with pytest.raises(data.DataError, match="broke off; try again, it goes on from there"):
            download.fetch(file, tmp_path / "file.bin")
    assert (tmp_path / "file.bin.part").stat().st_size == 600_000 and not (tmp_path / "file.bin").exists()
    download.fetch(file, tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert [wanted for _, wanted in server.requests] == [None, "bytes=300000-", "bytes=600000-"]


def test_a_server_without_ranges_starts_over(server, file, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(b"old" * 100)
    server.ranges = False
    download.fetch(file, tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_part_that_is_whole_already(file, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    download.fetch(file, tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_wrong_checksum_leaves_nothing(server, file, tmp_path):
    server.files["/file.bin"] = CONTENT[:-1] + b"?"
    with pytest.raises(data.DataError, match=f"file.bin: its checksum is .*, not {file.md5}"):
        download.fetch(file, tmp_path / "file.bin")
    assert list(tmp_path.iterdir()) == []


def test_a_foreign_part_is_found_out_and_removed(file, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(b"something else")
    with pytest.raises(data.DataError, match="checksum"):
        download.fetch(file, tmp_path / "file.bin")
    download.fetch(file, tmp_path / "file.bin")


def test_missing_on_the_server(server, file, tmp_path):
    server.files.clear()
    with pytest.raises(data.DataError, match=r"file\.bin: the server answers 404 Not Found"):
        download.fetch(file, tmp_path / "file.bin")


def archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("inner/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    return buffer.getvalue()


def publish(server, monkeypatch, files: dict[str, bytes], archive_folder: str | None) -> None:
    """Make the catalogue say that cifar10 consists of `files`, on the local server."""
    server.files = {f"/{name}": content for name, content in files.items()}
    entries = tuple(catalogue.File(f"{server.url}/{n}", hashlib.md5(c).hexdigest()) for n, c in files.items())
    entry = catalogue.PUBLIC["cifar10"]._replace(files=entries, archive_folder=archive_folder)
    monkeypatch.setitem(catalogue.PUBLIC, "cifar10", entry)


def test_get_unpacks_an_archive_and_load_finds_it(server, monkeypatch, tmp_path, capsys, cifar10_folder, colour):
    members = {f"inner/{path.name}": path.read_bytes() for path in cifar10_folder.iterdir()}
    outside = {"../escaped": b"x", "/absolute": b"x", "inner/../../escaped": b"x"}
    publish(server, monkeypatch, {"c.tar.gz": archive({**members, **outside})}, "inner")
    folder = tmp_path / "a" / "kept"
    assert command.main(["get", "cifar10", "--folder", str(folder)]) == 0
    assert sorted(p.name for p in (folder / "cifar10").iterdir()) == sorted(p.name for p in cifar10_folder.iterdir())
    assert [p.name for p in folder.iterdir()] == ["cifar10"] and not (tmp_path / "a" / "escaped").exists()
    np.testing.assert_array_equal(data.load(f"cifar10:{folder / 'cifar10'}").images, colour["x_train"])
    assert command.main(["get", "cifar10", "--folder", str(folder)]) == 0 and len(server.requests) == 1
    assert command.main(["list", "--folder", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert next(line for line in lines if line.startswith("cifar10 ")).endswith(f"in {folder / 'cifar10'}")


def test_get_plain_files(server, monkeypatch, tmp_path):
    publish(server, monkeypatch, {"a.gz": gzip.compress(b"a"), "b.gz": gzip.compress(b"b")}, None)
    target = download.get("cifar10", tmp_path)
    assert sorted(p.name for p in target.iterdir()) == ["a.gz", "b.gz"]


def test_get_leaves_no_data_set_when_it_fails(server, monkeypatch, tmp_path):
    publish(server, monkeypatch, {"a.gz": b"a", "b.gz": b"b"}, None)
    del server.files["/b.gz"]
    with pytest.raises(data.DataError, match="404"):
        download.get("cifar10", tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["cifar10.partial"]
    server.files["/b.gz"] = b"b"
    download.get("cifar10", tmp_path)
    assert [path for path, _ in server.requests] == ["/a.gz", "/b.gz", "/b.gz"]  # a is not fetched again


def refused(capsys, *arguments: str) -> str:
    """The command's one line on standard error, with which it exits 2."""
    assert command.main(list(arguments)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_no_network_is_one_line(monkeypatch, tmp_path, capsys):
    closed = catalogue.File("http://127.0.0.1:9/c.tar.gz", "0" * 32)  # the discard port: nothing listens
    monkeypatch.setitem(catalogue.PUBLIC, "cifar10", catalogue.PUBLIC["cifar10"]._replace(files=(closed,)))
    line = refused(capsys, "get", "cifar10", "--folder", str(tmp_path))
    assert "http://127.0.0.1:9/c.tar.gz: cannot be reached" in line and "check the network" in line


def test_unknown_name_is_one_line(tmp_path, capsys):
    assert "did you mean cifar10" in refused(capsys, "get", "cifar-10", "--folder", str(tmp_path))


def test_a_place_that_cannot_be_written_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    line = refused(capsys, "get", "mnist", "--folder", str(tmp_path / "file"))
    assert line.startswith(str(tmp_path / "file")) and "--folder" in line


def test_interrupted(monkeypatch, tmp_path, capsys):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(download, "get", interrupt)
    assert command.main(["get", "mnist", "--folder", str(tmp_path)]) == 130
    assert "goes on from there" in capsys.readouterr().err


def test_list_has_one_line_for_each_name(capsys, tmp_path):
    assert command.main(["list", "--folder", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(catalogue.PUBLIC)


def test_the_catalogue_is_well_formed():
    for public in catalogue.PUBLIC.values():
        assert all(re.fullmatch(r"[0-9a-f]{32}", file.md5) and file.url.startswith("http") for file in public.files)
        assert public.classes is None or len(set(public.classes)) == 10
