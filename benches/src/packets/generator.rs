//! Makes packets as fast as a CPU can: a program that the kernel runs on live frames (`BPF_F_TEST_XDP_LIVE_FRAMES`), which
//! go out by an interface without a socket or an `sk_buff`.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use aya::{
    Ebpf,
    maps::Array,
    programs::{TestRun as _, TestRunAttrs, TestRunOptions, Xdp, XdpMode},
};
use lb_common::bench::Plan;
use lb_user::bpf::{Pod, verified};
use nix::net::if_::if_nametoindex;

use super::link::{self, End, GENERATOR_CPU};
use crate::{
    LabError,
    addresses::SERVICE_PORT,
    bench::{OBJECT, load::Load},
    namespace::Namespace,
    xdp::{chain, small_object},
};

const PROGRAM: &str = "weir_generate";
const PLAN: &str = "weir_bench_plan";
/// Frames that the kernel makes before it sends them (at most 256).
const BATCH: u32 = 64;
/// Frames of one system call: after each the clock is looked at.
const CHUNK: u32 = 1024;
/// The same where there is a rate. A ring of veth holds 256: whoever sends more at once drops what others send, too.
const BURST: u32 = 128;

/// Packets of one kind, from very many flows.
#[derive(Debug, Clone)]
pub(crate) struct Packets {
    /// What they are, and what changes from one to the next.
    pub(crate) load: Load,
    /// How many flows take turns.
    pub(crate) flows: u32,
    /// How many tokens take turns, a power of two.
    pub(crate) tokens: u32,
}

/// A generator at an interface.
pub(crate) struct Generator {
    object: Ebpf,
    namespace: Namespace,
    frame: Vec<u8>,
    context: Vec<u8>,
}

impl Generator {
    /// Makes one ready: its packets will leave by `from`, for the Ethernet address at the other end. `idle` is an interface
    /// beside it by which nothing comes: a program that is attached nowhere takes 20 ms to be run (`bpf_prog_change_xdp` of
    /// `net/bpf/test_run.c` waits for all CPUs).
    pub(crate) fn open(from: &End, idle: &str, to: [u8; 6], packets: &Packets) -> Result<Self, LabError> {
        let End { namespace, interface } = from;
        let interface = *interface;
        let refused = |reason| LabError::Xdp { program: PROGRAM, interface: interface.to_owned(), reason };
        let Packets { load, flows, tokens } = packets;
        let mut frame = load.frames[0].clone();
        frame[..6].copy_from_slice(&to);
        let ethernet = *frame.first_chunk().ok_or_else(|| refused("a frame without a header".to_owned()))?;
        let plan = Plan { ethernet, port: SERVICE_PORT, ..load.plan(*flows, *tokens) };
        let mut object = small_object(OBJECT).map_err(|error| refused(chain(&error)))?;
        load_program(&mut object, plan).map_err(refused)?;
        let attached = namespace.run(|| {
            program(&mut object)?.attach(idle, XdpMode::Skb).map_err(|error| chain(&error))?;
            if_nametoindex(interface).map_err(|errno| errno.to_string())
        })?;
        let index = attached.map_err(refused)?;
        let len = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let context = [0, len, 0, index, 0, 0].iter().flat_map(|word: &u32| word.to_ne_bytes()).collect();
        Ok(Self { object, namespace: namespace.clone(), frame, context })
    }

    /// Sends until told to end, `rate` packets a second at most if there is one; on its own CPU. Returns how many.
    pub(crate) fn send(&mut self, rate: Option<u64>, ended: &AtomicBool) -> Result<u64, LabError> {
        let namespace = self.namespace.clone();
        namespace.run(|| {
            link::stay_on(GENERATOR_CPU)?;
            let (mut pace, mut sent) = (rate.map(Pace::of), 0_u64);
            while !ended.load(Ordering::Relaxed) {
                let frames = if let Some(pace) = &mut pace {
                    pace.wait();
                    BURST
                } else {
                    CHUNK
                };
                self.send_some(frames)?;
                sent += u64::from(frames);
            }
            Ok(sent)
        })?
    }

    fn send_some(&mut self, frames: u32) -> Result<(), LabError> {
        let refused = |reason| LabError::Xdp { program: PROGRAM, interface: "live frames".to_owned(), reason };
        let options = TestRunOptions {
            data_in: Some(&self.frame),
            ctx_in: Some(&self.context),
            repeat: frames,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::default()
        };
        let program = program(&mut self.object).map_err(refused)?;
        program.test_run(options).map(drop).map_err(|error| refused(chain(&error)))
    }
}

/// When bursts are due.
struct Pace {
    next: Instant,
    interval: Duration,
}

impl Pace {
    fn of(rate: u64) -> Self {
        let interval = Duration::from_nanos(u64::from(BURST) * 1_000_000_000 / rate.max(1));
        Self { next: Instant::now(), interval }
    }

    /// Waits until the next burst is due. Who is late makes up for half an interval, and no more: to send the rest at once
    /// would be a burst of its own.
    fn wait(&mut self) {
        thread::sleep(self.next.saturating_duration_since(Instant::now()));
        let earliest = Instant::now().checked_sub(self.interval / 2).unwrap_or(self.next);
        self.next = self.next.max(earliest) + self.interval;
    }
}

fn program(object: &mut Ebpf) -> Result<&mut Xdp, String> {
    let program = object.program_mut(PROGRAM).ok_or("the eBPF object does not have it")?;
    program.try_into().map_err(|error: aya::programs::ProgramError| chain(&error))
}

fn load_program(object: &mut Ebpf, plan: Plan) -> Result<(), String> {
    let map = object.take_map(PLAN).ok_or("the eBPF object has no plan")?;
    let mut plans: Array<_, Pod<Plan>> = Array::try_from(map).map_err(|error| chain(&error))?;
    plans.set(0, Pod(plan), 0).map_err(|error| chain(&error))?;
    let program = program(object)?;
    verified(|| program.load()).map_err(|error| chain(&error))
}
