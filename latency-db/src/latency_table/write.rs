//! Tables as files that [`LatencyTable::read`] reads.

use std::{
    io::{self, Write},
    path::Path,
};

use lathe_spaces::Skeleton;

use super::LatencyTable;
use crate::{LatencyTableError, atomic_file};

impl LatencyTable {
    /// Writes the table in the wide layout, as Parquet or CSV by the name's extension; never over an
    /// existing file. Missing latencies are empty.
    ///
    /// # Errors
    /// [`LatencyTableError::Exists`], or [`LatencyTableError::Write`] with the reason.
    pub fn write(&self, path: &Path) -> Result<(), LatencyTableError> {
        let fault = |reason: String| LatencyTableError::Write { path: path.to_owned(), reason };
        let written = match path.extension().and_then(|extension| extension.to_str()) {
            Some("csv") => atomic_file::create(path, |writer| self.csv(writer)),
            Some("parquet") => atomic_file::create(path, |writer| self.parquet(writer)),
            _ => return Err(fault("expected a name that ends in .csv or .parquet".to_owned())),
        };
        written.map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => LatencyTableError::Exists { path: path.to_owned() },
            _ => fault(source.to_string()),
        })
    }

    /// Name and texts of the column that says which architecture a row is.
    fn architectures(&self) -> (&'static str, Vec<String>) {
        if matches!(self.space.skeleton, Skeleton::Nas201(_)) {
            return ("arch", self.genotypes.iter().map(|genotype| self.space.format(genotype)).collect());
        }
        let indices = |codes: &crate::predictor::Codes| {
            let codes = codes.as_slice()[..self.encoding.positions()].iter().map(u8::to_string);
            codes.collect::<Vec<_>>().join(" ")
        };
        ("op_idx", self.codes.iter().map(indices).collect())
    }

    fn csv(&self, writer: &mut impl Write) -> io::Result<()> {
        let (name, architectures) = self.architectures();
        let mut header = vec![name.to_owned()];
        header.extend(self.devices.keys().map(|device| quoted(device)));
        writeln!(writer, "{}", header.join(","))?;
        for (row, architecture) in architectures.iter().enumerate() {
            write!(writer, "{architecture}")?;
            for latencies in self.devices.values() {
                match latencies[row] {
                    Some(latency) => write!(writer, ",{latency}")?,
                    None => write!(writer, ",")?,
                }
            }
            writeln!(writer)?;
        }
        Ok(())
    }

    #[cfg(not(feature = "store"))]
    fn parquet(&self, _writer: &mut (impl Write + Send)) -> io::Result<()> {
        Err(io::Error::other("this build writes CSV only (it lacks the feature `store`)"))
    }

    #[cfg(feature = "store")]
    fn parquet(&self, writer: &mut (impl Write + Send)) -> io::Result<()> {
        use polars::prelude::{Column, DataFrame, NamedFrom as _, ParquetWriter, Series};

        let (name, architectures) = self.architectures();
        let mut columns = vec![Column::from(Series::new(name.into(), architectures))];
        columns.extend(
            self.devices
                .iter()
                .map(|(device, latencies)| Column::from(Series::new(device.as_str().into(), latencies))),
        );
        let mut frame = DataFrame::new(self.genotypes.len(), columns).map_err(io::Error::other)?;
        ParquetWriter::new(writer).finish(&mut frame).map(|_| ()).map_err(io::Error::other)
    }
}

/// RFC 4180.
fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}
