//! Untrained networks in the order of a proxy: a cheap choice before anything is trained.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use lathe_spaces::{Genotype, NetworkOptions, Space};
use rayon::prelude::*;

use super::{Proxy, ProxyBenchmarkError, benchmark::Shared};
use crate::Dataset;

/// Images of [`Proxy::Naswot`]'s batch.
const BATCH: usize = 64;

/// Positions of some networks of a space, the best score of an untrained network first; of equals the earlier.
///
/// [`Proxy::Naswot`] looks at the first training images of `dataset`. Scores don't depend on the number of threads.
///
/// # Errors
/// As [`Proxy::score`]; `stop` ends it with [`ProxyBenchmarkError::Interrupted`].
pub fn rank(
    space: &Space,
    genotypes: &[Genotype],
    proxy: Proxy,
    dataset: &Arc<Dataset>,
    seed: u64,
    stop: &AtomicBool,
) -> Result<Vec<usize>, ProxyBenchmarkError> {
    let images = (proxy == Proxy::Naswot).then(|| Shared::first(Arc::clone(dataset), BATCH)).flatten();
    let score = |genotype: &Genotype| {
        if stop.load(Ordering::Relaxed) {
            return Err(ProxyBenchmarkError::Interrupted);
        }
        // libtorch's threads are set per calling thread.
        tch::set_num_threads(1);
        let graph = space.network(genotype, NetworkOptions::default())?;
        let images = images.as_ref().map(Shared::tensor);
        Ok(proxy.score(&graph, images.as_ref(), seed)?)
    };
    let scores = genotypes.par_iter().map(score).collect::<Result<Vec<f64>, _>>()?;
    let mut order: Vec<usize> = (0..genotypes.len()).collect();
    order.sort_by(|&left, &right| scores[right].total_cmp(&scores[left]));
    Ok(order)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use lathe_spaces::Stream;

    use super::*;
    use crate::{DataSettings, DataSource, fixtures};

    #[test]
    fn the_order_is_that_of_the_scores() {
        let space = fixtures::darts_of(4, 3, 8);
        let settings = DataSettings {
            source: DataSource::Generated,
            resolution: 8,
            train_images: Some(20),
            test_images: Some(10),
        };
        let dataset = Arc::new(Dataset::load(&settings, 3, &|_, _| {}).unwrap());
        let genotypes: Vec<Genotype> =
            (0..12).map(|index| space.sample(&mut Stream::new(2, "test rank", index))).collect();
        let go = AtomicBool::new(false);
        let macs = |index: usize| space.network(&genotypes[index], NetworkOptions::default()).unwrap().macs();
        let order = rank(&space, &genotypes, Proxy::Macs, &dataset, 1, &go).unwrap();
        assert!(order.windows(2).all(|pair| macs(pair[0]) >= macs(pair[1])), "{order:?}");
        for proxy in [Proxy::Synflow, Proxy::Naswot] {
            let mut order = rank(&space, &genotypes, proxy, &dataset, 1, &go).unwrap();
            assert_eq!(order, rank(&space, &genotypes, proxy, &dataset, 1, &go).unwrap());
            order.sort_unstable();
            assert_eq!(order, (0..12).collect::<Vec<_>>());
        }
        let stop = AtomicBool::new(true);
        let ended = rank(&space, &genotypes, Proxy::Macs, &dataset, 1, &stop);
        assert!(matches!(ended, Err(ProxyBenchmarkError::Interrupted)));
    }
}
