//! Reading the configuration again while the agent runs.
//!
//! What it says either holds as a whole or not at all: with a mistake in it everything goes on as it was.

use super::driver::{Driver, now};
use super::handle::CommandError;
use super::options::{Options, Pace};
use super::{EventType, given};
use crate::plan::Settings;

/// Reads the configuration, with what the command line says above it.
pub type Reread = Box<dyn Fn() -> Result<Options, super::ConfigError> + Send>;

/// How a warning begins that ends with the next sound configuration.
const MISCONFIGURED: &str = "the configuration cannot be used, and what was holds";
/// Likewise of one that is in force from the next start on.
const WAITS: &str = "takes a restart of the agent";

impl Driver {
    /// Goes by what the configuration says now, and says in one line what that changed.
    pub(super) fn reload(&mut self) -> Result<String, CommandError> {
        let Some(reread) = &self.reread else {
            let text = "this agent has no configuration: everything is on its command line".to_owned();
            return Err(CommandError::Refused(text));
        };
        let read = reread().map_err(|error| crate::host::chain(&error));
        let result = read.and_then(|options| self.go_by(options));
        self.facts.warnings.retain(|warning| !warning.starts_with(MISCONFIGURED));
        (self.again, self.dirty_view) = (true, true);
        match result {
            Ok(text) => {
                self.journal.note(now(), EventType::Normal, "agent", "Configured", text.clone());
                Ok(text)
            }
            Err(why) => {
                let text = format!("{MISCONFIGURED}: {why}");
                self.journal.note(now(), EventType::Warning, "agent", "Misconfigured", text.clone());
                self.facts.warnings.push(text.clone());
                Err(CommandError::Misconfigured(text))
            }
        }
    }

    /// All of it, or nothing.
    fn go_by(&mut self, options: Options) -> Result<String, String> {
        let asked = given::given(&options).map_err(|error| crate::host::chain(&error))?;
        let changes = self.sources.set(asked).map_err(|error| crate::host::chain(&error))?;
        // Whoever waits for an answer of a server that is asked no more waits for nobody.
        let ended = changes.iter().filter(|change| change.ends_asking);
        for name in ended.map(|change| &change.source) {
            self.is_asked_no_more(name);
        }
        self.settings = Settings {
            stop_all: self.settings.stop_all,
            ..options.settings(self.settings.id_base, self.settings.id_ranges)
        };
        self.pace.resync = Pace::new(options.resync).resync;
        let waiting = self.options.needs_restart(&options);
        self.facts.warnings.retain(|warning| !warning.ends_with(WAITS));
        for name in &waiting {
            self.facts.warnings.push(format!("{name} is another one in the configuration now, which {WAITS}"));
        }
        let mut said = vec!["the configuration was read".to_owned()];
        for change in changes {
            let object = format!("Source/{}", change.source);
            self.journal.note(now(), EventType::Normal, &object, change.reason, change.what.to_owned());
            said.push(format!("source {} {}", change.source, change.what));
        }
        said.extend(waiting.iter().map(|name| format!("{name} {WAITS}")));
        Ok(said.join("; "))
    }
}
