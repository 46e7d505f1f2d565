"""Serves the built site to this machine alone: `serve FOLDER [--port N]`. Any Python from 3.9 on runs it.

Without --port it takes 8017, or a free one where that is taken.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import signal
import sys
from pathlib import Path

HOST, PORT = "127.0.0.1", 8017


class Pages(http.server.SimpleHTTPRequestHandler):
    """Files of the site; what is not there is answered with its 404.html, and a folder without a page too."""

    extensions_map = http.server.SimpleHTTPRequestHandler.extensions_map | {
        ".ipynb": "application/x-ipynb+json",
        ".js": "text/javascript",
        ".svg": "image/svg+xml",
        ".ttf": "font/ttf",
        ".woff2": "font/woff2",
    }

    def log_message(self, *_):
        pass

    def list_directory(self, path):
        self.send_error(404)

    def send_error(self, code, message=None, explain=None):
        page = Path(self.directory) / "404.html"
        if code != 404 or not page.is_file():
            return super().send_error(code, message, explain)
        content = page.read_bytes()
        self.send_response(404)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def server(folder: Path, port: int | None) -> http.server.ThreadingHTTPServer:
    """Return a server of a folder; OSError when the port that was asked for is taken."""
    handler = functools.partial(Pages, directory=str(folder))
    try:
        return http.server.ThreadingHTTPServer((HOST, PORT if port is None else port), handler)
    except OSError:
        if port is not None:
            raise
        return http.server.ThreadingHTTPServer((HOST, 0), handler)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="tools/bazel run survey --", description="Serves the survey on 127.0.0.1.")
    parser.add_argument("folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=f"default: {PORT}, or a free one")
    options = parser.parse_args(arguments)
    try:
        made = server(options.folder, options.port)
    except (OSError, OverflowError) as problem:
        print(f"Port {options.port} cannot be used ({problem}): leave --port out, or choose another.", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(f"The survey is at http://{HOST}:{made.server_port}/ (Ctrl-C ends it)", flush=True)
    try:
        made.serve_forever()
    except KeyboardInterrupt:
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
