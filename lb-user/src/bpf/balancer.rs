//! The XDP balancer: its programs, its maps by their types, and its link to an interface.

use super::{
    ArrayTable, BearerTable, Events, HashTable, LedgerError, LedgerTable, LoadError, PerCpuTable, PrefixTable,
    RingTable, Value,
    pins::{LEDGER, LostPins, PinError, Pins, TABLES},
    probe::Probed,
    shape::Shape,
    verified,
};
use crate::object::OBJECT;
use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapData, MapError, ProgramArray},
    programs::{
        TestRun as _, TestRunOptions, Xdp, XdpMode,
        links::{FdLink, PinnedLink},
        xdp::XdpLink,
    },
};
use lb_common::{
    addresses::{self, Turn},
    hash::SipKey,
    ids::{BackendId, FlowHash},
    limits,
    probe::Heard,
    programs::{ENTRY, Program},
    recent::{Bucket, buckets_for, filter_words},
    rekey::Rotation,
    share::{ENTER, Entered, Event},
    stateless::Codec,
    tables::{
        Backend, Budget, Counter, FlowEntry, Globals, JoinBudget, QuicKey, RING_CHUNKS, Service, Services, Span,
        TokenEntry, TokenKey,
    },
    wire::ip::Address,
};
use nix::errno::Errno;
use std::{
    fs,
    path::{Path, PathBuf},
};
use zerocopy::IntoBytes as _;

/// How large the tables are that the operator may size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Pools, each with a ring.
    pub pools: u32,
    /// Learned tokens.
    pub tokens: u32,
    /// Joined subflows that the ring does not answer.
    pub joined_flows: u32,
    /// Flows that began in a slot in transition.
    pub moved_flows: u32,
    /// Flows that outlive the transition of their slot.
    pub pinned_flows: u32,
    /// MPTCP handshakes that have not ended.
    pub pending_handshakes: u32,
    /// Joins that no ACK has confirmed.
    pub embryonic_flows: u32,
    /// Flows of datagrams in slots in transition.
    pub datagram_flows: u32,
    /// Datagrams in pieces.
    pub fragmented_datagrams: u32,
    /// Entries that the clients of one network may have made in a tick.
    pub entries_per_network: u32,
    /// Joins that one token may bring in a tick.
    pub joins_per_token: u32,
    /// ICMP errors that a CPU may send in a tick.
    pub icmp_errors_per_cpu: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            pools: limits::POOLS_MAX,
            tokens: limits::TOKENS.default,
            joined_flows: limits::JOINED_FLOWS.default,
            moved_flows: limits::MOVED_FLOWS.default,
            pinned_flows: limits::PINNED_FLOWS.default,
            pending_handshakes: limits::PENDING_HANDSHAKES.default,
            embryonic_flows: limits::EMBRYONIC_FLOWS.default,
            datagram_flows: limits::DATAGRAM_FLOWS.default,
            fragmented_datagrams: limits::FRAGMENTED_DATAGRAMS.default,
            entries_per_network: limits::ENTRIES_PER_NETWORK.default,
            joins_per_token: limits::JOINS_PER_TOKEN.default,
            icmp_errors_per_cpu: limits::ICMP_ERRORS_PER_CPU.default,
        }
    }
}

impl Sizes {
    /// Words of each of the two filters in front of all entries, at most.
    const fn filter_words(&self) -> u32 {
        filter_words(self.joined_flows + self.moved_flows + self.pinned_flows)
    }

    /// The filters of a balancer without entries.
    fn filters(&self) -> [Span; 2] {
        let most = self.filter_words();
        [0, most].map(|first| Span { first, len: most.min(limits::FILTER_WORDS_MIN) })
    }

    /// How many entries each of their tables has.
    const fn entries(&self) -> [(&'static str, u32); 11] {
        let pools = if self.pools == 0 { 1 } else { self.pools };
        [
            ("weir_owners", pools * RING_CHUNKS),
            ("weir_previous", pools * RING_CHUNKS),
            ("weir_datagrams", buckets_for(self.datagram_flows)),
            ("weir_fragments", buckets_for(self.fragmented_datagrams)),
            ("weir_tokens", self.tokens),
            ("weir_joined", self.joined_flows),
            ("weir_pending", buckets_for(self.pending_handshakes)),
            ("weir_embryonic", buckets_for(self.embryonic_flows)),
            ("weir_moved", self.moved_flows),
            ("weir_pinned", self.pinned_flows),
            ("weir_filter", 2 * self.filter_words()),
        ]
    }

    /// The shapes of the tables that are pinned.
    fn shapes(&self) -> Result<Vec<Shape>, LoadError> {
        let object = aya_obj::Object::parse(OBJECT).map_err(|error| LoadError::object(error.into()))?;
        let entries = self.entries();
        let shape = |table: &'static str| {
            let map = object.maps.get(table).ok_or(LoadError::Missing(table))?;
            let entries = entries.iter().find(|(name, _)| *name == table).map(|&(_, entries)| entries);
            Ok(Shape::of(table, map, entries))
        };
        TABLES.into_iter().map(shape).collect()
    }

    /// What the data path must know of them, with the key of the flow hash, before there is any VIP.
    pub fn globals(&self, cluster_key: SipKey) -> Globals {
        Globals {
            keys: [cluster_key; 2],
            pending_buckets: buckets_for(self.pending_handshakes),
            embryonic_buckets: buckets_for(self.embryonic_flows),
            datagram_buckets: buckets_for(self.datagram_flows),
            fragment_buckets: buckets_for(self.fragmented_datagrams),
            filters: self.filters(),
            filter_asked: 0,
            entries_per_network: self.entries_per_network,
            joins_per_token: self.joins_per_token,
            errors_per_cpu: self.icmp_errors_per_cpu,
            prefixes: 0,
            tells: 0,
            rotation: Rotation::settled(0),
            reserved: 0,
            addresses: Turn::default(),
        }
    }
}

/// The balancer, loaded into the kernel.
#[expect(missing_docs, reason = "each field is the map of the same name in lb_common::tables::Tables")]
pub struct Balancer {
    ebpf: Ebpf,
    /// The programs go with it.
    programs: Option<ProgramArray<MapData>>,
    /// Where their table is pinned, if it is.
    programs_pin: Option<PathBuf>,
    /// Where the packets of checks are sent on their way.
    pub(super) probed: Probed,
    pub globals: ArrayTable<Globals>,
    addresses: ArrayTable<addresses::Row>,
    prefixes: PrefixTable<Services>,
    pub services: ArrayTable<Service>,
    pub rings: RingTable,
    pub backends: ArrayTable<Backend>,
    pub joined: HashTable<FlowHash, FlowEntry>,
    pub moved: HashTable<FlowHash, FlowEntry>,
    pub pinned: HashTable<FlowHash, FlowEntry>,
    pub tokens: HashTable<TokenKey, TokenEntry>,
    pub pending: ArrayTable<Bucket>,
    pub embryonic: ArrayTable<Bucket>,
    pub closing: ArrayTable<Bucket>,
    pub filter: ArrayTable<u64>,
    pub datagrams: ArrayTable<Bucket>,
    pub fragments: ArrayTable<Bucket>,
    pub quic_servers: HashTable<QuicKey, BackendId>,
    pub codecs: ArrayTable<Codec>,
    pub bearers: BearerTable,
    pub networks: ArrayTable<Budget>,
    /// What has been spent on joins with each token.
    pub joins: ArrayTable<JoinBudget>,
    pub errors: PerCpuTable<Budget>,
    /// Whether there has ever been an entry, and a handshake: until then nobody looks for one.
    pub marks: ArrayTable<[u32; 2]>,
    pub counters: PerCpuTable<Counter>,
    pub sent: PerCpuTable<Counter>,
    /// Where the data path tells what others are to know; who reads it takes it.
    pub events: Option<Events>,
    pub events_lost: PerCpuTable<u64>,
    /// What health checks know of the backends.
    pub probes: ArrayTable<Backend>,
    /// What the marks of health checks have in common, as the only element.
    pub probe_mark: ArrayTable<u32>,
    /// What they hear of MPTCP.
    pub probe_heard: ArrayTable<Heard>,
}

impl Balancer {
    /// Loads the program and makes its maps, all empty.
    ///
    /// # Errors
    /// The kernel refuses, each reason with its own message.
    pub fn load(sizes: &Sizes) -> Result<Self, LoadError> {
        let mut balancer = Self::open(OBJECT, sizes)?;
        balancer.load_programs(|_| Ok(()))?;
        Ok(balancer)
    }

    /// Loads the program over the pinned maps, with the ledger of whoever had them before; or makes them, all empty.
    ///
    /// # Errors
    /// The kernel refuses, or a pinned map has another shape.
    pub fn load_pinned(sizes: &Sizes, pins: &Pins) -> Result<(Self, LedgerTable), LoadError> {
        if OBJECT.is_empty() {
            return Err(LoadError::NoObject);
        }
        let path = pins.table(LEDGER);
        if pins.have_tables() {
            pins.check_shapes(&sizes.shapes()?)?;
            let ledger = LedgerTable::open(&path).map_err(|error| PinError::Map { table: LEDGER, error })?;
            if ledger.read().map_err(LedgerError::from)?.is_some() {
                return Ok((Self::load_over(OBJECT, sizes, pins)?, ledger));
            }
        }
        // Whoever dies before the ledger has its first entry has attached nothing.
        pins.clear_unused()?;
        let balancer = Self::load_over(OBJECT, sizes, pins)?;
        Ok((balancer, LedgerTable::make(LEDGER, &path)?))
    }

    /// Loads an object's programs over the pinned maps.
    pub(super) fn load_over(object: &[u8], sizes: &Sizes, pins: &Pins) -> Result<Self, LoadError> {
        let mut balancer = Self::open_pinned(object, sizes, Some(pins))?;
        let programs = pins.new_programs();
        balancer.load_programs(|map| map.pin(&programs).map_err(|error| LoadError::pin(&programs, error)))?;
        balancer.programs_pin = Some(programs);
        Ok(balancer)
    }

    /// Makes the maps, all empty, of an object that has the balancer's among others, and loads no program of it.
    ///
    /// # Errors
    /// The kernel refuses, each reason with its own message.
    pub fn open(object: &[u8], sizes: &Sizes) -> Result<Self, LoadError> {
        Self::open_pinned(object, sizes, None)
    }

    fn open_pinned(object: &[u8], sizes: &Sizes, pins: Option<&Pins>) -> Result<Self, LoadError> {
        if object.is_empty() {
            return Err(LoadError::NoObject);
        }
        let mut loader = EbpfLoader::new();
        for (table, entries) in sizes.entries() {
            loader.map_max_entries(table, entries);
        }
        for table in TABLES.iter().filter(|_| pins.is_some()) {
            loader.map_pin_path(table, pins.map(|pins| pins.table(table)).unwrap_or_default());
        }
        let mut ebpf = loader.load(object).map_err(LoadError::object)?;
        Ok(Self {
            programs: None,
            programs_pin: None,
            probed: Probed::new(),
            globals: array(&mut ebpf, "weir_globals")?,
            addresses: array(&mut ebpf, "weir_addresses")?,
            prefixes: prefix(&mut ebpf, "weir_prefixes")?,
            services: array(&mut ebpf, "weir_services")?,
            rings: RingTable::new(array(&mut ebpf, "weir_owners")?, array(&mut ebpf, "weir_previous")?),
            backends: array(&mut ebpf, "weir_backends")?,
            joined: hash(&mut ebpf, "weir_joined")?,
            moved: hash(&mut ebpf, "weir_moved")?,
            pinned: hash(&mut ebpf, "weir_pinned")?,
            tokens: hash(&mut ebpf, "weir_tokens")?,
            pending: array(&mut ebpf, "weir_pending")?,
            embryonic: array(&mut ebpf, "weir_embryonic")?,
            closing: array(&mut ebpf, "weir_closing")?,
            filter: array(&mut ebpf, "weir_filter")?,
            datagrams: array(&mut ebpf, "weir_datagrams")?,
            fragments: array(&mut ebpf, "weir_fragments")?,
            quic_servers: hash(&mut ebpf, "weir_quic")?,
            codecs: array(&mut ebpf, "weir_codecs")?,
            bearers: BearerTable::new(array(&mut ebpf, "weir_bearers")?),
            networks: array(&mut ebpf, "weir_networks")?,
            joins: array(&mut ebpf, "weir_joins")?,
            errors: per_cpu(&mut ebpf, "weir_errors")?,
            marks: array(&mut ebpf, "weir_marks")?,
            counters: per_cpu(&mut ebpf, "weir_counters")?,
            sent: per_cpu(&mut ebpf, "weir_sent")?,
            events: Some(Events::new(take(&mut ebpf, "weir_events")?)?),
            events_lost: per_cpu(&mut ebpf, "weir_lost")?,
            probes: array(&mut ebpf, "weir_probes")?,
            probe_mark: array(&mut ebpf, "weir_probe_mark")?,
            probe_heard: array(&mut ebpf, "weir_probe_heard")?,
            ebpf,
        })
    }

    /// The program itself, for a test run.
    ///
    /// # Errors
    /// None once it is loaded.
    pub fn program(&mut self) -> Result<&mut Xdp, LoadError> {
        program(&mut self.ebpf, ENTRY)
    }

    /// Loads the program that enters what others tell.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn load_enter(&mut self) -> Result<(), LoadError> {
        load(&mut self.ebpf, ENTER)
    }

    /// Enters what another has told into the tables, as the data path would.
    ///
    /// # Errors
    /// The program is not loaded, or the kernel refuses to run it.
    pub fn enter(&mut self, event: &Event) -> Result<Entered, LoadError> {
        let options = TestRunOptions { data_in: Some(event.as_bytes()), ..TestRunOptions::default() };
        let run = program(&mut self.ebpf, ENTER)?.test_run(options);
        let run = run.map_err(|error| LoadError::program(ENTER, error))?;
        Ok(Entered::from_number(run.return_value))
    }

    /// Has the data path know these addresses and prefixes (in bits of an IPv6 address) of VIPs and no others. One that was
    /// known before and still is, is never missing meanwhile.
    ///
    /// # Errors
    /// The kernel refuses an entry.
    ///
    /// # Panics
    /// With more addresses than [`limits::VIPS_MAX`], or one without rules.
    pub fn write_addresses(
        &mut self,
        addresses: &[(Address, Services)],
        prefixes: &[(Address, u32, Services)],
    ) -> Result<(), MapError> {
        let mut globals = self.globals.read(0)?;
        let half = 1 - globals.addresses.half.min(1);
        let (multiplier, rows) = addresses::build(addresses);
        for (index, row) in (half * addresses::ROWS..).zip(rows) {
            self.addresses.write(index, row)?;
        }
        let former = self.prefixes.keys()?;
        for &(address, len, services) in prefixes {
            self.prefixes.write(len, address, services)?;
        }
        globals.addresses.multipliers[half as usize] = multiplier;
        self.globals.write(0, globals)?;
        globals.addresses.half = half;
        globals.prefixes = u32::try_from(prefixes.len()).unwrap_or(u32::MAX);
        self.globals.write(0, globals)?;
        for (len, address) in former {
            if !prefixes.iter().any(|&(kept, kept_len, _)| (kept_len, kept) == (len, address)) {
                self.prefixes.remove(len, address)?;
            }
        }
        Ok(())
    }

    /// The object that the programs and maps are of.
    pub fn object(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// The port rules that some address or prefix points to at this moment.
    ///
    /// # Errors
    /// The kernel refuses to tell.
    pub fn services_in_use(&self) -> Result<Vec<Services>, MapError> {
        let half = self.globals.read(0)?.addresses.half.min(1);
        let rows = (half * addresses::ROWS..(half + 1) * addresses::ROWS).map(|index| self.addresses.read(index));
        let mut services = rows.map(|row| row.map(|row| row.services())).collect::<Result<Vec<_>, _>>()?;
        services.extend(self.prefixes.values()?);
        services.retain(|services| services.count > 0);
        Ok(services)
    }

    /// Puts the program on these interfaces and takes it off all others that `pins` tell of. On an interface that has a
    /// program of Weir's already this one takes its place from one packet to the next.
    ///
    /// # Errors
    /// Another program is there, the driver has no XDP of this mode, or the kernel refuses.
    pub fn attach<'i>(
        &mut self,
        interfaces: impl Iterator<Item = &'i str>,
        mode: XdpMode,
        pins: &Pins,
    ) -> Result<(), LoadError> {
        let links: Vec<_> = interfaces.map(|interface| (interface, pins.link(interface, mode))).collect();
        for (interface, path) in &links {
            if !self.take_over(path)? {
                // An interface has one mode at a time.
                let kept: Vec<_> = links.iter().map(|(_, path)| path.clone()).collect();
                pins.retire_links(&kept)?;
                self.attach_anew(interface, mode, path)?;
            }
        }
        let current: Vec<_> = links.into_iter().map(|(_, path)| path).collect();
        pins.retire_links(&current)?;
        if let Some(programs) = &self.programs_pin {
            pins.retire_programs(programs)?;
        }
        Ok(())
    }

    /// Has a pinned link lead to this program. False if there is none, or none any more to an interface.
    pub(super) fn take_over(&mut self, path: &Path) -> Result<bool, LoadError> {
        if !path.exists() {
            return Ok(false);
        }
        let link_error = |error| PinError::Link { path: path.to_owned(), error };
        let link = PinnedLink::from_pin(path).map_err(link_error)?;
        let link = XdpLink::try_from(FdLink::from(link)).map_err(link_error)?;
        let program = self.program()?;
        match program.attach_to_link(link) {
            // Its pin holds it.
            Ok(id) => program.take_link(id).map(|_| true).map_err(|error| LoadError::program(ENTRY, error)),
            Err(error) if LoadError::errno(&error) == Some(Errno::ENOLINK) => {
                fs::remove_file(path).map_err(|error| LoadError::pin(path, error))?;
                Ok(false)
            }
            Err(error) => Err(LoadError::program(ENTRY, error)),
        }
    }

    /// The pins that somebody has removed, if any: those that let the program steer on these interfaces after this
    /// process, and those of its tables.
    pub fn lost_pins<'i>(
        &self,
        interfaces: impl Iterator<Item = &'i str>,
        mode: XdpMode,
        pins: &Pins,
    ) -> Option<LostPins> {
        let links: Vec<_> = interfaces.map(|interface| pins.link(interface, mode)).collect();
        let steering = links.iter().chain(&self.programs_pin).map(PathBuf::as_path);
        let gone = pins.lost(steering.clone());
        let steers_on = steering.clone().all(|path| gone.iter().all(|gone| gone != path));
        (!gone.is_empty()).then(|| LostPins { directory: pins.root().to_owned(), gone, steers_on })
    }

    fn attach_anew(&mut self, interface: &str, mode: XdpMode, path: &Path) -> Result<(), LoadError> {
        let program = self.program()?;
        let id = program.attach(interface, mode).map_err(|error| LoadError::attach(interface, error))?;
        let link = program.take_link(id).map_err(|error| LoadError::program(ENTRY, error))?;
        let link = FdLink::try_from(link).map_err(|error| PinError::Link { path: path.to_owned(), error })?;
        link.pin(path).map_err(|error| LoadError::pin(path, error))?;
        Ok(())
    }

    fn load_programs(&mut self, pin: impl FnOnce(&Map) -> Result<(), LoadError>) -> Result<(), LoadError> {
        load(&mut self.ebpf, ENTRY)?;
        self.programs = Some(link_programs(&mut self.ebpf, pin)?);
        Ok(())
    }
}

pub(super) fn program<'e>(ebpf: &'e mut Ebpf, name: &'static str) -> Result<&'e mut Xdp, LoadError> {
    let program = ebpf.program_mut(name).ok_or(LoadError::Missing(name))?;
    program.try_into().map_err(|error| LoadError::program(name, error))
}

pub(super) fn load(ebpf: &mut Ebpf, name: &'static str) -> Result<(), LoadError> {
    let program = program(ebpf, name)?;
    verified(|| program.load()).map_err(|error| LoadError::program(name, error))
}

/// Loads the programs that the attached one goes on to, and tells it where they are.
fn link_programs(
    ebpf: &mut Ebpf,
    pin: impl FnOnce(&Map) -> Result<(), LoadError>,
) -> Result<ProgramArray<MapData>, LoadError> {
    const MAP: &str = "weir_programs";
    let map_error = |error| LoadError::Map { map: MAP, error };
    let map = take(ebpf, MAP)?;
    pin(&map)?;
    let mut programs = ProgramArray::try_from(map).map_err(map_error)?;
    for next in Program::ALL {
        load(ebpf, next.name())?;
        let fd = program(ebpf, next.name())?.fd().map_err(|error| LoadError::program(next.name(), error))?;
        programs.set(next as u32, fd, 0).map_err(map_error)?;
    }
    Ok(programs)
}

pub(super) fn prefix<V: Value>(ebpf: &mut Ebpf, map: &'static str) -> Result<PrefixTable<V>, LoadError> {
    PrefixTable::new(take(ebpf, map)?).map_err(|error| LoadError::Map { map, error })
}

pub(super) fn take(ebpf: &mut Ebpf, map: &'static str) -> Result<Map, LoadError> {
    ebpf.take_map(map).ok_or(LoadError::Missing(map))
}

pub(super) fn array<V: Value>(ebpf: &mut Ebpf, map: &'static str) -> Result<ArrayTable<V>, LoadError> {
    ArrayTable::new(take(ebpf, map)?).map_err(|error| LoadError::Map { map, error })
}

pub(super) fn hash<K: Value, V: Value>(ebpf: &mut Ebpf, map: &'static str) -> Result<HashTable<K, V>, LoadError> {
    HashTable::new(take(ebpf, map)?).map_err(|error| LoadError::Map { map, error })
}

pub(super) fn per_cpu<V: Value>(ebpf: &mut Ebpf, map: &'static str) -> Result<PerCpuTable<V>, LoadError> {
    PerCpuTable::new(take(ebpf, map)?).map_err(|error| LoadError::Map { map, error })
}
