//! The servers on the backends: nginx over the kernel's MPTCP, by `mptcpize`, in the place of the lab's own service; and the
//! lab's echo for UDP. Their files are in the lab's directory, and go with it.

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    Backend, Lab, LabError,
    addresses::{Family, SERVICE_PORT, VIP},
    datagrams::UdpEcho,
    process::Process,
};

use super::http::BACKEND;

const START_LIMIT: Duration = Duration::from_secs(20);
const CONNECTIONS_MAX: usize = 32_768;

/// All of them. Dropping this ends them.
#[derive(Debug)]
pub(super) struct Servers {
    nginx: Vec<Process>,
    _echoes: Vec<UdpEcho>,
}

impl Servers {
    /// Starts them; returns when all listen.
    pub(super) fn start(lab: &mut Lab, root: &Path) -> Result<Self, LabError> {
        (0..lab.backends.len()).for_each(|index| lab.stop_server(index));
        fs::create_dir_all(root.join("up")).map_err(LabError::file("create", root))?;
        let nginx = lab.backends.iter().map(|backend| start_nginx(backend, root)).collect::<Result<_, _>>()?;
        let services = [Family::V4, Family::V6].map(|family| VIP.service(family));
        let echo = |backend: &Backend| UdpEcho::start(&backend.namespace, &backend.name, &services);
        Ok(Self { nginx, _echoes: lab.backends.iter().map(echo).collect::<Result<_, _>>()? })
    }

    /// The servers' processes.
    pub(super) fn processes(&self) -> Vec<u32> {
        self.nginx.iter().map(Process::id).collect()
    }
}

/// Where the files are that are served.
pub(super) fn root(lab: &Lab) -> PathBuf {
    lab.directory().join("web")
}

fn start_nginx(backend: &Backend, root: &Path) -> Result<Process, LabError> {
    let home = backend.directory.join(format!("nginx-{}", backend.name));
    fs::create_dir_all(home.join("scratch")).map_err(LabError::file("create", &home))?;
    let file = home.join("nginx.conf");
    fs::write(&file, configuration(&backend.name, root)).map_err(LabError::file("write", &file))?;
    let (prefix, file) = (home.to_string_lossy(), file.to_string_lossy());
    let args = ["run", "nginx", "-p", &prefix, "-c", &file, "-e", "stderr"];
    let log = home.join("nginx.log");
    let mut process = Process::start(&backend.namespace, Path::new("mptcpize"), &args, log)?;
    process.wait_until("listens", START_LIMIT, |_| {
        backend.namespace.run(|| TcpStream::connect(("127.0.0.1", SERVICE_PORT)).is_ok())
    })?;
    Ok(process)
}

/// One process, nothing outside its own directory, and what is stored below `/up/` can be asked for again.
fn configuration(name: &str, root: &Path) -> String {
    let root = root.display();
    format!(
        "daemon off;
master_process off;
pid nginx.pid;
lock_file nginx.lock;
worker_rlimit_nofile {CONNECTIONS_MAX};
events {{ worker_connections {CONNECTIONS_MAX}; }}
http {{
    access_log off;
    sendfile on;
    tcp_nodelay on;
    keepalive_timeout 60s;
    client_max_body_size 0;
    client_body_temp_path scratch;
    proxy_temp_path scratch;
    fastcgi_temp_path scratch;
    uwsgi_temp_path scratch;
    scgi_temp_path scratch;
    default_type application/octet-stream;
    server {{
        listen [::]:{SERVICE_PORT} ipv6only=off backlog=4096;
        root {root};
        add_header {BACKEND} {name} always;
        location /up/ {{ dav_methods PUT; root {root}; }}
    }}
}}
"
    )
}
