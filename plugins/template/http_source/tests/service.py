"""A small HTTP service for the tests, which can be stopped and started again."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


class Service:
    """Answers ``?after=ID&limit=COUNT`` with the items whose id is larger."""

    def __init__(self):
        self.items = []
        self.port = 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/items"

    def start(self):
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                query = parse_qs(urlsplit(self.path).query)
                after, limit = int(query["after"][0]), int(query["limit"][0])
                items = [item for item in service.items if item["id"] > after]
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps(items[:limit]).encode())

            def log_message(self, *_):
                """Keep the output of the tests short."""

        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self.server.server_port
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
