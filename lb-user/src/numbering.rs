//! The numbers by which the data path knows VIPs, pools and backends. What stays from one configuration to the next keeps
//! its number; a number is given to another only when nothing in the tables can mean its former bearer.

use crate::config::{Backend, Config, Pool, VipAddress};
use lb_common::{
    ids::{BackendId, PoolId, VipId},
    limits,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    hash::Hash,
    net::IpAddr,
};

/// What makes a backend the same one as before.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendName {
    /// The name of its pool.
    pub pool: String,
    /// Its own name.
    pub name: String,
    /// Its address: under another address it is another machine.
    pub address: IpAddr,
}

impl BackendName {
    /// Of a backend in a pool.
    pub fn of(pool: &Pool, backend: &Backend) -> Self {
        Self { pool: pool.name.to_string(), name: backend.name.to_string(), address: backend.address }
    }
}

/// The numbers in use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbering {
    vips: BTreeMap<VipAddress, u16>,
    pools: BTreeMap<String, u16>,
    backends: BTreeMap<BackendName, u16>,
}

/// There is no number left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {limit} {what} are in use, counting those that are still leaving; try again when some have left")]
pub struct Exhausted {
    what: &'static str,
    limit: u32,
}

impl Numbering {
    /// The numbers for a configuration: old ones for what these numbers know, and free ones for the rest. Backends and pools
    /// stay until they are released, for flows and tokens may still be theirs.
    ///
    /// # Errors
    /// No number is left.
    pub fn next(&self, config: &Config) -> Result<Self, Exhausted> {
        let mut next = self.clone();
        let vips: BTreeSet<VipAddress> = config.vips.iter().map(|vip| vip.address).collect();
        next.vips.retain(|address, _| vips.contains(address));
        for vip in config.vips.iter().map(|vip| vip.address) {
            assign(&mut next.vips, vip, 1, "VIPs", limits::VIPS_MAX)?;
        }
        for pool in &config.pools {
            assign(&mut next.pools, pool.name.to_string(), 0, "pools", limits::POOLS_MAX)?;
            for backend in &pool.backends {
                let name = BackendName::of(pool, backend);
                assign(&mut next.backends, name, 1, "backends", limits::BACKENDS_MAX)?;
            }
        }
        Ok(next)
    }

    /// The number of a backend that another balancer has named: the one that it has here, or a free one.
    ///
    /// # Errors
    /// No number is left.
    pub(crate) fn take_in(&mut self, name: &BackendName) -> Result<BackendId, Exhausted> {
        assign(&mut self.backends, name.clone(), 1, "backends", limits::BACKENDS_MAX)?;
        Ok(self.backend(name))
    }

    /// The numbers that were in use before.
    pub(crate) const fn resumed(
        vips: BTreeMap<VipAddress, u16>,
        pools: BTreeMap<String, u16>,
        backends: BTreeMap<BackendName, u16>,
    ) -> Self {
        Self { vips, pools, backends }
    }

    /// The VIPs that have numbers.
    pub fn vips(&self) -> impl Iterator<Item = (VipAddress, u16)> {
        self.vips.iter().map(|(&address, &number)| (address, number))
    }

    /// The pools that have numbers.
    pub fn pools(&self) -> impl Iterator<Item = (&str, u16)> {
        self.pools.iter().map(|(name, &number)| (name.as_str(), number))
    }

    /// The number of a VIP.
    ///
    /// # Panics
    /// If it was not in the configuration that these numbers are for; likewise below.
    pub fn vip(&self, address: VipAddress) -> VipId {
        VipId(self.vips[&address])
    }

    /// The number of a pool.
    ///
    /// # Panics
    /// As above.
    pub fn pool(&self, name: &str) -> PoolId {
        PoolId(self.pools[name])
    }

    /// The number of a backend.
    ///
    /// # Panics
    /// As above.
    pub fn backend(&self, name: &BackendName) -> BackendId {
        BackendId(self.backends[name])
    }

    /// Frees the numbers of the pools that no longer exist, when the tables hold nothing of them.
    pub fn release_pools(&mut self, exists: impl Fn(PoolId) -> bool) {
        self.pools.retain(|_, number| exists(PoolId(*number)));
    }

    /// Frees the number of a backend that nothing can mean any more.
    pub fn release(&mut self, backend: BackendId) {
        self.backends.retain(|_, number| *number != backend.0);
    }
}

fn assign<K: Ord + Hash>(
    numbers: &mut BTreeMap<K, u16>,
    key: K,
    first: u16,
    what: &'static str,
    limit: u32,
) -> Result<(), Exhausted> {
    if numbers.contains_key(&key) {
        return Ok(());
    }
    let count = u16::try_from(limit).unwrap_or(u16::MAX);
    let taken: BTreeSet<u16> = numbers.values().copied().collect();
    let free = (first..first + count).find(|number| !taken.contains(number)).ok_or(Exhausted { what, limit })?;
    numbers.insert(key, free);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        [balancer]
        interface = "eth0"
        [[pool]]
        name = "web"
        backend = [{ name = "b1", address = "10.0.0.1" }]
        [[vip]]
        address = "192.0.2.1"
        protocol = "tcp"
        port = 80
        pool = "web"
    "#;

    fn config(backends: &[(&str, &str)]) -> Config {
        let list: Vec<_> = backends
            .iter()
            .map(|(name, address)| format!("{{ name = \"{name}\", address = \"{address}\" }}"))
            .collect();
        let text = format!(
            "[balancer]\ninterface = \"eth0\"\n[[pool]]\nname = \"web\"\nbackend = [{}]\n\
             [[vip]]\naddress = \"192.0.2.1\"\nprotocol = \"tcp\"\nport = 80\npool = \"web\"\n",
            list.join(", ")
        );
        Config::parse(&text, "weir.toml").expect("a good configuration")
    }

    fn number(numbering: &Numbering, name: &str, address: &str) -> u16 {
        let address = address.parse().expect("an address");
        numbering.backend(&BackendName { pool: "web".into(), name: name.into(), address }).0
    }

    #[test]
    fn who_stays_keeps_its_number_and_who_left_is_not_replaced() {
        let first = Numbering::default().next(&config(&[("b1", "10.0.0.1"), ("b2", "10.0.0.2")])).unwrap();
        let second = first.next(&config(&[("b3", "10.0.0.3"), ("b2", "10.0.0.2")])).unwrap();
        assert_eq!(number(&second, "b2", "10.0.0.2"), number(&first, "b2", "10.0.0.2"));
        assert_eq!(number(&second, "b3", "10.0.0.3"), 3);

        let mut released = second;
        released.release(BackendId(1));
        let third = released.next(&config(&[("b4", "10.0.0.4")])).unwrap();
        assert_eq!(number(&third, "b4", "10.0.0.4"), 1);
    }

    #[test]
    fn a_pool_that_is_gone_keeps_its_number_until_it_is_released() {
        let only = |pool: &str| {
            let text = format!(
                "[balancer]\ninterface = \"eth0\"\n[[pool]]\nname = \"{pool}\"\n\
                 backend = [{{ name = \"b1\", address = \"10.0.0.1\" }}]\n"
            );
            Config::parse(&text, "weir.toml").expect("a good configuration")
        };
        let web = Numbering::default().next(&only("web")).unwrap();
        let mut mail = web.next(&only("mail")).unwrap();
        assert_eq!((web.pool("web"), mail.pool("mail")), (PoolId(0), PoolId(1)));
        assert_eq!(mail.next(&only("dns")).unwrap().pool("dns"), PoolId(2));
        mail.release_pools(|pool| pool == PoolId(1));
        assert_eq!(mail.next(&only("dns")).unwrap().pool("dns"), PoolId(0));
    }

    #[test]
    fn other_ports_and_prefixes_are_other_vips() {
        let vip = |config: &Config, numbers: &Numbering| numbers.vip(config.vips[0].address).0;
        let text = |address: &str, port: &str| {
            let text = TEXT.replace("192.0.2.1", address).replace("port = 80", &format!("port = {port}"));
            Config::parse(&text, "weir.toml").expect("a good configuration")
        };
        let first = text("192.0.2.1", "80");
        let mut numbers = Numbering::default().next(&first).unwrap();
        let seen =
            [("192.0.2.1", "\"80-81\""), ("192.0.2.0/24", "80"), ("192.0.2.0/25", "80")].map(|(address, port)| {
                let config = text(address, port);
                assert!(!numbers.vips.contains_key(&config.vips[0].address), "{address} {port}");
                numbers = numbers.next(&config).unwrap();
                vip(&config, &numbers)
            });
        assert_eq!(seen, [1; 3], "a number is free when its VIP is gone");
    }

    #[test]
    fn another_address_is_another_backend() {
        let first = Numbering::default().next(&config(&[("b1", "10.0.0.1")])).unwrap();
        let second = first.next(&config(&[("b1", "10.0.0.9")])).unwrap();
        assert_ne!(number(&second, "b1", "10.0.0.9"), number(&first, "b1", "10.0.0.1"));
    }
}
