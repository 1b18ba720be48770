#!/usr/bin/env python3
"""Restores a Lifeboat repository from a local directory, without Lifeboat.

    reader.py REPO --key-file FILE | --password-file FILE [--snapshot latest|ID] [--from-packs] --target DIR

Written from docs/format.md alone, and meant as the tool of last resort: it needs Python 3.9 and the packages in
requirements.txt. It checks every hash, signature, commitment and chunk id on its way. It restores files, directories,
links, pipes and sockets with modes, times, owners and attributes as far as it is allowed to; what it could not set it
says on stderr and ends with 3. Section numbers in comments are those of docs/format.md."""
import argparse
import hashlib
import hmac
import os
import pathlib
import re
import socket
import stat
import struct
import sys

import cbor2
import zstandard
from argon2.low_level import Type, hash_secret_raw
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

CONFIG, KEY_SLOT, WRITER, PACK, INDEX, SNAPSHOT, CONFIRMATION = range(1, 8)
DATA, TREE = 0, 1
MIB = 1 << 20


class Damage(Exception):
    """The repository does not hold what it promises."""


def need(condition, what):
    if not condition:
        raise Damage(what)


class Bytes:
    """A cursor that never reads beyond its end."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        need(self.at + count <= len(self.data), "truncated")
        self.at += count
        return self.data[self.at - count:self.at]

    def number(self, size):
        return int.from_bytes(self.take(size), "little")

    def left(self):
        return len(self.data) - self.at


def derive(context, key):
    return blake3(key, derive_key_context=context).digest()


def keyed(key, data, length=32):
    return blake3(data, key=key).digest(length=length)


def opened(key, nonce, data, aad):
    try:
        return AESGCM(key).decrypt(nonce, bytes(data), aad)
    except Exception as error:
        raise Damage("does not authenticate") from error


def verified(public, signature, message, what):
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(bytes(signature), bytes(message))
    except Exception as error:
        raise Damage(f"{what}: wrong signature") from error


def merkle(level):
    while len(level) > 1:
        pairs = [level[at:at + 2] for at in range(0, len(level), 2)]
        level = [derive("lifeboat v1 segment node", b"".join(pair)) if len(pair) == 2 else pair[0] for pair in pairs]
    return level[0] if level else bytes(32)


class Repository:
    def __init__(self, root, unlock, from_packs=False):
        self.root, self.keys, self.packs, self.places = root, {}, {}, {}
        self.open(unlock)
        self.writers, self.accepted, numbers = {}, {}, {}
        for name in sorted(self.names("writers/*/*")):  # a higher number comes later
            _, writer, rest = name.split("/")
            value = self.signed(self.object(name, rest.split("-")[1]), WRITER, self.pinned_root, name)
            need(value[0].hex() == writer, f"{name}: another writer's entry")
            # Authority 2 signs nothing that is read here.
            self.writers[value[0]] = value[1] if value[2] in (0, 1) else None
            accepted = set(value[4]) if value.get(3) == 2 else None
            if numbers.get(writer) == rest.split("-")[0]:  # two at once: what both let count
                known = self.accepted[value[0]]
                accepted = known if accepted is None else accepted if known is None else accepted & known
            numbers[writer], self.accepted[value[0]] = rest.split("-")[0], accepted
        if from_packs:
            for name in self.names("packs/*/*"):
                self.read_directory(name)
        else:
            self.read_index()

    # Section 9: of a revoked writer only what its entry names.
    def counts(self, writer, name):
        accepted = self.accepted.get(writer)
        return accepted is None or blake3(name.encode()).digest() in accepted

    # Section 1: names, and the hash that ends them.
    def names(self, pattern):
        return [str(p.relative_to(self.root)) for p in self.root.glob(pattern) if p.is_file()]

    def object(self, name, digest):
        data = (self.root / name).read_bytes()
        need(blake3(data).hexdigest() == digest, f"{name}: content and name differ")
        return data

    # Section 2.
    def preamble(self, data, kind, what):
        need(len(data) >= 32 and data[:8] == b"LIFEBOAT", f"{what}: not a Lifeboat object")
        need(data[8:10] == b"\1\0", f"{what}: a newer version of the format")
        need(data[10] == kind, f"{what}: an object of kind {data[10]}")
        need(data[16:32] == self.id, f"{what}: belongs to another repository")

    # Section 8.
    def signed(self, data, kind, public, what):
        self.preamble(data, kind, what)
        length = int.from_bytes(data[32:36], "little")
        need(len(data) == 36 + length + 64, f"{what}: wrong length")
        verified(public, data[-64:], data[:-64], what)
        return cbor2.loads(data[36:36 + length])

    # Section 12: a slot that opens and has no configuration here is another repository's; the newest one comes first.
    def open(self, unlock):
        failure = Damage("no key slot opens with this")
        for self.id, secrets in sorted(self.opened_slots(unlock), key=lambda slot: slot[1][1], reverse=True):
            try:
                self.pinned_root, self.least_config = secrets[0], secrets[1]
                self.index_base = derive("lifeboat v1 index", secrets[3])
                self.private = {TREE: [XWing(key) for key in [secrets[4], *secrets.get(9, [])]],
                                DATA: [XWing(key) for key in [secrets[5], *secrets.get(10, [])]]}
                self.chunk_key = derive("lifeboat v1 chunk id", secrets[2])
                return self.read_config()
            except Damage as error:
                failure = error
        raise failure

    def opened_slots(self, unlock):
        for name in self.names("keys/*"):
            data = self.object(name, name.split("/")[1])
            self.id = data[16:32]
            self.preamble(data, KEY_SLOT, name)
            slot = cbor2.loads(data[32:])
            wrap = unlock(slot)
            if wrap is None or not hmac.compare_digest(wrap[32:], slot[4]):
                continue
            costs = slot.get(2, [0, 0, 0])
            aad = data[:32] + bytes([slot[0], slot[1]]) + struct.pack("<3I", *costs) + slot[3] + slot[4]
            secrets = cbor2.loads(opened(wrap[:32], bytes(12), slot[5], aad))
            need({0, 1, 2, 3, 4, 5} <= set(secrets), "this key belongs to a role that cannot restore")
            yield self.id, secrets

    # Section 9.
    def read_config(self):
        name = max(self.names("config/*"))
        number, digest = name.split("/")[1].split("-")
        config = self.signed(self.object(name, digest), CONFIG, self.pinned_root, name)
        need(int(number) >= self.least_config, "the configuration is older than the key slot")
        need(config[0] == self.id and config[1] == 1 and config[2] == self.pinned_root, "a foreign configuration")
        mode, seconds = config.get(7, (0, 1))  # how a store locks objects says nothing to who reads them
        need(mode in (0, 1) and 0 < seconds < 1 << 32, "the lock of the configuration")

    # Section 16.
    def block(self, base, salt, kind, number, count, data):
        key = keyed(derive("lifeboat v1 object block", base), salt)
        aad = b"\1" + self.id + bytes([kind]) + struct.pack("<2I", number, count)
        return opened(key, number.to_bytes(12, "little"), data, aad)

    # Section 13.
    def data_key(self, sealed, kind):
        if sealed not in self.keys:
            cursor = Bytes(sealed)
            run, found, commitment = cursor.take(16), cursor.number(1), cursor.take(32)
            need(found in self.private, "a data key of an unknown kind")
            for _ in range(cursor.number(1)):
                recipient, form = cursor.take(16), cursor.take(1168)
                for private in [k for k in self.private[found] if k.recipient == recipient]:
                    info = b"lifeboat v1 data key" + b"\1" + self.id + run + bytes([found]) + recipient
                    key = private.open(info, form)
                    need(hmac.compare_digest(keyed(key, b"commit"), commitment), "a data key breaks its commitment")
                    self.keys[sealed] = (found, key)
            need(sealed in self.keys, "a data key is not sealed to this key")
        need(self.keys[sealed][0] == kind, "a data key of the other kind")
        return self.keys[sealed][1]

    # Section 3: the same facts, from the packs themselves.
    def read_directory(self, name):
        data = self.object(name, name.split("/")[2])
        self.preamble(data, PACK, name)
        at, length, _, _, salt, magic = struct.unpack("<4I32s8x8s", data[-64:])
        need(magic == b"LBPACKv1", f"{name}: not a pack")
        cursor = Bytes(self.block(self.index_base, salt, PACK, 0, 1, data[at:at + length]))
        need(cursor.take(32) == blake3(data[:at]).digest(), f"{name}: a directory of another pack")
        key_count, origins, segments, chunks, proofs = struct.unpack("<2BHIH", cursor.take(10))
        keys = [cursor.take(cursor.number(2)) for _ in range(key_count)]
        signatures = [(cursor.take(16), cursor.take(64)) for _ in range(origins)]
        rows = [struct.unpack("<3I4B12s12s", cursor.take(40)) for _ in range(segments)]
        leaves = [blake3(data[row[0]:row[0] + row[1]]).digest() for row in rows]
        for _ in range(chunks):
            chunk_id, segment = cursor.take(32), cursor.number(2)
            row, offset, size = rows[segment], cursor.number(3), cursor.number(3)
            leaves[segment] += chunk_id + struct.pack("<I", size)
            self.places.setdefault(chunk_id[:16], []).append(
                (blake3(data).digest(), data[11], row, keys[row[5]], offset, size))
        leaves = [derive("lifeboat v1 segment leaf", leaf) for leaf in leaves]
        roots = {}
        for _ in range(proofs):
            segment, place, width = struct.unpack("<3H", cursor.take(6))
            node, leaves[segment] = leaves[segment], None
            while width > 1:
                if place % 2:
                    node = derive("lifeboat v1 segment node", cursor.take(32) + node)
                elif place + 1 < width:
                    node = derive("lifeboat v1 segment node", node + cursor.take(32))
                place, width = place // 2, (width + 1) // 2
            roots.setdefault(rows[segment][6], set()).add(node)
        for origin, (writer, signature) in enumerate(signatures):
            own = [leaf for leaf, row in zip(leaves, rows) if leaf is not None and row[6] == origin]
            for root in roots.get(origin, set()) | ({merkle(own)} if own else set()):
                verified(self.writers[writer], signature, b"lifeboat v1 pack origin" + self.id + root, name)

    # Section 15.
    def read_index(self):
        for name in self.names("index/*/*"):
            data = self.object(name, name.split("/")[2])
            self.preamble(data, INDEX, name)
            cursor = Bytes(data)
            cursor.take(32)
            salt, count, length = cursor.take(32), cursor.number(4), cursor.number(4)
            header = cbor2.loads(self.block(self.index_base, salt, INDEX, 0, count, cursor.take(length)))
            message, author = data[:cursor.at], header[0]
            need(author.hex() == name.split("/")[1], f"{name}: another author")
            if not self.counts(author, name):
                continue
            rows, blocks = {0: b"", 1: b"", 2: b""}, header[8]
            need(len(blocks) + 1 == count, f"{name}: wrong number of blocks")
            for number, (kind, _, _, stored, digest) in enumerate(blocks, 1):
                sealed = cursor.take(stored)
                need(blake3(sealed).digest() == digest, f"{name}: block {number} is damaged")
                rows[kind] += self.block(self.index_base, salt, INDEX, number, count, sealed)
            verified(self.writers[author], cursor.take(64), message, name)
            packs = [struct.unpack("<32s3I2BHI12x", rows[0][at:at + 64]) for at in range(0, len(rows[0]), 64)]
            for at in range(0, len(rows[2]), 28):
                prefix, pack, segment = struct.unpack("<16sIH", rows[2][at:at + 22])
                digest, _, _, _, kind, _, segments, first = packs[pack]
                need(segment < segments, f"{name}: a record without a segment")
                row = struct.unpack("<3I4B12s12s", rows[1][(first + segment) * 40:(first + segment + 1) * 40])
                offset = int.from_bytes(rows[2][at + 22:at + 25], "little")
                size = int.from_bytes(rows[2][at + 25:at + 28], "little")
                self.places.setdefault(prefix, []).append((digest, kind, row, header[3][row[5]], offset, size))

    # Section 4. The last segments stay open: neighbours come from the same one.
    def segment(self, pack, kind, row, sealed_key):
        offset, stored, plain, codec, _, _, _, n1, n2 = row
        if (pack, offset) not in self.packs:
            need(plain <= 8 * MIB and 16 <= stored <= 8 * MIB + 16, "a segment is too long")
            name = pack.hex()
            with open(self.root / "packs" / name[:2] / name, "rb") as file:
                file.seek(offset)
                sealed = file.read(stored)
            key = keyed(derive("lifeboat v1 segment key", self.data_key(sealed_key, kind)), n1)
            aad = struct.pack("<B16sHBIB3x", 1, self.id, 0, kind, plain, codec)
            data = opened(key, n2, sealed, aad)
            if codec == 1:
                data = zstandard.ZstdDecompressor().decompress(data, max_output_size=plain)
            need(codec <= 1 and len(data) == plain, "a segment has another length")
            if len(self.packs) == 16:
                self.packs.pop(next(iter(self.packs)))
            self.packs[pack, offset] = data
        return self.packs[pack, offset]

    def chunk(self, kind, chunk_id, length):
        problem = Damage(f"chunk {chunk_id.hex()} is nowhere")
        for pack, found, row, sealed_key, offset, size in self.places.get(chunk_id[:16], []):
            try:
                data = self.segment(pack, found, row, sealed_key)[offset:offset + size]
            except (Damage, OSError) as error:
                problem = error
                continue
            if found == kind and size == length and keyed(self.chunk_key, data + bytes([kind])) == chunk_id:
                return data
        raise problem

    # Section 10.
    def snapshots(self):
        for name in self.names("snapshots/*/*"):
            match = re.fullmatch(r"snapshots/([0-9a-f]{32})/(\d{10})-([0-9a-f]{64})", name)
            if not match or not (self.root / f"{name}.ok").exists():
                continue
            writer, sequence, digest = bytes.fromhex(match[1]), int(match[2]), match[3]
            public = self.writers[writer]
            if not self.counts(writer, name):
                continue
            said = self.signed((self.root / f"{name}.ok").read_bytes(), CONFIRMATION, public, f"{name}.ok")
            need([said[0], said[1], said[2].hex()] == [writer, sequence, digest], f"{name}.ok: of another snapshot")
            data = self.object(name, digest)
            self.preamble(data, SNAPSHOT, name)
            verified(public, data[-64:], data[:-64], name)
            cursor = Bytes(data[:-64])
            cursor.take(32)
            need([cursor.take(16), cursor.number(8)] == [writer, sequence], f"{name}: of another name")
            salt, sealed_key = cursor.take(32), cursor.take(cursor.number(2))
            body = self.block(self.data_key(sealed_key, TREE), salt, SNAPSHOT, 0, 1, cursor.take(cursor.number(4)))
            yield digest, cbor2.loads(body[4:4 + int.from_bytes(body[:4], "little")])

    # Sections 5 and 7: rows of a page and of all pages below it.
    def nodes(self, tree):
        level, page_id, length = tree
        cursor = Bytes(self.chunk(TREE, page_id, length))
        need(cursor.number(1) == (1 if level == 0 else 2) and level <= 8, "a page of another level")
        while cursor.left():
            row = cbor2.loads(cursor.take(cursor.number(4)))
            if level == 0:
                yield row
            else:
                yield from self.nodes([level - 1, row[1], row[2]])

    def content(self, node):
        if 11 in node:
            yield from self.rows(node[11])
        elif 12 in node:
            yield from self.list_page(*node[12][:3])

    def rows(self, data):
        for at in range(0, len(data), 35):
            yield data[at:at + 32], int.from_bytes(data[at + 32:at + 35], "little")

    def list_page(self, level, page_id, length):
        data = self.chunk(TREE, page_id, length)
        need(data[0] == (0x11 if level == 0 else 0x12) and level <= 8, "a list page of another level")
        if level == 0:
            yield from self.rows(data[1:])
        else:
            for at in range(1, len(data), 51):
                row = data[at:at + 51]
                yield from self.list_page(level - 1, row[:32], int.from_bytes(row[32:35], "little"))


class XWing:
    """Section 13: opens what was sealed to a key, by HPKE with X-Wing."""

    SUITE = b"HPKE" + bytes.fromhex("647a00010002")

    def __init__(self, seed):
        expanded = hashlib.shake_256(seed).digest(96)
        self.mlkem = MLKEM768PrivateKey.from_seed_bytes(expanded[:64])
        self.x25519 = X25519PrivateKey.from_private_bytes(expanded[64:])
        self.x_public = self.x25519.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        public = self.mlkem.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw) + self.x_public
        self.recipient = blake3(public).digest()[:16]

    def extract(self, salt, label, ikm):
        return hmac.digest(salt or bytes(32), b"HPKE-v1" + self.SUITE + label + ikm, "sha256")

    def expand(self, prk, label, info, length):
        info = length.to_bytes(2, "big") + b"HPKE-v1" + self.SUITE + label + info
        out = block = b""
        while len(out) < length:
            block = hmac.digest(prk, block + info + bytes([len(out) // 32 + 1]), "sha256")
            out += block
        return out[:length]

    def open(self, info, sealed):
        ciphertext, ephemeral, body = sealed[:1088], sealed[1088:1120], sealed[1120:]
        shared = self.mlkem.decapsulate(ciphertext)
        shared += self.x25519.exchange(X25519PublicKey.from_public_bytes(ephemeral))
        secret = hashlib.sha3_256(shared + ephemeral + self.x_public + bytes.fromhex("5c2e2f2f5e5c")).digest()
        context = b"\0" + self.extract(b"", b"psk_id_hash", b"") + self.extract(b"", b"info_hash", info)
        secret = self.extract(secret, b"secret", b"")
        key = self.expand(secret, b"key", context, 32)
        return opened(key, self.expand(secret, b"base_nonce", context, 12), body, b"")


class Restore:
    """Section 6: nodes to files. Names come from a repository that may be hostile."""

    def __init__(self, repository):
        self.repository, self.links, self.problems = repository, {}, 0

    def directory(self, tree, path):
        for node in self.repository.nodes(tree):
            name = node[0]
            need(name not in (b"", b".", b"..") and b"/" not in name and b"\0" not in name, f"a hostile name {name!r}")
            self.node(node, path + b"/" + name)

    def node(self, node, path):
        kind, link = node[1], node.get(20)
        need(not os.path.lexists(path), f"{path!r} is there already")
        if link and link in self.links:
            os.link(self.links[link], path, follow_symlinks=False)
            return
        if kind == 0:
            self.file(node, path)
        elif kind == 1:
            os.mkdir(path, 0o700)
            if 14 in node:
                self.directory(node[14], path)
        elif kind == 2:
            os.symlink(node[16], path)
        elif kind == 3:
            os.mkfifo(path)
        elif kind == 4:
            with socket.socket(socket.AF_UNIX) as file:
                here = os.open(os.path.dirname(path), os.O_RDONLY)
                file.bind(b"/proc/self/fd/%d/%s" % (here, os.path.basename(path)))
                os.close(here)
        elif kind in (5, 6):
            made = self.attempt(path, os.mknod, path, (stat.S_IFCHR if kind == 5 else stat.S_IFBLK) | 0o600, node[17])
            if not made:
                return
        else:
            return self.complain(path, "its content was not saved")
        if link:
            self.links[link] = path
        self.metadata(node, path)

    def file(self, node, path):
        size, holes = node.get(10, 0), node.get(13, [])
        at, holes = 0, dict(zip(holes[::2], holes[1::2]))
        with open(path, "xb") as file:
            for chunk_id, length in self.repository.content(node):
                data = self.repository.chunk(DATA, chunk_id, length)
                while data:
                    while at in holes:
                        at += holes[at]
                    end = min((hole for hole in holes if hole > at), default=at + len(data))
                    file.seek(at)
                    part, data = data[:end - at], data[end - at:]
                    at += file.write(part)
            while at in holes:
                at += holes[at]
            file.truncate(size)
        if at != size or node.get(21):
            self.complain(path, "it was not saved in full")

    def metadata(self, node, path):
        self.attempt(path, os.chown, path, node[3], node[4], follow_symlinks=False)
        if node[1] != 2:
            self.attempt(path, os.chmod, path, node[2])
        attributes = node.get(18, [])
        for name, value in zip(attributes[::2], attributes[1::2]):
            self.attempt(path, os.setxattr, path, name, value, follow_symlinks=False)
        changed = node[7][0] * 10**9 + node[7][1]
        seconds, nanos = node.get(8, node[7])
        self.attempt(path, os.utime, path, ns=(seconds * 10**9 + nanos, changed), follow_symlinks=False)

    def attempt(self, path, call, *arguments, **named):
        try:
            call(*arguments, **named)
            return True
        except OSError as error:
            self.complain(path, f"{call.__name__}: {error.strerror}")
            return False

    def complain(self, path, what):
        self.problems += 1
        print(f"{os.fsdecode(path)}: {what}", file=sys.stderr)


def key_file(path):
    parts = pathlib.Path(path).read_text("ascii").lower().split()
    need(len(parts) == 4 and parts[0] == "lifeboat-key-1", "not a key file")
    line = " ".join(["LIFEBOAT-KEY-1"] + parts[1:3])
    need(blake3(line.encode()).digest()[:4].hex() == parts[3], "the key file has a typing error")
    key = derive("lifeboat v1 slot key file", bytes.fromhex(parts[2]))
    return lambda slot: keyed(key, slot[3], 64) if slot[0] == 2 else None


def password_file(path):
    password = pathlib.Path(path).read_bytes().splitlines()[0]

    def unlock(slot):
        if slot[0] != 1:
            return None
        memory, passes, lanes = slot[2]
        need(65536 <= memory <= MIB and 3 <= passes <= 16 and 1 <= lanes <= 4, "costs of a key slot")
        return hash_secret_raw(password, slot[3], passes, memory, lanes, 64, Type.ID)
    return unlock


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("repository", type=pathlib.Path)
    keys = parser.add_mutually_exclusive_group(required=True)
    keys.add_argument("--key-file")
    keys.add_argument("--password-file")
    parser.add_argument("--snapshot", default="latest", help="the first digits of its name, or latest")
    parser.add_argument("--from-packs", action="store_true", help="do without the index: read every pack's directory")
    parser.add_argument("--target", required=True, help="a directory that does not exist")
    options = parser.parse_args()
    unlock = key_file(options.key_file) if options.key_file else password_file(options.password_file)
    repository = Repository(options.repository, unlock, options.from_packs)
    found = sorted(repository.snapshots(), key=lambda pair: pair[1][0])
    if options.snapshot != "latest":
        found = [pair for pair in found if pair[0].startswith(options.snapshot)]
    need(found, "no such snapshot")
    digest, snapshot = found[-1]
    print(f"snapshot {digest[:8]} of {os.fsdecode(snapshot[2])}: {snapshot[8][0]} entries", file=sys.stderr)
    if 17 in snapshot:
        base = snapshot[17]
        need(all(key in base for key in range(15)) and base[6] <= base[7], "base backup")
        lsn = [f"{at >> 32:X}/{at & 0xffffffff:X}" for at in (base[6], base[7])]
        print(f"base backup of PostgreSQL {base[3] // 10000}: log {lsn[0]} to {lsn[1]} of timeline {base[5]}", file=sys.stderr)
    os.mkdir(options.target, 0o700)
    restore = Restore(repository)
    if 7 in snapshot:
        restore.directory(snapshot[7], os.fsencode(options.target))
    return 3 if restore.problems else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Damage as damage:
        sys.exit(f"{damage}")
