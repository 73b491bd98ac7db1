//! nginx in the middle, with its stream module under `mptcpize`: connections end there, joins with them, and each goes on to
//! a backend as a connection of its own.

use std::{
    fmt::Write as _,
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

use super::{
    Middle,
    place::{Place, up},
};
use crate::{Backend, Lab, LabError, addresses::SERVICE_PORT, churn::script::Member, process::Process};

const PROGRAM: &str = "nginx";
const MODULE: &str = "ngx_stream_module.so";
/// Where it is, by Debian's package and by `cargo xtask setup`.
const MODULES: [&str; 2] = ["/usr/lib/nginx/modules", "/usr/local/lib/nginx/modules"];
const CONNECTIONS_MAX: usize = 16_384;

/// It, and what it runs on.
#[derive(Debug)]
pub(super) struct NginxStream {
    place: Place,
    backends: Range<usize>,
    process: Process,
}

impl NginxStream {
    /// Starts it before these of the lab's backends.
    pub(super) fn start(lab: &Lab, place: Place, backends: Range<usize>, pool: &[Member]) -> Result<Self, LabError> {
        place.take_vips()?;
        let process = serve(&place, &up(&lab.backends[backends.clone()], pool))?;
        Ok(Self { place, backends, process })
    }
}

impl Middle for NginxStream {
    fn change(&mut self, lab: &Lab, pool: &[Member]) -> Result<(), LabError> {
        self.process.stop();
        self.process = serve(&self.place, &up(&lab.backends[self.backends.clone()], pool))?;
        Ok(())
    }

    /// The master and its workers.
    fn processes(&self) -> Vec<u32> {
        let master = self.process.id();
        let children = fs::read_to_string(format!("/proc/{master}/task/{master}/children")).unwrap_or_default();
        let workers = children.split_whitespace().filter_map(|id| id.parse().ok());
        workers.chain([master]).collect()
    }
}

pub(super) fn module() -> Result<PathBuf, LabError> {
    let found = MODULES.into_iter().map(|place| Path::new(place).join(MODULE)).find(|module| module.is_file());
    found.ok_or(LabError::NoTool { tool: MODULE, package: "libnginx-mod-stream" })
}

fn serve(place: &Place, backends: &[&Backend]) -> Result<Process, LabError> {
    let prefix = place.directory.to_string_lossy();
    let text = configuration(&module()?, backends);
    place.serve(PROGRAM, &["-p", &prefix, "-e", "stderr", "-c"], &text)
}

/// A worker for each processor; nothing outside its own directory.
fn configuration(module: &Path, backends: &[&Backend]) -> String {
    let mut text = format!(
        "load_module {};
daemon off;
user root;
worker_processes auto;
pid nginx.pid;
lock_file nginx.lock;
error_log stderr;
worker_rlimit_nofile {CONNECTIONS_MAX};
events {{ worker_connections {CONNECTIONS_MAX}; }}
stream {{
    server {{
        listen [::]:{SERVICE_PORT} ipv6only=off backlog=4096;
        proxy_timeout 10m;
        proxy_pass pool;
    }}
    upstream pool {{
",
        module.display()
    );
    for Backend { address, .. } in backends {
        let _ = writeln!(text, "        server {}:{SERVICE_PORT} max_fails=0;", address.v4);
    }
    text + "    }\n}\n"
}
