//! From a library's error to what the user reads.

use std::error::Error;

use miette::Report;

/// `failed to …`, with a library's fragment in the place of the dots. Lines that start with `hint:`
/// become the help text.
pub fn failed<E: Error>(error: E) -> Report {
    let text = error.to_string();
    let (message, hint) = match text.split_once("hint:") {
        Some((message, hint)) => {
            // Some libraries put the hint into parentheses.
            let inside = message.trim_end().ends_with('(');
            let hint = hint.trim();
            let hint = if inside { hint.strip_suffix(')').unwrap_or(hint) } else { hint };
            (message.trim_end_matches(['\n', ' ', '(', ';', '—']), Some(hint))
        }
        None => (text.as_str(), None),
    };
    let message =
        if message.starts_with("failed to") { message.to_owned() } else { format!("failed to {message}") };
    match hint {
        Some(hint) => miette::miette!(help = hint.to_owned(), "{message}"),
        None => miette::miette!("{message}"),
    }
}

#[cfg(test)]
mod tests {
    use thiserror::Error;

    use super::*;

    #[derive(Debug, Error)]
    #[error("{0}")]
    struct Fragment(&'static str);

    fn parts(text: &'static str) -> (String, Option<String>) {
        let report = failed(Fragment(text));
        (report.to_string(), report.help().map(|help| help.to_string()))
    }

    #[test]
    fn a_fragment_becomes_a_sentence_and_its_hint_the_help() {
        let expected = ("failed to find it".to_owned(), Some("build it (once)".to_owned()));
        assert_eq!(parts("find it\nhint: build it (once)"), expected);
        assert_eq!(parts("find it (hint: build it (once))"), expected);
        assert_eq!(parts("failed to find it; hint: build it (once)"), expected);
        assert_eq!(parts("find it"), ("failed to find it".to_owned(), None));
    }
}
