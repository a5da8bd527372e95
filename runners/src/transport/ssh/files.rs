//! Files by sftp.

use std::{
    io::{self, Read, Write},
    path::Path,
    time::{Duration, Instant},
};

use ssh2::{Error, ErrorCode, File, OpenFlags, OpenType, RenameFlags, Sftp};

use super::{connection::Connection, file_deadline};
use crate::transport::{TransportError, quote};

/// sftp's "no such file".
const NO_SUCH_FILE: ErrorCode = ErrorCode::SFTP(2);
/// sftp's "failure", which also stands for a full disk.
const FAILURE: ErrorCode = ErrorCode::SFTP(4);
/// Bytes that are handed to libssh2 at once; it cuts them into packets that travel together.
const CHUNK: usize = 1 << 18;

impl Connection {
    /// See [`crate::transport::Transport::put`].
    pub(super) fn put(
        &mut self,
        content: &[u8],
        path: &str,
        deadline: Duration,
    ) -> Result<(), TransportError> {
        let until = Instant::now() + deadline;
        let sftp = self.sftp(until)?;
        let part = format!("{path}.part");
        let error = match self.write(&sftp, content, &part, until)? {
            Ok(()) => {
                let flags = RenameFlags::OVERWRITE | RenameFlags::ATOMIC;
                let (from, to) = (Path::new(&part), Path::new(path));
                match self.work("write a file", until, || sftp.rename(from, to, Some(flags)))? {
                    Ok(()) => return Ok(()),
                    // sftp's own rename replaces nothing, whatever its flags say.
                    Err(error) if error.code() == FAILURE && self.replace(&part, path, until)? => {
                        return Ok(());
                    }
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        // What was written of it is in nobody's way, but on a full disk every byte is.
        let _ = self.work("delete a file", until, || sftp.unlink(Path::new(&part)))?;
        Err(self.file_error("write", path, &error))
    }

    fn write(
        &self,
        sftp: &Sftp,
        content: &[u8],
        part: &str,
        until: Instant,
    ) -> Result<Result<(), Error>, TransportError> {
        let flags = OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::TRUNCATE;
        let open = || sftp.open_mode(Path::new(part), flags, 0o755, OpenType::File);
        let mut file = match self.work("write a file", until, open)? {
            Err(error) if error.code() == NO_SUCH_FILE => {
                self.make_folders(sftp, part, until)?;
                match self.work("write a file", until, open)? {
                    Ok(file) => file,
                    Err(error) => return Ok(Err(error)),
                }
            }
            Err(error) => return Ok(Err(error)),
            Ok(file) => file,
        };
        let mut rest = content;
        while !rest.is_empty() {
            let chunk = &rest[..rest.len().min(CHUNK)];
            match self
                .work("write a file", until, || file.write(chunk).map_err(|error| engine_error(&error)))?
            {
                Ok(count) => rest = &rest[count..],
                Err(error) => return Ok(Err(error)),
            }
        }
        self.work("write a file", until, || file.close())
    }

    /// Renames a whole file over one that is there; whether it did.
    fn replace(&mut self, part: &str, path: &str, until: Instant) -> Result<bool, TransportError> {
        let left = until.saturating_duration_since(Instant::now());
        let line = format!("[ -f {1} ] && mv -f {0} {1}", quote(part), quote(path));
        Ok(self.run(&line, left)?.exit.success())
    }

    /// Makes every folder above the file; one that is there already is no fault.
    fn make_folders(&self, sftp: &Sftp, file: &str, until: Instant) -> Result<(), TransportError> {
        let mut folders: Vec<&Path> = Path::new(file).ancestors().skip(1).collect();
        folders.reverse();
        for folder in folders.into_iter().filter(|folder| folder.parent().is_some()) {
            let _ = self.work("make a folder", until, || sftp.mkdir(folder, 0o755))?;
        }
        Ok(())
    }

    /// See [`crate::transport::Transport::get`].
    pub(super) fn get(&mut self, path: &str, limit: usize) -> Result<Vec<u8>, TransportError> {
        let action = "read a file";
        let mut until = Instant::now() + file_deadline(0);
        let sftp = self.sftp(until)?;
        let mut file = self
            .work(action, until, || sftp.open(path))?
            .map_err(|error| self.file_error("read", path, &error))?;
        let size = self
            .work(action, until, || file.stat())?
            .map_err(|error| self.file_error("read", path, &error))?
            .size
            .unwrap_or(0);
        until += file_deadline(size.min(limit as u64) as usize);
        let mut bytes = Vec::new();
        let mut chunk = vec![0; CHUNK];
        loop {
            let read =
                self.work(action, until, || file.read(&mut chunk).map_err(|error| engine_error(&error)))?;
            match read.map_err(|error| self.file_error("read", path, &error))? {
                0 => break,
                count => bytes.extend_from_slice(&chunk[..count]),
            }
            if bytes.len() > limit {
                return Err(TransportError::File {
                    peer: self.peer().to_owned(),
                    action: "read",
                    path: path.to_owned(),
                    message: format!("it is larger than {limit} bytes"),
                });
            }
        }
        self.close(file, until)?;
        Ok(bytes)
    }

    fn close(&self, mut file: File, until: Instant) -> Result<(), TransportError> {
        // What was read is whole; only a broken connection matters.
        self.work("read a file", until, || file.close()).map(|_| ())
    }

    fn file_error(&self, action: &'static str, path: &str, error: &Error) -> TransportError {
        let message = match error.code() {
            NO_SUCH_FILE => "there is no such file or folder".to_owned(),
            FAILURE => "the device refused without a reason, as it does when its disk is full".to_owned(),
            _ => error.message().to_owned(),
        };
        TransportError::File { peer: self.peer().to_owned(), action, path: path.to_owned(), message }
    }
}

/// libssh2's error, back from the standard library's form, which keeps the words only. What isn't said
/// of a file is said of the connection.
fn engine_error(error: &io::Error) -> Error {
    const OF_FILES: [(&str, i32); 7] = [
        ("no such file", 2),
        ("permission denied", 3),
        ("failure", 4),
        ("operation unsupported", 8),
        ("no such path", 10),
        ("no space on filesystem", 14),
        ("quota exceeded", 15),
    ];
    if error.kind() == io::ErrorKind::WouldBlock {
        return Error::new(ErrorCode::Session(-37), "operation would block");
    }
    let text = error.to_string();
    OF_FILES.iter().find(|(words, _)| *words == text).map_or_else(
        || Error::new(ErrorCode::Session(-43), "the connection broke while a file travelled"),
        |(words, code)| Error::new(ErrorCode::SFTP(*code), words),
    )
}
