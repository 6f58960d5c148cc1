//! `plim validate`.

use super::context::Context;
use super::exit::{CliError, Exit};
use crate::host::Missing;
use crate::manifest::{self, Content, Diagnostic, DropIn, MAX_FILE_BYTES};
use crate::spec::ObjectId;
use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Check manifests without an agent
///
/// Prints what is wrong as a compiler does, with the line and a suggestion. In directories every
/// *.yaml, *.yml and *.json is read, each with its drop-ins in NAME.yaml.d/; `-` is standard input. Images, programs and directories that a
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

/// A file, and what stands beside it to change it.
struct File {
    path: PathBuf,
    drop_ins: Vec<PathBuf>,
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
        collect(path, &mut files, context)?;
    }
    let mut findings = Findings::default();
    for File { path, drop_ins } in &files {
        let bytes = read(path)?;
        let name = if path.as_os_str() == "-" { "standard input".to_owned() } else { path.display().to_string() };
        let read = |path: &PathBuf| Ok((path.display().to_string(), read(path)?));
        let drop_ins: Vec<(String, Vec<u8>)> = drop_ins.iter().map(read).collect::<Result<_, CliError>>()?;
        findings.file(&name, &bytes, &drop_ins, args, context);
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
    fn file(&mut self, name: &str, bytes: &[u8], drop_ins: &[(String, Vec<u8>)], args: &Args, context: &Context) {
        self.files += 1 + drop_ins.len();
        let drop_ins: Vec<DropIn<'_>> = drop_ins.iter().map(|(file, bytes)| DropIn { file, bytes }).collect();
        let content = manifest::read(name, bytes, &drop_ins);
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
                        manifest::point((name, bytes), &drop_ins, &document.revision, &field, &message)
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
fn collect(path: &Path, files: &mut Vec<File>, context: &Context) -> Result<(), CliError> {
    if path.as_os_str() == "-" {
        files.push(File { path: path.to_path_buf(), drop_ins: Vec::new() });
        return Ok(());
    }
    let metadata = std::fs::metadata(path).map_err(|error| failed(path, error))?;
    if !metadata.is_dir() {
        if !metadata.is_file() {
            return Err(CliError::Usage(format!("{} is neither a file nor a directory", path.display())));
        }
        let beside = beside(path);
        let listed = if beside.is_dir() { list(&beside)? } else { Vec::new() };
        let drop_ins = listed.into_iter().filter(|path| is_manifest(path) && path.is_file()).collect();
        files.push(File { path: path.to_path_buf(), drop_ins });
        return Ok(());
    }
    for path in list(path)? {
        let found = std::fs::symlink_metadata(&path).map_err(|error| failed(&path, error))?;
        // As a source reads it: links to directories are not followed.
        if found.is_dir() {
            let changed = path.extension().is_some_and(|ending| ending == "d").then(|| path.with_extension(""));
            match changed.filter(|changed| is_manifest(changed)) {
                // Read with that file.
                Some(changed) if changed.is_file() => {}
                Some(changed) => {
                    let text = format!("{}: ignored: no {} beside it", path.display(), changed.display());
                    context.screen.complain(&text);
                }
                None => collect(&path, files, context)?,
            }
        } else if is_manifest(&path) && path.is_file() {
            collect(&path, files, context)?;
        }
    }
    Ok(())
}

/// Where the drop-ins of a file are, if it has any.
fn beside(path: &Path) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".d");
    beside.into()
}

fn is_manifest(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ["yaml", "yml", "json"].iter().any(|known| ending == *known))
}

/// What a directory holds, by name and without what is hidden.
fn list(directory: &Path) -> Result<Vec<PathBuf>, CliError> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(|error| failed(directory, error))? {
        let entry = entry.map_err(|error| failed(directory, error))?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

fn failed(path: &Path, error: std::io::Error) -> CliError {
    match error.kind() {
        std::io::ErrorKind::NotFound => CliError::NotFound(format!("{}: {error}", path.display())),
        _ => CliError::io(format!("reading {}", path.display()), error),
    }
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
