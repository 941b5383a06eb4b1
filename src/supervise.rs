//! No task dies silently: a panic in one ends the process, in order.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Spawns tasks, and tells when one of them has panicked. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Supervisor(Arc<watch::Sender<Option<&'static str>>>);

impl Default for Supervisor {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl Supervisor {
    /// Runs `task`, known as `name`, in the background.
    pub fn spawn<F>(&self, name: &'static str, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let fallen = Arc::clone(&self.0);
        // Boxed, because an async block that awaits what it was given has room for it twice.
        let mut task = Box::pin(task);
        tokio::spawn(std::future::poll_fn(move |context| {
            let _watcher = Watcher { name, fallen: &fallen };
            task.as_mut().poll(context)
        }))
    }

    /// Resolves with the name of the first task that panicked.
    pub async fn fallen(&self) -> &'static str {
        let mut fallen = self.0.subscribe();
        match fallen.wait_for(Option::is_some).await {
            Ok(name) => name.unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    }
}

/// Lives while the task runs; dropped while unwinding, it reports.
struct Watcher<'a> {
    name: &'static str,
    fallen: &'a watch::Sender<Option<&'static str>>,
}

impl Drop for Watcher<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.fallen.send_replace(Some(self.name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_reported_by_name_and_an_end_is_not() {
        let supervisor = Supervisor::default();
        supervisor.spawn("quiet", async {}).await.expect("ends");
        let fallen = supervisor.spawn("loud", async { panic!("on purpose") });
        assert!(fallen.await.is_err());
        assert_eq!(supervisor.fallen().await, "loud");
    }
}
