//! `weir explain` of the captures of stock kernels, judged by tshark, which sees both directions; etherparse reads what was
//! sent. Root for the kernel's engine.

#[path = "../captured/mod.rs"]
mod captured;
mod captures;
mod flow;
mod unfit;
mod weir;
