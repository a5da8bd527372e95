//! The tensors of a network, initialised from seeded streams and kept in one flat vector.

use lathe_spaces::Stream;
use rand::RngExt as _;
use tch::{Device, Kind, Tensor};

/// All tensors of a network. The learned ones lie in one flat vector, so that an optimiser takes a
/// handful of operations and not some for each of 1,399 tensors.
#[derive(Debug)]
pub(crate) struct Parameters {
    /// Name and tensor: leaves of autograd that share the storage of `flat`, in its order.
    pub learned: Vec<(String, Tensor)>,
    /// Running statistics of batch norms.
    pub statistics: Vec<(String, Tensor)>,
    /// All learned values in one vector; not part of autograd.
    pub flat: Tensor,
    /// All running statistics in one vector, in their order.
    pub flat_statistics: Tensor,
}

impl Parameters {
    /// Moves everything to a device. The tensors that the plain supernet's layers hold stay where they are:
    /// only implementations that start from the flat vectors can go on.
    pub fn move_to(&mut self, device: Device) {
        self.flat = self.flat.to_device(device);
        self.flat_statistics = self.flat_statistics.to_device(device);
        for (whole, tensors) in
            [(&self.flat, &mut self.learned), (&self.flat_statistics, &mut self.statistics)]
        {
            let mut start = 0;
            for (_, tensor) in tensors {
                let length = tensor.numel() as i64;
                *tensor = whole.narrow(0, start, length).view(tensor.size().as_slice());
                start += length;
            }
        }
    }
}

/// Collects tensors while layers are built.
#[derive(Debug)]
pub(crate) struct ParameterBuilder {
    seed: u64,
    kind: Kind,
    learned: Vec<(String, Tensor)>,
    statistics: Vec<(String, Tensor)>,
}

impl ParameterBuilder {
    /// Initial values come from streams of `seed`, one per tensor: no global generator is involved.
    pub fn new(seed: u64, kind: Kind) -> Self {
        Self { seed, kind, learned: Vec::new(), statistics: Vec::new() }
    }

    /// A learned tensor, uniform in ±1/√(fan in): what `PyTorch` gives to convolutions and linear layers.
    pub fn uniform(&mut self, name: String, dims: &[usize], fan_in: usize) -> Tensor {
        let bound = 1.0 / (fan_in as f64).sqrt();
        let mut random = Stream::new(self.seed, "supernet weights", self.learned.len() as u64);
        let count = dims.iter().product();
        let values: Vec<f64> = (0..count).map(|_| random.random_range(-bound..=bound)).collect();
        let dims: Vec<i64> = dims.iter().map(|&extent| extent as i64).collect();
        self.push(name, &Tensor::from_slice(&values).view(dims.as_slice()))
    }

    /// A learned vector with one value everywhere.
    pub fn constant(&mut self, name: String, length: usize, value: f64) -> Tensor {
        self.push(name, &Tensor::full([length as i64], value, (Kind::Double, Device::Cpu)))
    }

    /// A running statistic with one value everywhere.
    pub fn statistic(&mut self, name: String, length: usize, value: f64) -> Tensor {
        let tensor = Tensor::full([length as i64], value, (self.kind, Device::Cpu));
        self.statistics.push((name, tensor.shallow_clone()));
        tensor
    }

    /// Moves the learned tensors into one vector; the tensors handed out before follow.
    pub fn finish(self) -> Parameters {
        let flats: Vec<Tensor> =
            self.learned.iter().map(|(_, tensor)| tensor.detach().flatten(0, -1)).collect();
        let flat = Tensor::cat(&flats, 0);
        let mut start = 0;
        let mut learned = self.learned;
        for (_, tensor) in &mut learned {
            let length = tensor.numel() as i64;
            let view = flat.narrow(0, start, length).view(tensor.size().as_slice());
            tensor.set_data(&view);
            start += length;
        }
        let flats: Vec<Tensor> = self.statistics.iter().map(|(_, tensor)| tensor.shallow_clone()).collect();
        let flat_statistics = Tensor::cat(&flats, 0);
        let mut start = 0;
        let mut statistics = self.statistics;
        for (_, tensor) in &mut statistics {
            let length = tensor.numel() as i64;
            tensor.set_data(&flat_statistics.narrow(0, start, length));
            start += length;
        }
        Parameters { learned, statistics, flat, flat_statistics }
    }

    fn push(&mut self, name: String, values: &Tensor) -> Tensor {
        let tensor = values.to_kind(self.kind).set_requires_grad(true);
        self.learned.push((name, tensor.shallow_clone()));
        tensor
    }
}
