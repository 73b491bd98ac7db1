//! Whether a connection is an MPTCP one, or has fallen back to plain TCP; and whether the token that the server gave it names
//! this backend.

use super::{Failure, Listener, Minting};
use lb_common::{
    ids::{BackendId, Token},
    stateless::{Codec, TokenId},
};
use nix::{getsockopt_impl, libc, sockopt_impl, sys::socket::getsockopt};
use std::{net::SocketAddr, time::Duration};
use tokio::{net::TcpStream, time::sleep};

/// `MPTCP_INFO` (linux/mptcp.h), which is refused where the connection is plain TCP.
const MPTCP_INFO: libc::c_int = 1;
const SOL_MPTCP: libc::c_int = 284;

sockopt_impl!(
    /// Its first word; the rest does not matter here.
    Info, GetOnly, SOL_MPTCP, MPTCP_INFO, u32
);

/// Good if the other end speaks MPTCP.
pub(super) fn is_spoken(stream: &TcpStream) -> Result<(), Failure> {
    getsockopt(stream, Info).map(drop).map_err(|_| Failure::PlainTcp)
}

/// How often, and how long after each other, the token is looked for that a check's third packet has told on its way out.
const LOOKS: u32 = 50;
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);

/// What the tokens of a backend are to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenCheck {
    /// What reads them.
    pub codec: Codec,
    /// The backend's name in them.
    pub id: TokenId,
}

impl TokenCheck {
    /// Good if the server has given a token that names it, or speaks plain TCP, for which there are no joins.
    pub(super) async fn judge(
        &self,
        stream: &TcpStream,
        id: BackendId,
        target: SocketAddr,
        listener: &impl Listener,
    ) -> Result<Minting, Failure> {
        if is_spoken(stream).is_err() {
            return Ok(Minting::PlainTcp);
        }
        let port = stream.local_addr().map_err(Failure::Broken)?.port();
        for _ in 0..LOOKS {
            if let Some(token) = listener.server_token(id, target.is_ipv6(), port) {
                return self.read(token);
            }
            sleep(BETWEEN_LOOKS).await;
        }
        Err(Failure::NoToken)
    }

    fn read(&self, token: Token) -> Result<Minting, Failure> {
        match self.codec.decode(token) {
            Some(named) if named == self.id => Ok(Minting::Tokens),
            Some(TokenId(named)) => Err(Failure::OtherToken { named, wanted: self.id.0 }),
            None => Err(Failure::IllegibleToken),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_common::{
        hash::SipKey,
        stateless::{Epoch, IdBits},
    };

    #[test]
    fn a_token_is_judged_by_whom_it_names() {
        let bits = IdBits::for_backends(4).expect("two bits");
        let codec = Codec::new(bits).with(Epoch::FIRST, SipKey::from_bytes([7; 16]));
        let token = |number: u32| Token::from_wire(number.to_be_bytes());
        let id = codec.decode(token(5)).expect("the first epoch's");
        let other = TokenId(id.0 ^ 1);
        assert!(matches!(TokenCheck { codec, id }.read(token(5)), Ok(Minting::Tokens)));
        let refused = TokenCheck { codec, id: other }.read(token(5)).expect_err("another backend's");
        assert!(refused.to_string().contains(&format!("token_id {}, not {}", id.0, other.0)), "{refused}");
        let refused = TokenCheck { codec, id }.read(token(1 << 30)).expect_err("an epoch without a secret");
        assert!(refused.to_string().contains("no backend"), "{refused}");
    }
}
