//! How long a ring takes to build: a reload builds one for every pool that changed.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use lb_common::ring::{Member, build, identity};

fn build_time(c: &mut Criterion) {
    let mut group = c.benchmark_group("ring/build");
    for count in [10, 100, 1_000] {
        for (name, weights) in [("equal", 1), ("1 to 100", 100)] {
            let members = pool(count, weights);
            group.bench_with_input(BenchmarkId::new(name, count), &members, |b, members| {
                b.iter(|| build(members));
            });
        }
    }
    group.finish();
}

/// Members whose weights spread over 1 to `weights`.
fn pool(count: u16, weights: u32) -> Vec<Member> {
    (1..=count)
        .map(|id| Member { id, identity: identity(&format!("backend-{id}")), weight: 1 + u32::from(id) * 37 % weights })
        .collect()
}

criterion_group!(benches, build_time);
criterion_main!(benches);
