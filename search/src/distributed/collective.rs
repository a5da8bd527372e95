//! Sums over processes, and the single process that needs none.

use sha2::{Digest, Sha256};
use tch::{Kind, Tensor, no_grad};

use super::CollectiveError;

/// Sums over the processes of a data-parallel training.
///
/// All processes call the same functions in the same order with equally many values; each returns when
/// all have called it, with values equal to the last bit everywhere. libtorch can't recover from
/// unequal counts, and ends the process: [`agree`] on what decides them first.
pub trait Collective: Send + Sync + std::fmt::Debug {
    /// Number of this process, from 0.
    fn rank(&self) -> usize;

    /// Number of processes, at least 1.
    fn size(&self) -> usize;

    /// Replaces every value by its sum over all processes.
    fn sum(&self, values: &mut [f64]) -> Result<(), CollectiveError>;

    /// [`sum`](Self::sum) in single precision.
    fn sum_f32(&self, values: &mut [f32]) -> Result<(), CollectiveError>;

    /// Everybody gets rank 0's values.
    fn broadcast(&self, values: &mut [f64]) -> Result<(), CollectiveError>;
}

/// Replaces every value of a tensor by its sum over all processes; same shape and kind everywhere.
///
/// Double precision is summed in double precision, everything else in single. Tensors of any device:
/// those of a GPU travel through the host's memory.
pub fn sum_tensor(collective: &dyn Collective, tensor: &mut Tensor) -> Result<(), CollectiveError> {
    if collective.size() == 1 {
        return Ok(());
    }
    let flat = |kind| tensor.detach().to_device(tch::Device::Cpu).to_kind(kind).flatten(0, -1).contiguous();
    let summed = if tensor.kind() == Kind::Double {
        let mut values = vec![0f64; tensor.numel()];
        flat(Kind::Double).copy_data(&mut values, tensor.numel());
        collective.sum(&mut values)?;
        Tensor::from_slice(&values)
    } else {
        let mut values = vec![0f32; tensor.numel()];
        flat(Kind::Float).copy_data(&mut values, tensor.numel());
        collective.sum_f32(&mut values)?;
        Tensor::from_slice(&values)
    };
    no_grad(|| tensor.copy_(&summed.view(tensor.size().as_slice())));
    Ok(())
}

/// Everybody gets rank 0's text; what the others give is ignored.
pub fn tell(collective: &dyn Collective, text: &str) -> Result<String, CollectiveError> {
    let mut length = [text.len() as f64];
    collective.broadcast(&mut length)?;
    let mut bytes: Vec<f64> = text.bytes().map(f64::from).collect();
    // Rank 0's length: the others make room for it.
    bytes.resize(length[0] as usize, 0.0);
    collective.broadcast(&mut bytes)?;
    let bytes = bytes.into_iter().map(|byte| byte as u8).collect();
    Ok(String::from_utf8(bytes).unwrap_or_default())
}

/// Makes sure that all processes hold the same `text`: what a training depends on, in words.
///
/// `what` names it in the error, which all processes get.
pub fn agree(collective: &dyn Collective, what: &'static str, text: &str) -> Result<(), CollectiveError> {
    let own: Vec<f64> = Sha256::digest(text).iter().map(|&byte| f64::from(byte)).collect();
    let mut first = own.clone();
    collective.broadcast(&mut first)?;
    let (rank, size) = (collective.rank(), collective.size());
    let mut differs = vec![0.0; size];
    // Bytes: whole numbers, equal or not.
    let same = own.iter().zip(&first).all(|(own, first)| (own - first).abs() < 0.5);
    differs[rank] = if same { 0.0 } else { 1.0 };
    collective.sum(&mut differs)?;
    let ranks: Vec<usize> = (0..size).filter(|&rank| differs[rank] > 0.5).collect();
    if ranks.is_empty() { Ok(()) } else { Err(CollectiveError::Disagree { what, size, ranks }) }
}

/// The only process of a training: every sum is its own values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Alone;

impl Collective for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn sum(&self, _: &mut [f64]) -> Result<(), CollectiveError> {
        Ok(())
    }

    fn sum_f32(&self, _: &mut [f32]) -> Result<(), CollectiveError> {
        Ok(())
    }

    fn broadcast(&self, _: &mut [f64]) -> Result<(), CollectiveError> {
        Ok(())
    }
}
