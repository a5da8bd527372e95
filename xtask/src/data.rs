//! Unpacks images.

use std::{fs, path::Path, process::Command};

use crate::{
    command::{self, Failure},
    wheel,
};

/// Unpacks an archive of `train/<class>/…` and `test/<class>/…`, once.
pub fn unpack(archive: &Path, to: &Path) -> Result<(), Failure> {
    let stamp = to.join(".unpacked");
    let source = archive.display().to_string();
    if fs::read_to_string(&stamp).is_ok_and(|found| found == source) {
        command::say(&format!("{} is unpacked already", to.display()));
        return Ok(());
    }
    if !archive.is_file() {
        return Err(Failure::new(format!(
            "failed to unpack {source}: there is no such file\nhint: name an archive with --archive; \
             it must hold train/<class>/*.jpg and test/<class>/*.jpg"
        )));
    }
    let compressed = archive.extension().is_some_and(|extension| extension == "xz");
    if compressed && !wheel::available("xz") {
        return Err(Failure::new(format!(
            "failed to unpack {source}: xz is missing\nhint: apt-get install xz-utils"
        )));
    }
    fs::create_dir_all(to).map_err(|error| wheel::io("create", to, &error))?;
    command::run(Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(to))?;
    fs::write(&stamp, source).map_err(|error| wheel::io("write", &stamp, &error))
}
