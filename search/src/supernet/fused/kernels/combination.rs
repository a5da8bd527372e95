//! Weighted sums of tensors and their products.

use crate::{
    profile::kernel,
    supernet::fused::lanes::{Element, LANES, Lanes},
};

/// A weighted sum of tensors.
#[derive(Debug)]
pub(crate) struct Combination<'a, T> {
    sources: Vec<*const Lanes<T>>,
    factors: Vec<T>,
    constant: f64,
    length: usize,
    borrowed: std::marker::PhantomData<&'a [Lanes<T>]>,
}

impl<'a, T: Element> Combination<'a, T> {
    /// An empty sum of tensors of this length.
    pub fn new(length: usize) -> Self {
        Self {
            sources: Vec::new(),
            factors: Vec::new(),
            constant: 0.0,
            length,
            borrowed: std::marker::PhantomData,
        }
    }

    /// Adds `factor`·`source`.
    pub fn add(&mut self, factor: f64, source: &'a [Lanes<T>]) {
        assert!(source.len() == self.length, "a tensor's length");
        self.sources.push(source.as_ptr());
        self.factors.push(T::of(factor));
    }

    /// Adds a number everywhere.
    pub fn shift(&mut self, constant: f64) {
        self.constant += constant;
    }

    /// Writes the sum.
    pub fn write(&self, out: &mut [Lanes<T>]) {
        self.run(out, 0);
    }

    /// Adds the sum.
    pub fn add_to(&self, out: &mut [Lanes<T>]) {
        self.run(out, 1);
    }

    fn run(&self, out: &mut [Lanes<T>], accumulate: i32) {
        assert!(out.len() == self.length, "a tensor's length");
        // SAFETY: every source lives for 'a and is as long as the output.
        kernel("weighted sum", || unsafe {
            (T::kernels().combine)(
                out.as_mut_ptr(),
                self.sources.len() as i32,
                self.sources.as_ptr(),
                self.factors.as_ptr(),
                T::of(self.constant),
                self.length as i64,
                accumulate,
            );
        });
    }
}

/// Adds `g` to `d` where `x` is positive.
pub(crate) fn add_where_positive<T: Element>(d: &mut [Lanes<T>], g: &[Lanes<T>], x: &[Lanes<T>]) {
    assert!(d.len() == g.len() && d.len() == x.len(), "a tensor's length");
    // SAFETY: all three are equally long.
    kernel("add where positive", || unsafe {
        (T::kernels().add_where_positive)(d.as_mut_ptr(), g.as_ptr(), x.as_ptr(), d.len() as i64);
    });
}

/// Sum over the first `images` of `g`·source, for every source; `None` counts as ones.
pub(crate) fn dots<T: Element>(g: &[Lanes<T>], sources: &[Option<&[Lanes<T>]>], images: usize) -> Vec<f64> {
    let pointers: Vec<*const Lanes<T>> = (sources.iter())
        .map(|source| {
            source.map_or(std::ptr::null(), |source| {
                assert!(source.len() == g.len(), "a tensor's length");
                source.as_ptr()
            })
        })
        .collect();
    assert!(images <= LANES, "images of a block");
    let mut sums = vec![0.0; sources.len()];
    // SAFETY: all sources are as long as `g`.
    kernel("dot products", || unsafe {
        (T::kernels().dots)(
            g.as_ptr(),
            pointers.len() as i32,
            pointers.as_ptr(),
            g.len() as i64,
            images as i32,
            sums.as_mut_ptr(),
        );
    });
    sums
}
