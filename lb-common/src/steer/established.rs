//! Every packet that does not open a connection: by its entry, if the flow is an exception, else by the ring.

use super::{Choice, arrival::Arrival, by_ring, learn, may_make_entry, serves, slot_of};
use crate::{
    ids::{BackendId, FlowHash},
    mptcp::{Capable, Join, Options, options::BOTH_KEYS_LEN},
    packet::Packet,
    reason::Reason,
    recent::Recent,
    share::{self, Event},
    tables::{Exception, FlowEntry, InsertError, Slot, Tables, Ways, state},
};

#[inline(always)]
pub(super) fn choose<P: Packet, T: Tables>(packet: &P, tables: &mut T, arrival: &Arrival) -> Choice {
    if arrival.service.ways.has(Ways::LEARN) && arrival.tcp.closes() {
        note_closing(tables, arrival);
    }
    if tables.may_have_entry(arrival.flow)
        && let Some(choice) = choose_by_entry(tables, arrival)
    {
        return choice;
    }
    let slot = slot_of(tables, arrival);
    let options = handshake_options(packet, arrival);
    let joins = options.join.is_some_and(Join::confirms);
    // A slot that has gone back to its former owner is in no transition, and a handshake may have begun at the other.
    let may_be_elsewhere = joins || options.capable.is_some() || slot.is_in_transition();
    let confirmed = if may_be_elsewhere { confirm(packet, tables, arrival, slot, options.capable) } else { None };
    let (backend, reason) = match confirmed {
        Some(choice) => choice?,
        None => choose_by_slot(tables, arrival, slot)?,
    };
    let learned = match options.capable {
        Some(capable) if !joins => learn::from_third_packet(packet, tables, arrival, capable, backend),
        _ => None,
    };
    Ok((backend, learned.unwrap_or(reason)))
}

/// The MPTCP options of a packet that may end a handshake: a shorter option field holds neither both keys nor the ACK of
/// a join.
#[inline(always)]
fn handshake_options<P: Packet>(packet: &P, arrival: &Arrival) -> Options {
    let tcp = &arrival.tcp;
    let may_end = arrival.service.ways.any() && tcp.options_len >= BOTH_KEYS_LEN && tcp.acknowledges();
    Options::unpack(P::merged(if may_end { packet.mptcp_options(tcp).pack() } else { 0 }))
}

/// The backend of a flow that has an entry, unless the entry ends here because a confirmed successor has taken its place.
#[inline(always)]
fn choose_by_entry<T: Tables>(tables: &mut T, arrival: &Arrival) -> Option<Choice> {
    let now = tables.now();
    let entry = tables.entry(arrival.flow)?;
    let (backend, contested) = (entry.backend, entry.state & FlowEntry::CONTESTED != 0);
    entry.seen = now;
    entry.state &= !FlowEntry::UNPROVEN;
    if arrival.tcp.closes() {
        entry.state |= FlowEntry::CLOSED;
    }
    if contested && confirmed_embryo(tables, arrival).is_some() {
        tables.remove_entry(arrival.flow);
        return None;
    }
    // An entry that found no room under its present name.
    let is_stuck = arrival.rotation.pins() && arrival.flow == arrival.former;
    Some(Ok((backend, if is_stuck { Reason::PinnedFull } else { Reason::Flow })))
}

/// The backend that the ring names for a flow without an entry.
#[inline(always)]
fn choose_by_slot<T: Tables>(tables: &mut T, arrival: &Arrival, slot: Slot) -> Choice {
    if !slot.is_in_transition() {
        return by_ring(slot.owner(), Reason::Ring);
    }
    let backend = slot.previous();
    if !slot.pins() || arrival.tcp.closes() || slot.answers_for(backend) {
        return Ok((backend, Reason::RingPrevious));
    }
    // The SYN is long past; this stands for its sequence number.
    let sequence = arrival.tcp.sequence.wrapping_sub(1);
    match insert(tables, arrival, sequence, backend, Exception::Pinned) {
        Ok(()) => Ok((backend, Reason::Pinned)),
        Err(()) => Ok((backend, Reason::PinnedFull)),
    }
}

/// Makes the entry that a SYN asked for, where the ring does not answer: for a joined subflow (RFC 8684, 3.2: its ACK
/// carries `MP_JOIN` until the server has acknowledged it) or a connection that began in a slot in transition.
#[inline(always)]
fn confirm<P: Packet, T: Tables>(
    packet: &P,
    tables: &mut T,
    arrival: &Arrival,
    slot: Slot,
    capable: Option<Capable>,
) -> Option<Choice> {
    let embryo = *confirmed_embryo(tables, arrival)?;
    let joins = embryo.kind() == state::JOINING;
    let answerer = if joins { None } else { answerer(packet, tables, arrival, capable) };
    let answerer = answerer.filter(|&named| named == slot.owner() || named == slot.previous());
    let backend = answerer.unwrap_or(embryo.backend);
    if !joins && !serves(tables, backend) {
        // Its SYN came again when that backend was gone, and went to whom the ring names.
        if let Some(bucket) = tables.embryonic(arrival.flow) {
            bucket.remove(arrival.flow);
        }
        return None;
    }
    if !slot.answers_for(backend) {
        if !joins && !may_make_entry(packet, tables, &arrival.ip) {
            return Some(Err(Reason::MovedOverBudget));
        }
        let (kind, full) =
            if joins { (Exception::Joined, Reason::JoinedFull) } else { (Exception::Moved, Reason::MovedFull) };
        if insert(tables, arrival, embryo.sequence, backend, kind).is_err() {
            return Some(Err(full));
        }
    }
    if let Some(bucket) = tables.embryonic(arrival.flow) {
        bucket.remove(arrival.flow);
    }
    Some(Ok((backend, if joins { Reason::Joined } else { Reason::Moved })))
}

/// Whose answer a third packet confirms, where the server's key in it tells: two backends may have answered, to SYNs between
/// which the slot's owner changed, and the client took whichever answer was first. A key of the kernel's own choice names
/// somebody by chance, so whoever asks believes it only of those whose slot it is or was.
#[inline(always)]
fn answerer<P: Packet, T: Tables>(
    packet: &P,
    tables: &mut T,
    arrival: &Arrival,
    capable: Option<Capable>,
) -> Option<BackendId> {
    if !arrival.service.ways.has(Ways::TOKEN) {
        return None;
    }
    let capable = capable?;
    let version = capable.accepted(arrival.tcp.payload_len)?;
    let (_, key) = capable.keys(packet, &arrival.tcp)?;
    let token = T::derive_token(version, key);
    tables.named_by(arrival.service.pool, token).backend().filter(|&backend| serves(tables, backend))
}

/// What was chosen for the SYN that this packet confirms: it carries the very next sequence number (behind the SYN's data
/// if the server took any), which nobody knows who has not seen the SYN.
#[inline(always)]
fn confirmed_embryo<'t, T: Tables>(tables: &'t mut T, arrival: &Arrival) -> Option<&'t Recent> {
    if !arrival.tcp.acknowledges() {
        return None;
    }
    let embryo = tables.embryonic(arrival.flow)?.find(arrival.flow)?;
    if embryo.is_followed_by(arrival.tcp.sequence) { Some(embryo) } else { None }
}

#[inline(always)]
fn insert<T: Tables>(
    tables: &mut T,
    arrival: &Arrival,
    sequence: u32,
    backend: BackendId,
    kind: Exception,
) -> Result<(), ()> {
    let entry = FlowEntry { sequence, seen: tables.now(), backend, state: FlowEntry::OPEN | FlowEntry::UNPROVEN };
    match tables.insert_entry(kind, arrival.flow, entry) {
        Ok(()) => {
            if kind == Exception::Joined {
                share::tell(tables, &Event::joined(arrival.service.pool, arrival.flow, &entry));
            }
            Ok(())
        }
        Err(InsertError::Exists) => Ok(()),
        Err(InsertError::Full) => Err(()),
    }
}

/// Tells the controller that a flow ends; it knows whether the flow was the first of a connection.
#[inline(always)]
fn note_closing<T: Tables>(tables: &mut T, arrival: &Arrival) {
    note_closing_of(tables, arrival, arrival.flow);
    if arrival.rotation.is_under_way() && arrival.former != arrival.flow {
        note_closing_of(tables, arrival, arrival.former);
    }
}

#[inline(always)]
fn note_closing_of<T: Tables>(tables: &mut T, arrival: &Arrival, flow: FlowHash) {
    let sign = Recent::new(flow, arrival.tcp.sequence, tables.now(), BackendId::NONE, state::CLOSING);
    if let Some(bucket) = tables.closing(flow) {
        bucket.insert(sign);
    }
}
