//! `plim --help` with its verbs in groups.

use super::Args;
use clap::{Command, CommandFactory as _};
use std::fmt::Write as _;

const GROUPS: [(&str, &[&str]); 6] = [
    ("Run", &["up", "agent"]),
    ("Look", &["status", "get", "describe", "logs", "events", "why", "history", "metrics"]),
    (
        "Change",
        &["validate", "plan", "approve", "reconcile", "reload", "stop", "start", "restart", "suspend", "resume", "set"],
    ),
    ("Sources", &["source"]),
    ("Inside", &["exec"]),
    ("Host", &["explain", "check", "schema", "completion", "man", "version"]),
];

/// Without the groups, for who lays it out in another way.
pub(super) fn plain() -> Command {
    Args::command()
}

pub(super) fn command() -> Command {
    let command = Args::command();
    let mut verbs = String::new();
    for (group, names) in GROUPS {
        let _infallible = writeln!(verbs, "{group}:");
        for name in names {
            let about = command.find_subcommand(name).and_then(Command::get_about).map(ToString::to_string);
            let _infallible = writeln!(verbs, "  {name:<10} {}", about.unwrap_or_default());
        }
        verbs.push('\n');
    }
    let template = format!(
        "{{about}}\n\nUsage: plim [OPTIONS] VERB …\n\n{verbs}Options:\n{{options}}\n\n\
         `plim VERB --help` says more, with an example. A first one:\n  plim up manifests/\n"
    );
    command.help_template(template)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn every_verb_has_its_place_in_a_group() {
        let command = command();
        let mut verbs: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
        let mut grouped: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        verbs.sort_unstable();
        grouped.sort_unstable();

        assert_eq!(grouped, verbs);
    }

    #[test]
    fn every_verb_explains_itself_with_an_example() {
        for verb in command().get_subcommands() {
            let help = verb.clone().render_long_help().to_string();
            assert!(help.contains("Example"), "{}: {help}", verb.get_name());
            assert!(verb.get_about().is_some_and(|about| about.to_string().len() > 10), "{}", verb.get_name());
        }
    }
}
