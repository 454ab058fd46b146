//! Goes on with work when nobody waits for it any more: a client that closes its connection behind a complete
//! request has sent it all the same.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::runtime::Handle;

/// A future that the runtime carries on if it is dropped before its end.
///
/// A client that ends closes its connection, perhaps right after a complete request, which it does not send a second time.
pub(crate) struct Finishing<T>(Option<Pin<Box<dyn Future<Output = T> + Send>>>)
where
    T: Send + 'static;

impl<T: Send + 'static> Finishing<T> {
    /// Wraps work, whose result is lost if nobody waits for it.
    pub fn new(work: impl Future<Output = T> + Send + 'static) -> Self {
        Self(Some(Box::pin(work)))
    }
}

impl<T: Send + 'static> Future for Finishing<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let Some(work) = &mut self.0 else {
            return Poll::Pending;
        };
        let outcome = work.as_mut().poll(context);
        if outcome.is_ready() {
            self.0 = None;
        }
        outcome
    }
}

impl<T: Send + 'static> Drop for Finishing<T> {
    fn drop(&mut self) {
        // Without a runtime the process is ending, and the work ends with it.
        if let (Some(work), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(work);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn what_was_begun_is_finished_when_nobody_waits() {
        let (begin, begun) = oneshot::channel::<()>();
        let (done, end) = oneshot::channel();
        let work = Finishing::new(async move {
            let _ = begun.await;
            let _ = done.send("done");
        });
        assert!(
            tokio::time::timeout(Duration::from_millis(1), work)
                .await
                .is_err()
        );
        begin.send(()).expect("the work waits");
        assert_eq!(end.await, Ok("done"));
    }

    #[tokio::test]
    async fn it_gives_what_the_work_gives() {
        assert_eq!(Finishing::new(async { 5 }).await, 5);
    }
}
