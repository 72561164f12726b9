"""A data server, a model hub and an object store that fail on request, on 127.0.0.1:9000."""

import http.server
import socket
import struct
import time

S3 = {"no-such-bucket": (404, "NoSuchBucket", "The specified bucket does not exist"), "no-such-key": (404, "NoSuchKey", "The specified key does not exist."),
      "denied": (403, "AccessDenied", "Access Denied"), "slow": (503, "SlowDown", "Please reduce your request rate."),
      "internal": (500, "InternalError", "We encountered an internal error. Please try again.")}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, code, body=b"", kind="text/plain", **headers):
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for k, v in headers.items():
            self.send_header(k.replace("_", "-"), v)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self):
        path = self.path.split("?")[0]
        name = path.rstrip("/").rsplit("/", 1)[-1]
        if self.command == "PUT":
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if path.startswith("/status/"):
            return self.answer(int(name), b"upstream says no\n")
        if name == "cut":
            self.send_response(200)
            self.send_header("Content-Length", "10000000")
            self.end_headers()
            self.wfile.write(b"x" * 70000)
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0) if "rst" in path else struct.pack("ii", 0, 0))
            self.close_connection = True
            return None
        if name == "hang":
            return time.sleep(60)
        if "meta/llama" in path:
            return self.answer(401, b'{"error":"Access to model meta/llama is restricted. You must have access to it and be authenticated to access it. Please log in."}', "application/json",
                               X_Error_Code="GatedRepo", X_Error_Message="Access to model meta/llama is restricted. You must have access to it and be authenticated to access it. Please log in.")
        if "limited" in path:
            return self.answer(429, b'{"error":"We had to rate limit your IP."}', "application/json")
        if "does-not-exist" in path:
            return self.answer(404, b'{"error":"Repository not found"}', "application/json", X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
        if name in S3:
            code, word, text = S3[name]
            return self.answer(code, f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{word}</Code><Message>{text}</Message><RequestId>4442587FB7D0A2F9</RequestId></Error>'.encode(), "application/xml")
        return self.answer(200, b"ok")

    do_HEAD = do_PUT = do_POST = do_GET

    def log_message(self, *args):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", 9000), Handler).serve_forever()
