//! The listeners of VIPs: which there are, what they say, and until when the kernel takes cookies for them.

use super::{
    super::sockets::{Listening, Sockets},
    MintError,
    probe::{self, ProbeError, Said},
    settings::{self, Moment, Unfit},
};
use crate::{
    bpf::{Marker, MintTables, Pins},
    clock,
    config::AgentConfig,
};
use lb_common::{
    limits::LISTENERS_MAX,
    mint::{Listener, Service},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::spawn_blocking;
use tracing::{info, warn};

/// How long after a cookie of its own a listener is minted for. It takes cookies for two minutes after that, so one that was
/// given out last has a minute to come back; and a dead agent means plain TCP within the minute.
const HOLDS: Duration = Duration::from_mins(1);
/// How often a listener gives out a cookie of its own.
const AGAIN: Duration = Duration::from_secs(20);
/// How soon it is asked again that did not answer.
const RETRY: Duration = Duration::from_secs(5);
/// A full accept queue comes and goes: how soon the operator hears of it again.
const FULL_AGAIN: Duration = Duration::from_mins(1);
/// How often settings are looked at.
const SETTINGS: Duration = Duration::from_secs(1);

/// How it stands with a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Its SYNs are answered.
    Minting,
    /// Its accept queue is full.
    QueueFull,
    /// It gives no cookies, and why.
    Unwell(String),
}

impl State {
    /// The words for all of them.
    pub const WORDS: [&str; 3] = ["minting", "queue_full", "unwell"];

    /// The word for it in metrics.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Minting => "minting",
            Self::QueueFull => "queue_full",
            Self::Unwell(_) => "unwell",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Minting => f.write_str("mints"),
            Self::QueueFull => f.write_str("mints nothing while its accept queue is nearly full"),
            Self::Unwell(why) => write!(f, "mints nothing: {why}"),
        }
    }
}

/// A service that has a listener.
struct Known {
    /// The sockets that share its port.
    inodes: BTreeSet<u32>,
    said: Option<Said>,
    /// Its last cookie, by the kernel's clock.
    cookie: Option<Duration>,
    asked: Option<Instant>,
    is_full: bool,
    state: State,
    /// Whether the operator has heard that it is minted for.
    is_told: bool,
    /// When the operator last heard that its accept queue is full.
    told_full: Option<Instant>,
    /// What the kernel's table has.
    written: Option<Listener>,
}

/// All of them.
pub(super) struct Listeners {
    config: Arc<AgentConfig>,
    /// The pins, and what marks a place there.
    pins: Arc<(Pins, Marker)>,
    mtu: u16,
    sockets: Sockets,
    known: BTreeMap<SocketAddr, Known>,
    flags: Result<u8, Unfit>,
    looked_at_settings: Option<Instant>,
}

impl Listeners {
    pub(super) fn new(config: Arc<AgentConfig>, pins: Arc<(Pins, Marker)>, mtu: u16) -> Result<Self, MintError> {
        let flags = settings::flags();
        if let Err(unfit) = flags {
            warn!("nothing is minted: {unfit}; `{}`", unfit.remedy());
        }
        let (sockets, known) = (Sockets::open()?, BTreeMap::new());
        Ok(Self { config, pins, mtu, sockets, known, flags, looked_at_settings: None })
    }

    pub(super) fn states(&self) -> Vec<(String, State)> {
        self.known.iter().map(|(service, known)| (service.to_string(), known.state.clone())).collect()
    }

    /// Looks at all of them, and has the kernel mint for those that are well.
    pub(super) async fn look(&mut self, tables: &mut MintTables) -> Result<(), MintError> {
        let now = Instant::now();
        self.look_at_settings(now);
        let services = self.services().await?;
        let gone: Vec<_> = self.known.keys().filter(|service| !services.contains_key(service)).copied().collect();
        for service in gone {
            self.known.remove(&service);
            tables.listeners.remove(key(service))?;
            info!("nobody listens on {service} for MPTCP any more");
        }
        for (&service, sockets) in &services {
            let inodes: BTreeSet<_> = sockets.iter().map(|socket| socket.inode).collect();
            let known = self.known.entry(service).or_insert_with(Known::new);
            if known.inodes != inodes {
                // Another socket has given out no cookie yet.
                *known = Known { inodes, written: known.written, told_full: known.told_full, ..Known::new() };
            }
            // Above a half nothing is minted: what is on its way comes on top.
            known.is_full = sockets.iter().any(|socket| socket.waiting > socket.waiting_max / 2);
            known.judge(self.flags);
        }
        // First nothing is minted where nothing may be, then cookies are asked for.
        self.write(tables, now)?;
        self.ask_for_cookies(now).await;
        self.write(tables, now)
    }

    fn look_at_settings(&mut self, now: Instant) {
        if self.looked_at_settings.is_some_and(|last| now < last + SETTINGS) {
            return;
        }
        self.looked_at_settings = Some(now);
        let flags = settings::flags();
        if flags.is_ok() != self.flags.is_ok() {
            match flags {
                Ok(_) => info!("the kernel's settings are fit for minting"),
                Err(unfit) => warn!("nothing is minted: {unfit}; `{}`", unfit.remedy()),
            }
        }
        self.flags = flags;
    }

    /// The services of VIPs that have listeners, each with all of them.
    async fn services(&mut self) -> Result<BTreeMap<SocketAddr, Vec<Listening>>, MintError> {
        let sockets = self.sockets.listeners().await?;
        let ports: BTreeSet<_> = sockets.iter().map(|socket| socket.local.port()).collect();
        let mut services = BTreeMap::new();
        for vip in self.config.minted_vips().filter(|vip| vip.prefix.is_host()) {
            for &port in ports.range(vip.ports.first()..=vip.ports.last()) {
                let service = SocketAddr::new(vip.prefix.address(), port);
                let listeners = of_service(&sockets, service);
                if !listeners.is_empty() && services.len() < LISTENERS_MAX as usize {
                    services.insert(service, listeners);
                }
            }
        }
        Ok(services)
    }

    /// Asks those whose last cookie is old, in one moment.
    async fn ask_for_cookies(&mut self, now: Instant) {
        if self.flags.is_err() {
            return;
        }
        let due: Vec<_> =
            self.known.iter().filter(|(_, known)| known.is_due(now)).map(|(&service, _)| service).collect();
        if due.is_empty() {
            return;
        }
        let (pins, cookie, services) = (Arc::clone(&self.pins), clock::now(), due.clone());
        let asked = spawn_blocking(move || ask(&services, &pins)).await;
        let answers = match asked {
            Ok(Ok(answers)) => answers,
            Ok(Err(error)) => none_for(due, &error),
            Err(panicked) => none_for(due, &panicked.into()),
        };
        for (service, answer) in answers {
            let Some(known) = self.known.get_mut(&service) else { continue };
            known.asked = Some(now);
            match answer {
                Ok(said) => {
                    (known.said, known.cookie) = (Some(said), Some(cookie));
                    known.judge(self.flags);
                }
                Err(error) => {
                    let state = State::Unwell(error.to_string());
                    // It is asked again and again; the operator hears it once.
                    if known.state != state {
                        warn!("{service} is not minted for, so its connections are plain TCP: {error}");
                    }
                    (known.said, known.cookie, known.state, known.is_told) = (None, None, state, false);
                }
            }
        }
    }

    fn write(&mut self, tables: &mut MintTables, now: Instant) -> Result<(), MintError> {
        let flags = self.flags.unwrap_or_default();
        for (&service, known) in &mut self.known {
            let entry = known.entry(self.config.mss(service.ip(), self.mtu), self.mtu, service.ip(), flags);
            if known.written != Some(entry) {
                tables.listeners.write(key(service), entry)?;
                known.written = Some(entry);
            }
            known.tell(service, now);
        }
        Ok(())
    }
}

impl Known {
    fn new() -> Self {
        let state = State::Unwell("it has not answered yet".to_owned());
        Self {
            inodes: BTreeSet::new(),
            said: None,
            cookie: None,
            asked: None,
            is_full: false,
            state,
            is_told: false,
            told_full: None,
            written: None,
        }
    }

    /// Tells the operator what is new of it.
    fn tell(&mut self, service: SocketAddr, now: Instant) {
        match self.state {
            State::Minting if !self.is_told => {
                info!("minting for {service}");
                self.is_told = true;
            }
            State::QueueFull if self.told_full.is_none_or(|last| now >= last + FULL_AGAIN) => {
                warn!(
                    "the accept queue of {service} is nearly full: until its program takes connections, new ones are plain \
                     TCP; if that comes often, have it listen with a longer backlog (and raise `net.core.somaxconn`)"
                );
                self.told_full = Some(now);
            }
            _ => {}
        }
    }

    fn judge(&mut self, flags: Result<u8, Unfit>) {
        match flags {
            Err(unfit) => self.state = State::Unwell(unfit.to_string()),
            Ok(_) if self.said.is_none() => {}
            Ok(_) if self.is_full => self.state = State::QueueFull,
            Ok(_) => self.state = State::Minting,
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        let after = if self.said.is_some() { AGAIN } else { RETRY };
        self.asked.is_none_or(|last| now >= last + after)
    }

    fn entry(&self, clamped: Option<u16>, mtu: u16, address: IpAddr, flags: u8) -> Listener {
        let Some((said, cookie)) = self.said.zip(self.cookie).filter(|_| self.state == State::Minting) else {
            return Listener { until: 0, mss: 0, window: 0, wscale: 0, flags, zero: 0 };
        };
        let headers = if address.is_ipv4() { 40 } else { 60 };
        let mss = mtu.saturating_sub(headers).min(said.mss).min(clamped.unwrap_or(u16::MAX)).max(AgentConfig::MSS_MIN);
        let until = clock::nanos(cookie + HOLDS);
        Listener { until, mss, window: said.window / mss * mss, wscale: said.wscale, flags, zero: 0 }
    }
}

/// Those that a SYN for a service reaches: of its address if there is one, else of any.
fn of_service(sockets: &[Listening], service: SocketAddr) -> Vec<Listening> {
    let of = |is: &dyn Fn(&Listening) -> bool| -> Vec<_> {
        sockets.iter().filter(|socket| socket.local.port() == service.port() && is(socket)).copied().collect()
    };
    let own = of(&|socket| socket.local.ip() == service.ip());
    if !own.is_empty() {
        return own;
    }
    of(&|socket| match (socket.local.ip(), service.ip()) {
        (IpAddr::V4(any), IpAddr::V4(_)) => any.is_unspecified(),
        (IpAddr::V6(any), IpAddr::V6(_)) => any.is_unspecified(),
        (IpAddr::V6(any), IpAddr::V4(_)) => any.is_unspecified() && !socket.only_v6,
        (IpAddr::V4(_), IpAddr::V6(_)) => false,
    })
}

/// That none could be asked, and why.
fn none_for(services: Vec<SocketAddr>, why: &io::Error) -> Vec<(SocketAddr, Result<Said, ProbeError>)> {
    let why = |service| (service, Err(ProbeError::NoMoment(why.to_string())));
    services.into_iter().map(why).collect()
}

/// What each says, while the kernel answers all SYNs with cookies.
fn ask(
    services: &[SocketAddr],
    (pins, marker): &(Pins, Marker),
) -> io::Result<Vec<(SocketAddr, Result<Said, ProbeError>)>> {
    let _moment = Moment::begin(pins, |place| marker.mark(place))?;
    Ok(services.iter().map(|&service| (service, probe::ask(service))).collect())
}

fn key(service: SocketAddr) -> Service {
    Service::new(service.ip().into(), service.port())
}
