//! Checks of the tokens that name backends: that there are enough of them, and that each backend of a pool has an id of
//! its own where the pool's ways say so, and only there.

use super::super::{Join, Problem, TokenSecret, TokenWay, Way, file};
use super::{Findings, balancer::limit};
use lb_common::{
    limits::{MINT_KEYS, TOKEN_BACKENDS, TOKEN_CONNECTIONS},
    stateless::{IdBits, TokenId},
};
use std::collections::HashMap;
use std::ops::Range;
use toml::Spanned;

/// How a pool's tokens name backends: the outer `None` is a problem, the inner one is absence.
#[expect(clippy::option_option, reason = "absent and wrong are different")]
pub(super) fn token(written: &file::Pool, findings: &mut Findings<'_>) -> Option<Option<TokenWay>> {
    let Some(at) = &written.token else { return Some(None) };
    let file::Token { secret, max_backends, connections } = at.get_ref();
    let bits = bits(max_backends.as_ref(), connections.as_ref(), at.span(), findings);
    let secret = TokenSecret::load(secret.get_ref())
        .map_err(|error| findings.problem(secret.span(), Problem::TokenSecret(error)))
        .ok();
    Some(Some(TokenWay { secret: secret?, bits: bits? }))
}

/// How many bits an id has, if that leaves tokens enough.
pub(super) fn bits(
    max_backends: Option<&Spanned<i64>>,
    connections: Option<&Spanned<i64>>,
    at: Range<usize>,
    findings: &mut Findings<'_>,
) -> Option<IdBits> {
    let backends = limit(max_backends, TOKEN_BACKENDS, findings);
    let expected = limit(connections, TOKEN_CONNECTIONS, findings);
    let bits = IdBits::for_backends(backends?)?;
    let (expected, most) = (expected?, bits.connections_max());
    if expected > most {
        findings.problem(connections.map_or(at, Spanned::span), Problem::FewTokens { expected, most });
        return None;
    }
    Some(bits)
}

/// An id that there can be with so many backends. Where their number is wrong it is below the most that there can be.
pub(super) fn in_range(
    id: &Spanned<i64>,
    max_backends: Option<&Spanned<i64>>,
    findings: &mut Findings<'_>,
) -> Option<TokenId> {
    let backends = match max_backends.map(|written| u32::try_from(*written.get_ref())) {
        None => TOKEN_BACKENDS.default,
        Some(Ok(written)) if IdBits::for_backends(written).is_some() => written,
        Some(_) => TOKEN_BACKENDS.max,
    };
    let id = findings.in_range(id, 0, i64::from(backends) - 1)?;
    u16::try_from(id).ok().map(TokenId)
}

/// How many keys are kept ready, if there are tokens enough for them.
pub(super) fn keys(written: Option<&Spanned<i64>>, bits: Option<IdBits>, findings: &mut Findings<'_>) -> Option<u32> {
    let keys = limit(written, MINT_KEYS, findings)?;
    let most = bits?.keys_max();
    if let Some(written) = written
        && keys > most
    {
        findings.problem(written.span(), Problem::FewTokensForKeys { keys, most });
        return None;
    }
    Some(keys)
}

/// The id of each backend of a pool, in the order of the file.
#[expect(clippy::option_option, reason = "absent and wrong are different")]
pub(super) fn ids(written: &file::Pool, findings: &mut Findings<'_>) -> Vec<Option<Option<TokenId>>> {
    let max_backends = written.token.as_ref().and_then(|token| token.get_ref().max_backends.as_ref());
    let mut taken = HashMap::new();
    let backends = written.backend.iter().map(Spanned::get_ref);
    backends.map(|backend| id(backend, max_backends, &mut taken, findings)).collect()
}

#[expect(clippy::option_option, reason = "absent and wrong are different")]
fn id<'w>(
    backend: &'w file::Backend,
    max_backends: Option<&Spanned<i64>>,
    taken: &mut HashMap<TokenId, &'w file::Backend>,
    findings: &mut Findings<'_>,
) -> Option<Option<TokenId>> {
    let Some(written) = &backend.token_id else { return Some(None) };
    let id = in_range(written, max_backends, findings)?;
    if let Some(other) = taken.get(&id) {
        let (other, line) = (other.name.get_ref().clone(), findings.line(&other.name.span()));
        findings.problem(written.span(), Problem::TokenIdTwice { id: id.0, other, line });
        return None;
    }
    taken.insert(id, backend);
    Some(Some(id))
}

/// Whether a pool has a secret and its backends have ids where its ways say so, and only there.
pub(super) fn fit_ways(written: &file::Pool, join: Option<&Join>, findings: &mut Findings<'_>) {
    let Some(join) = join else { return };
    let wanted = matches!(join, Join::By(ways) if ways.contains(&Way::Token));
    match (&written.join, &written.token) {
        (Some(join), None) if wanted => findings.problem(join.span(), Problem::NoTokenTable),
        (_, Some(token)) if !wanted => findings.problem(token.span(), Problem::TokenUnused),
        _ => {}
    }
    for backend in &written.backend {
        match &backend.get_ref().token_id {
            None if wanted => findings.problem(backend.span(), Problem::TokenIdMissing),
            Some(id) if !wanted => findings.problem(id.span(), Problem::TokenIdUnused),
            _ => {}
        }
    }
}
