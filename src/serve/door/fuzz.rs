//! Both sides of a door, met by bytes that nobody should send.

use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use tokio::io::AsyncWriteExt;

use super::session::Patience;
use super::tally::Tally;
use super::tests::{Pipe, bytes_of, env, hello, key, options};
use super::{DoorOptions, Guest, Role, attend, door, io};
use crate::format::layout::ObjectName;
use crate::store::door::wire::{Answer, Ask, Code, Frame};
use crate::store::door::{Connect, DoorError, Wires};
use crate::store::{Store, StoreOptions};

/// A session that makes sense, as frames.
fn sessions() -> impl Strategy<Value = Vec<Frame>> {
    let name = prop_oneof![
        3 => (0_u8..4).prop_map(|number| key(number).to_string()),
        1 => Just("probe/a".to_owned()),
        1 => "[a-z./-]{0,12}",
    ];
    let ask = (name, any::<u64>(), 0_usize..2000).prop_flat_map(|(key, number, len)| {
        let other = key.clone();
        prop_oneof![
            Just(Ask::Head { key: key.clone() }),
            Just(Ask::Get { key: key.clone(), range: number % 10..number }),
            Just(Ask::Put { key: key.clone(), size: len as u64 }),
            Just(Ask::List { directory: String::new(), after: key.clone() }),
            Just(Ask::List { directory: key.clone(), after: String::new() }),
            Just(Ask::Delete { key }),
            Just(Ask::Open { again: true, path: other }),
            Just(Ask::Data(vec![0x5a; len].into())),
            Just(Ask::Commit),
            Just(Ask::Cancel),
            Just(Ask::Credit(len as u32)),
            Just(Ask::Space),
            Just(Ask::Root),
            Just(Ask::Ping),
        ]
    });
    prop::collection::vec((ask, 0_u32..3), 0..30).prop_map(|asks| {
        let mut id = 0;
        let mut frames = vec![hello()];
        for (ask, back) in asks {
            let begins = !matches!(ask, Ask::Data(_) | Ask::Commit | Ask::Cancel | Ask::Credit(_));
            id += u32::from(begins);
            frames.push(ask.frame(if begins { id } else { id.saturating_sub(back) }));
        }
        frames
    })
}

/// Bytes of a session, with some of them others.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    let cut = prop_oneof![Just(None), any::<prop::sample::Index>().prop_map(Some)];
    (sessions(), changes, cut).prop_map(|(frames, changes, cut)| {
        let mut bytes = bytes_of(&frames);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        bytes
    })
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// Only whole objects, and nothing outside.
fn check_place(place: &Path) {
    for entry in ignore::WalkBuilder::new(place).standard_filters(false).build() {
        let entry = entry.unwrap();
        if entry.file_type().is_some_and(|kind| kind.is_dir()) {
            continue;
        }
        let name =
            entry.path().strip_prefix(place.join("top")).expect("nothing is made outside").to_str().unwrap();
        assert!(ObjectName::parse(name).is_some() || name.starts_with("probe/"), "{name}");
    }
}

/// Says these bytes, as the client of a server that may say what it likes.
struct Hostile(Vec<u8>);

impl Connect for Hostile {
    fn connect(&self) -> Result<Wires, DoorError> {
        let input = Cursor::new(self.0.clone());
        Ok(Wires { input: Box::new(input), output: Box::new(io::sink()), far: Arc::new(Pipe) })
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(60)
    }
}

/// What a server may say to the first three requests.
fn answers() -> impl Strategy<Value = Vec<u8>> {
    let answer = (any::<u64>(), 0_usize..3000).prop_flat_map(|(number, len)| {
        let (start, end) = (number % 50, number % 50 + len as u64);
        prop_oneof![
            Just(Answer::Done),
            Just(Answer::Pong),
            Just(Answer::Credit(len as u32)),
            Just(Answer::Opened { role: Role::Admin }),
            Just(Answer::Space { free: number }),
            Just(Answer::Meta { size: end, modified: number as i64, range: start..end }),
            Just(Answer::Data(vec![1; len].into())),
            Just(Answer::Error { code: Code::Exists, message: "x".repeat(len) }),
        ]
    });
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
    (prop::collection::vec((answer, 0_u32..4), 0..12), changes).prop_map(|(answers, changes)| {
        let mut frames = vec![Answer::Opened { role: Role::Admin }.frame(0)];
        frames.extend(answers.into_iter().map(|(answer, id)| answer.frame(id)));
        let mut bytes = bytes_of(&frames);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn no_bytes_harm_a_server(bytes in prop_oneof![4 => mutated(), 1 => prop::collection::vec(any::<u8>(), 0..300)]) {
        let place = tempfile::tempdir().unwrap();
        let top = place.path().join("top");
        std::fs::create_dir(&top).unwrap();
        let options = DoorOptions { quota: Some(10_000), ..options(&top, Role::Admin) };
        block_on(async {
            // It ends, well or not.
            let _ = door(Cursor::new(bytes), io::sink(), &options, &env()).await;
        });
        check_place(place.path());
    }

    #[test]
    fn no_bytes_harm_a_server_of_many(
        bytes in prop_oneof![4 => mutated(), 1 => prop::collection::vec(any::<u8>(), 0..300)],
        piece in 1_usize..5000,
    ) {
        let place = tempfile::tempdir().unwrap();
        let top = place.path().join("top");
        std::fs::create_dir(&top).unwrap();
        let guest = Guest {
            options: DoorOptions { quota: Some(10_000), ..options(&top, Role::Admin) },
            quota: None,
            patience: Patience { first: Duration::from_secs(60), later: Duration::from_secs(60) },
            tally: Arc::new(Tally::default()),
        };
        block_on(async {
            let (server, client) = tokio::io::duplex(4096);
            let (mut from, mut to) = tokio::io::split(client);
            let heard = tokio::spawn(async move { tokio::io::copy(&mut from, &mut tokio::io::sink()).await });
            let said = tokio::spawn(async move {
                for piece in bytes.chunks(piece) {
                    // A server that has had enough takes no more.
                    if to.write_all(piece).await.is_err() {
                        break;
                    }
                }
                let _ = to.shutdown().await;
            });
            // It ends, well or not.
            let _ = attend(server, &guest, &env()).await;
            said.await.unwrap();
            let _ = heard.await.unwrap();
        });
        check_place(place.path());
    }

    #[test]
    fn no_bytes_harm_a_client(bytes in prop_oneof![4 => answers(), 1 => prop::collection::vec(any::<u8>(), 0..300)]) {
        block_on(async {
            let options = StoreOptions { retry_for: Duration::ZERO, ..StoreOptions::default() };
            let store = || Store::behind(Arc::new(Hostile(bytes.clone())), "", &options, env());
            // Each ends, well or not.
            let _ = store().get(&key(1), 5000).await;
            let _ = store().get_range(&key(1), 10..2000).await;
            let _ = store().list("packs/").await;
            let _ = store().put(&key(1), vec![Bytes::from(vec![0; 2000])]).await;
            let _ = store().delete(&key(1)).await;
            let _ = store().free_space().await;
            let _ = store().create_root().await;
        });
    }
}
