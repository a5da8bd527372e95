//! Files that `torch.save` and `pickle.dump` wrote.

use std::{
    fs::{self, File},
    io::Read,
    path::Path,
};

use super::pickle::Pickle;
use crate::LatencyTableError;

/// How a ZIP archive begins.
const ZIP: [u8; 4] = *b"PK\x03\x04";
/// The largest pickle inside an archive that is unpacked, in bytes.
const LARGEST: u64 = 1 << 30;

/// Reads the pickle of a file: the file itself, or `*/data.pkl` of the archive that `torch.save`
/// writes.
pub(super) fn pickle(path: &Path) -> Result<Pickle, LatencyTableError> {
    let io = |source| LatencyTableError::Io { path: path.to_owned(), source };
    let fault = |reason: String| LatencyTableError::Pickle { path: path.to_owned(), reason };
    let mut start = [0; 4];
    let read = File::open(path).and_then(|mut file| file.read(&mut start)).map_err(io)?;
    if read < 4 || start != ZIP {
        return Pickle::read(&fs::read(path).map_err(io)?).map_err(fault);
    }
    let broken = |error: zip::result::ZipError| fault(format!("the archive is damaged ({error})"));
    let mut archive = zip::ZipArchive::new(File::open(path).map_err(io)?).map_err(broken)?;
    let names: Vec<String> = archive.file_names().flatten().map(std::borrow::Cow::into_owned).collect();
    let name = names.into_iter().find(|name| name.ends_with("/data.pkl"));
    let name = name.ok_or_else(|| fault("the archive holds no data.pkl, as torch.save writes it".into()))?;
    let entry = archive.by_name(&name).map_err(broken)?;
    let mut bytes = Vec::new();
    entry.take(LARGEST).read_to_end(&mut bytes).map_err(io)?;
    Pickle::read(&bytes).map_err(fault)
}
