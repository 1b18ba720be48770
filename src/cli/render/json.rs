//! Names in JSON, which knows no bytes.

use serde_json::{Map, Value, json};

/// Adds `key`, with replacement characters where the bytes are not UTF-8; then `key_hex` has the true bytes.
pub(crate) fn put_bytes(object: &mut Map<String, Value>, key: &str, bytes: &[u8]) {
    object.insert(key.to_owned(), Value::from(String::from_utf8_lossy(bytes)));
    if std::str::from_utf8(bytes).is_err() {
        object.insert(format!("{key}_hex"), Value::from(hex(bytes)));
    }
}

/// A list of names; `key_hex` beside it, in the same order, as soon as one is not UTF-8.
pub(crate) fn put_list(object: &mut Map<String, Value>, key: &str, list: &[Vec<u8>]) {
    let lossy: Vec<_> = list.iter().map(|bytes| String::from_utf8_lossy(bytes)).collect();
    object.insert(key.to_owned(), json!(lossy));
    if list.iter().any(|bytes| std::str::from_utf8(bytes).is_err()) {
        let all: Vec<String> = list.iter().map(|bytes| hex(bytes)).collect();
        object.insert(format!("{key}_hex"), json!(all));
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_bytes_are_not_lost() {
        let mut object = Map::new();
        put_bytes(&mut object, "path", b"a\xff");
        put_bytes(&mut object, "name", b"ok");
        put_list(&mut object, "paths", &[b"x".to_vec(), b"\xfe".to_vec()]);
        let expected = json!({"path": "a\u{fffd}", "path_hex": "61ff", "name": "ok",
            "paths": ["x", "\u{fffd}"], "paths_hex": ["78", "fe"]});
        assert_eq!(Value::Object(object), expected);
    }
}
