//! The one connection of a store, made when it is needed and again when it was lost.

use std::sync::Arc;

use tokio::sync::Mutex;

use super::error::DoorError;

/// A connection that may have ended.
pub(in crate::store) trait Ends: Send + Sync + 'static {
    /// Whether nothing can be asked over it any more.
    fn has_ended(&self) -> bool;
}

struct Slot<L> {
    line: Option<Arc<L>>,
    /// There was one before.
    again: bool,
}

/// The connection of a store. Clones share it.
pub(in crate::store) struct Current<L>(Arc<Mutex<Slot<L>>>);

impl<L> Default for Current<L> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Slot { line: None, again: false })))
    }
}

impl<L: Ends> Current<L> {
    /// The connection that there is, or a new one by `make`, which is told whether there was one before.
    pub(in crate::store) async fn line<E, F>(
        &self,
        make: impl FnOnce(bool) -> F + Send + 'static,
    ) -> Result<Arc<L>, E>
    where
        E: From<DoorError> + Send + 'static,
        F: Future<Output = Result<L, E>> + Send,
    {
        let current = Arc::clone(&self.0);
        detached(async move {
            let mut current = current.lock().await;
            if let Some(line) = current.line.as_ref().filter(|line| !line.has_ended()) {
                return Ok(Arc::clone(line));
            }
            current.line = None;
            let line = Arc::new(make(current.again).await?);
            current.again = true;
            current.line = Some(Arc::clone(&line));
            Ok(line)
        })
        .await
    }
}

/// Does in a task of its own what is done under a lock: whoever wants it may not be polled for long, and must not hold up the
/// others then.
pub(in crate::store) async fn detached<T, E>(
    work: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<T, E>
where
    T: Send + 'static,
    E: From<DoorError> + Send + 'static,
{
    let ended = tokio::spawn(work).await;
    ended.unwrap_or_else(|error| Err(DoorError::Lost { said: error.to_string() }.into()))
}
