//! The program as a user runs it: arguments in, output and exit code out. Nothing here calls the library.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod archives;
mod configuring;
mod conversation;
mod copying;
mod doors;
mod every_kind;
mod exits;
mod forgetting;
mod help;
mod history;
mod images;
mod importing;
mod interruption;
mod jobs;
mod keys;
mod metrics;
mod mounting;
mod network;
mod objects;
mod places;
mod policies;
mod postgres;
mod reading;
mod rekeying;
mod restoring;
mod roles;
mod runbook;
mod scheduling;
mod secrets;
mod sftp;
mod sources;
mod sqlite;
mod status;
mod streams;
mod support;
mod trusting;
mod verifying;
mod wire;
