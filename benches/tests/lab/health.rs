//! Health checks and drains by command, between kernel sockets: what a check sees, where it goes, and what follows for real
//! connections. Judged by the servers' own counts and the kernels'. Needs root and the `weir` command.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::Value;
use weir_lab::{
    Backend, Lab, LabError,
    addresses::{SERVICE_PORT, VIP},
    traffic::{Connection, Mix},
    wait,
    weir::{Join, PoolBackend, Weir, WeirConfig},
};

const LIMIT: Duration = Duration::from_mins(1);
/// Quick checks, with the default rise and fall; further fields may follow.
const QUICK: &str = "interval_ms = 100\n";
const HTTP_PORT: u16 = 8080;

fn lab_of(backends: u8) -> Lab {
    Lab::builder().backends(backends.try_into().expect("a few")).build().expect("a lab")
}

fn checked(lab: &Lab, fields: &str) -> WeirConfig {
    WeirConfig::for_lab(lab, Join::Learn).with_transition(600, 0).with_health(&format!("{QUICK}{fields}"))
}

/// What `weir backend show` says of a backend.
fn show(weir: &Weir, backend: &str) -> Result<Value, LabError> {
    let printed = weir.ask(&["backend", "show", backend, "--output", "json"])?;
    Ok(serde_json::from_str(&printed).expect("JSON"))
}

fn await_health(weir: &Weir, backend: &str, verdict: &str) -> Value {
    let found = wait::until(&format!("{backend} is {verdict} by its checks"), LIMIT, || {
        let shown = show(weir, backend)?;
        Ok((shown["health"]["verdict"] == verdict).then_some(shown))
    });
    found.unwrap_or_else(|error| panic!("{error}: {:?}\n{}", show(weir, backend), weir.log()))
}

fn await_duty(weir: &Weir, backend: &str, duty: &str) -> Value {
    let found = wait::until(&format!("{backend} is {duty}"), LIMIT, || {
        let shown = show(weir, backend)?;
        Ok((shown["duty"] == duty).then_some(shown))
    });
    found.unwrap_or_else(|error| panic!("{error}: {:?}\n{}", show(weir, backend), weir.log()))
}

fn metric(weir: &Weir, name: &str, labels: &[(&str, &str)]) -> f64 {
    let samples = weir.metrics().expect("a metrics page");
    let fits = |sample: &&weir_lab::weir::Sample| {
        sample.name == name && labels.iter().all(|(label, value)| sample.label(label) == Some(value))
    };
    samples.iter().filter(fits).map(|sample| sample.value).sum()
}

fn backends_of(lab: &Lab, connections: usize) -> Vec<String> {
    let open = |index| Connection::open(&lab.client, Mix::alternating(index)).expect("a connection").backend;
    (0..connections).map(open).collect()
}

/// An HTTP server of this test's own: it answers everything alike and counts.
struct HttpServer {
    answer: Arc<Mutex<(u16, String)>>,
    requests: Arc<Mutex<Vec<String>>>,
    accepted: Arc<AtomicUsize>,
    ends: Arc<AtomicBool>,
}

impl HttpServer {
    fn start(backend: &Backend, port: u16) -> Self {
        Self::start_on("::", backend, port)
    }

    fn start_on(address: &str, backend: &Backend, port: u16) -> Self {
        let listener = backend.namespace.run(|| TcpListener::bind((address, port)));
        let listener = listener.expect("a namespace").expect("a port");
        let server = Self {
            answer: Arc::new(Mutex::new((200, "all is well".to_owned()))),
            requests: Arc::default(),
            accepted: Arc::default(),
            ends: Arc::default(),
        };
        let (answer, requests) = (Arc::clone(&server.answer), Arc::clone(&server.requests));
        let (accepted, ends) = (Arc::clone(&server.accepted), Arc::clone(&server.ends));
        listener.set_nonblocking(true).expect("a socket");
        thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                let Ok((stream, _)) = listener.accept() else {
                    thread::sleep(Duration::from_millis(2));
                    continue;
                };
                accepted.fetch_add(1, Ordering::Relaxed);
                let (status, body) = answer.lock().expect("no panic").clone();
                if let Some(request) = serve(&stream, status, &body) {
                    requests.lock().expect("no panic").push(request);
                }
            }
        });
        server
    }

    fn will_answer(&self, status: u16, body: &str) {
        *self.answer.lock().expect("no panic") = (status, body.to_owned());
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
    }
}

/// Reads a request's head, if there is one, and answers it.
fn serve(stream: &TcpStream, status: u16, body: &str) -> Option<String> {
    stream.set_nonblocking(false).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
    let lines: Result<Vec<_>, _> =
        BufReader::new(stream).lines().take_while(|line| line.as_ref().is_ok_and(|line| !line.is_empty())).collect();
    let head = lines.ok().filter(|lines| !lines.is_empty())?.join("\n");
    let mut stream = stream;
    write!(stream, "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len()).ok()?;
    Some(head)
}

#[test]
fn a_check_goes_to_its_backend_alone_by_every_tunnel() {
    let lab = lab_of(2);
    // b1 is at the end of an IPv4 tunnel, b2 at that of an IPv6 one.
    let servers: Vec<_> = lab.backends.iter().map(|backend| HttpServer::start(backend, HTTP_PORT)).collect();
    for forward in ["ipip", "gue"] {
        for vip in VIP.both() {
            let fields = format!("check = \"tcp\"\naddress = \"{vip}\"\nport = {HTTP_PORT}\n");
            let weir = Weir::start(&lab, &checked(&lab, &fields).with_forward(forward)).expect("weir runs");
            let passed = ["b1", "b2"].map(|name| {
                let shown = await_health(&weir, name, "up");
                assert_eq!(shown["health"]["target"], format!("{}", std::net::SocketAddr::from((vip, HTTP_PORT))));
                shown["health"]["passed"].as_u64().expect("a number")
            });
            // What a server accepted is what was passed for it: no check of another came to it.
            let before: Vec<_> = servers.iter().map(HttpServer::accepted).collect();
            wait::until("each is checked again", LIMIT, || {
                let ahead = |(index, name): (usize, &str)| {
                    show(&weir, name).map(|shown| shown["health"]["passed"].as_u64() >= Some(passed[index] + 5))
                };
                Ok((ahead((0, "b1"))? && ahead((1, "b2"))?).then_some(()))
            })
            .expect("checks go on");
            for (server, before) in servers.iter().zip(before) {
                assert!(server.accepted() > before, "{forward} {vip}");
            }
            assert!((metric(&weir, "weir_health_checks_total", &[("result", "failed")])).abs() < f64::EPSILON);
        }
    }
    // One of them ends: the other's checks do not see it.
    let fields = format!("check = \"tcp\"\nport = {HTTP_PORT}\n");
    let weir = Weir::start(&lab, &checked(&lab, &fields)).expect("weir runs");
    await_health(&weir, "b2", "up");
    let mut servers = servers.into_iter();
    drop(servers.next());
    let shown = await_health(&weir, "b1", "down");
    assert_eq!(shown["health"]["last_error"], "connection refused");
    let other = show(&weir, "b2").expect("a backend");
    assert_eq!((&other["health"]["verdict"], &other["health"]["failed"]), (&Value::from("up"), &Value::from(0)));
}

#[test]
fn a_check_by_layer_2_leaves_by_the_interface_of_its_backend() {
    let lab = lab_of(1);
    let backend = &lab.backends[0].namespace;
    let ip = |namespace: &weir_lab::namespace::Namespace, command: &str| {
        namespace.output("ip", &command.split(' ').collect::<Vec<_>>()).expect("ip takes it");
    };
    // The VIP's route is by eth0; the backend is on a link of its own.
    let balancer = &lab.balancer.namespace;
    ip(balancer, &format!("link add direct netns {} type veth peer direct netns {}", balancer.name(), backend.name()));
    for (namespace, address) in [(balancer, "10.72.0.2/24"), (backend, "10.72.0.1/24")] {
        ip(namespace, &format!("address add {address} dev direct"));
        ip(namespace, "link set direct up");
    }
    let config = checked(&lab, "check = \"mptcp\"\n").with_forward("l2").with_address(0, "10.72.0.1");
    let weir = Weir::start(&lab, &config).expect("weir runs");
    let shown = await_health(&weir, "b1", "up");
    assert!(shown["next_hop"].as_str().is_some_and(|hop| hop.ends_with("dev direct")), "{shown}");
    let link = backend.output("ip", &["-json", "-statistics", "link", "show", "dev", "direct"]).expect("ip tells");
    let link: Value = serde_json::from_str(&link).expect("JSON");
    assert!(link[0]["stats64"]["rx"]["packets"].as_u64() > Some(3), "{link}");
}

#[test]
fn a_server_that_dies_is_out_and_comes_back_and_the_others_notice_nothing() {
    let mut lab = lab_of(3);
    let weir = Weir::start(&lab, &checked(&lab, "check = \"tcp\"\nrise = 2\nfall = 3\n")).expect("weir runs");
    for name in ["b1", "b2", "b3"] {
        await_health(&weir, name, "up");
    }
    let mut held: Vec<_> =
        (0..12).map(|index| Connection::open(&lab.client, Mix::alternating(index)).expect("a connection")).collect();

    lab.stop_server(0);
    let down = await_duty(&weir, "b1", "down");
    assert_eq!((&down["health"]["last_error"], &down["slots"]), (&Value::from("connection refused"), &Value::from(0)));
    assert!(down["health"]["failed"].as_u64() >= Some(3), "{down}");
    assert_eq!(down["state"], "up", "the configuration has not changed");
    let told = "backend b1 of pool web is down by its health checks: connection refused";
    wait::until("it is told", LIMIT, || Ok(weir.log().contains(told).then_some(()))).expect("it is no secret");
    let backends = backends_of(&lab, 12);
    assert!(!backends.iter().any(|backend| backend == "b1"), "{backends:?}");
    for connection in held.iter_mut().filter(|connection| connection.backend != "b1") {
        connection.exchange().expect("the others are untouched");
    }
    assert!((metric(&weir, "weir_backend_health", &[("backend", "b1")])).abs() < f64::EPSILON);
    assert!((metric(&weir, "weir_backend_health", &[]) - 2.0).abs() < f64::EPSILON);

    lab.start_server(0).expect("a service");
    await_duty(&weir, "b1", "up");
    wait::until("it has connections again", LIMIT, || {
        Ok((Connection::open(&lab.client, Mix::V4)?.backend == "b1").then_some(()))
    })
    .expect("one in three");
    for connection in held.iter_mut().filter(|connection| connection.backend != "b1") {
        connection.exchange().expect("the others are untouched");
    }
}

/// What this machine lacks is no fault of a backend, and ends nothing: the backend stays what it is, the operator is told,
/// and all goes on when there are descriptors again.
#[test]
fn without_descriptors_no_check_is_made_and_nothing_is_said_of_a_backend() {
    let lab = lab_of(2);
    let weir = Weir::start(&lab, &checked(&lab, "check = \"tcp\"\n")).expect("weir runs");
    await_health(&weir, "b1", "up");
    let passed = || metric(&weir, "weir_health_checks_total", &[("backend", "b1"), ("result", "passed")]);
    let unmade = || metric(&weir, "weir_health_checks_unmade_total", &[("backend", "b1")]);
    assert!(unmade() < 1.0);

    // It has more files open than that, and may open no further one: no socket either. Its log is open.
    let limit = |files: &str| {
        let arguments = ["--pid", &weir.process_id().to_string(), &format!("--nofile={files}:")];
        lab.balancer.namespace.output("prlimit", &arguments).expect("prlimit")
    };
    limit("10");
    let words = "backend b1 of pool web cannot be checked, and stays what it is: ";
    let told = wait::until("checks cannot be made", LIMIT, || Ok(weir.log().contains(words).then_some(())));
    told.unwrap_or_else(|error| panic!("{error}: {}", weir.log()));
    let unswept = "the tables are not swept for now, and what is over stays in them: ";
    let told = wait::until("it does not sweep", LIMIT, || Ok(weir.log().contains(unswept).then_some(())));
    told.unwrap_or_else(|error| panic!("{error}: {}", weir.log()));
    limit("1024");
    assert!(unmade() >= 1.0);
    let shown = await_health(&weir, "b1", "up");
    assert_eq!(shown["health"]["failed"], 0, "{shown}");
    let before = passed();
    wait::until("they are made again", LIMIT, || Ok((passed() > before).then_some(()))).expect("it is noticed");
}

#[test]
fn a_pool_whose_backends_all_fail_goes_on_loudly_unless_told_otherwise() {
    let lab = lab_of(2);
    let nobody = format!("check = \"tcp\"\nport = {HTTP_PORT}\n");
    let mut weir = Weir::start(&lab, &checked(&lab, &nobody)).expect("weir runs");
    for name in ["b1", "b2"] {
        await_health(&weir, name, "down");
    }
    wait::until("it fails open", LIMIT, || Ok(weir.log().contains("fail_open").then_some(()))).expect("it is told");
    assert!((metric(&weir, "weir_pool_fail_open", &[("pool", "web")]) - 1.0).abs() < f64::EPSILON);
    assert!(weir.ask(&["status"]).expect("a status").contains("every backend of pool web fails its checks"));
    backends_of(&lab, 4);

    // Of one that lives the other is told apart at once.
    let _server = HttpServer::start(&lab.backends[1], HTTP_PORT);
    await_duty(&weir, "b1", "down");
    await_duty(&weir, "b2", "up");
    assert_eq!(backends_of(&lab, 8), vec!["b2"; 8]);
    assert!((metric(&weir, "weir_pool_fail_open", &[("pool", "web")])).abs() < f64::EPSILON);

    let closed = "check = \"tcp\"\nport = 8999\nfail_open = false\n";
    weir.reload(&checked(&lab, closed)).expect("a reload");
    await_duty(&weir, "b2", "down");
    await_duty(&weir, "b1", "down");
    assert!(Connection::open(&lab.client, Mix::V4).is_err(), "nobody is left");
}

#[test]
fn an_http_check_wants_its_status_and_its_body() {
    let lab = lab_of(2);
    let servers: Vec<_> = lab.backends.iter().map(|backend| HttpServer::start(backend, HTTP_PORT)).collect();
    let fields = format!(
        "check = \"http\"\nport = {HTTP_PORT}\nhost = \"www.example.com\"\npath = \"/health?deep=1\"\nstatus = [200, 204]\nbody = \"well\"\n"
    );
    let weir = Weir::start(&lab, &checked(&lab, &fields)).expect("weir runs");
    for name in ["b1", "b2"] {
        await_health(&weir, name, "up");
    }
    let request = servers[0].requests.lock().expect("no panic")[0].to_lowercase();
    assert!(
        request.starts_with("get /health?deep=1 http/1.1") && request.contains("host: www.example.com"),
        "{request}"
    );

    servers[0].will_answer(503, "all is well");
    servers[1].will_answer(200, "maintenance");
    wait::until("both fail", LIMIT, || Ok((show(&weir, "b2")?["health"]["verdict"] == "down").then_some(())))
        .expect("the body is wrong");
    await_health(&weir, "b1", "down");
    let error = |name| show(&weir, name).expect("a backend")["health"]["last_error"].clone();
    assert_eq!(error("b1"), "status 503, wanted 200 or 204");
    assert_eq!(error("b2"), "the body lacks \"well\"");
    servers[1].will_answer(200, "very well");
    await_duty(&weir, "b1", "down");
}

#[test]
fn a_backend_that_one_family_does_not_reach_is_down() {
    let lab = lab_of(2);
    let _both = HttpServer::start(&lab.backends[0], HTTP_PORT);
    let _v4_alone = HttpServer::start_on("0.0.0.0", &lab.backends[1], HTTP_PORT);
    let fields = format!("check = \"tcp\"\nport = {HTTP_PORT}\n");
    let mut weir = Weir::start(&lab, &checked(&lab, &fields)).expect("weir runs");
    let up = await_health(&weir, "b1", "up");
    let targets = VIP.both().map(|vip| std::net::SocketAddr::from((vip, HTTP_PORT)).to_string());
    assert_eq!(up["health"]["target"], targets.join(", "));
    let down = await_duty(&weir, "b2", "down");
    assert_eq!(down["health"]["last_error"], "IPv6: connection refused");

    // An address that is said is the only one.
    weir.reload(&checked(&lab, &format!("{fields}address = \"{}\"\n", VIP.v4))).expect("a reload");
    let up = await_duty(&weir, "b2", "up");
    assert_eq!(up["health"]["target"], targets[0]);
}

#[test]
fn an_mptcp_check_finds_the_backend_that_has_none() {
    let mut lab = lab_of(2);
    lab.stop_server(1);
    let b2 = &lab.backends[1];
    b2.namespace.output("sysctl", &["-qw", "net.mptcp.enabled=0"]).expect("sysctl");
    let _plain = HttpServer::start(b2, SERVICE_PORT);
    let weir = Weir::start(&lab, &checked(&lab, "check = \"mptcp\"\n")).expect("weir runs");
    await_health(&weir, "b1", "up");
    let shown = await_duty(&weir, "b2", "down");
    let error = shown["health"]["last_error"].as_str().expect("an error").to_owned();
    assert!(error.starts_with("it answers plain TCP, not MPTCP"), "{error}");

    let shown = show(&weir, "b1").expect("a backend");
    assert_eq!(shown["health"]["failed"], 0);
}

#[test]
fn a_backend_drains_by_command_until_it_is_enabled() {
    let lab = lab_of(3);
    let config = WeirConfig::for_lab(&lab, Join::Learn).with_transition(600, 0).with_drain_timeout(3600);
    let mut weir = Weir::start(&lab, &config).expect("weir runs");
    let mut on_b1 = wait::until("a connection comes to b1", LIMIT, || {
        let connection = Connection::open(&lab.client, Mix::V4)?;
        Ok((connection.backend == "b1").then_some(connection))
    })
    .expect("one in three");

    let drained = weir.ask(&["backend", "drain", "b1"]).expect("it drains");
    assert!(drained.contains("draining, by command; it keeps its connections for 3600 s more"), "{drained}");
    assert!(!backends_of(&lab, 12).iter().any(|backend| backend == "b1"));
    on_b1.exchange().expect("a draining backend serves");

    // A reload that says nothing new of it leaves the order in force; one that does takes its place.
    weir.reload(&config).expect("a reload");
    assert_eq!(show(&weir, "web/b1").expect("a backend")["duty"], "draining");
    let drain_in_file = |state| {
        let backend =
            |(index, backend)| PoolBackend { backend, weight: 100, state: if index == 0 { state } else { "up" } };
        WeirConfig::for_lab(&lab, Join::Learn)
            .with_transition(600, 0)
            .with_backends(lab.backends.iter().enumerate().map(backend).collect())
    };
    weir.reload(&drain_in_file("drain")).expect("a reload");
    let refused = weir.ask(&["backend", "enable", "b1"]).expect_err("the file says otherwise").to_string();
    assert!(refused.contains("by the configuration, which no command overrules"), "{refused}");
    weir.reload(&drain_in_file("up")).expect("a reload");
    assert_eq!(show(&weir, "b1").expect("a backend")["duty"], "up");

    weir.ask(&["backend", "drain", "b1"]).expect("it drains");
    assert_eq!(show(&weir, "b1").expect("a backend")["drain_ordered"], true);
    let enabled = weir.ask(&["backend", "enable", "b1"]).expect("it serves");
    assert!(enabled.starts_with("b1 ") && enabled.contains(": up\n"), "{enabled}");
    on_b1.exchange().expect("it was never away");

    let unknown = weir.ask(&["backend", "drain", "b9"]).expect_err("there is none").to_string();
    assert!(unknown.contains("no backend is called \"b9\"; there are b1, b2, b3"), "{unknown}");
}
