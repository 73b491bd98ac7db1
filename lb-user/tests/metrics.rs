//! The metrics as a stranger sees them: by plain TCP, judged by promtool.

use lb_user::bus::{BusCounts, Refusal};
use lb_user::config::Prefix;
use lb_user::metrics::{
    Attachment, BackendCount, BusCount, FAMILIES, HealthCount, Listener, MintCount, PacketCount, PoolGauges, Readiness,
    ReloadOutcome, Snapshot, Source, TableFill,
};
use lb_user::pulse::Heart;
use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Counts its snapshots, so that a stale answer shows.
#[derive(Default)]
struct Counting(AtomicU64);

impl Source for Counting {
    fn snapshot(&self) -> Snapshot {
        let scrapes = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        let packets = |vip: &str, reason, packets| PacketCount {
            vip: vip.to_owned(),
            pool: "web".to_owned(),
            reason,
            packets,
            bytes: 60 * packets,
        };
        Snapshot {
            packets: vec![
                packets("web-v4", "ring", scrapes),
                packets("web-v4", "join_unknown", 7),
                packets("web-v6", "join_unknown", 1),
                packets("web-v6", "join_token", 9),
            ],
            backends: vec![BackendCount {
                state: "drain",
                weight: 100,
                slots_owned: 7,
                slots_previous: 9,
                held: [21, 22, 23, 24],
                is_reachable: true,
                health: Some(HealthCount {
                    is_up: false,
                    passed: 8,
                    failed: 3,
                    unmade: 4,
                    took: Duration::from_micros(1234),
                    minting: Some(MintCount { mints: false, plain: 5 }),
                }),
                packets: 3,
                bytes: 180,
                ..BackendCount::of_leaving("web", "b1")
            }],
            pools: vec![PoolGauges {
                pool: "web".to_owned(),
                slots_in_transition: 9,
                slots_extended: 4,
                failing_open: true,
            }],
            reload: ReloadOutcome {
                last_succeeded: true,
                last_tried_s: 1_700_000_500,
                in_force_since_s: 1_700_000_000,
            },
            tables: vec![TableFill { table: "tokens", entries: 5, limit: 1_048_576, evicted: 6 }],
            filter_renewals: 2,
            swept_s_ago: 8,
            pins_lost: 3,
            is_withdrawn: true,
            former_key_ends_in_s: 4321,
            interfaces: vec![attached("eth0", "native"), attached("eth1", "none")],
            xdp_mode_configured: "native",
            bus: Some(BusCount { member: on_bus().numbers(), events_lost: 14 }),
        }
    }

    fn destinations(&self) -> BTreeSet<Prefix> {
        ["192.0.2.1", "198.51.100.0/24", "2001:db8::10"].map(|prefix| prefix.parse().unwrap()).into()
    }
}

fn on_bus() -> BusCounts {
    let counts = BusCounts::default();
    counts.connected.store(true, Ordering::Relaxed);
    counts.sent.store(11, Ordering::Relaxed);
    counts.received.store(12, Ordering::Relaxed);
    counts.lost.store(13, Ordering::Relaxed);
    counts.overruns.store(16, Ordering::Relaxed);
    counts.refuse(Refusal::Held, 15);
    counts
}

fn attached(interface: &str, mode: &'static str) -> Attachment {
    Attachment { interface: interface.to_owned(), mode }
}

/// A source that cannot be read.
struct Broken;

impl Source for Broken {
    fn snapshot(&self) -> Snapshot {
        panic!("on purpose")
    }

    fn destinations(&self) -> BTreeSet<Prefix> {
        panic!("on purpose")
    }
}

struct Served {
    address: SocketAddr,
    readiness: watch::Sender<Readiness>,
    _tasks: JoinSet<()>,
}

async fn serve(source: impl Source) -> Served {
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_address().unwrap();
    let (readiness, receiver) = watch::channel(Readiness::Starting);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let error = listener.serve(Arc::new(source), receiver, Heart::new().pulse()).await;
        panic!("it ended: {error:?}");
    });
    Served { address, readiness, _tasks: tasks }
}

/// Sends one request and returns the whole answer.
async fn ask(served: &Served, request_line: &str) -> String {
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    let request = format!("{request_line} HTTP/1.1\r\nHost: weir\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").expect("headers end").1
}

#[tokio::test]
async fn metrics_are_what_the_source_has_at_the_scrape() {
    let served = serve(Counting::default()).await;
    for scrape in 1..=2 {
        let answer = ask(&served, "GET /metrics").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("\r\ncontent-type: text/plain; version=0.0.4\r\n"), "{answer}");
        let lines: Vec<_> = body(&answer).lines().collect();
        for line in [
            format!("weir_packets_total{{vip=\"web-v4\",pool=\"web\",reason=\"ring\"}} {scrape}"),
            format!("weir_bytes_total{{vip=\"web-v4\",pool=\"web\",reason=\"ring\"}} {}", 60 * scrape),
            "weir_packets_total{vip=\"web-v4\",pool=\"web\",reason=\"join_unknown\"} 7".to_owned(),
            "weir_joins_total{pool=\"web\",way=\"none\",outcome=\"dropped\"} 8".to_owned(),
            "weir_joins_total{pool=\"web\",way=\"table\",outcome=\"forwarded\"} 9".to_owned(),
            "weir_filter_renewals_total 2".to_owned(),
            "weir_sweep_age_seconds 8".to_owned(),
            "weir_pins_lost 3".to_owned(),
            "weir_withdrawn 1".to_owned(),
            "weir_former_cluster_key_seconds 4321".to_owned(),
            "weir_backend_packets_total{pool=\"web\",backend=\"b1\"} 3".to_owned(),
            "weir_backend_bytes_total{pool=\"web\",backend=\"b1\"} 180".to_owned(),
            "weir_backend_state{pool=\"web\",backend=\"b1\",state=\"drain\"} 1".to_owned(),
            "weir_backend_state{pool=\"web\",backend=\"b1\",state=\"up\"} 0".to_owned(),
            "weir_backend_weight{pool=\"web\",backend=\"b1\"} 100".to_owned(),
            "weir_backend_slots{pool=\"web\",backend=\"b1\",role=\"owner\"} 7".to_owned(),
            "weir_backend_slots{pool=\"web\",backend=\"b1\",role=\"previous\"} 9".to_owned(),
            "weir_slots_in_transition{pool=\"web\"} 9".to_owned(),
            "weir_slots_extended{pool=\"web\"} 4".to_owned(),
            "weir_backend_health{pool=\"web\",backend=\"b1\"} 0".to_owned(),
            "weir_health_checks_total{pool=\"web\",backend=\"b1\",result=\"passed\"} 8".to_owned(),
            "weir_health_checks_total{pool=\"web\",backend=\"b1\",result=\"failed\"} 3".to_owned(),
            "weir_health_checks_unmade_total{pool=\"web\",backend=\"b1\"} 4".to_owned(),
            "weir_backend_mints_tokens{pool=\"web\",backend=\"b1\"} 0".to_owned(),
            "weir_health_checks_plain_tcp_total{pool=\"web\",backend=\"b1\"} 5".to_owned(),
            "weir_health_check_seconds_total{pool=\"web\",backend=\"b1\"} 0.001234".to_owned(),
            "weir_pool_fail_open{pool=\"web\"} 1".to_owned(),
            "weir_config_last_reload_successful 1".to_owned(),
            "weir_config_last_reload_success_timestamp_seconds 1700000000".to_owned(),
            "weir_table_entries{table=\"tokens\"} 5".to_owned(),
            "weir_table_limit{table=\"tokens\"} 1048576".to_owned(),
            format!("weir_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION")),
            "weir_table_evicted_total{table=\"tokens\"} 6".to_owned(),
            "weir_xdp_mode{interface=\"eth0\",mode=\"native\"} 1".to_owned(),
            "weir_xdp_mode{interface=\"eth1\",mode=\"none\"} 1".to_owned(),
            "weir_xdp_mode_configured{mode=\"native\"} 1".to_owned(),
            "weir_backend_reachable{pool=\"web\",backend=\"b1\"} 1".to_owned(),
            "weir_backend_entries{pool=\"web\",backend=\"b1\",table=\"tokens\"} 21".to_owned(),
            "weir_backend_entries{pool=\"web\",backend=\"b1\",table=\"pinned_flows\"} 24".to_owned(),
            "weir_ready 0".to_owned(),
            "weir_bus_connected 1".to_owned(),
            "weir_bus_caught_up 0".to_owned(),
            "weir_bus_entries_sent_total 11".to_owned(),
            "weir_bus_entries_received_total 12".to_owned(),
            "weir_bus_entries_lost_total 13".to_owned(),
            "weir_bus_events_lost_total 14".to_owned(),
            "weir_bus_overruns_total 16".to_owned(),
            "weir_bus_entries_refused_total{reason=\"held\"} 15".to_owned(),
            "weir_bus_entries_refused_total{reason=\"full\"} 0".to_owned(),
        ] {
            assert!(lines.contains(&line.as_str()), "{line} is missing in:\n{}", body(&answer));
        }
    }
}

#[tokio::test]
async fn promtool_finds_no_fault() {
    let served = serve(Counting::default()).await;
    let answer = ask(&served, "GET /metrics").await;
    let families = body(&answer).lines().filter(|line| line.starts_with("# TYPE ")).count();
    assert_eq!(families, FAMILIES.len());

    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is installed: `cargo xtask setup` does it");
    promtool.stdin.take().unwrap().write_all(body(&answer).as_bytes()).unwrap();
    let verdict = promtool.wait_with_output().unwrap();
    let words = [verdict.stdout, verdict.stderr].concat();
    assert!(verdict.status.success() && words.is_empty(), "{}", String::from_utf8_lossy(&words));
}

#[tokio::test]
async fn health_follows_readiness() {
    let served = serve(Counting::default()).await;
    assert!(ask(&served, "GET /healthz").await.starts_with("HTTP/1.1 503 "));
    served.readiness.send_replace(Readiness::Ready);
    let answer = ask(&served, "GET /healthz").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert_eq!(body(&answer), "ok\n");
    let metrics = ask(&served, "GET /metrics").await;
    assert!(metrics.contains("\nweir_ready 1\n") && metrics.contains("\nweir_loop_silence_seconds "), "{metrics}");
    served.readiness.send_replace(Readiness::Unfit("no backend serves".to_owned()));
    let answer = ask(&served, "GET /healthz").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert_eq!(body(&answer), "no backend serves\n");
    // To start it anew would not help.
    assert!(ask(&served, "GET /livez").await.starts_with("HTTP/1.1 200 "));
}

/// The same, but that it names what to announce; and a start is no clear "no".
#[tokio::test]
async fn what_to_announce_follows_readiness() {
    let served = serve(Counting::default()).await;
    let answer = ask(&served, "GET /announce").await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\r\nretry-after: 1\r\n"), "{answer}");
    served.readiness.send_replace(Readiness::Ready);
    let answer = ask(&served, "GET /announce").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert_eq!(body(&answer), "192.0.2.1\n198.51.100.0/24\n2001:db8::10\n");
    served.readiness.send_replace(Readiness::Withdrawn);
    let answer = ask(&served, "GET /announce").await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && !answer.contains("retry-after"), "{answer}");
    assert_eq!(body(&answer), "withdrawn, until `weir drain-self --undo`\n");
}

#[tokio::test]
async fn wrong_requests_are_told_what_is_right() {
    let served = serve(Counting::default()).await;
    let answer = ask(&served, "GET /").await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    assert_eq!(body(&answer), "no such page; there are /metrics, /healthz, /livez, /announce\n");
    for page in ["/metrics", "/healthz", "/livez"] {
        let answer = ask(&served, &format!("POST {page}")).await;
        assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
        assert!(answer.contains("\r\nallow: GET, HEAD\r\n"), "{answer}");
    }
    let answer = ask(&served, "HEAD /metrics").await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && body(&answer).is_empty(), "{answer}");
    assert!(ask(&served, "nonsense").await.starts_with("HTTP/1.1 400 "));
}

#[tokio::test]
async fn a_source_that_panics_is_an_error_page_and_no_more() {
    let served = serve(Broken).await;
    for _ in 0..2 {
        assert!(ask(&served, "GET /metrics").await.starts_with("HTTP/1.1 500 "));
    }
    assert!(ask(&served, "GET /healthz").await.starts_with("HTTP/1.1 503 "));
}

#[tokio::test]
async fn silent_connections_do_not_keep_prometheus_out() {
    let served = serve(Counting::default()).await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(served.address).await.unwrap());
    }
    assert!(ask(&served, "GET /metrics").await.starts_with("HTTP/1.1 200 "));
    // It was not answered because the others had been silent for too long: only the oldest made room.
    assert_eq!(silent[0].read(&mut [0]).await.unwrap(), 0);
    let newer = silent[150].try_read(&mut [0]).expect_err("it is still open");
    assert_eq!(newer.kind(), std::io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn an_address_that_cannot_be_had_says_what_to_do() {
    let taken = Listener::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = taken.local_address().unwrap();
    let error = Listener::bind(address).await.unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "metrics cannot listen on {address}: Address already in use (os error 98); `ss -ltnp sport = :{}` shows who has it: stop that, or choose another port for listen in [metrics]",
            address.port()
        )
    );
    let error = Listener::bind("192.0.2.77:9107".parse().unwrap()).await.unwrap_err().to_string();
    assert!(error.contains("no interface has this address"), "{error}");
}
