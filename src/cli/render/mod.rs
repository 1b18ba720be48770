//! Values to text for people.

pub(crate) mod base;
pub(crate) mod brought;
pub(crate) mod copy;
pub(crate) mod coverage;
pub(crate) mod history;
pub(crate) mod import;
pub(crate) mod jobs;
pub(crate) mod json;
pub(crate) mod metrics;
pub(crate) mod mode;
pub(crate) mod postgres;
pub(crate) mod qr;
pub(crate) mod sanitize;
pub(crate) mod sqlite;
pub(crate) mod summary;
pub(crate) mod table;
pub(crate) mod time;
pub(crate) mod why;
