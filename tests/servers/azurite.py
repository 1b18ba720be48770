#!/usr/bin/env python3
"""Azurite, the Azure Blob emulator, on loopback: azurite.py DIR PORT AZURITE.

Prints "ready" once the container `bucket` exists; ends, and Azurite with it, when stdin closes."""
import base64
import email.utils
import hashlib
import hmac
import http.client
import subprocess
import sys
import time

# The emulator's public account, the same in every installation.
ACCOUNT = "devstoreaccount1"
KEY = base64.b64decode("Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==")


def make_container(port, name):
    date = email.utils.formatdate(usegmt=True)
    headers = {"x-ms-date": date, "x-ms-version": "2021-08-06", "Content-Length": "0"}
    canonical = f"x-ms-date:{date}\nx-ms-version:2021-08-06\n/{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container"
    text = "PUT\n\n\n\n\n\n\n\n\n\n\n\n" + canonical
    mac = base64.b64encode(hmac.new(KEY, text.encode(), hashlib.sha256).digest()).decode()
    headers["Authorization"] = f"SharedKey {ACCOUNT}:{mac}"
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("PUT", f"/{ACCOUNT}/{name}?restype=container", headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


def main():
    directory, port, azurite = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    log = open(f"{directory}/log", "wb")
    server = subprocess.Popen(
        [azurite, "--silent", "--location", directory, "--blobHost", "127.0.0.1", "--blobPort", str(port),
         "--skipApiVersionCheck", "--disableTelemetry"],
        stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        for _ in range(300):
            try:
                status, body = make_container(port, "bucket")
            except OSError:
                if server.poll() is not None:
                    sys.exit(f"azurite ended at once; its log is {directory}/log")
                time.sleep(0.1)
                continue
            if status != 201:
                sys.exit(f"azurite made no container: {status} {body[:300]!r}")
            print("ready", flush=True)
            sys.stdin.read()
            return
        sys.exit("azurite did not answer")
    finally:
        server.kill()
        server.wait()


main()
