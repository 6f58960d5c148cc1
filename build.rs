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
        if packs_relocations() {
            println!("cargo:rustc-link-arg-bin={PROGRAM}=-Wl,-z,pack-relative-relocs");
        }
        if variable("PROFILE") == "release" {
            leave_out_unwinding(&directory);
        }
    }
}

/// Whether the C library finds its own relocations when they are packed: glibc 2.36. They then take a
/// twentieth.
fn packs_relocations() -> bool {
    let text = preprocessed("#include <features.h>\n__GLIBC__ __GLIBC_MINOR__\n").unwrap_or_default();
    let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let mut numbers = last.split_whitespace().map_while(|number| number.parse::<u32>().ok());
    matches!((numbers.next(), numbers.next()), (Some(major), Some(minor)) if (major, minor) >= (2, 36))
}

/// Tables for unwinding are 8 % of the file, and nothing unwinds where a panic aborts. A panic still says
/// what and where it was; it has no backtrace, whose addresses have no names in a stripped program.
fn leave_out_unwinding(directory: &Path) {
    let script = directory.join("no-unwinding.ld");
    let text = "SECTIONS { /DISCARD/ : { *(.eh_frame) *(.eh_frame.*) } } INSERT AFTER .text;\n";
    if std::fs::write(&script, text).is_ok() {
        println!("cargo:rustc-link-arg-bin={PROGRAM}=-Wl,--no-eh-frame-hdr,-T,{}", script.display());
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

fn compiler() -> Command {
    Command::new(std::env::var("CC").unwrap_or_else(|_| "cc".to_owned()))
}

/// What the preprocessor makes of a text.
fn preprocessed(text: &str) -> Option<String> {
    let file = PathBuf::from(std::env::var_os("OUT_DIR")?).join("preprocessed.c");
    std::fs::write(&file, text).ok()?;
    let output = compiler().args(["-E", "-P"]).arg(&file).output().ok()?;
    output.status.success().then_some(())?;
    String::from_utf8(output.stdout).ok()
}

/// Where the C compiler has a file.
fn find(name: &str) -> Option<PathBuf> {
    let output = compiler().arg(format!("-print-file-name={name}")).output().ok()?;
    let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    // A name that it does not know it gives back as it is.
    path.is_absolute().then_some(path).filter(|path| path.exists())
}
