//! Spaces as files that people copy and edit.

use std::collections::BTreeSet;

use serde::Deserialize;
use thiserror::Error;

use super::{
    ElasticEntry, ElasticLayer, ElasticSkeleton, ElasticStage, SAME_WIDTH,
    choice::Share,
    explore::{Explored, Place},
};
use crate::{BlockSpec, EdgeSpec, NodeSpec, Skeleton, Space};

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        /// Names and texts of the files of spaces that belong to Lathe.
        pub static SPACES: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../spaces/", $name, ".toml")))),*];
    };
}

files!("lowformer", "mobiledets", "hgnetv2", "shvit", "casvit", "tinyvit", "sesr", "mobile-mix");

/// A file of a space: stages with choices of width, stride, depth, entry and blocks.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpaceFile {
    /// Name.
    pub name: String,
    /// What it is, in one line.
    pub about: String,
    /// Whose networks it is made from.
    pub source: String,
    /// Channels, rows and columns of the input.
    pub input: [usize; 3],
    /// Where it differs from what is published, and other things to know.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Layers behind the last stage.
    #[serde(default)]
    pub head: Vec<ElasticLayer>,
    /// Published networks that lie inside.
    #[serde(default)]
    pub published: Vec<PublishedText>,
    /// Stages, in order.
    #[serde(default)]
    pub stage: Vec<StageText>,
}

/// A network of a space that somebody has published.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishedText {
    /// Name; that of a file of the zoo if there is one.
    pub name: String,
    /// Text form.
    pub genotype: String,
}

/// A stage of a file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageText {
    /// Name.
    pub name: String,
    /// Output channels to choose from; those of the input where left out.
    pub width: Option<Vec<usize>>,
    /// Strides of the first position to choose from; 1 where left out.
    pub stride: Option<Vec<usize>>,
    /// Numbers of positions to choose from; 1 where left out and there are blocks.
    pub depth: Option<Vec<usize>>,
    /// Blocks to choose from at every position.
    pub blocks: Option<Vec<String>>,
    /// Blocks to choose from at the first position, if they differ.
    pub first: Option<Vec<String>>,
    /// Layers in front of the first position, to choose from.
    pub entry: Option<Vec<ElasticEntry>>,
    /// Name under which later layers can add the output.
    pub save: Option<String>,
    /// What is added to the output: a saved one, or the `input` of the network.
    pub add: Option<String>,
}

/// Why a file is no space. The messages complete "failed to …".
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SpaceFileError {
    /// Not TOML, or not of this form.
    #[error("read the space: {0}")]
    Toml(String),
    /// A value that can't be used.
    #[error("read space `{space}`, {key}: {what}; {hint}")]
    Value {
        /// Space.
        space: String,
        /// Where in the file: ``stage `c3`, width``.
        key: String,
        /// What is wrong.
        what: String,
        /// What to do.
        hint: String,
    },
}

impl SpaceFile {
    /// Reads a file.
    ///
    /// # Errors
    /// [`SpaceFileError::Toml`] names line and column; choices are checked by [`SpaceFile::space`].
    pub fn parse(text: &str) -> Result<Self, SpaceFileError> {
        toml::from_str(text).map_err(|error| SpaceFileError::Toml(error.to_string().trim_end().to_owned()))
    }

    /// The space, for an input of `size` rows and columns in place of the file's.
    ///
    /// Every block is built at every width and size that can reach it, so that whatever is drawn from the
    /// space is a network.
    ///
    /// # Errors
    /// [`SpaceFileError::Value`] for the first value that can't be used.
    pub fn space(&self, size: Option<[usize; 2]>) -> Result<Space, SpaceFileError> {
        let [channels, rows, columns] = self.input;
        let [rows, columns] = size.unwrap_or([rows, columns]);
        if channels * rows * columns == 0 {
            return Err(self.fault("input", "it has 0 channels, rows or columns", "each must be at least 1"));
        }
        self.check_names()?;
        let mut explored = Explored::input([channels, rows, columns]);
        let mut stages = Vec::new();
        let mut blocks = Vec::new();
        for text in &self.stage {
            let (stage, nodes) = self.stage(text, &mut explored)?;
            blocks.push(BlockSpec { name: text.name.clone(), inputs: 1, nodes });
            stages.push(stage);
        }
        for (index, layer) in self.head.iter().enumerate() {
            self.check_layer(&format!("head[{index}]"), layer, false)?;
            explored
                .layers(std::slice::from_ref(layer), &[None])
                .map_err(|fault| self.fault(&format!("head[{index}]"), &fault.what, &fault.hint))?;
        }
        let published = self.published.iter().map(|known| (known.name.clone(), known.genotype.clone()));
        let skeleton = ElasticSkeleton {
            input: [channels, rows, columns],
            stages,
            head: self.head.clone(),
            published: published.collect(),
        };
        let space = Space {
            name: self.name.clone(),
            blocks,
            relaxation_only: Vec::new(),
            skeleton: Skeleton::Elastic(skeleton),
        };
        // At another resolution a published network may lie outside: windows divide other maps.
        for known in self.published.iter().filter(|_| size.is_none()) {
            space.parse(&known.genotype).map_err(|error| {
                let key = format!("published `{}`", known.name);
                self.fault(&key, &format!("failed to {error}"), "write it with choices of this file")
            })?;
        }
        Ok(space)
    }

    /// The same space with so many classes: those of the last `linear` of its head or, without one, of a mean over
    /// all positions and a `linear` that are added behind it.
    #[must_use]
    pub fn classifier(mut self, classes: usize) -> Self {
        let linear = |layer: &&mut ElasticLayer| layer.block.split_whitespace().next() == Some("linear");
        if let Some(last) = self.head.last_mut().filter(linear) {
            last.channels = Some(classes);
            return self;
        }
        let layer = |block: &str, channels| ElasticLayer {
            block: block.to_owned(),
            channels,
            width: None,
            stride: 1,
            repeat: 1,
            save: None,
            add: None,
        };
        self.head.extend([layer("pool", None), layer("linear", Some(classes))]);
        self
    }

    fn fault(&self, key: &str, what: &str, hint: &str) -> SpaceFileError {
        let (space, key, what, hint) = (self.name.clone(), key.to_owned(), what.to_owned(), hint.to_owned());
        SpaceFileError::Value { space, key, what, hint }
    }

    fn check_names(&self) -> Result<(), SpaceFileError> {
        if self.stage.is_empty() {
            return Err(self.fault("stage", "there is none", "add a table `[[stage]]`"));
        }
        let entries = self.stage.iter().flat_map(|stage| stage.entry.iter().flatten());
        let names = self.stage.iter().map(|stage| &stage.name).chain(entries.map(|entry| &entry.name));
        for name in names {
            let plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == '-';
            if name.is_empty() || !name.chars().all(plain) {
                let hint = "use letters, digits, `-` and `_`: it is part of the text of genotypes";
                return Err(self.fault("name", &format!("`{name}` can't be a name"), hint));
            }
        }
        let stages = self.stage.iter().map(|stage| stage.name.as_str());
        self.check_distinct("stage", "name", stages)?;
        self.check_distinct("published", "name", self.published.iter().map(|known| known.name.as_str()))
    }

    fn check_distinct<T: Ord + ToString>(
        &self,
        key: &str,
        what: &str,
        all: impl IntoIterator<Item = T>,
    ) -> Result<(), SpaceFileError> {
        let mut seen = BTreeSet::new();
        for one in all {
            let text = one.to_string();
            if !seen.insert(one) {
                let message = format!("the {what} `{text}` is there twice");
                return Err(self.fault(key, &message, "leave one out, or change it"));
            }
        }
        Ok(())
    }

    /// Numbers to choose from: some, none of them 0, each once.
    fn check_numbers(&self, key: &str, what: &str, numbers: &[usize]) -> Result<(), SpaceFileError> {
        if numbers.is_empty() {
            let hint = format!("give at least one {what}, or leave the key out");
            return Err(self.fault(key, "there is nothing to choose from", &hint));
        }
        if numbers.contains(&0) {
            let message = format!("the {what} 0 is among the choices");
            return Err(self.fault(key, &message, &format!("every {what} must be at least 1")));
        }
        self.check_distinct(key, what, numbers.iter().copied())
    }

    fn check_layer(&self, key: &str, layer: &ElasticLayer, in_stage: bool) -> Result<(), SpaceFileError> {
        if layer.stride == 0 || layer.repeat == 0 || layer.channels == Some(0) {
            return Err(self.fault(key, "channels, stride or repeat is 0", "each must be at least 1"));
        }
        let Some(share) = &layer.width else { return Ok(()) };
        let hint = if layer.channels.is_some() {
            "give `channels` or `width`, not both"
        } else if !in_stage {
            "the head belongs to no stage: give `channels`, or leave both out"
        } else if share.parse::<Share>().is_err() {
            "give a share of the stage's width such as \"1\" or \"1/4\""
        } else {
            return Ok(());
        };
        Err(self.fault(key, &format!("the width `{share}` can't be used"), hint))
    }

    /// The stage, and the nodes of its block.
    fn stage(
        &self,
        text: &StageText,
        explored: &mut Explored,
    ) -> Result<(ElasticStage, Vec<NodeSpec>), SpaceFileError> {
        let key = |key: &str| format!("stage `{}`, {key}", text.name);
        for (name, numbers) in [("width", &text.width), ("stride", &text.stride), ("depth", &text.depth)] {
            if let Some(numbers) = numbers {
                self.check_numbers(&key(name), name, numbers)?;
            }
        }
        let entries = self.entries(text)?;
        let widths: Vec<Option<usize>> = text
            .width
            .as_ref()
            .map_or_else(|| vec![None], |widths| widths.iter().copied().map(Some).collect());
        let strides = text.stride.clone().unwrap_or_else(|| vec![1]);
        let found = text.first.as_ref().or(text.blocks.as_ref());
        let depths = match (&text.depth, found) {
            (Some(depths), Some(_)) => depths.clone(),
            (None, Some(_)) => vec![1],
            (None, None) if text.stride.is_none() && text.entry.is_some() => vec![0],
            _ => {
                let hint = "give `blocks`, or only an `entry` without `depth` and `stride`";
                return Err(self.fault(&key("blocks"), "the stage has no blocks", hint));
            }
        };
        let deepest = depths.iter().copied().max().unwrap_or(0);
        let fault = |place: Place| {
            let index = place.index.map_or_else(String::new, |index| format!("[{index}]"));
            self.fault(&key(&format!("{}{index}", place.list)), &place.fault.what, &place.fault.hint)
        };
        let mut positions: Vec<Vec<String>> = Vec::new();
        explored.enter(&entries, &widths).map_err(fault)?;
        if deepest > 0 {
            let list = if text.first.is_some() { "first" } else { "blocks" };
            let first = explored.resolve(list, found.map_or(&[], Vec::as_slice), &strides).map_err(fault)?;
            positions.push(first);
        }
        if deepest > 1 {
            let Some(rest) = &text.blocks else {
                let hint = "give `blocks` for the positions behind the first";
                return Err(self.fault(
                    &key("blocks"),
                    &format!("the depth {deepest} needs more blocks"),
                    hint,
                ));
            };
            let rest = explored.resolve("blocks", rest, &[1]).map_err(fault)?;
            positions.resize(deepest, rest);
        }
        let stage = ElasticStage { entries, save: text.save.clone(), add: text.add.clone() };
        explored.leave(&stage).map_err(fault)?;

        let numbers = |letter: char, numbers: &[usize]| -> Vec<String> {
            numbers.iter().map(|number| format!("{letter}{number}")).collect()
        };
        let width = text.width.as_ref().map_or_else(|| vec![SAME_WIDTH.into()], |all| numbers('w', all));
        let entry = stage.entries.iter().map(|entry| format!("@{}", entry.name)).collect();
        let mut choices = vec![width, numbers('s', &strides), numbers('d', &depths), entry];
        choices.extend(positions);
        let node = |(from, choices)| NodeSpec { edges: vec![EdgeSpec { from, choices }], keep: 1 };
        Ok((stage, choices.into_iter().enumerate().map(node).collect()))
    }

    /// The ways to enter a stage; without any in the file, one without layers.
    fn entries(&self, text: &StageText) -> Result<Vec<ElasticEntry>, SpaceFileError> {
        let Some(entries) = &text.entry else {
            return Ok(vec![ElasticEntry { name: "directly".into(), layers: Vec::new() }]);
        };
        let key = format!("stage `{}`, entry", text.name);
        if entries.is_empty() {
            let hint = "give at least one entry, or leave the key out";
            return Err(self.fault(&key, "there is nothing to choose from", hint));
        }
        self.check_distinct(&key, "name", entries.iter().map(|entry| entry.name.as_str()))?;
        for entry in entries {
            for (index, layer) in entry.layers.iter().enumerate() {
                self.check_layer(&format!("{key} `{}`, layers[{index}]", entry.name), layer, true)?;
            }
        }
        Ok(entries.clone())
    }
}
