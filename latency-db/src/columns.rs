//! Measurements as columns.

use lathe_spaces::WorkloadId;
use polars::prelude::*;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{Device, Measurement};

/// Version of the columns that this code writes; the newest that it reads.
pub(crate) const SCHEMA_VERSION: u32 = 1;

/// One row per measurement; [`crate::Store`] documents the columns.
pub(crate) fn frame(rows: &[Measurement]) -> PolarsResult<DataFrame> {
    let text = |name: &str, value: &dyn Fn(&Measurement) -> String| {
        Column::new(name.into(), rows.iter().map(value).collect::<Vec<String>>())
    };
    let count = |name: &str, value: &dyn Fn(&Measurement) -> u64| {
        Column::new(name.into(), rows.iter().map(value).collect::<Vec<u64>>())
    };
    let optional = |name: &str, value: &dyn Fn(&Measurement) -> Option<f64>| {
        Column::new(name.into(), rows.iter().map(value).collect::<Vec<Option<f64>>>())
    };
    let sizes: Vec<Vec<u64>> =
        rows.iter().map(|row| row.samples_per_process.iter().map(|&size| size as u64).collect()).collect();
    let errors: Vec<Option<String>> = rows.iter().map(|row| row.error.clone()).collect();
    let rejected: Vec<Option<String>> =
        rows.iter().map(|row| (!row.rejected.is_empty()).then(|| json(&row.rejected))).collect();
    let published: Vec<Option<String>> = rows.iter().map(|row| row.published.as_ref().map(json)).collect();
    let executions: Vec<Option<String>> = rows.iter().map(|row| row.execution.as_ref().map(json)).collect();
    DataFrame::new(
        rows.len(),
        vec![
            Column::new("schema_version".into(), vec![SCHEMA_VERSION; rows.len()]),
            text("id", &|row| row.id.clone()),
            text("campaign", &|row| row.campaign.clone()),
            text("workload", &|row| row.workload.0.clone()),
            text("label", &|row| row.label.clone()),
            text("level", &|row| word(&row.level)),
            text("precision", &|row| word(&row.precision)),
            count("macs", &|row| row.macs),
            text("device_fingerprint", &|row| row.device.fingerprint()),
            text("device_name", &|row| row.device.name.clone()),
            text("device", &|row| json(&row.device)),
            text("provenance", &|row| word(&row.provenance)),
            text("outcome", &|row| word(&row.outcome)),
            Column::new("error".into(), errors),
            optional("median_us", &|row| row.median().map(|median| median.0)),
            lists("samples_ns", rows.iter().map(|row| row.samples_ns.as_slice())),
            lists("samples_per_process", sizes.iter().map(Vec::as_slice)),
            count("batch", &|row| row.batch as u64),
            count("warmup_runs", &|row| row.warmup_runs as u64),
            count("load_ns", &|row| row.load_ns),
            count("first_run_ns", &|row| row.first_run_ns),
            count("peak_rss_kb", &|row| row.peak_rss_kb),
            optional("output_error", &|row| row.output_error),
            text("protocol", &|row| json(&row.protocol)),
            text("state_before", &|row| json(&row.before)),
            text("state_after", &|row| json(&row.after)),
            text("flags", &|row| json(&row.flags)),
            text("agent", &|row| row.agent.clone()),
            Column::new("published".into(), published),
            Column::new("rejected".into(), rejected),
            Column::new("execution".into(), executions),
        ],
    )
}

fn lists<'a>(name: &str, rows: impl ExactSizeIterator<Item = &'a [u64]> + Clone) -> Column {
    let total = rows.clone().map(<[u64]>::len).sum();
    let mut builder =
        ListPrimitiveChunkedBuilder::<UInt64Type>::new(name.into(), rows.len(), total, DataType::UInt64);
    for row in rows {
        builder.append_slice(row);
    }
    builder.finish().into_column()
}

/// The name that serde gives to a unit variant.
pub(crate) fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(text)) => text,
        _ => String::new(),
    }
}

/// Plain records of numbers and texts always have a JSON form.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Which schema version the rows have: the highest; `None` for a file of another program.
pub(crate) fn version(frame: &DataFrame) -> Option<u32> {
    let versions = frame.column("schema_version").ok()?.u32().ok()?;
    Some(versions.iter().flatten().max().unwrap_or(SCHEMA_VERSION))
}

/// The rows of a frame. Columns that describe a measurement without changing its meaning may be
/// missing, as in a file of an earlier version: they get their defaults.
pub(crate) fn measurements(frame: &DataFrame) -> Result<Vec<Measurement>, String> {
    let ids = Texts::required(frame, "id")?;
    let campaigns = Texts::required(frame, "campaign")?;
    let workloads = Texts::required(frame, "workload")?;
    let labels = Texts::required(frame, "label")?;
    let levels = Texts::required(frame, "level")?;
    let precisions = Texts::required(frame, "precision")?;
    let devices = Texts::required(frame, "device")?;
    let provenances = Texts::required(frame, "provenance")?;
    let outcomes = Texts::required(frame, "outcome")?;
    let protocols = Texts::required(frame, "protocol")?;
    let errors = Texts::optional(frame, "error")?;
    let before = Texts::optional(frame, "state_before")?;
    let after = Texts::optional(frame, "state_after")?;
    let flags = Texts::optional(frame, "flags")?;
    let agents = Texts::optional(frame, "agent")?;
    let published = Texts::optional(frame, "published")?;
    let rejected = Texts::optional(frame, "rejected")?;
    let executions = Texts::optional(frame, "execution")?;
    let samples = Lists::required(frame, "samples_ns")?;
    let sizes = Lists::required(frame, "samples_per_process")?;
    let macs = counts(frame, "macs")?;
    let batches = counts(frame, "batch")?;
    let warmups = counts(frame, "warmup_runs")?;
    let loads = counts(frame, "load_ns")?;
    let first_runs = counts(frame, "first_run_ns")?;
    let memory = counts(frame, "peak_rss_kb")?;
    let output_errors = numbers(frame, "output_error")?;
    // Neighbouring rows nearly always come from the same device.
    let mut last: Option<(&str, Device)> = None;
    (0..frame.height())
        .map(|row| {
            let text = devices.at(row)?;
            let device = match &last {
                Some((known, device)) if *known == text => device.clone(),
                _ => devices.json(row)?,
            };
            last = Some((text, device.clone()));
            Ok(Measurement {
                id: ids.at(row)?.to_owned(),
                workload: WorkloadId(workloads.at(row)?.to_owned()),
                label: labels.at(row)?.to_owned(),
                level: levels.word(row)?,
                precision: precisions.word(row)?,
                macs: macs(row).unwrap_or(0),
                device,
                provenance: provenances.word(row)?,
                outcome: outcomes.word(row)?,
                error: errors.get(row).map(str::to_owned),
                samples_ns: samples.at(row)?,
                samples_per_process: sizes.at(row)?.into_iter().map(|size| size as usize).collect(),
                batch: batches(row).unwrap_or(1) as usize,
                warmup_runs: warmups(row).unwrap_or(0) as usize,
                load_ns: loads(row).unwrap_or(0),
                first_run_ns: first_runs(row).unwrap_or(0),
                peak_rss_kb: memory(row).unwrap_or(0),
                output_error: output_errors(row),
                protocol: protocols.json(row)?,
                before: before.json_or_default(row)?,
                after: after.json_or_default(row)?,
                flags: flags.json_or_default(row)?,
                agent: agents.get(row).unwrap_or_default().to_owned(),
                campaign: campaigns.at(row)?.to_owned(),
                rejected: rejected.json_or_default(row)?,
                published: published.json_or_default(row)?,
                execution: executions.json_or_default(row)?,
            })
        })
        .collect()
}

/// A column of texts; absent when the file has no such column.
pub(crate) struct Texts<'a> {
    name: &'static str,
    values: Option<&'a StringChunked>,
}

impl<'a> Texts<'a> {
    pub(crate) fn required(frame: &'a DataFrame, name: &'static str) -> Result<Self, String> {
        let texts = Self::optional(frame, name)?;
        if texts.values.is_some() { Ok(texts) } else { Err(missing(name)) }
    }

    fn optional(frame: &'a DataFrame, name: &'static str) -> Result<Self, String> {
        let values = match frame.column(name) {
            Ok(column) => Some(column.str().map_err(|_| kind(name, "text", column))?),
            Err(_) => None,
        };
        Ok(Self { name, values })
    }

    fn get(&self, row: usize) -> Option<&'a str> {
        self.values.and_then(|values| values.get(row))
    }

    pub(crate) fn at(&self, row: usize) -> Result<&'a str, String> {
        self.get(row).ok_or_else(|| format!("column `{}` has no value in row {row}", self.name))
    }

    fn word<T: DeserializeOwned>(&self, row: usize) -> Result<T, String> {
        serde_json::from_value(Value::String(self.at(row)?.to_owned()))
            .map_err(|error| self.fault(row, &error))
    }

    fn json<T: DeserializeOwned>(&self, row: usize) -> Result<T, String> {
        serde_json::from_str(self.at(row)?).map_err(|error| self.fault(row, &error))
    }

    fn json_or_default<T: DeserializeOwned + Default>(&self, row: usize) -> Result<T, String> {
        if self.get(row).is_some() { self.json(row) } else { Ok(T::default()) }
    }

    fn fault(&self, row: usize, error: &serde_json::Error) -> String {
        format!("column `{}`, row {row}: {error}", self.name)
    }
}

struct Lists<'a> {
    name: &'static str,
    values: &'a ListChunked,
}

impl<'a> Lists<'a> {
    fn required(frame: &'a DataFrame, name: &'static str) -> Result<Self, String> {
        let column = frame.column(name).map_err(|_| missing(name))?;
        let values = column.list().map_err(|_| kind(name, "a list of counts", column))?;
        Ok(Self { name, values })
    }

    fn at(&self, row: usize) -> Result<Vec<u64>, String> {
        let series = self
            .values
            .get_as_series(row)
            .ok_or_else(|| format!("column `{}` has no value in row {row}", self.name))?;
        let values =
            series.u64().map_err(|_| format!("column `{}`: expected a list of counts", self.name))?;
        Ok(values.iter().flatten().collect())
    }
}

fn counts<'a>(frame: &'a DataFrame, name: &str) -> Result<impl Fn(usize) -> Option<u64> + use<'a>, String> {
    let values = match frame.column(name) {
        Ok(column) => Some(column.u64().map_err(|_| kind(name, "a count", column))?),
        Err(_) => None,
    };
    Ok(move |row| values.and_then(|values| values.get(row)))
}

fn numbers<'a>(frame: &'a DataFrame, name: &str) -> Result<impl Fn(usize) -> Option<f64> + use<'a>, String> {
    let values = match frame.column(name) {
        Ok(column) => Some(column.f64().map_err(|_| kind(name, "a number", column))?),
        Err(_) => None,
    };
    Ok(move |row| values.and_then(|values| values.get(row)))
}

fn missing(name: &str) -> String {
    format!("it has no column `{name}`")
}

fn kind(name: &str, expected: &str, column: &Column) -> String {
    format!("column `{name}`: expected {expected}, got {}", column.dtype())
}
