//! The twelve figures of COCO, as `COCOeval` of pycocotools computes them for boxes.

use super::truth::{Annotation, Detection, Truth};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Names of the figures, in the order in which pycocotools prints them.
pub const FIGURES: [&str; 12] =
    ["ap", "ap50", "ap75", "ap_s", "ap_m", "ap_l", "ar1", "ar10", "ar100", "ar_s", "ar_m", "ar_l"];

/// Thresholds of the overlap from which on a detection matches: 0.5 to 0.95.
const THRESHOLDS: usize = 10;
/// The thresholds 0.5 and 0.75 among them.
const HALF: usize = 0;
const THREE_QUARTERS: usize = 5;
/// Recalls at which the precision is read: 0 to 1.
const RECALLS: usize = 101;
/// Most detections of a category in an image.
const MOST: [usize; 3] = [1, 10, 100];
/// Areas of all, small, medium and large objects, in pixels, with both ends.
const AREAS: [(f64, f64); 4] = [(0.0, 1e10), (0.0, 1024.0), (1024.0, 9216.0), (9216.0, 1e10)];

/// The figures of a set of detections, in per cent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figures([Option<f64>; 12]);

impl Figures {
    /// The figure `name` (one of [`FIGURES`]) in per cent: mean average precision (`ap`; `ap50` and `ap75` at an overlap
    /// of 0.5 and 0.75; `ap_s`, `ap_m` and `ap_l` of small, medium and large objects), or mean recall with so many
    /// detections (`ar1`, `ar10`, `ar100`) or of objects of a size. `None` where there is no such object, for which
    /// pycocotools prints -1.
    pub fn get(&self, name: &str) -> Option<f64> {
        FIGURES.iter().position(|f| *f == name).and_then(|i| self.0[i])
    }

    /// The figures that there are, with their names.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, f64)> + '_ {
        FIGURES.iter().zip(&self.0).filter_map(|(name, value)| Some((*name, (*value)?)))
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.iter().map(|(name, value)| format!("{name} {value:.2} %")).collect();
        f.write_str(&all.join(", "))
    }
}

/// A detection of a category, as one area range sees it: at which thresholds it matches, and at which it counts nowhere.
#[derive(Clone, Copy)]
struct Judged {
    score: f64,
    matched: u16,
    ignored: u16,
}

/// An image as one area range sees it.
struct Seen {
    judged: Vec<Judged>,
    /// Objects that count.
    objects: usize,
}

/// Mean over categories: sum and number.
#[derive(Clone, Copy, Default)]
struct Mean(f64, usize);

impl Mean {
    fn add(&mut self, value: f64) {
        (self.0, self.1) = (self.0 + value, self.1 + 1);
    }

    fn percent(self) -> Option<f64> {
        (self.1 > 0).then(|| 100.0 * self.0 / self.1 as f64)
    }
}

/// The figures of `detections`, all of which are checked, in `images`.
pub(super) fn figures(truth: &Truth, images: &BTreeSet<i64>, detections: &[Detection]) -> Figures {
    let mut found: BTreeMap<(i64, i64), Vec<&Detection>> = BTreeMap::new();
    for d in detections.iter().filter(|d| images.contains(&d.image)) {
        found.entry((d.category, d.image)).or_default().push(d);
    }
    let mut objects: BTreeMap<(i64, i64), Vec<&Annotation>> = BTreeMap::new();
    for a in images.iter().flat_map(|&i| truth.annotations(i)) {
        objects.entry((a.category, a.image)).or_default().push(a);
    }
    let mut means = [Mean::default(); 12];
    for category in truth.categories() {
        let range = (category.id, i64::MIN)..=(category.id, i64::MAX);
        let with_objects = objects.range(range.clone()).map(|(key, _)| key.1);
        let places: BTreeSet<i64> = found.range(range).map(|(key, _)| key.1).chain(with_objects).collect();
        let mut seen: [Vec<Seen>; AREAS.len()] = Default::default();
        for image in places {
            let found = found.get(&(category.id, image)).map_or(&[][..], |f| f);
            let objects = objects.get(&(category.id, image)).map_or(&[][..], |o| o);
            let image = Overlaps::new(found, objects);
            seen.iter_mut().zip(AREAS).for_each(|(seen, area)| seen.push(image.judge(area)));
        }
        let all = |most| curve(&seen[0], most);
        if let [Some(one), Some(ten), Some(hundred)] = MOST.map(all) {
            means[0].add(hundred.precision.iter().sum::<f64>() / THRESHOLDS as f64);
            means[1].add(hundred.precision[HALF]);
            means[2].add(hundred.precision[THREE_QUARTERS]);
            for (k, curve) in [one, ten, hundred].iter().enumerate() {
                means[6 + k].add(curve.recall.iter().sum::<f64>() / THRESHOLDS as f64);
            }
        }
        for (k, seen) in seen[1..].iter().enumerate() {
            if let Some(curve) = curve(seen, MOST[2]) {
                means[3 + k].add(curve.precision.iter().sum::<f64>() / THRESHOLDS as f64);
                means[9 + k].add(curve.recall.iter().sum::<f64>() / THRESHOLDS as f64);
            }
        }
    }
    Figures(means.map(Mean::percent))
}

/// The detections of a category in an image, the best first, and how much they overlap its objects.
struct Overlaps<'a> {
    found: Vec<&'a Detection>,
    objects: &'a [&'a Annotation],
    /// Overlap of each detection with each object.
    overlaps: Vec<f64>,
}

impl<'a> Overlaps<'a> {
    fn new(found: &[&'a Detection], objects: &'a [&'a Annotation]) -> Self {
        let mut found = found.to_vec();
        // Stable: among equal scores the order of the file.
        found.sort_by(|a, b| falling(a.score, b.score));
        found.truncate(MOST[2]);
        let overlaps = found.iter().flat_map(|d| objects.iter().map(|o| overlap(d, o))).collect();
        Overlaps { found, objects, overlaps }
    }

    /// What matches what, where objects outside `area` are ignored.
    fn judge(&self, area: (f64, f64)) -> Seen {
        let outside = |x: f64| x < area.0 || x > area.1;
        let ignored: Vec<bool> = self.objects.iter().map(|o| o.crowd || outside(o.area)).collect();
        // Those that are ignored come last.
        let mut order: Vec<usize> = (0..self.objects.len()).collect();
        order.sort_by_key(|&o| ignored[o]);
        let blank = |d: &&Detection| Judged { score: d.score, matched: 0, ignored: 0 };
        let mut judged: Vec<Judged> = self.found.iter().map(blank).collect();
        for t in 0..THRESHOLDS {
            let mut taken = vec![false; self.objects.len()];
            for (d, judged) in judged.iter_mut().enumerate() {
                if let Some(o) = self.best(d, threshold(t), (&order, &ignored, &taken)) {
                    taken[o] = true;
                    judged.matched |= 1 << t;
                    judged.ignored |= u16::from(ignored[o]) << t;
                }
            }
        }
        for (d, judged) in self.found.iter().zip(&mut judged) {
            if outside(d.bbox[2] * d.bbox[3]) {
                judged.ignored |= !judged.matched;
            }
        }
        Seen { judged, objects: ignored.iter().filter(|i| !**i).count() }
    }

    /// The object that detection `d` matches: of those not taken the one with the largest overlap of at least `least`, one
    /// that counts before one that is ignored. A crowd is never taken.
    fn best(&self, d: usize, least: f64, (order, ignored, taken): (&[usize], &[bool], &[bool])) -> Option<usize> {
        let (mut best, mut least) = (None, least);
        for &o in order {
            if taken[o] && !self.objects[o].crowd {
                continue;
            }
            if ignored[o] && best.is_some_and(|b: usize| !ignored[b]) {
                break;
            }
            let overlap = self.overlaps[d * self.objects.len() + o];
            if overlap >= least {
                (best, least) = (Some(o), overlap);
            }
        }
        best
    }
}

/// The larger score first; 0 and -0 are equal.
fn falling(a: f64, b: f64) -> Ordering {
    b.partial_cmp(&a).unwrap_or(Ordering::Equal)
}

/// Threshold `t`, rounded as numpy's `linspace` rounds it.
fn threshold(t: usize) -> f64 {
    let step = (0.95 - 0.5) / (THRESHOLDS - 1) as f64;
    if t + 1 == THRESHOLDS { 0.95 } else { t as f64 * step + 0.5 }
}

/// Recall `r`, rounded in the same way.
fn recall(r: usize) -> f64 {
    if r + 1 == RECALLS { 1.0 } else { r as f64 * (1.0 / (RECALLS - 1) as f64) }
}

/// Area that both boxes share, of the area that either has; of a crowd, of the area of the detection.
fn overlap(found: &Detection, object: &Annotation) -> f64 {
    let ([dx, dy, dw, dh], [gx, gy, gw, gh]) = (found.bbox, object.bbox);
    let width = (dw + dx).min(gw + gx) - dx.max(gx);
    let height = (dh + dy).min(gh + gy) - dy.max(gy);
    if width <= 0.0 || height <= 0.0 {
        return 0.0;
    }
    let shared = width * height;
    shared / if object.crowd { dw * dh } else { dw * dh + gw * gh - shared }
}

/// Mean precision over all recalls and the largest recall, at each threshold.
struct Curve {
    precision: [f64; THRESHOLDS],
    recall: [f64; THRESHOLDS],
}

/// The curve of a category over images, with at most so many detections in each; `None` where no object counts.
fn curve(seen: &[Seen], most: usize) -> Option<Curve> {
    let objects: usize = seen.iter().map(|s| s.objects).sum();
    if objects == 0 {
        return None;
    }
    let mut judged: Vec<Judged> = seen.iter().flat_map(|s| s.judged.iter().take(most)).copied().collect();
    // Stable: among equal scores in the order of the images.
    judged.sort_by(|a, b| falling(a.score, b.score));
    let mut curve = Curve { precision: [0.0; THRESHOLDS], recall: [0.0; THRESHOLDS] };
    for t in 0..THRESHOLDS {
        let (mut right, mut wrong) = (0.0, 0.0);
        let mut points: Vec<(f64, f64)> = Vec::with_capacity(judged.len());
        for j in &judged {
            let (matched, ignored) = (j.matched >> t & 1 == 1, j.ignored >> t & 1 == 1);
            right += f64::from(u8::from(matched && !ignored));
            wrong += f64::from(u8::from(!matched && !ignored));
            points.push((right / objects as f64, right / f64::max(wrong + right, 1.0)));
        }
        curve.recall[t] = points.last().map_or(0.0, |p| p.0);
        // The precision at a recall is the best one at that recall or a larger one.
        for i in (1..points.len()).rev() {
            points[i - 1].1 = points[i - 1].1.max(points[i].1);
        }
        let at = |r: usize| points.get(points.partition_point(|p| p.0 < recall(r))).map_or(0.0, |p| p.1);
        curve.precision[t] = (0..RECALLS).map(at).sum::<f64>() / RECALLS as f64;
    }
    Some(curve)
}
