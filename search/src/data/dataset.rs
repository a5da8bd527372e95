//! Images in memory.

use lathe_spaces::Stream;
use rand::seq::SliceRandom as _;

use super::{DataError, cifar, folder, generated};
use crate::{DataSettings, DataSource};

/// Which images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Those that train.
    Train,
    /// Those that test.
    Test,
}

impl Split {
    /// Word for messages.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Train => "training",
            Self::Test => "test",
        }
    }
}

/// Square colour images of one size with their labels, 8 bits per channel, NCHW.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageSet {
    pixels: Vec<u8>,
    labels: Vec<usize>,
}

impl ImageSet {
    /// From the pixels of all images, one after the other, and their labels.
    pub(super) fn new(pixels: Vec<u8>, labels: Vec<usize>) -> Self {
        Self { pixels, labels }
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Class of an image.
    ///
    /// # Panics
    /// If there is no such image.
    pub fn label(&self, index: usize) -> usize {
        self.labels[index]
    }

    /// Classes of all images.
    pub fn labels(&self) -> &[usize] {
        &self.labels
    }

    /// Pixels of an image: red rows, green rows, blue rows.
    ///
    /// # Panics
    /// If there is no such image.
    pub fn pixels(&self, index: usize) -> &[u8] {
        let each = self.pixels.len() / self.labels.len().max(1);
        &self.pixels[index * each..(index + 1) * each]
    }
}

/// The images of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    /// Images that train.
    pub train: ImageSet,
    /// Images that test.
    pub test: ImageSet,
    /// Names of the classes; a label is a position in it.
    pub classes: Vec<String>,
    /// Side of every image.
    pub resolution: usize,
    /// Mean of each channel over the training images, 0..1.
    pub mean: [f32; 3],
    /// Standard deviation of each channel over the training images, 0..1; 1 for a channel without contrast.
    pub deviation: [f32; 3],
}

impl Dataset {
    /// Loads or generates the images that the settings ask for. The choice among them depends on
    /// nothing but the settings and the seed.
    ///
    /// `progress` is told (images done, images in all), from the calling thread.
    pub fn load(
        settings: &DataSettings,
        seed: u64,
        progress: &dyn Fn(usize, usize),
    ) -> Result<Self, DataError> {
        if settings.resolution == 0 {
            return Err(DataError::Setting { key: "resolution", got: 0, expected: "at least 1" });
        }
        for (key, wanted) in [("train_images", settings.train_images), ("test_images", settings.test_images)]
        {
            if wanted == Some(0) {
                return Err(DataError::Setting { key, got: 0, expected: "at least 1" });
            }
        }
        let (train, test, classes) = match &settings.source {
            DataSource::Generated => generated::load(settings, seed, progress)?,
            DataSource::Cifar10 { path } => cifar::load(path, settings, seed, progress)?,
            DataSource::ImageFolder { path } => folder::load(path, settings, seed, progress)?,
        };
        let [mean, deviation] = moments(&train, settings.resolution);
        Ok(Self { train, test, classes, resolution: settings.resolution, mean, deviation })
    }

    /// The images of a split.
    pub fn split(&self, split: Split) -> &ImageSet {
        match split {
            Split::Train => &self.train,
            Split::Test => &self.test,
        }
    }
}

/// Positions of the images to use, in ascending order: a random choice with equally many of every
/// class, as far as the classes have them.
pub(super) fn choose(
    labels: &[usize],
    classes: usize,
    split: Split,
    wanted: Option<usize>,
    seed: u64,
) -> Result<Vec<usize>, DataError> {
    let Some(wanted) = wanted else { return Ok((0..labels.len()).collect()) };
    if wanted > labels.len() {
        return Err(DataError::TooFew { split: split.word(), wanted, available: labels.len() });
    }
    let mut stream = Stream::new(seed, "data", u64::from(split == Split::Test));
    let mut members = vec![Vec::new(); classes];
    for (index, &label) in labels.iter().enumerate() {
        members[label].push(index);
    }
    for list in &mut members {
        list.shuffle(&mut stream);
    }
    // One of every class, then a second of every class, and so on.
    let longest = members.iter().map(Vec::len).max().unwrap_or(0);
    let rounds = (0..longest).flat_map(|round| members.iter().filter_map(move |list| list.get(round)));
    let mut chosen: Vec<usize> = rounds.copied().take(wanted).collect();
    chosen.sort_unstable();
    Ok(chosen)
}

/// Mean and standard deviation per channel, of pixels scaled to 0..1.
fn moments(set: &ImageSet, resolution: usize) -> [[f32; 3]; 2] {
    // Sums of integers: exact, so their order plays no role.
    let mut sums = [[0u64; 2]; 3];
    let area = resolution * resolution;
    for (plane, pixels) in set.pixels.chunks(area).enumerate() {
        for &pixel in pixels {
            sums[plane % 3][0] += u64::from(pixel);
            sums[plane % 3][1] += u64::from(pixel).pow(2);
        }
    }
    let count = (set.len() * area).max(1) as f64;
    let mean = sums.map(|[sum, _]| sum as f64 / count / 255.0);
    let deviation = sums.map(|[sum, squares]| {
        let variance = squares as f64 / count - (sum as f64 / count).powi(2);
        if variance > 1e-9 { variance.sqrt() / 255.0 } else { 1.0 }
    });
    [mean.map(|value| value as f32), deviation.map(|value| value as f32)]
}
