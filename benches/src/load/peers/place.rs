//! A machine at the router for somebody who balances, beside Weir's own.

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    Backend, Lab, LabError,
    addresses::{self, DualAddress, SERVICE_PORT, VIP},
    churn::script::{Member, Stand},
    namespace::Namespace,
    process::Process,
    topology::links,
};

const START_LIMIT: Duration = Duration::from_secs(20);

/// It, and where its files are.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) namespace: Namespace,
    pub(super) address: DualAddress,
    pub(super) directory: PathBuf,
}

impl Place {
    /// Makes the one with this name and number; the first is Weir's.
    pub(super) fn lay(lab: &Lab, name: &str, number: u8) -> Result<Self, LabError> {
        let (namespace, address) = (Namespace::of(lab.name(), name), addresses::balancer(number));
        links::lay_further(&lab.router.namespace, &namespace, name, address)?;
        let directory = lab.directory().join(name);
        fs::create_dir_all(&directory).map_err(LabError::file("create", &directory))?;
        Ok(Self { namespace, address, directory })
    }

    /// Has connections to the VIPs end here, as they do on a backend: with the same room for joins, and the IPv6 VIP
    /// announced. Its own connections to backends take as many ports as there are.
    pub(super) fn take_vips(&self) -> Result<(), LabError> {
        self.namespace.write_settings(&[("ipv4/ip_local_port_range", "1024 65535"), ("ipv4/tcp_tw_reuse", "1")])?;
        self.namespace.ip_batch(&format!(
            "address add {}/32 dev lo\naddress add {v6}/128 dev lo nodad\n\
             mptcp limits set subflow 8 add_addr_accepted 0\nmptcp endpoint add {v6} dev lo signal\n",
            VIP.v4,
            v6 = VIP.v6,
        ))
    }

    /// Runs a program under `mptcpize`, with a file of this text as its last argument; returns when it listens.
    pub(super) fn serve(&self, program: &str, args: &[&str], text: &str) -> Result<Process, LabError> {
        let file = self.directory.join(format!("{program}.conf"));
        fs::write(&file, text).map_err(LabError::file("write", &file))?;
        let file = file.to_string_lossy();
        let args: Vec<&str> = ["run", program].into_iter().chain(args.iter().copied()).chain([&*file]).collect();
        let log = self.directory.join(format!("{program}.log"));
        let mut process = Process::start(&self.namespace, Path::new("mptcpize"), &args, log)?;
        process.wait_until("listens", START_LIMIT, |_| {
            self.namespace.run(|| TcpStream::connect(("127.0.0.1", SERVICE_PORT)).is_ok())
        })?;
        Ok(process)
    }
}

/// Those of these backends that are up in the pool.
pub(super) fn up<'l>(backends: &'l [Backend], pool: &[Member]) -> Vec<&'l Backend> {
    backends.iter().zip(pool).filter(|(_, member)| member.stand == Stand::Up).map(|(backend, _)| backend).collect()
}
