//! The lab of the peers: a client, servers, and everybody who can stand in the middle, each at work all the time. The
//! router's route to the VIPs says whose turn it is.
//!
//! Backends that take tunnels off do so in XDP, which costs whoever sends no tunnels. So there are as many again without,
//! for those, and one for the stub; all with the same server.

use std::{collections::BTreeSet, io, sync::Arc, time::Duration};

use super::{
    LeftOut, Options, Peer,
    client::{self, Counts},
    haproxy::Haproxy,
    nftables::Nftables,
    nginx::NginxStream,
    place::Place,
    report::Joins,
    stub::Stub,
};
use crate::{
    BackendCount, Lab, LabError,
    addresses::{BALANCER, DualAddress},
    churn::script::{Member, Stand},
    load::{
        content::Content,
        middle::{Middle, Way, WeirInTheMiddle},
        paths::{self, Joins as Endpoints},
        sample::Processes,
        servers::{self, Servers},
    },
    namespace::Namespace,
    oracle::{JoinCounts, JoinTally},
    wait,
};

const SEED: u64 = 1;
const WEIGHT: u32 = 100;
const SUBFLOWS: u8 = 2;
/// A join whose SYN was dropped comes again after 1 s and 3 s.
const JOIN_LIMIT: Duration = Duration::from_secs(10);
/// What one connection has taught of a path must not help another's: the route is the same, and what is behind it is not.
const FORGETFUL: &[(&str, &str)] = &[("ipv4/tcp_no_metrics_save", "1")];

/// Somebody in the middle, on a machine of its own.
#[derive(Debug)]
pub(super) struct Contender {
    /// None for Weir.
    pub(super) peer: Option<Peer>,
    namespace: Namespace,
    address: DualAddress,
    middle: Box<dyn Middle>,
}

/// All of it.
#[derive(Debug)]
pub(super) struct Stage {
    /// Weir first.
    pub(super) contenders: Vec<Contender>,
    servers: Servers,
    pub(super) content: Arc<Content>,
    /// How many backends each has; Weir's are the lab's first.
    backends: usize,
    /// Last, so that all that runs in it is gone before.
    lab: Lab,
}

impl Stage {
    /// Makes one; everybody has one backend. Returns when everybody forwards, with who cannot and why.
    pub(super) fn set_up(options: &Options) -> Result<(Self, Vec<LeftOut>), LabError> {
        let backends = usize::from(options.backends.number());
        let mut lab = Lab::builder().backends(BackendCount::try_from(2 * options.backends.number() + 1)?).build()?;
        for namespace in lab.namespaces() {
            namespace.write_settings(FORGETFUL)?;
        }
        // Who ends connections in the middle goes on to these, and announces to them too what is for clients.
        for backend in &lab.backends[backends..2 * backends] {
            backend.namespace.ip_batch("mptcp limits set subflow 8 add_addr_accepted 0\n")?;
        }
        let root = servers::root(&lab);
        let servers = Servers::start(&mut lab, &root)?;
        let content = Arc::new(Content::write(SEED, &root)?);
        paths::lay(&lab.client.namespace, Endpoints::for_subflows(SUBFLOWS))?;
        let weir = Contender {
            peer: None,
            namespace: lab.balancer.namespace.clone(),
            address: BALANCER,
            middle: Box::new(WeirInTheMiddle::start(&lab, Way::Learn, &pool(backends, 1))?),
        };
        let mut stage = Self { contenders: vec![weir], servers, content, backends, lab };
        let mut left_out = Vec::new();
        let peers: BTreeSet<Peer> = options.peers.iter().copied().collect();
        for (peer, number) in peers.into_iter().zip(2..) {
            match stage.start(peer, number)? {
                Ok(contender) => stage.contenders.push(contender),
                Err(why) => left_out.push(LeftOut { peer, why }),
            }
        }
        Ok((stage, left_out))
    }

    fn start(&self, peer: Peer, number: u8) -> Result<Result<Contender, String>, LabError> {
        let (lab, pool, plain) = (&self.lab, pool(self.backends, 1), self.backends..2 * self.backends);
        let place = Place::lay(lab, peer.name(), number)?;
        place.namespace.write_settings(FORGETFUL)?;
        let (namespace, address) = (place.namespace.clone(), place.address);
        let middle: Box<dyn Middle> = match peer {
            Peer::Haproxy => Box::new(Haproxy::start(lab, place, plain, &pool)?),
            Peer::NginxStream => Box::new(NginxStream::start(lab, place, plain, &pool)?),
            Peer::Nftables => match Nftables::lacks(&place)? {
                None => Box::new(Nftables::start(lab, place, plain, &pool)?),
                Some(why) => return Ok(Err(why)),
            },
            Peer::Stub => Box::new(Stub::start(lab, &place, &lab.backends[2 * self.backends])?),
        };
        Ok(Ok(Contender { peer: Some(peer), namespace, address, middle }))
    }

    /// Has the VIPs' packets come to one of them.
    pub(super) fn send_to(&self, index: usize) -> Result<(), LabError> {
        self.lab.router.send_vips_to(self.contenders[index].address)
    }

    /// Whose processes are whose, while it is one's turn.
    pub(super) fn processes(&self, index: usize) -> Processes {
        Processes { servers: self.servers.processes(), middle: self.contenders[index].middle.processes() }
    }

    /// Does something as the client.
    pub(super) fn as_client<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> Result<T, LabError> {
        self.lab.client.namespace.run(work)?.map_err(LabError::system("run the client"))
    }

    /// Opens connections through one of them, which has all its backends from now on, and counts what becomes of their
    /// joins. Nothing if it has no others than one.
    pub(super) fn count_joins(&mut self, index: usize, connections: u16) -> Result<Option<(Joins, Counts)>, LabError> {
        let contender = &mut self.contenders[index];
        if contender.peer == Some(Peer::Stub) {
            return Ok(None);
        }
        contender.middle.change(&self.lab, &pool(self.backends, self.backends))?;
        self.send_to(index)?;
        let (lab, middle) = (&self.lab, &self.contenders[index].namespace);
        let before = (JoinTally::read(lab)?, JoinCounts::read(middle)?);
        let settle = |joins| settle(lab, middle, &before, joins);
        let (counts, joins) = self.as_client(|| client::hold(&self.content, connections, settle))?;
        Ok(Some((joins?, counts)))
    }
}

/// Waits until so many joins have ended, wherever that was.
fn settle(
    lab: &Lab,
    middle: &Namespace,
    (tally, counts): &(JoinTally, JoinCounts),
    joins: u64,
) -> Result<Joins, LabError> {
    let read = || Ok(Joins::of(&(&JoinTally::read(lab)? - tally), JoinCounts::read(middle)? - *counts));
    let settled = wait::until("joins end", JOIN_LIMIT, || {
        let seen: Joins = read()?;
        Ok((seen.attempted >= joins && seen.lost == 0).then_some(seen))
    });
    match settled {
        // What has not ended by now is lost, or was never attempted.
        Err(LabError::Deadline { .. }) => read(),
        settled => settled,
    }
}

/// A pool of so many members, of which the first so many are up.
fn pool(members: usize, up: usize) -> Vec<Member> {
    let stand = |index| if index < up { Stand::Up } else { Stand::Absent };
    (0..members).map(|index| Member { stand: stand(index), weight: WEIGHT }).collect()
}
