//! Gradient-boosted regression trees: what many measurements give without any prior.

use serde::{Deserialize, Serialize};

use super::{PredictorError, additive::check, encoding::Codes};

/// Trees in the sum.
const ROUNDS: usize = 400;
/// Splits between root and leaf.
const DEPTH: usize = 4;
/// Share of each tree that is added.
const RATE: f64 = 0.08;
/// Fewest samples of a leaf.
const LEAF: usize = 5;

/// Trees fitted one after the other to what those before left over, by least squares of the logarithm of
/// the latency (Friedman 2001, algorithm 2). A split asks whether a position has a certain operation.
/// Nothing is drawn at random. It needs hundreds of samples; the constants are the usual ones, not
/// tuned on any table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BoostedTrees {
    /// Mean logarithm of the samples' latencies.
    base: f64,
    trees: Vec<Vec<Node>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
enum Node {
    Leaf(f64),
    Split {
        position: usize,
        code: u8,
        /// Index of the node for architectures with this code; that for all others.
        with: usize,
        without: usize,
    },
}

/// What a tree is grown on.
struct Samples<'s> {
    codes: &'s [&'s Codes],
    /// What is left over, natural logarithm.
    residuals: Vec<f64>,
    operations: usize,
}

impl BoostedTrees {
    /// Fits latencies in milliseconds of a space with so many `operations`.
    ///
    /// # Errors
    /// [`PredictorError`] with fewer than 5 samples, or one that is no latency.
    pub fn fit(operations: usize, codes: &[&Codes], latencies: &[f64]) -> Result<Self, PredictorError> {
        check("", codes.len(), latencies)?;
        let base = latencies.iter().map(|latency| latency.ln()).sum::<f64>() / latencies.len() as f64;
        let residuals = latencies.iter().map(|latency| latency.ln() - base).collect();
        let mut samples = Samples { codes, residuals, operations };
        let mut trees = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            let mut nodes = Vec::new();
            samples.grow(&mut nodes, (0..codes.len()).collect(), DEPTH);
            for (residual, codes) in samples.residuals.iter_mut().zip(codes) {
                *residual -= evaluate(&nodes, codes);
            }
            trees.push(nodes);
        }
        Ok(Self { base, trees })
    }

    /// Predicted latency in milliseconds.
    pub fn predict(&self, codes: &Codes) -> f64 {
        (self.base + self.trees.iter().map(|nodes| evaluate(nodes, codes)).sum::<f64>()).exp()
    }
}

impl Samples<'_> {
    /// Adds the tree of some samples to `nodes` and returns the index of its root.
    fn grow(&self, nodes: &mut Vec<Node>, rows: Vec<usize>, depth: usize) -> usize {
        let root = nodes.len();
        let total: f64 = rows.iter().map(|&row| self.residuals[row]).sum();
        nodes.push(Node::Leaf(RATE * total / rows.len() as f64));
        let split = if depth == 0 { None } else { self.best_split(&rows, total) };
        let Some((position, code)) = split else { return root };
        let (inside, outside): (Vec<usize>, Vec<usize>) =
            rows.into_iter().partition(|&row| self.codes[row].0[position] == code);
        let with = self.grow(nodes, inside, depth - 1);
        let without = self.grow(nodes, outside, depth - 1);
        nodes[root] = Node::Split { position, code, with, without };
        root
    }

    /// The split that takes away most of the squared error; the first of those that take away the same.
    fn best_split(&self, rows: &[usize], total: f64) -> Option<(usize, u8)> {
        let width = self.codes[0].0.len();
        let mut sums = vec![(0.0, 0_usize); width * self.operations];
        for &row in rows {
            for (position, &code) in self.codes[row].0.iter().enumerate() {
                let (sum, count) = &mut sums[position * self.operations + usize::from(code)];
                *sum += self.residuals[row];
                *count += 1;
            }
        }
        let whole = total * total / rows.len() as f64;
        let mut best = None;
        let mut most = 1e-12;
        for (column, &(sum, count)) in sums.iter().enumerate() {
            let others = rows.len() - count;
            if count >= LEAF && others >= LEAF {
                let rest: f64 = total - sum;
                let gain = sum * sum / count as f64 + rest * rest / others as f64 - whole;
                if gain > most {
                    most = gain;
                    best = Some((column / self.operations, (column % self.operations) as u8));
                }
            }
        }
        best
    }
}

fn evaluate(nodes: &[Node], codes: &Codes) -> f64 {
    let mut at = 0;
    loop {
        match nodes[at] {
            Node::Leaf(value) => return value,
            Node::Split { position, code, with, without } => {
                at = if codes.0[position] == code { with } else { without };
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// All architectures of four positions with three operations.
    fn all() -> Vec<Codes> {
        (0..81_u8).map(|i| Codes([i % 3, i / 3 % 3, i / 9 % 3, i / 27].into())).collect()
    }

    #[test]
    fn an_interaction_is_found_and_a_missing_operation_is_no_split() {
        let codes = all();
        // Operation 2 costs only where the position before it has operation 1.
        let latency = |codes: &Codes| if codes.0[0] == 1 && codes.0[1] == 2 { 9.0 } else { 3.0 };
        let latencies: Vec<f64> = codes.iter().map(latency).collect();
        let trees = BoostedTrees::fit(3, &codes.iter().collect::<Vec<_>>(), &latencies).unwrap();
        for codes in &codes {
            assert!((trees.predict(codes) / latency(codes) - 1.0).abs() < 0.01, "{codes:?}");
        }
        let few: Vec<&Codes> = codes.iter().filter(|codes| codes.0[3] == 0).collect();
        let trees = BoostedTrees::fit(3, &few, &vec![2.0; few.len()]).unwrap();
        assert!((trees.predict(&codes[80]) - 2.0).abs() < 1e-9);
    }

    #[test]
    fn bad_samples_are_refused() {
        let codes = all();
        let error = BoostedTrees::fit(3, &[&codes[0]; 5], &[1.0, 1.0, -1.0, 1.0, 1.0]).unwrap_err();
        assert!(error.to_string().contains("sample 2 is -1 ms"), "{error}");
    }
}
