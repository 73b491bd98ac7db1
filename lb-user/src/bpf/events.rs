//! The ring buffer by which the data path tells what others are to know. Who does not read it costs the data path nothing
//! but the events that find no room.

use super::LoadError;
use aya::maps::{Map, MapData, RingBuf};
use lb_common::share::Event;
use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
};
use tokio::io::unix::AsyncFd;
use zerocopy::FromBytes as _;

/// The events that the data path has told and nobody has read.
pub struct Events(RingBuf<MapData>);

impl Events {
    pub(super) fn new(map: Map) -> Result<Self, LoadError> {
        let map_error = |error| LoadError::Map { map: "weir_events", error };
        RingBuf::try_from(map).map(Self).map_err(map_error)
    }

    /// The next one, if there is one now.
    pub fn take(&mut self) -> Option<Event> {
        loop {
            let item = self.0.next()?;
            if let Ok(event) = Event::read_from_bytes(&item) {
                return Some(event);
            }
        }
    }

    /// A reader that waits for them.
    ///
    /// # Errors
    /// There is no runtime, or no descriptor left.
    pub fn waited_for(self) -> io::Result<AwaitedEvents> {
        #[expect(
            deprecated,
            reason = "the other way is unsafe; the ring buffer has one descriptor as long as it lives"
        )]
        let ready = AsyncFd::new(self)?;
        Ok(AwaitedEvents(ready))
    }
}

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Events that are waited for.
pub struct AwaitedEvents(AsyncFd<Events>);

impl AwaitedEvents {
    /// Waits for events; so many of them at most.
    ///
    /// # Errors
    /// The kernel refuses to be asked.
    pub async fn some(&mut self, most: usize) -> io::Result<Vec<Event>> {
        let mut guard = self.0.readable_mut().await?;
        let ring = guard.get_inner_mut();
        let events: Vec<_> = std::iter::from_fn(|| ring.take()).take(most).collect();
        if events.len() < most {
            guard.clear_ready();
        }
        Ok(events)
    }
}
