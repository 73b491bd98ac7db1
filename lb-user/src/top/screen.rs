//! A view as lines of a terminal. What does not fit is left out, the least first, and the screen says so.

use super::view::{BackendRate, JoinRate, PoolState, ReasonRate, TableState, View, VipRates};

/// How large a terminal is, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Characters in a line.
    pub columns: usize,
    /// Lines; none where there is no end to them.
    pub rows: Option<usize>,
}

/// A part of the screen: its head, and its lines with the most important ones first.
struct Section {
    head: String,
    lines: Vec<String>,
}

/// Lines that are no section's: the title, and what stands below all.
const FRAME: usize = 2;
/// Lines that a section takes beside its own: its head and a gap above it.
const SECTION: usize = 2;

/// The lines of a screen, none longer than its width and no more than its height. `trouble` stands in the place of the
/// help, below all.
pub fn render(view: &View, size: Size, trouble: Option<&str>) -> Vec<String> {
    let sections = [vips(view), backends(view), joins_and_drops(view), pools_and_tables(view)];
    let wanted: Vec<usize> = sections.iter().map(|section| section.lines.len()).collect();
    let room = size.rows.map(|rows| rows.saturating_sub(FRAME + SECTION * sections.len()));
    let shown = room.map_or_else(|| wanted.clone(), |room| share(room, &wanted));

    let mut lines = vec![title(view)];
    for (section, shown) in sections.iter().zip(shown) {
        lines.push(String::new());
        lines.push(section.head.clone());
        let hidden = section.lines.len() - shown;
        let whole = if hidden > 0 { shown.saturating_sub(1) } else { shown };
        lines.extend(section.lines.iter().take(whole).cloned());
        if hidden > 0 && shown > 0 {
            lines.push(format!("  ... and {} more", section.lines.len() - whole));
        }
    }
    if let Some(rows) = size.rows {
        lines.resize(rows.saturating_sub(1), String::new());
        lines.push(trouble.map_or_else(|| "q quits; rates are packets per second".to_owned(), str::to_owned));
    } else if let Some(trouble) = trouble {
        lines.push(trouble.to_owned());
    }
    lines.into_iter().map(|line| clipped(&line, size.columns)).collect()
}

/// Gives each as many as it wants; where there are too few, evenly.
fn share(room: usize, wanted: &[usize]) -> Vec<usize> {
    let mut given = vec![0; wanted.len()];
    for _ in 0..room {
        let least = (0..wanted.len()).filter(|&i| given[i] < wanted[i]).min_by_key(|&i| given[i]);
        let Some(least) = least else { break };
        given[least] += 1;
    }
    given
}

fn clipped(line: &str, columns: usize) -> String {
    line.chars().take(columns).collect::<String>().trim_end().to_owned()
}

fn title(view: &View) -> String {
    let View { version, interfaces, xdp_mode, uptime_s, .. } = view;
    let (served, dropped) = view.traffic();
    let interfaces = interfaces.join(", ");
    format!(
        "weir {version} on {interfaces} ({xdp_mode}), up {}: {}/s served, {}/s dropped",
        duration(*uptime_s),
        count(served),
        count(dropped)
    )
}

fn vips(view: &View) -> Section {
    let head = format!("{:<28} {:<16} {:>10} {:>10} {:>11}", "VIP", "POOL", "FORWARDED", "ANSWERED", "DROPPED");
    let line = |vip: &VipRates| {
        let VipRates { name, pool, forwarded, answered, dropped } = vip;
        let (forwarded, answered, dropped) = (count(*forwarded), count(*answered), count(*dropped));
        format!("{:<28} {:<16} {forwarded:>10} {answered:>10} {dropped:>11}", short(name, 28), short(pool, 16))
    };
    Section { head, lines: busiest(&view.vips, |vip| vip.forwarded + vip.dropped).map(line).collect() }
}

fn backends(view: &View) -> Section {
    let head = format!(
        "{:<20} {:<12} {:<11} {:>6} {:>7} {:>8} {:>10}",
        "BACKEND", "POOL", "STATE", "SHARE", "SLOTS", "PREVIOUS", "PACKETS"
    );
    let line = |backend: &BackendRate| {
        let BackendRate { name, pool, share_percent, slots, slots_previous, packets, .. } = backend;
        let (state, packets) = (state(backend), count(*packets));
        let share = format!("{share_percent}%");
        format!(
            "{:<20} {:<12} {state:<11} {share:>6} {slots:>7} {slots_previous:>8} {packets:>10}",
            short(name, 20),
            short(pool, 12)
        )
    };
    // What is not as it should be comes first.
    let mut order: Vec<&BackendRate> = view.backends.iter().collect();
    order.sort_by(|a, b| state(a).eq("up").cmp(&state(b).eq("up")).then(b.packets.total_cmp(&a.packets)));
    Section { head, lines: order.into_iter().map(line).collect() }
}

fn state(backend: &BackendRate) -> &str {
    if backend.reached || backend.state == "down" { &backend.state } else { "unreachable" }
}

/// Two lists side by side.
fn joins_and_drops(view: &View) -> Section {
    let left =
        |way: &str, outcome: &str, total: &str, rate: &str| format!("{way:<6} {outcome:<13} {total:>9} {rate:>8}");
    let right = |reason: &str, total: &str, rate: &str| format!("{reason:<19} {total:>9} {rate:>8}");
    let joins: Vec<String> = view
        .joins
        .iter()
        .map(|JoinRate { way, outcome, total, rate }| left(way, outcome, &whole(*total), &count(*rate)))
        .collect();
    let drops: Vec<String> = view
        .drops
        .iter()
        .map(|ReasonRate { reason, total, rate }| right(reason, &whole(*total), &count(*rate)))
        .collect();
    let line = |i: usize| {
        let side = |lines: &[String], none: &str| match lines.get(i) {
            Some(line) => line.clone(),
            None if i == 0 => none.to_owned(),
            None => String::new(),
        };
        format!("{:<39}  {}", side(&joins, "no joins so far"), side(&drops, "no drops so far"))
    };
    let head = format!("{:<39}  {}", left("JOINS", "OUTCOME", "TOTAL", "RATE"), right("DROPS", "TOTAL", "RATE"));
    Section { head, lines: (0..joins.len().max(drops.len()).max(1)).map(line).collect() }
}

/// Likewise.
fn pools_and_tables(view: &View) -> Section {
    let pool = |PoolState { name, slots_in_transition, transition_ends_in_s, .. }: &PoolState| {
        let settled = transition_ends_in_s.map_or_else(|| "-".to_owned(), duration);
        format!("{:<16} {slots_in_transition:>13} {settled:>8}", short(name, 16))
    };
    let table = |TableState { name, entries, limit }: &TableState| {
        let percent = entries * 100 / (*limit).max(1);
        format!("{:<19} {:>9} {:>7}%", short(name, 19), whole(*entries), percent)
    };
    // Pools in transition first.
    let mut pools: Vec<&PoolState> = view.pools.iter().collect();
    pools.sort_by_key(|pool| std::cmp::Reverse(pool.slots_in_transition));
    let pools: Vec<String> = pools.into_iter().map(pool).collect();
    let tables: Vec<String> = view.tables.iter().map(table).collect();
    let side = |lines: &[String], i: usize| lines.get(i).cloned().unwrap_or_default();
    let line = |i: usize| format!("{:<39}  {}", side(&pools, i), side(&tables, i));
    let head = format!(
        "{:<16} {:>13} {:>8}  {:<19} {:>9} {:>8}",
        "POOL", "IN TRANSITION", "SETTLED", "TABLE", "ENTRIES", "FULL"
    );
    Section { head, lines: (0..pools.len().max(tables.len())).map(line).collect() }
}

fn busiest<T>(things: &[T], rate: impl Fn(&T) -> f64) -> impl Iterator<Item = &T> {
    let mut order: Vec<&T> = things.iter().collect();
    order.sort_by(|a, b| rate(b).total_cmp(&rate(a)));
    order.into_iter()
}

/// A name that may be longer than its column.
fn short(name: &str, columns: usize) -> String {
    if name.chars().count() <= columns {
        return name.to_owned();
    }
    name.chars().take(columns - 1).chain(['~']).collect()
}

/// A number in at most seven characters.
fn count(number: f64) -> String {
    match number {
        n if n < 9.95 && n > 0.0 => format!("{n:.1}"),
        n if n < 99_999.5 => format!("{n:.0}"),
        n if n < 9_999_500.0 => format!("{:.0}k", n / 1e3),
        n => format!("{:.1}M", n / 1e6),
    }
}

fn whole(number: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "rounded to a few digits")]
    let number = number as f64;
    if number < 9.95 { format!("{number:.0}") } else { count(number) }
}

fn duration(seconds: impl std::borrow::Borrow<u64>) -> String {
    let seconds = *seconds.borrow();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{}:{:02}", seconds / 60, seconds % 60),
        3600..86400 => format!("{}h{:02}", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{}h", seconds / 86400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(number: u32, state: &str, packets: f64) -> BackendRate {
        BackendRate {
            name: format!("backend-with-a-long-name-{number}"),
            pool: "a-pool-with-a-long-name".to_owned(),
            state: state.to_owned(),
            share_percent: 100,
            slots: 655,
            slots_previous: 0,
            packets,
            reached: true,
        }
    }

    fn view(backends: Vec<BackendRate>) -> View {
        let vip = |number| VipRates {
            name: format!("vip{number}"),
            pool: "web".to_owned(),
            forwarded: 1e7,
            answered: 0.5,
            dropped: 12_345.0,
        };
        View {
            version: "1.2.3".to_owned(),
            interfaces: vec!["eth0".to_owned(), "eth1".to_owned()],
            xdp_mode: "native".to_owned(),
            uptime_s: 90_000,
            interval_s: 1.0,
            vips: (0..3).map(vip).collect(),
            joins: vec![JoinRate { way: "table", outcome: "forwarded", total: 123_456_789, rate: 99_999.0 }],
            drops: vec![ReasonRate { reason: "moved_over_budget".to_owned(), total: 7, rate: 0.2 }],
            backends,
            pools: vec![PoolState {
                name: "web".to_owned(),
                slots_in_transition: 65_537,
                transition_ends_in_s: Some(8100),
                slots_extended: 0,
            }],
            tables: vec![TableState { name: "tokens".to_owned(), entries: 500_000, limit: 1_000_000 }],
        }
    }

    #[test]
    fn a_hundred_backends_fit_a_small_terminal_and_the_sick_ones_are_seen() {
        let mut backends: Vec<_> = (0..100).map(|number| backend(number, "up", f64::from(number))).collect();
        backends.push(backend(100, "down", 0.0));
        for (columns, rows) in [(80, 24), (40, 14), (200, 60)] {
            let lines = render(&view(backends.clone()), Size { columns, rows: Some(rows) }, None);
            assert_eq!(lines.len(), rows, "{columns} x {rows}");
            assert!(lines.iter().all(|line| line.chars().count() <= columns), "{lines:#?}");
        }
        let screen = render(&view(backends), Size { columns: 80, rows: Some(24) }, None);
        let at = screen.iter().position(|line| line.starts_with("BACKEND")).expect("a head");
        assert!(screen[at + 1].contains(" down "), "{screen:#?}");
        assert!(screen.iter().any(|line| line.starts_with("  ... and ") && line.ends_with(" more")), "{screen:#?}");
        assert!(
            screen.iter().any(|line| line.starts_with("table  forwarded") && line.contains("123.5M")),
            "{screen:#?}"
        );
    }

    #[test]
    fn trouble_stands_below() {
        let screen = render(&view(Vec::new()), Size { columns: 80, rows: Some(24) }, Some("no weir answers"));
        assert_eq!(screen.last().map(String::as_str), Some("no weir answers"));
    }

    #[test]
    fn numbers_and_times_are_short() {
        let counts = [0.0, 0.25, 9.9, 10.4, 99_999.0, 100_000.0, 12_345_678.0].map(count);
        assert_eq!(counts, ["0", "0.2", "9.9", "10", "99999", "100k", "12.3M"]);
        assert_eq!([59, 61, 3600, 90_000].map(|seconds: u64| duration(seconds)), ["59 s", "1:01", "1h00", "1d1h"]);
    }
}
