//! Rows as an aligned table.

use std::fmt::Write as _;

use serde_json::Value;

use super::admin::Row;

/// `rows` with these columns below a header in upper case; two spaces between columns.
pub(super) fn table(columns: &[&str], rows: &[Row]) -> String {
    let header: Vec<String> = columns
        .iter()
        .map(|column| column.replace('-', " ").to_uppercase())
        .collect();
    let mut lines = vec![header];
    for row in rows {
        lines.push(
            columns
                .iter()
                .map(|column| cell(row.get(*column)))
                .collect(),
        );
    }
    let widths: Vec<usize> = (0..columns.len())
        .map(|column| {
            let cells = lines.iter().filter_map(|line| line.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let mut out = String::new();
    for line in &lines {
        let mut text = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            let _fits = write!(text, "{cell:width$}  ");
        }
        out.push_str(text.trim_end());
        out.push('\n');
    }
    out
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
}
