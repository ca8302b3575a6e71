//! Rows as an aligned table.

use std::fmt::Write as _;

use serde_json::Value;

use super::admin::Row;

/// `rows` with these columns below a header in upper case; two spaces between columns.
pub(super) fn table(columns: &'static [&'static str], rows: &[Row]) -> String {
    let table = Table::new(columns, rows);
    let mut out = table.header();
    for row in rows {
        out.push_str(&table.line(row, ""));
    }
    out
}

/// Columns that stay as wide as the first rows made them, so that later rows fit below.
#[derive(Debug)]
pub(super) struct Table {
    columns: &'static [&'static str],
    widths: Vec<usize>,
}

impl Table {
    /// As wide as the header and `rows` need.
    pub(super) fn new(columns: &'static [&'static str], rows: &[Row]) -> Self {
        let width = |column: &&str| {
            let cells = rows.iter().map(|row| cell_of(row, column).chars().count());
            let header = named(column).chars().count();
            cells.chain([header]).max().unwrap_or(0)
        };
        Self {
            columns,
            widths: columns.iter().map(width).collect(),
        }
    }

    /// The names of the columns.
    pub(super) fn header(&self) -> String {
        let names = self.columns.iter();
        self.aligned(names.map(|column| named(column)))
    }

    /// One row, with a remark after its last column.
    pub(super) fn line(&self, row: &Row, remark: &str) -> String {
        let mut line = self.aligned(self.columns.iter().map(|column| cell_of(row, column)));
        if !remark.is_empty() {
            line.truncate(line.trim_end().len());
            let _fits = writeln!(line, "  ({remark})");
        }
        line
    }

    fn aligned(&self, cells: impl Iterator<Item = String>) -> String {
        let mut line = String::new();
        for (cell, width) in cells.zip(&self.widths) {
            // Writing into a string cannot fail.
            let _fits = write!(line, "{cell:width$}  ");
        }
        line.truncate(line.trim_end().len());
        line.push('\n');
        line
    }
}

/// What stands above a column: the last part of its name.
fn named(column: &str) -> String {
    let (_, last) = column.rsplit_once('.').unwrap_or(("", column));
    last.replace('-', " ").to_uppercase()
}

/// The cell of a column in a row; that of `credential.source` is the `source` of its `credential`.
fn cell_of(row: &Row, column: &str) -> String {
    let value = match column.split_once('.') {
        Some((part, field)) => row.get(part).and_then(|part| part.get(field)),
        None => row.get(column),
    };
    cell(value)
}

/// One value in one line. Control characters, which a message from afar may hold, are escaped.
fn cell(value: Option<&Value>) -> String {
    let text = match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) => {
            let items: Vec<String> = items.iter().map(|item| cell(Some(item))).collect();
            items.join(",")
        }
        Some(Value::Object(map)) => {
            let pairs = map
                .iter()
                .map(|(key, value)| format!("{key}={}", cell(Some(value))));
            pairs.collect::<Vec<_>>().join(",")
        }
        Some(other) => other.to_string(),
    };
    if text.is_empty() {
        return "-".to_owned();
    }
    if text.contains(char::is_control) {
        return text.escape_debug().to_string();
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_aligned_and_nothing_escapes_its_cell() {
        let rows: Vec<Row> = serde_json::from_value(json!([
            { "name": "shop", "accounts": ["a", "b"], "revoked": null },
            { "name": "a-longer-name", "accounts": [], "revoked": "now\u{1b}[2J\n" },
        ]))
        .unwrap();
        let wanted = "\
NAME           ACCOUNTS  REVOKED
shop           a,b       -
a-longer-name  -         now\\u{1b}[2J\\n
";
        assert_eq!(table(&["name", "accounts", "revoked"], &rows), wanted);
    }

    #[test]
    fn a_column_of_a_part_is_named_by_its_field_alone() {
        let rows: Vec<Row> = serde_json::from_value(json!([
            { "name": "shop", "credential": { "lease-ends": "soon" } },
            { "name": "lab", "credential": null },
        ]))
        .unwrap();
        let wanted = "\
NAME  LEASE ENDS
shop  soon
lab   -
";
        assert_eq!(table(&["name", "credential.lease-ends"], &rows), wanted);
    }

    #[test]
    fn a_later_row_stands_below_the_first_ones() {
        let row = |name: &str, state: &str| -> Row {
            serde_json::from_value(json!({ "name": name, "state": state })).unwrap()
        };
        let table = Table::new(&["name", "state"], &[row("a-longer-name", "AWAY")]);
        assert_eq!(table.header(), "NAME           STATE\n");
        assert_eq!(
            table.line(&row("shop", "ACTIVE"), ""),
            "shop           ACTIVE\n"
        );
        assert_eq!(
            table.line(&row("shop", "AWAY"), "gone"),
            "shop           AWAY  (gone)\n"
        );
    }
}
