#!/usr/bin/env python3
"""A small in-memory stand-in for Google Cloud Storage's XML interface: gcs.py PORT [DIRECTORY LOG].

Ours, made after Google's documents; it proves that requests are well formed, not how Google behaves. It knows one
bucket, single PUTs with a precondition, ranges, deletes and listings in pages of 10. Prints "ready"; ends when stdin
closes. With a directory it begins with the files below it as objects, lists in pages of 1,000, and adds a line to the log for
each request: method, bytes of the answer, key."""
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

DIRECTORY, LOG = (sys.argv[2], open(sys.argv[3], "a", buffering=1)) if len(sys.argv) > 3 else (None, None)
PAGE = 1000 if DIRECTORY else 10
LOG_LOCK, LOCK, OBJECTS = threading.Lock(), threading.Lock(), {}  # key -> (bytes, generation, time, ETag)


def stored(data):
    return data, time.time_ns(), time.time(), f'"{hashlib.md5(data).hexdigest()}"'


def begin():
    for top, _, names in os.walk(DIRECTORY):
        for path in (os.path.join(top, name) for name in names):
            with open(path, "rb") as file:
                OBJECTS[os.path.relpath(path, DIRECTORY)] = stored(file.read())


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two writes

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", headers=None, length=None):
        if LOG:
            with LOG_LOCK:
                LOG.write(f"{self.command} {len(body) if self.command == 'GET' else 0} {self.target()[0] or 'list'}\n")
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def target(self):
        url = urlsplit(self.path)
        key = unquote(url.path).lstrip("/").partition("/")[2]
        return key, {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}

    def describe(self, found):
        _, generation, when, etag = found
        return {"ETag": etag, "x-goog-generation": str(generation), "Last-Modified": formatdate(when, usegmt=True)}

    def do_PUT(self):
        key, _ = self.target()
        data = self.rfile.read(int(self.headers["Content-Length"]))
        with LOCK:
            wanted = self.headers.get("x-goog-if-generation-match")
            generation = OBJECTS[key][1] if key in OBJECTS else 0
            if wanted is not None and int(wanted) != generation:
                return self.answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
            OBJECTS[key] = new = stored(data)
        self.answer(200, headers=self.describe(new))

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
        self.answer(206, data[start:end], headers)

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


if DIRECTORY:
    begin()
server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
