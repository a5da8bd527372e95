//! Tables of comma-separated values whose columns are found by name.

/// A table with its header.
#[derive(Debug)]
pub(super) struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Reads a table; every row must have as many fields as the header.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut lines = text.lines().filter(|line| !line.trim().is_empty());
        let header = fields(lines.next().ok_or("it is empty")?);
        let mut rows = Vec::new();
        for (index, line) in lines.enumerate() {
            let row = fields(line);
            if row.len() != header.len() {
                return Err(format!(
                    "row {} has {} fields, the header has {}",
                    index + 1,
                    row.len(),
                    header.len()
                ));
            }
            rows.push(row);
        }
        if rows.is_empty() {
            return Err("it has a header and no rows".to_owned());
        }
        Ok(Self { header, rows })
    }

    /// Number of rows, at least one.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// A field by its column's name.
    pub(super) fn text(&self, row: usize, column: &str) -> Result<&str, String> {
        let position = self.header.iter().position(|name| name == column);
        position
            .map(|position| self.rows[row][position].as_str())
            .ok_or_else(|| format!("it has no column `{column}`, only {}", self.header.join(", ")))
    }

    /// A field that is a number and not negative.
    pub(super) fn number(&self, row: usize, column: &str) -> Result<f64, String> {
        let text = self.text(row, column)?;
        let number = text.trim().parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0);
        number.ok_or_else(|| {
            format!("column `{column}` of row {} is `{text}`, expected a number of at least 0", row + 1)
        })
    }

    /// A field that is a whole number.
    pub(super) fn count(&self, row: usize, column: &str) -> Result<u64, String> {
        let number = self.number(row, column)?;
        if number.fract() == 0.0 && number < 9e15 {
            return Ok(number as u64);
        }
        Err(format!("column `{column}` of row {} is {number}, expected a whole number", row + 1))
    }
}

/// Fields of a line; quotes keep commas together, and are doubled where they are meant.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut letters = line.trim_end_matches('\r').chars().peekable();
    while let Some(letter) = letters.next() {
        let last = fields.len() - 1;
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => {
                letters.next();
                fields[last].push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            other => fields[last].push(other),
        }
    }
    fields
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_by_name_and_numbers_must_be_numbers() {
        let table = Table::parse("a,b,c\n1,2.5,\"x, \"\"y\"\"\"\n\n-1,,z\r\n").unwrap();
        assert_eq!(table.len(), 2);
        assert_eq!(table.text(0, "c").unwrap(), "x, \"y\"");
        assert_eq!((table.count(0, "a").unwrap(), table.text(1, "c").unwrap()), (1, "z"));
        assert!(table.count(0, "b").unwrap_err().contains("whole"));
        assert!(table.number(1, "a").unwrap_err().contains("`-1`"));
        assert!(table.number(1, "b").unwrap_err().contains("``"));
        assert!(table.text(0, "d").unwrap_err().contains("no column `d`, only a, b, c"));
        assert!(Table::parse("a,b\n1\n").unwrap_err().contains("row 1 has 1 fields"));
        assert!(Table::parse("a,b\n").is_err() && Table::parse("").is_err());
    }
}
