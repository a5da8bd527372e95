//! What may depend on what.

use std::{collections::BTreeSet, path::Path};

use cargo_metadata::{DependencyKind, MetadataCommand};

use crate::{
    command::{self, Failure},
    environment::Environment,
};

/// An arrow points from a crate to what it may use (docs/ARCHITECTURE.md has the same table).
const LAYERS: [(&str, &[&str]); 7] = [
    ("lathe-spaces", &[]),
    ("lathe-latency-db", &["lathe-spaces"]),
    ("lathe-runners", &["lathe-spaces", "lathe-latency-db"]),
    ("lathe-search", &["lathe-spaces", "lathe-latency-db"]),
    ("lathe-reports", &["lathe-spaces", "lathe-latency-db", "lathe-search"]),
    ("lathe-cli", &["lathe-spaces", "lathe-latency-db", "lathe-runners", "lathe-search", "lathe-reports"]),
    ("xtask", &[]),
];

/// What must not be in the lean builds.
const HEAVY: [&str; 4] = ["tch", "torch-sys", "polars", "ssh2"];

/// Builds that must stay lean: a name, and the words that select them.
const LEAN: [(&str, &[&str]); 2] = [
    ("spaces", &["--package", "lathe-spaces"]),
    ("the device agent", &["--package", "lathe-runners", "--no-default-features", "--features", "agent"]),
];

/// Every edge between the workspace's crates that the table doesn't allow.
pub fn forbidden_edges(root: &Path) -> Result<Vec<String>, Failure> {
    let metadata = MetadataCommand::new()
        .manifest_path(root.join("Cargo.toml"))
        .no_deps()
        .exec()
        .map_err(|error| Failure::new(format!("failed to read the workspace: {error}")))?;
    let own: BTreeSet<String> = metadata.packages.iter().map(|package| package.name.to_string()).collect();
    let mut forbidden = Vec::new();
    for package in &metadata.packages {
        let name = package.name.to_string();
        let allowed = LAYERS.iter().find(|(layer, _)| *layer == name).map(|(_, allowed)| *allowed);
        for dependency in &package.dependencies {
            let normal = dependency.kind != DependencyKind::Development;
            if normal
                && own.contains(&dependency.name)
                && !allowed.is_some_and(|list| list.contains(&dependency.name.as_str()))
            {
                forbidden.push(format!("{name} → {}", dependency.name));
            }
        }
        if allowed.is_none() {
            forbidden.push(format!("{name} is not in the table of layers"));
        }
    }
    Ok(forbidden)
}

/// Heavy packages in the output of `cargo tree --prefix none`.
fn heavy_packages(tree: &str) -> BTreeSet<&str> {
    tree.lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| HEAVY.iter().any(|heavy| name == heavy || name.starts_with(&format!("{heavy}-"))))
        .collect()
}

/// Checks the layers and the lean builds.
pub fn run(environment: &Environment) -> Result<(), Failure> {
    let forbidden = forbidden_edges(&environment.root)?;
    if !forbidden.is_empty() {
        return Err(Failure::new(format!(
            "the layers are broken: {}\nhint: docs/ARCHITECTURE.md says what may use what",
            forbidden.join(", ")
        )));
    }
    for (name, words) in LEAN {
        let mut cargo = environment.cargo(&["tree", "--edges", "normal", "--prefix", "none"]);
        let output = command::capture(cargo.args(words))?;
        if !output.status.success() {
            let message = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(Failure::new(format!("failed to list what {name} depends on: {message}")));
        }
        let tree = String::from_utf8_lossy(&output.stdout);
        let heavy = heavy_packages(&tree);
        if !heavy.is_empty() {
            return Err(Failure::new(format!("{name} must stay lean, but depends on {heavy:?}")));
        }
        command::say(&format!("lean: {name}, {} packages", tree.lines().count()));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_keeps_its_layers() {
        let root = crate::environment::root().unwrap();
        assert_eq!(forbidden_edges(&root).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn heavy_packages_are_found_by_name_and_by_family() {
        let tree = "lathe-spaces v0.1.0 (/x)\nserde v1.0.0\npolars-core v0.55.2\ntorch-sys v0.24.0\ntchotchke v1.0.0\n";
        assert_eq!(heavy_packages(tree).into_iter().collect::<Vec<_>>(), ["polars-core", "torch-sys"]);
    }
}
