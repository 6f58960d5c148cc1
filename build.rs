//! Links `plim-oci` statically where the C library and libseccomp are here as archives.
//!
//! The runtime is executed anew for every container. Finding, mapping and relocating four shared
//! libraries costs it more than everything that it does in user space itself, and what enters a
//! container should need nothing of the host. Cargo knows static linking for whole builds alone
//! (`target-feature=+crt-static`, which procedural macros do not survive), so this one program is
//! given a directory in which the names of the shared libraries stand for the archives. Where an
//! archive is missing it is linked like the other programs, and does the same.
#![allow(clippy::print_stdout, reason = "this is how cargo is spoken to")]

use std::path::{Path, PathBuf};
use std::process::Command;

const PROGRAM: &str = "plim-oci";

/// Name of the shared library, and the archives that take its place.
const LIBRARIES: [(&str, &[&str]); 4] = [
    ("seccomp", &["libseccomp.a"]),
    ("gcc_s", &["libgcc_eh.a", "libgcc.a", "libc.a"]),
    ("m", &["libm.a", "libc.a"]),
    ("c", &["libc.a", "libgcc.a", "libgcc_eh.a"]),
];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=CC");
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let here = variable("TARGET") == variable("HOST") && variable("CARGO_CFG_TARGET_ENV") == "gnu";
    let directory = PathBuf::from(variable("OUT_DIR")).join("static");
    if here && archives(&directory).is_some() {
        println!("cargo:rustc-link-arg-bin={PROGRAM}=-L{}", directory.display());
        println!("cargo:rustc-link-arg-bin={PROGRAM}=-static-pie");
    }
}

/// A directory with a linker script for each library; nothing when one of the archives is not here.
fn archives(directory: &Path) -> Option<()> {
    std::fs::create_dir_all(directory).ok()?;
    // What is linked with this and can't run is not to be.
    find("rcrt1.o")?;
    for (name, archives) in LIBRARIES {
        let found = archives.iter().map(|archive| find(archive)).collect::<Option<Vec<_>>>()?;
        let found = found.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" ");
        std::fs::write(directory.join(format!("lib{name}.so")), format!("GROUP ( {found} )\n")).ok()?;
    }
    Some(())
}

/// Where the C compiler has a file.
fn find(name: &str) -> Option<PathBuf> {
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let output = Command::new(compiler).arg(format!("-print-file-name={name}")).output().ok()?;
    let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    // A name that it does not know it gives back as it is.
    path.is_absolute().then_some(path).filter(|path| path.exists())
}
