//! The balancer's programs that tell what they decide: another build of them, over the tables of the one that steers. It
//! is in the kernel only while somebody reads.

use super::{
    ArrayTable, Balancer, LoadError, PerCpuTable, Pins, Sizes,
    balancer::{array, load, per_cpu, program, take},
};
use crate::object::TRACE_OBJECT;
use aya::{
    maps::{MapData, MapError, ProgramArray},
    programs::XdpMode,
};
use aya_log::EbpfLogger;
use lb_common::{
    ids::{BackendId, VipId},
    reason::Reason,
    trace::{Counts, PROGRAM, Plan},
};
use log::{Log, Metadata, Record};
use std::sync::{Arc, Mutex, PoisonError};

/// The table by which the programs go on to the one that writes. When this process ends, the kernel empties it, and
/// nothing is written any more.
const WRITER: &str = "weir_trace_prog";

/// What a program has told of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Why the packet went where it went.
    pub reason: Reason,
    /// The VIP that it was for.
    pub vip: VipId,
    /// The backend that it was sent to.
    pub backend: BackendId,
    /// The number of its protocol; it says nothing where there is no VIP.
    pub protocol: u8,
}

/// The programs that tell, loaded into the kernel.
pub struct Tracer {
    balancer: Balancer,
    logger: EbpfLogger<Reader>,
    told: Arc<Mutex<Vec<Told>>>,
    counts: PerCpuTable<Counts>,
    _plan: ArrayTable<Plan>,
    _writer: ProgramArray<MapData>,
}

impl Tracer {
    /// Loads them over the pinned tables. No packet meets them yet.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn load(sizes: &Sizes, pins: &Pins, plan: Plan) -> Result<Self, LoadError> {
        let mut balancer = Balancer::load_over(TRACE_OBJECT, sizes, pins)?;
        let ebpf = balancer.object();
        let mut plans: ArrayTable<Plan> = array(ebpf, "weir_trace_plan")?;
        plans.write(0, plan).map_err(|error| LoadError::Map { map: "weir_trace_plan", error })?;
        let writer_error = |error| LoadError::Map { map: WRITER, error };
        let mut writer = ProgramArray::try_from(take(ebpf, WRITER)?).map_err(writer_error)?;
        load(ebpf, PROGRAM)?;
        let fd = program(ebpf, PROGRAM)?.fd().map_err(|error| LoadError::program(PROGRAM, error))?;
        writer.set(0, fd, 0).map_err(writer_error)?;
        let told = Arc::default();
        let logger = EbpfLogger::init_with_logger(ebpf, Reader(Arc::clone(&told)))
            .map_err(|_| LoadError::Missing("AYA_LOGS"))?;
        let counts = per_cpu(ebpf, "weir_trace_sums")?;
        Ok(Self { logger, told, counts, _plan: plans, _writer: writer, balancer })
    }

    /// Has the links to these interfaces lead to the programs that tell, from one packet to the next.
    /// [`Balancer::attach`] ends it.
    ///
    /// # Errors
    /// The kernel refuses; some of the links may lead there then.
    pub fn attach<'i>(
        &mut self,
        mut interfaces: impl Iterator<Item = &'i str>,
        mode: XdpMode,
        pins: &Pins,
    ) -> Result<(), LoadError> {
        interfaces.try_for_each(|interface| self.balancer.take_over(&pins.link(interface, mode)).map(drop))
    }

    /// What was told since this was last asked.
    pub fn read(&mut self) -> Vec<Told> {
        self.logger.flush();
        std::mem::take(&mut *self.told.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many packets there were.
    ///
    /// # Errors
    /// The kernel refuses the call.
    pub fn counts(&self) -> Result<Counts, MapError> {
        let add = |sum: Counts, cpu: &Counts| Counts {
            packets: sum.packets + cpu.packets,
            sampled: sum.sampled + cpu.sampled,
            over_limit: sum.over_limit + cpu.over_limit,
        };
        Ok(self.counts.read(0)?.iter().fold(Counts::default(), add))
    }
}

/// Where the kernel's lines are taken apart.
struct Reader(Arc<Mutex<Vec<Told>>>);

impl Log for Reader {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        if let Some(told) = parse(&record.args().to_string()) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(told);
        }
    }

    fn flush(&self) {}
}

/// The numbers of a line.
fn parse(line: &str) -> Option<Told> {
    let mut numbers = line.split(' ').map(|number| number.parse::<u32>().ok());
    let mut next = || numbers.next().flatten();
    Some(Told {
        reason: Reason::from_index(next()?)?,
        vip: VipId(next()?.try_into().ok()?),
        backend: BackendId(next()?.try_into().ok()?),
        protocol: next()?.try_into().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_numbers_that_weir_knows() {
        let told = Told { reason: Reason::JoinToken, vip: VipId(3), backend: BackendId(2), protocol: 6 };
        assert_eq!(parse(&format!("{} 3 2 6", Reason::JoinToken.index())), Some(told));
        for strange in ["", "1 2 3", "999 1 1 6", "1 70000 1 6", "1 1 70000 6", "1 1 1 256", "ring 1 1 6"] {
            assert_eq!(parse(strange), None, "{strange:?}");
        }
    }
}
