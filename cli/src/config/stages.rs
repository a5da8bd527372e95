//! `[space]` of kind `stages`, and `[paths]`.

use std::{fs, path::PathBuf};

use lathe_search::{Learning, PathSettings, WeightOptimizer};
use lathe_spaces::{NetworkOptions, SPACES, Space, SpaceFile, Stream};
use serde::Serialize;

use super::reader::{Section, closest};

/// Side of the images where the configuration gives none.
const RESOLUTION: usize = 64;

/// A space of stages, one of Lathe's or of a file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StagesConfig {
    /// Name of one of Lathe's spaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// File of a space.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// File of a network whose outputs the networks learn to give.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub teacher: Option<PathBuf>,
    /// Side of the images; networks that restore resolution see smaller ones.
    pub resolution: usize,
    /// Classes.
    pub classes: usize,
    /// The space at this resolution, with these classes.
    #[serde(skip)]
    pub space: Space,
    /// What its networks are trained for.
    #[serde(skip)]
    pub learning: Learning,
}

/// `[paths]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PathsConfig {
    /// See [`PathSettings`].
    pub warmup_blocks: usize,
    /// See [`PathSettings`].
    pub warmup_widths: bool,
    /// See [`PathSettings`].
    pub optimizer: WeightOptimizer,
    /// See [`PathSettings`].
    pub policy_batches: usize,
    /// Whether blocks are relaxed as PC-DARTS relaxes operations.
    pub relaxed: bool,
    /// Parts of the channels of which relaxed blocks see one.
    pub partial_channels: usize,
    /// Networks that evolution scores on the shared weights.
    pub evaluations: usize,
    /// Images that each is scored on.
    pub images: usize,
}

impl StagesConfig {
    /// Reads the keys of the table but `kind`.
    pub fn read(section: &Section<'_>) -> Self {
        for key in ["layers", "cells", "stem", "width"] {
            section.refuse(key, "stages choose their widths and depths themselves");
        }
        let (name, file) = (section.text("name"), section.path_value("file"));
        let teacher = section.path_value("teacher");
        let resolution = section.count("resolution", RESOLUTION, 4..4097);
        let classes = section.count("classes", 10, 2..100_001);
        let names: Vec<&str> = SPACES.iter().map(|(name, _)| *name).collect();
        let mut text = None;
        match (&name, &file) {
            (Some(_), Some(_)) => {
                section.fault("file", "`name` is given too; keep one of them", None);
            }
            (None, None) => {
                let message = format!("missing; one of {}, or `file` for one of your own", names.join(", "));
                section.fault("name", message, Some("`lathe space list` tells what they are".into()));
            }
            (Some(name), None) => {
                text = SPACES.iter().find(|(known, _)| known == name).map(|(_, text)| (*text).to_owned());
                if text.is_none() {
                    let hint = closest(name, &names).map(|word| format!("did you mean \"{word}\"?"));
                    section.fault(
                        "name",
                        format!("expected one of {}, got \"{name}\"", names.join(", ")),
                        hint,
                    );
                }
            }
            (None, Some(path)) => match fs::read_to_string(path) {
                Ok(content) => text = Some(content),
                Err(error) => {
                    section.fault("file", format!("failed to read {}: {error}", path.display()), None);
                }
            },
        }
        let key = if file.is_some() { "file" } else { "name" };
        let built = text.and_then(|text| match build(&text, resolution, classes, teacher.is_some()) {
            Ok(built) => Some(built),
            Err(message) => {
                section.fault(key, message, None);
                None
            }
        });
        let (space, learning) = built.unwrap_or_else(|| (Space::fbnet(32, 10), Learning::Classes));
        Self { name, file, teacher, resolution, classes, space, learning }
    }
}

/// The space of a text, and what its networks are for.
fn build(text: &str, resolution: usize, classes: usize, taught: bool) -> Result<(Space, Learning), String> {
    let file = SpaceFile::parse(text).map_err(|error| format!("failed to {error}"))?;
    let first = file.space(None).map_err(|error| format!("failed to {error}"))?;
    let network = first.sample(&mut Stream::new(0, "what networks are for", 0));
    let graph = first.network(&network, NetworkOptions::default());
    let learning = graph.map(|graph| Learning::of(&graph)).map_err(|error| format!("failed to {error}"))?;
    let learning = if taught { Learning::Embeddings } else { learning };
    let (file, side) = match learning {
        Learning::Embeddings => (file, resolution),
        Learning::Classes => (file.classifier(classes), resolution),
        Learning::Resolution { scale } if resolution.is_multiple_of(scale) => (file, resolution / scale),
        Learning::Resolution { scale } => {
            return Err(format!("images of {resolution}x{resolution} can't be made smaller {scale} to 1"));
        }
    };
    let space = file.space(Some([side, side])).map_err(|error| format!("failed to {error}"))?;
    Ok((space, learning))
}

impl PathsConfig {
    /// Reads the table.
    pub fn read(section: Section<'_>) -> Self {
        let PathSettings { warmup_blocks, warmup_widths, policy_batches, .. } = PathSettings::default();
        let paths = Self {
            warmup_blocks: section.count("warmup_blocks", warmup_blocks, 1..101),
            warmup_widths: section.flag("warmup_widths", warmup_widths),
            optimizer: {
                let words = WeightOptimizer::ALL.map(WeightOptimizer::name);
                let word = section.choice("optimizer", &words, WeightOptimizer::Sgd.name());
                WeightOptimizer::ALL.into_iter().find(|known| known.name() == word).unwrap_or_default()
            },
            policy_batches: section.count("policy_batches", policy_batches, 1..1025),
            relaxed: section.flag("relaxed", false),
            partial_channels: section.count("partial_channels", 4, 1..1025),
            evaluations: section.count("evaluations", 200, 2..1_000_001),
            images: section.count("images", 512, 2..100_000_001),
        };
        section.close();
        paths
    }

    /// Settings of the search crate; `weight`: that of the reward.
    pub const fn settings(self, weight: f64) -> PathSettings {
        let Self {
            warmup_blocks, warmup_widths, optimizer, policy_batches, relaxed, partial_channels, ..
        } = self;
        let relaxed = if relaxed { Some(partial_channels) } else { None };
        PathSettings { weight, warmup_blocks, warmup_widths, optimizer, policy_batches, relaxed }
    }
}
