//! An OCI runtime, for podman and containerd to call. `plim oci` is the same.
#![cfg_attr(all(not(test), target_env = "gnu"), no_main)]

#[cfg(all(not(test), target_env = "gnu"))]
plimsoll::entry!(run);

#[cfg(not(all(not(test), target_env = "gnu")))]
fn main() -> std::process::ExitCode {
    run().into()
}

/// The exit code.
fn run() -> u8 {
    plimsoll::oci::main(std::env::args_os().skip(1), None)
}
