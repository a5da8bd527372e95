//! Choices of blocks as files write them: `ibn k{3,5} e{4,8}`, `shvit p<3/14>`.

use std::{fmt, str::FromStr};

use crate::{Block, BlockError};

/// A share of a stage's width: `1`, `1/4`, `3/14`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    numerator: usize,
    denominator: usize,
}

impl Share {
    /// The share of a width, rounded down.
    pub(super) const fn of(self, width: usize) -> usize {
        width * self.numerator / self.denominator
    }
}

impl FromStr for Share {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (numerator, denominator) = text.split_once('/').unwrap_or((text, "1"));
        let number =
            |digits: &str| digits.trim().parse::<usize>().ok().filter(|number| (1..10_000).contains(number));
        let (Some(numerator), Some(denominator)) = (number(numerator), number(denominator)) else {
            return Err(());
        };
        Ok(Self { numerator, denominator })
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.numerator, self.denominator)
    }
}

/// All texts that a text with alternatives in braces stands for, the last braces running fastest.
/// `{divisors}` stands for these numbers. Nothing if a brace has no partner.
pub(super) fn expand(text: &str, divisors: &[usize]) -> Option<Vec<String>> {
    let Some((before, rest)) = text.split_once('{') else {
        return (!text.contains('}')).then(|| vec![text.to_owned()]);
    };
    let (inside, after) = rest.split_once('}')?;
    if before.contains('}') || inside.contains('{') {
        return None;
    }
    let alternatives: Vec<String> = if inside.trim() == "divisors" {
        divisors.iter().map(ToString::to_string).collect()
    } else {
        inside.split(',').map(|word| word.trim().to_owned()).collect()
    };
    let tails = expand(after, divisors)?;
    let all =
        alternatives.iter().flat_map(|word| tails.iter().map(move |tail| format!("{before}{word}{tail}")));
    Some(all.collect())
}

/// The one way in which a genotype writes a choice: the shortest text of the block, or the words as they are
/// where a number depends on the width.
pub(super) fn canonical(text: &str) -> Result<String, BlockError> {
    if text.contains('<') {
        return Ok(text.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    Ok(text.parse::<Block>()?.to_string())
}

/// The block that a choice stands for in a stage of this width.
pub(super) fn block_at(text: &str, width: usize) -> Result<Block, BlockError> {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, tail)) = rest.split_once('<') {
        let inside =
            tail.split_once('>').and_then(|(share, after)| Some((share.parse::<Share>().ok()?, after)));
        // What is no share stays, and is refused as a word that the block doesn't know.
        let Some((share, after)) = inside else { break };
        plain.push_str(before);
        plain.push_str(&share.of(width).to_string());
        rest = after;
    }
    plain.push_str(rest);
    plain.parse()
}

/// The numbers above 1 that divide all sides of a set of maps; 1 if there is none.
pub(super) fn divisors(sides: impl IntoIterator<Item = usize>) -> Vec<usize> {
    let common = sides.into_iter().fold(0, greatest_common_divisor);
    let all: Vec<usize> = (2..=common).filter(|number| common.is_multiple_of(*number)).collect();
    if all.is_empty() { vec![1] } else { all }
}

const fn greatest_common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn braces_are_written_out() {
        let all = expand("ibn k{3,5} e{4,8} {,se}", &[]).unwrap();
        assert_eq!(all.len(), 8);
        assert_eq!((all[0].trim(), all[7].as_str()), ("ibn k3 e4", "ibn k5 e8 se"));
        assert_eq!(expand("tinyvit w{divisors}", &[2, 7]).unwrap(), ["tinyvit w2", "tinyvit w7"]);
        for wrong in ["ibn k{3", "ibn k3}", "ibn {k{3,5}}"] {
            assert_eq!(expand(wrong, &[]), None, "{wrong}");
        }
    }

    #[test]
    fn shares_are_of_the_width_and_rounded_down() {
        assert_eq!(block_at("shvit p<3/14>", 352).unwrap().to_string(), "shvit p75");
        let error = block_at("shvit p<3/0>", 352).unwrap_err().to_string();
        assert!(error.contains("`p<3/0>` is no parameter of shvit"), "{error}");
        assert!(block_at("shvit p<3", 352).is_err());
    }

    #[test]
    fn divisors_divide_every_side() {
        assert_eq!(divisors([28, 42]), [2, 7, 14]);
        assert_eq!(divisors([1, 8]), [1]);
    }
}
