//! A table that is redrawn in place: only when it has changed, and in one write.

use super::render::{containers, events};
use super::screen::{Paint, Tone};
use crate::agent::{Event, View};
use crate::spec::Timestamp;

/// How many of the last events are shown below the table.
pub const EVENTS: usize = 8;

/// What stands on the terminal now.
#[derive(Debug, Default)]
pub struct Live {
    shown: Vec<String>,
}

impl Live {
    /// What to write so that `lines` stand where the former ones stood; nothing when they do.
    pub fn redraw(&mut self, lines: Vec<String>) -> String {
        if lines == self.shown {
            return String::new();
        }
        // Each line is written over the old one and the rest of it erased, so nothing blinks.
        let mut text = String::from("\x1b[?25l");
        text.push_str(&up(self.shown.len()));
        for line in &lines {
            text.push_str(line);
            text.push_str("\x1b[K\r\n");
        }
        text.push_str("\x1b[J\x1b[?25h");
        self.shown = lines;
        text
    }

    /// What to write so that `line` stands for good above what is redrawn.
    pub fn above(&mut self, line: &str) -> String {
        let lines = std::mem::take(&mut self.shown);
        let text = format!("{}{}\x1b[K\r\n", up(lines.len()), line.trim_end());
        text + &self.redraw(lines)
    }

    /// What to write so that nothing of it is left.
    pub fn erase(&mut self) -> String {
        format!("{}\x1b[J", up(std::mem::take(&mut self.shown).len()))
    }
}

fn up(lines: usize) -> String {
    if lines == 0 { String::new() } else { format!("\x1b[{lines}A\r") }
}

/// The lines of one picture of the host, no more and no longer than the terminal has room for.
pub fn lines(
    view: &View,
    recent: &[Event],
    (rows, columns): (usize, usize),
    now: Timestamp,
    paint: Paint,
) -> Vec<String> {
    // The cursor stands on the line below.
    let room = rows.saturating_sub(1).max(4);
    let table = containers::table(&view.items, containers::Width::Normal, now, paint);
    let attention = containers::attention(&view.items, now, paint);
    let recent = &recent[recent.len().saturating_sub(EVENTS)..];
    let events: String = recent.iter().map(|event| events::line(event, paint)).collect();

    let below = if events.is_empty() { 0 } else { events.lines().count() + 1 };
    let most = room.saturating_sub(below).max(3);
    // What needs a person is not pushed out by what does not.
    let attention: Vec<String> = attention.lines().flat_map(|line| wrapped(line, columns)).collect();
    let attention = shortened(attention, most / 2, paint);
    let table = table.lines().map(str::to_owned).collect();
    let mut lines = shortened(table, most - attention.len(), paint);
    lines.extend(attention);
    if view.items.is_empty() {
        lines = vec!["no containers yet".to_owned()];
    }
    if below > 0 {
        lines.push(String::new());
        lines.extend(events.lines().map(str::to_owned));
    }
    lines.truncate(room);
    lines.iter().map(|line| clip(line, columns)).collect()
}

/// At most so many lines, the last of which counts the others.
fn shortened(mut lines: Vec<String>, most: usize, paint: Paint) -> Vec<String> {
    if lines.len() > most {
        let kept = most.saturating_sub(1);
        let more = format!("… {} more lines: plim get -A", lines.len() - kept);
        lines.truncate(kept);
        lines.push(paint.tone(Tone::Faint, &more));
        lines.truncate(most);
    }
    lines
}

/// A line in as many as its words need; none of its lines is longer unless a word is.
fn wrapped(line: &str, columns: usize) -> Vec<String> {
    const INDENT: &str = "    ";
    let mut lines = vec![String::new()];
    let (mut width, mut empty) = (0, true);
    for word in line.split(' ') {
        let long = visible(word);
        if !empty && width + 1 + long > columns {
            lines.push(INDENT.to_owned());
            (width, empty) = (INDENT.len(), true);
        }
        if let Some(last) = lines.last_mut() {
            if !empty {
                last.push(' ');
                width += 1;
            }
            last.push_str(word);
        }
        width += long;
        empty = false;
    }
    lines
}

/// How many columns a text takes, escape sequences for colours not counted.
fn visible(text: &str) -> usize {
    clip(text, usize::MAX)
        .chars()
        .fold((0, false), |(width, in_escape), c| match (in_escape, c) {
            (true, c) => (width, c != 'm'),
            (false, '\x1b') => (width, true),
            (false, _) => (width + 1, false),
        })
        .0
}

/// The beginning of a line that fits, escape sequences for colours not counted.
fn clip(line: &str, columns: usize) -> String {
    let mut clipped = String::new();
    let (mut width, mut in_escape) = (0, false);
    for c in line.chars() {
        match (in_escape, c) {
            (true, c) => {
                clipped.push(c);
                in_escape = c != 'm';
            }
            (false, '\x1b') => {
                clipped.push(c);
                in_escape = true;
            }
            (false, '\t') if width < columns => {
                clipped.push(' ');
                width += 1;
            }
            (false, c) if width < columns => {
                clipped.push(c);
                width += 1;
            }
            (false, _) => {}
        }
    }
    clipped
}

#[cfg(test)]
mod tests {
    use super::super::render::samples;
    use super::*;
    use crate::agent::EventType;

    fn text(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|&line| line.to_owned()).collect()
    }

    #[test]
    fn only_a_change_is_written() {
        let mut live = Live::default();

        let first = live.redraw(text(&["a", "b"]));
        let same = live.redraw(text(&["a", "b"]));
        let other = live.redraw(text(&["c"]));

        assert_eq!(first, "\x1b[?25la\x1b[K\r\nb\x1b[K\r\n\x1b[J\x1b[?25h");
        assert_eq!(same, "");
        assert_eq!(other, "\x1b[?25l\x1b[2A\rc\x1b[K\r\n\x1b[J\x1b[?25h");
        assert_eq!(live.erase(), "\x1b[1A\r\x1b[J");
    }

    #[test]
    fn a_line_can_be_put_above() {
        let mut live = Live::default();
        live.redraw(text(&["a"]));

        assert_eq!(live.above("note\n"), "\x1b[1A\rnote\x1b[K\r\n\x1b[?25la\x1b[K\r\n\x1b[J\x1b[?25h");
    }

    #[test]
    fn a_picture_is_no_larger_than_the_terminal() {
        let events: Vec<Event> = (1..30).map(|id| samples::event(id, EventType::Normal, "Started", "pid 1")).collect();

        for size in [(40, 200), (14, 80), (5, 20), (1, 1)] {
            let lines = lines(&samples::view(), &events, size, samples::NOW, Paint(false));
            assert!(lines.len() <= size.0.max(5), "{size:?}: {lines:?}");
            assert!(lines.iter().all(|line| line.chars().count() <= size.1), "{size:?}: {lines:?}");
        }
        let cut = lines(&samples::view(), &events, (14, 80), samples::NOW, Paint(false));
        assert!(cut.iter().any(|line| line.ends_with("more lines: plim get -A")), "{cut:?}");
        assert!(cut.iter().any(|line| line.starts_with("! ")), "{cut:?}");
    }

    #[test]
    fn what_needs_a_person_is_wrapped_and_not_cut() {
        assert_eq!(wrapped("! web: a b", 80), ["! web: a b"]);
        assert_eq!(
            wrapped("\x1b[31m!\x1b[0m web: one two three", 11),
            ["\x1b[31m!\x1b[0m web: one", "    two", "    three"]
        );
        assert_eq!(wrapped("! averylongwordindeed x", 8), ["!", "    averylongwordindeed", "    x"]);
    }

    #[test]
    fn a_line_is_cut_at_its_visible_width() {
        assert_eq!(clip("\x1b[31mab\x1b[0mcd", 3), "\x1b[31mab\x1b[0mc");
        assert_eq!(clip("\x1b[31mabcd\x1b[0m", 2), "\x1b[31mab\x1b[0m");
    }
}
