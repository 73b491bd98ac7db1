//! A NATS server on a free port of the loopback, and members. All of it ends with its test.

use lb_user::{
    bus::{
        Bus, BusCounts, Refusal, Sharer,
        wire::{Batch, Notice},
    },
    config::{self, Config},
    service::Service,
};
use std::{
    net::{Ipv4Addr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

/// How long something may take that is sure to come.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

/// Waits for a condition.
pub(crate) async fn until(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "it has not come");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) struct Server {
    port: u16,
    process: Child,
}

impl Server {
    pub(crate) fn start() -> Self {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr());
        let port = port.expect("a free port").port();
        Self { port, process: serve(port) }
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill().and_then(|()| self.process.wait()).expect("it ends");
    }

    pub(crate) fn start_again(&mut self) {
        self.process = serve(self.port);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn serve(port: u16) -> Child {
    let mut command = Command::new("nats-server");
    command.args(["-a", "127.0.0.1", "-p", &port.to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
    let process = command.spawn().expect("nats-server; `cargo xtask setup` installs it");
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        assert!(Instant::now() < deadline, "the server does not listen");
        thread::sleep(Duration::from_millis(5));
    }
    process
}

fn settings(server: &Server, name: &str) -> String {
    format!("[bus]\nservers = [\"nats://127.0.0.1:{}\"]\ncluster = \"test\"\nname = \"{name}\"\n", server.port)
}

/// A balancer that is on no interface.
pub(crate) struct Balancer {
    service: Arc<Service>,
    bus: Bus,
}

impl Balancer {
    pub(crate) async fn start(server: &Server, name: &str) -> Self {
        let pins = format!("/sys/fs/bpf/weir-bus-{}-{name}-{}", std::process::id(), server.port);
        let text = format!(
            r#"
            [balancer]
            interface = "lo"
            pins = "{pins}"
            {}
            [limits]
            tokens = 1024
            joined_flows = 1024
            [[pool]]
            name = "safe"
            join = ["report"]
            backend = [{{ name = "b1", address = "10.0.0.1" }}, {{ name = "b2", address = "10.0.0.2" }}]
            [[pool]]
            name = "web"
            backend = [{{ name = "b2", address = "10.0.0.2" }}, {{ name = "b1", address = "10.0.0.1" }}]
            [[vip]]
            address = "192.0.2.1"
            protocol = "tcp"
            port = 443
            pool = "safe"
            [[vip]]
            address = "192.0.2.2"
            protocol = "tcp"
            port = 443
            pool = "web"
            "#,
            settings(server, name)
        );
        let config = Config::parse(&text, "weir.toml").expect("a good configuration");
        let service = tokio::task::spawn_blocking(|| Service::load(config)).await.expect("no panic");
        let service = Arc::new(service.expect("the kernel takes it"));
        service.open_to_others().expect("the kernel takes it");
        let settings = service.bus().expect("a bus");
        let sharer: Arc<dyn Sharer> = Arc::clone(&service) as _;
        let bus = Bus::start(&settings, sharer).await.expect("good settings");
        bus.catch_up().await;
        Self { service, bus }
    }

    /// The backends that hold a token, by the kernel's table.
    pub(crate) fn holders(&self, pool: &str, token: u32) -> Vec<String> {
        let tokens = self.service.tokens(100).expect("the kernel tells").samples;
        let token = format!("{token:08x}");
        let found = tokens.into_iter().find(|sample| sample.pool == pool && sample.token == token);
        found.map_or_else(Vec::new, |sample| sample.holders.into_iter().map(|holder| holder.backend).collect())
    }

    /// The joined flows, likewise.
    pub(crate) fn joined(&self) -> Vec<u64> {
        let flows = self.service.flows(100).expect("the kernel tells").samples;
        let joined = flows.into_iter().filter(|sample| sample.table == "joined_flows");
        joined.map(|sample| u64::from_str_radix(&sample.flow, 16).expect("a number")).collect()
    }

    pub(crate) fn refused(&self, refusal: Refusal) -> u64 {
        let found = self.bus.counts.refused().into_iter().find(|(found, _)| *found == refusal);
        found.map_or(0, |(_, count)| count)
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        // The tables go with their pins.
        self.service.abandon();
    }
}

/// One that tells, and takes nothing.
pub(crate) struct Member {
    pub(crate) bus: Bus,
    /// What it tells who asks.
    pub(crate) known: Arc<Known>,
}

#[derive(Default)]
pub(crate) struct Known(pub(crate) Mutex<Vec<Notice>>);

impl Sharer for Known {
    fn enter(&self, _: &Batch, _: &BusCounts) {}

    fn recall(&self) -> Vec<Notice> {
        self.0.lock().expect("no panic").clone()
    }
}

impl Member {
    pub(crate) async fn start(server: &Server, name: &str) -> Self {
        let settings = config::Bus {
            servers: vec![format!("nats://127.0.0.1:{}", server.port)],
            cluster: "test".parse().expect("a name"),
            name: name.parse().expect("a name"),
            credentials: None,
            ca: None,
        };
        let known = Arc::<Known>::default();
        let sharer: Arc<dyn Sharer> = Arc::clone(&known) as _;
        let bus = Bus::start(&settings, sharer).await.expect("good settings");
        bus.catch_up().await;
        Self { bus, known }
    }
}
