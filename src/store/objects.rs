//! What implementations of the trait of `object_store` have in common.

use std::ops::Range;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Error, GetOptions, GetResult, GetResultPayload, ObjectMeta, PutResult, Result};

/// What a put gives where objects have neither tags nor versions.
pub(super) fn stored() -> PutResult {
    PutResult { e_tag: None, version: None, extensions: Default::default() }
}

/// What a get gives, if the object is one that was asked for: the bytes of `range`, as they come.
pub(super) fn given(
    options: &GetOptions,
    meta: ObjectMeta,
    range: Range<u64>,
    content: BoxStream<'static, Result<Bytes>>,
) -> Result<GetResult> {
    options.check_preconditions(&meta)?;
    let payload = GetResultPayload::Stream(content);
    Ok(GetResult { payload, meta, range, attributes: Default::default(), extensions: Default::default() })
}

/// The refusal of what nobody here asks of a store.
pub(super) fn not_implemented<T>(implementer: &str, operation: &str) -> Result<T> {
    Err(Error::NotImplemented { operation: operation.to_owned(), implementer: implementer.to_owned() })
}

/// Deletes one object after the other. One that is not deleted is an error in its place.
pub(super) fn delete_each<F>(
    locations: BoxStream<'static, Result<Path>>,
    delete: impl Fn(Path) -> F + Send + 'static,
) -> BoxStream<'static, Result<Path>>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let deleted = locations.and_then(move |location| {
        let done = delete(location.clone());
        async move { done.await.map(|()| location) }
    });
    deleted.boxed()
}
