//! Columns of text. Nothing is ever cut off or wrapped here.

use crate::cli::screen::{Paint, Tone, one_line};

#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Vec<Cell>>,
    least: Vec<usize>,
}

/// A piece of text with its tone. Control characters are escaped when it is made.
#[derive(Debug, Clone, Default)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    pub fn toned(tone: Tone, text: &str) -> Self {
        Self { text: one_line(text), tone }
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::toned(Tone::Plain, text.as_ref())
    }
}

impl Table {
    pub fn new(headings: &[&str]) -> Self {
        Self {
            rows: vec![headings.iter().map(|heading| Cell::toned(Tone::Heading, heading)).collect()],
            least: Vec::new(),
        }
    }

    /// Makes columns at least this wide.
    pub fn at_least(self, widths: &[usize]) -> Self {
        Self { least: widths.to_vec(), ..self }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The table with a line end after each row and two spaces between columns.
    pub fn render(&self, paint: Paint) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |cell: &Cell| cell.text.chars().count();
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                let least = self.least.get(column).copied();
                self.rows.iter().filter_map(|row| row.get(column)).map(width).chain(least).max().unwrap_or(0)
            })
            .collect();
        let mut text = String::new();
        for row in &self.rows {
            // Nothing but empty cells to the right: no spaces at the end of the line.
            let last = row.iter().rposition(|cell| !cell.text.is_empty()).unwrap_or(0);
            for (column, cell) in row.iter().enumerate().take(last + 1) {
                text.push_str(&paint.tone(cell.tone, &cell.text));
                if column < last {
                    let padding = widths[column] - width(cell) + 2;
                    text.extend(std::iter::repeat_n(' ', padding));
                }
            }
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_end_without_spaces() {
        let mut table = Table::new(&["NAME", "STATE", "NOTE"]);
        table.row(["a".into(), "ün✔".into(), "".into()]);
        table.row(["longer".into(), Cell::toned(Tone::Bad, "x\x1b"), "end".into()]);

        assert_eq!(
            table.render(Paint(false)),
            "NAME    STATE  NOTE\n\
             a       ün✔\n\
             longer  x\\x1b  end\n"
        );
        assert!(table.render(Paint(true)).contains("\x1b[31mx\\x1b\x1b[0m  end"));
    }
}
