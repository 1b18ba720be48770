//! A directory: a JSON object whose field `nodes` is the list of its entries, read one at a time.
//!
//! # Invariants
//! Memory is that of the bytes and of one entry.

use bytes::Bytes;
use serde::de::IgnoredAny;

use super::error::Fault;
use super::node::{Node, StoredNode};

/// Most bytes of a directory: about a million entries.
pub(super) const TREE_MAX: u32 = 512 << 20;

/// The entries of a directory, in stored order.
#[derive(Debug, Clone)]
pub struct TreeNodes {
    json: Bytes,
    at: usize,
    begun: bool,
    ended: bool,
}

impl TreeNodes {
    /// Stands before the first entry.
    pub fn new(json: Bytes) -> Self {
        Self { json, at: 0, begun: false, ended: false }
    }

    /// A directory without entries.
    pub fn none() -> Self {
        Self { json: Bytes::new(), at: 0, begun: true, ended: true }
    }

    /// Bytes that are held.
    pub fn held(&self) -> usize {
        self.json.len()
    }

    /// The next entry; `None` at the end. An error is the last that comes.
    pub fn next_node(&mut self) -> Option<Result<Node, Fault>> {
        if self.ended {
            return None;
        }
        let next = self.step();
        self.ended = !matches!(next, Ok(Some(_)));
        next.transpose()
    }

    fn step(&mut self) -> Result<Option<Node>, Fault> {
        if !self.begun {
            self.begun = true;
            if !self.find_nodes()? {
                return Ok(None);
            }
        } else if !self.take(b',') {
            self.expect(b']')?;
            return self.rest().map(|()| None);
        }
        self.value::<StoredNode>().map(|node| Some(node.into()))
    }

    /// Goes to the first entry; false if there is none.
    fn find_nodes(&mut self) -> Result<bool, Fault> {
        self.expect(b'{')?;
        if self.take(b'}') {
            return self.end().map(|()| false);
        }
        loop {
            let key: String = self.value()?;
            self.expect(b':')?;
            if key == "nodes" && self.take(b'[') {
                if self.take(b']') {
                    return self.rest().map(|()| false);
                }
                return Ok(true);
            }
            // Also `null` in place of a list: then there is no entry.
            self.value::<IgnoredAny>()?;
            if !self.take(b',') {
                self.expect(b'}')?;
                return self.end().map(|()| false);
            }
        }
    }

    /// What follows the list.
    fn rest(&mut self) -> Result<(), Fault> {
        while self.take(b',') {
            self.value::<String>()?;
            self.expect(b':')?;
            self.value::<IgnoredAny>()?;
        }
        self.expect(b'}')?;
        self.end()
    }

    fn end(&mut self) -> Result<(), Fault> {
        self.skip_space();
        if self.at == self.json.len() { Ok(()) } else { Err(Fault::Value { what: "what follows its end" }) }
    }

    fn skip_space(&mut self) {
        while self.json.get(self.at).is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        self.skip_space();
        let found = self.json.get(self.at) == Some(&byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8) -> Result<(), Fault> {
        if self.take(byte) {
            Ok(())
        } else if self.at == self.json.len() {
            Err(Fault::Truncated)
        } else {
            Err(Fault::Value { what: "its JSON" })
        }
    }

    fn value<T: serde::de::DeserializeOwned>(&mut self) -> Result<T, Fault> {
        let rest = self.json.get(self.at..).unwrap_or_default();
        let mut values = serde_json::Deserializer::from_slice(rest).into_iter::<T>();
        match values.next() {
            Some(Ok(value)) => {
                self.at += values.byte_offset();
                Ok(value)
            }
            Some(Err(error)) => Err(Fault::Json(error)),
            None => Err(Fault::Truncated),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(json: &str) -> Result<Vec<String>, Fault> {
        let mut nodes = TreeNodes::new(Bytes::copy_from_slice(json.as_bytes()));
        let mut names = Vec::new();
        while let Some(node) = nodes.next_node() {
            names.push(String::from_utf8_lossy(&node?.name).into_owned());
        }
        assert!(nodes.next_node().is_none());
        Ok(names)
    }

    const A: &str = r#"{"name":"a","type":"file","content":null}"#;
    const B: &str = r#"{"name":"b","type":"dir"}"#;

    #[test]
    fn entries_come_one_by_one() {
        assert_eq!(names(&format!("{{\"nodes\":[{A},{B}]}}\n")).unwrap(), ["a", "b"]);
        assert_eq!(
            names(&format!(r#" {{ "new" : [1] , "nodes" : [ {A} ] , "more" : {{}} }} "#)).unwrap(),
            ["a"]
        );
        for empty in [r#"{"nodes":[]}"#, r#"{"nodes":null}"#, "{}", r#"{"x":1}"#] {
            assert_eq!(names(empty).unwrap(), Vec::<String>::new(), "{empty}");
        }
    }

    #[test]
    fn what_is_no_tree_is_an_error() {
        for bad in [
            "",
            "[]",
            "null",
            r#"{"nodes":"#,
            r#"{"nodes":[}"#,
            r#"{"nodes":[,]}"#,
            r#"{"nodes":[]} x"#,
            r#"{"nodes":[]}{}"#,
            r#"{nodes:[]}"#,
            r#"{"nodes":[{}]}"#,
            r#"{"nodes":[1]}"#,
        ] {
            assert!(names(bad).is_err(), "{bad}");
        }
        for bad in [
            format!(r#"{{"nodes":[{A}"#),
            format!(r#"{{"nodes":[{A},]}}"#),
            format!(r#"{{"nodes":[{A} {B}]}}"#),
        ] {
            assert!(names(&bad).is_err(), "{bad}");
        }
        let deep = format!(r#"{{"x":{}"#, "[".repeat(100_000));
        assert!(names(&deep).is_err(), "depth is bounded");
    }

    proptest! {
        #[test]
        fn nothing_panics_and_everything_ends(cut in 0usize..80, bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let good = format!("{{\"nodes\":[{A},{B}]}}\n");
            for json in [bytes.clone(), [&good.as_bytes()[..cut.min(good.len())], &bytes].concat()] {
                let mut nodes = TreeNodes::new(json.into());
                let mut count = 0;
                while nodes.next_node().is_some() {
                    count += 1;
                    prop_assert!(count < 100);
                }
            }
        }
    }
}
