//! Facts about the engine's library file.

use std::{fs, io, path::Path};

use lathe_latency_db::Engine;
use sha2::{Digest, Sha256};

use crate::hexadecimal::hexadecimal;

/// Reads name, version and digest of ONNX Runtime's library. The version is the one of its exported
/// symbols (`VERS_1.24.1`), which the linker wrote into the file.
#[cfg_attr(not(feature = "agent"), allow(dead_code, reason = "only the agent reads the library"))]
pub(crate) fn inspect(library: &Path) -> io::Result<Engine> {
    let bytes = fs::read(library)?;
    Ok(Engine {
        name: "onnxruntime".to_owned(),
        version: symbol_version(&bytes).unwrap_or_else(|| "unknown".to_owned()),
        library_sha256: hexadecimal(&Sha256::digest(&bytes)),
        provider: "cpu".to_owned(),
    })
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
mod tests {
    use super::*;

    #[test]
    fn the_version_is_found_among_other_text() {
        assert_eq!(symbol_version(b"\0VERS_x\0..VERS_1.24.1\0OrtGetApiBase\0").as_deref(), Some("1.24.1"));
        assert_eq!(symbol_version(b"VERS_1.24.1"), None);
        assert_eq!(symbol_version(b"nothing"), None);
    }
}
