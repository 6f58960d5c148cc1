//! `plim validate`.

use super::context::Context;
use super::exit::{CliError, Exit};
use crate::host::Missing;
use crate::manifest::{self, Content, Diagnostic, MAX_FILE_BYTES};
use crate::spec::ObjectId;
use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Check manifests without an agent
///
/// Prints what is wrong as a compiler does, with the line and a suggestion. In directories every
/// *.yaml, *.yml and *.json is read; `-` is standard input. Images, programs and directories that a
/// manifest names are looked for on this host, unless --portable. Exit code 4 when something is
/// wrong.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  plim validate manifests/\n  git show HEAD:web.yaml | plim validate -")]
pub struct Args {
    /// Files or directories
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// The manifests are for another host: do not look for what they name
    #[arg(long)]
    portable: bool,
}

/// What was found, over all files.
#[derive(Default)]
struct Findings {
    files: usize,
    errors: usize,
    /// Each object and where it stands first.
    objects: BTreeMap<ObjectId, String>,
}

pub fn run(args: &Args, context: &Context) -> Result<Exit, CliError> {
    let mut files = Vec::new();
    for path in &args.paths {
        collect(path, &mut files)?;
    }
    let mut findings = Findings::default();
    for path in &files {
        let bytes = read(path)?;
        let name = if path.as_os_str() == "-" { "standard input".to_owned() } else { path.display().to_string() };
        findings.file(&name, &bytes, args, context);
    }
    let Findings { files, errors, objects } = findings;
    let counted = format!("{}, {}", count(files, "file"), count(objects.len(), "object"));
    if errors > 0 {
        context.screen.complain(&format!("{counted}, {}", count(errors, "error")));
        return Ok(Exit::Invalid);
    }
    context.screen.put(&format!("{counted}: valid\n"))?;
    Ok(Exit::Ok)
}

fn count(number: usize, word: &str) -> String {
    format!("{number} {word}{}", if number == 1 { "" } else { "s" })
}

impl Findings {
    fn file(&mut self, name: &str, bytes: &[u8], args: &Args, context: &Context) {
        self.files += 1;
        let content = manifest::read(name, bytes);
        let mut said: Vec<Diagnostic> = Vec::new();
        // A broken file has one reason, which all of its documents repeat.
        let mut error = |diagnostic: Diagnostic| {
            if !said.contains(&diagnostic) {
                show(&diagnostic, context);
                said.push(diagnostic);
            }
        };
        content.broken.into_iter().for_each(&mut error);
        for document in content.documents {
            match document.content {
                Content::Invalid { id: _, diagnostics } => diagnostics.into_iter().for_each(&mut error),
                Content::Valid(object) => {
                    if let Some(Missing { field, message }) =
                        crate::host::missing(&object.spec, None).filter(|_| !args.portable)
                    {
                        manifest::point(name, bytes, &document.revision, &field, &message)
                            .into_iter()
                            .for_each(&mut error);
                    }
                    let here = format!("{name}:{}", document.line);
                    if let Some(first) = self.objects.get(&object.id) {
                        self.errors += 1;
                        let text = format!("{here}: error: {} stands in {first} already", object.id);
                        context.screen.complain(&text);
                    } else {
                        self.objects.insert(object.id, here);
                    }
                }
            }
            document.notes.iter().for_each(|note| show(note, context));
        }
        self.errors += said.len();
    }
}

fn show(diagnostic: &Diagnostic, context: &Context) {
    let colours = context.screen.paint_errors.0;
    context.screen.complain(&if colours { diagnostic.render_coloured() } else { diagnostic.render() });
}

/// The files to read, in order.
fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<(), CliError> {
    if path.as_os_str() == "-" {
        files.push(path.to_path_buf());
        return Ok(());
    }
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => CliError::NotFound(format!("{}: {error}", path.display())),
        _ => CliError::io(format!("reading {}", path.display()), error),
    };
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if !metadata.is_dir() {
        if !metadata.is_file() {
            return Err(CliError::Usage(format!("{} is neither a file nor a directory", path.display())));
        }
        files.push(path.to_path_buf());
        return Ok(());
    }
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        entries.push(entry.map_err(failed)?);
    }
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let kind = entry.file_type().map_err(failed)?;
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        let manifest =
            path.extension().is_some_and(|ending| ["yaml", "yml", "json"].iter().any(|known| ending == *known));
        // As a source reads it: links to directories are not followed.
        if !hidden && (kind.is_dir() || (manifest && path.is_file())) {
            collect(&path, files)?;
        }
    }
    Ok(())
}

/// The bytes of a file, and one more than allowed of a file that is too large.
fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    let failed = |error| CliError::io(format!("reading {}", path.display()), error);
    let mut bytes = Vec::new();
    let most = u64::try_from(MAX_FILE_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    if path.as_os_str() == "-" {
        std::io::stdin().lock().take(most).read_to_end(&mut bytes).map_err(failed)?;
    } else {
        std::fs::File::open(path).map_err(failed)?.take(most).read_to_end(&mut bytes).map_err(failed)?;
    }
    Ok(bytes)
}
