//! The connections of clients to a listener, bounded in number, so that they leave file descriptors for all else that needs
//! some: where one more comes, the one that has waited longest without asking anything makes room. So who only connects
//! keeps nobody out.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    task::{AbortHandle, JoinSet},
    time::timeout,
};

/// Connections at once.
const CONNECTIONS_MAX: usize = 64;

/// The connections, oldest first.
pub(crate) struct Connections {
    /// Each may last so long.
    time: Duration,
    tasks: JoinSet<()>,
    silent: VecDeque<Silent>,
}

/// A connection that may not have asked anything yet.
struct Silent {
    task: AbortHandle,
    asked: Asked,
}

/// Whether a connection has asked something.
#[derive(Clone, Default)]
pub(crate) struct Asked(Arc<AtomicBool>);

impl Asked {
    /// It has.
    pub(crate) fn note(&self) {
        self.0.store(true, Relaxed);
    }
}

impl Connections {
    /// None yet; each may last so long.
    pub(crate) fn lasting(time: Duration) -> Self {
        Self { time, tasks: JoinSet::new(), silent: VecDeque::new() }
    }

    /// Waits until there is room for one more. Where all have asked, the first that is answered makes room.
    pub(crate) async fn make_room(&mut self) {
        while self.tasks.try_join_next().is_some() {}
        while self.tasks.len() >= CONNECTIONS_MAX {
            self.forget_the_heard();
            if let Some(oldest) = self.silent.pop_front() {
                oldest.task.abort();
            }
            self.tasks.join_next().await;
        }
        self.forget_the_heard();
    }

    /// Takes one more, which is to note when it is asked something.
    pub(crate) fn take(&mut self, asked: Asked, connection: impl Future<Output = ()> + Send + 'static) {
        let time = self.time;
        let task = self.tasks.spawn(async move {
            let _ = timeout(time, connection).await;
        });
        self.silent.push_back(Silent { task, asked });
    }

    fn forget_the_heard(&mut self) {
        self.silent.retain(|silent| !silent.task.is_finished() && !silent.asked.0.load(Relaxed));
    }
}
