//! A data set that lies on the device whole: batches are gathered and augmented there.

use std::rc::Rc;

use tch::{Device, Kind, Tensor};

use crate::{Dataset, Split, augment::Decisions};

/// Largest data set that is kept on a device, in bytes.
const LIMIT: usize = 4 << 30;

/// All images of a split, as bytes on a device.
#[derive(Debug)]
pub(crate) struct Resident {
    /// `[N, 3, S·S]`.
    pixels: Tensor,
    /// `[1, 3, 1, 1]`.
    mean: Tensor,
    deviation: Tensor,
    side: i64,
}

impl Resident {
    /// Copies the images to the device; `None` if they are too many for it.
    pub fn upload(dataset: &Dataset, split: Split, device: Device) -> Option<Rc<Self>> {
        let set = dataset.split(split);
        let side = dataset.resolution;
        let bytes = set.len() * 3 * side * side;
        if bytes > LIMIT {
            return None;
        }
        let mut pixels = Vec::with_capacity(bytes);
        for index in 0..set.len() {
            pixels.extend_from_slice(set.pixels(index));
        }
        let per_channel = |values: &[f32; 3]| Tensor::from_slice(values).view([1, 3, 1, 1]).to_device(device);
        let size = [set.len() as i64, 3, (side * side) as i64];
        Some(Rc::new(Self {
            pixels: Tensor::from_slice(&pixels).view(size).to_device(device),
            mean: per_channel(&dataset.mean),
            deviation: per_channel(&dataset.deviation),
            side: side as i64,
        }))
    }

    /// Where the images lie.
    pub fn device(&self) -> Device {
        self.pixels.device()
    }

    /// `[B, 3, S, S]`: these images, augmented as decided and normalised.
    pub fn batch(&self, indices: &[usize], decisions: &[Decisions]) -> Tensor {
        let (device, side, count) = (self.device(), self.side, indices.len() as i64);
        let send = |values: Vec<i64>| Tensor::from_slice(&values).to_device(device);
        let per_image =
            |of: &dyn Fn(&Decisions) -> i64| send(decisions.iter().map(of).collect()).view([count, 1]);
        let line = Tensor::arange(side, (Kind::Int64, device)).view([1, side]);
        // Row and column that a pixel comes from; outside of the image it is black.
        let rows = &line + per_image(&|one| one.shift[0]);
        let mirrored = per_image(&|one| i64::from(one.mirrored));
        let columns = &line + &mirrored * (side - 1 - &line * 2) + per_image(&|one| one.shift[1]);
        let inside = |at: &Tensor| at.ge(0).logical_and(&at.lt(side));
        let both = |rows: &Tensor, columns: &Tensor| {
            rows.unsqueeze(2).logical_and(&columns.unsqueeze(1)).unsqueeze(1).to_kind(Kind::Float)
        };
        let visible = both(&inside(&rows), &inside(&columns));
        let source = rows.clamp(0, side - 1).unsqueeze(2) * side + columns.clamp(0, side - 1).unsqueeze(1);
        let source = source.view([count, 1, side * side]).expand([count, 3, side * side], false);
        let chosen = send(indices.iter().map(|&index| index as i64).collect());
        let raw = self.pixels.index_select(0, &chosen).gather(2, &source, false);
        let raw = raw.view([count, 3, side, side]).to_kind(Kind::Float) * visible;
        let images = (raw / 255.0 - &self.mean) / &self.deviation;
        // Cutout: from a row and a column on, up to others.
        let within = |from: usize, to: usize| {
            line.ge_tensor(&per_image(&|one| one.blank[from]))
                .logical_and(&line.lt_tensor(&per_image(&|one| one.blank[to])))
        };
        let kept = Tensor::ones([], (Kind::Float, device)) - both(&within(0, 1), &within(2, 3));
        images * kept
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{Augmentation, DataSettings, DataSource, Loader};

    #[test]
    fn batches_on_the_device_are_those_of_the_processor() {
        let settings = DataSettings {
            source: DataSource::Generated,
            resolution: 8,
            train_images: Some(30),
            test_images: Some(10),
        };
        let dataset = Arc::new(Dataset::load(&settings, 3, &|_, _| {}).unwrap());
        let resident = Resident::upload(&dataset, Split::Train, Device::Cpu).unwrap();
        for (crop_padding, flip, cutout) in
            [(0, false, None), (2, true, None), (3, true, Some(5)), (0, false, Some(2))]
        {
            let augmentation = Augmentation { crop_padding, flip, cutout };
            let loader = || {
                let order = Some((5, "test", 1));
                Loader::new(
                    Arc::clone(&dataset),
                    Split::Train,
                    (0..30).collect(),
                    8,
                    augmentation,
                    order,
                    false,
                )
            };
            let mut batches = 0;
            for (here, there) in loader().zip(loader().resident(Rc::clone(&resident))) {
                assert!(here.labels.equal(&there.labels));
                assert_eq!((here.images.size(), here.whole), (there.images.size(), there.whole));
                let difference = (&here.images - &there.images).abs().max().double_value(&[]);
                assert!(difference < 1e-5, "{augmentation:?}: {difference}");
                batches += 1;
            }
            assert_eq!(batches, 4);
        }
    }
}
