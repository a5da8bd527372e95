use std::{fs, path::Path};

use lathe_latency_db::{FitQuality, Prediction, Provenance, Source, Summary};
use lathe_search::{Event, LimitEpoch, LimitRange, Origin, Quantity, StopReason};
use lathe_spaces::Micros;

use crate::{
    ReportError,
    figures::Figures,
    fixtures::{self, complete, unfinished, write_record, write_run},
    page, render,
    run_files::RunFiles,
    view::View,
    write,
};

fn files(events: Vec<Event>) -> RunFiles {
    RunFiles {
        events,
        resolved: Some(fixtures::RESOLVED.into()),
        table: Some(fixtures::table()),
        ..RunFiles::default()
    }
}

fn page_of(files: &RunFiles) -> String {
    let view = View::of(files);
    let page = page::render(&view, &Figures::of(&view).unwrap()).unwrap();
    check(&page);
    page
}

/// Elements that have no end tag.
const VOID: [&str; 8] = ["meta", "br", "hr", "img", "input", "link", "wbr", "col"];

/// Fails if tags don't nest, if an id occurs twice, or if anything is loaded from elsewhere.
fn check(page: &str) {
    assert!(page.starts_with("<!DOCTYPE html>"));
    for outside in
        ["http:", "https:", "//www", "src=", "@import", "url(", "<link", "<img", "<iframe", "javascript:"]
    {
        assert!(!page.contains(outside), "the page names an outside resource: {outside}");
    }
    assert!(!page.contains("{{") && !page.contains("{%"), "the template was not filled");
    let mut open: Vec<&str> = Vec::new();
    let mut ids: Vec<&str> = Vec::new();
    let mut rest = page.strip_prefix("<!DOCTYPE html>").unwrap();
    while let Some(at) = rest.find('<') {
        let end = rest[at..].find('>').unwrap() + at;
        let tag = &rest[at + 1..end];
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "closes <{name}> near {}", &rest[..rest.len().min(80)]);
            continue;
        }
        assert_eq!(tag.matches('"').count() % 2, 0, "quotes of <{tag}>");
        let name = tag.split([' ', '/']).next().unwrap();
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric()) && !name.is_empty(), "a bare < before {tag}");
        if let Some((_, id)) = tag.split_once(" id=\"") {
            let id = id.split('"').next().unwrap();
            assert!(!ids.contains(&id), "id {id} twice");
            ids.push(id);
        }
        if name == "style" || name == "script" {
            let close = format!("</{name}>");
            rest = &rest[rest.find(&close).unwrap() + close.len()..];
        } else if !tag.ends_with('/') && !VOID.contains(&name) {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "never closed: {open:?}");
    for link in page.split("href=\"#").skip(1) {
        let id = link.split('"').next().unwrap();
        assert!(ids.contains(&id), "the link #{id} leads nowhere");
    }
}

#[test]
fn the_view_of_a_complete_run() {
    insta::assert_json_snapshot!(View::of(&files(complete())));
}

#[test]
fn the_view_of_an_unfinished_run() {
    insta::assert_json_snapshot!(View::of(&files(unfinished())));
}

#[test]
fn a_complete_run_has_every_figure() {
    let run = tempfile::tempdir().unwrap();
    write_run(run.path(), &complete());
    let path = write(run.path()).unwrap();
    assert_eq!(path, run.path().join("report.html"));
    let page = fs::read_to_string(&path).unwrap();
    check(&page);
    assert!(!page.contains("class=\"missing\""));
    // Accuracy, prediction, 6 of the search, 28 α and 8 β panels, 2 cells, 2 of shares, 2 of training.
    assert_eq!(page.matches("role=\"img\"").count(), 1 + 1 + 6 + 28 + 8 + 2 + 2 + 2);
    assert!(page.contains("The searched network meets the target by measurement."));
    // 24 held-out networks from the record, 131 rows from the cost table.
    assert!(page.contains("fitted from 131 measured rows"));
    assert_eq!(fs::read_dir(run.path()).unwrap().count(), 4, "a temporary file was left behind");
    // A second report replaces the first.
    write(run.path()).unwrap();
}

#[test]
fn an_unfinished_run_says_what_is_missing() {
    let page = page_of(&files(unfinished()));
    assert!(page.contains("7 of 12 epochs are in the record."));
    assert!(page.contains("The run has not ended: it is still going"));
    assert!(page.contains("No network has been derived yet"));
    assert!(page.contains("Not final: what would be derived after epoch 7"));
    assert_eq!(page.matches("class=\"missing\"").count(), 3, "networks, shares, training");
}

#[test]
fn every_beginning_of_a_record_renders() {
    let events = complete();
    // Every length would take long: each kind of event is passed at least once.
    for end in (0..events.len()).step_by(7) {
        page_of(&files(events[..end].to_vec()));
    }
}

#[test]
fn an_empty_record_renders_and_no_record_is_an_error() {
    let run = tempfile::tempdir().unwrap();
    let error = render(run.path()).unwrap_err();
    assert!(matches!(error, ReportError::NoRecord { .. }), "{error}");
    assert!(error.to_string().contains("hint: give the directory of a run"));
    write_record(run.path(), &[]);
    let page = render(run.path()).unwrap();
    check(&page);
    assert!(page.contains("The record holds no whole line yet"));
}

#[test]
fn a_half_last_line_is_left_out_and_not_cut_off() {
    let run = tempfile::tempdir().unwrap();
    write_run(run.path(), &unfinished());
    let record = run.path().join("record.jsonl");
    let text = fs::read_to_string(&record).unwrap() + "{\"event\":\"epo";
    fs::write(&record, &text).unwrap();
    let page = render(run.path()).unwrap();
    check(&page);
    assert!(page.contains("The record ends in the middle of a line"));
    assert_eq!(fs::read_to_string(&record).unwrap(), text, "a report changed the record");
}

fn error_of(third_line: &str) -> String {
    let run = tempfile::tempdir().unwrap();
    write_record(run.path(), &complete()[..2]);
    let record = run.path().join("record.jsonl");
    let text = fs::read_to_string(&record).unwrap() + third_line + "\n";
    fs::write(&record, text).unwrap();
    let error = render(run.path()).unwrap_err();
    assert!(matches!(error, ReportError::Line { line: 3, .. }), "{error}");
    error.to_string()
}

#[test]
fn a_bad_line_is_named() {
    let text = error_of("{\"event\":\"epoch\", <garbage>");
    assert!(
        text.contains("line 3 is not an event") && text.contains("it begins with `{\"event\":\"epoch\""),
        "{text}"
    );
    let text = error_of("{\"event\":\"from_the_future\"}");
    assert!(text.contains("hint: a newer version"), "{text}");
    let diverged = serde_json::to_string(&Event::TrainEpoch {
        candidate: "a".into(),
        epoch: 0,
        epochs: 1,
        train_loss: f64::NAN,
        train_accuracy: 0.1,
        seconds: 1.0,
    });
    let text = error_of(&diverged.unwrap());
    assert!(text.contains("hint: a number that was infinite"), "{text}");
}

#[test]
fn numbers_that_are_none_are_dashes() {
    let mut events = complete();
    for event in &mut events {
        match event {
            Event::Epoch { train_loss, expected, lambda, seconds, .. } => {
                (*train_loss, *lambda, *seconds) = (f64::NAN, f64::INFINITY, f64::NAN);
                *expected = None;
            }
            Event::TrainEpoch { train_loss, .. } => *train_loss = f64::NEG_INFINITY,
            Event::Trained { test_accuracy, test_images, .. } => {
                (*test_accuracy, *test_images) = (f64::NAN, 0);
            }
            Event::Verified { latency, shares, .. } => {
                (latency.median, latency.low, latency.high) =
                    (Micros(f64::NAN), Micros(f64::NAN), Micros(f64::NAN));
                for (_, time) in shares {
                    *time = Micros(0.0);
                }
            }
            Event::Fitted { quality, .. } => quality.spearman = f64::NAN,
            _ => {}
        }
    }
    let page = page_of(&files(events));
    for word in ["NaN", "inf", "null"] {
        let shown = page
            .match_indices(word)
            .find(|(at, _)| !page[at.saturating_sub(1)..].starts_with(char::is_alphabetic));
        assert_eq!(shown, None, "the page shows {word}");
    }
}

#[test]
fn extreme_numbers_render() {
    for (micros, share, value) in [(0.0, 0.0, 0.0), (1e-12, 1.0, 1e-9), (1e18, 0.5, 1e12), (-5.0, 0.3, -3.0)]
    {
        let mut events = complete();
        for event in &mut events {
            match event {
                Event::Epoch { train_loss, expected, lambda, epochs, .. } => {
                    (*train_loss, *lambda, *epochs) = (value, value, 1);
                    *expected = Some(Micros(micros));
                }
                Event::TrainEpoch { train_loss, epochs, .. } => (*train_loss, *epochs) = (value, 100_000),
                Event::Trained { test_accuracy, .. } => *test_accuracy = share,
                Event::Verified { latency, shares, .. } => {
                    *latency = fixtures::summary(micros, 0.0);
                    shares[0].1 = Micros(micros);
                }
                Event::Target { target, .. } => *target = Some(Micros(micros)),
                Event::Fitted { quality, .. } => {
                    for point in &mut quality.points {
                        (point.measured, point.predicted) = (fixtures::summary(micros, 0.0), Micros(micros));
                    }
                }
                _ => {}
            }
        }
        page_of(&files(events));
    }
}

#[test]
fn hostile_names_are_text() {
    let evil = "</text></svg><script>alert(\"1\")</script>{{ 7 * 7 }}&'";
    let mut events = complete();
    for event in &mut events {
        match event {
            Event::Started { name, .. } => *name = evil.into(),
            Event::Candidate { name, genotype, .. } => {
                name.insert_str(0, evil);
                genotype.insert_str(0, evil);
            }
            Event::TrainEpoch { candidate, .. }
            | Event::Trained { candidate, .. }
            | Event::Exported { candidate, .. } => {
                candidate.insert_str(0, evil);
            }
            Event::Verified { candidate, shares, measurement, .. } => {
                candidate.insert_str(0, evil);
                *measurement = evil.into();
                shares[0].0 = evil.into();
            }
            Event::Device { device, .. } => (device.name, device.model) = (evil.into(), evil.into()),
            Event::Fitted { quality, .. } => quality.points[0].label = evil.into(),
            Event::Epoch { arch, .. } => arch[0].block = evil.into(),
            Event::Finished { stop, .. } => *stop = StopReason::DeviceFailed { message: evil.into() },
            _ => {}
        }
    }
    let mut files = files(events);
    files.resolved = Some(evil.into());
    let view = View::of(&files);
    let page = page::render(&view, &Figures::of(&view).unwrap()).unwrap();
    // The text of a template is text here.
    let page = page.replace("{{ 7 * 7 }}", "");
    check(&page);
    assert_eq!(page.matches("<script>").count(), 1, "the page's own");
    assert!(!page.contains("49</h1>"));
    assert!(page.contains("There is no drawing: the genotype"));
}

#[test]
fn a_broken_cost_table_is_said_and_does_no_harm() {
    let run = tempfile::tempdir().unwrap();
    write_run(run.path(), &complete());
    fs::write(run.path().join("cost-table.json"), "{").unwrap();
    fs::write(run.path().join("resolved.toml"), [0xff, 0xfe]).unwrap();
    let page = render(run.path()).unwrap();
    check(&page);
    assert!(
        page.contains("cost-table.json")
            && page.contains("A file of the run could not be used: resolved.toml")
    );
}

fn headline(change: impl Fn(&mut Event)) -> (String, Option<String>, Vec<String>) {
    let mut events = complete();
    events.iter_mut().for_each(change);
    let view = View::of(&files(events));
    let name = view.headline.network_name().map(str::to_owned);
    (view.headline.sentence, name, view.headline.remarks)
}

fn slow_down(event: &mut Event, name: &str, micros: f64) {
    match event {
        Event::Verified { candidate, latency, .. } if candidate == name => {
            *latency = fixtures::summary(micros, 0.01);
        }
        _ => {}
    }
}

#[test]
fn a_baseline_that_is_better_is_named_plainly() {
    let (sentence, name, remarks) = headline(|_| {});
    assert_eq!(sentence, "The searched network meets the target by measurement.");
    assert_eq!(name.as_deref(), Some("searched"));
    assert!(
        remarks[0].starts_with("random-3 (random) meets the target too and is more accurate"),
        "{remarks:?}"
    );
    assert!(remarks[0].contains("can't tell them apart"), "{remarks:?}");
    assert!(remarks[1].contains("too slow for the target: PC_DARTS_cifar"), "{remarks:?}");
    assert_eq!(remarks[2], "4 of 8 edges of block reduce carry no weights (shortcuts and pooling).");
    let (_, _, remarks) = headline(|event| slow_down(event, "random-3", 9000.0));
    assert!(
        remarks[0].starts_with("No other network that meets the target is more accurate; next is random-0")
    );
}

#[test]
fn a_missed_target_is_said_first() {
    let (sentence, name, _) = headline(|event| slow_down(event, "searched", 2900.0));
    assert_eq!(name.as_deref(), Some("random-3"));
    assert!(sentence.starts_with(
        "The searched network misses the target by measurement. The best network that meets it"
    ));
    let (sentence, name, _) = headline(|event| {
        for candidate in fixtures::candidates() {
            slow_down(event, &candidate.name, 2610.0);
        }
    });
    assert_eq!(name.as_deref(), Some("searched"));
    assert!(
        sentence
            .contains("misses the target by measurement, though within the noise, and so does every other")
    );
    let (sentence, ..) = headline(|event| slow_down(event, "searched", 2590.0));
    assert!(sentence.contains("only just"), "{sentence}");
    let (sentence, ..) = headline(|event| {
        if let Event::Finished { stop, .. } = event {
            *stop = StopReason::Infeasible { target: Micros(900.0), fastest: Micros(1310.0), closest: None };
        }
    });
    assert_eq!(
        sentence.replace('\u{a0}', " "),
        "No network of this space is fast enough for 900 µs: the fastest is predicted to need 1.31 ms."
    );
}

#[test]
fn what_was_not_timed_on_silicon_is_labelled() {
    let silicon = "not timed on silicon";
    for (provenance, word, badge) in [
        (Provenance::Published, "published", "not measured by Lathe"),
        (Provenance::Emulated, "emulated", silicon),
        (Provenance::CompilerEstimate, "estimated", silicon),
    ] {
        let mut events = complete();
        for event in &mut events {
            if let Event::Device { provenance: own, .. } = event {
                *own = provenance;
            }
        }
        let mut files = files(events);
        if let Some((table, _)) = &mut files.table {
            table.provenance = provenance;
        }
        let page = page_of(&files);
        assert!(page.contains(&format!("{word}, {badge}")));
        assert!(page.contains(&format!("<dt>{word} latency")));
        assert!(page.contains(&format!("{word} latency, median (ms)")), "the figure's axis");
        assert!(!page.contains("measured latency"), "nothing was measured");
        assert!(page.contains("class=\"caution\""));
        assert_eq!(page.contains("one number of a compiler"), provenance == Provenance::CompilerEstimate);
    }
}

#[test]
fn an_interruption_ends_with_the_next_resumption() {
    let stop = |events: &[Event]| crate::history::History::of(events).stop.map(|(_, stop)| stop);
    let at = || "2026-01-01T10:00:00Z".to_owned();
    let finished = |stop| Event::Finished { at: at(), stop };
    let resumed = Event::Resumed { at: at() };
    let interrupted = vec![fixtures::started("a"), finished(StopReason::Interrupted)];
    assert_eq!(stop(&interrupted), Some(StopReason::Interrupted));
    assert_eq!(stop(&[interrupted, vec![resumed.clone()]].concat()), None);
    let completed = [fixtures::started("a"), finished(StopReason::Completed), resumed];
    assert_eq!(stop(&completed), Some(StopReason::Completed));
}

#[test]
fn other_spaces_are_drawn_too() {
    use lathe_spaces::{Nas201Skeleton, Space, Stream};
    let nas201 = Space::nas201(Nas201Skeleton { width: 8, cells: 1, resolution: 32, classes: 10 });
    for (space, expected) in
        [(nas201, "Drawing of the cell cell"), (Space::fbnet(224, 1000), "<ol class=\"strip\">")]
    {
        let text = space.format(&space.sample(&mut Stream::new(1, "drawn", 0)));
        let mut events = complete();
        for event in &mut events {
            match event {
                Event::Candidate { genotype, origin: Origin::Searched, .. } => genotype.clone_from(&text),
                Event::Epoch { arch, .. } => {
                    let block = &space.blocks[0];
                    let edges: Vec<usize> = block
                        .nodes
                        .iter()
                        .flat_map(|node| &node.edges)
                        .map(|edge| edge.choices.len())
                        .collect();
                    arch.truncate(1);
                    arch[0].block.clone_from(&block.name);
                    arch[0].alpha =
                        edges.iter().map(|choices| vec![1.0 / *choices as f64; *choices]).collect();
                    arch[0].beta = vec![1.0; edges.len()];
                }
                _ => {}
            }
        }
        let page = page_of(&files(events));
        assert!(page.contains(expected), "{}", space.name);
    }
}

#[test]
fn a_report_that_cannot_be_written_is_an_error_that_helps() {
    let run = tempfile::tempdir().unwrap();
    write_run(run.path(), &complete());
    // A folder of that name can't be replaced by a file, whoever asks.
    fs::create_dir_all(run.path().join("report.html/full")).unwrap();
    let error = write(run.path()).unwrap_err();
    assert!(matches!(error, ReportError::Write { .. }), "{error}");
    assert!(error.to_string().contains("hint: the run's directory must be writable"));
    assert_eq!(fs::read_dir(run.path()).unwrap().count(), 4, "a temporary file was left behind");
}

/// Leaves the synthetic runs' pages in `target/synthetic-report/`, to look at while working on the
/// template: what `write` gives must be what `render` gives.
#[test]
fn written_pages_are_the_rendered_ones() {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/synthetic-report");
    for (name, events) in [("complete", complete()), ("unfinished", unfinished())] {
        let run = target.join(name);
        let _ = fs::remove_dir_all(&run);
        fs::create_dir_all(&run).unwrap();
        write_run(&run, &events);
        let page = write(&run).unwrap();
        assert_eq!(fs::read_to_string(page).unwrap(), render(&run).unwrap());
    }
}

#[test]
fn limits_are_told_with_their_bias_and_the_other_devices() {
    let limit = |name: &str, quantity, at_most| LimitRange {
        limit: name.into(),
        quantity,
        reachable: [1.0e6, 9.0e6],
        upper_factor: 1.0,
        at_most,
    };
    let mut events = complete();
    events.insert(
        4,
        Event::Limits {
            limits: vec![
                limit("macs", Quantity::Macs, Some(4.0e6)),
                limit("parameters", Quantity::Parameters, None),
            ],
        },
    );
    for event in &mut events {
        if let Event::Epoch { limits, .. } = event {
            limits.push(LimitEpoch {
                limit: "macs".into(),
                quantity: Quantity::Macs,
                expected: 4.2e6,
                // Measured values are lower than predicted ones: no part of the bias.
                correction: -0.6e6,
                target: 4.0e6,
                lambda: 0.25,
                derived: 4.0e6,
            });
        }
    }
    let Summary { median, low, high, .. } = fixtures::summary(900.0, 0.01);
    for (name, provenance) in [("npu", Provenance::CompilerEstimate), ("phone", Provenance::Measured)] {
        let latency = fixtures::summary(900.0, 0.01);
        let device = fixtures::device();
        events.insert(2, Event::OtherDevice { name: name.into(), device, provenance, noise: None });
        let predicted = Prediction {
            mean: Micros(880.0),
            sigma: Micros(48.0),
            low: Micros(800.0),
            high: Micros(960.0),
            source: Source::Interpolated,
        };
        let (target, cost_table) = (Micros(1000.0), "other.json".into());
        let simpler = vec![FitQuality {
            median_relative_error: 0.25,
            model: "by counting".into(),
            ..fixtures::quality()
        }];
        let name = name.to_owned();
        let quality = fixtures::quality();
        let fitted = Event::OtherFitted { name: name.clone(), quality, simpler, cost_table, target };
        events.insert(3, fitted);
        let measurement = name.clone();
        let candidate = "searched".to_owned();
        let at = events.len() - 1;
        events.insert(at, Event::OtherVerified { candidate, name, predicted, latency, measurement });
    }
    let page = page_of(&files(events.clone()));
    // An estimate is called so and has no interval.
    let text = page.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains(&format!("<td>{median}</td><td>estimated</td>")), "{median}");
    assert!(text.contains(&format!("<td>{median} [{low} … {high}]</td><td>measured</td>")));
    for word in [
        "npu: half of",
        "closer to their estimated latency",
        "closer to their measured latency",
        "by counting: 25.0",
    ] {
        assert!(text.contains(word), "{word:?} is not in the page");
    }
    for text in ["1.000 M multiply-accumulates to 9.000", "+5.0\u{a0}%", "0.250"] {
        assert!(page.contains(text), "{text:?} is not in the page");
    }
    // What is expected and what would have been derived stand side by side as predictions, the correction beside them.
    let millions = |value: &str| format!("<td>{value} M multiply-accumulates</td>");
    let row = ["4.200", "4.000", "−0.600"].map(millions).concat();
    assert!(text.contains(&row), "{row} is not in the page");
    let Some(Event::Finished { stop, .. }) = events.last_mut() else { unreachable!("it is complete") };
    *stop = StopReason::LimitsInfeasible {
        what: "no network of the space keeps all limits together".into(),
        closest: "the closest one".into(),
        values: Vec::new(),
    };
    assert!(page_of(&files(events.clone())).contains("no network of the space keeps all limits together"));
    let Some(Event::Finished { stop, .. }) = events.last_mut() else { unreachable!("it is complete") };
    *stop = StopReason::LimitsUndecided {
        what: "none of the 10000 best networks is accepted otherwise".into(),
        closest: "the closest one".into(),
        values: Vec::new(),
    };
    let page = page_of(&files(events.clone()));
    assert!(
        page.contains("Undecided: none of the 10000 best networks")
            && page.contains("not all could be looked at")
    );
    let Some(Event::Finished { stop, .. }) = events.last_mut() else { unreachable!("it is complete") };
    *stop = StopReason::LimitAboveReach {
        limit: "macs".into(),
        quantity: Quantity::Macs,
        at_most: 9.9e6,
        reachable: [1.0e6, 9.0e6],
    };
    let page = page_of(&files(events));
    for text in
        ["comes up to the limit of macs, 9.900 M", "are 1.000 M multiply-accumulates to 9.000 M", "Lower it"]
    {
        assert!(page.contains(text), "{text:?} is not in the page");
    }
}
