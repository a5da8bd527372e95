//! Reads typed values out of a TOML document and collects every fault on the way.

use std::{cell::RefCell, collections::BTreeSet, fmt::Display, ops::Range, path::PathBuf, str::FromStr};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// One thing that is wrong with a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What is wrong, with key, expected and got.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Bytes of the file that it speaks of.
    pub span: Range<usize>,
}

/// All faults of one file.
#[derive(Debug, Default)]
pub struct Faults(RefCell<Vec<Fault>>);

impl Faults {
    /// Notes a fault.
    pub fn push(&self, message: impl Into<String>, hint: Option<String>, span: Range<usize>) {
        self.0.borrow_mut().push(Fault { message: message.into(), hint, span });
    }

    /// All faults, in the order of the file.
    pub fn into_sorted(self) -> Vec<Fault> {
        let mut faults = self.0.into_inner();
        faults.sort_by_key(|fault| (fault.span.start, fault.span.end));
        faults
    }
}

/// One table of the document. Keys that nobody asked for are faults when it is closed.
pub struct Section<'d> {
    name: String,
    table: Option<&'d DeTable<'d>>,
    span: Range<usize>,
    asked: RefCell<BTreeSet<String>>,
    faults: &'d Faults,
}

impl<'d> Section<'d> {
    /// The document itself.
    pub fn root(table: &'d Spanned<DeTable<'d>>, faults: &'d Faults) -> Self {
        Self {
            name: String::new(),
            table: Some(table.get_ref()),
            span: 0..0,
            asked: RefCell::default(),
            faults,
        }
    }

    /// A table inside this one; an absent table reads as one with all defaults.
    pub fn section(&self, key: &str) -> Self {
        let value = self.ask(key);
        let table = value.and_then(|value| {
            let table = value.get_ref().as_table();
            if table.is_none() {
                self.wrong(key, value, "a table");
            }
            table
        });
        Self {
            name: key.into(),
            table,
            span: value.map_or(self.span.clone(), Spanned::span),
            asked: RefCell::default(),
            faults: self.faults,
        }
    }

    /// The tables of an array of tables, `[[key]]`; an absent one has none.
    pub fn sections(&self, key: &str) -> Vec<Self> {
        let Some(value) = self.ask(key) else { return Vec::new() };
        let Some(array) = value.get_ref().as_array() else {
            self.wrong(key, value, &format!("tables, each begun with [[{}.{key}]]", self.name));
            return Vec::new();
        };
        let mut sections = Vec::new();
        for item in array {
            match item.get_ref().as_table() {
                Some(table) => sections.push(Self {
                    name: format!("{}.{key}", self.name),
                    table: Some(table),
                    span: item.span(),
                    asked: RefCell::default(),
                    faults: self.faults,
                }),
                None => self.wrong(key, item, "a table"),
            }
        }
        sections
    }

    /// The keys that stand in this table, in the order of the alphabet.
    pub fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = self
            .table
            .map(|table| table.keys().map(|key| key.get_ref().clone().into_owned()).collect())
            .unwrap_or_default();
        keys.sort();
        keys
    }

    /// Where the key stands; the section itself if it doesn't.
    pub fn span_of(&self, key: &str) -> Range<usize> {
        self.table.and_then(|table| table.get(key)).map_or(self.span.clone(), Spanned::span)
    }

    /// Notes a fault of this section's key.
    pub fn fault(&self, key: &str, message: impl Display, hint: Option<String>) {
        self.faults.push(format!("{}: {message}", self.path(key)), hint, self.span_of(key));
    }

    /// A key that has no meaning here; it is told why.
    pub fn refuse(&self, key: &str, reason: &str) {
        if self.ask(key).is_some() {
            self.fault(key, reason, None);
        }
    }

    /// A whole number within bounds.
    pub fn count(&self, key: &str, default: usize, bounds: Range<usize>) -> usize {
        self.optional_count(key, bounds).unwrap_or(default)
    }

    /// A whole number within bounds, or nothing.
    pub fn optional_count(&self, key: &str, bounds: Range<usize>) -> Option<usize> {
        let value = self.ask(key)?;
        let Some(number) = integer(value.get_ref()) else {
            self.wrong(key, value, "a whole number");
            return None;
        };
        match usize::try_from(number) {
            Ok(number) if bounds.contains(&number) => Some(number),
            _ => {
                let last = bounds.end - 1;
                self.fault(key, format!("expected {} to {last}, got {number}", bounds.start), None);
                None
            }
        }
    }

    /// A whole number of 64 bits.
    pub fn seed(&self, key: &str, default: u64) -> u64 {
        let Some(value) = self.ask(key) else { return default };
        integer(value.get_ref()).and_then(|number| u64::try_from(number).ok()).unwrap_or_else(|| {
            self.wrong(key, value, "a whole number that is not negative");
            default
        })
    }

    /// A number within closed bounds.
    pub fn number(&self, key: &str, default: f64, low: f64, high: f64) -> f64 {
        self.optional_number(key, low, high).unwrap_or(default)
    }

    /// A number within closed bounds, or nothing.
    pub fn optional_number(&self, key: &str, low: f64, high: f64) -> Option<f64> {
        let value = self.ask(key)?;
        let number = match value.get_ref() {
            DeValue::Float(text) => parse(text.as_str()),
            DeValue::Integer(_) => integer(value.get_ref()).map(|number| number as f64),
            _ => None,
        };
        let Some(number) = number else {
            self.wrong(key, value, "a number");
            return None;
        };
        if number.is_nan() || number < low || number > high {
            self.fault(key, format!("expected {low} to {high}, got {number}"), None);
            return None;
        }
        Some(number)
    }

    /// True or false.
    pub fn flag(&self, key: &str, default: bool) -> bool {
        let Some(value) = self.ask(key) else { return default };
        value.get_ref().as_bool().unwrap_or_else(|| {
            self.wrong(key, value, "true or false");
            default
        })
    }

    /// A text, or nothing.
    pub fn text(&self, key: &str) -> Option<String> {
        let value = self.ask(key)?;
        if value.get_ref().as_str().is_none() {
            self.wrong(key, value, "a text in quotes");
        }
        value.get_ref().as_str().map(str::to_owned)
    }

    /// A path, or nothing.
    pub fn path_value(&self, key: &str) -> Option<PathBuf> {
        self.text(key).map(PathBuf::from)
    }

    /// One of several words.
    pub fn choice(&self, key: &str, choices: &[&'static str], default: &'static str) -> &'static str {
        let Some(text) = self.text(key) else { return default };
        if let Some(choice) = choices.iter().find(|choice| **choice == text) {
            return choice;
        }
        let hint = closest(&text, choices).map(|word| format!("did you mean \"{word}\"?"));
        self.fault(key, format!("expected one of {}, got \"{text}\"", choices.join(", ")), hint);
        default
    }

    /// A list of whole numbers, or nothing.
    pub fn counts(&self, key: &str) -> Option<Vec<usize>> {
        let value = self.ask(key)?;
        let list = value.get_ref().as_array().and_then(|array| {
            array
                .iter()
                .map(|item| integer(item.get_ref()).and_then(|number| usize::try_from(number).ok()))
                .collect::<Option<Vec<usize>>>()
        });
        if list.is_none() {
            self.wrong(key, value, "a list of whole numbers, as in [0, 1]");
        }
        list
    }

    /// A list of words, each one of several, or the default.
    pub fn choices(&self, key: &str, choices: &[&str], default: &[&str]) -> Vec<String> {
        let Some(value) = self.ask(key) else {
            return default.iter().map(|word| (*word).to_owned()).collect();
        };
        let Some(array) = value.get_ref().as_array() else {
            self.wrong(key, value, "a list of texts");
            return Vec::new();
        };
        let mut words = Vec::new();
        for item in array {
            match item.get_ref().as_str() {
                Some(text) if choices.contains(&text) => words.push(text.to_owned()),
                Some(text) if choices.is_empty() => {
                    let message = format!("{}: there is none of this space, got \"{text}\"", self.path(key));
                    self.faults.push(message, None, item.span());
                }
                Some(text) => {
                    let hint = closest(text, choices).map(|word| format!("did you mean \"{word}\"?"));
                    let message = format!(
                        "{}: expected some of {}, got \"{text}\"",
                        self.path(key),
                        choices.join(", ")
                    );
                    self.faults.push(message, hint, item.span());
                }
                None => self.wrong(key, item, "a text in quotes"),
            }
        }
        words
    }

    /// Notes every key that nobody asked for.
    pub fn close(self) {
        let Some(table) = self.table else { return };
        let asked = self.asked.borrow();
        let known: Vec<&str> = asked.iter().map(String::as_str).collect();
        for (key, _) in table {
            let name: &str = key.get_ref();
            if !asked.contains(name) {
                let place = if self.name.is_empty() {
                    "at the top level".to_owned()
                } else {
                    format!("in [{}]", self.name)
                };
                let hint = closest(name, &known).map_or_else(
                    || format!("known here: {}", known.join(", ")),
                    |word| format!("did you mean `{word}`?"),
                );
                self.faults.push(format!("unknown key `{name}` {place}"), Some(hint), key.span());
            }
        }
    }

    fn ask(&self, key: &str) -> Option<&'d Spanned<DeValue<'d>>> {
        self.asked.borrow_mut().insert(key.to_owned());
        self.table.and_then(|table| table.get(key))
    }

    fn wrong(&self, key: &str, value: &Spanned<DeValue<'_>>, expected: &str) {
        let got = value.get_ref().type_str();
        self.faults.push(
            format!("{}: expected {expected}, got {}", self.path(key), article(got)),
            None,
            value.span(),
        );
    }

    fn path(&self, key: &str) -> String {
        if self.name.is_empty() { format!("`{key}`") } else { format!("`{}.{key}`", self.name) }
    }
}

fn article(kind: &str) -> String {
    let article = if kind.starts_with(['a', 'i', 'o']) { "an" } else { "a" };
    format!("{article} {kind}")
}

fn integer(value: &DeValue<'_>) -> Option<i64> {
    let number = value.as_integer()?;
    i64::from_str_radix(&number.as_str().replace('_', ""), number.radix()).ok()
}

fn parse<T: FromStr>(text: &str) -> Option<T> {
    text.replace('_', "").parse().ok()
}

/// The word that is most like `text`, if one is alike at all.
pub fn closest<'w>(text: &str, words: &[&'w str]) -> Option<&'w str> {
    words
        .iter()
        .map(|word| (strsim::jaro_winkler(text, word), *word))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, word)| word)
}
