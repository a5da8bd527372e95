//! Blocks against their published definitions, written out as loops over numbers of double precision: nothing here
//! goes through an operator of the registry.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;

use lathe_spaces::{Block, Graph, GraphBuilder, Shape, Tensor, Weights, ZooNetwork, evaluate, seeded_input};

/// One image: channels, rows and columns.
#[derive(Clone)]
struct Map {
    c: usize,
    h: usize,
    w: usize,
    values: Vec<f64>,
}

impl Map {
    fn zeros(c: usize, h: usize, w: usize) -> Self {
        Self { c, h, w, values: vec![0.0; c * h * w] }
    }

    /// A number per channel and position.
    fn of(c: usize, h: usize, w: usize, value: impl Fn(usize, usize, usize) -> f64) -> Self {
        let mut map = Self::zeros(c, h, w);
        for channel in 0..c {
            for y in 0..h {
                for x in 0..w {
                    map.values[(channel * h + y) * w + x] = value(channel, y, x);
                }
            }
        }
        map
    }

    fn at(&self, c: usize, y: usize, x: usize) -> f64 {
        self.values[(c * self.h + y) * self.w + x]
    }

    fn each(&self, value: impl Fn(f64) -> f64) -> Self {
        Self { values: self.values.iter().map(|&number| value(number)).collect(), ..*self }
    }

    fn plus(&self, other: &Self) -> Self {
        Self::of(self.c, self.h, self.w, |c, y, x| self.at(c, y, x) + other.at(c, y, x))
    }

    fn channels(&self, start: usize, count: usize) -> Self {
        Self::of(count, self.h, self.w, |c, y, x| self.at(start + c, y, x))
    }
}

fn relu(map: &Map) -> Map {
    map.each(|number| number.max(0.0))
}

fn sigmoid(number: f64) -> f64 {
    1.0 / (1.0 + (-number).exp())
}

/// Tensors by name.
struct Learned<'a>(&'a Weights);

impl Learned<'_> {
    fn tensor(&self, name: &str) -> &Tensor {
        self.0.0.get(name).unwrap_or_else(|| panic!("no `{name}` among {:?}", self.0.0.keys()))
    }

    fn numbers(&self, name: &str) -> Vec<f64> {
        self.tensor(name).values.iter().map(|&value| f64::from(value)).collect()
    }

    /// Zeros around keep the size at stride 1; a weight of one channel means one channel at a time.
    fn conv(&self, name: &str, map: &Map, stride: usize) -> Map {
        let weight = self.tensor(&format!("{name}.weight"));
        let [out, inner, side, _] = weight.dims[..] else { panic!("{name}") };
        let bias = self.0.0.get(&format!("{name}.bias"));
        let middle = side / 2;
        Map::of(out, map.h.div_ceil(stride), map.w.div_ceil(stride), |o, y, x| {
            let mut sum = bias.map_or(0.0, |bias| f64::from(bias.values[o]));
            for i in 0..inner {
                let source = if inner == map.c { i } else { o };
                for a in 0..side {
                    for b in 0..side {
                        let (row, column) = (y * stride + a, x * stride + b);
                        if row < middle
                            || column < middle
                            || row - middle >= map.h
                            || column - middle >= map.w
                        {
                            continue;
                        }
                        let tap = weight.values[((o * inner + i) * side + a) * side + b];
                        sum += f64::from(tap) * map.at(source, row - middle, column - middle);
                    }
                }
            }
            sum
        })
    }

    fn batch_norm(&self, name: &str, map: &Map) -> Map {
        let [mean, variance, weight, bias] = ["running_mean", "running_var", "weight", "bias"]
            .map(|suffix| self.numbers(&format!("{name}.{suffix}")));
        Map::of(map.c, map.h, map.w, |c, y, x| {
            (map.at(c, y, x) - mean[c]) / (variance[c] + 1e-5).sqrt() * weight[c] + bias[c]
        })
    }

    /// Over all channels and positions.
    fn group_norm(&self, name: &str, map: &Map) -> Map {
        let (weight, bias) = (self.numbers(&format!("{name}.weight")), self.numbers(&format!("{name}.bias")));
        let count = map.values.len() as f64;
        let mean = map.values.iter().sum::<f64>() / count;
        let variance = map.values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
        Map::of(map.c, map.h, map.w, |c, y, x| {
            (map.at(c, y, x) - mean) / (variance + 1e-5).sqrt() * weight[c] + bias[c]
        })
    }

    fn conv_norm(&self, name: &str, map: &Map, stride: usize) -> Map {
        self.batch_norm(&format!("{name}.norm"), &self.conv(name, map, stride))
    }

    /// Slopes per channel.
    fn prelu(&self, name: &str, map: &Map) -> Map {
        let slopes = self.numbers(&format!("{name}.weight"));
        Map::of(map.c, map.h, map.w, |c, y, x| {
            let value = map.at(c, y, x);
            if value < 0.0 { slopes[c] * value } else { value }
        })
    }
}

/// `softmax(qᵀ k · scale)` over the keys, times the values.
fn attention(q: &Map, k: &Map, v: &Map, scale: f64) -> Map {
    let tokens = q.h * q.w;
    let mut out = Map::zeros(v.c, v.h, v.w);
    for query in 0..tokens {
        let mut scores = vec![0.0_f64; tokens];
        for (key, score) in scores.iter_mut().enumerate() {
            for c in 0..q.c {
                *score += q.values[c * tokens + query] * k.values[c * tokens + key] * scale;
            }
        }
        let total: f64 = scores.iter().map(|score| score.exp()).sum();
        for c in 0..v.c {
            for (key, score) in scores.iter().enumerate() {
                out.values[c * tokens + query] += v.values[c * tokens + key] * score.exp() / total;
            }
        }
    }
    out
}

/// A block by itself on an input of this size, its weights, and the input.
fn alone(text: &str, [channels, rows, columns]: [usize; 3]) -> (Graph, Weights, Map) {
    let block: Block = text.parse().unwrap();
    let mut builder = GraphBuilder::new();
    let x = builder.input("x", Shape::new(1, channels, rows, columns)).unwrap();
    let y = block.build(&mut builder, "b", x, channels, 1).unwrap();
    let graph = builder.finish(&[y]).unwrap();
    let weights = Weights::seeded(&graph, 8);
    let input = input(&graph);
    (graph, weights, input)
}

fn input(graph: &Graph) -> Map {
    let shape = graph.input_shape().unwrap();
    let values = seeded_input(shape, 9).into_iter().map(f64::from).collect();
    Map { c: shape.c, h: shape.h, w: shape.w, values }
}

fn assert_computes(graph: &Graph, weights: &Weights, input: &Map, expected: &Map) {
    let values: Vec<f32> = input.values.iter().map(|&value| value as f32).collect();
    let got = evaluate(graph, weights, &values).unwrap();
    assert_eq!(got.len(), expected.values.len());
    let largest = expected.values.iter().fold(0.0_f64, |most, value| most.max(value.abs()));
    for (at, (got, want)) in got.iter().zip(&expected.values).enumerate() {
        assert!((f64::from(*got) - want).abs() < 1e-5 * largest, "{at}: got {got}, expected {want}");
    }
}

/// `SHViT` (Yun and Ro 2024), `SHSA`: the first channels attend with one head, all are rectified and mixed.
#[test]
fn single_head_attention_is_as_published() {
    let (part, key) = (6, 16);
    let (graph, weights, x) = alone("shvit p6 attention", [15, 4, 5]);
    let learned = Learned(&weights);
    let normed = learned.group_norm("b.attention.norm", &x.channels(0, part));
    let qkv = learned.conv_norm("b.attention.qkv", &normed, 1);
    assert_eq!(qkv.c, 16 + 16 + part);
    let (q, k, v) = (qkv.channels(0, key), qkv.channels(key, key), qkv.channels(2 * key, part));
    let head = attention(&q, &k, &v, 0.25);
    let joined = Map::of(15, 4, 5, |c, y, z| if c < part { head.at(c, y, z) } else { x.at(c, y, z) });
    let mixed = learned.conv_norm("b.attention.project", &relu(&joined), 1);
    assert_computes(&graph, &weights, &x, &x.plus(&mixed));
}

/// `CAS-ViT` (Zhang et al. 2024): gates per position, then per channel, on queries and keys; no softmax.
#[test]
fn additive_token_mixer_is_as_published() {
    let (graph, weights, x) = alone("cas_vit mixer", [6, 5, 4]);
    let learned = Learned(&weights);
    let qkv = learned.conv("b.mixer.qkv", &learned.batch_norm("b.mixer.norm", &x), 1);
    let phi = |name: &str, part: &Map| {
        let spatial = relu(&learned.conv_norm(&format!("{name}.spatial"), part, 1));
        let gate = learned.conv(&format!("{name}.position"), &spatial, 1).each(sigmoid);
        let part = Map::of(6, 5, 4, |c, y, z| part.at(c, y, z) * gate.at(0, y, z));
        let mean = Map::of(6, 1, 1, |c, _, _| {
            let positions = (0..5).flat_map(|y| (0..4).map(move |z| (y, z)));
            positions.map(|(y, z)| part.at(c, y, z)).sum::<f64>() / 20.0
        });
        let gate = learned.conv(&format!("{name}.channel"), &mean, 1).each(sigmoid);
        Map::of(6, 5, 4, |c, y, z| part.at(c, y, z) * gate.at(c, 0, 0))
    };
    let queries = phi("b.mixer.queries", &qkv.channels(0, 6));
    let keys = phi("b.mixer.keys", &qkv.channels(6, 6));
    let context = learned.conv("b.mixer.spread", &queries.plus(&keys), 1);
    let values = qkv.channels(12, 6);
    let product = Map::of(6, 5, 4, |c, y, z| context.at(c, y, z) * values.at(c, y, z));
    let mixed = learned.conv("b.mixer.project", &product, 1);
    assert_computes(&graph, &weights, &x, &x.plus(&mixed));
}

/// `LowFormer` (Nottebaum et al. 2025), `ConvAttention` with stride 2 on a map of odd size, then the fused
/// bottleneck.
#[test]
fn attention_at_a_lower_resolution_is_as_published() {
    let (channels, height, width) = (120, 5, 6);
    let (graph, weights, x) = alone("lowformer k5 s2 e2 nomlp", [channels, height, width]);
    let learned = Learned(&weights);
    // More than 80 channels: half of them, in heads of 30 or a little more.
    let (heads, dim) = ((channels / 2) / 30, channels / ((channels / 2) / 30) / 2);
    let normed = learned.group_norm("b.attention.norm", &x);
    let reduced = learned.conv_norm("b.attention.reduce", &normed, 2);
    assert_eq!((reduced.h, reduced.w), (3, 3));
    let qkv = learned.conv("b.attention.qkv", &reduced, 1);
    assert_eq!(qkv.c, 3 * heads * dim);
    let mut mixed = Map::zeros(heads * dim, 3, 3);
    for head in 0..heads {
        // A head's queries, keys and values lie side by side.
        let of = |part: usize| qkv.channels((3 * head + part) * dim, dim);
        let one = attention(&of(0), &of(1), &of(2), 1.0 / (dim as f64).sqrt());
        mixed.values[head * dim * 9..(head + 1) * dim * 9].copy_from_slice(&one.values);
    }
    let (taps, bias) = (learned.numbers("b.attention.up.weight"), learned.numbers("b.attention.up.bias"));
    let mut up = Map::of(channels, height, width, |c, _, _| bias[c]);
    for source in 0..heads * dim {
        for (y, z) in (0..3).flat_map(|y| (0..3).map(move |z| (y, z))) {
            for c in 0..channels {
                for (a, b) in (0..4).flat_map(|a| (0..4).map(move |b| (a, b))) {
                    // One row and column are cut on every side, then what is beyond the map.
                    let (row, column) = (2 * y + a, 2 * z + b);
                    if row >= 1 && column >= 1 && row - 1 < height && column - 1 < width {
                        let tap = taps[((source * channels + c) * 4 + a) * 4 + b];
                        up.values[(c * height + row - 1) * width + column - 1] +=
                            tap * mixed.at(source, y, z);
                    }
                }
            }
        }
    }
    let y = x.plus(&up);
    let hard_swish = |value: f64| value * (value + 3.0).clamp(0.0, 6.0) / 6.0;
    let hidden = learned.conv_norm("b.local.expand", &y, 1).each(hard_swish);
    let local = learned.conv_norm("b.local.project", &hidden, 1);
    assert_computes(&graph, &weights, &x, &y.plus(&local));
}

/// SESR (Bhardwaj et al. 2022): expanded blocks are linear, their inputs are added in front of the activation, the
/// first block's output after the last of the middle, the image to every channel of the result. Collapsed they are
/// one convolution each.
#[test]
fn collapsible_blocks_and_their_sums_are_as_published() {
    let size = Some([6, 7]);
    let of = |name: &str| ZooNetwork::named(name).unwrap().unwrap().graph(size).unwrap();
    let (expanded, collapsed) = (of("sesr-m5-expanded"), of("sesr-m5"));
    let weights = Weights::seeded(&expanded, 8);
    let learned = Learned(&weights);
    let image = input(&expanded);
    let linear = |prefix: &str, x: &Map| {
        let wide = learned.conv(&format!("{prefix}.expand"), x, 1);
        learned.conv(&format!("{prefix}.project"), &wide, 1)
    };
    let first = linear("0.0.collapsible", &image);
    let mut y = first.clone();
    for block in 0..5 {
        let prefix = format!("1.{block}.collapsible");
        y = learned.prelu(&format!("{prefix}.act"), &linear(&prefix, &y).plus(&y));
    }
    let last = linear("2.0.collapsible", &y.plus(&first));
    let sum = Map::of(4, 6, 7, |c, y, z| last.at(c, y, z) + image.at(0, y, z));
    let large = Map::of(1, 12, 14, |_, y, z| sum.at(y % 2 * 2 + z % 2, y / 2, z / 2));
    assert_computes(&expanded, &weights, &image, &large);

    let mut tensors = BTreeMap::new();
    for (prefix, residual) in [("0.0", false), ("2.0", false)]
        .into_iter()
        .chain(["1.0", "1.1", "1.2", "1.3", "1.4"].map(|prefix| (prefix, true)))
    {
        let name = |of: &str| format!("{prefix}.collapsible.{of}");
        let (wide, narrow) =
            (learned.tensor(&name("expand.weight")), learned.tensor(&name("project.weight")));
        let [middle, inner, side, _] = wide.dims[..] else { panic!("{prefix}") };
        let out = narrow.dims[0];
        let mut values = vec![0.0_f64; out * inner * side * side];
        for o in 0..out {
            for i in 0..inner {
                for tap in 0..side * side {
                    let at = (o * inner + i) * side * side + tap;
                    for p in 0..middle {
                        values[at] += f64::from(narrow.values[o * middle + p])
                            * f64::from(wide.values[(p * inner + i) * side * side + tap]);
                    }
                    if residual && o == i && tap == side * side / 2 {
                        values[at] += 1.0;
                    }
                }
            }
        }
        let values = values.into_iter().map(|value| value as f32).collect();
        tensors.insert(name("conv.weight"), Tensor { dims: vec![out, inner, side, side], values });
        if residual {
            tensors.insert(name("conv.act.weight"), learned.tensor(&name("act.weight")).clone());
        }
    }
    assert_computes(&collapsed, &Weights(tensors), &image, &large);
}
