//! The time that connecting may take, without the time that a person takes to answer.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// Ends what takes too long; stands still while a person is being asked.
#[derive(Clone, Debug)]
pub(super) struct Deadline {
    /// When the time is up; `None` while it stands still.
    at: Arc<watch::Sender<Option<Instant>>>,
}

/// The time was up.
#[derive(Debug)]
pub(super) struct TimeUp;

impl Deadline {
    pub(super) fn after(time: Duration) -> Self {
        Self { at: Arc::new(watch::Sender::new(Some(Instant::now() + time))) }
    }

    /// Runs something for as long as there is time.
    pub(super) async fn run<T>(&self, work: impl Future<Output = T>) -> Result<T, TimeUp> {
        let mut at = self.at.subscribe();
        let time_up = async {
            loop {
                let current = *at.borrow_and_update();
                let changed = at.changed();
                match current {
                    None => drop(changed.await),
                    Some(at) => tokio::select! {
                        () = tokio::time::sleep_until(at) => return,
                        _ = changed => {}
                    },
                }
            }
        };
        tokio::select! {
            biased;
            result = work => Ok(result),
            () = time_up => Err(TimeUp),
        }
    }

    /// Waits for something that a person does; the time stands still meanwhile.
    pub(super) async fn pause<T>(&self, work: impl Future<Output = T>) -> T {
        let left = self.at.borrow().map(|at| at.saturating_duration_since(Instant::now()));
        self.at.send_replace(None);
        let result = work.await;
        if let Some(left) = left {
            self.at.send_replace(Some(Instant::now() + left));
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn time_stands_still_while_a_person_answers() {
        let deadline = Deadline::after(Duration::from_millis(50));
        let asking = deadline.pause(tokio::time::sleep(Duration::from_millis(150)));
        assert!(deadline.run(asking).await.is_ok());
        assert!(deadline.run(tokio::time::sleep(Duration::from_secs(5))).await.is_err());
    }
}
