//! Weir as an operator meets it: the commands themselves, in network namespaces of their own, judged by the kernel's
//! tools and by a service manager and a journal that are plain sockets. Needs root.

mod cluster;
mod detach;
mod doctor;
mod fitness;
mod kubernetes;
mod log;
mod losses;
mod scrape;
mod stage;
mod supervisor;
mod sweep;
mod top;
mod transcripts;
mod user;
