//! The keeper: parent of all containers of one root. `plim agent` starts it.

fn main() -> std::process::ExitCode {
    plimsoll::keeper::main(std::env::args_os().skip(1))
}
