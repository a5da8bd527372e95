//! The kernels of `search/kernels/kernels.cpp`, behind functions that check every length.
#![expect(unsafe_code, reason = "the border to the kernels; all lengths are checked before a call")]

mod combination;
mod dense;
mod extent;
mod pools;
mod separable;
mod table;

pub(crate) use combination::{Combination, add_where_positive, dots};
pub(crate) use dense::Dense;
pub(crate) use extent::{Extent, Padding, Window, pad};
pub(crate) use pools::{halve, halve_back, pools, pools_back};
pub(crate) use separable::{Flow, Into, SeparableInput, separable, separable_back};
pub(crate) use table::{InstructionSet, Table, table_f32, table_f64};
