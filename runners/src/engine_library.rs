//! Facts about the engine's library file.
#![cfg_attr(not(feature = "agent"), allow(dead_code, reason = "only the agent reads libraries"))]

use std::{fs, io, path::Path};

use lathe_latency_db::Engine;
use sha2::{Digest, Sha256};

use crate::{EngineChoice, EngineName, hexadecimal::hexadecimal};

/// Makes sure, before anything of it runs, that a file is this engine's library.
pub(crate) fn expect(library: &Path, name: EngineName) -> Result<(), String> {
    if !library.is_file() {
        return Err(format!("{} is not a file", library.display()));
    }
    let bytes = fs::read(library).map_err(|error| format!("read {}: {error}", library.display()))?;
    let exports =
        |name: EngineName| name.library().is_some_and(|library| holds(&bytes, library.symbol.as_bytes()));
    if exports(name) {
        return Ok(());
    }
    let other = EngineName::ALL.into_iter().find(|other| exports(*other));
    let what = match (other, name.library()) {
        (Some(other), _) => format!("it is {}'s (hint: --engine {other})", other.title()),
        (None, Some(wanted)) => format!("it has no symbol {}", wanted.symbol),
        (None, None) => "it has none".to_owned(),
    };
    Err(format!("{} is not the library of {}: {what}", library.display(), name.title()))
}

/// Name, version and digest of an engine's library. ONNX Runtime's version is the one of its exported
/// symbols (`VERS_1.24.1`), which the linker wrote into the file. `OpenVINO` is several files: the digest
/// is over all that lie beside the library. A plugin counts too. An engine that is compiled in is the agent's
/// own file.
pub(crate) fn inspect(
    library: &Path,
    choice: &EngineChoice,
    version: Option<String>,
    plugin: Option<&Path>,
) -> io::Result<Engine> {
    let (version, digest) = match choice.name {
        EngineName::Onnxruntime => {
            let bytes = fs::read(library)?;
            let mut digest = Sha256::digest(&bytes);
            if let Some(plugin) = plugin {
                digest = Sha256::new().chain_update(digest).chain_update(fs::read(plugin)?).finalize();
            }
            (version.or_else(|| symbol_version(&bytes)), hexadecimal(&digest))
        }
        EngineName::Openvino => (version, digest_of_siblings(library, "libopenvino")?),
        EngineName::Litert | EngineName::Tract => (version, hexadecimal(&Sha256::digest(fs::read(library)?))),
    };
    Ok(Engine {
        name: choice.name.word().to_owned(),
        version: version.unwrap_or_else(|| "unknown".to_owned()),
        library_sha256: digest,
        provider: choice.provider_text(),
    })
}

/// SHA-256 over the names and digests of the files beside this one whose names begin so.
fn digest_of_siblings(library: &Path, stem: &str) -> io::Result<String> {
    let folder = library.parent().unwrap_or_else(|| Path::new("/"));
    let mut files: Vec<_> = fs::read_dir(folder)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(stem)))
        .collect();
    files.sort();
    let mut digest = Sha256::new();
    for file in files {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        digest.update(name.as_bytes());
        digest.update([0]);
        digest.update(Sha256::digest(fs::read(&file)?));
    }
    Ok(hexadecimal(&digest.finalize()))
}

fn holds(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}

/// The text after the first `VERS_` that is followed by `digits.digits…` and a zero byte.
fn symbol_version(bytes: &[u8]) -> Option<String> {
    const MARK: &[u8] = b"VERS_";
    let mut rest = bytes;
    while let Some(position) = rest.windows(MARK.len()).position(|window| window == MARK) {
        rest = &rest[position + MARK.len()..];
        let length = rest.iter().take(32).take_while(|byte| byte.is_ascii_digit() || **byte == b'.').count();
        let version = &rest[..length];
        if rest.get(length) == Some(&0) && version.contains(&b'.') {
            return String::from_utf8(version.to_vec()).ok();
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_found_among_other_text() {
        assert_eq!(symbol_version(b"\0VERS_x\0..VERS_1.24.1\0OrtGetApiBase\0").as_deref(), Some("1.24.1"));
        assert_eq!(symbol_version(b"VERS_1.24.1"), None);
        assert_eq!(symbol_version(b"nothing"), None);
    }

    #[test]
    fn a_library_is_recognised_before_anything_of_it_runs() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("library.so");
        assert!(expect(&file, EngineName::Openvino).unwrap_err().ends_with("is not a file"));
        fs::write(&file, b"\x7fELF...OrtGetApiBase\0").unwrap();
        expect(&file, EngineName::Onnxruntime).unwrap();
        let message = expect(&file, EngineName::Openvino).unwrap_err();
        assert!(
            message.ends_with(
                "is not the library of OpenVINO: it is ONNX Runtime's (hint: --engine onnxruntime)"
            ),
            "{message}"
        );
        fs::write(&file, b"text").unwrap();
        assert!(expect(&file, EngineName::Onnxruntime).unwrap_err().contains("no symbol OrtGetApiBase"));
    }

    #[test]
    fn every_file_of_openvino_counts() {
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("libopenvino_c.so");
        fs::write(&library, b"c").unwrap();
        fs::write(folder.path().join("other.so"), b"o").unwrap();
        let choice = EngineChoice::new(EngineName::Openvino);
        let digest = || inspect(&library, &choice, Some("1".into()), None).unwrap().library_sha256;
        let alone = digest();
        fs::write(folder.path().join("other.so"), b"p").unwrap();
        assert_eq!(digest(), alone);
        fs::write(folder.path().join("libopenvino_intel_cpu_plugin.so"), b"x").unwrap();
        assert_ne!(digest(), alone);
    }
}
