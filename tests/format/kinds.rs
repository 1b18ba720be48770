//! The decoders that have vectors, each with its encoder.

use std::fmt::Debug;

use lifeboat::format::FormatError;
use lifeboat::format::anchor::Anchor;
use lifeboat::format::cluster::{Cluster, ClusterObject};
use lifeboat::format::config::{Config, WriterEntry};
use lifeboat::format::content::ListPage;
use lifeboat::format::datakey::SealedDataKey;
use lifeboat::format::envelope::{ObjectKind, Preamble};
use lifeboat::format::gc::{Condemnation, Hold, Horizon, Removal, Tomb, Trim, Undo};
use lifeboat::format::index::{IndexHeader, PackRow, Record, decode_packs, decode_records};
use lifeboat::format::keyslot::{KeySlot, SlotNote};
use lifeboat::format::labels::{Labels, LabelsObject};
use lifeboat::format::layout::ObjectName;
use lifeboat::format::ledger::Verified;
use lifeboat::format::log::{LogFacts, LogHeader};
use lifeboat::format::node::Node;
use lifeboat::format::pack::{Directory, Footer};
use lifeboat::format::sealed::SealedObject;
use lifeboat::format::segment::SegmentEntry;
use lifeboat::format::signed::{Signed, signed_message};
use lifeboat::format::snapshot::{Confirmation, Snapshot, SnapshotObject};
use lifeboat::format::tree::{Page, PageBuilder};
use lifeboat::format::wire::Reader;
use lifeboat::id::RepositoryId;

/// The value in words and its stored form, or the error in words.
pub(crate) type Outcome = Result<(String, Vec<u8>), String>;
/// Takes the bytes and what is given besides.
pub(crate) type Decode = fn(&[u8], u64) -> Outcome;

/// The repository that all vectors belong to.
const REPOSITORY: RepositoryId = RepositoryId::new([0x11; 16]);

/// Folder of the vectors, decoder.
pub(crate) const KINDS: &[(&str, Decode)] = &[
    ("name", name),
    ("preamble", |b, _| outcome(Preamble::decode(b), |value| value.encode().to_vec())),
    ("segment-row", segment_row),
    ("pack-footer", |b, pack_len| outcome(Footer::decode(b, pack_len), |value| value.encode().to_vec())),
    ("pack-directory", pack_directory),
    ("tree-page", tree_page),
    ("node", |b, _| outcome(Node::decode(b), |value| appended(|out| value.encode(out)))),
    ("list-page", |b, _| outcome(ListPage::decode(b), ListPage::encode)),
    ("signed", signed),
    ("config", |b, _| outcome(Config::decode(b), Config::encode)),
    ("writer", |b, _| outcome(WriterEntry::decode(b), WriterEntry::encode)),
    ("snapshot-body", |b, _| outcome(Snapshot::decode_body(b), Snapshot::encode_body)),
    ("snapshot", snapshot),
    ("confirmation", |b, _| outcome(Confirmation::decode(b), Confirmation::encode)),
    ("condemnation", |b, _| outcome(Condemnation::decode(b), Condemnation::encode)),
    ("horizon", |b, _| outcome(Horizon::decode(b), Horizon::encode)),
    ("tomb", |b, _| outcome(Tomb::decode(b), Tomb::encode)),
    ("undo", |b, _| outcome(Undo::decode(b), Undo::encode)),
    ("removal", |b, _| outcome(Removal::decode(b), Removal::encode)),
    ("hold", |b, _| outcome(Hold::decode(b), Hold::encode)),
    ("trim", |b, _| outcome(Trim::decode(b), Trim::encode)),
    ("verified", |b, _| outcome(Verified::decode(b), Verified::encode)),
    ("anchor", |b, _| outcome(Anchor::decode(b), Anchor::encode)),
    ("labels-body", |b, _| outcome(Labels::decode_body(b), Labels::encode_body)),
    ("labels", labels),
    ("cluster-body", |b, _| outcome(Cluster::decode_body(b), Cluster::encode_body)),
    ("cluster", cluster),
    ("log-facts", |b, _| outcome(LogFacts::decode(b), LogFacts::encode)),
    ("log", log),
    ("key-slot", |b, _| outcome(KeySlot::decode(b), KeySlot::encode)),
    ("slot-note", |b, _| outcome(SlotNote::decode(b), |note| note.encode().expect("it was decoded"))),
    ("data-key", data_key),
    ("index-header", |b, _| outcome(IndexHeader::decode(b), IndexHeader::encode)),
    ("index-packs", |b, _| outcome(decode_packs(b), |rows| rows.iter().flat_map(PackRow::encode).collect())),
    ("index-records", index_records),
];

fn outcome<T: Debug>(decoded: Result<T, FormatError>, encode: impl FnOnce(&T) -> Vec<u8>) -> Outcome {
    let value = decoded.map_err(|error| format!("{error:?}"))?;
    Ok((compact(&format!("{value:?}")), encode(&value)))
}

/// Writes lists of bytes as `x616263` instead of `[97, 98, 99]`.
fn compact(debug: &str) -> String {
    let mut out = String::new();
    let mut rest = debug;
    while let Some(open) = rest.find('[') {
        let bytes = rest[open..].find(']').and_then(|len| {
            let items = rest[open + 1..open + len].split(", ");
            items.map(|item| item.parse::<u8>().ok()).collect::<Option<Vec<u8>>>().map(|bytes| (bytes, len))
        });
        out.push_str(&rest[..open]);
        match bytes {
            Some((bytes, len)) => {
                out.push('x');
                out.push_str(&hex(&bytes));
                rest = &rest[open + len + 1..];
            }
            None => {
                out.push('[');
                rest = &rest[open + 1..];
            }
        }
    }
    out + rest
}

fn appended(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out);
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn name(bytes: &[u8], _: u64) -> Outcome {
    let parsed = std::str::from_utf8(bytes).ok().and_then(ObjectName::parse);
    let name = parsed.ok_or("not a name")?;
    Ok((format!("{name:?}, hash {:?}", name.content_hash()), name.key().into_bytes()))
}

fn segment_row(bytes: &[u8], _: u64) -> Outcome {
    let mut reader = Reader::new(bytes);
    let row = SegmentEntry::decode(&mut reader).and_then(|row| reader.finish().map(|()| row));
    outcome(row, |row| appended(|out| row.encode(out)))
}

fn pack_directory(bytes: &[u8], body_end: u64) -> Outcome {
    outcome(Directory::decode(bytes, body_end as u32), |value| value.encode(|_| bytes.len()))
}

fn tree_page(bytes: &[u8], level: u64) -> Outcome {
    outcome(Page::decode(bytes, level as u8), |page| {
        let mut builder = PageBuilder::new(level as u8);
        match page {
            Page::Nodes(rows) => rows.iter().for_each(|row| builder.push(row)),
            Page::Pages(rows) => rows.iter().for_each(|row| builder.push(&appended(|out| row.encode(out)))),
        }
        builder.bytes().to_vec()
    })
}

fn signed(bytes: &[u8], kind: u64) -> Outcome {
    let kind = [ObjectKind::Config, ObjectKind::Writer][kind as usize];
    let decoded = Signed::decode(bytes, kind, Some(&REPOSITORY)).map_err(|error| format!("{error:?}"))?;
    let (preamble, object) = decoded;
    let text = format!("{preamble:?} value {} signature {}", hex(object.value), hex(&object.signature));
    Ok((text, [&signed_message(preamble, object.value)[..], &object.signature].concat()))
}

fn sealed(object: &SealedObject<'_>) -> String {
    let (data_key, body) = (hex(object.data_key), hex(object.body));
    let (salt, signature) = (hex(&object.salt), hex(&object.signature));
    format!("salt {salt} data key {data_key} body {body} signature {signature}")
}

fn snapshot(bytes: &[u8], _: u64) -> Outcome {
    let object = SnapshotObject::decode(bytes, &REPOSITORY).map_err(|error| format!("{error:?}"))?;
    let text = format!("writer {} sequence {} {}", object.writer, object.sequence, sealed(&object.sealed));
    Ok((text, [&object.encode_unsigned(REPOSITORY)[..], &object.sealed.signature].concat()))
}

fn labels(bytes: &[u8], _: u64) -> Outcome {
    let object = LabelsObject::decode(bytes, &REPOSITORY).map_err(|error| format!("{error:?}"))?;
    let text = format!("author {} {}", object.author, sealed(&object.sealed));
    Ok((text, [&object.encode_unsigned(REPOSITORY)[..], &object.sealed.signature].concat()))
}

fn cluster(bytes: &[u8], _: u64) -> Outcome {
    let object = ClusterObject::decode(bytes, &REPOSITORY).map_err(|error| format!("{error:?}"))?;
    let (author, id, number) = (object.author, object.cluster, object.number);
    let text = format!("author {author} cluster {id} number {number} {}", sealed(&object.sealed));
    Ok((text, [&object.encode_unsigned(REPOSITORY)[..], &object.sealed.signature].concat()))
}

fn log(bytes: &[u8], _: u64) -> Outcome {
    let decoded = LogHeader::decode(bytes, &REPOSITORY).map_err(|error| format!("{error:?}"))?;
    let (header, message, signature) = decoded;
    let (facts_key, content_key) = (hex(header.facts_key), hex(header.content_key));
    let text = format!(
        "author {} cluster {} history {} file {} plain {} length {} {:?} salt {} facts key {facts_key} \
         content key {content_key} facts {} body {} of {} signature {}",
        header.author,
        header.cluster,
        header.history,
        header.file,
        header.plain,
        header.plain_len,
        header.codec,
        hex(&header.salt),
        hex(header.facts),
        header.body_hash,
        header.body_len,
        hex(&signature),
    );
    let rest = &bytes[message.len() + signature.len()..];
    Ok((text, [&header.encode_unsigned(REPOSITORY)[..], &signature, rest].concat()))
}

fn data_key(bytes: &[u8], _: u64) -> Outcome {
    let mut reader = Reader::new(bytes);
    let key = SealedDataKey::decode(&mut reader).and_then(|key| reader.finish().map(|()| key));
    let key = key.map_err(|error| format!("{error:?}"))?;
    let recipients: Vec<String> = key.recipients().map(|recipient| recipient.to_string()).collect();
    let text =
        format!("{:?} {:?} commitment {} to {recipients:?}", key.run(), key.kind(), hex(key.commitment()));
    Ok((text, appended(|out| key.encode(out))))
}

fn index_records(bytes: &[u8], _: u64) -> Outcome {
    let rows = decode_records(bytes).map(|rows| rows.iter().map(Record::decode).collect::<Vec<_>>());
    outcome(rows, |rows| rows.iter().flat_map(Record::encode).collect())
}
