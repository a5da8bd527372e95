//! That sums over processes are all that batch norms need: a small net, by hand, over several processes.

use lathe_spaces::{Shape, Stream, seeded_input};
use rand::RngExt as _;
use tch::Reduction;

use super::{Alone, Collective, Kind, Peers, Share, Tensor, gradients, sum_tensor};

const BATCH: usize = 10;
const CHANNELS: i64 = 4;
const EPSILON: f64 = 1e-5;

/// A net of two convolutions with batch norms and a classifier: its learned tensors.
fn learned() -> Vec<Tensor> {
    let mut random = Stream::new(8, "test net", 0);
    let mut tensor = |dims: &[i64]| {
        let values: Vec<f64> = (0..dims.iter().product()).map(|_| random.random_range(-0.5..0.5)).collect();
        Tensor::from_slice(&values).view(dims).set_requires_grad(true)
    };
    let c = CHANNELS;
    vec![
        tensor(&[c, 3, 3, 3]),
        tensor(&[c]),
        tensor(&[c]),
        tensor(&[c, c, 3, 3]),
        tensor(&[c]),
        tensor(&[c]),
        tensor(&[5, c]),
    ]
}

fn images_and_labels(share: Share) -> (Tensor, Tensor) {
    let images = Tensor::from_slice(&seeded_input(Shape::new(BATCH, 3, 6, 6), 9)).to_kind(Kind::Double);
    let labels: Vec<i64> = (0..BATCH as i64).map(|index| (index * 3 + 1) % 5).collect();
    let part = share.of(BATCH);
    let narrow = |tensor: &Tensor| tensor.narrow(0, part.start as i64, part.len() as i64);
    (narrow(&images.view([BATCH as i64, 3, 6, 6])), narrow(&Tensor::from_slice(&labels)))
}

fn convolution(x: &Tensor, weight: &Tensor) -> Tensor {
    x.conv2d(weight, None::<Tensor>, [1, 1], [1, 1], [1, 1], 1)
}

/// Loss of the images of a share, as a part of the mean over the batch.
fn loss(features: &Tensor, classifier: &Tensor, labels: &Tensor) -> Tensor {
    let pooled = features.relu().mean_dim([2, 3].as_slice(), false, Kind::Double);
    let logits = pooled.matmul(&classifier.tr());
    logits.cross_entropy_loss(labels, None::<Tensor>, Reduction::Sum, -100, 0.0) / BATCH as f64
}

fn flat(gradients: &[Tensor]) -> Vec<f64> {
    let flat: Vec<Tensor> = gradients.iter().map(|gradient| gradient.flatten(0, -1)).collect();
    Vec::try_from(Tensor::cat(&flat, 0)).unwrap()
}

fn per_channel(x: &Tensor) -> Tensor {
    x.sum_dim_intlist([0, 2, 3].as_slice(), false, Kind::Double)
}

fn broadcast(x: &Tensor) -> Tensor {
    x.view([1, -1, 1, 1])
}

/// A batch norm whose statistics are those of all processes' images.
struct Norm {
    /// Normalised, before scale and shift; as outside of autograd as all of this.
    normal: Tensor,
    deviation: Tensor,
    pixels: f64,
}

impl Norm {
    /// One sum of 2·C + 1 values: Σx, Σx² and the number of pixels, which shares need not have alike.
    fn new(x: &Tensor, collective: &dyn Collective) -> Self {
        let x = x.detach();
        let pixels = Tensor::from_slice(&[(x.numel() as i64 / CHANNELS) as f64]);
        let mut sums = Tensor::cat(&[per_channel(&x), per_channel(&(&x * &x)), pixels], 0);
        sum_tensor(collective, &mut sums).unwrap();
        let pixels = sums.double_value(&[2 * CHANNELS]);
        let mean = sums.narrow(0, 0, CHANNELS) / pixels;
        let variance = sums.narrow(0, CHANNELS, CHANNELS) / pixels - &mean * &mean;
        let deviation = (variance + EPSILON).sqrt();
        Self { normal: (x - broadcast(&mean)) / broadcast(&deviation), deviation, pixels }
    }

    /// Scaled and shifted: a leaf.
    fn forward(&self, scale: &Tensor, shift: &Tensor) -> Tensor {
        let out = &self.normal * broadcast(&scale.detach()) + broadcast(&shift.detach());
        out.set_requires_grad(true)
    }

    /// From the gradient of the output those of input, scale and shift; the latter two of this share.
    /// One sum of 2·C values: Σg and Σg·x̂.
    fn backward(&self, gradient: &Tensor, scale: &Tensor, collective: &dyn Collective) -> [Tensor; 3] {
        let [shift, of_scale] = [per_channel(gradient), per_channel(&(gradient * &self.normal))];
        let mut sums = Tensor::cat(&[&shift, &of_scale], 0);
        sum_tensor(collective, &mut sums).unwrap();
        let means = sums / self.pixels;
        let [mean, along] = [0, 1].map(|half| broadcast(&means.narrow(0, half * CHANNELS, CHANNELS)));
        let factor = broadcast(&(scale.detach() / &self.deviation));
        [(gradient - mean - &self.normal * along) * factor, of_scale, shift]
    }
}

/// The gradient of all learned values, summed over the processes that share the batch.
pub fn gradient(collective: &dyn Collective) -> Vec<f64> {
    let learned = learned();
    let [w1, scale1, shift1, w2, scale2, shift2, classifier] = &learned[..] else { unreachable!() };
    let (images, labels) = images_and_labels(Share::from(collective));
    let x1 = convolution(&images, w1);
    let norm1 = Norm::new(&x1, collective);
    let y1 = norm1.forward(scale1, shift1);
    let x2 = convolution(&y1.relu(), w2);
    let norm2 = Norm::new(&x2, collective);
    let y2 = norm2.forward(scale2, shift2);
    let last = gradients(&loss(&y2, classifier, &labels), &[classifier, &y2]);
    let [gx2, gscale2, gshift2] = norm2.backward(&last[1], scale2, collective);
    let middle = gradients(&(x2 * gx2).sum(Kind::Double), &[w2, &y1]);
    let [gx1, gscale1, gshift1] = norm1.backward(&middle[1], scale1, collective);
    let first = gradients(&(x1 * gx1).sum(Kind::Double), &[w1]);
    let all = [&first[0], &gscale1, &gshift1, &middle[0], &gscale2, &gshift2, &last[0]];
    let mut values = flat(&all.map(Tensor::shallow_clone));
    collective.sum(&mut values).unwrap();
    values
}

/// The same by libtorch's batch norm and autograd, in one process.
fn expected() -> Vec<f64> {
    let learned = learned();
    let (images, labels) = images_and_labels(Share::WHOLE);
    let norm = |x: &Tensor, index: usize| {
        let [scale, shift] = [&learned[index], &learned[index + 1]];
        x.batch_norm(Some(scale), Some(shift), None, None, true, 0.1, EPSILON, false)
    };
    let y1 = norm(&convolution(&images, &learned[0]), 1);
    let y2 = norm(&convolution(&y1.relu(), &learned[3]), 4);
    flat(&gradients(&loss(&y2, &learned[6], &labels), &learned.iter().collect::<Vec<_>>()))
}

#[test]
fn with_common_statistics_the_gradient_of_a_shared_batch_is_that_of_the_whole() {
    tch::set_num_threads(1);
    let expected = expected();
    let greatest = expected.iter().fold(0.0f64, |greatest, value| greatest.max(value.abs()));
    let check = |got: &[f64], name: &str| {
        assert_eq!(got.len(), expected.len());
        let differences = got.iter().zip(&expected).map(|(a, b)| (a - b).abs());
        let difference = differences.fold(0.0, f64::max) / greatest;
        assert!(difference < 1e-12, "{name}: {difference}");
    };
    check(&gradient(&Alone), "alone");
    for size in [2, 3] {
        for got in Peers::start("batch norm", size).all::<Vec<f64>>() {
            check(&got, &format!("{size} processes"));
        }
    }
}
