//! The runs of a sweep in comparison: table, CSV and HTML page.

use super::chart::{Axis, Chart, Color, Point};
use super::{Accuracy, Report, Score, Table, bytes, duration, metric, page};
use crate::error::{Error, Result};
use crate::plan::Case;
use maud::{Markup, html};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The result of a run of a sweep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// Version of this layout: [`Trial::SCHEMA`].
    pub schema: u32,
    /// Hash of everything that determines the result; runs with different keys are different runs.
    pub key: String,
    /// Name of the run.
    pub name: String,
    /// One case per axis of the sweep.
    pub cases: Vec<Case>,
    /// Accuracy of the float network.
    pub float: Score,
    /// Accuracy of the written file.
    pub result: Score,
    /// Size of all weights in bytes, at their true bits (32 for those that stay float).
    pub weight_bytes: u64,
    /// Time from calibration to the written file, in seconds.
    pub seconds: f64,
    /// The report of the run.
    pub report: Report,
}

/// The metrics that charts may show; they show the first of these that was measured.
const MAIN: [&str; 8] = ["top1", "accuracy", "f1", "matthews", "pearson", "exact_match", "ap", "miou"];

/// Runs that differ only in averaged axes.
struct Group<'a> {
    /// Names of the cases that are not averaged.
    cases: Vec<&'a str>,
    trials: Vec<&'a Trial>,
}

/// Mean, sample standard deviation (0 for one value), smallest and largest value.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Spread {
    mean: f64,
    deviation: f64,
    ends: (f64, f64),
}

fn spread(values: &[f64]) -> Option<Spread> {
    if values.is_empty() {
        return None;
    }
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|v| (v - mean) * (v - mean)).sum();
    let deviation = if values.len() > 1 { (squares / (count - 1.0)).sqrt() } else { 0.0 };
    let ends = values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), &v| (a.min(v), b.max(v)));
    Some(Spread { mean, deviation, ends })
}

impl Group<'_> {
    fn metric(&self, name: &str) -> Option<Spread> {
        self.score(name, |t| &t.result)
    }

    fn score(&self, name: &str, of: impl Fn(&Trial) -> &Score) -> Option<Spread> {
        spread(&self.trials.iter().filter_map(|t| of(t).metrics.get(name).copied()).collect::<Vec<_>>())
    }

    fn mean(&self, of: impl Fn(&Trial) -> f64) -> f64 {
        spread(&self.trials.iter().map(|t| of(t)).collect::<Vec<_>>()).map_or(f64::NAN, |s| s.mean)
    }
}

/// Groups in the order of their first run.
fn groups(trials: &[Trial]) -> Vec<Group<'_>> {
    let mut found: Vec<Group> = Vec::new();
    for trial in trials {
        let cases: Vec<&str> = trial.cases.iter().filter(|c| !c.averaged).map(|c| c.name.as_str()).collect();
        match found.iter_mut().find(|g| g.cases == cases) {
            Some(group) => group.trials.push(trial),
            None => found.push(Group { cases, trials: vec![trial] }),
        }
    }
    found
}

/// Names of the axes that are not averaged.
fn axes(trials: &[Trial]) -> Vec<&str> {
    let cases = trials.first().map_or(&[][..], |t| &t.cases);
    cases.iter().filter(|c| !c.averaged).map(|c| c.axis.as_str()).collect()
}

fn metrics(trials: &[Trial]) -> Vec<&str> {
    let mut names: Vec<&str> = trials.iter().flat_map(|t| t.result.metrics.keys().map(String::as_str)).collect();
    names.sort_unstable();
    names.dedup();
    names.sort_by_key(|n| MAIN.iter().position(|m| m == n).unwrap_or(MAIN.len()));
    names
}

impl Trial {
    /// Version of the layout that this library writes.
    pub const SCHEMA: u32 = 2;

    /// The run's report, with the measured accuracy.
    pub fn into_report(self) -> Report {
        let accuracy = Accuracy { float: self.float, nearest: None, result: self.result };
        Report { accuracy: Some(accuracy), ..self.report }
    }

    /// One row per combination of cases, with the mean of each metric over the averaged axes, in per cent, and the
    /// standard deviation if any row has more than one run.
    pub fn table(trials: &[Trial]) -> Table {
        let (names, groups) = (metrics(trials), groups(trials));
        let spreads = groups.iter().any(|g| g.trials.len() > 1);
        let mut head = axes(trials).join("|");
        head.push_str(if head.is_empty() { "runs" } else { "|>runs" });
        for name in &names {
            let deviation = if spreads { "|>±" } else { "" };
            head.push_str(&format!("|>{} %{deviation}|>float", metric(name)));
        }
        head.push_str("|>weights|>time");
        let mut table = Table::new("Runs", &head);
        for group in groups {
            let mut row: Vec<String> = group.cases.iter().map(|c| c.to_string()).collect();
            row.push(group.trials.len().to_string());
            for name in &names {
                let mean = |s: Option<Spread>| s.map_or(String::new(), |s| format!("{:.2}", s.mean));
                let value = group.metric(name);
                let many = value.filter(|_| group.trials.len() > 1);
                let deviation = many.map_or(String::new(), |s| format!("{:.2}", s.deviation));
                row.push(mean(value));
                row.extend(spreads.then_some(deviation));
                row.push(mean(group.score(name, |t| &t.float)));
            }
            row.push(bytes(group.mean(|t| t.weight_bytes as f64).round() as u64));
            row.push(duration(group.mean(|t| t.seconds)));
            table.row(row);
        }
        table
    }

    /// One line per run: name, cases, metrics of the written file and of the float network, size of the weights in
    /// bytes, seconds.
    pub fn csv(trials: &[Trial]) -> Result<String> {
        let internal = |e: String| Error::internal(format!("no CSV: {e}"));
        let names = metrics(trials);
        let mut writer = csv::Writer::from_writer(Vec::new());
        let cases = trials.first().map_or(&[][..], |t| &t.cases);
        let mut head: Vec<String> =
            ["run".to_string()].into_iter().chain(cases.iter().map(|c| c.axis.clone())).collect();
        head.extend(names.iter().flat_map(|n| [n.to_string(), format!("float_{n}")]));
        head.extend(["weight_bytes", "file_bytes", "seconds"].map(String::from));
        writer.write_record(&head).map_err(|e| internal(e.to_string()))?;
        for t in trials {
            let mut row: Vec<String> =
                [t.name.clone()].into_iter().chain(t.cases.iter().map(|c| c.name.clone())).collect();
            let number = |score: &Score, n: &str| score.metrics.get(n).map_or(String::new(), f64::to_string);
            row.extend(names.iter().flat_map(|n| [number(&t.result, n), number(&t.float, n)]));
            row.push(t.weight_bytes.to_string());
            row.push(t.report.bytes_after.map_or(String::new(), |n| n.to_string()));
            row.push(format!("{:.3}", t.seconds));
            writer.write_record(&row).map_err(|e| internal(e.to_string()))?;
        }
        let bytes = writer.into_inner().map_err(|e| internal(e.to_string()))?;
        String::from_utf8(bytes).map_err(|e| internal(e.to_string()))
    }

    /// A self-contained HTML page: the table, charts of accuracy against size, against time and against every axis with
    /// numbers, and the command that repeats the sweep. `sweep` is the text of the sweep's file, `missing` the names of
    /// the runs that are not done.
    pub fn page(title: &str, trials: &[Trial], sweep: &str, command: &str, missing: &[String]) -> String {
        let all = groups(trials);
        let main = metrics(trials).first().copied();
        let content = html! {
            p { (trials.len()) " runs" @if !missing.is_empty() { ", " (missing.len()) " not done yet" } }
            (page::section("runs", "Runs", &page::table(&Table { title: String::new(), ..Trial::table(trials) })))
            @if let Some(main) = main {
                (page::section("charts", "Accuracy", &html! {
                    p { "Points are means; bars extend from the worst to the best run." }
                    div class="pair" { @for chart in charts(trials, &all, main) { (chart) } }
                }))
            }
            @if !missing.is_empty() {
                (page::section("missing", "Not done yet", &html! { ul { @for name in missing { li { (name) } } } }))
            }
            (page::section("repeat", "How to repeat the sweep", &html! {
                pre { (command) }
                pre { (sweep) }
            }))
        };
        page::page(title, &content)
    }
}

/// The points of `group`s at `x` under the names of their series, and in the order of these.
fn series<'a, 'g>(groups: &'g [Group<'a>], axis: Option<usize>) -> Vec<(String, Vec<&'g Group<'a>>)> {
    let mut found: Vec<(String, Vec<&Group>)> = Vec::new();
    for group in groups {
        let name = axis.map_or(String::new(), |a| group.cases[a].to_string());
        match found.iter_mut().find(|s| s.0 == name) {
            Some(s) => s.1.push(group),
            None => found.push((name, vec![group])),
        }
    }
    found
}

fn charts(trials: &[Trial], groups: &[Group], main: &str) -> Vec<Markup> {
    let names = axes(trials);
    let accuracy = || Axis::linear(format!("{} %", metric(main)));
    // The axis with the most cases that colours can tell apart.
    let count = |a: usize| series(groups, Some(a)).len();
    let colored =
        (0..names.len()).filter(|&a| (2..=Color::ALL.len()).contains(&count(a))).max_by_key(|&a| (count(a), a));
    let scatter = |title: &str, x: Axis, at: &dyn Fn(&Trial) -> f64| {
        let mut chart = Chart::new(title, x, accuracy()).size(520, 320);
        for ((name, members), color) in series(groups, colored).into_iter().zip(Color::ALL) {
            let points = members.iter().filter_map(|g| {
                let y = g.metric(main)?;
                let rest = g.cases.iter().enumerate().filter(|(a, _)| Some(*a) != colored && count(*a) > 1);
                let label: Vec<&str> = rest.map(|(_, c)| *c).collect();
                let range = (g.trials.len() > 1).then_some(y.ends);
                Some(Point { x: g.mean(at), y: y.mean, range, label: label.join(" ") })
            });
            chart = chart.points(&name, color, points.collect());
        }
        chart.draw()
    };
    let mut found = Vec::new();
    // Sizes differ where bits do.
    if trials.iter().any(|t| t.weight_bytes != trials[0].weight_bytes) {
        let size = |t: &Trial| t.weight_bytes as f64 / 1024.0;
        found.push(scatter("Accuracy against size of the weights", Axis::log("KiB"), &size));
    }
    found.push(scatter("Accuracy against time", Axis::log("seconds"), &|t| t.seconds));
    for (a, name) in names.iter().enumerate() {
        let numbers: Option<Vec<f64>> = groups.iter().map(|g| g.cases[a].parse().ok()).collect();
        let Some(numbers) = numbers.filter(|_| count(a) > 2) else { continue };
        // Lines through runs that differ along this axis alone, as many in a chart as there are colours.
        let mut lines: BTreeMap<Vec<&str>, Vec<(f64, Spread)>> = BTreeMap::new();
        for (group, x) in groups.iter().zip(&numbers) {
            let others = group.cases.iter().enumerate().filter(|(b, _)| *b != a && count(*b) > 1).map(|(_, c)| *c);
            if let Some(y) = group.metric(main) {
                lines.entry(others.collect()).or_default().push((*x, y));
            }
        }
        let lines: Vec<_> = lines.into_iter().collect();
        for some in lines.chunks(Color::ALL.len()) {
            let title = format!("Accuracy against {name}");
            let mut chart = Chart::new(title, Axis::linear(*name), accuracy()).size(520, 320);
            for ((others, points), color) in some.iter().zip(Color::ALL) {
                let mut points = points.clone();
                points.sort_by(|p, q| p.0.total_cmp(&q.0));
                let point = |&(x, y): &(f64, Spread)| {
                    let range = (y.ends.0 < y.ends.1).then_some(y.ends);
                    Point { x, y: y.mean, range, label: String::new() }
                };
                chart = chart.line("", color, points.iter().map(|&(x, y)| (x, y.mean)));
                chart = chart.points(&others.join(" "), color, points.iter().map(point).collect());
            }
            found.push(chart.draw());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::MethodName;

    fn trial(bits: &str, keep: &str, seed: &str, top1: f64) -> Trial {
        let case = |axis: &str, name: &str, averaged| Case { axis: axis.into(), name: name.into(), averaged };
        Trial {
            schema: Trial::SCHEMA,
            key: String::new(),
            name: format!("{bits}_{keep}_{seed}"),
            cases: vec![case("bits", bits, false), case("keep", keep, false), case("seed", seed, true)],
            float: Score::new(10, [("top1", 90.0), ("top5", 99.0)]),
            result: Score::new(10, [("top1", top1), ("top5", 95.0)]),
            weight_bytes: if bits == "W2A2" { 2048 } else { 4096 },
            seconds: 4.0,
            report: Report::new(MethodName::Qdrop),
        }
    }

    fn trials() -> Vec<Trial> {
        let mut all = Vec::new();
        for (b, bits) in ["W2A2", "W<4"].into_iter().enumerate() {
            for (k, keep) in ["0", "0.5", "1"].into_iter().enumerate() {
                for (s, seed) in ["7", "8"].into_iter().enumerate() {
                    all.push(trial(bits, keep, seed, 50.0 + 20.0 * b as f64 + k as f64 + 2.0 * s as f64));
                }
            }
        }
        all
    }

    #[test]
    fn seeds_are_averaged() {
        let table = Trial::table(&trials());
        assert_eq!(table.header[..6], ["bits", "keep", "runs", "top-1 %", "±", "float"]);
        assert_eq!(table.rows.len(), 6);
        assert_eq!(table.rows[1][..6], ["W2A2", "0.5", "2", "52.00", "1.41", "90.00"]);
        assert_eq!(table.rows[1][9..], ["2.0 KiB", "4.0 s"]);
        assert_eq!(Trial::table(&[]).rows.len(), 0);
        let uneven = Trial::table(&trials()[..3]);
        assert_eq!((&*uneven.rows[0][4], &*uneven.rows[1][4]), ("1.41", ""), "one run has no spread");
        let single = Trial::table(&trials()[..1]);
        assert_eq!(single.header[..5], ["bits", "keep", "runs", "top-1 %", "float"]);
        assert_eq!(single.rows[0][..5], ["W2A2", "0", "1", "50.00", "90.00"]);
    }

    #[test]
    fn csv_has_a_line_per_run() {
        let text = Trial::csv(&trials()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 13);
        assert_eq!(lines[0], "run,bits,keep,seed,top1,float_top1,top5,float_top5,weight_bytes,file_bytes,seconds");
        assert_eq!(lines[2], "W2A2_0_8,W2A2,0,8,52,90,95,99,2048,,4.000");
    }

    #[test]
    fn the_page_shows_every_group_and_a_line_per_axis_of_numbers() {
        let page = Trial::page("a <b>", &trials(), "[[axis]]", "qdrop sweep s.toml", &["W9_0_1".into()]);
        assert_eq!(page.matches("<svg").count(), 3, "size, time, keep");
        assert!(page.contains("W&lt;4") && !page.contains("W<4") && page.contains("Accuracy against keep"));
        assert!(page.contains("W9_0_1") && page.contains("qdrop sweep s.toml"));
        assert!(Trial::page("empty", &[], "", "", &[]).contains("0 runs"));
    }
}
