//! An OCI runtime, for podman and containerd to call. `plim oci` is the same.

fn main() -> std::process::ExitCode {
    plimsoll::oci::main(std::env::args_os().skip(1), None)
}
