//! The commands that the lab and the tests call, and the Debian packages that hold them.
//!
//! A command that is on PATH is enough, wherever it comes from.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context as _, Error, anyhow};

use crate::{
    child, progress,
    setup::{Scope, apt::Apt},
};

/// Where a package's file goes that is taken out of it.
const LOCAL_BIN: &str = "/usr/local/bin";
/// Where a module of nginx is looked for, and where one goes that is taken out of its package.
const NGINX_MODULES: &str = "/usr/lib/nginx/modules";
const LOCAL_NGINX_MODULES: &str = "/usr/local/lib/nginx/modules";

const BIRD_LIBRARIES: &[&str] = &["libreadline8", "libssh-gcrypt-4", "libtinfo6"];

struct Tool {
    command: &'static str,
    source: Source,
    /// The smallest scope that calls it.
    scope: Scope,
    needed_for: &'static str,
}

enum Source {
    Package(&'static str),
    /// One file of a package whose rest would start a service.
    FileOf {
        package: &'static str,
        file: &'static str,
        /// The packages of what that file needs.
        libraries: &'static [&'static str],
    },
    /// A module for nginx out of a package that would start a service. It is looked for in nginx's own place.
    ModuleOf {
        package: &'static str,
    },
}

impl Tool {
    const fn packaged(command: &'static str, package: &'static str, scope: Scope, needed_for: &'static str) -> Self {
        Self { command, source: Source::Package(package), scope, needed_for }
    }

    fn package(&self) -> &'static str {
        match self.source {
            Source::Package(package) | Source::FileOf { package, .. } | Source::ModuleOf { package } => package,
        }
    }

    fn is_there(&self) -> bool {
        match self.source {
            Source::Package(_) | Source::FileOf { .. } => is_on_path(self.command),
            Source::ModuleOf { .. } => {
                [NGINX_MODULES, LOCAL_NGINX_MODULES].iter().any(|place| Path::new(place).join(self.command).is_file())
            }
        }
    }

    fn not_to_be_had(&self) -> Error {
        anyhow!(
            "`{}`, needed for {}, cannot be installed: apt knows no package `{}`; \
             see that its lists are fresh and have Debian's `main` component \
             (/etc/apt/sources.list.d), or put `{0}` on PATH",
            self.command,
            self.needed_for,
            self.package(),
        )
    }
}

const TOOLS: &[Tool] = &[
    Tool::packaged("ip", "iproute2", Scope::Lab, "the lab's links and routes"),
    Tool::packaged("tc", "iproute2", Scope::Lab, "the lab's queues and filters"),
    Tool::packaged("ss", "iproute2", Scope::Lab, "the backends' own sockets"),
    Tool::packaged("nstat", "iproute2", Scope::Lab, "the kernels' own counters"),
    Tool::packaged("ethtool", "ethtool", Scope::Lab, "the lab's offload settings"),
    Tool::packaged("mptcpize", "mptcpize", Scope::Lab, "any program's connections in the lab"),
    Tool {
        command: "nats-server",
        source: Source::FileOf { package: "nats-server", file: "usr/sbin/nats-server", libraries: &[] },
        scope: Scope::Lab,
        needed_for: "the bus of a fleet of balancers",
    },
    Tool {
        command: "nginx",
        source: Source::FileOf { package: "nginx", file: "usr/sbin/nginx", libraries: &[] },
        scope: Scope::Lab,
        needed_for: "the servers that are loaded",
    },
    Tool {
        command: "ngx_stream_module.so",
        source: Source::ModuleOf { package: "libnginx-mod-stream" },
        scope: Scope::Lab,
        needed_for: "nginx as a balancer beside Weir",
    },
    Tool {
        command: "haproxy",
        source: Source::FileOf {
            package: "haproxy",
            file: "usr/sbin/haproxy",
            libraries: &["liblua5.3-0", "libopentracing-c-wrapper0"],
        },
        scope: Scope::Lab,
        needed_for: "HAProxy beside Weir",
    },
    Tool::packaged("nft", "nftables", Scope::Lab, "the kernel's address translation beside Weir"),
    Tool::packaged("tcpdump", "tcpdump", Scope::Tests, "looking into the lab by hand"),
    Tool::packaged("tshark", "tshark", Scope::Tests, "judging the packet parser"),
    Tool::packaged("bpftool", "bpftool", Scope::Tests, "judging the loaded maps"),
    Tool::packaged("strace", "strace", Scope::Tests, "counting what a scrape asks of the kernel"),
    Tool::packaged("curl", "curl", Scope::Tests, "typing what the documents say"),
    Tool::packaged("openssl", "openssl", Scope::Tests, "typing what the documents say"),
    Tool::packaged("socat", "socat", Scope::Tests, "typing what the documents say"),
    Tool::packaged("tmux", "tmux", Scope::Tests, "looking at `weir top`"),
    Tool {
        command: "bird",
        source: Source::FileOf { package: "bird2", file: "usr/sbin/bird", libraries: BIRD_LIBRARIES },
        scope: Scope::Tests,
        needed_for: "announcing VIPs by BGP, and taking them as a router",
    },
    Tool {
        command: "birdc",
        source: Source::FileOf { package: "bird2", file: "usr/sbin/birdc", libraries: BIRD_LIBRARIES },
        scope: Scope::Tests,
        needed_for: "looking at BIRD's routes",
    },
    Tool::packaged("python3-exabgp", "python3-exabgp", Scope::Tests, "announcing VIPs by BGP"),
    Tool::packaged("lintian", "lintian", Scope::Tests, "judging the Debian package"),
    Tool::packaged("dpkg-shlibdeps", "dpkg-dev", Scope::Tests, "what the Debian package depends on"),
    Tool::packaged("strip", "binutils", Scope::Tests, "packing the program"),
    Tool::packaged("systemd-analyze", "systemd", Scope::Tests, "judging the units"),
    Tool::packaged("buildah", "buildah", Scope::Tests, "building the container image"),
    Tool::packaged("crun", "crun", Scope::Tests, "running containers as the manifests say"),
    Tool::packaged("jq", "jq", Scope::Tests, "changing a runtime's seccomp profile as the documents say"),
    Tool {
        command: "kubectl",
        source: Source::FileOf { package: "kubernetes-client", file: "usr/bin/kubectl", libraries: &[] },
        scope: Scope::Tests,
        needed_for: "rendering the manifests",
    },
    Tool {
        command: "promtool",
        source: Source::FileOf { package: "prometheus", file: "usr/bin/promtool", libraries: &[] },
        scope: Scope::Tests,
        needed_for: "judging the metrics page and the alerts",
    },
    Tool {
        command: "prometheus",
        source: Source::FileOf { package: "prometheus", file: "usr/bin/prometheus", libraries: &[] },
        scope: Scope::Tests,
        needed_for: "running the dashboard's queries",
    },
];

/// Installs the commands that are missing in a scope; what cannot be had comes back.
pub(crate) fn set_up(scope: Scope, apt: &mut Apt) -> Vec<Error> {
    let (found, missing): (Vec<&Tool>, Vec<&Tool>) =
        TOOLS.iter().filter(|tool| tool.scope <= scope).partition(|tool| tool.is_there());
    if !found.is_empty() {
        progress::say("Found", commands(&found));
    }
    if missing.is_empty() {
        return Vec::new();
    }
    progress::say("Missing", commands(&missing));
    let (known, mut problems) = known_to(apt, missing);
    problems.extend(install_packages(apt, &known).err());
    problems.extend(known.iter().filter_map(|tool| extract(apt, tool).err()));
    problems
}

/// The tools whose packages apt has, and a problem for each other.
fn known_to<'a>(apt: &mut Apt, missing: Vec<&'a Tool>) -> (Vec<&'a Tool>, Vec<Error>) {
    let packages = missing.iter().map(|tool| tool.package()).collect();
    let unknown = match apt.unknown(&packages) {
        Ok(unknown) => unknown,
        Err(error) => {
            let problem = error.context(format!("cannot install {}", commands(&missing)));
            return (Vec::new(), vec![problem]);
        }
    };
    let (lacking, known): (Vec<&Tool>, Vec<&Tool>) =
        missing.into_iter().partition(|tool| unknown.contains(&tool.package()));
    (known, lacking.into_iter().map(Tool::not_to_be_had).collect())
}

fn install_packages(apt: &mut Apt, tools: &[&Tool]) -> anyhow::Result<()> {
    let packages: BTreeSet<&str> = tools
        .iter()
        .flat_map(|tool| match &tool.source {
            Source::Package(package) => std::slice::from_ref(package),
            Source::FileOf { libraries, .. } => libraries,
            Source::ModuleOf { .. } => &[],
        })
        .copied()
        .collect();
    if packages.is_empty() {
        return Ok(());
    }
    apt.install(&packages)
}

fn extract(apt: &mut Apt, tool: &Tool) -> anyhow::Result<()> {
    match tool.source {
        Source::Package(_) => Ok(()),
        Source::FileOf { package, file, .. } => apt.extract(package, file, &Path::new(LOCAL_BIN).join(tool.command)),
        Source::ModuleOf { package } => {
            let place = Path::new(LOCAL_NGINX_MODULES);
            fs::create_dir_all(place).with_context(|| format!("cannot create {}", place.display()))?;
            let file = Path::new(NGINX_MODULES).join(tool.command);
            let file = file.to_string_lossy();
            apt.extract(package, file.trim_start_matches('/'), &place.join(tool.command))
        }
    }
}

pub(super) fn is_on_path(command: &str) -> bool {
    which::which_in_global(command, Some(child::search_path())).is_ok_and(|mut found| found.next().is_some())
}

fn commands(tools: &[&Tool]) -> String {
    tools.iter().map(|tool| tool.command).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_is_there_and_nonsense_is_not() {
        assert!(is_on_path("sh"));
        assert!(!is_on_path("no-such-command-anywhere"));
    }

    #[test]
    fn what_cannot_be_had_is_named_with_its_package_and_purpose() {
        let tool = Tool::packaged("frob", "frob-tools", Scope::Lab, "frobbing");
        let problem = tool.not_to_be_had().to_string();
        for word in ["`frob`", "`frob-tools`", "frobbing", "PATH"] {
            assert!(problem.contains(word), "{problem}");
        }
    }
}
