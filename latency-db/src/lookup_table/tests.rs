//! Look-up tables: keys, files, graphs and records.

use std::{collections::BTreeMap, fs, path::PathBuf};

use lathe_spaces::{Micros, Space, WorkloadId};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::{Measurement, Provenance, sample_rows};

const OFA: &str = "\
AvgPool2D-input:7x7x1152-output:1x1x1152:
  count: 495
  mean: 0.0152
  std: 0.0009
Conv-input:224x224x3-output:112x112x24:
  count: 500
  mean: 0.99
  std: 0.017
expanded_conv-input:112x112x24-output:112x112x24-expand:24-kernel:3-stride:1-idskip:1-se:0-hs:0:
  count: 500
  mean: 1.7728
  std: 0.0266
expanded_conv-input:112x112x24-output:56x56x32-expand:4-kernel:3-stride:2-idskip:0-se:0-hs:0:
  count: 5
  mean: 3.0
  std: 0.1
expanded_conv-input:14x14x96-output:14x14x96-expand:288-kernel:3-stride:1-idskip:1-se:1-hs:1: {count: 5, mean: 3, std: 0.5}
";

fn file(text: &str) -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("table.yaml");
    fs::write(&path, text).unwrap();
    (folder, path)
}

fn read(text: &str) -> Result<LookupTable, String> {
    let (_folder, path) = file(text);
    LookupTable::read(&path).map_err(|error| error.to_string())
}

fn fault(text: &str) -> String {
    read(text).unwrap_err()
}

#[test]
fn a_table_is_taken_over_as_far_as_graphs_can_say_it() {
    let table = read(OFA).unwrap();
    assert_eq!(table.dialect(), Some(Dialect::Ofa));
    let imported = table.import("note10", "224_lookup_table");
    let labels: Vec<&str> = imported.measurements.iter().map(|row| row.label.as_str()).collect();
    assert_eq!(labels.len(), 4);
    assert!(labels[0].starts_with("AvgPool2D-") && labels[2].contains("-expand:24-"), "{labels:?}");
    let row = &imported.measurements[2];
    assert_eq!(row.provenance, Provenance::Published);
    assert_eq!(row.samples_ns, [1_772_800]);
    assert_eq!(row.device.name, "note10");
    let published = row.published.as_ref().unwrap();
    assert_eq!((published.count, published.source.as_str()), (Some(500), "224_lookup_table"));
    assert!((published.standard_deviation.unwrap().millis() - 0.0266).abs() < 1e-12);
    // 24 channels through a depthwise 3×3 and a 1×1 at 112×112.
    assert_eq!(row.macs, 112 * 112 * (24 * 9 + 24 * 24));
    let reasons: Vec<&str> = imported.unusable.iter().map(|unusable| unusable.reason.as_str()).collect();
    assert_eq!(reasons.len(), 1);
    assert!(reasons[0].contains("4 is less than the 24 channels"), "{reasons:?}");
    // 288 channels are gated through 72; the two 1×1 of the gate have a bias each.
    let gated = &imported.workloads[3].graph;
    assert_eq!(gated.macs(), 14 * 14 * (96 * 288 + 288 * 9 + 288 * 96) + 2 * 288 * 72);
    let kinds: Vec<&str> = gated.nodes().iter().map(|node| node.op.name()).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == "mul").count(), 1);
    assert_eq!(kinds.last(), Some(&"add"));
}

#[test]
fn a_second_import_makes_records_of_the_same_names_and_other_devices_others() {
    let ids = |device: &str| -> Vec<String> {
        let imported = read(OFA).unwrap().import(device, "t");
        imported.measurements.into_iter().map(|row| row.id).collect()
    };
    assert_eq!(ids("a"), ids("a"));
    assert!(ids("a").iter().all(|id| !ids("b").contains(id)));
    assert_ne!(
        read(OFA).unwrap().import("a", "t").measurements[0].device.fingerprint(),
        read(OFA).unwrap().import("b", "t").measurements[0].device.fingerprint()
    );
}

#[test]
fn without_blocks_the_layers_of_two_projects_are_not_told_apart() {
    let table = read("Conv-input:224x224x3-output:112x112x16: {mean: 1.5}\n").unwrap();
    let imported = table.import("phone", "t");
    assert!(imported.measurements.is_empty());
    assert!(imported.unusable[0].reason.contains("no `expanded_conv`"));
    let block = "expanded_conv-input:112x112x16-output:56x56x24-expand:3-kernel:3-stride:2-idskip:0: {mean: 2, var: 0.25}\n";
    let both = read(&format!("Conv-input:224x224x3-output:112x112x16: {{mean: 1.5}}\n{block}")).unwrap();
    let imported = both.import("phone", "t");
    assert_eq!(imported.measurements.len(), 2);
    let deviation = imported.measurements[1].published.as_ref().unwrap().standard_deviation;
    assert_eq!(deviation, Some(Micros(500.0)));
}

#[test]
fn faults_name_the_line_and_the_key() {
    let key = "expanded_conv-input:112x112x16-output:56x56x24-expand:3-kernel:3-stride:2-idskip:0";
    let with = |figures: &str| format!("# a comment\n{key}:\n{figures}");
    for (text, expected) in [
        (with("  mean: -1\n"), "`mean`: expected milliseconds above 0"),
        (with("  mean: 0\n"), "`mean`: expected milliseconds above 0"),
        (with("  mean: .nan\n"), "`mean`: expected a number, got `.nan`"),
        (with("  mean: 1\n  std: -2\n"), "expected 0 or more, got -2"),
        (with("  mean: 1\n  std: 2\n  var: 2\n"), "both `std` and `var`"),
        (with("  mean: 1\n  mean: 2\n"), "`mean` stands there twice"),
        (with("  mean: 1\n  count: 1.5\n"), "`count`: expected a whole number"),
        (with("  median: 1\n"), "expected one of mean, std, var, count, got `median`"),
        (with("  mean: 1\n    std: 1\n"), "not indented alike"),
        (with("  std: 1\n"), "it has no `mean`"),
        (with(&format!("  mean: 1\n{key}:\n  mean: 2\n")), "stands there twice, first as number 1"),
        (with(&format!("  mean: 1\n{key}-se:0-hs:0:\n  mean: 2\n")), "`expand` means another thing"),
        (format!("{key}\n"), "expected `KEY:`"),
        (format!("{key}: 5\n"), "expected `{mean: …"),
        ("  mean: 1\n".to_owned(), "before the first key"),
        ("Pool-input:1x1x1-output:1x1x1: {mean: 1}\n".to_owned(), "expected an operator"),
        (
            "Conv-input:1x1-output:1x1x1: {mean: 1}\n".to_owned(),
            "`input`: expected HEIGHTxWIDTHxCHANNELS, got `1x1`",
        ),
        ("Conv-output:1x1x1-input:1x1x1: {mean: 1}\n".to_owned(), "expected `input:…`, got `output:1x1x1`"),
        ("Conv-input:1x1x03-output:1x1x1: {mean: 1}\n".to_owned(), "HEIGHTxWIDTHxCHANNELS, got `1x1x03`"),
        (
            format!("{}: {{mean: 1}}\n", key.replace("idskip:0", "idskip:2")),
            "`idskip`: expected 0 or 1, got `2`",
        ),
        (format!("{}: {{mean: 1}}\n", key.replace("kernel", "ks")), "expected `kernel:…`, got `ks:3`"),
        (format!("{key}-se:0: {{mean: 1}}\n"), "expected `hs:…`, got nothing"),
        (format!("{key}-se:0-hs:0-x:1: {{mean: 1}}\n"), "expected the end of the key, got `x:1`"),
    ] {
        let message = fault(&text);
        assert!(message.contains(expected), "{expected:?} is not in {message:?}");
        assert!(message.contains("table.yaml, line "), "{message}");
    }
    assert!(fault(&with("  mean: -1\n")).contains(&format!("line 2, key `{key}`")));
    assert!(fault("").contains("has no operators"));
    let missing = LookupTable::read(&PathBuf::from("no/such.yaml")).unwrap_err().to_string();
    assert!(missing.contains("read no/such.yaml"), "{missing}");
}

#[test]
fn a_table_is_never_written_over_a_file() {
    let (folder, path) = file(OFA);
    let table = read(OFA).unwrap();
    let error = table.write(&path).unwrap_err();
    assert!(matches!(error, LookupTableError::Exists { .. }), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), OFA);
    let copy = folder.path().join("copy.yaml");
    table.write(&copy).unwrap();
    assert_eq!(LookupTable::read(&copy).unwrap(), table);
}

/// Every operator of a small FBNet space, as if it had been measured.
fn fbnet() -> (Vec<Measurement>, BTreeMap<WorkloadId, lathe_spaces::Graph>) {
    let workloads = Space::fbnet(64, 10).workloads().unwrap();
    let rows = workloads.iter().enumerate().map(|(index, workload)| Measurement {
        workload: workload.id(),
        label: workload.label.clone(),
        level: workload.level,
        ..sample_rows::row(&index.to_string(), 1_000_000 + 1000 * index as u64)
    });
    (rows.collect(), workloads.iter().map(|workload| (workload.id(), workload.graph.clone())).collect())
}

#[test]
fn measured_operators_are_exported_under_the_names_that_mean_them() {
    let (rows, graphs) = fbnet();
    let (ofa, others) = LookupTable::of_measurements(&rows, &graphs, Dialect::Ofa).unwrap();
    assert_eq!(ofa.rows().len() + others, rows.len());
    assert_eq!(ofa.dialect(), Some(Dialect::Ofa));
    // Kernels 3 and 5, ratios 3 and 6, at every position with a shape of its own: in one stage the
    // first of several positions, and the others, differ; grouped blocks and those of ratio 1, which
    // have a 1×1 convolution that OFA's lack, have no name.
    let names: Vec<String> = ofa.rows().iter().map(|(key, _)| key.to_string()).collect();
    let expected =
        "expanded_conv-input:32x32x16-output:32x32x16-expand:48-kernel:3-stride:1-idskip:1-se:0-hs:0";
    assert!(names.iter().any(|name| name == expected), "{names:#?}");
    assert!(
        ofa.rows().iter().all(
            |(key, _)| !matches!(key, OperatorKey::Ofa { input, middle, .. } if input.channels == *middle)
        )
    );
    let (proxyless, _) = LookupTable::of_measurements(&rows, &graphs, Dialect::ProxylessNas).unwrap();
    let stem = proxyless.rows().iter().find(|(key, _)| matches!(key, OperatorKey::FirstConv { .. }));
    assert_eq!(stem.unwrap().0.to_string(), "Conv-input:64x64x3-output:32x32x16");
    // Besides the stem, `skip` where the width changes at stride 1: a 1×1 convolution, as `Conv_1` is.
    assert_eq!(proxyless.rows().len(), ofa.rows().len() + 3);
    let (_, figures) = ofa.rows()[0];
    assert_eq!(figures.count, Some(60));
    // Samples are a base and 0 to 4 ns in turn: a deviation of √2 ns.
    let Some(Spread::Deviation(deviation)) = figures.spread else { unreachable!() };
    assert!((deviation * 1e6 - 2.0_f64.sqrt()).abs() < 1e-3, "{deviation}");
}

#[test]
fn what_was_imported_is_exported_with_its_own_spread_and_count() {
    let table = read(OFA).unwrap();
    let imported = table.import("note10", "t");
    let (again, others) =
        LookupTable::of_measurements(&imported.measurements, &BTreeMap::new(), Dialect::Ofa).unwrap();
    assert_eq!(others, 0);
    let known = |key: &OperatorKey| table.rows().iter().find(|(own, _)| own == key).unwrap().1;
    assert_eq!(again.rows().len(), 4);
    for (key, figures) in again.rows() {
        assert_eq!(figures.count, known(key).count);
        assert!((figures.mean_ms - known(key).mean_ms).abs() < 1e-6);
    }
    let mut twice = imported.measurements.clone();
    twice.extend(table.import("note10", "another").measurements);
    let error = LookupTable::of_measurements(&twice, &BTreeMap::new(), Dialect::Ofa).unwrap_err();
    assert!(error.contains("2 records, one of them published in t"), "{error}");
}

#[test]
fn a_label_that_lies_is_not_believed() {
    let mut row = read(OFA).unwrap().import("note10", "t").measurements.remove(2);
    row.label = row.label.replace("kernel:3", "kernel:5");
    let (table, others) = LookupTable::of_measurements(&[row], &BTreeMap::new(), Dialect::Ofa).unwrap();
    assert_eq!((table.rows().len(), others), (0, 1));
}

fn any_maps() -> impl Strategy<Value = Maps> {
    (1..300_usize, 1..300_usize, 1..2000_usize).prop_map(|(height, width, channels)| Maps {
        height,
        width,
        channels,
    })
}

/// Any key of a dialect, whether its sizes fit or not.
fn any_key(dialect: Dialect) -> impl Strategy<Value = OperatorKey> {
    let sizes = (any_maps(), any_maps(), 1..2000_usize, 1..12_usize, 1..4_usize);
    (sizes, any::<[bool; 3]>(), 0..6).prop_map(move |(sizes, [skip, squeeze_excite, hard_swish], kind)| {
        let (input, output, expand, kernel, stride) = sizes;
        match (kind, dialect) {
            (0, _) => OperatorKey::FirstConv { input, output },
            (1, _) => OperatorKey::Conv1 { input, output },
            (2, _) => OperatorKey::Logits { input, classes: expand },
            (3, Dialect::Ofa) => OperatorKey::Conv2 { input, output },
            (4, Dialect::Ofa) => OperatorKey::AvgPool { input, output },
            (_, Dialect::Ofa) => {
                let middle = expand;
                OperatorKey::Ofa { input, output, middle, kernel, stride, skip, squeeze_excite, hard_swish }
            }
            (_, Dialect::ProxylessNas) => {
                OperatorKey::Proxyless { input, output, ratio: expand, kernel, stride, skip }
            }
        }
    })
}

/// Keys whose sizes fit, and which graphs can say.
fn sayable_key(dialect: Dialect) -> impl Strategy<Value = OperatorKey> {
    (any_maps(), 1..200_usize, 1..8_usize, 0..4_usize, 1..3_usize, any::<[bool; 3]>(), 0..7).prop_map(
        move |(input, channels, ratio, half, stride, [skip, squeeze_excite, hard_swish], kind)| {
            let halved = |size: usize| size.div_ceil(2);
            let (height, width) = (halved(input.height), halved(input.width));
            let one = Maps { height: 1, width: 1, ..input };
            match (kind, dialect) {
                (0, _) => OperatorKey::FirstConv { input, output: Maps { height, width, channels } },
                (1, _) => OperatorKey::Conv1 { input, output: Maps { channels, ..input } },
                (6, Dialect::Ofa) => OperatorKey::Conv2 { input, output: Maps { channels, ..input } },
                (2, Dialect::ProxylessNas) => OperatorKey::Logits { input, classes: channels },
                (2, Dialect::Ofa) => OperatorKey::Logits { input: one, classes: channels },
                (3, Dialect::Ofa) => OperatorKey::AvgPool { input, output: one },
                _ => {
                    let size = |size: usize| size.div_ceil(stride);
                    let skip = skip && stride == 1;
                    let channels = if skip { input.channels } else { channels };
                    let output = Maps { height: size(input.height), width: size(input.width), channels };
                    let kernel = 2 * half + 1;
                    match dialect {
                        Dialect::ProxylessNas => {
                            OperatorKey::Proxyless { input, output, ratio, kernel, stride, skip }
                        }
                        Dialect::Ofa => OperatorKey::Ofa {
                            input,
                            output,
                            middle: input.channels * ratio,
                            kernel,
                            stride,
                            skip,
                            squeeze_excite,
                            hard_swish,
                        },
                    }
                }
            }
        },
    )
}

fn any_figures() -> impl Strategy<Value = Figures> {
    (
        1e-6..1e4_f64,
        proptest::option::of((0.0..10.0_f64, any::<bool>())),
        proptest::option::of(1..100_000_u64),
    )
        .prop_map(|(mean_ms, spread, count)| Figures {
            mean_ms,
            spread: spread.map(
                |(number, deviation)| {
                    if deviation { Spread::Deviation(number) } else { Spread::Variance(number) }
                },
            ),
            count,
        })
}

fn dialects() -> impl Strategy<Value = Dialect> {
    prop_oneof![Just(Dialect::Ofa), Just(Dialect::ProxylessNas)]
}

proptest! {
    #[test]
    fn a_key_is_read_as_it_was_written(key in dialects().prop_flat_map(any_key)) {
        prop_assert_eq!(key.to_string().parse::<OperatorKey>(), Ok(key));
    }

    #[test]
    fn a_table_is_read_as_it_was_written(
        rows in dialects().prop_flat_map(|dialect| {
            proptest::collection::btree_map(any_key(dialect), any_figures(), 1..20)
        })
    ) {
        let table = LookupTable::new(rows.into_iter().collect()).unwrap();
        let (folder, _) = file("");
        let path = folder.path().join("new.yaml");
        table.write(&path).unwrap();
        prop_assert_eq!(LookupTable::read(&path).unwrap(), table);
    }

    #[test]
    fn a_graph_gets_back_the_name_that_it_was_built_from(
        (dialect, key) in dialects().prop_flat_map(|dialect| (Just(dialect), sayable_key(dialect)))
    ) {
        let workload = key.workload(dialect).unwrap();
        prop_assert_eq!(OperatorKey::of_graph(&workload.graph, dialect), Some(key));
    }

    #[test]
    fn a_damaged_table_is_an_error_or_a_table_and_never_a_crash(cut in 0..OFA.len(), byte in any::<u8>()) {
        let mut bytes = OFA.as_bytes().to_vec();
        bytes[cut] = byte;
        let _ = read(&String::from_utf8_lossy(&bytes));
        let _ = read(&String::from_utf8_lossy(&bytes[..cut]));
    }
}
