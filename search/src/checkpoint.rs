//! One file that holds everything a training needs to go on: named tensors and a state.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use safetensors::{Dtype, SafeTensors, View};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};
use tch::{Kind, TchError, Tensor};
use thiserror::Error;

/// Name of the file in its directory.
const FILE: &str = "checkpoint.safetensors";
/// Name while it is being written; a half file under this name is harmless and is overwritten.
const PARTIAL: &str = "checkpoint.safetensors.partial";
/// Key of the file's only metadata entry. One entry only: the format keeps entries in a hash map,
/// and two of them would come out in an arbitrary order.
const KEY: &str = "lathe";
/// Version of the envelope.
const VERSION: u32 = 1;

/// Why a checkpoint can't be written or read.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// The file system refused.
    #[error("{action} the checkpoint `{}`: {source}", path.display())]
    Io {
        /// `write` or `read`.
        action: &'static str,
        /// File.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// A tensor or state that can't be stored.
    #[error("write the checkpoint `{}`: {name}: {reason}", path.display())]
    Unstorable {
        /// File.
        path: PathBuf,
        /// Tensor, or `state`.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file that isn't a whole checkpoint of this version.
    #[error(
        "read the checkpoint `{}`: {reason}; hint: restore the file from a copy, or delete it to begin this stage anew",
        path.display()
    )]
    Corrupt {
        /// File.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// What the metadata entry holds.
#[derive(Serialize, Deserialize)]
struct Envelope {
    version: u32,
    /// Over the state's text and every tensor's name and bytes, in order of name.
    sha256: String,
    /// The state as JSON text.
    state: String,
}

/// A tensor's bytes in the order of its elements.
struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl View for &Stored {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// Writes `checkpoint.safetensors` into `directory` (created if absent), replacing the one before.
///
/// Tensors keep their kind and shape. The state lies in the same file, so the two always belong
/// together; the file appears whole or not at all, also when the machine dies in the middle. Equal
/// input gives equal bytes. JSON may lose the last bit of a floating-point number: values that must
/// come back exactly belong into a tensor.
pub fn save(
    directory: &Path,
    tensors: &[(String, Tensor)],
    state: &impl Serialize,
) -> Result<(), CheckpointError> {
    let path = directory.join(FILE);
    let unstorable = |name: &str, reason: String| CheckpointError::Unstorable {
        path: path.clone(),
        name: name.to_owned(),
        reason,
    };
    let io = |source| CheckpointError::Io { action: "write", path: path.clone(), source };
    let state = serde_json::to_string(state).map_err(|error| unstorable("state", error.to_string()))?;
    let mut stored = BTreeMap::new();
    for (name, tensor) in tensors {
        let value = bytes_of(tensor).map_err(|error| unstorable(name, error.to_string()))?;
        if stored.insert(name.as_str(), value).is_some() {
            return Err(unstorable(name, "the name is used twice".into()));
        }
    }
    let sha256 = digest(&state, stored.iter().map(|(&name, value)| (name, value.bytes.as_slice())));
    let envelope = serde_json::to_string(&Envelope { version: VERSION, sha256, state })
        .map_err(|error| unstorable("state", error.to_string()))?;
    let metadata = HashMap::from([(KEY.to_owned(), envelope)]);
    let bytes = safetensors::serialize(stored.iter().map(|(&name, value)| (name, value)), Some(metadata))
        .map_err(|error| unstorable("file", error.to_string()))?;

    fs::create_dir_all(directory).map_err(io)?;
    let partial = directory.join(PARTIAL);
    let mut file = File::create(&partial).map_err(io)?;
    file.write_all(&bytes).map_err(io)?;
    file.sync_all().map_err(io)?;
    drop(file);
    fs::rename(&partial, &path).map_err(io)?;
    // The new name is durable only once the directory is.
    File::open(directory).and_then(|folder| folder.sync_all()).map_err(io)
}

/// Tensors by name, and the state.
pub type Content<S> = (BTreeMap<String, Tensor>, S);

/// Reads back what [`save`] wrote: tensors by name and the state; `None` if there is no checkpoint.
pub fn load<S: DeserializeOwned>(directory: &Path) -> Result<Option<Content<S>>, CheckpointError> {
    let path = directory.join(FILE);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(CheckpointError::Io { action: "read", path, source }),
    };
    let corrupt = |reason: String| CheckpointError::Corrupt { path: path.clone(), reason };
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|error| corrupt(error.to_string()))?;
    let envelope = header
        .metadata()
        .as_ref()
        .and_then(|entries| entries.get(KEY))
        .ok_or_else(|| corrupt(format!("its header has no entry `{KEY}`")))?;
    let envelope: Envelope = serde_json::from_str(envelope).map_err(|error| corrupt(error.to_string()))?;
    if envelope.version != VERSION {
        return Err(corrupt(format!("expected version {VERSION}, got {}", envelope.version)));
    }
    let file = SafeTensors::deserialize(&bytes).map_err(|error| corrupt(error.to_string()))?;
    let views: BTreeMap<&str, _> = file.iter().collect();
    let sha256 = digest(&envelope.state, views.iter().map(|(&name, view)| (name, view.data())));
    if sha256 != envelope.sha256 {
        return Err(corrupt(format!("its content has SHA-256 {sha256}, expected {}", envelope.sha256)));
    }
    let state =
        serde_json::from_str(&envelope.state).map_err(|error| corrupt(format!("its state: {error}")))?;
    let mut tensors = BTreeMap::new();
    for (name, view) in views {
        let kind = kind_of(view.dtype())
            .ok_or_else(|| corrupt(format!("tensor `{name}` has the unknown type {:?}", view.dtype())))?;
        let extents: Vec<i64> = view.shape().iter().map(|&extent| extent as i64).collect();
        let tensor = Tensor::f_from_data_size(view.data(), &extents, kind)
            .map_err(|error| corrupt(format!("tensor `{name}`: {error}")))?;
        tensors.insert(name.to_owned(), tensor);
    }
    Ok(Some((tensors, state)))
}

/// Copies the checkpoint of one folder into another, whole or not at all; false if there is none, or if the other
/// folder has one already.
pub fn copy(from: &Path, to: &Path) -> Result<bool, CheckpointError> {
    let (source, path, partial) = (from.join(FILE), to.join(FILE), to.join(PARTIAL));
    if !source.is_file() || path.exists() {
        return Ok(false);
    }
    let io = |source| CheckpointError::Io { action: "write", path: path.clone(), source };
    fs::create_dir_all(to).map_err(io)?;
    fs::copy(&source, &partial).map_err(io)?;
    File::open(&partial).and_then(|file| file.sync_all()).map_err(io)?;
    fs::rename(&partial, &path).map_err(io)?;
    Ok(true)
}

fn digest<'a>(state: &str, tensors: impl Iterator<Item = (&'a str, &'a [u8])>) -> String {
    let mut hash = Sha256::new();
    // Lengths first, so that no two contents run into the same sequence of bytes.
    hash.update((state.len() as u64).to_le_bytes());
    hash.update(state);
    for (name, bytes) in tensors {
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name);
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    }
    hash.finalize().iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn bytes_of(tensor: &Tensor) -> Result<Stored, TchError> {
    let tensor = tensor.f_detach()?.f_to_device(tch::Device::Cpu)?.f_contiguous()?;
    let kind = tensor.f_kind()?;
    let dtype = dtype_of(kind).ok_or_else(|| TchError::Kind(format!("{kind:?} can't be stored")))?;
    let count = tensor.numel();
    let mut bytes = vec![0; count * kind.elt_size_in_bytes()];
    tensor.f_copy_data_u8(&mut bytes, count)?;
    Ok(Stored { dtype, shape: tensor.size().iter().map(|&extent| extent as usize).collect(), bytes })
}

const KINDS: [(Kind, Dtype); 10] = [
    (Kind::Bool, Dtype::BOOL),
    (Kind::Uint8, Dtype::U8),
    (Kind::Int8, Dtype::I8),
    (Kind::Int16, Dtype::I16),
    (Kind::Int, Dtype::I32),
    (Kind::Int64, Dtype::I64),
    (Kind::Half, Dtype::F16),
    (Kind::BFloat16, Dtype::BF16),
    (Kind::Float, Dtype::F32),
    (Kind::Double, Dtype::F64),
];

fn dtype_of(kind: Kind) -> Option<Dtype> {
    KINDS.iter().find(|entry| entry.0 == kind).map(|entry| entry.1)
}

fn kind_of(dtype: Dtype) -> Option<Kind> {
    KINDS.iter().find(|entry| entry.1 == dtype).map(|entry| entry.0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct State {
        epoch: usize,
        note: String,
    }

    fn content() -> (Vec<(String, Tensor)>, State) {
        let matrix = Tensor::from_slice(&[1.5f32, -2.0, 0.1, 4.0, 5.0, f32::MIN_POSITIVE]).view([2, 3]);
        let tensors = vec![
            ("z.transposed".to_owned(), matrix.transpose(0, 1)),
            ("a.exact".to_owned(), Tensor::from_slice(&[0.1f64 + 0.2, f64::NEG_INFINITY])),
            ("count".to_owned(), Tensor::from(7i64)),
            ("half".to_owned(), matrix.to_kind(Kind::Half)),
            ("mask".to_owned(), matrix.gt(0.0)),
            ("empty".to_owned(), Tensor::zeros([0, 4], (Kind::Float, tch::Device::Cpu))),
        ];
        (tensors, State { epoch: 3, note: "α".into() })
    }

    #[test]
    fn round_trip_keeps_kinds_shapes_and_every_bit() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("not/yet/there");
        assert!(load::<State>(&directory).unwrap().is_none());
        let (tensors, state) = content();
        save(&directory, &tensors, &state).unwrap();
        let (read, read_state) = load::<State>(&directory).unwrap().unwrap();
        assert_eq!(read_state, state);
        assert_eq!(read.len(), tensors.len());
        for (name, tensor) in &tensors {
            let got = &read[name];
            assert_eq!(got.kind(), tensor.kind(), "{name}");
            assert_eq!(got.size(), tensor.size(), "{name}");
            assert_eq!(bytes_of(got).unwrap().bytes, bytes_of(tensor).unwrap().bytes, "{name}");
        }
        assert!(!directory.join(PARTIAL).exists());
    }

    #[test]
    fn equal_content_gives_equal_bytes_in_any_order() {
        let folder = tempfile::tempdir().unwrap();
        let (mut tensors, state) = content();
        save(folder.path(), &tensors, &state).unwrap();
        let first = fs::read(folder.path().join(FILE)).unwrap();
        tensors.reverse();
        save(folder.path(), &tensors, &state).unwrap();
        assert_eq!(first, fs::read(folder.path().join(FILE)).unwrap());
    }

    #[test]
    fn any_damage_is_an_error_that_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let (tensors, state) = content();
        save(folder.path(), &tensors, &state).unwrap();
        let path = folder.path().join(FILE);
        let whole = fs::read(&path).unwrap();
        let last = whole.len() - 1;
        let mut damaged: Vec<Vec<u8>> =
            [0, 4, 100, last / 2, last].map(|length| whole[..length].to_vec()).into();
        let mut flipped = whole.clone();
        flipped[last] ^= 1;
        damaged.push(flipped);
        for bytes in damaged {
            fs::write(&path, &bytes).unwrap();
            let error = load::<State>(folder.path()).unwrap_err();
            assert!(matches!(error, CheckpointError::Corrupt { .. }), "{error}");
            let text = error.to_string();
            assert!(text.contains(FILE) && text.contains("hint: "), "{text}");
        }
    }

    #[test]
    fn a_name_used_twice_and_a_path_that_is_a_file_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let twice = [("w".to_owned(), Tensor::from(1.0)), ("w".to_owned(), Tensor::from(2.0))];
        let error = save(folder.path(), &twice, &0).unwrap_err();
        assert!(error.to_string().contains("used twice"), "{error}");
        let file = folder.path().join("file");
        fs::write(&file, b"x").unwrap();
        assert!(matches!(save(&file, &[], &0), Err(CheckpointError::Io { .. })));
    }
}
