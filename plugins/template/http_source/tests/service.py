"""A small HTTP service for the tests, which can fail in the ways that services fail."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


class Service:
    """Answers ``?after=ID&limit=COUNT`` with the items whose id is larger.

    ``failure``: how it fails now. "stopped": no connection; a number: that status; "silent": it takes the
    request and never answers; "no JSON": such as the page of a proxy. ``None``: it works.
    """

    def __init__(self):
        self.items = []
        self.port = 0
        self.failure = None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/items"

    def start(self):
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                if service.failure == "silent":
                    time.sleep(2)
                    return
                query = parse_qs(urlsplit(self.path).query)
                after, limit = int(query["after"][0]), int(query["limit"][0])
                items = [item for item in service.items if item["id"] > after]
                self.send_response(service.failure if isinstance(service.failure, int) else 200)
                self.end_headers()
                answer = "<html>" if service.failure == "no JSON" else json.dumps(items[:limit])
                self.wfile.write(answer.encode())

            def log_message(self, *_):
                """Keep the output of the tests short."""

        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self.server.server_port
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def fail(self, how):
        self.failure = how
        if how == "stopped":
            self.stop()

    def heal(self):
        if self.failure == "stopped":
            self.start()
        self.failure = None

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
