//! Proxies against the accuracies of a table.

use std::{
    sync::Arc,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Instant,
};

use lathe_latency_db::{LatencyTable, LatencyTableError};
use lathe_spaces::{NetworkOptions, SpaceError, Stream};
use rand::seq::SliceRandom as _;
use rayon::prelude::*;
use serde::Serialize;
use tch::Tensor;
use thiserror::Error;

use super::{Agreement, Proxy, ProxyError, agreement};
use crate::{Augmentation, Dataset, Loader, Split};

/// What is compared.
#[derive(Clone, Debug)]
pub struct ProxyOptions {
    /// Columns of accuracies.
    pub columns: Vec<String>,
    /// Networks, drawn among those that have an accuracy in every column.
    pub networks: usize,
    /// Proxies.
    pub proxies: Vec<Proxy>,
    /// Seed of draw, initial values and intervals.
    pub seed: u64,
}

/// One proxy beside one column.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProxyRow {
    /// Proxy.
    pub proxy: Proxy,
    /// Column of accuracies.
    pub column: String,
    /// Networks.
    pub networks: usize,
    /// How far the proxy orders them as their accuracies do.
    pub agreement: Agreement,
    /// Networks that nothing gets through: their score is minus infinity.
    pub without_signal: usize,
    /// Mean seconds by the clock of one network on one thread, while as many networks are scored as there are threads.
    pub seconds: f64,
}

/// Why there is no comparison.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ProxyBenchmarkError {
    /// A column.
    #[error(transparent)]
    Table(#[from] LatencyTableError),
    /// A network can't be built.
    #[error(transparent)]
    Space(#[from] SpaceError),
    /// A network can't be scored.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// Too few rows.
    #[error(
        "draw {wanted} networks: {available} rows have an accuracy in every column (at least 3 networks are needed)"
    )]
    Networks {
        /// Networks asked for.
        wanted: usize,
        /// Rows with all accuracies.
        available: usize,
    },
    /// Someone asked to stop.
    #[error("finish: interrupted")]
    Interrupted,
}

/// Scores random networks of a table by every proxy and compares the orders with those of its accuracies.
///
/// The training `images` are the one batch that [`Proxy::Naswot`] needs. `progress` is told (networks done, networks in all), from any
/// thread. Scores don't depend on the number of threads: each network is scored by one.
///
/// # Errors
/// [`ProxyBenchmarkError`]; `stop` ends it with [`ProxyBenchmarkError::Interrupted`].
pub fn proxy_benchmark(
    table: &LatencyTable,
    options: &ProxyOptions,
    images: Option<Dataset>,
    stop: &AtomicBool,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Vec<ProxyRow>, ProxyBenchmarkError> {
    let columns = options.columns.iter().map(|name| table.latencies(name)).collect::<Result<Vec<_>, _>>()?;
    let mut rows: Vec<usize> = (0..table.genotypes().len())
        .filter(|&row| columns.iter().all(|column| column[row].is_some()))
        .collect();
    if options.networks < 3 || options.networks > rows.len() {
        return Err(ProxyBenchmarkError::Networks { wanted: options.networks, available: rows.len() });
    }
    rows.shuffle(&mut Stream::new(options.seed, "proxy networks", 0));
    rows.truncate(options.networks);
    let images = images.and_then(Shared::whole);
    let done = AtomicUsize::new(0);
    let scored = rows
        .par_iter()
        .map(|&row| {
            // libtorch's threads are set per calling thread.
            tch::set_num_threads(1);
            let graph = table.space().network(&table.genotypes()[row], NetworkOptions::default())?;
            let images = images.as_ref().map(Shared::tensor);
            let scores = options.proxies.iter().map(|proxy| {
                if stop.load(Ordering::Relaxed) {
                    return Err(ProxyBenchmarkError::Interrupted);
                }
                let start = Instant::now();
                let score = proxy.score(&graph, images.as_ref(), options.seed)?;
                Ok((score, start.elapsed().as_secs_f64()))
            });
            let scores = scores.collect::<Result<Vec<_>, _>>()?;
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, rows.len());
            Ok(scores)
        })
        .collect::<Result<Vec<Vec<(f64, f64)>>, ProxyBenchmarkError>>()?;
    let mut printed = Vec::new();
    for (index, &proxy) in options.proxies.iter().enumerate() {
        let of = || scored.iter().map(|scores| scores[index]);
        for (name, column) in options.columns.iter().zip(&columns) {
            let accuracies = rows.iter().filter_map(|&row| column[row]);
            let pairs: Vec<(f64, f64)> = of().map(|(score, _)| score).zip(accuracies).collect();
            printed.push(ProxyRow {
                proxy,
                column: name.clone(),
                networks: rows.len(),
                agreement: agreement(&pairs, options.seed),
                without_signal: of().filter(|(score, _)| *score == f64::NEG_INFINITY).count(),
                seconds: of().map(|(_, seconds)| seconds).sum::<f64>() / rows.len() as f64,
            });
        }
    }
    Ok(printed)
}

/// The values of a tensor, from which every thread makes its own: tensors are not shared between threads.
pub(super) struct Shared {
    values: Vec<f32>,
    dims: Vec<i64>,
}

impl Shared {
    /// All training images as one normalised batch; nothing if there are none.
    fn whole(dataset: Dataset) -> Option<Self> {
        let count = dataset.train.len();
        Self::first(Arc::new(dataset), count)
    }

    /// The first training images, so many at most, as one normalised batch; nothing if there are none.
    pub(super) fn first(dataset: Arc<Dataset>, count: usize) -> Option<Self> {
        let count = count.min(dataset.train.len());
        let order = (0..count).collect();
        let images = Loader::new(dataset, Split::Train, order, count, Augmentation::none(), None, false)
            .next()?
            .images;
        let mut values = vec![0.0; images.numel()];
        let length = values.len();
        images.flatten(0, -1).copy_data(&mut values, length);
        Some(Self { values, dims: images.size() })
    }

    pub(super) fn tensor(&self) -> Tensor {
        Tensor::from_slice(&self.values).view(self.dims.as_slice())
    }
}
