//! Measurements for other programs.

use std::{
    io::{self, Write},
    path::Path,
};

use crate::{Measurement, StoreError, atomic_file, columns::word, store};

#[derive(Clone, Copy)]
pub(crate) enum Format {
    Csv,
    Json,
    JsonLines,
    Parquet,
}

impl Format {
    pub(crate) fn of(path: &Path) -> Result<Self, StoreError> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("csv") => Ok(Self::Csv),
            Some("json") => Ok(Self::Json),
            Some("jsonl") => Ok(Self::JsonLines),
            Some("parquet") => Ok(Self::Parquet),
            _ => Err(StoreError::Extension { path: path.to_owned() }),
        }
    }
}

pub(crate) fn write(format: Format, path: &Path, rows: &[Measurement]) -> Result<(), StoreError> {
    let written = match format {
        Format::Csv => atomic_file::create(path, |writer| csv(writer, rows)),
        Format::Json => atomic_file::create(path, |writer| {
            serde_json::to_writer_pretty(&mut *writer, rows)?;
            writer.write_all(b"\n")
        }),
        Format::JsonLines => atomic_file::create(path, |writer| {
            rows.iter().try_for_each(|row| {
                serde_json::to_writer(&mut *writer, row)?;
                writer.write_all(b"\n")
            })
        }),
        Format::Parquet => {
            let mut frame = store::encode(path, rows)?;
            atomic_file::create(path, |writer| store::finish(writer, &mut frame))
        }
    };
    written.map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => StoreError::Exists { path: path.to_owned() },
        _ => StoreError::Io { action: "write", path: path.to_owned(), source },
    })
}

const HEADER: &str = "id,campaign,device,device_fingerprint,workload,label,level,precision,macs,provenance,outcome,\
                      error,samples,min_us,median_us,median_low_us,median_high_us,p90_us,p99_us,mad_us,outliers,\
                      load_us,first_run_us,peak_rss_kb,output_error,flags,measured_at";

fn csv(writer: &mut impl Write, rows: &[Measurement]) -> io::Result<()> {
    writeln!(writer, "{HEADER}")?;
    for row in rows {
        let mut fields = vec![
            row.id.clone(),
            row.campaign.clone(),
            row.device.name.clone(),
            row.device.fingerprint(),
            row.workload.0.clone(),
            row.label.clone(),
            row.level.to_string(),
            row.precision.to_string(),
            row.macs.to_string(),
            word(&row.provenance),
            word(&row.outcome),
            row.error.clone().unwrap_or_default(),
            row.samples_ns.len().to_string(),
        ];
        match row.summary() {
            Some(summary) => {
                let figures = [
                    summary.min,
                    summary.median,
                    summary.low,
                    summary.high,
                    summary.p90,
                    summary.p99,
                    summary.mad,
                ];
                fields.extend(figures.iter().map(|figure| figure.0.to_string()));
                fields.push(summary.outliers.to_string());
            }
            None => fields.extend(std::iter::repeat_n(String::new(), 8)),
        }
        fields.extend([
            (row.load_ns as f64 / 1e3).to_string(),
            (row.first_run_ns as f64 / 1e3).to_string(),
            row.peak_rss_kb.to_string(),
            row.output_error.map(|error| error.to_string()).unwrap_or_default(),
            row.flags.iter().map(word).collect::<Vec<_>>().join(" "),
            row.before.at.clone(),
        ]);
        let line: Vec<String> = fields.iter().map(|field| quoted(field)).collect();
        writeln!(writer, "{}", line.join(","))?;
    }
    Ok(())
}

/// RFC 4180: a field with a comma, a quote or a line break stands in quotes.
fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}
