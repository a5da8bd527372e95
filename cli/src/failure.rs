//! From a library's error to what the user reads.

use std::error::Error;

use miette::Report;

/// `failed to …`, with a library's fragment in the place of the dots. Lines that start with `hint:`
/// become the help text.
pub fn failed<E: Error>(error: E) -> Report {
    let text = error.to_string();
    let (message, hint) = match text.split_once("hint:") {
        Some((message, hint)) => (message.trim_end_matches(['\n', ' ', '(', ';', '—']), Some(hint.trim())),
        None => (text.as_str(), None),
    };
    let message =
        if message.starts_with("failed to") { message.to_owned() } else { format!("failed to {message}") };
    match hint {
        Some(hint) => miette::miette!(help = hint.to_owned(), "{message}"),
        None => miette::miette!("{message}"),
    }
}
