"""A page of your own that uses a server: python serve.py http://localhost:8000 [PORT]

The server refuses requests from pages of other sites. So a site forwards its visitors' pictures itself, as here:
the page comes from this program, and so does the answer to `POST /classify`. It also keeps a token out of the browser.
"""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PAGE = Path(__file__).with_name("index.html")
MOST_BYTES = 20_000_000


class Site(BaseHTTPRequestHandler):
    """The page at /, and pictures forwarded to the server."""

    server_address_of_models = ""

    def do_GET(self) -> None:
        if self.path == "/":
            self.answer(200, PAGE.read_bytes(), "text/html; charset=utf-8")
        else:
            self.answer(404, b"not found", "text/plain")

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        if self.path != "/classify" or not 0 < length <= MOST_BYTES:
            self.answer(400, b'{"error": "expected a picture of at most 20 MB at /classify"}', "application/json")
            return
        request = urllib.request.Request(f"{self.server_address_of_models}/v1/classify", data=self.rfile.read(length))
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                self.answer(response.status, response.read(), "application/json")
        except urllib.error.HTTPError as error:
            self.answer(error.code, error.read(), "application/json")
        except OSError as error:
            self.answer(502, json.dumps({"error": str(error)}).encode(), "application/json")

    def answer(self, status: int, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main(address: str, port: int = 8080) -> None:
    Site.server_address_of_models = address
    with ThreadingHTTPServer(("127.0.0.1", port), Site) as server:
        print(f"http://localhost:{server.server_port}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
