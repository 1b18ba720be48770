#!/usr/bin/env python3
"""Makes the bytes of the golden vectors from docs/format.md. Knows nothing of the library.

Run it in this folder, then fill in what the good ones decode to: LIFEBOAT_BLESS=1 cargo test --test format every_vector."""
import pathlib
import shutil
import struct
import textwrap

ROOT = pathlib.Path(__file__).parent / "vectors"
REPO = bytes([0x11]) * 16
u8, u16, u32, u64 = (lambda n, f=f: struct.pack(f, n) for f in ("<B", "<H", "<I", "<Q"))


def u24(n):
    return u32(n)[:3]


def rep(byte, count):
    return bytes([byte]) * count


def cbor(value):
    """Deterministic CBOR of int, bytes, str, list and dict with integer keys."""
    def head(major, n):
        if n < 24:
            return bytes([major << 5 | n])
        for info, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
            if n < 1 << 8 * size:
                return bytes([major << 5 | info]) + n.to_bytes(size, "big")
        raise ValueError(n)
    if isinstance(value, int):
        return head(0, value) if value >= 0 else head(1, -1 - value)
    if isinstance(value, bytes):
        return head(2, len(value)) + value
    if isinstance(value, str):
        return head(3, len(value.encode())) + value.encode()
    if isinstance(value, list):
        return head(4, len(value)) + b"".join(map(cbor, value))
    return head(5, len(value)) + b"".join(cbor(k) + cbor(v) for k, v in value.items())


def preamble(kind, chunk_kind=0, repo=REPO, version=1, magic=b"LIFEBOAT"):
    return magic + u16(version) + u8(kind) + u8(chunk_kind) + u16(0) + u16(0) + repo


def vector(kind, name, comment, data, error=None, given=None):
    folder = ROOT / kind
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"comment: {comment}", f"expect: {'error ' + error if error else 'ok'}"]
    if given is not None:
        lines.append(f"given: {given}")
    path = folder / f"{name}.txt"
    assert not path.exists(), path
    path.write_text("\n".join(lines + ["bytes:"] + textwrap.wrap(data.hex(), 96)) + "\n")


def value(section, what):
    return f'Value {{ section: "{section}", what: "{what}" }}'


def broken(section, what):
    return f'Cbor {{ section: "{section}", what: "{what}" }}'


TRUNCATED, TRAILING = "Truncated", "TrailingBytes"


def names():
    h, w = "ab" * 32, "07" * 16
    for name, text in {
        "config": f"config/0000000003-{h}", "keys": f"keys/{h}", "writer": f"writers/{w}/0000000000-{h}",
        "pack": f"packs/ab/{h}", "index": f"index/{w}/{h}", "snapshot": f"snapshots/{w}/9999999999-{h}",
        "confirmation": f"snapshots/{w}/0000000001-{h}.ok", "condemned": f"gc/condemned/{h}",
        "horizon": f"gc/horizon/0000000012-{h}", "removed": f"gc/removed/{h}", "undone": f"gc/undone/{h}",
        "trimmed": f"gc/trimmed/{h}",
        "tomb": f"tombs/{h}-{h}", "hold": f"holds/{h}", "labels": f"labels/{h}-{h}", "anchor": f"anchors/{h}", "verified": f"ledger/{h}",
        "cluster": f"clusters/{w}/0000000002-{h}",
        "segment": f"streams/{w}/0000000001/0000000A/00000002/0000000A000000020000001F-{w}-{h}-{h}",
        "partial": f"streams/{w}/0000000001/0000000A/00000002/0000000A000000020000001F.partial-{w}-{h}-{h}",
        "backup": f"streams/{w}/0000000001/0000000A/00000002/0000000A000000020000001F.00000028.backup-{w}-{h}-{h}",
        "history": f"streams/{w}/0000000012/history/0000000A.history-{w}-{h}-{h}",
    }.items():
        vector("name", name, "a name of section 1", text.encode())
    bad = ["", "config", "config/", f"config/3-{h}", f"config/+000000003-{h}", f"config/0000000003-{h[:-1]}",
           f"config/0000000003{h}", f"config/00000000003-{h}", f"keys/{h.upper()}", f"keys/{h}/", f"/keys/{h}",
           f"writers/{h}/0000000000-{h}", f"writers/{w}/{h}", f"packs/cd/{h}", f"packs/{h}", f"packs/ab/{h}/x",
           f"packs/AB/{h}", f"index/{h}", f"index/{w}/{h}.ok", f"snapshots/{w}/0000000001-{h}.okay",
           f"snapshots/{w}/0000000001-{h}.ok.ok", f"snapshots/0000000001-{h}", f"gc/{h}", "gc/condemned/",
           f"gc/condemned/x/{h}", f"gc/horizon/{h}", f"tombs/{h}", f"tombs/{h}{h}", f"gc/removed/{h}-{h}", f"gc/undone/x{h}", f"holds/{h}-{h}",
           f"labels/{h}", f"labels/{h}-{h}.x", f"gc/other/{h}", f"gc/removed/{h}/", f"gc/undone/{h[2:]}", "holds/", f"holds/{w}",
           f"gc/horizon/12-{h}", f"gc//{h}", f"tombs/{w}-{h}", f"locks/{h}", "../../etc/passwd",
           f"anchors/{h}-{h}", f"anchors/{h}/x", f"anchors/{w}",
           f"clusters/{w}/2-{h}", f"clusters/{h}/0000000002-{h}", f"clusters/{w}/{h}",
           f"streams/{w}/0000000001/00000001/00000002/0000000A000000020000001F-{w}-{h}-{h}",
           f"streams/{w}/0000000001/0000000A/00000003/0000000A000000020000001F-{w}-{h}-{h}",
           f"streams/{w}/1/0000000A/00000002/0000000A000000020000001F-{w}-{h}-{h}",
           f"streams/{w}/0000000001/0000000a/00000002/0000000a000000020000001f-{w}-{h}-{h}",
           f"streams/{w}/0000000001/0000000A/00000002/0000000A000000020000001F-{h}-{h}",
           f"streams/{w}/0000000001/0000000A/00000002/0000000A000000020000001F-{w}-{h}-{h}-{h}",
           f"streams/{w}/0000000001/00000000/00000002/00000000000000020000001F-{w}-{h}-{h}",
           f"streams/{w}/0000000001/history/0000000A000000020000001F-{w}-{h}-{h}",
           f"streams/{w}/0000000001/0000000A/0000000A.history-{w}-{h}-{h}", f"streams/{w}/0000000001/history/0000000A.history-{w}-{h}",
           f"streams/{w}/history/0000000A.history-{w}-{h}-{h}", f"streams/{w}/0000000001/0000000A/00000002/RECOVERYXLOG-{w}-{h}-{h}",
           f"gc/trimmed/{h[2:]}", f"gc/trimmed/x{h}", f"gc/trimmed/{h}-{h}", f"gc/trimmed/{w}/{h}",
           f"ledger/{w}", f"ledger/{h}-{h}", f"ledger/{h}/x", "ledger/"]
    for number, text in enumerate(bad):
        vector("name", f"bad-{number:02}", "not a name of section 1", text.encode(), "not a name")


def preambles():
    vector("preamble", "pack", "a pack of trees", preamble(4, 1))
    vector("preamble", "bad-magic", "one letter off", preamble(4, magic=b"LIFEBOAR"), "NotLifeboat")
    vector("preamble", "bad-version", "version 2", preamble(4, version=2), "Version { found: 2 }")
    vector("preamble", "bad-version-zero", "version 0", preamble(4, version=0), "Version { found: 0 }")
    vector("preamble", "bad-kind", "kind 20 is not listed", preamble(20), value(2, "object kind"))
    vector("preamble", "bad-chunk-kind", "chunk kind 2", preamble(4, 2), value(2, "chunk kind"))
    vector("preamble", "bad-short", "31 bytes", preamble(4)[:-1], TRUNCATED)


def segment_row(offset=32, stored=116, plain=4000, codec=1, flags=0, key=0, origin=0):
    return u32(offset) + u32(stored) + u32(plain) + bytes([codec, flags, key, origin]) + rep(0xa1, 12) + rep(0xa2, 12)


def segments():
    most = 8 << 20
    vector("segment-row", "zstd", "an ordinary segment, fading", segment_row(flags=1))
    vector("segment-row", "largest", "the longest segment there can be", segment_row(4096, most + 16, most, 0))
    vector("segment-row", "bad-codec", "codec 2", segment_row(codec=2), value(4, "codec"))
    vector("segment-row", "bad-plain", "plaintext too long", segment_row(plain=most + 1), value(4, "segment length"))
    vector("segment-row", "bad-stored", "stored too long", segment_row(stored=most + 17), value(4, "segment length"))
    vector("segment-row", "bad-tag", "shorter than its tag", segment_row(stored=15), value(4, "segment length"))
    vector("segment-row", "bad-end", "ends behind 4 GiB", segment_row(offset=0xffff_fff0), value(4, "segment length"))
    vector("segment-row", "bad-short", "39 bytes", segment_row()[:-1], TRUNCATED)


def packs():
    def footer(d_at=1000, d_len=500, p_at=1500, p_len=0, reserved=0, magic=b"LBPACKv1"):
        return u32(d_at) + u32(d_len) + u32(p_at) + u32(p_len) + rep(0x5a, 32) + u64(reserved) + magic
    bad = value(3, "footer")
    vector("pack-footer", "plain", "a pack of 1564 bytes", footer(), given=1564)
    vector("pack-footer", "parity", "with parity of 100 bytes", footer(p_len=100), given=1664)
    for name, data, length in [
        ("gap", footer(p_at=1501), 1564), ("short-pack", footer(), 1563), ("long-pack", footer(), 1565),
        ("reserved", footer(reserved=1), 1564), ("magic", footer(magic=b"LBPACKv2"), 1564),
        ("in-preamble", footer(d_at=31, d_len=1469), 1564), ("too-long", footer(d_at=64 << 20, p_at=(64 << 20) + 500), (64 << 20) + 564),
        ("overflow", footer(d_at=0xffff_ffff, d_len=0xffff_ffff), 1564),
    ]:
        vector("pack-footer", f"bad-{name}", "ranges that do not follow each other to the end, or reserved bytes", data, bad, length)
    vector("pack-footer", "bad-cut", "63 bytes", footer()[:-1], TRUNCATED, 1564)

    def proof(segment=0, leaf=3, leaves=5, siblings=3):
        return u16(segment) + u16(leaf) + u16(leaves) + b"".join(rep(0x61 + n, 32) for n in range(siblings))

    def directory(keys=(b"sealed key",), origins=1, rows=None, chunks=None, proofs=(), pad=rep(0, 6)):
        rows = [segment_row(), segment_row(148, 216, 100, 0)] if rows is None else rows
        chunks = [(1, 0, 0, 3000), (2, 0, 3000, 1000), (3, 1, 0, 100)] if chunks is None else chunks
        out = rep(0xbb, 32) + u8(len(keys)) + u8(origins) + u16(len(rows)) + u32(len(chunks)) + u16(len(proofs))
        out += b"".join(u16(len(k)) + k for k in keys) + origins * (rep(0x07, 16) + rep(0x51, 64)) + b"".join(rows)
        return out + b"".join(rep(i, 32) + u16(s) + u24(o) + u24(n) for i, s, o, n in chunks) + b"".join(proofs) + pad
    moved = value(3, "proof table")
    table, chunk = value(3, "segment table"), value(3, "chunk table")
    vector("pack-directory", "two-segments", "two segments, three chunks, padding", directory(), given=400)
    vector("pack-directory", "empty", "nothing at all", directory((), 0, [], [], (), b""), given=32)
    vector("pack-directory", "moved", "two segments that were moved here: leaf 3 of 5, and the last of 5, which rises alone",
           directory(proofs=(proof(), proof(1, 4, 5, 1))), given=400)
    for name, data, error in [
        ("gap", directory(rows=[segment_row(), segment_row(149, 216, 100, 0)]), table),
        ("overlap", directory(rows=[segment_row(), segment_row(147, 216, 100, 0)]), table),
        ("first", directory(rows=[segment_row(33), segment_row(149, 216, 100, 0)]), table),
        ("behind-body", directory(rows=[segment_row(), segment_row(148, 253, 100, 0)]), table),
        ("no-key", directory(keys=()), table), ("no-origin", directory(origins=0), table),
        ("chunk-order", directory(chunks=[(2, 0, 3000, 1000), (1, 0, 0, 3000), (3, 1, 0, 100)]), chunk),
        ("outside-segment", directory(chunks=[(1, 0, 3000, 1001)]), chunk),
        ("no-segment", directory(chunks=[(1, 2, 0, 1)]), chunk), ("no-length", directory(chunks=[(1, 0, 0, 0)]), chunk),
        ("proof-order", directory(proofs=(proof(1), proof(0))), moved), ("proof-twice", directory(proofs=(proof(), proof())), moved),
        ("proof-leaf", directory(proofs=(proof(leaf=5),)), moved), ("proof-no-segment", directory(proofs=(proof(2),)), moved),
        ("proof-cut", directory(proofs=(proof(siblings=2),), pad=b""), TRUNCATED),
        ("padding", directory(pad=b"\0\0\1"), value(3, "padding of the directory")),
        ("long-key", directory(keys=(rep(1, 16385),)), value(3, "length of a sealed data key")),
        ("count", directory()[:36] + u32(0xffff_ffff) + directory()[40:], TRUNCATED), ("cut", directory(pad=b"")[:-1], TRUNCATED),
    ]:
        vector("pack-directory", f"bad-{name}", "a table that points outside", data, error, 400)


def node(**fields):
    keys = {"name": 0, "kind": 1, "mode": 2, "uid": 3, "gid": 4, "user": 5, "group": 6, "mtime": 7, "atime": 8, "btime": 9,
            "size": 10, "rows": 11, "list": 12, "holes": 13, "tree": 14, "totals": 15, "target": 16, "rdev": 17, "xattrs": 18,
            "flags": 19, "link": 20, "problem": 21, "later": 99}
    base = {"name": b"a", "kind": 0, "mode": 0o644, "uid": 0, "gid": 0, "mtime": [0, 0]}
    merged = {keys[k]: v for k, v in {**base, **fields}.items() if v is not None}
    return dict(sorted(merged.items()))


def row(i, n):
    return rep(i, 32) + u24(n)


def nodes():
    full = node(name=b"caf\xe9", mode=0o4755, uid=1000, gid=4_000_000_000, user=b"ann", group=b"staff", mtime=[-1, 999_999_999],
                atime=[1_700_000_000, 1], btime=[0, 0], size=1 << 40, rows=row(1, 8 << 20) + row(2, 1), holes=[4096, 8192, 20480, 1],
                xattrs=[b"security.capability", rep(1, 20), b"user.x", b""], flags=0x10, link=rep(9, 16), problem=2)
    good = {
        "least": ("an empty file", node()), "full": ("a file with every field", full),
        "paged": ("a long file", node(size=1 << 42, list=[1, rep(3, 32), 5000, 1 << 20])),
        "directory": ("a directory", node(kind=1, mode=0o1777, tree=[2, rep(4, 32), 70000], totals=[3, 2, 1 << 33])),
        "symlink": ("a symbolic link", node(kind=2, mode=0o777, target=b"../x\xff")),
        "device": ("a device", node(kind=6, rdev=0xfd00)), "unreadable": ("nothing of it could be read", node(kind=7, problem=1)),
    }
    for name, (comment, fields) in good.items():
        vector("node", name, comment, cbor(fields))

    def v(what):
        return value(6, what)
    least = cbor(node())
    for name, data, error in [
        ("no-name", cbor(node(name=None)), v("node name")), ("empty-name", cbor(node(name=b"")), v("node name")),
        ("long-name", cbor(node(name=rep(97, 4097))), v("node name")), ("text-name", cbor(node(name="a")), broken(6, "node")),
        ("kind", cbor(node(kind=8)), v("node kind")), ("mode", cbor(node(mode=0o10000)), v("mode")),
        ("uid", cbor(node(uid=1 << 32)), broken(6, "node")), ("nanos", cbor(node(mtime=[0, 1_000_000_000])), v("time")),
        ("time-long", cbor(node(mtime=[0, 0, 0])), v("time")), ("rows-cut", cbor(node(rows=row(1, 5)[:-1])), value(7, "length of the chunk list")),
        ("row-empty", cbor(node(rows=row(1, 0))), value(7, "length of a chunk")),
        ("row-long", cbor(node(rows=row(1, (8 << 20) + 1))), value(7, "length of a chunk")),
        ("list-short", cbor(node(list=[1, rep(3, 32), 5000])), v("chunk list")), ("list-id", cbor(node(list=[1, rep(3, 31), 5000, 1])), v("chunk list")),
        ("hole-odd", cbor(node(holes=[1, 2, 3])), v("holes")), ("hole-order", cbor(node(holes=[10, 5, 14, 1])), v("holes")),
        ("hole-empty", cbor(node(holes=[10, 0])), v("holes")), ("hole-end", cbor(node(holes=[(1 << 64) - 1, 1])), v("holes")),
        ("hole-count", least[:0] + b"\xa7" + least[1:] + cbor(13) + b"\x9b" + (1 << 40).to_bytes(8, "big"), v("holes")),
        ("tree-short", cbor(node(tree=[1, rep(1, 32)])), v("tree reference")), ("tree-level", cbor(node(tree=[256, rep(1, 32), 1])), broken(6, "node")),
        ("totals", cbor(node(totals=[1, 2])), v("totals")), ("target", cbor(node(target=rep(97, 65537))), v("link target")),
        ("xattr-odd", cbor(node(xattrs=[b"user.x"])), v("attributes")), ("xattr-long", cbor(node(xattrs=[b"user.x", rep(0, 65537)])), v("attribute value")),
        ("link", cbor(node(link=rep(1, 15))), v("hard link")), ("problem", cbor(node(problem=3)), v("problem")),
        ("order", b"\xa2\x01\x00\x00\x41a", v("order of fields")), ("twice", b"\xa2\x00\x41a\x00\x41a", v("order of fields")),
        ("indefinite", b"\xbf" + least[1:] + b"\xff", v("node")), ("trailing", least + b"\0", TRAILING), ("cut", least[:-1], broken(6, "node")),
        ("array", b"\x80", broken(6, "node")), ("nothing", b"", broken(6, "node")),
    ]:
        vector("node", f"bad-{name}", "a field that section 6 or 7 does not allow", data, error)


def pages():
    def page(tag, rows):
        return u8(tag) + b"".join(u32(len(r)) + r for r in rows)
    nodes_ = [cbor(node(name=b"a")), cbor(node(name=b"b", kind=1))]
    refs = [cbor([b"a", rep(1, 32), 9000]), cbor([b"m", rep(2, 32), 300000])]
    vector("tree-page", "nodes", "two entries", page(1, nodes_), given=0)
    vector("tree-page", "pages", "two pages one level down", page(2, refs), given=1)
    kind, bad = value(5, "kind of a tree page"), broken(5, "row of a tree page")
    for name, data, error, level in [
        ("level", page(1, nodes_), kind, 1), ("level-zero", page(2, refs), kind, 0), ("too-deep", page(2, refs), kind, 9),
        ("tag", page(3, nodes_), kind, 0), ("nothing", b"", kind, 0), ("cut", page(1, nodes_)[:-1], TRUNCATED, 0),
        ("length", u8(1) + u32(0xffff_ffff), TRUNCATED, 0), ("fields", page(2, [cbor([b"a", rep(1, 32), 1, 2])]), bad, 1),
        ("id", page(2, [cbor([b"a", rep(1, 31), 1])]), bad, 1), ("trailing", page(2, [refs[0] + b"\0"]), bad, 1),
        ("id-type", page(2, [cbor([b"a", 7, 1])]), bad, 1), ("empty-row", page(2, [b""]), bad, 1),
    ]:
        vector("tree-page", f"bad-{name}", "a page that section 5 does not allow", data, error, level)
    vector("list-page", "rows", "three chunks", u8(0x11) + row(1, 65536) + row(2, 1) + row(3, 8 << 20))
    vector("list-page", "pages", "two pages", u8(0x12) + row(1, 9000) + u64(1 << 33) + u64(4096) + row(2, 900) + u64(7) + u64(1))
    for name, data, error in [
        ("tag", u8(0x13) + row(1, 1), value(7, "kind of a list page")), ("nothing", b"", value(7, "kind of a list page")),
        ("cut", u8(0x11) + row(1, 1)[:-1], value(7, "length of the chunk list")), ("empty-row", u8(0x11) + row(1, 0), value(7, "length of a chunk")),
        ("long-row", u8(0x11) + row(1, 0xffffff), value(7, "length of a chunk")), ("cut-page", u8(0x12) + row(1, 9) + u64(1), TRUNCATED),
    ]:
        vector("list-page", f"bad-{name}", "a page that section 7 does not allow", data, error)


def signed_values():
    def signed(data, kind=1, tail=rep(0x99, 64), length=None, repo=REPO):
        return preamble(kind, repo=repo) + u32(len(data) if length is None else length) + data + tail
    vector("signed", "config", "any value", signed(b"\xa0"), given=0)
    vector("signed", "bad-kind", "a writer where a config belongs", signed(b"\xa0", 3), "WrongKind { expected: 1, found: 3 }", 0)
    vector("signed", "bad-repository", "of another repository", signed(b"\xa0", repo=rep(0x12, 16)),
           "ForeignRepository { found: RepositoryId(12121212) }", 0)
    vector("signed", "bad-length", "longer than the object", signed(b"\xa0", length=0xffff_ffff), TRUNCATED, 0)
    vector("signed", "bad-cut", "signature of 63 bytes", signed(b"\xa0", tail=rep(0x99, 63)), TRUNCATED, 0)
    vector("signed", "bad-trailing", "a byte too many", signed(b"\xa0", tail=rep(0x99, 65)), TRAILING, 0)

    def config(**change):
        names_ = ["repo", "suite", "root", "recipients", "params", "created", "probe", "lock"]
        base = [REPO, 1, rep(0x22, 32), [[0, rep(0x33, 40)], [1, rep(0x44, 40)]], [16384, 65536, 262144], -5, 7, None]
        fields = {i: change.get(n, b) for i, (n, b) in enumerate(zip(names_, base))}
        return cbor({k: v for k, v in fields.items() if v is not None})
    vector("config", "two-recipients", "a config as init makes it, with short keys", config())
    vector("config", "locked", "every object is locked for 30 days", config(lock=[1, 30 * 86400]))
    for name, data, error in [
        ("suite", config(suite=2), value(9, "suite")), ("no-suite", config(suite=None), value(9, "suite")),
        ("purpose", config(recipients=[[2, b"x"]]), value(9, "purpose of a recipient")),
        ("recipient", config(recipients=[[0]]), value(9, "recipient")), ("recipients", config(recipients=[[0, b"x"]] * 257), value(9, "length of a list")),
        ("key", config(recipients=[[0, rep(1, 4097)]]), value(9, "length of a field")), ("params", config(params=[1, 2]), value(9, "chunk parameters")),
        ("lock-mode", config(lock=[2, 1]), value(9, "lock")), ("lock-time", config(lock=[0, 0]), value(9, "lock")),
        ("lock-short", config(lock=[1]), value(9, "lock")), ("lock-long", config(lock=[1, 1, 1]), value(9, "length of a list")),
        ("root", config(root=rep(1, 31)), value(9, "length of a field")), ("trailing", config() + b"\0", TRAILING),
        ("cut", config()[:-1], broken(9, "config")), ("list-bomb", b"\xa1\x03\x9b" + rep(0xff, 8), value(9, "length of a list")),
    ]:
        vector("config", f"bad-{name}", "a field that section 9 does not allow", data, error)

    writer = {0: rep(7, 16), 1: rep(8, 32), 2: 1}
    vector("writer", "maintainer", "a writer that may condemn", cbor(writer))
    vector("writer", "verifier", "one that may write nothing", cbor({**writer, 2: 2}))
    accepted = [rep(1, 32), rep(2, 32)]
    vector("writer", "closing", "a writer that is being revoked", cbor({**writer, 3: 1, 4: accepted}))
    vector("writer", "revoked", "a revoked writer of which two objects count", cbor({**writer, 3: 2, 4: accepted}))
    bomb = b"\xa1\x04\x9a" + (400_001).to_bytes(4, "big")
    vector("writer", "bad-bomb", "a long list of what counts", bomb, value(9, "length of a list"))
    for name, data, error in [
        ("authority", {**writer, 2: 3}, value(9, "writer")), ("id", {**writer, 0: rep(7, 17)}, value(9, "length of a field")),
        ("no-key", {0: rep(7, 16), 2: 0}, value(9, "writer")), ("no-id", {1: rep(8, 32), 2: 0}, value(9, "writer")),
        ("no-authority", {0: rep(7, 16), 1: rep(8, 32)}, value(9, "writer")), ("key-type", {**writer, 1: "x"}, broken(9, "writer")),
        ("standing", {**writer, 3: 3, 4: accepted}, value(9, "standing of a writer")),
        ("no-list", {**writer, 3: 2}, value(9, "standing of a writer")), ("list-alone", {**writer, 4: accepted}, value(9, "standing of a writer")),
        ("item", {**writer, 3: 2, 4: [rep(1, 31)]}, value(9, "length of a field")),
        ("standing-type", {**writer, 3: "x", 4: accepted}, broken(9, "writer")),
    ]:
        vector("writer", f"bad-{name}", "a field that section 9 does not allow", cbor(data), error)

    confirmation = {0: rep(7, 16), 1: 12, 2: rep(0xcc, 32)}
    vector("confirmation", "plain", "of snapshot 12", cbor(confirmation))
    for name, data, error in [
        ("no-hash", {0: rep(7, 16), 1: 12}, value(10, "confirmation")), ("sequence", {**confirmation, 1: -1}, broken(10, "confirmation")),
        ("hash", {**confirmation, 2: rep(0xcc, 16)}, value(10, "length of a field")),
    ]:
        vector("confirmation", f"bad-{name}", "a field that section 10 does not allow", cbor(data), error)

    collections()


def ledger():
    me, nonce, two = rep(7, 16), rep(9, 16), [rep(1, 32), rep(2, 32)]
    record = {0: me, 1: two, 2: nonce, 3: 1, 4: 600, 5: [rep(3, 32)], 6: 1_800_000_000_000_000_000}
    vector("verified", "part", "of a run that goes on", cbor(record))
    vector("verified", "end", "the end of a run that found nothing", cbor({**record, 3: 0, 5: [], 7: 0}))
    for key in record:
        rest = {other: item for other, item in record.items() if other != key}
        vector("verified", f"bad-no-{key}", f"without field {key}", cbor(rest), value(22, "record"))
    bomb = b"\xa1\x01\x9a" + (65_537).to_bytes(4, "big")
    vector("verified", "bad-bomb", "a long list", bomb, value(22, "length of a list"))
    for name, data, error in [
        ("author", {**record, 0: rep(7, 15)}, value(22, "length of a field")), ("look", {**record, 3: 2}, value(22, "look")),
        ("item", {**record, 1: [rep(1, 31)]}, value(22, "length of a field")),
        ("order", {**record, 1: two[::-1]}, value(22, "order of what was verified")),
        ("twice", {**record, 5: [rep(3, 32)] * 2}, value(22, "order of what was verified")),
        ("seconds", {**record, 4: -1}, broken(22, "record")),
    ]:
        vector("verified", f"bad-{name}", "a field that section 22 does not allow", cbor(data), error)
    vector("verified", "bad-cut", "one byte less", cbor(record)[:-1], broken(22, "record"))
    vector("verified", "bad-more", "one byte more", cbor(record) + b"\0", TRAILING)


def collections():
    me, nonce, two = rep(7, 16), rep(9, 16), [rep(1, 32), rep(2, 32)]
    good = {
        "condemnation": ("two", "two packs", {0: me, 1: two, 2: nonce}),
        "horizon": ("twelve", "number 12", {0: me, 1: 12, 2: nonce}),
        "tomb": ("policy", "of a policy", {0: me, 1: rep(6, 16), 2: 5, 3: rep(1, 32), 4: 0, 5: nonce}),
        "undo": ("two", "of two tombs", {0: me, 1: two}),
        "removal": ("two", "of two snapshots", {0: me, 1: two, 2: nonce}),
        "hold": ("until", "with an end", {0: me, 1: two, 2: nonce, 3: 1_800_000_000_000_000_000}),
        "trim": ("two", "of two timelines", {0: me, 1: rep(6, 16), 2: 1, 3: [[1, 0x300_0000], [3, 0x500_0000]], 4: nonce}),
    }
    for kind, (name, what, fields) in good.items():
        vector(kind, name, what, cbor(fields))
        least = {key: item for key, item in fields.items() if (kind, key) != ("hold", 3)}
        for key in least:
            rest = {other: item for other, item in fields.items() if other != key}
            vector(kind, f"bad-no-{key}", f"without field {key}", cbor(rest), value(11, kind))
        vector(kind, "bad-author", "a short author", cbor({**fields, 0: rep(7, 15)}), value(11, "length of a field"))
        vector(kind, "bad-cut", "one byte less", cbor(fields)[:-1], broken(11, kind))
        vector(kind, "bad-more", "one byte more", cbor(fields) + b"\0", TRAILING)
        if isinstance(fields[1], list):
            bomb = b"\xa1\x01\x9a" + (400_001).to_bytes(4, "big")
            vector(kind, "bad-bomb", "a long list", bomb, value(11, "length of a list"))
            vector(kind, "bad-item", "a short item", cbor({**fields, 1: [rep(1, 31)]}), value(11, "length of a field"))
    vector("hold", "for-ever", "without an end", cbor({0: me, 1: two, 2: nonce}))
    trim = good["trim"][2]
    bomb = b"\xa1\x03\x9a" + (65_537).to_bytes(4, "big")
    vector("trim", "bad-bomb", "a long list", bomb, value(11, "length of a list"))
    for name, below, error in [
        ("none", [[0, 1]], "timeline of a trim"), ("short", [[1]], "timeline of a trim"), ("order", [[2, 1], [1, 1]], "trim"),
    ]:
        vector("trim", f"bad-{name}", "timelines that section 11 does not allow", cbor({**trim, 3: below}), value(11, error))
    removal = {0: me, 1: two, 2: nonce, 3: [rep(3, 32)]}
    vector("removal", "list", "in the place of another one", cbor(removal))
    bomb = b"\xa1\x03\x9a" + (50_001).to_bytes(4, "big")
    vector("removal", "bad-replaces-bomb", "a long list of what it replaces", bomb, value(11, "length of a list"))
    vector("removal", "bad-replaces", "a short item in what it replaces", cbor({**removal, 3: [rep(3, 31)]}), value(11, "length of a field"))
    ledger()
    anchor = {0: me, 1: 3, 2: [[rep(6, 16), 1], [me, 0]], 3: two}
    vector("anchor", "first", "of two snapshots", cbor(anchor))
    vector("anchor", "next", "on another one, which names all", cbor({**anchor, 3: [], 4: rep(5, 32)}))
    for key in anchor:
        rest = {other: item for other, item in anchor.items() if other != key}
        vector("anchor", f"bad-no-{key}", f"without field {key}", cbor(rest), value(11, "anchor"))
    for name, data, error in [
        ("writer", {**anchor, 2: [[me]]}, value(11, "writer of an anchor")), ("writer-id", {**anchor, 2: [[rep(6, 15), 1]]}, value(11, "length of a field")),
        ("item", {**anchor, 3: [rep(1, 31)]}, value(11, "length of a field")), ("base", {**anchor, 4: rep(5, 31)}, value(11, "length of a field")),
    ]:
        vector("anchor", f"bad-{name}", "a field that section 11 does not allow", cbor(data), error)
    for key, most in [(2, 65_536), (3, 400_000)]:
        bomb = bytes([0xa1, key, 0x9a]) + (most + 1).to_bytes(4, "big")
        vector("anchor", f"bad-bomb-{key}", "a long list", bomb, value(11, "length of a list"))
    tomb = good["tomb"][2]
    vector("tomb", "bad-reason", "a reason that is not listed", cbor({**tomb, 4: 3}), value(11, "tomb"))


def labels():
    fields = {0: rep(1, 32), 1: 3, 2: ["a", "k=v"]}

    def body(value_, pad=None):
        data = u32(len(value_)) + value_
        return data + rep(0, padme(len(data)) - len(data)) if pad is None else data + pad
    vector("labels-body", "two", "two tags", body(cbor(fields)))
    vector("labels-body", "none", "no tags from now on", body(cbor({**fields, 2: []})))
    for name, data, error in [
        ("no-snapshot", body(cbor({1: 3, 2: []})), value(11, "labels")), ("no-number", body(cbor({0: rep(1, 32), 2: []})), value(11, "labels")),
        ("no-tags", body(cbor({0: rep(1, 32), 1: 3})), value(11, "labels")), ("snapshot", body(cbor({**fields, 0: rep(1, 31)})), value(11, "length of a field")),
        ("number", body(cbor({**fields, 1: -1})), broken(11, "labels")), ("tag", body(cbor({**fields, 2: [b"a"]})), broken(11, "labels")),
        ("long-tag", body(cbor({**fields, 2: ["a" * 65537]})), value(11, "length of a field")),
        ("bomb", body(b"\xa1\x02\x9a" + (16385).to_bytes(4, "big")), value(11, "length of a list")),
        ("padding", body(cbor(fields), b"\0\1"), value(11, "padding")), ("length", u32(0xffff_ffff) + cbor(fields), TRUNCATED),
        ("trailing", body(cbor(fields) + b"\0"), TRAILING), ("order", body(b"\xa2\x01\x00\x00\x00"), value(11, "order of fields")),
    ]:
        vector("labels-body", f"bad-{name}", "a field that section 11 does not allow", data, error)

    def labels_(kind=14, key=b"sealed key", body_=rep(0x77, 40), key_len=None, body_len=None, tail=rep(0x99, 64), repo=REPO):
        return (preamble(kind, 1, repo) + rep(7, 16) + rep(0x5a, 32) + u16(len(key) if key_len is None else key_len) + key
                + u32(len(body_) if body_len is None else body_len) + body_ + tail)
    vector("labels", "plain", "with stand-ins for the sealed parts", labels_())
    for name, data, error in [
        ("kind", labels_(6), "WrongKind { expected: 14, found: 6 }"), ("key", labels_(key=rep(1, 16385)), value(11, "length of a sealed data key")),
        ("key-length", labels_(key_len=16384), TRUNCATED), ("body-length", labels_(body_len=0xffff_ffff), TRUNCATED),
        ("trailing", labels_(tail=rep(0x99, 65)), TRAILING), ("cut", labels_(tail=rep(0x99, 63)), TRUNCATED),
        ("repository", labels_(repo=rep(0x12, 16)), "ForeignRepository { found: RepositoryId(12121212) }"),
    ]:
        vector("labels", f"bad-{name}", "an object that section 11 does not allow", data, error)


def clusters():
    history = {0: 1, 1: 7_000_000_000_000_000_001, 2: 15, 3: 16 << 20, 4: 8192}
    fields = {0: "main", 1: 0, 2: [history, {**history, 0: 2, 2: 17}], 3: [rep(6, 16), rep(7, 16)]}
    v = lambda what: value(20, what)

    def body(value_, pad=None):
        data = u32(len(value_)) + value_
        return data + rep(0, padme(len(data)) - len(data)) if pad is None else data + pad
    vector("cluster-body", "upgraded", "a cluster with two histories and two writers", body(cbor(fields)))
    vector("cluster-body", "new", "a cluster as its first push makes it", body(cbor({**fields, 2: [history], 3: [rep(7, 16)]})))
    for name, data, error in [
        ("no-name", {k: x for k, x in fields.items() if k != 0}, v("name of a cluster")), ("empty-name", {**fields, 0: ""}, v("name of a cluster")),
        ("name", {**fields, 0: "a/b"}, v("name of a cluster")), ("long-name", {**fields, 0: "a" * 129}, v("length of a field")),
        ("name-type", {**fields, 0: b"main"}, broken(20, "cluster")), ("engine", {**fields, 1: 1}, v("engine of a cluster")),
        ("no-history", {**fields, 2: []}, v("histories of a cluster")), ("history-order", {**fields, 2: [history, history]}, v("histories of a cluster")),
        ("history-zero", {**fields, 2: [{**history, 0: 0}]}, v("histories of a cluster")),
        ("segment-size", {**fields, 2: [{**history, 3: 3 << 20}]}, v("history of a cluster")),
        ("large-segment", {**fields, 2: [{**history, 3: 2 << 30}]}, v("history of a cluster")),
        ("page-size", {**fields, 2: [{**history, 4: 512}]}, v("history of a cluster")),
        ("no-writer", {**fields, 3: []}, v("writers of a cluster")), ("writer-order", {**fields, 3: [rep(7, 16), rep(6, 16)]}, v("writers of a cluster")),
        ("writer-twice", {**fields, 3: [rep(7, 16)] * 2}, v("writers of a cluster")), ("writer", {**fields, 3: [rep(7, 15)]}, v("length of a field")),
    ]:
        vector("cluster-body", f"bad-{name}", "a field that section 20 does not allow", body(cbor(data)), error)
    for key in (2, 3):
        bomb = bytes([0xa1, key, 0x9a]) + (1025).to_bytes(4, "big")
        vector("cluster-body", f"bad-bomb-{key}", "a long list", body(bomb), v("length of a list"))
    vector("cluster-body", "bad-padding", "padding that is not zero", body(cbor(fields), b"\0\1"), v("padding"))
    vector("cluster-body", "bad-trailing", "a byte too many", body(cbor(fields) + b"\0"), TRAILING)

    def cluster(kind=16, key=b"", body_=rep(0x77, 40), body_len=None, tail=rep(0x99, 64), repo=REPO):
        return (preamble(kind, 1, repo) + rep(7, 16) + rep(8, 16) + u64(2) + rep(0x5a, 32) + u16(len(key)) + key
                + u32(len(body_) if body_len is None else body_len) + body_ + tail)
    vector("cluster", "plain", "with stand-ins for the sealed parts", cluster())
    for name, data, error in [
        ("kind", cluster(14), "WrongKind { expected: 16, found: 14 }"), ("key", cluster(key=b"x"), v("data key of a cluster")),
        ("body-length", cluster(body_len=0xffff_ffff), TRUNCATED), ("trailing", cluster(tail=rep(0x99, 65)), TRAILING),
        ("cut", cluster(tail=rep(0x99, 63)), TRUNCATED),
        ("repository", cluster(repo=rep(0x12, 16)), "ForeignRepository { found: RepositoryId(12121212) }"),
    ]:
        vector("cluster", f"bad-{name}", "an object that section 20 does not allow", data, error)


def logs():
    v = lambda what: value(21, what)

    def facts(fields, pad=None):
        data = u32(len(cbor(fields))) + cbor(fields)
        return data + rep(0, padme(len(data)) - len(data)) if pad is None else data + pad
    full = {0: 1, 1: 1486, 2: 2, 3: 1_700_000_000_000_000_000, 4: 1_700_000_001_000_000_000, 5: 0x61ed18, 6: 0x7ffaa0, 7: 0x7ffd60,
            8: 3, 9: 0x800000, 10: b"db1", 11: 1_700_000_002_000_000_000, 12: "0.1.0", 13: "wrong"}
    least = {0: 0, 1: 0, 2: 0, 8: 0, 10: b"", 11: 0, 12: ""}
    vector("log-facts", "full", "every field", facts(full))
    vector("log-facts", "least", "a file that is no segment", facts(least))
    for name, data, error in [
        ("check", facts({**full, 0: 3}), v("check of a log file")), ("records", facts({**full, 1: -1}), broken(21, "facts of a log file")),
        ("host", facts({**full, 10: rep(97, 257)}), v("length of a field")), ("program", facts({**full, 12: b"x"}), broken(21, "facts of a log file")),
        ("fault", facts({**full, 13: "x" * 257}), v("length of a field")), ("padding", facts(full, b"\0\1"), v("padding")),
        ("length", u32(0xffff_ffff) + cbor(full), TRUNCATED), ("no-check", facts({k: x for k, x in full.items() if k}), v("facts of a log file")),
        ("no-program", facts({k: x for k, x in full.items() if k != 12}), v("facts of a log file")),
    ]:
        vector("log-facts", f"bad-{name}", "a field that section 21 does not allow", data, error)

    def header(kind=17, file=b"0000000A000000020000001F", codec=1, plain=1 << 20, key=b"facts key", content=b"content key", facts_=rep(0x77, 40),
               length=None, tail=rep(0x99, 64), repo=REPO, body=rep(0x66, 20)):
        rest = (rep(7, 16) + rep(8, 16) + u64(2) + u8(len(file)) + file + rep(0xcd, 32) + u32(plain) + u8(codec) + rep(0x5a, 32)
                + u16(len(key)) + key + u16(len(content)) + content + u16(len(facts_)) + facts_ + rep(0xbb, 32) + u32(20) + tail)
        return preamble(kind, 0, repo) + u32(36 + len(rest) if length is None else length) + rest + body
    vector("log", "segment", "with stand-ins for the sealed parts", header())
    vector("log", "history", "a file that is stored as it is", header(file=b"0000000A.history", codec=0, plain=41))
    vector("log", "header", "the header alone is enough", header(body=b""))
    for name, data, error in [
        ("kind", header(16), "WrongKind { expected: 17, found: 16 }"), ("file", header(file=b"RECOVERYXLOG"), v("name of a file")),
        ("file-text", header(file=b"\xff" * 24), v("name of a file")), ("codec", header(codec=2), v("codec")),
        ("plain", header(plain=(1 << 30) + 1), v("length of a file")), ("key", header(key=rep(1, 16385)), v("length of a sealed data key")),
        ("content-key", header(content=rep(1, 16385)), v("length of a sealed data key")), ("facts", header(facts_=rep(1, 8193)), v("length of the facts")),
        ("long", header(length=49153), v("length of the header")), ("length", header(length=4000), TRUNCATED), ("short", header(length=300), TRUNCATED),
        ("more", header(tail=rep(0x99, 65)), TRAILING), ("repository", header(repo=rep(0x12, 16)), "ForeignRepository { found: RepositoryId(12121212) }"),
    ]:
        vector("log", f"bad-{name}", "an object that section 21 does not allow", data, error)


def padme(n):
    e = n.bit_length() - 1
    low = max(0, e - (e.bit_length() - 1 + 1))
    return (n + (1 << low) - 1) >> low << low


def snapshots():
    fields = {0: 1_700_000_000_123_456_789, 1: 5_000_000_000, 2: b"host", 3: b"root", 4: b"etc", 5: [b"/etc", b"/caf\xe9"], 6: ["a", "k=v"],
              7: [1, rep(5, 32), 9000], 8: [10, 7, 1 << 20], 9: 4096, 10: 1024, 11: 1, 12: 3, 13: [rep(6, 32)], 14: rep(0x0a, 16), 15: "0.1.0"}
    origin = {0: "lifeboat", 1: rep(0x22, 16), 2: rep(7, 32), 3: 1_600_000_000_000_000_000, 4: 2}
    empty = {**fields, 5: [], 6: [], 8: [0, 0, 0], 13: []}
    del empty[7]

    def body(value_, pad=None):
        data = u32(len(value_)) + value_
        return data + rep(0, padme(len(data)) - len(data)) if pad is None else data + pad
    vector("snapshot-body", "full", "every field", body(cbor(fields)))
    vector("snapshot-body", "nothing", "a run that saved nothing", body(cbor(empty)))
    vector("snapshot-body", "brought", "from elsewhere, two entries not in full", body(cbor({**fields, 16: origin})))
    whole = {**origin, 0: "restic", 1: b"", 3: -1}
    del whole[4]
    vector("snapshot-body", "brought-whole", "from elsewhere, in full, of before 1970", body(cbor({**fields, 16: whole})))
    base = {0: rep(0x31, 16), 1: 1, 2: 7_000_000_000_000_000_001, 3: 150020, 4: 16 << 20, 5: 2, 6: 0x2_0300_0028, 7: 0x2_0400_0100,
            8: 1_700_000_000_000_000_000, 9: 1_700_000_060_000_000_000, 10: 1, 11: 1, 12: 0,
            13: [{0: "max_connections", 1: 100}, {0: "max_wal_senders", 1: 10}], 14: [{0: 16384, 1: b"fast", 2: b"/srv/fast"}]}
    vector("snapshot-body", "base-backup", "of PostgreSQL", body(cbor({**fields, 17: base})))
    few = {**base, 10: 0, 11: 0, 12: 3, 13: [], 14: []}
    vector("snapshot-body", "base-backup-waiting", "whose log was not there yet", body(cbor({**fields, 17: few})))
    for name, key, bad in (
        ("history", 1, 0), ("segment-size", 4, 3 << 20), ("segment-small", 4, 1 << 19), ("timeline", 5, 0), ("stop", 7, 0x2_0300_0027),
        ("complete", 10, 2), ("settings-order", 13, [{0: "b", 1: 1}, {0: "a", 1: 1}]), ("spaces-order", 14, 2 * base[14]),
    ):
        vector("snapshot-body", f"bad-base-{name}", "a base backup that section 10 does not allow",
               body(cbor({**fields, 17: {**base, key: bad}})), value(10, "base backup"))
    vector("snapshot-body", "bad-base-missing", "a base backup without a field", body(cbor({**fields, 17: {k: v for k, v in base.items() if k != 12}})),
           value(10, "base backup"))
    vector("snapshot-body", "bad-base-setting", "a setting that is more than a word", body(cbor({**fields, 17: {**base, 13: [{0: "a = 1", 1: 1}]}})),
           value(10, "setting of a base backup"))
    vector("snapshot-body", "bad-base-place", "a tablespace in a place without a beginning", body(cbor({**fields, 17: {**base, 14: [{0: 1, 1: b"a", 2: b"a/b"}]}})),
           value(10, "tablespace of a base backup"))
    for name, data, error in [
        ("padding", body(cbor(fields), b"\0\1"), value(10, "padding")), ("length", u32(0xffff_ffff) + cbor(fields), TRUNCATED),
        ("root", body(cbor({**fields, 7: [1, rep(5, 32)]})), value(10, "root")), ("totals", body(cbor({**fields, 8: [1]})), value(10, "totals")),
        ("parent", body(cbor({**fields, 13: [rep(6, 31)]})), value(10, "length of a field")),
        ("tag", body(cbor({**fields, 6: [b"a"]})), broken(10, "snapshot")), ("host", body(cbor({**fields, 2: rep(97, 65537)})), value(10, "length of a field")),
        ("trailing", body(cbor(fields) + b"\0"), TRAILING), ("order", body(b"\xa2\x01\x00\x00\x00"), value(10, "order of fields")),
        ("origin-short", body(cbor({**fields, 16: {0: "restic", 1: b"", 2: b""}})), value(10, "origin")),
        ("origin-long", body(cbor({**fields, 16: {**origin, 2: rep(7, 257)}})), value(10, "length of a field")),
        ("origin-kind", body(cbor({**fields, 16: {**origin, 0: b"lifeboat"}})), broken(10, "snapshot")),
    ]:
        vector("snapshot-body", f"bad-{name}", "a field that section 10 does not allow", data, error)

    def snapshot(kind=6, key=b"sealed key", body_=rep(0x77, 40), key_len=None, body_len=None, tail=rep(0x99, 64), repo=REPO):
        return (preamble(kind, 1, repo) + rep(7, 16) + u64(12) + rep(0x5a, 32) + u16(len(key) if key_len is None else key_len) + key
                + u32(len(body_) if body_len is None else body_len) + body_ + tail)
    vector("snapshot", "plain", "with stand-ins for the sealed parts", snapshot())
    for name, data, error in [
        ("kind", snapshot(5), "WrongKind { expected: 6, found: 5 }"), ("key", snapshot(key=rep(1, 16385)), value(10, "length of a sealed data key")),
        ("key-length", snapshot(key_len=16384), TRUNCATED), ("body-length", snapshot(body_len=0xffff_ffff), TRUNCATED),
        ("trailing", snapshot(tail=rep(0x99, 65)), TRAILING), ("cut", snapshot(tail=rep(0x99, 63)), TRUNCATED),
        ("repository", snapshot(repo=rep(0x12, 16)), "ForeignRepository { found: RepositoryId(12121212) }"),
    ]:
        vector("snapshot", f"bad-{name}", "an object that section 10 does not allow", data, error)


def keys():
    fields = {0: 1, 1: 5, 2: [262144, 4, 1], 3: rep(0x5a, 32), 4: rep(0xc0, 32), 5: rep(0x5e, 60)}
    file_slot = {k: v for k, v in {**fields, 0: 2, 1: 1}.items() if k != 2}

    def slot(value_, kind=2):
        return preamble(kind) + cbor(value_)
    vector("key-slot", "passphrase", "an admin's", slot(fields))
    vector("key-slot", "key-file", "a writer's", slot(file_slot))
    vector("key-slot", "note", "a writer's, with a note", slot({**file_slot, 6: rep(0x6e, 272)}))

    def note(fields_, len_=None, fill=b"\0", size=256):
        value_ = cbor(fields_)
        return (u32(len(value_) if len_ is None else len_) + value_).ljust(size, fill)
    both = {0: "web1", 1: rep(7, 16)}
    vector("slot-note", "both", "of a writer's slot", note(both))
    vector("slot-note", "empty", "nothing is noted", note({}))
    vector("slot-note", "longest", "a label of 128 bytes", note({0: "x" * 128}))
    for name, data, error in [
        ("label", note({0: "x" * 129}), value(12, "note of a key slot")), ("text", note({0: b"x"}), broken(12, "note of a key slot")),
        ("writer", note({1: rep(7, 15)}), broken(12, "note of a key slot")), ("length", note(both, len_=253), value(12, "note of a key slot")),
        ("padding", note(both, fill=b"\1"), value(12, "note of a key slot")),
        ("label-end", note({0: "web1"}, len_=3), value(12, "note of a key slot")), ("list", note([]), broken(12, "note of a key slot")), ("order", note({1: rep(7, 16), 0: "web1"}), value(12, "order of fields")), ("short", note(both, size=255), value(12, "note of a key slot")),
    ]:
        vector("slot-note", f"bad-{name}", "a note that section 12 does not allow", data, error)
    for name, data, error in [
        ("kind", slot({**file_slot, 0: 4}), value(12, "kind of a key slot")), ("role", slot({**file_slot, 1: 6}), value(12, "role of a key slot")),
        ("no-cost", slot({**file_slot, 0: 1}), value(12, "cost of a key slot")), ("cost", slot({**fields, 0: 2}), value(12, "cost of a key slot")),
        ("cost-short", slot({**fields, 2: [1, 2]}), broken(12, "key slot")), ("salt", slot({**fields, 3: rep(1, 31)}), broken(12, "key slot")),
        ("no-commitment", slot({k: v for k, v in fields.items() if k != 4}), value(12, "commitment of a key slot")),
        ("note", slot({**file_slot, 6: rep(1, 271)}), value(12, "note of a key slot")),
        ("object", slot(fields, 1), "WrongKind { expected: 2, found: 1 }"), ("trailing", slot(fields) + b"\0", TRAILING),
        ("long", slot({**fields, 5: rep(1, 65536)}), value(12, "length of a key slot")),
    ]:
        vector("key-slot", f"bad-{name}", "a field that section 12 does not allow", data, error)

    def data_key(kind=1, ids=(3, 5), count=None):
        return rep(0x0a, 16) + u8(kind) + rep(0xc0, 32) + u8(len(ids) if count is None else count) + b"".join(rep(i, 16) + rep(i, 1168) for i in ids)
    vector("data-key", "two", "sealed to two recipients", data_key())
    for name, data, error in [
        ("kind", data_key(2), value(13, "kind of a data key")), ("nobody", data_key(ids=()), value(13, "recipients of a data key")),
        ("many", data_key(count=17), value(13, "recipients of a data key")), ("order", data_key(ids=(5, 3)), value(13, "order of recipients")),
        ("twice", data_key(ids=(3, 3)), value(13, "order of recipients")), ("cut", data_key()[:-1], TRUNCATED), ("trailing", data_key() + b"\0", TRAILING),
    ]:
        vector("data-key", f"bad-{name}", "a field that section 13 does not allow", data, error)


def index():
    def header(**change):
        names_ = ["author", "h0", "supersedes", "keys", "origins", "packs", "segments", "records", "blocks"]
        blocks = [[0, 0, 2, 144, rep(1, 32)], [1, 0, 3, 136, rep(2, 32)], [2, rep(4, 16), 2340, 65536, rep(3, 32)], [2, rep(9, 16), 1, 44, rep(4, 32)]]
        base = [rep(7, 16), 3, [rep(1, 32), rep(2, 32)], [b"sealed key"], [rep(7, 16)], 2, 3, 2341, blocks]
        fields = {i: change.get(n, b) for i, (n, b) in enumerate(zip(names_, base))}
        return cbor({k: v for k, v in fields.items() if v is not None})
    entry = [0, 0, 2, 144, rep(1, 32)]

    def single(block, packs=2):
        return header(packs=packs, segments=0, records=0, blocks=[block])
    vector("index-header", "four-blocks", "two packs, three segments, 2341 records", header())
    vector("index-header", "empty", "nothing at all", header(supersedes=[], keys=[], origins=[], packs=0, segments=0, records=0, blocks=[]))
    for name, data, error in [
        ("missing", header(h0=None), value(15, "missing index header field")), ("count", header(records=2342), value(15, "index row counts")),
        ("supersedes", header(supersedes=[rep(2, 32), rep(1, 32)]), value(15, "order of superseded index objects")),
        ("key", header(keys=[b""]), value(15, "length of a sealed data key")), ("author", header(author=rep(7, 15)), value(15, "length of an identifier")),
        ("rows", single([0, 0, 0, 16, rep(1, 32)], 0), value(15, "rows of an index block")),
        ("full", single([0, 0, 1025, 144, rep(1, 32)], 1025), value(15, "rows of an index block")),
        ("first", single([0, 1, 2, 144, rep(1, 32)]), value(15, "first row of an index block")),
        ("stored", single([0, 0, 2, 15, rep(1, 32)]), value(15, "stored length of an index block")),
        ("kind", single([3, 0, 2, 144, rep(1, 32)]), value(15, "index block kind")), ("entry", single(entry + [0]), value(15, "index block entry")),
        ("sum", single([0, 0, 2, 144, rep(1, 31)]), value(15, "length of an identifier")), ("trailing", header() + b"\0", TRAILING),
        ("bomb", b"\xa1\x08\x9b" + rep(0x0f, 8), TRUNCATED), ("order", b"\xa2\x01\x00\x00\x40", value(15, "order of index header fields")),
    ]:
        vector("index-header", f"bad-{name}", "a field that section 15 does not allow", data, error)

    def pack_row(i=8, size=1000, at=900, length=80, kind=0, reserved=0, segs=2, first=0, tail=rep(0, 12)):
        return rep(i, 32) + u32(size) + u32(at) + u32(length) + u8(kind) + u8(reserved) + u16(segs) + u32(first) + tail
    vector("index-packs", "two", "two packs", pack_row() + pack_row(9, kind=1, segs=1, first=2))
    for name, data, error in [
        ("kind", pack_row(kind=2), value(15, "chunk kind of a pack row")), ("reserved", pack_row(reserved=1), value(15, "reserved bytes of a pack row")),
        ("tail", pack_row(tail=rep(0, 11) + b"\1"), value(15, "reserved bytes of a pack row")), ("directory", pack_row(length=101), value(15, "directory of a pack row")),
        ("overflow", pack_row(at=0xffff_ffff, length=2), value(15, "directory of a pack row")), ("cut", pack_row()[:-1], TRUNCATED),
    ]:
        vector("index-packs", f"bad-{name}", "a row that section 15 does not allow", data, error)

    def record(i, pack=0, seg=0, at=0, n=100):
        return rep(i, 16) + u32(pack) + u16(seg) + u24(at) + u24(n)
    vector("index-records", "three", "two places of one chunk, one of another", record(4, 1) + record(5) + record(5, 1, 1, 10, 40))
    for name, data, error in [
        ("order", record(5) + record(4), value(15, "order of records")), ("twice", record(5) + record(5), value(15, "order of records")), ("cut", record(5)[:-1], TRUNCATED),
    ]:
        vector("index-records", f"bad-{name}", "rows that section 15 does not allow", data, error)


if __name__ == "__main__":
    shutil.rmtree(ROOT, ignore_errors=True)
    for make in (names, preambles, segments, packs, nodes, pages, signed_values, labels, clusters, logs, snapshots, keys, index):
        make()
