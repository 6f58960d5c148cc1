//! The figures, collected and printed at the end.

use std::fmt;
use std::time::Duration;

#[derive(Default)]
pub struct Table {
    rows: Vec<[String; 4]>,
}

impl Table {
    pub fn row(&mut self, what: &str, figure: impl fmt::Display, against: impl fmt::Display, goal: &str) {
        self.rows.push([what.to_owned(), figure.to_string(), against.to_string(), goal.to_owned()]);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ["WHAT", "FIGURE", "AGAINST", "GOAL"].map(str::to_owned);
        let widths: Vec<usize> = (0..4)
            .map(|column| self.rows.iter().chain([&head]).map(|row| row[column].chars().count()).max().unwrap_or(0))
            .collect();
        for row in [&head].into_iter().chain(&self.rows) {
            let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            writeln!(f, "{}", cells.join("  ").trim_end())?;
        }
        Ok(())
    }
}

pub fn ms(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1000.0)
}

/// The value below which the given share of the samples lies.
pub fn quantile(samples: &mut [Duration], share: f64) -> Duration {
    samples.sort_unstable();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "an index")]
    let index = ((samples.len() - 1) as f64 * share) as usize;
    samples[index]
}
