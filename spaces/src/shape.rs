//! Tensor shapes.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Shape of a four-dimensional activation, in the order NCHW.
///
/// A vector per image (the output of a classifier) has `h == w == 1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Shape {
    /// Images in a batch.
    pub n: usize,
    /// Channels.
    pub c: usize,
    /// Rows.
    pub h: usize,
    /// Columns.
    pub w: usize,
}

impl Shape {
    /// The shape `n × c × h × w`.
    pub const fn new(n: usize, c: usize, h: usize, w: usize) -> Self {
        Self { n, c, h, w }
    }

    /// Number of elements.
    pub const fn elements(self) -> usize {
        self.n * self.c * self.h * self.w
    }

    /// The four extents as an array, NCHW.
    pub const fn dims(self) -> [usize; 4] {
        [self.n, self.c, self.h, self.w]
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}x{}", self.n, self.c, self.h, self.w)
    }
}
