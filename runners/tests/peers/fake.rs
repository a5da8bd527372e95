//! An agent that is a shell script: it answers the probe and the reference workload, and does what the
//! test wants with everything else.

use std::{
    fs,
    ops::ControlFlow,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use lathe_latency_db::{Engine, MachineState, Measurement, Outcome, Protocol};
use lathe_runners::{
    Answer, DeviceFacts, Job, MeasureAnswer, PROTOCOL_VERSION, ProbeAnswer, RemoteRunner, RemoteSettings,
    Runner, RunnerError, Transport,
};
use lathe_spaces::{GraphBuilder, Level, OpSpec, Shape, Workload};
use tempfile::TempDir;

/// A folder that stands in for the device's disk, with the agent's files beside it.
pub struct FakeAgent {
    pub folder: TempDir,
}

impl FakeAgent {
    /// `behaviour` is what it does with a workload; there, `$answer` is a good answer, `$line` the
    /// request, and `$folder` a folder for notes.
    pub fn new(behaviour: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "#!/bin/sh\nfolder='{}'\nanswer='{}'\nread -r line\n[ \"$1\" = probe ] && {{ echo '{}'; exit 0; }}\n\
             case \"$line\" in *'\"label\":\"reference\"'*) [ -e \"$folder/dead\" ] && exit 7; echo \"$answer\"; exit 0;; esac\n\
             {behaviour}\n",
            folder.path().display(),
            serde_json::to_string(&measured()).unwrap(),
            serde_json::to_string(&probe_answer()).unwrap(),
        );
        let agent = folder.path().join("agent.sh");
        fs::write(&agent, text).unwrap();
        fs::set_permissions(&agent, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(folder.path().join("library"), b"library").unwrap();
        Self { folder }
    }

    /// One that is good, and notes each launch in the file `launches`.
    pub fn good() -> Self {
        Self::new("echo x >> \"$folder/launches\"; echo \"$answer\"")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn settings(&self) -> RemoteSettings {
        RemoteSettings {
            agent: Some(self.path("agent.sh")),
            library: Some(self.path("library")),
            directory: Some(self.path("device").display().to_string()),
            cpus: Some(vec![0]),
            patience: Duration::from_secs(20),
            ..RemoteSettings::new("fake")
        }
    }

    pub fn start(&self, transport: impl Transport + 'static) -> RemoteRunner {
        RemoteRunner::start(self.settings(), Box::new(transport)).unwrap()
    }

    /// How often it was launched for a workload.
    pub fn launches(&self) -> usize {
        fs::read_to_string(self.path("launches")).unwrap_or_default().lines().count()
    }

    /// Folders of jobs that are still on the device.
    pub fn jobs(&self) -> usize {
        fs::read_dir(self.path("device/jobs")).map_or(0, Iterator::count)
    }
}

fn probe_answer() -> Answer {
    Answer::Probe(Box::new(ProbeAnswer {
        version: PROTOCOL_VERSION,
        agent: "fake".into(),
        facts: DeviceFacts {
            model: "fake".into(),
            architecture: "none".into(),
            cores: 1,
            memory_kb: 1,
            os: "none".into(),
            kernel: "none".into(),
            governor: None,
            max_khz: None,
            clusters: Vec::new(),
        },
        engine: Engine {
            name: "fake".into(),
            version: "0".into(),
            library_sha256: String::new(),
            provider: "cpu".into(),
        },
        providers: vec!["cpu".into()],
        pinned_cpus: vec![0],
        state: MachineState::default(),
    }))
}

fn measured() -> Answer {
    Answer::Measured(Box::new(MeasureAnswer {
        agent: "fake".into(),
        outcome: Outcome::Ok,
        message: None,
        samples_ns: vec![1000; 10],
        batch: 1,
        warmup_runs: 10,
        settled: true,
        load_ns: 1,
        first_run_ns: 1,
        peak_rss_kb: 1,
        output: None,
        output_error: Some(0.0),
        execution: None,
        pinned_cpus: vec![0],
        before: MachineState::default(),
        after: MachineState { load_average: Some(0.25), ..MachineState::default() },
    }))
}

pub fn workloads(count: usize) -> Vec<Workload> {
    (1..=count)
        .map(|side| {
            let mut builder = GraphBuilder::new();
            let input = builder.input("input", Shape::new(1, 1, side, side)).unwrap();
            let output = builder.add("relu", OpSpec::Relu, &[input]).unwrap();
            Workload::new(format!("relu{side}"), Level::Operator, builder.finish(&[output]).unwrap())
        })
        .collect()
}

/// Two processes a workload, ten samples each.
pub fn run(
    runner: &mut RemoteRunner,
    workloads: &[Workload],
    timeout_seconds: f64,
) -> (Vec<Measurement>, Result<(), RunnerError>) {
    let protocol = Protocol {
        min_runs: 1,
        min_seconds: 0.0,
        processes: 2,
        warmup_runs: 1,
        warmup_seconds: 0.0,
        timeout_seconds,
        retries: 0,
        cool_down_seconds: 0.0,
    };
    let job = Job::new("test", protocol, 1);
    let mut rows = Vec::new();
    let result = runner.run(workloads, &job, &mut |row| {
        rows.push(row);
        ControlFlow::Continue(())
    });
    (rows, result)
}

/// One workload on a device that behaves like this: its outcome and error.
pub fn one(transport: impl Transport + 'static, behaviour: &str, timeout_seconds: f64) -> (Outcome, String) {
    let agent = FakeAgent::new(behaviour);
    let (rows, result) = run(&mut agent.start(transport), &workloads(1), timeout_seconds);
    result.unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].usable(), rows[0].outcome == Outcome::Ok);
    assert_eq!(agent.jobs(), 0, "a job's files stay on the device");
    (rows[0].outcome, rows[0].error.clone().unwrap_or_default())
}

/// Every workload has one row with all its samples, and was launched as often as it should be: nothing
/// is lost and nothing doubled.
pub fn assert_whole(agent: &FakeAgent, rows: &[Measurement], count: usize) {
    let mut labels: Vec<&str> = rows.iter().map(|row| row.label.as_str()).collect();
    labels.sort_unstable();
    labels.dedup();
    assert_eq!((rows.len(), labels.len()), (count, count));
    for row in rows {
        assert_eq!((row.outcome, row.samples_ns.len()), (Outcome::Ok, 20), "{row:?}");
    }
    assert_eq!(agent.launches(), 2 * count);
}

/// Every process whose command line holds this text.
pub fn processes_with(text: &str) -> usize {
    let alive = |path: &Path| fs::read(path.join("cmdline")).unwrap_or_default();
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(|entry| String::from_utf8_lossy(&alive(&entry.path())).replace('\0', " ").contains(text))
        .count()
}
