#!/usr/bin/env python3
"""A small in-memory stand-in for Google Cloud Storage's XML interface.

    gcs.py PORT [--line MILLISECONDS MEGABYTES] [--objects DIRECTORY] [--log FILE]

Ours, made after Google's documents; it proves that requests are well formed, not how Google behaves. It knows one
bucket, single PUTs with a precondition, ranges, deletes and listings in pages of 10. Prints "ready"; ends when stdin
closes. With any option it stands for a real store and lists in pages of 1000.

--line: as if it were far away, it waits so long before each answer and lets so many megabytes a second through each way.
--objects: it begins with the files below a directory as objects.
--log: a line for each request: what it was, bytes of content, key or `?prefix`, when it came and when it was answered, in
seconds. `-` is standard output."""
import argparse
import hashlib
import os
import re
import sys
import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

parser = argparse.ArgumentParser()
parser.add_argument("port", type=int)
parser.add_argument("--line", type=float, nargs=2, default=[0, float("inf")])
parser.add_argument("--objects")
parser.add_argument("--log")
OPTIONS = parser.parse_args()
WAIT, SPEED = OPTIONS.line[0] / 1e3, OPTIONS.line[1] * 1e6
LOG = sys.stdout if OPTIONS.log == "-" else OPTIONS.log and open(OPTIONS.log, "a")
PAGE = 1000 if len(sys.argv) > 2 else 10
PIECE = 256 << 10
LOG_LOCK, LOCK, OBJECTS = threading.Lock(), threading.Lock(), {}  # key -> (bytes, generation, time, ETag)


def stored(data):
    return data, time.time_ns(), time.time(), f'"{hashlib.md5(data).hexdigest()}"'


def begin(directory):
    for top, _, names in os.walk(directory):
        for path in (os.path.join(top, name) for name in names):
            with open(path, "rb") as file:
                OBJECTS[os.path.relpath(path, directory)] = stored(file.read())


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
    disable_nagle_algorithm = True  # headers and body are two writes

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
        if LOG:
            url, size = urlsplit(self.path), self.size + len(body if self.command == "GET" else b"")
            prefix = parse_qs(url.query).get("prefix", [""])[0]
            what = unquote(url.path).lstrip("/").partition("/")[2] or f"?{prefix}"
            with LOG_LOCK:
                print(self.command, size, what, f"{self.came:.4f} {time.monotonic():.4f}", file=LOG, flush=True)

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
        _, generation, when, etag = found
        return {"ETag": etag, "x-goog-generation": str(generation), "Last-Modified": formatdate(when, usegmt=True)}

    def do_PUT(self):
        key, _ = self.target()
        data = self.content()
        with LOCK:
            wanted = self.headers.get("x-goog-if-generation-match")
            generation = OBJECTS[key][1] if key in OBJECTS else 0
            taken = wanted is None or int(wanted) == generation
            if taken:
                OBJECTS[key] = stored(data)
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


if OPTIONS.objects:
    begin(OPTIONS.objects)
server = ThreadingHTTPServer(("127.0.0.1", OPTIONS.port), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
