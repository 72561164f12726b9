"""An image registry on localhost:5000 that answers tag sNNN with status NNN. Run it in a node's network:
dev/cluster/cluster node enter node-1 python3 .../registry.py"""

import http.server
import json

WORDS = {401: "UNAUTHORIZED", 403: "DENIED", 404: "MANIFEST_UNKNOWN", 429: "TOOMANYREQUESTS"}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        code = int(self.path.rsplit("/s", 1)[-1]) if "/manifests/s" in self.path else 200
        body = json.dumps({"errors": [{"code": WORDS.get(code, "UNKNOWN"), "message": WORDS.get(code, "internal error").lower().replace("_", " ")}]}).encode()
        self.send_response(code)
        if code == 401:
            self.send_header("WWW-Authenticate", 'Basic realm="ml registry"')
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET

    def parse_request(self):
        if self.raw_requestline.startswith(b"\x16"):  # TLS: containerd falls back to HTTP where the answer is HTTP
            self.wfile.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            self.close_connection = True
            return False
        return super().parse_request()

    def log_message(self, *args):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", 5000), Handler).serve_forever()
