"""A model hub on this machine: the few addresses that the hub's client asks for, answered from a table of files."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub:
    """`url` is its address; `asked` lists the paths that were asked for."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.gated: set[str] = set()
        self.asked: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.answer(self, body=True)

            def do_HEAD(self) -> None:
                hub.answer(self, body=False)

            def log_message(self, format: str, *args: Any) -> None:
                """Keep the output of the tests clean."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> FakeHub:
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.server.shutdown()
        self.server.server_close()

    def add(self, repo: str, files: dict[str, bytes], gated: bool = False) -> None:
        """Offer a model with these files; of a gated one the list can be seen and the files cannot."""
        self.files[repo] = files
        if gated:
            self.gated.add(repo)

    def answer(self, request: BaseHTTPRequestHandler, body: bool) -> None:
        """One request of the hub's client."""
        path = unquote(request.path.split("?")[0])
        self.asked.append(path)
        repo = "/".join((path.removeprefix("/api/models/") if path.startswith("/api/models/") else path[1:]).split("/")[:2])
        if repo not in self.files:
            return self.send(request, 404, {"X-Error-Code": "RepoNotFound"}, b"{}", body)
        if path.startswith("/api/models/"):
            return self.send(request, 200, {"Content-Type": "application/json"}, json.dumps(self.listing(repo, path)).encode(), body)
        if repo in self.gated:
            return self.send(request, 401, {"X-Error-Code": "GatedRepo"}, b"{}", body)
        name = path.split(f"/resolve/{COMMIT}/")[-1].split("/resolve/main/")[-1]
        if name not in self.files[repo]:
            return self.send(request, 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, b"", body)
        data = self.files[repo][name]
        headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        return self.send(request, 200, headers, data, body)

    def listing(self, repo: str, path: str) -> Any:
        """The model's record, or its tree."""
        files = self.files[repo]
        if "/tree/" in path:
            return [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()} for name, data in files.items()
            ]
        siblings = [{"rfilename": name, "size": len(data)} for name, data in files.items()]
        return {"id": repo, "sha": COMMIT, "siblings": siblings, "tags": [], "gated": "manual" if repo in self.gated else False}

    @staticmethod
    def send(request: BaseHTTPRequestHandler, status: int, headers: dict[str, str], data: bytes, body: bool) -> None:
        """Write one response."""
        request.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            request.send_header(name, value)
        request.end_headers()
        if body:
            request.wfile.write(data)
