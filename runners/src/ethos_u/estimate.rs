//! What the compiler says.

use super::table::Table;

/// One operator of a compiled network.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// Name: that of the node whose output it writes.
    pub name: String,
    /// Operator of the file (`Conv2D`).
    pub operator: String,
    /// Whether it runs on the NPU.
    pub on_npu: bool,
    /// Cycles, of the accelerator's clock.
    pub cycles: u64,
    /// Multiply-accumulates.
    pub macs: u64,
    /// Share of the accelerator's multiply-accumulates that it uses while it runs, 0 to 1.
    pub utilization: f64,
}

/// An estimate of one inference.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// Time.
    pub nanoseconds: u64,
    /// Cycles of the whole network.
    pub cycles: u64,
    /// Cycles in which the accelerator computes; the rest waits for memory.
    pub cycles_npu: u64,
    /// Clock of the accelerator.
    pub clock_hertz: f64,
    /// Multiply-accumulates of the whole network, as the compiler counts them: pools count too.
    pub macs: u64,
    /// SRAM and DRAM that are used.
    pub memory_kibibytes: f64,
    /// Clocks and memories that were assumed.
    pub system_config: String,
    /// Where weights and activations were assumed to be.
    pub memory_mode: String,
    /// Operators, in the order in which they run.
    pub layers: Vec<Layer>,
}

impl Estimate {
    /// Reads the compiler's two tables. A column that is missing, a number that is none and a time of
    /// zero are errors: what is not understood is never a latency.
    pub(super) fn parse(summary: &str, layers: &str) -> Result<Self, String> {
        let in_summary = |message| format!("the summary can't be read: {message}");
        let in_layers = |message| format!("the table of layers can't be read: {message}");
        let layers = parse_layers(layers).map_err(in_layers)?;
        let estimate = parse_summary(summary, layers).map_err(in_summary)?;
        if estimate.nanoseconds == 0 || estimate.cycles == 0 {
            return Err(format!(
                "the compiler estimates {} ns and {} cycles: nothing runs on the NPU",
                estimate.nanoseconds, estimate.cycles
            ));
        }
        Ok(estimate)
    }

    /// Operators that stay on the CPU.
    pub fn on_cpu(&self) -> impl Iterator<Item = &Layer> {
        self.layers.iter().filter(|layer| !layer.on_npu)
    }

    /// Share of the accelerator's multiply-accumulates that the network uses over its whole time.
    pub fn utilization(&self, macs_per_cycle: u64) -> f64 {
        self.macs as f64 / (self.cycles as f64 * macs_per_cycle as f64)
    }
}

fn parse_summary(text: &str, layers: Vec<Layer>) -> Result<Estimate, String> {
    let table = Table::parse(text)?;
    if table.len() != 1 {
        return Err(format!("expected one row, got {}", table.len()));
    }
    if table.count(0, "batch_size")? != 1 {
        return Err("it is not of batch size 1".to_owned());
    }
    let memory = table.number(0, "sram_memory_used")? + table.number(0, "dram_memory_used")?;
    Ok(Estimate {
        nanoseconds: (table.number(0, "inference_time")? * 1e9).round() as u64,
        cycles: table.count(0, "cycles_total")?,
        cycles_npu: table.count(0, "cycles_npu")?,
        clock_hertz: table.number(0, "core_clock")?,
        macs: table.count(0, "nn_macs")?,
        memory_kibibytes: memory,
        system_config: table.text(0, "system_config")?.to_owned(),
        memory_mode: table.text(0, "memory_mode")?.to_owned(),
        layers,
    })
}

fn parse_layers(text: &str) -> Result<Vec<Layer>, String> {
    let table = Table::parse(text)?;
    let layer = |row: usize| {
        let on_npu = match table.text(row, "Target")? {
            "NPU" => true,
            "CPU" => false,
            other => return Err(format!("the target of row {} is `{other}`, expected NPU or CPU", row + 1)),
        };
        Ok(Layer {
            name: table.text(row, "Name")?.trim().to_owned(),
            operator: table.text(row, "Original Operator")?.trim().to_owned(),
            on_npu,
            cycles: table.count(row, "Op Cycles")?,
            macs: table.count(row, "MAC Count")?,
            utilization: table.number(row, "Util% (MAC)")? / 100.0,
        })
    };
    (0..table.len()).map(layer).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const SUMMARY: &str = "memory_mode,system_config,batch_size,inference_time,core_clock,sram_memory_used,\
        dram_memory_used,nn_macs,cycles_npu,cycles_total,new_column\n\
        Shared,High,1,0.000076296,500000000.0,32.5,0.0,147456,38000,38148,?\n";
    const LAYERS: &str = "Name,Original Operator,Target,Op Cycles,MAC Count,Util% (MAC)\n\
        stem,Conv2D,NPU,38148,147456,3.0198\n\
        \"odd, name\",Relu,CPU,0,0,100\n";

    #[test]
    fn columns_in_any_order_are_read() {
        let estimate = Estimate::parse(SUMMARY, LAYERS).unwrap();
        assert_eq!((estimate.nanoseconds, estimate.cycles, estimate.macs), (76_296, 38_148, 147_456));
        assert_eq!((estimate.system_config.as_str(), estimate.memory_mode.as_str()), ("High", "Shared"));
        assert_eq!(estimate.layers.len(), 2);
        let cpu: Vec<&str> = estimate.on_cpu().map(|layer| layer.name.as_str()).collect();
        assert_eq!(cpu, ["odd, name"]);
        assert!((estimate.layers[0].utilization - 0.030_198).abs() < 1e-9);
        assert!((estimate.utilization(128) - 0.030_198).abs() < 1e-5);
    }

    #[test]
    fn what_is_not_understood_is_never_a_latency() {
        let error = |summary: &str, layers: &str| Estimate::parse(summary, layers).unwrap_err();
        let without = SUMMARY.replace("inference_time", "time");
        assert!(error(&without, LAYERS).contains("no column `inference_time`"));
        assert!(error(&SUMMARY.replace("0.000076296", "nan"), LAYERS).contains("`nan`"));
        assert!(error(&SUMMARY.replace("0.000076296", "0.0"), LAYERS).contains("0 ns"));
        assert!(error(&SUMMARY.replace("38148", "0"), LAYERS).contains("0 cycles"));
        assert!(error(&SUMMARY.replace("Shared,High,1", "Shared,High,2"), LAYERS).contains("batch"));
        assert!(error(SUMMARY, &LAYERS.replace("NPU", "GPU")).contains("`GPU`"));
        assert!(error(SUMMARY, &LAYERS.replace("Op Cycles", "Cycles")).contains("no column `Op Cycles`"));
        assert!(error(SUMMARY, "").contains("the table of layers"));
        assert!(error("", LAYERS).contains("the summary"));
    }
}
