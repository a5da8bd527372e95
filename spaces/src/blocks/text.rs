//! Blocks as text: `ibn k5 e4 se`.

use std::{fmt, str::FromStr};

use thiserror::Error;

use super::{BLOCKS, BlockKind, Parameter, Site, Values, sesr};
use crate::{GraphBuilder, GraphError, NodeId, Shape};

/// A kind of block with values for its parameters.
#[derive(Clone, Copy)]
pub struct Block {
    kind: &'static BlockKind,
    /// Per parameter a number, the index of a word, or whether the flag is there.
    values: [usize; Self::MOST],
}

/// Why a block can't be read or built. The messages complete "failed to …".
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BlockError {
    /// No such kind.
    #[error("read block `{text}`: there is no `{name}`{}", hint(*.near))]
    Kind {
        /// The text.
        text: String,
        /// Its first word.
        name: String,
        /// The kind whose name is nearest.
        near: Option<&'static str>,
    },
    /// A word that isn't a parameter of the kind, or one too many.
    #[error("read block `{text}`: `{word}` is no parameter of {kind}, which takes {expected}")]
    Word {
        /// The text.
        text: String,
        /// The word.
        word: String,
        /// Kind.
        kind: &'static str,
        /// What it takes.
        expected: String,
    },
    /// A parameter given twice.
    #[error("read block `{text}`: `{word}` says again what another word says")]
    Twice {
        /// The text.
        text: String,
        /// The second word.
        word: String,
    },
    /// A number out of range.
    #[error("read block `{text}`: `{word}` must be at least {least}")]
    Range {
        /// The text.
        text: String,
        /// The word.
        word: String,
        /// Least value.
        least: usize,
    },
    /// An operator of the block doesn't fit its input.
    #[error("build block `{block}`: {source}")]
    Graph {
        /// Text form.
        block: String,
        /// Cause.
        source: GraphError,
    },
    /// The block can't be used at this place.
    #[error("build block `{block}` on {input} to {channels} channels with stride {stride}: {why}")]
    Place {
        /// Text form.
        block: String,
        /// Input.
        input: Shape,
        /// Output channels.
        channels: usize,
        /// Stride.
        stride: usize,
        /// Reason.
        why: String,
    },
}

fn hint(near: Option<&'static str>) -> String {
    let names = || BLOCKS.iter().map(|kind| kind.name).collect::<Vec<_>>().join(", ");
    near.map_or_else(|| format!("; there are {}", names()), |near| format!("; did you mean `{near}`?"))
}

impl Block {
    /// Most parameters of a kind.
    pub(super) const MOST: usize = 12;

    /// A block with the values that stand for words that are left out.
    pub fn plain(kind: &'static BlockKind) -> Self {
        let mut values = [0; Self::MOST];
        for (value, parameter) in values.iter_mut().zip(kind.parameters) {
            *value = parameter.default();
        }
        Self { kind, values }
    }

    /// Its kind.
    pub fn kind(&self) -> &'static BlockKind {
        self.kind
    }

    /// Value of the parameter with this key: a number, the index of a word, 1 for a flag that is there; 0
    /// for keys that the kind doesn't have.
    pub(super) fn value(&self, key: &str) -> usize {
        let at = self.kind.parameters.iter().position(|parameter| parameter.key == key);
        at.map_or(0, |at| self.values[at])
    }

    /// The block as it is trained: expanded, if its kind can be.
    pub(crate) fn as_trained(mut self) -> Self {
        let expanded = |parameter: &Parameter| parameter.key == sesr::EXPANDED;
        if let Some(at) = self.kind.parameters.iter().position(expanded) {
            self.values[at] = 1;
        }
        self
    }

    /// Side of the windows inside which the block attends, if it has any.
    pub(crate) fn window(&self) -> Option<usize> {
        let parameter = self.kind.parameters.iter().find(|parameter| parameter.window)?;
        Some(self.value(parameter.key)).filter(|&window| window > 0)
    }

    /// The word of the parameter with this key.
    pub(super) fn word(&self, key: &str) -> Option<&'static str> {
        let found = self.kind.parameters.iter().find(|parameter| parameter.key == key)?;
        let Values::Word(words) = found.values else { return None };
        words.get(self.value(key)).copied()
    }

    /// Adds the block behind `x` to a graph; its nodes are called `<prefix>.…`. The result is its output.
    ///
    /// # Errors
    /// [`BlockError::Graph`] and [`BlockError::Place`] if the block doesn't fit the place.
    pub fn build(
        &self,
        builder: &mut GraphBuilder,
        prefix: &str,
        x: NodeId,
        channels: usize,
        stride: usize,
    ) -> Result<NodeId, BlockError> {
        let mut site = Site { builder, prefix, block: self, channels, stride };
        (self.kind.build)(&mut site, x)
    }

    fn set(&mut self, text: &str, word: &str, given: &mut [bool]) -> Result<(), BlockError> {
        let found = self.kind.parameters.iter().enumerate().find_map(|(at, parameter)| {
            let value = match parameter.values {
                Values::Flag => (word == parameter.key).then_some(1),
                Values::Word(words) => words.iter().position(|known| *known == word),
                Values::Number { .. } => word.strip_prefix(parameter.key).and_then(|digits| {
                    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
                }),
            };
            value.map(|value| (at, parameter, value))
        });
        let Some((at, parameter, value)) = found else {
            return Err(BlockError::Word {
                text: text.to_owned(),
                word: word.to_owned(),
                kind: self.kind.name,
                expected: self.kind.expected(),
            });
        };
        if let Values::Number { least, .. } = parameter.values
            && value < least
        {
            return Err(BlockError::Range { text: text.to_owned(), word: word.to_owned(), least });
        }
        if std::mem::replace(&mut given[at], true) {
            return Err(BlockError::Twice { text: text.to_owned(), word: word.to_owned() });
        }
        self.values[at] = value;
        Ok(())
    }
}

impl Parameter {
    const fn default(&self) -> usize {
        match self.values {
            Values::Number { default, .. } => default,
            Values::Word(_) | Values::Flag => 0,
        }
    }
}

impl BlockKind {
    /// What its text form takes: `k3, e6, relu6|hard_swish, [se]`.
    pub fn expected(&self) -> String {
        let one = |parameter: &Parameter| match parameter.values {
            Values::Number { default, .. } => format!("{}{default}", parameter.key),
            Values::Word(words) => words.join("|"),
            Values::Flag => format!("[{}]", parameter.key),
        };
        if self.parameters.is_empty() {
            return "nothing".into();
        }
        self.parameters.iter().map(one).collect::<Vec<_>>().join(", ")
    }
}

impl FromStr for Block {
    type Err = BlockError;

    /// Reads a kind's name and parameters in any order; what is left out has its default.
    fn from_str(text: &str) -> Result<Self, BlockError> {
        let mut words = text.split_whitespace();
        let name = words.next().unwrap_or_default();
        let Some(kind) = BLOCKS.iter().find(|kind| kind.name == name) else {
            let near = BLOCKS
                .iter()
                .map(|kind| (strsim::damerau_levenshtein(kind.name, name), kind.name))
                .min()
                .filter(|(distance, _)| *distance <= 2)
                .map(|(_, name)| name);
            return Err(BlockError::Kind { text: text.to_owned(), name: name.to_owned(), near });
        };
        let mut block = Self::plain(kind);
        let mut given = [false; Self::MOST];
        for word in words {
            block.set(text, word, &mut given)?;
        }
        Ok(block)
    }
}

impl fmt::Display for Block {
    /// The shortest text that is read as this block.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.name)?;
        for (parameter, &value) in self.kind.parameters.iter().zip(&self.values) {
            if value == parameter.default() {
                continue;
            }
            match parameter.values {
                Values::Number { .. } => write!(f, " {}{value}", parameter.key)?,
                Values::Word(words) => write!(f, " {}", words.get(value).copied().unwrap_or_default())?,
                Values::Flag => write!(f, " {}", parameter.key)?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Block({self})")
    }
}

impl PartialEq for Block {
    fn eq(&self, other: &Self) -> bool {
        self.kind.name == other.kind.name && self.values == other.values
    }
}

impl Eq for Block {}
