"""A small HTTP service for the tests, which can fail in the ways that services fail."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Service:
    """Keeps the value of each id that is posted.

    ``takes``: how many more requests; ``None``: any number. ``failure``: how it fails now. "stopped": no
    connection; a number: that status; "silent": it takes the request and never answers. ``None``: it works.
    """

    def __init__(self):
        self.values = {}
        self.takes = None
        self.failure = None
        self.port = 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/items"

    def answer(self, item):
        if isinstance(self.failure, int):
            return self.failure
        if item["value"] == "rejected by the service":
            return 422
        if self.takes is not None:
            if self.takes == 0:
                return 503
            self.takes -= 1
        self.values.setdefault(item["id"], item["value"])
        return 200

    def start(self):
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                if service.failure == "silent":
                    time.sleep(2)
                    return
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(service.answer(json.loads(body)))
                self.end_headers()

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
        self.failure = self.takes = None

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
