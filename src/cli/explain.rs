//! `plim explain`.

use super::context::Context;
use super::exit::{CliError, Exit};
use super::names;
use super::render::{Cell, Table};
use super::screen::{Paint, Tone};
use crate::manifest::{self, Field};
use crate::spec::change::{self, Row};

/// Explain a field of the manifest format
///
/// What it is for, what may stand there, what holds when it is left out, and what a change of it costs a
/// container that runs. Needs no agent.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  plim explain container\n  plim explain container.spec.resources.memory")]
pub struct Args {
    /// KIND[.FIELD…], such as container.spec.health; `spec.health` is the same
    #[arg(value_name = "FIELD", default_value = "container")]
    field: String,
    /// Everything below it too, each field in its line
    #[arg(long, short)]
    recursive: bool,
}

pub fn run(args: &Args, context: &Context) -> Result<Exit, CliError> {
    let field = found(path(&args.field)?)?;
    let text = if args.recursive {
        let mut table = table();
        let mut paths: Vec<String> = below(&field).into_iter().rev().collect();
        while let Some(path) = paths.pop() {
            let field = found(&path)?;
            paths.extend(below(&field).into_iter().rev());
            table.row(line(&field, field.path.clone()));
        }
        table.render(context.screen.paint)
    } else {
        page(&field, context.screen.paint)?
    };
    context.screen.put(&text)?;
    Ok(Exit::Ok)
}

/// Without the kind, of which there is one.
fn path(word: &str) -> Result<&str, CliError> {
    let (first, rest) = word.split_once('.').unwrap_or((word, ""));
    if manifest::field(first).is_ok() {
        return Ok(word);
    }
    names::kind(first)?;
    Ok(rest)
}

fn found(path: &str) -> Result<Field, CliError> {
    manifest::field(path).map_err(|error| CliError::NotFound(error.to_string()))
}

fn table() -> Table {
    Table::new(&["FIELD", "WHAT", "CHANGE", "FOR"])
}

fn below(field: &Field) -> Vec<String> {
    let prefix = if field.path.is_empty() { String::new() } else { format!("{}.", field.path) };
    field.fields.iter().map(|name| format!("{prefix}{name}")).collect()
}

fn page(field: &Field, paint: Paint) -> Result<String, CliError> {
    let name = if field.path.is_empty() { "container" } else { &field.path };
    let mut text = format!("{name}: {}{}\n\n", field.kind, if field.required { ", required" } else { "" });
    text.push_str(&indented(&field.description));
    for part in [field.values.clone(), facts(field)] {
        if !part.is_empty() {
            text.push('\n');
            text.push_str(&indented(&part));
        }
    }
    if !field.fields.is_empty() {
        text.push('\n');
        let mut table = table();
        for path in below(field) {
            let inner = found(&path)?;
            let name = path.rsplit('.').next().unwrap_or(&path).to_owned();
            table.row(line(&inner, name));
        }
        text.push_str(&table.render(paint));
    }
    Ok(text)
}

fn facts(field: &Field) -> String {
    let default = field.default.as_ref().map(|default| format!("When it is left out: {default}"));
    let change = row(field).map(|row| format!("A change of it: {}, {}", row.class, row.what));
    [default, change].into_iter().flatten().collect::<Vec<_>>().join("\n")
}

fn line(field: &Field, name: String) -> [Cell; 4] {
    let class = row(field).map(|row| row.class.to_string()).unwrap_or_default();
    let first = field.description.lines().next().unwrap_or_default();
    let what = if field.required { format!("{}, required", field.kind) } else { field.kind.clone() };
    [Cell::toned(Tone::Plain, &name), Cell::from(what), Cell::from(class), Cell::from(first)]
}

fn row(field: &Field) -> Option<&'static Row> {
    change::table().iter().find(|row| row.field == field.path)
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_says_what_it_is_what_may_stand_there_and_what_a_change_costs() {
        let page = |path: &str| page(&manifest::field(super::path(path).unwrap()).unwrap(), Paint(false)).unwrap();

        let limit = page("container.spec.resources.memory.limit");
        for words in ["size, such as 64Mi", "memory.max", "A change of it: live, written to memory.max"] {
            assert!(limit.contains(words), "{words}: {limit}");
        }
        let restart = page("spec.restart");
        assert!(restart.contains("policy") && restart.contains("always"), "{restart}");
        assert!(page("container").contains("spec") && page("containers").contains("metadata"));
    }

    #[test]
    fn a_kind_with_a_slip_is_met_with_the_nearest_one() {
        let error = path("contaner.spec").unwrap_err();

        assert_eq!(error.exit().code(), 2);
        assert!(error.to_string().contains("did you mean `container`"), "{error}");
    }
}
