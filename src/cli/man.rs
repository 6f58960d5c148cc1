//! `plim man`: the manual's pages, from the same words as `--help`.

use super::context::Context;
use super::exit::{CliError, Exit};
use super::help;
use clap::Command;
use std::path::PathBuf;

/// Print the manual page of plim or of one of its verbs
///
/// With --into every page is written into a directory, as the package does it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  plim man get | man -l -\n  plim man --into /usr/local/share/man/man1")]
pub struct Args {
    /// The page of this verb
    verb: Option<String>,
    /// Write all pages into this directory, which must exist
    #[arg(long, value_name = "DIR", conflicts_with = "verb")]
    into: Option<PathBuf>,
}

pub fn run(args: &Args, context: &Context) -> Result<Exit, CliError> {
    let pages = pages()?;
    if let Some(directory) = &args.into {
        for (name, text) in &pages {
            let path = directory.join(format!("{name}.1"));
            std::fs::write(&path, text).map_err(|error| CliError::io(format!("writing {}", path.display()), error))?;
        }
        return Ok(Exit::Ok);
    }
    let wanted = args.verb.as_ref().map_or_else(|| "plim".to_owned(), |verb| format!("plim-{verb}"));
    let Some((_, text)) = pages.iter().find(|(name, _)| *name == wanted) else {
        let verb = args.verb.as_deref().unwrap_or_default();
        return Err(CliError::Usage(format!("{verb:?} is not a verb: see plim --help")));
    };
    context.screen.put(text)?;
    Ok(Exit::Ok)
}

/// Name and text of every page.
fn pages() -> Result<Vec<(String, String)>, CliError> {
    let command = help::plain();
    let verbs: Vec<Command> = command.get_subcommands().cloned().collect();
    let verbs = verbs.into_iter().map(|verb| {
        // The global options are those of plim(1).
        let name = format!("plim-{}", verb.get_name());
        let shown = format!("plim {}", verb.get_name());
        (name.clone(), verb.display_name(name).bin_name(shown).disable_version_flag(true))
    });
    std::iter::once(("plim".to_owned(), command)).chain(verbs).map(|(name, command)| page(name, command)).collect()
}

fn page(name: String, command: Command) -> Result<(String, String), CliError> {
    let mut text = Vec::new();
    let command = command.version(env!("CARGO_PKG_VERSION"));
    let page = clap_mangen::Man::new(command).title(&name).manual("Plimsoll");
    page.render(&mut text).map_err(|error| CliError::io(format!("writing the page of {name}"), error))?;
    Ok((name, String::from_utf8_lossy(&text).into_owned()))
}
