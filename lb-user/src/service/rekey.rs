//! The cluster key is changed under traffic: while flows that the former key has named are about, both hold.
//!
//! The time that this takes is a window like a slot's, and is kept by the same code: it begins with a change, gives entries
//! to survivors in its last part, and lasts longer while those find no room.

use super::{ServiceError, State, ledger::RingEntry, rings::Ring};
use crate::config::ClusterKey;
use aya::maps::MapError;
use lb_common::{
    hash::SipKey,
    rekey::Rotation,
    tables::{Globals, Slot},
    transition::Transitions,
};
use std::time::Duration;
use tracing::{info, warn};

/// The key that tables are to be rotated to, if the configured one is not theirs.
///
/// # Errors
/// They cannot be: it does not come with theirs as its former one, or another rotation is under way.
pub(super) fn next_key(globals: &Globals, configured: Option<&ClusterKey>) -> Result<Option<SipKey>, ServiceError> {
    let Some(configured) = configured else { return Ok(None) };
    let key = SipKey::from_bytes(*configured.bytes());
    let former = configured.former().map(|bytes| SipKey::from_bytes(*bytes));
    if key == *globals.key() {
        return Ok(None);
    }
    if globals.rotation.is_under_way() {
        return Err(ServiceError::RotationUnderWay);
    }
    if former == Some(*globals.key()) { Ok(Some(key)) } else { Err(ServiceError::OtherKey) }
}

/// Seconds until the window of a rotation ends.
pub(super) fn ends_in(rekeying: Option<&Ring>, now: Duration) -> Option<u64> {
    Some(rekeying?.transitions.ends_at()?.saturating_sub(now).as_secs())
}

impl State {
    /// Begins with tables that nothing is in yet. Where the key has a former one, other balancers have flows of it, which may
    /// come here.
    pub(super) fn begin_between_keys(&mut self, now: Duration) -> Result<(), ServiceError> {
        let Some(key) = self.config.balancer.cluster_key.clone() else { return Ok(()) };
        let Some(former) = key.former() else { return Ok(()) };
        let mut globals = self.balancer.globals.read(0)?;
        globals.keys = [SipKey::from_bytes(*former); 2];
        self.balancer.globals.write(0, globals)?;
        self.rekey(SipKey::from_bytes(*key.bytes()), now)
    }

    /// Names flows by another key from now on, and keeps those of the present one.
    pub(super) fn rekey(&mut self, key: SipKey, now: Duration) -> Result<(), ServiceError> {
        let mut window = Transitions::settled(&[Rotation::BEFORE.0]);
        let datagrams = self.layout.pools.iter().map(|pool| pool.udp_transition).max();
        window.keep_datagrams_for(datagrams.unwrap_or_default());
        let length = self.config.balancer.transition;
        window.change(&[Rotation::AFTER.0], now, length, |_| true);
        let [slot] = *window.slots() else { return Ok(()) };
        let packets = self.pinned_full_of_all()?;
        self.rekeying = Some(Ring::of_rotation(window, packets));
        self.save()?;

        let mut globals = self.balancer.globals.read(0)?;
        let next = 1 - globals.rotation.index();
        globals.keys[next] = key;
        self.balancer.globals.write(0, globals)?;
        #[expect(clippy::cast_possible_truncation, reason = "0 or 1")]
        let turned = Rotation::settled(next as u32).within(slot);
        self.balancer.globals.write(0, Globals { rotation: turned, ..globals })?;
        let minutes = length.as_secs().div_ceil(60);
        info!("the cluster key is changed: flows of the former key are kept for {minutes} min at least");
        Ok(())
    }

    /// Goes on with the rotation that the tables are in.
    pub(super) fn resume_rekeying(&mut self, globals: &Globals, written: Option<RingEntry>) {
        let entry = written.filter(|_| globals.rotation.is_under_way());
        self.rekeying = entry.map(|entry| Ring::resumed(vec![globals.rotation.window()], &entry));
    }

    /// Moves the rotation on.
    pub(super) fn advance_rekeying(&mut self, now: Duration) -> Result<(), ServiceError> {
        let Some(pins) = self.rekeying.as_ref().map(|ring| ring.transitions.pins()) else { return Ok(()) };
        let packets = if pins { self.pinned_full_of_all()? } else { 0 };
        let Some(rekeying) = &mut self.rekeying else { return Ok(()) };
        let was_full = rekeying.has_been_full();
        let is_full = rekeying.note_full(packets, now);
        let has_changed = !rekeying.advance(now).is_empty();
        let [slot] = *rekeying.transitions.slots() else { return Ok(()) };
        if is_full && !was_full {
            warn!(
                "flows of the former cluster key find no room under the present one, so it is kept until they do: a table of \
                 flows is full, as weir_table_entries tells, and the reason pinned_full counts their packets"
            );
        }
        if is_full || has_changed {
            self.save()?;
        }
        if has_changed {
            self.write_rotation(slot)?;
        }
        Ok(())
    }

    fn write_rotation(&mut self, slot: Slot) -> Result<(), ServiceError> {
        let mut globals = self.balancer.globals.read(0)?;
        globals.rotation = globals.rotation.within(slot);
        self.balancer.globals.write(0, globals)?;
        if !slot.is_in_transition() {
            // The secret goes with its use.
            globals.keys = [*globals.key(); 2];
            self.balancer.globals.write(0, globals)?;
            self.rekeying = None;
            self.save()?;
            info!("the former cluster key is forgotten: its line can be taken out of balancer.cluster_key_file");
        }
        Ok(())
    }

    /// Packets of survivors that found no room for an entry, of all pools.
    fn pinned_full_of_all(&self) -> Result<u64, MapError> {
        self.layout.pools.iter().map(|pool| self.pinned_full(pool.id)).sum()
    }
}
