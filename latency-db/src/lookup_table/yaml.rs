//! The part of YAML that look-up tables are written in: a mapping of mappings of numbers.

use std::fmt::Write as _;

use super::{Figures, LookupTable, OperatorKey, Spread};

/// What is wrong in which line.
pub(super) struct Fault {
    pub(super) line: usize,
    pub(super) key: String,
    pub(super) reason: String,
}

/// An operator that is being read.
struct Open {
    line: usize,
    name: String,
    key: OperatorKey,
    indent: Option<usize>,
    fields: Vec<(String, f64)>,
}

/// Reads a table; `Err(None)` if there is no operator in it.
pub(super) fn read(text: &str) -> Result<LookupTable, Option<Fault>> {
    let mut rows: Vec<(usize, String, OperatorKey, Figures)> = Vec::new();
    let mut open: Option<Open> = None;
    for (index, whole) in text.strip_prefix('\u{feff}').unwrap_or(text).lines().enumerate() {
        let line = index + 1;
        let content = whole.trim_end();
        let inner = content.trim_start();
        if inner.is_empty() || inner.starts_with('#') || content == "---" || content == "..." {
            continue;
        }
        let indent = content.len() - inner.len();
        if indent == 0 {
            if let Some(done) = open.take() {
                rows.push(close(done)?);
            }
            open = Some(begin(line, inner)?);
        } else {
            let fault = |key: &str, reason: String| Some(Fault { line, key: key.to_owned(), reason });
            let Some(operator) = &mut open else {
                return Err(fault("", "an indented line before the first key".to_owned()));
            };
            if inner.contains('\t')
                || content[..indent].contains('\t')
                || *operator.indent.get_or_insert(indent) != indent
            {
                return Err(fault(&operator.name, "its lines are not indented alike, by blanks".to_owned()));
            }
            let field = field(inner, &operator.fields).map_err(|reason| fault(&operator.name, reason))?;
            operator.fields.push(field);
        }
    }
    if let Some(done) = open {
        rows.push(close(done)?);
    }
    if rows.is_empty() {
        return Err(None);
    }
    let plain = rows.iter().map(|(_, _, key, figures)| (*key, *figures)).collect();
    LookupTable::new(plain).map_err(|(index, reason)| {
        let (line, name, ..) = &rows[index];
        Some(Fault { line: *line, key: name.clone(), reason })
    })
}

/// `KEY:`, or `KEY: {mean: …}` on one line.
fn begin(line: usize, content: &str) -> Result<Open, Option<Fault>> {
    let (name, rest) = match content.split_once(": ") {
        Some((name, rest)) => (name, rest.trim()),
        None => (content.strip_suffix(':').unwrap_or(content), ""),
    };
    let name = unquoted(name.trim());
    let fault = |reason: String| Some(Fault { line, key: name.to_owned(), reason });
    if rest.is_empty() && !content.ends_with(':') {
        return Err(fault("expected `KEY:` with the figures of an operator under it".to_owned()));
    }
    let key: OperatorKey = name.parse().map_err(fault)?;
    let mut open = Open { line, name: name.to_owned(), key, indent: None, fields: Vec::new() };
    if !rest.is_empty() {
        let inner = rest.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).ok_or_else(|| {
            fault(format!("expected `{{mean: …, std: …, count: …}}` or lines under the key, got `{rest}`"))
        })?;
        for part in inner.split(',') {
            let field = field(part.trim(), &open.fields).map_err(fault)?;
            open.fields.push(field);
        }
    }
    Ok(open)
}

/// `name: number`.
fn field(text: &str, known: &[(String, f64)]) -> Result<(String, f64), String> {
    const NAMES: [&str; 4] = ["mean", "std", "var", "count"];
    let (name, value) =
        text.split_once(':').ok_or_else(|| format!("expected `NAME: NUMBER`, got `{text}`"))?;
    let (name, value) = (unquoted(name.trim()), value.trim());
    if !NAMES.contains(&name) {
        return Err(format!("expected one of {}, got `{name}`", NAMES.join(", ")));
    }
    if known.iter().any(|(known, _)| known == name) {
        return Err(format!("`{name}` stands there twice"));
    }
    let number = value.parse::<f64>().ok().filter(|number| number.is_finite());
    let number = number.ok_or_else(|| format!("`{name}`: expected a number, got `{value}`"))?;
    Ok((name.to_owned(), number))
}

fn close(open: Open) -> Result<(usize, String, OperatorKey, Figures), Option<Fault>> {
    let Open { line, name, key, fields, .. } = open;
    let figures = figures(&fields);
    match figures {
        Ok(figures) => Ok((line, name, key, figures)),
        Err(reason) => Err(Some(Fault { line, key: name, reason })),
    }
}

fn figures(fields: &[(String, f64)]) -> Result<Figures, String> {
    /// A nanosecond, and about a year.
    const RANGE_MS: std::ops::RangeInclusive<f64> = 1e-6..=3e10;
    let get = |name: &str| fields.iter().find(|(known, _)| known == name).map(|(_, number)| *number);
    let mean_ms = get("mean").ok_or("it has no `mean`")?;
    if !RANGE_MS.contains(&mean_ms) {
        return Err(format!("`mean`: expected milliseconds above 0 (at least 1e-6), got {mean_ms}"));
    }
    let spread = match (get("std"), get("var")) {
        (Some(_), Some(_)) => return Err("it has both `std` and `var`".to_owned()),
        (Some(deviation), None) => Some(Spread::Deviation(deviation)),
        (None, Some(variance)) => Some(Spread::Variance(variance)),
        (None, None) => None,
    };
    if let Some(Spread::Deviation(number) | Spread::Variance(number)) = spread
        && number < 0.0
    {
        return Err(format!("`std` or `var`: expected 0 or more, got {number}"));
    }
    let count = get("count").map(|count| {
        let whole = count.fract() == 0.0 && (1.0..=1e15).contains(&count);
        if whole {
            Ok(count as u64)
        } else {
            Err(format!("`count`: expected a whole number from 1 on, got {count}"))
        }
    });
    Ok(Figures { mean_ms, spread, count: count.transpose()? })
}

fn unquoted(text: &str) -> &str {
    let inside = |quote: char| text.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    inside('\'').or_else(|| inside('"')).unwrap_or(text)
}

/// The rows as text, fields in alphabetical order as `PyYAML` writes them.
pub(super) fn text(rows: &[(OperatorKey, Figures)]) -> String {
    let mut text = String::new();
    for (key, figures) in rows {
        // Writing to a string can't fail.
        let _ = writeln!(text, "{key}:");
        if let Some(count) = figures.count {
            let _ = writeln!(text, "  count: {count}");
        }
        let _ = writeln!(text, "  mean: {}", number(figures.mean_ms));
        match figures.spread {
            Some(Spread::Deviation(deviation)) => {
                let _ = writeln!(text, "  std: {}", number(deviation));
            }
            Some(Spread::Variance(variance)) => {
                let _ = writeln!(text, "  var: {}", number(variance));
            }
            None => {}
        }
    }
    text
}

/// With a point and without an exponent: what YAML 1.1 readers take for a number in any case.
fn number(value: f64) -> String {
    let text = value.to_string();
    if text.contains('.') { text } else { format!("{text}.0") }
}
