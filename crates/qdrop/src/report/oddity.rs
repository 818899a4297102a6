//! Activations and weights that suggest a problem with the samples or the network.

use super::{Quality, Report, SiteReport};
use serde::{Deserialize, Serialize};

/// Maximum number of names that a note lists.
const NAMED: usize = 3;
/// An activation counts as uneven if at least one channel in this many is narrow.
const UNEVEN: u64 = 8;

/// Something odd about the values of an activation over all calibration samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Oddity {
    /// All values are 0.
    Zero,
    /// All values are the same number, other than 0.
    Constant,
    /// The largest value is more than [`Oddity::FAR`] times as large as 99.9 % of the values that are not 0.
    Outlier,
}

impl Oddity {
    /// The factor by which an outlier is larger than the other values.
    pub const FAR: f64 = 1e4;
}

/// `` `a`, `b` and 3 more``.
fn names<'a>(all: impl Iterator<Item = &'a str>) -> String {
    let all: Vec<String> = all.map(|name| format!("`{name}`")).collect();
    let more = if all.len() > NAMED { format!(" and {} more", all.len() - NAMED) } else { String::new() };
    format!("{}{more}", all[..all.len().min(NAMED)].join(", "))
}

impl Report {
    /// Notes about odd activations and vanished weights, one line per kind.
    pub(super) fn odd(&self) -> Vec<String> {
        let sites = |oddity: Oddity| {
            let found: Vec<&str> =
                self.sites.iter().filter(|s| s.oddity == Some(oddity)).map(|s| s.name.as_str()).collect();
            (found.len(), names(found.into_iter()))
        };
        // Narrow channels matter where the network's outputs suffer; many networks have some that nothing depends on.
        let suffers = self.quality.as_ref().is_some_and(Quality::is_low);
        let uneven = self.sites.iter().filter(|s| suffers && s.narrow > 0 && s.narrow * UNEVEN >= s.channels);
        let uneven: Vec<&SiteReport> = uneven.collect();
        let (zero, constant, outlier) = (sites(Oddity::Zero), sites(Oddity::Constant), sites(Oddity::Outlier));
        let vanished: Vec<_> = self.layers.iter().filter(|l| l.vanished > 0).collect();
        let channels: usize = vanished.iter().map(|l| l.vanished).sum();
        let of: usize = vanished.iter().map(|l| l.channels).sum();
        let (layers, named) = (vanished.len(), names(vanished.iter().map(|l| l.name.as_str())));
        let all = self.samples;
        [
            (zero.0 > 0).then(|| {
                let (n, named) = zero;
                format!(
                    "activations that are 0 in all {all} samples: {n} ({named}); their steps are not fitted to any \
                     value: calibrate on more varied samples"
                )
            }),
            (constant.0 > 0).then(|| {
                let (n, named) = constant;
                format!(
                    "activations that have the same value in all {all} samples: {n} ({named}); calibrate on more \
                     varied samples"
                )
            }),
            (outlier.0 > 0).then(|| {
                let (n, named) = outlier;
                let far = Oddity::FAR;
                format!(
                    "activations with outliers more than {far} times as large as nearly all other values: {n} \
                     ({named}); look for a broken sample, or give them more bits"
                )
            }),
            (!uneven.is_empty()).then(|| {
                let (n, named) = (uneven.len(), names(uneven.iter().map(|s| s.name.as_str())));
                let [narrow, of]: [u64; 2] =
                    [uneven.iter().map(|s| s.narrow).sum(), uneven.iter().map(|s| s.channels).sum()];
                format!(
                    "activations with channels less than 1/256 as wide as the widest, with which they share a step: \
                     {n} ({named}), {narrow} of their {of} channels; the step is too coarse for these: give them more \
                     bits"
                )
            }),
            (layers > 0).then(|| {
                format!(
                    "layers with channels whose weights all became 0: {layers} ({named}), {channels} of their {of} \
                     channels; give them more bits, or one step per channel"
                )
            }),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::MethodName;
    use crate::report::{LayerReport, Source};

    #[test]
    fn each_kind_is_one_line_however_many_there_are() {
        let mut report = Report::new(MethodName::Rtn);
        report.samples = 32;
        assert!(report.remarks().is_empty());
        let site = |i: usize| SiteReport { name: format!("s{i}"), oddity: Some(Oddity::Zero), ..SiteReport::default() };
        report.sites.extend((0..100).map(site));
        report.sites[7].oddity = Some(Oddity::Outlier);
        report.sites[8].oddity = Some(Oddity::Constant);
        let layer =
            |name: &str, vanished| LayerReport { name: name.into(), channels: 8, vanished, ..Default::default() };
        report.layers = vec![layer("a", 3), layer("b", 0), layer("c", 8)];
        let said: Vec<String> = report.remarks().into_iter().map(|r| r.text).collect();
        assert_eq!(said.len(), 4, "{said:?}");
        assert!(said[0].starts_with("activations that are 0 in all 32 samples: 98 (`s0`, `s1`, `s2` and 95 more); "));
        assert!(
            said[1].starts_with("activations that have the same value in all 32 samples: 1 (`s8`); "),
            "{}",
            said[1]
        );
        assert!(said[2].contains("more than 10000 times as large as nearly all other values: 1 (`s7`)"), "{}", said[2]);
        let want = "layers with channels whose weights all became 0: 2 (`a`, `c`), 11 of their 16 channels";
        assert!(said[3].starts_with(want), "{}", said[3]);
        assert!(report.remarks().iter().all(|r| !r.warning));
    }

    #[test]
    fn uneven_channels_are_told_where_the_outputs_suffer() {
        let mut report = Report::new(MethodName::Rtn);
        let site = |name: &str, narrow| SiteReport { name: name.into(), channels: 16, narrow, ..SiteReport::default() };
        report.sites = vec![site("a", 7), site("b", 1), site("c", 2)];
        let said = |report: &Report| report.odd().concat();
        assert_eq!(said(&report), "");
        let quality = |db| Quality {
            samples: 32,
            source: Source::LeftOut,
            snr_db: Some(db),
            same_top1: None,
            outputs: Vec::new(),
            partial: false,
            ordered: Vec::new(),
            losses: Vec::new(),
        };
        report.quality = Some(quality(30.0));
        assert_eq!(said(&report), "");
        report.quality = Some(quality(12.0));
        assert!(said(&report).contains("share a step: 2 (`a`, `c`), 9 of their 32 channels;"), "{}", said(&report));
    }
}
