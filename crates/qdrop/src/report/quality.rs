//! The quality of the written file, with warnings and notes for the user.

use super::table::{decibels, metric, share};
use super::{Report, Table, UnitReport, figure};
use crate::plan::MethodName;
use serde::{Deserialize, Serialize};

/// Maximum number of places that a warning names.
const NAMED: usize = 3;
/// Maximum number of outputs that a table lists.
const LISTED: usize = 8;

/// The origin of the samples on which quality is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Calibration samples that the run did not use.
    LeftOut,
    /// The samples to evaluate on.
    Evaluation,
    /// Calibration samples that the run used.
    Calibration,
}

/// How close the outputs of the written file are to those of the float network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// Number of samples compared.
    pub samples: usize,
    /// Origin of the samples.
    pub source: Source,
    /// Smallest signal-to-noise ratio of an output, in dB: 10·log10(Σ float² / Σ difference²). `None` if no output of
    /// real numbers has any noise.
    pub snr_db: Option<f64>,
    /// Share of the samples with the same top-1 class, in per cent; `None` for networks that do not classify.
    pub same_top1: Option<f64>,
    /// The network's outputs that can be compared, in order. If there are others, the last values before the operators
    /// that cannot be run follow, or before those that order rows.
    pub outputs: Vec<OutputQuality>,
    /// Whether an output of the network cannot be computed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
    /// Names of outputs with rows in the order of scores, such as the boxes of a detector, which the slightest noise exchanges:
    /// they are not compared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ordered: Vec<String>,
    /// The places where most is lost, largest loss first; empty unless the signal-to-noise ratio is below
    /// [`Quality::LOW`].
    pub losses: Vec<Loss>,
}

/// How close an output of the written file is to that of the float network.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OutputQuality {
    /// Name of the output.
    pub name: String,
    /// Signal-to-noise ratio in dB. `None` for integers, and if it is not finite because nothing differs or the float
    /// output is 0.
    pub snr_db: Option<f64>,
    /// Largest absolute difference of an element.
    pub max_abs: f64,
    /// Share of equal elements, in per cent, of an output of integers or truth values.
    pub equal: Option<f64>,
    /// Number of elements that are infinite or NaN in one network and differ in the other; the other figures leave them
    /// out.
    pub not_finite: u64,
}

/// A place where accuracy is lost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Loss {
    /// Kind of the place.
    pub what: LossPlace,
    /// Name of the place.
    pub name: String,
    /// Noise as a share of the energy. For an activation: the noise of the network's outputs when only this activation
    /// is quantized in the float network. For a unit, layer or value: the noise that it adds, as far as later values
    /// have it too.
    pub noise: f64,
}

/// The kind of place where accuracy is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossPlace {
    /// A quantized activation.
    Activation,
    /// A unit of the plan.
    Unit,
    /// A layer with a quantized weight.
    Layer,
    /// Another value that the network computes.
    Value,
}

/// The finding that the accuracy of the float network is hardly better than guessing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NearChance {
    /// The metric: `top1`, `accuracy`, `matthews` or `pearson`.
    pub metric: String,
    /// Value of the metric for the float network, in per cent.
    pub float: f64,
    /// Value of the metric for guessing, in per cent.
    pub guessing: f64,
    /// How the samples were prepared.
    pub input: Prepared,
}

/// How samples were prepared as network input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prepared {
    /// Images or arrays, unchanged.
    AsTheyAre,
    /// Images or arrays, prepared as the recipe says.
    Images,
    /// Text, by a tokenizer.
    Text,
}

/// A warning or note about the result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// Whether it is a warning: the file is probably not usable.
    pub warning: bool,
    /// One or two sentences, lowercase, without a final period.
    pub text: String,
}

impl Remark {
    /// `warning` or `note`.
    pub fn kind(&self) -> &'static str {
        if self.warning { "warning" } else { "note" }
    }
}

impl Quality {
    /// Signal-to-noise ratio, in dB, below which there is a warning: the noise is more than 1 % of the signal's energy.
    pub const LOW: f64 = 20.0;

    /// Noise as a share of the energy, in the output where it is largest.
    pub fn noise(&self) -> f64 {
        self.snr_db.map_or(0.0, |db| 10f64.powf(-db / 10.0))
    }

    /// Whether there is a warning.
    pub fn is_low(&self) -> bool {
        self.snr_db.is_some_and(|db| db < Self::LOW)
    }

    /// `64 calibration samples that the run did not use`.
    fn on(&self, method: MethodName) -> String {
        let samples = if self.samples == 1 { "sample" } else { "samples" };
        let n = self.samples;
        match (self.source, method) {
            (Source::LeftOut, _) => format!("{n} calibration {samples} that the run did not use"),
            (Source::Evaluation, _) => format!("{n} evaluation {samples}"),
            (Source::Calibration, MethodName::Rtn) => format!("{n} calibration {samples} that the run also used"),
            (Source::Calibration, _) => format!("{n} calibration {samples} that the run also learned from"),
        }
    }

    fn table(&self, method: MethodName) -> Table {
        let same = if self.same_top1.is_some() { "|>same top-1" } else { "" };
        let equal = if self.outputs.iter().any(|o| o.equal.is_some()) { "|>equal elements" } else { "" };
        let head = format!("output|>signal to noise|>largest difference{same}{equal}");
        let mut table = Table::new(format!("Quality on {}", self.on(method)), &head);
        let mut worst: Vec<&OutputQuality> = self.outputs.iter().collect();
        let order = |o: &OutputQuality| o.snr_db.unwrap_or(f64::INFINITY);
        worst.sort_by(|a, b| order(a).total_cmp(&order(b)));
        let least = worst.get(LISTED).map(|o| order(o));
        for (i, output) in self.outputs.iter().enumerate() {
            if least.is_some_and(|_| !worst[..LISTED].iter().any(|w| std::ptr::eq(*w, output))) {
                continue;
            }
            let mut row = vec![output.name.clone(), decibels(output.snr_db), figure(output.max_abs)];
            // The first output is the one that classifies.
            row.extend(self.same_top1.map(|same| if i == 0 { share(same / 100.0) } else { String::new() }));
            row.extend(output.equal.map(|equal| share(equal / 100.0)));
            table.row(row);
        }
        if let Some(least) = least {
            let others = self.outputs.len() - LISTED;
            table.row([
                format!("{others} more"),
                format!("at least {}", decibels(Some(least).filter(|l| l.is_finite()))),
            ]);
        }
        table
    }

    /// The warning about low quality.
    fn warning(&self, method: MethodName) -> Option<String> {
        let db = self.snr_db.filter(|_| self.is_low())?;
        let named: Vec<String> = self.losses.iter().map(Loss::words).collect();
        let lost = match named.is_empty() {
            true => "`qdrop compare` shows where".to_string(),
            false => format!("most is lost in {}", named.join(", ")),
        };
        let remedy = match method {
            MethodName::Rtn => "learn the rounding (--method qdrop), or use more bits there",
            _ => "use more bits there, let the program choose bits (--target-size), or learn longer (--iters)",
        };
        let noise = share(self.noise());
        let low = Self::LOW;
        Some(format!(
            "the outputs have a signal-to-noise ratio of {db:.1} dB, below {low} dB ({noise} noise); {lost}; {remedy}"
        ))
    }
}

impl Loss {
    /// ``activation `x` (3.1 % noise by itself)``.
    fn words(&self) -> String {
        let (name, noise) = (&self.name, share(self.noise));
        match self.what {
            LossPlace::Activation => format!("activation `{name}` ({noise} noise by itself)"),
            LossPlace::Unit => format!("unit `{name}` (adds {noise} noise)"),
            LossPlace::Layer => format!("layer `{name}` (adds {noise} noise)"),
            LossPlace::Value => format!("`{name}` (adds {noise} noise)"),
        }
    }

    /// The largest of `all`, largest first, without those that are small compared with the first.
    pub(crate) fn worst(mut all: Vec<Loss>) -> Vec<Loss> {
        all.retain(|l| l.noise > 0.0);
        all.sort_by(|a, b| b.noise.total_cmp(&a.noise));
        let most = all.first().map_or(0.0, |l| l.noise);
        all.retain(|l| l.noise >= most / 10.0);
        all.truncate(NAMED);
        all
    }
}

impl NearChance {
    /// The note about it.
    fn note(&self) -> String {
        let NearChance { float, guessing, .. } = self;
        let causes = match self.input {
            Prepared::AsTheyAre => {
                "no preparation is set, so pixel values are passed on as 0 to 255: set the preparation used in \
                 training (--input, or --divisor, --mean, --std); otherwise the order of axes, colours or labels may \
                 be wrong (--layout, --color)"
            }
            Prepared::Images => {
                "samples may be prepared differently than in training (--input, --divisor, --mean, --std), or the \
                 order of axes, colours or labels may be wrong (--layout, --color)"
            }
            Prepared::Text => {
                "the tokenizer (--tokenizer), the task (--task) or the order of labels may differ from training"
            }
        };
        let metric = metric(&self.metric);
        format!("{metric} of the float network is {float:.2} %, hardly above guessing ({guessing:.2} %); {causes}")
    }
}

/// The noise that each of several steps adds to that of the steps `before` it, which have smaller indices. Noise that
/// no later step has is not counted: values that are merely scaled in one of the two networks differ much, but the
/// values after them do not.
pub(crate) fn added(noise: &[f64], before: &[Vec<usize>]) -> Vec<f64> {
    let mut kept = noise.to_vec();
    let mut behind: Vec<Option<f64>> = vec![None; noise.len()];
    for i in (0..noise.len()).rev() {
        kept[i] = behind[i].map_or(kept[i], |most| kept[i].min(most));
        for &b in &before[i] {
            behind[b] = Some(behind[b].map_or(kept[i], |most| most.max(kept[i])));
        }
    }
    let from = |i: usize| before[i].iter().map(|&b| kept[b]).fold(0.0, f64::max);
    (0..noise.len()).map(|i| kept[i] - from(i)).collect()
}

impl Report {
    /// The places where most is lost, from what the run measured anyway: activations by their effect alone, if all of
    /// them together explain half of the outputs' `noise`; else units by the noise that they add. Empty if nothing is
    /// known.
    pub(crate) fn known_losses(&self, noise: f64) -> Vec<Loss> {
        let loss = |what, name: &str, noise| Loss { what, name: name.to_string(), noise };
        let effects = self.sites.iter().filter_map(|s| Some((s, s.effect?.refined)));
        let sites: Vec<Loss> =
            effects.filter(|e| e.1.is_finite()).map(|(s, e)| loss(LossPlace::Activation, &s.name, e)).collect();
        if sites.iter().map(|l| l.noise).sum::<f64>() >= noise / 2.0 {
            let sites = Loss::worst(sites);
            if !sites.is_empty() {
                return sites;
            }
        }
        let solved = |u: usize| self.units.iter().find(|r| r.unit == Some(u));
        let before: Vec<Vec<usize>> = (0..self.plan.len())
            .map(|u| {
                let reads = |b: &usize| self.plan[*b].outputs.iter().any(|v| self.plan[u].inputs.contains(v));
                (0..u).filter(reads).collect()
            })
            .collect();
        let mut noises: Vec<f64> = Vec::new();
        for (u, before) in before.iter().enumerate() {
            let own = |r: &UnitReport| r.snr_after.map_or(0.0, |db| 10f64.powf(-db / 10.0));
            let inherited = before.iter().map(|&b| noises[b]).fold(0.0, f64::max);
            noises.push(solved(u).map_or(inherited, own));
        }
        let added = added(&noises, &before);
        let units = (0..self.plan.len()).filter(|&u| solved(u).is_some());
        Loss::worst(units.map(|u| loss(LossPlace::Unit, &self.plan[u].name, added[u])).collect())
    }

    /// The beginning of the report: the quality of the file, in sentences.
    pub fn verdict(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(q) = self.quality.as_ref().filter(|q| !q.outputs.is_empty()) {
            let top1 =
                q.same_top1.map(|same| format!(", and {} keep the float network's top-1 class", share(same / 100.0)));
            let least =
                |of: &dyn Fn(&OutputQuality) -> Option<f64>| q.outputs.iter().filter_map(of).min_by(f64::total_cmp);
            let real = q.outputs.iter().any(|o| o.equal.is_none());
            let what = match (q.partial, q.ordered.is_empty()) {
                (true, _) => "last values that can be computed",
                (false, false) => "values before the choice of rows",
                (false, true) => "outputs",
            };
            let outputs = match (q.snr_db, least(&|o| o.equal)) {
                (Some(db), _) => {
                    format!(
                        "the written file's {what} have a signal-to-noise ratio of {db:.1} dB, compared with the float \
                         network's"
                    )
                }
                (None, Some(equal)) if !real => {
                    format!("{} of the written file's answers equal the float network's", share(equal / 100.0))
                }
                _ => format!("the written file's {what} equal the float network's"),
            };
            lines.push(format!("On {}, {outputs}{}.", q.on(self.method), top1.unwrap_or_default()));
        }
        if let Some(l) = &self.latency {
            let (float, result, of) = (l.float_ms, l.result_ms, share(l.result_ms / l.float_ms));
            let runtime = &l.runtime;
            lines.push(format!(
                "In {runtime} the written file takes {result:.3} ms, the float network {float:.3} ms ({of})."
            ));
        }
        lines
    }

    /// Warnings and notes about the result, warnings first.
    pub fn remarks(&self) -> Vec<Remark> {
        let warning = self.quality.as_ref().and_then(|q| q.warning(self.method));
        let strange = self.quality.iter().flat_map(|q| &q.outputs).filter(|o| o.not_finite > 0).map(|o| {
            let (name, n) = (&o.name, o.not_finite);
            format!("output `{name}`: {n} elements are infinite or NaN in only one of the two networks")
        });
        let warnings = warning.into_iter().chain(strange).map(|text| Remark { warning: true, text });
        let unknown = self.quality.as_ref().filter(|q| q.outputs.is_empty()).map(|_| {
            "no output of the network can be computed here, so the quality of the file is unknown".to_string()
        });
        let partial = self.quality.as_ref().filter(|q| q.partial && !q.outputs.is_empty()).map(|_| {
            "some outputs of the network cannot be computed here; the last values before the operators that cannot be \
             run are compared instead"
                .to_string()
        });
        let ordered = self.quality.iter().filter(|q| !q.ordered.is_empty() && !q.outputs.is_empty()).map(|q| {
            let names: Vec<String> = q.ordered.iter().map(|name| format!("`{name}`")).collect();
            format!(
                "rows of {} are in the order of scores, which the slightest noise changes, so that they are not compared; the \
                 last values before the choice of rows are",
                names.join(", ")
            )
        });
        let notes = self.near_chance.iter().map(NearChance::note).chain(unknown).chain(partial);
        let notes = notes.chain(ordered).chain(self.odd());
        warnings.chain(notes.map(|text| Remark { warning: false, text })).collect()
    }

    /// The table of quality.
    pub(super) fn quality_table(&self) -> Option<Table> {
        self.quality.as_ref().filter(|q| !q.outputs.is_empty()).map(|q| q.table(self.method))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Effect, LayerReport, PlannedUnit, SiteReport};
    use super::*;

    fn site(name: &str, effect: f64) -> SiteReport {
        let effect = Some(Effect { first: effect, refined: effect });
        SiteReport { name: name.into(), effect, ..SiteReport::default() }
    }

    fn unit(index: usize, snr: f64) -> UnitReport {
        UnitReport {
            name: format!("u{index}"),
            unit: Some(index),
            layers: vec![],
            loss_before: 1.0,
            loss_after: 1.0,
            snr_before: None,
            snr_after: Some(snr),
            iterations: 1,
            planned: 1,
            reverted: false,
            curve: super::super::Curve::default(),
            resumed: false,
            seconds: 0.0,
        }
    }

    fn quality(snr_db: f64) -> Quality {
        let output = OutputQuality { name: "logits".into(), snr_db: Some(snr_db), max_abs: 0.5, ..Default::default() };
        Quality {
            samples: 64,
            source: Source::LeftOut,
            snr_db: Some(snr_db),
            same_top1: Some(98.4375),
            partial: false,
            ordered: Vec::new(),
            outputs: vec![output],
            losses: Vec::new(),
        }
    }

    fn names(losses: &[Loss]) -> Vec<(LossPlace, &str)> {
        losses.iter().map(|l| (l.what, l.name.as_str())).collect()
    }

    #[test]
    fn activations_are_named_where_they_explain_the_noise() {
        let mut report = Report::new(MethodName::Rtn);
        report.sites = vec![site("a", 0.02), site("b", 0.001), site("c", 0.03), site("d", 0.004), site("e", 0.01)];
        let found = report.known_losses(0.1);
        let want = [(LossPlace::Activation, "c"), (LossPlace::Activation, "a"), (LossPlace::Activation, "e")];
        assert_eq!(names(&found), want);
        // Together they do a tenth of what is seen: it must be the weights.
        assert!(report.known_losses(0.7).is_empty());
        assert!(Report::new(MethodName::Rtn).known_losses(0.1).is_empty());
    }

    #[test]
    fn units_are_named_where_weights_are_the_noise() {
        let mut report = Report::new(MethodName::Qdrop);
        report.sites = vec![site("a", 1e-5)];
        let plan = |name: &str, input: &str, output: &str| PlannedUnit {
            name: name.into(),
            inputs: vec![input.into()],
            outputs: vec![output.into()],
            ..PlannedUnit::default()
        };
        report.plan =
            vec![plan("stem", "x", "a"), plan("pool", "a", "b"), plan("block", "b", "c"), plan("head", "c", "d")];
        // The pool is not learned.
        report.units = vec![unit(0, 30.0), unit(2, 10.0), unit(3, 9.9)];
        let found = report.known_losses(0.1);
        assert_eq!(names(&found), [(LossPlace::Unit, "block")], "{found:?}");
        assert!((found[0].noise - 0.099).abs() < 1e-9, "{found:?}");
    }

    #[test]
    fn noise_counts_as_far_as_later_values_have_it() {
        // The second value is scaled in one network; the third is not.
        let chain = [vec![], vec![0], vec![1], vec![2]];
        let found = added(&[0.01, 3.0, 0.02, 0.06], &chain);
        for (got, want) in found.iter().zip([0.01, 0.01, 0.0, 0.04]) {
            assert!((got - want).abs() < 1e-12, "{found:?}");
        }
        // Of two branches the noisier one counts.
        let found = added(&[0.01, 0.5, 0.02, 0.4], &[vec![], vec![0], vec![0], vec![1, 2]]);
        for (got, want) in found.iter().zip([0.01, 0.39, 0.01, 0.0]) {
            assert!((got - want).abs() < 1e-12, "{found:?}");
        }
    }

    #[test]
    fn low_quality_warns_and_names_places() {
        let mut report = Report::new(MethodName::Rtn);
        report.quality = Some(quality(31.24));
        assert!(report.remarks().is_empty());
        let want = "On 64 calibration samples that the run did not use, the written file's outputs have a \
                    signal-to-noise ratio of 31.2 dB, compared with the float network's, and 98.4 % keep the float \
                    network's top-1 class.";
        assert_eq!(report.verdict(), [want]);
        let mut low = quality(13.0);
        let loss = |what, name: &str, noise| Loss { what, name: name.into(), noise };
        low.losses = vec![loss(LossPlace::Activation, "relu", 0.03), loss(LossPlace::Layer, "conv", 0.011)];
        report.quality = Some(low);
        let [remark] = &report.remarks()[..] else { panic!() };
        assert_eq!(remark.kind(), "warning");
        assert_eq!(
            remark.text,
            "the outputs have a signal-to-noise ratio of 13.0 dB, below 20 dB (5.01 % noise); most is lost in \
             activation `relu` (3.00 % noise by itself), layer `conv` (adds 1.10 % noise); learn the rounding \
             (--method qdrop), or use more bits there"
        );
        assert!(!quality(Quality::LOW).is_low() && quality(19.99).is_low());
        // Where nothing differs there is nothing to warn about.
        assert!(!Quality { snr_db: None, ..quality(0.0) }.is_low());
    }

    #[test]
    fn chance_has_a_note_with_causes() {
        let mut report = Report::new(MethodName::Qdrop);
        let note = |input| NearChance { metric: "top1".into(), float: 12.0, guessing: 10.0, input };
        for (input, want) in [
            (Prepared::AsTheyAre, "no preparation is set"),
            (Prepared::Images, "prepared differently than in training"),
            (Prepared::Text, "--tokenizer"),
        ] {
            report.near_chance = Some(note(input));
            let [remark] = &report.remarks()[..] else { panic!() };
            let begin = "top-1 of the float network is 12.00 %, hardly above guessing (10.00 %); ";
            assert!(remark.text.starts_with(begin) && remark.text.contains(want) && !remark.warning, "{remark:?}");
        }
    }

    #[test]
    fn the_table_lists_the_worst_of_many_outputs() {
        let mut report = Report::new(MethodName::Qdrop);
        let mut many = quality(20.0);
        many.same_top1 = None;
        let output = |i: usize| OutputQuality {
            name: format!("y{i}"),
            snr_db: Some(20.0 + i as f64),
            ..many.outputs[0].clone()
        };
        many.outputs = (0..12).rev().map(output).collect();
        report.quality = Some(many);
        let table = &report.tables()[0];
        assert_eq!(table.title, "Quality on 64 calibration samples that the run did not use");
        assert_eq!(table.header, ["output", "signal to noise", "largest difference"]);
        assert_eq!(table.rows.len(), 9);
        assert_eq!((table.rows[0][0].as_str(), table.rows[7][0].as_str()), ("y7", "y0"));
        assert_eq!(table.rows[8], ["4 more", "at least 28.0 dB", ""]);
    }

    #[test]
    fn rows_that_noise_exchanges_are_named() {
        let mut report = Report::new(MethodName::Qdrop);
        report.quality = Some(Quality { ordered: vec!["boxes".into(), "labels".into()], ..quality(30.0) });
        let verdict = report.verdict().remove(0);
        assert!(verdict.contains(", the written file's values before the choice of rows have a signal"), "{verdict}");
        let [remark] = &report.remarks()[..] else { panic!() };
        assert!(!remark.warning && remark.text.starts_with("rows of `boxes`, `labels` are in the order of scores"));
    }

    #[test]
    fn what_is_unknown_is_said() {
        let mut report = Report::new(MethodName::Qdrop);
        report.quality = Some(Quality { outputs: vec![], snr_db: None, ..quality(0.0) });
        assert!(report.verdict().is_empty() && report.tables().is_empty());
        assert!(report.remarks()[0].text.starts_with("no output of the network can be computed here"));
        let mut integers = quality(0.0);
        integers.outputs[0] = OutputQuality { name: "class".into(), equal: Some(87.5), ..Default::default() };
        (integers.snr_db, integers.same_top1, integers.source) = (None, None, Source::Calibration);
        report.quality = Some(integers);
        let want = "On 64 calibration samples that the run also learned from, 87.5 % of the written file's answers \
                    equal the float network's.";
        assert_eq!(report.verdict(), [want]);
        assert_eq!(report.tables()[0].rows[0], ["class", "-", "0", "87.5 %"]);
        report.quality.as_mut().unwrap().outputs[0].not_finite = 3;
        assert!(report.remarks()[0].warning);
    }

    #[test]
    fn reports_from_before_quality_was_measured_are_read() {
        let mut report = Report::new(MethodName::Qdrop);
        report.layers.push(LayerReport::default());
        let mut json: serde_json::Value = serde_json::from_str(&report.to_json().unwrap()).unwrap();
        for key in ["quality", "near_chance"] {
            assert!(json.as_object_mut().unwrap().remove(key).is_some());
        }
        assert_eq!(Report::from_json(json.to_string().as_bytes()).unwrap(), report);
        report.quality = Some(quality(13.0));
        assert_eq!(Report::from_json(report.to_json().unwrap().as_bytes()).unwrap(), report);
    }
}
