//! Checks of the QUIC server ids of a pool's backends, and of the rotation bits with which they hold.

use super::super::{Problem, QuicServerId, file};
use super::Findings;
use std::collections::HashMap;
use toml::Spanned;

/// Rotation bits of connection ids that a balancer can route: 7 says that none can.
const ROTATION_MAX: i64 = 6;
const ROTATION_DEFAULT: u8 = 0;

/// The server id of each backend, in the order of the file.
#[expect(clippy::option_option, reason = "absent and wrong are different")]
pub(super) fn server_ids(
    written: &[Spanned<file::Backend>],
    findings: &mut Findings<'_>,
) -> Vec<Option<Option<QuicServerId>>> {
    let ids: Vec<_> = written
        .iter()
        .map(|backend| findings.parse_optional(backend.get_ref().quic_server_id.as_ref(), str::parse))
        .collect();
    if written.iter().any(|backend| backend.get_ref().quic_server_id.is_some()) {
        for backend in written.iter().filter(|backend| backend.get_ref().quic_server_id.is_none()) {
            findings.problem(backend.span(), Problem::QuicServerIdMissing);
        }
    }
    compare(written, &ids, findings);
    ids
}

/// All of a pool have the same length, and each is another.
#[expect(clippy::option_option, reason = "absent and wrong are different")]
fn compare(written: &[Spanned<file::Backend>], ids: &[Option<Option<QuicServerId>>], findings: &mut Findings<'_>) {
    let mut seen: HashMap<&QuicServerId, &file::Backend> = HashMap::new();
    let mut first: Option<(&QuicServerId, usize)> = None;
    for (backend, id) in written.iter().map(Spanned::get_ref).zip(ids) {
        let (Some(at), Some(Some(id))) = (&backend.quic_server_id, id) else { continue };
        let (first, line) = *first.get_or_insert_with(|| (id, findings.line(&at.span())));
        if first.len() != id.len() {
            let (len, other_len) = (id.len(), first.len());
            findings.problem(at.span(), Problem::QuicServerIdLength { id: id.clone(), len, other_len, line });
        }
        if let Some(other) = seen.get(id) {
            let line = other.quic_server_id.as_ref().map_or(0, |other| findings.line(&other.span()));
            let other = other.name.get_ref().clone();
            findings.problem(at.span(), Problem::QuicServerIdTwice { id: id.clone(), other, line });
        } else {
            seen.insert(id, backend);
        }
    }
}

pub(super) fn rotations(written: Option<&Spanned<Vec<Spanned<i64>>>>, findings: &mut Findings<'_>) -> Option<Vec<u8>> {
    let Some(written) = written else { return Some(vec![ROTATION_DEFAULT]) };
    if written.get_ref().is_empty() {
        findings.problem(written.span(), Problem::NoRotation);
    }
    let mut rotations = Vec::new();
    for written in written.get_ref() {
        let rotation = findings.in_range(written, 0, ROTATION_MAX)?;
        let rotation_bits = u8::try_from(rotation).ok()?;
        if rotations.contains(&rotation_bits) {
            findings.problem(written.span(), Problem::RotationTwice(rotation));
        }
        rotations.push(rotation_bits);
    }
    Some(rotations)
}
