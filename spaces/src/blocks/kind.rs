//! What a kind of block is.

use super::{BlockError, Site};
use crate::NodeId;

/// A kind of block: a name, parameters and a function that builds it.
#[derive(Debug)]
pub struct BlockKind {
    /// First word of the text form.
    pub name: &'static str,
    /// What it computes, and who published it, in one line.
    pub about: &'static str,
    /// Parameters, in the order of the text form.
    pub parameters: &'static [Parameter],
    /// Builds the block behind a node of the graph; the result is its output.
    pub(crate) build: fn(&mut Site<'_>, NodeId) -> Result<NodeId, BlockError>,
    /// Small uses on which engines are compared.
    pub examples: &'static [Example],
}

/// A parameter of a kind of block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Letters in front of a number (`k` of `k5`), or the word of a flag.
    pub key: &'static str,
    /// What it may be.
    pub values: Values,
    /// What it means.
    pub about: &'static str,
    /// Whether it is the side of windows inside which the block attends: searched spaces only use sides that divide
    /// the map.
    pub window: bool,
}

/// Values of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// `k5`: a number behind the key.
    Number {
        /// Value where it isn't written.
        default: usize,
        /// Least value.
        least: usize,
    },
    /// One of these words, without the key; the first where none is written.
    Word(&'static [&'static str]),
    /// The key as a word: there or not.
    Flag,
}

/// A block at a place small enough for tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Example {
    /// Text form.
    pub text: &'static str,
    /// Channels, rows and columns of the input.
    pub input: [usize; 3],
    /// Output channels.
    pub channels: usize,
    /// Stride.
    pub stride: usize,
}

impl Parameter {
    pub(super) const fn number(key: &'static str, default: usize, about: &'static str) -> Self {
        Self { key, values: Values::Number { default, least: 1 }, about, window: false }
    }

    /// A number that may be 0.
    pub(super) const fn count(key: &'static str, default: usize, about: &'static str) -> Self {
        Self { key, values: Values::Number { default, least: 0 }, about, window: false }
    }

    /// The side of windows that attend to themselves only; 0 for the whole map.
    pub(super) const fn window(key: &'static str, default: usize, about: &'static str) -> Self {
        Self { window: true, ..Self::count(key, default, about) }
    }

    pub(super) const fn flag(key: &'static str, about: &'static str) -> Self {
        Self { key, values: Values::Flag, about, window: false }
    }

    pub(super) const fn word(key: &'static str, words: &'static [&'static str], about: &'static str) -> Self {
        Self { key, values: Values::Word(words), about, window: false }
    }
}

impl Example {
    pub(super) const fn new(text: &'static str, input: [usize; 3], channels: usize, stride: usize) -> Self {
        Self { text, input, channels, stride }
    }
}
