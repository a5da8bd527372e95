//! Words of a POSIX shell.

use super::TransportError;

/// One word, quoted so that any POSIX shell reads it back as it is.
pub fn quote(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=,+@%".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// Words as one line that [`split_words`] and a shell read back.
pub fn join_words(words: &[String]) -> String {
    words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ")
}

/// The words of a line: blanks part them, quotes and backslashes keep blanks together. Nothing is
/// expanded; what only a shell could do (`$`, `;`, `|`, …) stands for itself.
///
/// Fails with an open quote or a backslash at the end.
pub fn split_words(text: &str) -> Result<Vec<String>, TransportError> {
    let wrong = |message| TransportError::Words { text: text.to_owned(), message };
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            blank if blank.is_whitespace() => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match characters.next() {
                        Some('\'') => break,
                        Some(inside) => word.push(inside),
                        None => return Err(wrong("a single quote is not closed")),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match characters.next() {
                        Some('"') => break,
                        Some('\\') => match characters.next() {
                            Some(escaped @ ('"' | '\\')) => word.push(escaped),
                            Some(other) => word.extend(['\\', other]),
                            None => return Err(wrong("a double quote is not closed")),
                        },
                        Some(inside) => word.push(inside),
                        None => return Err(wrong("a double quote is not closed")),
                    }
                }
            }
            '\\' => match characters.next() {
                Some(escaped) => word.get_or_insert_default().push(escaped),
                None => return Err(wrong("it ends with a backslash")),
            },
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn blanks_part_words_and_quotes_keep_them_together() {
        let words = split_words(r#"taskset  -c 3 'a b' "c \" d" e\ f '' "#).unwrap();
        assert_eq!(words, ["taskset", "-c", "3", "a b", "c \" d", "e f", ""]);
        assert_eq!(split_words("  ").unwrap(), Vec::<String>::new());
        for broken in ["'a", "\"a", "a\\", "\"a\\"] {
            assert!(split_words(broken).is_err(), "{broken}");
        }
    }

    proptest! {
        #[test]
        fn what_was_joined_is_split_again(words in proptest::collection::vec(any::<String>(), 0..6)) {
            prop_assert_eq!(split_words(&join_words(&words)).unwrap(), words);
        }
    }
}
