//! Between two sequences: nothing is left in the tables of either world, and nothing was where nobody has looked.

use super::{Pair, total};
use crate::fuzz::{
    sequence::Change,
    touched::Touched,
    worlds::{KINDS, Memory, World as _, host::Host},
};
use lb_common::{
    limits,
    recent::{Bucket, bucket_of},
    rekey::Rotation,
    tables::{Budget, JoinBudget, join_place},
};

impl Pair {
    /// Empties what was touched, and sees that nothing else has an entry.
    pub(super) fn clear(&mut self) {
        self.change(Change::ForgetTokens);
        self.forget_flows();
        for place in std::mem::take(&mut self.touched) {
            self.clear_place(place);
        }
        for id in std::mem::take(&mut self.gone) {
            self.gone.insert(id);
            self.bring_back(id);
        }
        self.restore_slots();
        self.write_rotation(Rotation::settled(0));
        if self.sequences.is_multiple_of(16) {
            self.clear_filter();
        }
        let kernel = &self.kernel.balancer;
        assert!(kernel.tokens.entries().next().is_none(), "the kernel has a token that the host has not");
        for kind in KINDS {
            let entries = self.kernel.entries(kind);
            assert!(entries.is_empty(), "the kernel has an entry that the host has not: {kind:?}");
        }
    }

    fn restore_slots(&mut self) {
        for (pool, slot) in std::mem::take(&mut self.slots) {
            self.write_slot(pool, slot, self.setup.pools[usize::from(pool.0)].ring[slot as usize]);
        }
    }

    fn clear_place(&mut self, place: Touched) {
        match place {
            Touched::Network(network) => {
                let index = bucket_of(network, limits::NETWORKS);
                self.host.tables.networks[index as usize] = Budget::default();
                self.kernel.balancer.networks.write(index, Budget::default()).expect("within the table");
            }
            Touched::Joins(token) => {
                let index = join_place(token);
                self.host.tables.joins[index as usize] = JoinBudget::default();
                self.kernel.balancer.joins.write(index, JoinBudget::default()).expect("within the table");
            }
            Touched::Errors => self.clear_errors(),
            Touched::Recent(memory, flow) => {
                if self.host.bucket(memory, flow) != Bucket::default() {
                    self.host.write_bucket(memory, flow, Bucket::default());
                    self.kernel.write_bucket(memory, flow, Bucket::default());
                }
            }
            Touched::Entry(_) | Touched::Token(_) => {}
        }
    }

    fn clear_errors(&mut self) {
        self.host.tables.errors = Budget::default();
        self.kernel.balancer.errors.fill(0, Budget::default()).expect("one element");
    }

    /// While it is nearly empty the filter leaves no mistake about it unseen.
    fn clear_filter(&mut self) {
        let filter = &mut self.kernel.balancer.filter;
        for index in 0..filter.len() {
            filter.write(index, 0).expect("within the table");
        }
    }

    /// Sees that the kernel has nothing in any table, and that it has counted nothing but what the host has.
    pub(in crate::fuzz) fn audit(&self) {
        let kernel = &self.kernel.balancer;
        for buckets in Memory::ALL.map(|memory| self.kernel.buckets(memory)) {
            for index in 0..buckets.len() {
                let bucket = buckets.read(index).expect("within the table");
                assert_eq!(bucket, Bucket::default(), "the kernel wrote to a bucket that the host did not touch");
            }
        }
        for index in 0..kernel.networks.len() {
            let budget = kernel.networks.read(index).expect("within the table");
            assert_eq!(budget, Budget::default(), "the kernel changed another budget");
        }
        for index in 0..kernel.joins.len() {
            let budget = kernel.joins.read(index).expect("within the table");
            assert_eq!(budget, JoinBudget::default(), "the kernel changed another budget of joins");
        }
        for (table, known) in [(&kernel.counters, &self.counted), (&kernel.sent, &self.sent)] {
            for (index, counter) in (0..).zip(known) {
                assert_eq!(total(table, index), *counter, "the kernel (left) counted in another row, {index}, too");
            }
        }
    }

    /// Empties the kernel's tables after a difference, and takes its counters as they are.
    pub(in crate::fuzz) fn resume(&mut self) {
        self.restore_slots();
        self.clear_filter();
        let setup = &self.setup;
        self.host = Host::new(setup);
        self.kernel.start_over(setup);
        let balancer = &mut self.kernel.balancer;
        let (networks, joins) = (&mut balancer.networks, &mut balancer.joins);
        (0..networks.len()).for_each(|index| networks.write(index, Budget::default()).expect("within the table"));
        (0..joins.len()).for_each(|index| joins.write(index, JoinBudget::default()).expect("within the table"));
        self.clear_errors();
        let closing = self.kernel.buckets_mut(Memory::Closing);
        for index in 0..closing.len() {
            closing.write(index, Bucket::default()).expect("within the table");
        }
        self.touched.clear();
        self.gone.clear();
        let kernel = &self.kernel.balancer;
        for (table, known) in [(&kernel.counters, &mut self.counted), (&kernel.sent, &mut self.sent)] {
            for (index, counter) in (0..).zip(known) {
                *counter = total(table, index);
            }
        }
    }
}
