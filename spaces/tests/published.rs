//! Counts and orders that others have published.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use lathe_spaces::{DartsSkeleton, Genotype, Graph, Nas201Skeleton, NetworkOptions, Space, Stem};

fn cifar() -> Space {
    Space::darts(DartsSkeleton { stem: Stem::Cifar, width: 36, layers: 20, resolution: 32, classes: 10 })
}

fn imagenet() -> Space {
    let stem = Stem::ImageNet;
    Space::darts(DartsSkeleton { stem, width: 48, layers: 14, resolution: 224, classes: 1000 })
}

fn nas201() -> Space {
    Space::nas201(Nas201Skeleton { width: 16, cells: 5, resolution: 32, classes: 10 })
}

fn published(space: &Space, name: &str) -> Genotype {
    space.published().into_iter().find(|(known, _)| *known == name).unwrap().1
}

fn network(space: &Space, genotype: &Genotype) -> Graph {
    space.network(genotype, NetworkOptions::default()).unwrap()
}

/// In millions, rounded to so many digits.
fn millions(count: u64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (count as f64 / 1e6 * scale).round() / scale
}

#[test]
fn pc_darts_cifar_has_its_published_size() {
    let space = cifar();
    let genotype = published(&space, "PC_DARTS_cifar");
    let graph = network(&space, &genotype);
    assert!((millions(graph.parameter_count(), 3) - 3.635).abs() < 1e-9, "{}", graph.parameter_count());
    assert!((millions(graph.macs(), 1) - 556.7).abs() < 1e-9, "{}", graph.macs());
    let fixed: u64 = space.fixed().unwrap().iter().map(|part| part.graph.macs()).sum();
    assert!((millions(fixed, 1) - 227.3).abs() < 1e-9, "{fixed}");
    let trained =
        space.network(&genotype, NetworkOptions { auxiliary: true, ..NetworkOptions::default() }).unwrap();
    assert_eq!(trained.outputs().len(), 2);
    let head = trained.parameter_count() - graph.parameter_count();
    assert!((millions(head, 3) - 0.476).abs() < 1e-9, "{head}");
    assert_eq!(trained.without_auxiliary(), graph);
}

#[test]
fn pc_darts_imagenet_has_its_published_size() {
    let space = imagenet();
    let genotype = published(&space, "PC_DARTS_image");
    let graph = network(&space, &genotype);
    assert!((millions(graph.parameter_count(), 3) - 5.342).abs() < 1e-9, "{}", graph.parameter_count());
    assert!((millions(graph.macs(), 1) - 581.6).abs() < 1e-9, "{}", graph.macs());
    let trained =
        space.network(&genotype, NetworkOptions { auxiliary: true, ..NetworkOptions::default() }).unwrap();
    // 768 input channels of the head, two convolutions, one batch norm, one linear layer.
    let head = 768 * 128 + 2 * 128 + 128 * 768 * 4 + 768 * 1000 + 1000;
    assert_eq!(trained.parameter_count() - graph.parameter_count(), head);
}

#[test]
fn nas_bench_201_has_its_published_sizes() {
    let space = nas201();
    // The benchmark's largest cell: 220.11968 MMAC and 1.531546 M parameters on CIFAR-10.
    let all =
        "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|";
    let graph = network(&space, &space.parse(all).unwrap());
    assert_eq!(graph.parameter_count(), 1_531_546);
    assert_eq!(graph.macs(), 220_119_680);
    // Its smallest: 0.073306 M parameters.
    let none = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|";
    assert_eq!(network(&space, &space.parse(none).unwrap()).parameter_count(), 73_306);
}

#[test]
fn nas_bench_201_is_listed_in_its_official_order() {
    let space = nas201();
    let all: Vec<String> = space.enumerate().unwrap().map(|genotype| space.format(&genotype)).collect();
    assert_eq!(all.len(), 15_625);
    assert_eq!(
        all[0],
        "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|"
    );
    assert_eq!(
        all[1],
        "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|"
    );
    assert_eq!(
        all[2],
        "|avg_pool_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|avg_pool_3x3~0|avg_pool_3x3~1|avg_pool_3x3~2|"
    );
    assert_eq!(
        all[15_624],
        "|nor_conv_1x1~0|+|none~0|nor_conv_1x1~1|+|none~0|nor_conv_1x1~1|nor_conv_1x1~2|"
    );
    let distinct: std::collections::BTreeSet<_> = all.iter().collect();
    assert_eq!(distinct.len(), all.len());
}

#[test]
fn sizes_of_spaces() {
    // Per cell 1·3·6·10 sets of edges and 7 operations on each of 8 kept edges.
    let cell = 180.0 * 7_f64.powi(8);
    assert!((cifar().size() / (cell * cell) - 1.0).abs() < 1e-12);
    assert!((nas201().size() - 15_625.0).abs() < 1e-9);
    assert!((Space::fbnet(224, 1000).size() / 9_f64.powi(22) - 1.0).abs() < 1e-12);
    let error = cifar().enumerate().err().expect("too many").to_string();
    assert!(error.contains("sample instead"), "{error}");
}

#[test]
fn the_published_text_is_read_as_it_stands() {
    let space = cifar();
    let text = "PC_DARTS_cifar = Genotype(normal=[('sep_conv_3x3', 1), ('skip_connect', 0), \
                ('sep_conv_3x3', 0), ('dil_conv_3x3', 1), ('sep_conv_5x5', 0), ('sep_conv_3x3', 1), \
                ('avg_pool_3x3', 0), ('dil_conv_3x3', 1)], normal_concat=[2, 3, 4, 5], \
                reduce=[(\"sep_conv_5x5\", 1), ('max_pool_3x3', 0), ('sep_conv_5x5', 1), \
                ('sep_conv_5x5', 2), ('sep_conv_3x3', 0), ('sep_conv_3x3', 3), ('sep_conv_3x3', 1), \
                ('sep_conv_3x3', 2)], reduce_concat=range(2, 6))";
    assert_eq!(space.parse(text).unwrap(), published(&space, "PC_DARTS_cifar"));
    assert_eq!(space.published().len(), 2);
    assert!(nas201().published().is_empty());
}

#[test]
fn fbnet_reads_names_and_indices() {
    let space = Space::fbnet(224, 1000);
    let indices = "7 8 1 8 4 8 8 8 7 4 1 4 7 3 2 7 3 2 4 2 4 5";
    let names = "k5_e6,skip,k3_e1_g2,skip,k5_e1,skip,skip,skip,k5_e6,k5_e1,k3_e1_g2,k5_e1,k5_e6,k3_e6,\
                 k3_e3,k5_e6,k3_e6,k3_e3,k5_e1,k3_e3,k5_e1,k5_e1_g2";
    let genotype = space.parse(indices).unwrap();
    assert_eq!(space.format(&genotype), names);
    assert_eq!(space.parse(names).unwrap(), genotype);
}

/// SESR (Bhardwaj et al. 2022, github.com/ARM-software/sesr): only the m blocks in the middle have an activation. A
/// rectifier behind the last one would let the network make pixels brighter only.
#[test]
fn networks_of_sesr_have_one_prelu_per_inner_block_and_no_other_activation() {
    let space = Space::named("sesr").unwrap().unwrap();
    for (name, blocks) in [("sesr-m3", 3), ("sesr-m5", 5), ("sesr-m7", 7), ("sesr-m11", 11), ("sesr-xl", 11)]
    {
        let (_, genotype) = space.published().into_iter().find(|(known, _)| *known == name).unwrap();
        for graph in [space.network(&genotype, NetworkOptions::default()).unwrap(), zoo(name)] {
            let names: Vec<&str> = graph.nodes().iter().map(|node| node.op.name()).collect();
            assert_eq!(names.iter().filter(|name| **name == "prelu").count(), blocks, "{name}");
            let others = ["input", "conv2d", "prelu", "add", "depth_to_space"];
            assert!(names.iter().all(|name| others.contains(name)), "{name}: {names:?}");
        }
    }
}

fn zoo(name: &str) -> lathe_spaces::Graph {
    let (_, text) = lathe_spaces::ZOO.iter().find(|(known, _)| *known == name).unwrap();
    lathe_spaces::ZooNetwork::parse(text).unwrap().graph(None).unwrap()
}
