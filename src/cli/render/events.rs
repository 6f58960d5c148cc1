//! What happened, a line each.

use super::{Cell, Table, age};
use crate::agent::{Event, EventType};
use crate::cli::screen::{Paint, Tone, one_line};
use crate::spec::Timestamp;

pub fn table(events: &[Event], now: Timestamp, paint: Paint) -> String {
    let mut table = Table::new(&["AGE", "TYPE", "OBJECT", "REASON", "MESSAGE"]);
    for event in events {
        table.row([
            Cell::from(age(event.at, now)),
            Cell::toned(tone(event.kind), word(event.kind)),
            Cell::from(&event.object),
            Cell::from(&event.reason),
            Cell::from(&event.message),
        ]);
    }
    table.render(paint)
}

/// One event as a line of its own, for a stream: with its time, since nobody knows when it is read.
pub fn line(event: &Event, paint: Paint) -> String {
    let at = event.at.to_string();
    let time = at.get(11..19).unwrap_or(&at);
    let reason = paint.tone(tone(event.kind), &one_line(&event.reason));
    format!("{time}  {}  {reason}  {}\n", one_line(&event.object), one_line(&event.message))
}

fn tone(kind: EventType) -> Tone {
    match kind {
        EventType::Normal => Tone::Plain,
        EventType::Warning => Tone::Warning,
    }
}

fn word(kind: EventType) -> &'static str {
    match kind {
        EventType::Normal => "normal",
        EventType::Warning => "warning",
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{NOW, event};
    use super::*;

    #[test]
    fn the_table_of_events() {
        let events = [
            event(1, EventType::Normal, "Started", "pid 4711"),
            event(2, EventType::Warning, "Exited", "code 1\x1b[2J\nand more"),
        ];

        assert_eq!(
            table(&events, NOW, Paint(false)),
            "\
AGE  TYPE     OBJECT                 REASON   MESSAGE
59s  normal   Container/default/web  Started  pid 4711
58s  warning  Container/default/web  Exited   code 1\\x1b[2J and more
"
        );
        assert_eq!(line(&events[0], Paint(false)), "23:59:01  Container/default/web  Started  pid 4711\n");
    }
}
