#!/usr/bin/env python3
"""A small in-memory stand-in for Google Cloud Storage's XML interface: gcs.py PORT [MILLISECONDS MEGABYTES].

Ours, made after Google's documents; it proves that requests are well formed, not how Google behaves. It knows one
bucket, single PUTs with a precondition, ranges, deletes and listings in pages of 10. Prints "ready"; ends when stdin
closes.

With the two numbers it stands for a store far away: it waits so long before each answer, lets so many megabytes a second
through each way, lists in pages of 1000, and then prints a line for each request: when it came and when it was answered,
in seconds, what it was, and its bytes of content."""
import re
import sys
import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

DISTANT = len(sys.argv) > 2
WAIT, SPEED = (float(sys.argv[2]) / 1e3, float(sys.argv[3]) * 1e6) if DISTANT else (0, float("inf"))
PAGE = 1000 if DISTANT else 10
PIECE = 256 << 10
LOCK, OBJECTS = threading.Lock(), {}  # key -> (bytes, generation, time)


class Line:
    """One direction of the line, which all connections share."""

    def __init__(self):
        self.lock, self.free = threading.Lock(), 0.0

    def carry(self, count):
        with self.lock:
            now = time.monotonic()
            self.free = max(self.free, now) + count / SPEED
            wait = self.free - now
        if wait > 0.002:
            time.sleep(wait)


UP, DOWN = Line(), Line()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def parse_request(self):
        self.came, self.size = time.monotonic(), 0
        return super().parse_request()

    def answer(self, status, body=b"", headers=None):
        time.sleep(WAIT)
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            for at in range(0, len(body), PIECE):
                part = body[at:at + PIECE]
                DOWN.carry(len(part))
                self.wfile.write(part)
        if DISTANT:
            url, size = urlsplit(self.path), self.size + len(body)
            prefix = parse_qs(url.query).get("prefix", [""])[0]
            what = unquote(url.path).lstrip("/").partition("/")[2] or f"?{prefix}"
            print(f"{self.came:.4f} {time.monotonic():.4f} {self.command} {what} {size}", flush=True)

    def content(self):
        parts, left = [], int(self.headers["Content-Length"])
        self.size = left
        while left:
            parts.append(self.rfile.read(min(left, PIECE)))
            left -= len(parts[-1])
            UP.carry(len(parts[-1]))
        return b"".join(parts)

    def target(self):
        url = urlsplit(self.path)
        key = unquote(url.path).lstrip("/").partition("/")[2]
        return key, {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}

    def describe(self, found):
        _, generation, stored = found
        return {"ETag": f'"{generation}"', "x-goog-generation": str(generation),
                "Last-Modified": formatdate(stored, usegmt=True)}

    def do_PUT(self):
        key, _ = self.target()
        data = self.content()
        with LOCK:
            wanted = self.headers.get("x-goog-if-generation-match")
            generation = OBJECTS[key][1] if key in OBJECTS else 0
            taken = wanted is None or int(wanted) == generation
            if taken:
                OBJECTS[key] = data, time.time_ns(), time.time()
            found = OBJECTS[key]
        if taken:
            self.answer(200, headers=self.describe(found))
        else:
            self.answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")

    def do_DELETE(self):
        with LOCK:
            found = OBJECTS.pop(self.target()[0], None)
        self.answer(204 if found else 404)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        key, query = self.target()
        if not key:
            return self.list(query)
        with LOCK:
            found = OBJECTS.get(key)
        if not found:
            return self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        data, headers = found[0], self.describe(found)
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not wanted:
            return self.answer(200, data, headers)
        start, end = int(wanted[1]), min(int(wanted[2] or len(data)) + 1, len(data))
        if start >= len(data):
            return self.answer(416)
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
        self.answer(206, memoryview(data)[start:end], headers)

    def list(self, query):
        prefix = query.get("prefix", "")
        after = max(query.get("continuation-token", ""), query.get("start-after", ""))
        with LOCK:
            keys = sorted(key for key in OBJECTS if key.startswith(prefix) and key > after)
            page, more = keys[:PAGE], len(keys) > PAGE
            rows = "".join(
                f"<Contents><Key>{escape(key)}</Key><Size>{len(OBJECTS[key][0])}</Size>"
                f"<LastModified>{time.strftime('%Y-%m-%dT%H:%M:%S.000Z', time.gmtime(OBJECTS[key][2]))}</LastModified>"
                f"<ETag>{escape(self.describe(OBJECTS[key])['ETag'])}</ETag></Contents>" for key in page)
        token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if more else ""
        self.answer(200, f"<ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>{token}{rows}</ListBucketResult>".encode())


server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
