"""Precomputed volumes over HTTP, for Neuroglancer and other readers on this machine. Read-only.

    GET /<volume>/info, /<volume>/<scale>/<chunk>      e.g. /image/8_8_30/0-64_0-64_0-8
    GET /state.json                                    what the viewer is to show

Only names that a volume's `info` declares are looked up, so no path reaches any other file.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from connectome_db import volumes
from connectome_db.errors import ConnectomeError, RunError

HOST = "127.0.0.1"
STATE = "state.json"

_CHUNK = re.compile(r"-?\d+--?\d+_-?\d+--?\d+_-?\d+--?\d+")
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


class VolumeServer:
    """Serves `folders` (name -> folder of a precomputed volume) on this machine; port 0 takes a free one.

    Raises RunError when the port is taken.
    """

    def __init__(self, folders: Mapping[str, Path], port: int = 0) -> None:
        self.state: bytes = b"{}"
        """Content of /state.json."""
        handler = type("Handler", (_Handler,), {"folders": dict(folders), "owner": self})
        try:
            self._http = ThreadingHTTPServer((HOST, port), handler)
        except OSError as e:
            raise RunError(
                f"port {port} of {HOST} cannot be served on ({e.strerror}); give another, or --port 0"
            ) from e
        self._http.daemon_threads = True

    @property
    def url(self) -> str:
        """Where it can be reached: http://127.0.0.1:PORT."""
        return f"http://{HOST}:{self._http.server_port}"

    def serve_forever(self) -> None:
        """Answer until `close` is called from another thread, or an exception such as KeyboardInterrupt."""
        self._http.serve_forever()

    def __enter__(self) -> VolumeServer:
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self.close()

    def close(self) -> None:
        """Free the port."""
        self._http.server_close()


class _Handler(BaseHTTPRequestHandler):
    folders: Mapping[str, Path]
    owner: VolumeServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """A file of a volume, whole or the range asked for."""
        self._answer(body=True)

    def do_HEAD(self) -> None:
        """The same without the bytes."""
        self._answer(body=False)

    def do_OPTIONS(self) -> None:
        """What a browser asks before a request with a Range header, or to a local address."""
        self._head(HTTPStatus.NO_CONTENT, 0, {"Access-Control-Max-Age": "86400"})

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """A line per chunk would drown what the command printed."""

    def _answer(self, *, body: bool) -> None:
        data = self._find(unquote(urlsplit(self.path).path))
        if data is None:  # a chunk that was not written is background: readers take 404 as zeros
            self._head(HTTPStatus.NOT_FOUND, 0)
            return
        status, headers, part = _ranged(data, self.headers.get("Range"))
        self._head(status, len(part), headers)
        if body:
            self.wfile.write(part)

    def _find(self, path: str) -> bytes | None:
        if path == f"/{STATE}":
            return self.owner.state
        name, _, inside = path.removeprefix("/").partition("/")
        folder = self.folders.get(name)
        if folder is None:
            return None
        try:
            scale, _, chunk = inside.partition("/")
            if inside != "info":
                keys = {s.key for s in volumes.open_info(folder).scales}
                if scale not in keys or not _CHUNK.fullmatch(chunk):
                    return None
            return (folder / inside).read_bytes()
        except (OSError, ConnectomeError):  # not there, or the stage is being run again just now
            return None

    def _head(self, status: HTTPStatus, length: int, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {
            "Access-Control-Allow-Origin": "*",
            "Access-Control-Allow-Methods": "GET, HEAD, OPTIONS",
            "Access-Control-Allow-Headers": "Range",
            "Access-Control-Expose-Headers": "Content-Length, Content-Range, Accept-Ranges",
            "Access-Control-Allow-Private-Network": "true",
            "Accept-Ranges": "bytes",
            "Cache-Control": "no-cache",  # `dvc repro` may change any chunk
            "Content-Type": "application/octet-stream",
            "Content-Length": str(length),
            **(headers or {}),
        }.items():
            self.send_header(key, value)
        self.end_headers()


def _ranged(data: bytes, wanted: str | None) -> tuple[HTTPStatus, dict[str, str], bytes]:
    """Status, headers and bytes for a Range header: one range of bytes; other forms get the whole file (RFC 9110)."""
    found = _RANGE.fullmatch((wanted or "").strip())
    if found is None or found.groups() == ("", ""):
        return HTTPStatus.OK, {}, data
    first, last = found.groups()
    if first:
        start, end = int(first), min(int(last) + 1, len(data)) if last else len(data)
    else:
        start, end = max(len(data) - int(last), 0), len(data)
    if first and last and int(last) < int(first):
        return HTTPStatus.OK, {}, data
    if start >= len(data):
        return HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, {"Content-Range": f"bytes */{len(data)}"}, b""
    return HTTPStatus.PARTIAL_CONTENT, {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"}, data[start:end]
