//! What implementations of the trait of `object_store` have in common.

use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::Result;
use object_store::path::Path;

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
