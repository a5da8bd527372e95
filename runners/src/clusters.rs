//! The clusters of a processor whose cores are not all alike.

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, Serialize};

use crate::machine::{cpufreq, number, text};

/// Cores that are alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoreCluster {
    /// `all` where all cores are alike; `little` and `big`; `little`, `middle` and `big`; with more kinds
    /// `cluster0` and so on, from the weakest.
    pub name: String,
    /// Numbers of its cores.
    pub cpus: Vec<usize>,
    /// Highest frequency in kilohertz, where the system tells.
    pub max_khz: Option<u64>,
    /// Capacity as Linux scales it (1024: the strongest core at its highest frequency), where it tells.
    pub capacity: Option<u64>,
}

/// Groups the cores `0..cores` of the machine whose `sys` lies under `root` by capacity and highest
/// frequency (`cpu_capacity`, `cpufreq/cpuinfo_max_freq`), the weakest first.
pub(crate) fn clusters(root: &Path, cores: usize) -> Vec<CoreCluster> {
    let mut kinds: BTreeMap<(Option<u64>, Option<u64>), Vec<usize>> = BTreeMap::new();
    for cpu in 0..cores {
        let capacity = number(root, &format!("sys/devices/system/cpu/cpu{cpu}/cpu_capacity"));
        let max_khz = number(root, &cpufreq(cpu, "cpuinfo_max_freq"));
        if text(root, &format!("sys/devices/system/cpu/cpu{cpu}/online")).is_some_and(|word| word == "0") {
            continue;
        }
        kinds.entry((capacity, max_khz)).or_default().push(cpu);
    }
    let count = kinds.len();
    kinds
        .into_iter()
        .enumerate()
        .map(|(index, ((capacity, max_khz), cpus))| CoreCluster {
            name: name(index, count),
            cpus,
            max_khz,
            capacity,
        })
        .collect()
}

fn name(index: usize, count: usize) -> String {
    match (count, index) {
        (1, _) => "all".to_owned(),
        (2 | 3, 0) => "little".to_owned(),
        (3, 1) => "middle".to_owned(),
        (2 | 3, _) => "big".to_owned(),
        _ => format!("cluster{index}"),
    }
}

/// The last `threads` cores of a named cluster: the first one often serves interrupts. The message of
/// the failure names what there is.
pub(crate) fn cores_of(clusters: &[CoreCluster], name: &str, threads: usize) -> Result<Vec<usize>, String> {
    let Some(cluster) = clusters.iter().find(|cluster| cluster.name == name) else {
        let known: Vec<String> =
            clusters.iter().map(|cluster| format!("{} (cores {:?})", cluster.name, cluster.cpus)).collect();
        return Err(format!("there is no cluster `{name}`; the device has {}", known.join(", ")));
    };
    if threads == 0 || cluster.cpus.len() < threads {
        return Err(format!("{threads} threads don't fit on the {} cores of `{name}`", cluster.cpus.len()));
    }
    Ok(cluster.cpus[cluster.cpus.len() - threads..].to_vec())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs;

    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn a_phone_has_three_kinds_of_cores_and_the_strongest_are_big() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let kinds =
            [(250, 1_800_000), (250, 1_800_000), (770, 2_400_000), (770, 2_400_000), (1024, 2_850_000)];
        for (cpu, (capacity, khz)) in kinds.into_iter().enumerate() {
            write(root, &format!("sys/devices/system/cpu/cpu{cpu}/cpu_capacity"), &format!("{capacity}\n"));
            write(root, &cpufreq(cpu, "cpuinfo_max_freq"), &format!("{khz}\n"));
        }
        write(root, "sys/devices/system/cpu/cpu1/online", "0\n");
        let found = clusters(root, 5);
        let named: Vec<(&str, &[usize])> =
            found.iter().map(|cluster| (cluster.name.as_str(), cluster.cpus.as_slice())).collect();
        assert_eq!(named, [("little", &[0][..]), ("middle", &[2, 3]), ("big", &[4])]);
        assert_eq!(found[1].max_khz, Some(2_400_000));
        assert_eq!(cores_of(&found, "middle", 1).unwrap(), [3]);
        assert_eq!(cores_of(&found, "middle", 2).unwrap(), [2, 3]);
        let text = cores_of(&found, "prime", 1).unwrap_err();
        assert!(text.contains("`prime`") && text.contains("big (cores [4])"), "{text}");
        assert!(cores_of(&found, "big", 2).unwrap_err().contains("don't fit"));
    }

    #[test]
    fn equal_cores_and_cores_of_which_nothing_is_told_are_one_cluster() {
        let folder = tempfile::tempdir().unwrap();
        let found = clusters(folder.path(), 4);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].name.as_str(), found[0].cpus.len()), ("all", 4));
    }
}
