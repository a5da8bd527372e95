//! The measured parts that networks are composed of.

use std::collections::{BTreeMap, BTreeSet};

use lathe_spaces::{Genotype, Precision, Slot, Space, Workload, WorkloadId};

use crate::{FitError, Measurement};

/// All copies of one choice at one slot.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Part {
    /// Sum of the medians of the copies, each alone, in microseconds.
    pub(crate) sum: f64,
    /// Number of copies that compute something.
    pub(crate) count: f64,
}

/// All parts of a space.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    /// Sum of the medians of what every network has, in microseconds.
    pub(crate) fixed: f64,
    /// Per slot of the space, in its order, the deployable choices.
    pub(crate) slots: Vec<(Slot, BTreeMap<String, Part>)>,
}

/// What a network is made of.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Features {
    /// Per name of a choice of the space (zero where the network has none).
    pub(crate) choices: BTreeMap<String, Part>,
    /// Sum of the fixed parts in microseconds.
    pub(crate) fixed: f64,
}

impl Features {
    /// Sum of the medians of all parts, each alone, in microseconds.
    pub(crate) fn sum(&self) -> f64 {
        self.fixed + self.choices.values().map(|part| part.sum).sum::<f64>()
    }
}

/// The workloads of a space's parts.
pub(crate) struct PartWorkloads {
    fixed: Vec<Workload>,
    slots: Vec<(Slot, BTreeMap<String, Vec<Workload>>)>,
}

impl PartWorkloads {
    pub(crate) fn of(space: &Space, precision: Precision) -> Result<Self, FitError> {
        let all = |workloads: Vec<Workload>| -> Vec<Workload> {
            workloads.into_iter().map(|workload| workload.at(precision)).collect()
        };
        let mut slots = Vec::new();
        for slot in space.slots() {
            let mut choices = BTreeMap::new();
            for choice in space.deployable(slot) {
                choices.insert(choice.to_owned(), all(space.instances(slot, choice)?));
            }
            slots.push((slot, choices));
        }
        Ok(Self { fixed: all(space.fixed()?), slots })
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Workload> {
        let choices = self.slots.iter().flat_map(|(_, choices)| choices.values().flatten());
        self.fixed.iter().chain(choices)
    }

    pub(crate) fn ids(&self) -> BTreeSet<WorkloadId> {
        self.all().map(Workload::id).collect()
    }

    /// Looks the medians up; parts without one are an error that names them all.
    pub(crate) fn measured(&self, pool: &Pool) -> Result<Parts, FitError> {
        let mut missing = BTreeMap::new();
        for workload in self.all() {
            let id = workload.id();
            if !pool.medians.contains_key(&id) {
                let label = match pool.failures.get(&id) {
                    Some(outcome) => format!("{} ({outcome})", workload.label),
                    None => workload.label.clone(),
                };
                missing.entry(id).or_insert(label);
            }
        }
        if !missing.is_empty() {
            return Err(FitError::Missing { workloads: missing.into_values().collect() });
        }
        let part = |workloads: &[Workload]| Part {
            sum: workloads.iter().filter_map(|workload| pool.medians.get(&workload.id())).sum(),
            count: workloads.len() as f64,
        };
        let choices = |choices: &BTreeMap<String, Vec<Workload>>| {
            choices.iter().map(|(choice, workloads)| (choice.clone(), part(workloads))).collect()
        };
        Ok(Parts {
            fixed: part(&self.fixed).sum,
            slots: self.slots.iter().map(|(slot, parts)| (*slot, choices(parts))).collect(),
        })
    }
}

impl Parts {
    /// What a genotype is made of.
    pub(crate) fn features(&self, space: &Space, genotype: &Genotype) -> Features {
        let slots: BTreeMap<Slot, &BTreeMap<String, Part>> =
            self.slots.iter().map(|(slot, choices)| (*slot, choices)).collect();
        let mut choices: BTreeMap<String, Part> = self
            .slots
            .iter()
            .flat_map(|(_, parts)| parts.keys().cloned())
            .map(|name| (name, Part::default()))
            .collect();
        for (block, picks) in genotype.blocks.iter().enumerate() {
            for (node, picks) in picks.nodes.iter().enumerate() {
                for pick in picks {
                    let part =
                        space.slot_of(block, node, pick).and_then(|slot| slots.get(&slot)?.get(&pick.choice));
                    if let (Some(part), Some(total)) = (part, choices.get_mut(&pick.choice)) {
                        total.sum += part.sum;
                        total.count += part.count;
                    }
                }
            }
        }
        Features { choices, fixed: self.fixed }
    }
}

/// One measurement per workload: the usable one with the most samples, of several such the one whose
/// record name sorts last. Pooling samples of different days would hide that they differ.
#[derive(Default)]
pub(crate) struct Pool {
    /// Medians in microseconds.
    pub(crate) medians: BTreeMap<WorkloadId, f64>,
    /// Outcomes of workloads that never ended well.
    failures: BTreeMap<WorkloadId, String>,
}

/// The measurement that stands for each workload.
pub(crate) fn pooled<'a>(measurements: &[&'a Measurement]) -> BTreeMap<WorkloadId, &'a Measurement> {
    let mut best: BTreeMap<WorkloadId, &Measurement> = BTreeMap::new();
    for &row in measurements {
        let rank = |row: &Measurement| (row.usable(), row.samples_ns.len(), row.id.clone());
        best.entry(row.workload.clone())
            .and_modify(|known| {
                if rank(row) > rank(known) {
                    *known = row;
                }
            })
            .or_insert(row);
    }
    best
}

impl Pool {
    pub(crate) fn of(best: &BTreeMap<WorkloadId, &Measurement>) -> Self {
        let mut pool = Self::default();
        for (id, row) in best {
            match row.median() {
                Some(median) => drop(pool.medians.insert(id.clone(), median.0)),
                None => drop(pool.failures.insert(id.clone(), row.outcome.to_string())),
            }
        }
        pool
    }
}
