//! Columns of text.

/// Rows under headings; the last column is not padded.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    right: &'static [bool],
}

impl Table {
    /// A table with these headings; `right` says which columns hold numbers.
    pub(crate) fn new(headings: &[&str], right: &'static [bool]) -> Self {
        Self { rows: vec![headings.iter().map(|text| (*text).to_owned()).collect()], right }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// All lines, each with a line feed.
    pub(crate) fn render(&self) -> String {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut out = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let fill = " ".repeat(width - cell.chars().count());
                let right = self.right.get(column).copied().unwrap_or(false);
                let (before, after) = if right { (fill.as_str(), "") } else { ("", fill.as_str()) };
                for part in [before, cell, after, "  "] {
                    line.push_str(part);
                }
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_without_trailing_spaces() {
        let mut table = Table::new(&["ID", "SIZE", "PATH"], &[false, true, false]);
        table.row(vec!["abc".into(), "5".into(), "/größe".into()]);
        table.row(vec!["d".into(), "12345".into(), String::new()]);
        assert_eq!(table.render(), "ID    SIZE  PATH\nabc      5  /größe\nd    12345\n");
    }
}
