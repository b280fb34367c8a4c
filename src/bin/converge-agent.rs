//! The program that converge pushes to a host.

fn main() {}
