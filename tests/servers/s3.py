#!/usr/bin/env python3
"""One request of S3, signed in Amazon's older way: s3.py ENDPOINT KEY SECRET METHOD PATH [HEADER:VALUE ...] < BODY

PATH may have a query. Prints the status on a line, then the body. Exits with 0 whatever the status is: it is for tests that
ask a server for what it must refuse."""
import base64
import email.utils
import hashlib
import hmac
import http.client
import sys
from urllib.parse import parse_qsl, urlsplit

# What of a query is signed.
SIGNED = {"acl", "lifecycle", "policy", "versionId", "versioning", "versions"}


def main():
    endpoint, key, secret, method, path = sys.argv[1:6]
    body = sys.stdin.buffer.read() if method in ("PUT", "POST") else b""
    headers = {name.lower(): value for name, _, value in (text.partition(":") for text in sys.argv[6:])}
    headers["date"] = email.utils.formatdate(usegmt=True)
    if method == "PUT":
        headers["content-md5"] = base64.b64encode(hashlib.md5(body).digest()).decode()
    url = urlsplit(path)
    pairs = sorted(pair for pair in parse_qsl(url.query, keep_blank_values=True) if pair[0] in SIGNED)
    query = "&".join(name if not value else f"{name}={value}" for name, value in pairs)
    amazons = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers) if name.startswith("x-amz-"))
    resource = url.path + (f"?{query}" if query else "")
    text = f"{method}\n{headers.get('content-md5', '')}\n\n{headers['date']}\n{amazons}{resource}"
    mac = base64.b64encode(hmac.new(secret.encode(), text.encode(), hashlib.sha1).digest()).decode()
    headers["authorization"] = f"AWS {key}:{mac}"
    connection = http.client.HTTPConnection(urlsplit(endpoint).netloc, timeout=60)
    connection.request(method, path, body or None, headers)
    answer = connection.getresponse()
    print(answer.status, flush=True)
    sys.stdout.buffer.write(answer.read())


main()
