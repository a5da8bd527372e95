//! `[space]`, and what of other tables depends on it.

use std::path::Path;

use lathe_search::{Implementation, Learning, Precision, SupernetSettings, TrainingDevice};
use lathe_spaces::{DartsSkeleton, Nas201Skeleton, Space, Stem};
use serde::Serialize;

use super::{reader::Section, stages::StagesConfig};

/// `[space]`: a space that can be searched, at deployment widths.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum SpaceConfig {
    /// Normal and reduction cells.
    Darts(DartsSkeleton),
    /// The cell of NAS-Bench-201.
    Nas201(Nas201Skeleton),
    /// Stages, of a file.
    Stages(Box<StagesConfig>),
}

/// Published genotypes of the DARTS space.
const PUBLISHED: [&str; 2] = ["PC_DARTS_cifar", "PC_DARTS_image"];

impl SpaceConfig {
    /// Reads the table.
    pub fn read(section: Section<'_>) -> Self {
        let kind = section.choice("kind", &["darts", "nas201", "stages"], "darts");
        let space = if kind == "stages" {
            Self::Stages(Box::new(StagesConfig::read(&section)))
        } else if kind == "nas201" {
            section.refuse("layers", "the skeleton of nas201 has `cells` per stage");
            section.refuse("stem", "nas201 has one stem, for small images");
            let skeleton = Nas201Skeleton {
                width: section.count("width", 16, 1..4097),
                cells: section.count("cells", 5, 1..101),
                resolution: section.count("resolution", 32, 4..2049),
                classes: section.count("classes", 10, 2..100_001),
            };
            if !skeleton.resolution.is_multiple_of(4) {
                let got = skeleton.resolution;
                section.fault("resolution", format!("expected a multiple of 4, got {got}"), None);
            }
            Self::Nas201(skeleton)
        } else {
            section.refuse("cells", "networks of darts have `layers`");
            let stem = match section.choice("stem", &["cifar", "imagenet"], "cifar") {
                "imagenet" => Stem::ImageNet,
                _ => Stem::Cifar,
            };
            Self::Darts(DartsSkeleton {
                stem,
                width: section.count("width", 36, 2..4097),
                layers: section.count("layers", 20, 3..201),
                resolution: section.count("resolution", 32, 8..2049),
                classes: section.count("classes", 10, 2..100_001),
            })
        };
        section.close();
        space
    }

    /// The space.
    pub fn space(&self) -> Space {
        match self {
            Self::Darts(skeleton) => Space::darts(skeleton.clone()),
            Self::Nas201(skeleton) => Space::nas201(skeleton.clone()),
            Self::Stages(stages) => stages.space.clone(),
        }
    }

    /// Side of the square input.
    pub const fn resolution(&self) -> usize {
        match self {
            Self::Darts(skeleton) => skeleton.resolution,
            Self::Nas201(skeleton) => skeleton.resolution,
            Self::Stages(stages) => stages.resolution,
        }
    }

    /// Classes.
    pub const fn classes(&self) -> usize {
        match self {
            Self::Darts(skeleton) => skeleton.classes,
            Self::Nas201(skeleton) => skeleton.classes,
            Self::Stages(stages) => stages.classes,
        }
    }

    /// The key that says how deep networks are.
    pub const fn depth_key(&self) -> &'static str {
        match self {
            Self::Darts(_) => "layers",
            Self::Nas201(_) => "cells",
            Self::Stages(_) => "depth",
        }
    }

    /// What its networks are trained for.
    pub fn learning(&self) -> Learning {
        match self {
            Self::Stages(stages) => stages.learning,
            Self::Darts(_) | Self::Nas201(_) => Learning::Classes,
        }
    }

    /// The file of a teacher.
    pub fn teacher(&self) -> Option<&Path> {
        match self {
            Self::Stages(stages) => stages.teacher.as_deref(),
            Self::Darts(_) | Self::Nas201(_) => None,
        }
    }

    /// Whether it is one of stages.
    pub const fn is_stages(&self) -> bool {
        matches!(self, Self::Stages(_))
    }

    /// Whether networks can be trained with an auxiliary classifier.
    pub const fn has_auxiliary(&self) -> bool {
        matches!(self, Self::Darts(_))
    }

    /// Names of published genotypes.
    pub fn published(&self) -> Vec<String> {
        match self {
            Self::Darts(_) => PUBLISHED.map(String::from).to_vec(),
            Self::Nas201(_) => Vec::new(),
            Self::Stages(stages) => {
                stages.space.published().into_iter().map(|(name, _)| name.to_owned()).collect()
            }
        }
    }

    /// `[supernet]`.
    pub fn read_supernet(&self, section: Section<'_>) -> SupernetSettings {
        if self.is_stages() {
            // Its size is that of the largest network; it is trained on the processor.
            for key in section.keys() {
                section.refuse(
                    &key,
                    "the supernet of stages is as large as the largest network: it has no keys",
                );
            }
            section.close();
            return SupernetSettings {
                width: 0,
                layers: 0,
                partial_channels: 1,
                implementation: Implementation::Plain,
                device: TrainingDevice::Cpu,
                precision: Precision::Float32,
            };
        }
        let (layers, implementation) = match self {
            Self::Darts(_) => {
                section.refuse("cells", "supernets of darts have `layers`");
                let layers = section.count("layers", 8, 3..201);
                (layers, section.choice("implementation", &["fused", "grouped", "plain"], "fused"))
            }
            Self::Nas201(_) => {
                section.refuse("layers", "supernets of nas201 have `cells` per stage");
                let cells = section.count("cells", 5, 1..101);
                (cells, section.choice("implementation", &["grouped", "plain"], "grouped"))
            }
            Self::Stages(_) => (0, "plain"),
        };
        let supernet = SupernetSettings {
            width: section.count("width", 16, 2..4097),
            layers,
            partial_channels: section.count("partial_channels", 4, 1..257),
            implementation: match implementation {
                "plain" => Implementation::Plain,
                "grouped" => Implementation::Grouped,
                _ => Implementation::Fused,
            },
            device: match section.choice("device", &["auto", "cpu", "cuda"], "auto") {
                "cpu" => TrainingDevice::Cpu,
                "cuda" => TrainingDevice::Cuda,
                _ => TrainingDevice::Auto,
            },
            precision: match section.choice("precision", &["float32", "bfloat16"], "float32") {
                "bfloat16" => Precision::Bfloat16,
                _ => Precision::Float32,
            },
        };
        section.close();
        supernet
    }
}
