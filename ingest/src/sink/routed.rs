//! Sends each record to the sink of its environment.

use super::{RawRecord, Sink, SinkError};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

/// A sink for each environment, that of the main prefix first.
pub struct Routed<S> {
    sinks: Vec<S>,
}

impl<S> Routed<S> {
    /// Sinks in the order of environments: that of the main prefix, then one for each prefix of the routes.
    pub const fn new(sinks: Vec<S>) -> Self {
        Self { sinks }
    }

    /// The sinks, in the order of environments.
    #[must_use]
    pub fn sinks(&self) -> &[S] {
        &self.sinks
    }

    fn sink(&self, environment: u8) -> Result<&S, SinkError> {
        let sink = self.sinks.get(usize::from(environment));
        sink.ok_or_else(|| SinkError::Unavailable(format!("there is no environment {environment}")))
    }
}

impl<S: Sink> Sink for Routed<S> {
    async fn append(&self, records: Vec<RawRecord>) -> Result<(), SinkError> {
        let Some(first) = records.first().map(|record| record.environment) else {
            return Ok(());
        };
        if records.iter().all(|record| record.environment == first) {
            return self.sink(first)?.append(records).await;
        }
        let mut parts: Vec<Vec<RawRecord>> = self.sinks.iter().map(|_| Vec::new()).collect();
        for record in records {
            self.sink(record.environment)?;
            parts[usize::from(record.environment)].push(record);
        }
        let parts = self.sinks.iter().zip(parts).filter(|(_, part)| !part.is_empty());
        all(parts
            .map(|(sink, part)| Box::pin(sink.append(part)) as Appending<'_>)
            .collect())
        .await
    }

    /// Whether all sinks are ready, since a record of any environment may come next.
    fn ready(&self) -> bool {
        self.sinks.iter().all(Sink::ready)
    }
}

type Appending<'a> = Pin<Box<dyn Future<Output = Result<(), SinkError>> + Send + 'a>>;

/// Waits for all, side by side; gives the failure that came first, if there is one.
async fn all(mut waiting: Vec<Appending<'_>>) -> Result<(), SinkError> {
    let mut result = Ok(());
    poll_fn(|context| {
        waiting.retain_mut(|one| match one.as_mut().poll(context) {
            Poll::Ready(outcome) => {
                if result.is_ok() {
                    result = outcome;
                }
                false
            }
            Poll::Pending => true,
        });
        if waiting.is_empty() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tokio::sync::Notify;

    /// A sink that confirms records only when it is told to.
    #[derive(Default)]
    struct Held {
        open: Notify,
        is_ready: AtomicBool,
        fails: bool,
        taken: Mutex<Vec<String>>,
    }

    impl Sink for Held {
        async fn append(&self, records: Vec<RawRecord>) -> Result<(), SinkError> {
            self.taken
                .lock()
                .unwrap()
                .extend(records.into_iter().map(|record| record.key));
            self.open.notified().await;
            if self.fails {
                Err(SinkError::Full("held".to_owned()))
            } else {
                Ok(())
            }
        }

        fn ready(&self) -> bool {
            self.is_ready.load(Ordering::Relaxed)
        }
    }

    fn record(key: &str, environment: u8) -> RawRecord {
        RawRecord {
            signal: schemas::signal::Signal::Logs,
            key: key.to_owned(),
            value: bytes::Bytes::new(),
            part: 0,
            policy: None,
            environment,
        }
    }

    #[tokio::test]
    async fn each_record_goes_to_its_sink_and_all_are_waited_for_side_by_side() {
        let routed = Routed::new(vec![
            Held::default(),
            Held {
                fails: true,
                ..Held::default()
            },
        ]);
        let records = vec![record("a", 0), record("b", 1), record("c", 0)];
        let mut waiting = Box::pin(routed.append(records));
        assert!(poll_fn(|context| Poll::Ready(waiting.as_mut().poll(context).is_pending())).await);
        let taken = |index: usize| routed.sinks[index].taken.lock().unwrap().clone();
        assert_eq!(
            (taken(0), taken(1)),
            (vec!["a".to_owned(), "c".to_owned()], vec!["b".to_owned()]),
            "neither waits for the other"
        );
        routed.sinks[1].open.notify_one();
        assert!(
            poll_fn(|context| Poll::Ready(waiting.as_mut().poll(context).is_pending())).await,
            "one is not all"
        );
        routed.sinks[0].open.notify_one();
        assert!(matches!(waiting.await, Err(SinkError::Full(_))));
        assert!(matches!(
            routed.append(vec![record("d", 2)]).await,
            Err(SinkError::Unavailable(_))
        ));
        assert!(routed.append(Vec::new()).await.is_ok());
    }

    #[test]
    fn ready_means_all() {
        let routed = Routed::new(vec![Held::default(), Held::default()]);
        routed.sinks[0].is_ready.store(true, Ordering::Relaxed);
        assert!(!routed.ready());
        routed.sinks[1].is_ready.store(true, Ordering::Relaxed);
        assert!(routed.ready());
    }
}
