//! The family of a file by the shapes of its outputs.

use super::anchors::{Anchors, PER_CELL, STRIDES};
use super::cells::{Cells, Channels, count, grid};
use super::distributions::Distributions;
use super::ends::{self, Ends};
use super::queries::Queries;
use super::{Detector, Family, Output};
use crate::error::{Error, Result};
use std::fmt;

/// Sets of strides that files without anchors have.
const LEVELS: [&[usize]; 3] = [&[8, 16, 32], &[8, 16, 32, 64], &[4, 8, 16, 32]];
/// Stride of the maps from which masks are made.
const PROTOTYPES: usize = 4;
/// Bins of a distribution: of NanoDet and PicoDet, and of GFL.
const BINS: [usize; 2] = [8, 17];

/// What outputs hold.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Form {
    /// `raw`: whether boxes are offsets; `None` where the values will tell.
    Cells {
        form: Cells,
        raw: Option<bool>,
    },
    Channels(Channels),
    Distributions(Distributions),
    Anchors(Anchors),
    Queries(Queries),
    Ends(Ends),
}

impl Form {
    pub(super) fn classes(&self) -> Option<usize> {
        match self {
            Form::Cells { form, .. } => Some(form.classes),
            Form::Channels(form) => Some(form.classes),
            Form::Distributions(form) => Some(form.classes),
            Form::Anchors(form) => Some(form.classes),
            Form::Queries(form) => Some(form.classes),
            Form::Ends(_) => None,
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Form::Cells { form: Cells { strides, classes, masks, anchors }, raw } => {
                let what = match raw {
                    Some(true) => "offsets",
                    Some(false) => "a box in pixels",
                    None => "a box (in pixels or not: the values tell)",
                };
                let each = if *anchors == 1 { String::new() } else { format!("{anchors} anchors of ") };
                let scores = scored(*classes, *masks);
                write!(f, "{what}, objectness and {scores} for {each}each cell of strides {}", listed(strides))
            }
            Form::Channels(Channels { classes, masks, .. }) => {
                write!(f, "a box in pixels and {} for each cell", scored(*classes, *masks))
            }
            Form::Distributions(Distributions { strides, classes, bins, .. }) => {
                write!(
                    f,
                    "{classes} scores and distributions over {bins} distances for each cell of strides {strides:?}"
                )
            }
            Form::Anchors(form) => write!(f, "{} scores and offsets for each anchor of torchvision's", form.classes),
            Form::Queries(form) => write!(f, "{} scores and a box for each query", form.classes),
            Form::Ends(Ends::Rows { columns }) if *columns > ends::COLUMNS => {
                let masks = columns - ends::COLUMNS;
                write!(f, "final boxes and {masks} coefficients of masks, which are not read, for each")
            }
            Form::Ends(_) => f.write_str("final boxes"),
        }
    }
}

/// Scores and what lies behind them, in words.
fn scored(classes: usize, masks: usize) -> String {
    match masks {
        0 => format!("{classes} scores"),
        _ => format!("{classes} scores, and {masks} coefficients of masks, which are not read,"),
    }
}

fn listed(numbers: &[usize]) -> String {
    numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}

/// Outputs with the numbers of rows and columns that they have behind a batch axis.
struct Outputs<'a> {
    all: &'a [Output<'a>],
    canvas: (usize, usize),
    /// Categories of the set.
    classes: Option<usize>,
}

/// What was recognised, and the outputs that are read.
type Recognised = Option<(Form, Vec<usize>)>;

/// The detector with these `outputs`.
pub(super) fn recognise(
    outputs: &[Output<'_>],
    canvas: (usize, usize),
    classes: Option<usize>,
    family: Option<Family>,
) -> Result<Detector> {
    let seen = Outputs { all: outputs, canvas, classes };
    let shown = |index: &usize| format!("`{}` {:?}", outputs[*index].name, outputs[*index].shape);
    let make = |family: Family, (form, read): (Form, Vec<usize>)| {
        let shapes: Vec<String> = read.iter().map(shown).collect();
        let size = |i: &usize| outputs[*i].shape.iter().fold(1usize, |all, &n| all.saturating_mul(n));
        let sizes = read.iter().map(size).collect();
        Detector { family, form, canvas, outputs: read, sizes, shapes: shapes.join(", ") }
    };
    let found = match family {
        Some(family) => seen.of(family, true).map(|found| make(family, found)),
        None => Family::ALL.iter().find_map(|&f| seen.of(f, false).map(|found| make(f, found))),
    };
    found.ok_or_else(|| {
        let shapes: Vec<String> = (0..outputs.len()).map(|i| shown(&i)).collect();
        let shapes = if shapes.is_empty() { "none".into() } else { shapes.join(", ") };
        let (height, width) = canvas;
        let message = match family {
            Some(family) => {
                format!("the outputs are not those of family `{family}` for an input of {height} x {width}")
            }
            None => format!("the outputs are those of no known family of detectors for an input of {height} x {width}"),
        };
        if family.is_none() && seen.are_maps() {
            let hint = "export the network with its decoding, as its project does for inference, or write the detections to \
                        a file yourself and give it with --detections";
            let message = format!("the outputs are maps of heads, whose anchors and scales the file does not tell: {shapes}");
            return Error::unsupported(message).hint(hint);
        }
        let known: Vec<String> = match family {
            Some(family) => vec![format!("{family}: {}", family.outputs())],
            None => Family::ALL.iter().map(|f| format!("{f}: {}", f.outputs())).collect(),
        };
        Error::unsupported(format!("{message}: {shapes}")).hint(format!(
            "expected {}; for others write the detections to a file yourself and give it with --detections",
            known.join("; ")
        ))
    })
}

impl Outputs<'_> {
    /// What the outputs are as those of `family`; `asked` where the user says that they are.
    fn of(&self, family: Family, asked: bool) -> Recognised {
        match family {
            Family::Yolox => self.yolox(if asked { Some(true) } else { None }),
            Family::YoloxDecoded if asked => self.yolox(Some(false)),
            // Told from YOLOX by values.
            Family::YoloxDecoded => None,
            Family::Yolov5 => self.yolov5(),
            Family::Yolov8 => self.yolov8(asked),
            Family::Nanodet => self.nanodet(asked).or_else(|| self.levels(&LEVELS[..1])),
            Family::Picodet => self.levels(&LEVELS[1..2]),
            Family::Retinanet => self.anchors(false).or_else(|| self.maps()),
            Family::Fcos => self.anchors(true),
            Family::Detr => self.queries(true, asked),
            Family::RtDetr => self.queries(false, asked).or_else(|| self.joined_queries(asked)),
            Family::EndToEnd => self.ends(),
        }
    }

    /// Rows and columns of output `index`, which has a batch axis of 1.
    fn rows(&self, index: usize) -> Option<(usize, usize)> {
        match *self.all.get(index)?.shape {
            [1, rows, columns] => Some((rows, columns)),
            _ => None,
        }
    }

    /// The first output of rows and columns that `fits` takes, and what it makes of it.
    fn single<T>(&self, fits: impl Fn(usize, usize) -> Option<T>) -> Option<(usize, T)> {
        (0..self.all.len()).find_map(|i| self.rows(i).and_then(|(r, c)| fits(r, c)).map(|found| (i, found)))
    }

    /// The strides whose cells are `cells`.
    fn strides(&self, cells: usize) -> Option<Vec<usize>> {
        LEVELS.iter().find(|s| count(self.canvas, s) == cells).map(|s| s.to_vec())
    }

    /// What the columns of a file with one row per cell are: the number of those that are no scores.
    fn beside_scores(&self, columns: usize) -> Option<usize> {
        let known = self.classes.and_then(|c| columns.checked_sub(c));
        let distributions = BINS.map(|b| 4 * b);
        match known {
            Some(n) if n == 4 || n == 5 || distributions.contains(&n) => Some(n),
            // Another number of classes than expected. COCO's 80 classes are likelier than 107 with objectness.
            _ => match columns.checked_sub(80) {
                Some(n) if distributions.contains(&n) => Some(n),
                _ => (columns > 5).then_some(5),
            },
        }
    }

    fn yolox(&self, raw: Option<bool>) -> Recognised {
        let (index, form) = self.single(|rows, columns| {
            let strides = self.strides(rows)?;
            // No network of this family finds masks.
            let told = || self.masks() == 0 && self.beside_scores(columns) == Some(5);
            let fits = columns > 5 && (raw.is_some() || told());
            fits.then(|| Cells { strides, classes: columns - 5, masks: 0, anchors: 1 })
        })?;
        Some((Form::Cells { form, raw }, vec![index]))
    }

    fn yolov5(&self) -> Recognised {
        let masks = self.masks();
        let (index, form) = self.single(|rows, columns| {
            let strides = self.strides(rows / 3).filter(|_| rows.is_multiple_of(3))?;
            let classes = columns.checked_sub(masks.saturating_add(5)).filter(|&c| c > 0)?;
            Some(Cells { strides, classes, masks, anchors: 3 })
        })?;
        Some((Form::Cells { form, raw: Some(false) }, vec![index]))
    }

    /// Coefficients of masks behind the scores of a box: as many as there are prototypes in a map of stride 4.
    fn masks(&self) -> usize {
        let map = |o: &Output| match *o.shape {
            [1, prototypes, height, width] if (height, width) == grid(self.canvas, PROTOTYPES) => Some(prototypes),
            _ => None,
        };
        self.all.iter().find_map(map).unwrap_or(0)
    }

    fn yolov8(&self, asked: bool) -> Recognised {
        let masks = self.masks();
        let classes = |columns: usize| columns.checked_sub(masks.saturating_add(4)).filter(|&c| c > 0);
        let by_row = |rows: usize, columns: usize| {
            let classes = classes(columns).filter(|&c| asked || self.classes == Some(c))?;
            self.strides(rows).map(|_| Channels { rows, classes, masks, by_row: true })
        };
        let by_channel = |rows: usize, columns: usize| {
            let classes = classes(rows)?;
            self.strides(columns).map(|_| Channels { rows: columns, classes, masks, by_row: false })
        };
        let (index, form) = self.single(|r, c| by_channel(r, c).or_else(|| by_row(r, c)))?;
        Some((Form::Channels(form), vec![index]))
    }

    fn nanodet(&self, asked: bool) -> Recognised {
        let (index, form) = self.single(|rows, columns| {
            let strides = self.strides(rows).filter(|s| s[0] == 8)?;
            let beside = match self.beside_scores(columns) {
                Some(n) if n > 5 => n,
                // With a number of classes that the set does not have.
                _ if asked && columns > 4 * BINS[0] => 4 * BINS[0],
                _ => return None,
            };
            // The points of NanoDet-Plus, which has four levels, are the corners of the cells.
            let centre = if strides.len() == 3 { 0.5 } else { 0.0 };
            Some(Distributions { strides, classes: columns - beside, bins: beside / 4, centre, by_level: false })
        })?;
        Some((Form::Distributions(form), vec![index]))
    }

    /// Scores and distributions with outputs for each level of one of these sets of strides.
    fn levels(&self, sets: &[&[usize]]) -> Recognised {
        sets.iter().find_map(|strides| {
            let mut pairs = Vec::new();
            for &stride in *strides {
                let (h, w) = grid(self.canvas, stride);
                let own: Vec<usize> =
                    (0..self.all.len()).filter(|&i| self.rows(i).is_some_and(|r| r.0 == h * w)).collect();
                let [a, b] = own[..] else { return None };
                let (first, second) = (self.rows(a)?.1, self.rows(b)?.1);
                pairs.push(((a, first), (b, second)));
            }
            let is_distances = |n: usize| BINS.contains(&(n / 4)) && n.is_multiple_of(4);
            let &((_, first), (_, second)) = pairs.first()?;
            let swap = match self.classes {
                Some(c) if first == c && is_distances(second) => false,
                Some(c) if second == c && is_distances(first) => true,
                _ if is_distances(second) => false,
                _ if is_distances(first) => true,
                _ => return None,
            };
            let pairs: Vec<_> = pairs.into_iter().map(|(a, b)| if swap { (b, a) } else { (a, b) }).collect();
            let (classes, sides) = (pairs[0].0.1, pairs[0].1.1);
            if pairs.iter().any(|(a, b)| (a.1, b.1) != (classes, sides)) || pairs.len() * 2 != self.all.len() {
                return None;
            }
            let read = pairs.iter().map(|p| p.0.0).chain(pairs.iter().map(|p| p.1.0)).collect();
            let bins = sides / 4;
            let strides = strides.to_vec();
            Some((Form::Distributions(Distributions { strides, classes, bins, centre: 0.5, by_level: true }), read))
        })
    }

    /// Numbers of scores, boxes and, where they are `centred`, centredness among `own`, with the number of classes.
    fn heads(&self, own: &[usize], centred: bool) -> Option<(Vec<usize>, usize)> {
        if own.len() != if centred { 3 } else { 2 } {
            return None;
        }
        let named = |index: usize, parts: &[&str]| {
            let name = self.all[index].name.to_lowercase();
            parts.iter().any(|p| name.contains(p))
        };
        // Among several that fit the one with the name, else the last.
        let pick = |columns: usize, from: &[usize], parts: &[&str]| {
            let fit = || from.iter().copied().filter(|&i| self.rows(i).is_some_and(|r| r.1 == columns));
            fit().find(|&i| named(i, parts)).or_else(|| fit().next_back())
        };
        let boxes = pick(4, own, &["box", "reg", "loc"])?;
        let mut left: Vec<usize> = own.iter().copied().filter(|&i| i != boxes).collect();
        let mut read = vec![boxes];
        if centred {
            let centre = pick(1, &left, &["ctr", "cent"])?;
            left.retain(|&i| i != centre);
            read.push(centre);
        }
        let scores = *left.first()?;
        read.insert(0, scores);
        Some((read, self.rows(scores)?.1))
    }

    fn anchors(&self, centred: bool) -> Recognised {
        let per_cell = if centred { 1 } else { PER_CELL };
        let with = |rows: usize| -> Vec<usize> {
            (0..self.all.len()).filter(|&i| self.rows(i).is_some_and(|r| r.0 == rows)).collect()
        };
        let all = with(per_cell * count(self.canvas, &STRIDES));
        if let Some((read, classes)) = self.heads(&all, centred) {
            return Some((Form::Anchors(Anchors { classes, by_level: false, maps: false, centred }), read));
        }
        // Levels of one size lie in the order of the strides.
        let mut used = Vec::new();
        let (mut levels, mut found): (Vec<Vec<usize>>, Option<usize>) = (Vec::new(), None);
        for stride in STRIDES {
            let (h, w) = grid(self.canvas, stride);
            let mut own: Vec<usize> = with(per_cell * h * w).into_iter().filter(|i| !used.contains(i)).collect();
            let same = STRIDES.iter().filter(|&&s| grid(self.canvas, s) == (h, w) && s >= stride).count().max(1);
            if own.len().is_multiple_of(same) && same > 1 {
                own = self.first_of(&own, same);
            }
            let (read, classes) = self.heads(&own, centred)?;
            if *found.get_or_insert(classes) != classes {
                return None;
            }
            used.extend(&read);
            levels.push(read);
        }
        let kinds = levels[0].len();
        let read = (0..kinds).flat_map(|kind| levels.iter().map(move |l| l[kind])).collect();
        Some((Form::Anchors(Anchors { classes: found?, by_level: true, maps: false, centred }), read))
    }

    /// Scores and offsets of RetinaNet's anchors in ten maps, those of scores and those of offsets each from the finest level on.
    fn maps(&self) -> Recognised {
        let map = |i: usize| match *self.all[i].shape {
            [1, channels, height, width] => Some((channels, (height, width))),
            _ => None,
        };
        let all: Vec<_> = (0..self.all.len()).map(map).collect::<Option<_>>()?;
        let (boxes, scores): (Vec<usize>, Vec<usize>) = (0..all.len()).partition(|&i| all[i].0 == 4 * PER_CELL);
        let channels = all[*scores.first()?].0;
        let of_levels = |own: &[usize]| own.iter().map(|&i| all[i].1).eq(STRIDES.map(|s| grid(self.canvas, s)));
        let fits = of_levels(&boxes) && of_levels(&scores) && scores.iter().all(|&i| all[i].0 == channels);
        if !fits || channels == 0 || !channels.is_multiple_of(PER_CELL) {
            return None;
        }
        let form = Anchors { classes: channels / PER_CELL, by_level: true, maps: true, centred: false };
        Some((Form::Anchors(form), [scores, boxes].concat()))
    }

    /// Whether outputs are maps of heads: [1, channels, h, w] or [1, anchors, h, w, channels] over the cells of a stride.
    fn are_maps(&self) -> bool {
        let over_cells = |output: &Output| match *output.shape {
            [1, _, h, w] | [1, _, h, w, _] => STRIDES.iter().any(|&s| grid(self.canvas, s) == (h, w)),
            _ => false,
        };
        !self.all.is_empty() && self.all.iter().all(over_cells)
    }

    /// Of outputs `own`, which belong to `levels` levels, those of the first: the first of each number of columns.
    fn first_of(&self, own: &[usize], levels: usize) -> Vec<usize> {
        let mut first: Vec<usize> = Vec::new();
        let mut columns: Vec<usize> = Vec::new();
        for &i in own {
            let width = self.rows(i).map_or(0, |r| r.1);
            let all = own.iter().filter(|&&j| self.rows(j).is_some_and(|r| r.1 == width)).count();
            let before = columns.iter().filter(|&&c| c == width).count();
            if before < all / levels {
                first.push(i);
                columns.push(width);
            }
        }
        first
    }

    /// Queries with scores and boxes in two outputs.
    fn queries(&self, softmax: bool, asked: bool) -> Recognised {
        let queries: Vec<usize> = (0..self.all.len()).filter(|&i| self.rows(i).is_some()).collect();
        let (read, columns) = self.heads(&queries, false)?;
        if self.rows(read[0])?.0 != self.rows(read[1])?.0 {
            return None;
        }
        // COCO's numbers go up to 90, and its categories are 80; a further class is that of no object.
        let with_none = match self.classes {
            Some(c) if columns == c => false,
            Some(c) if columns == c + 1 => true,
            _ => columns == 92 || columns == 81,
        };
        if (!asked && softmax != with_none) || (softmax && columns < 2) {
            return None;
        }
        let classes = columns - usize::from(softmax);
        Some((Form::Queries(Queries { classes, softmax, joined: false }), read))
    }

    /// Queries whose boxes and scores lie in one output.
    fn joined_queries(&self, asked: bool) -> Recognised {
        let final_boxes = self.end_columns();
        let (index, classes) = self.single(|_, columns| {
            let classes = columns.checked_sub(4).filter(|&c| c > 0)?;
            (asked || (columns != final_boxes && self.classes == Some(classes))).then_some(classes)
        })?;
        Some((Form::Queries(Queries { classes, softmax: false, joined: true }), vec![index]))
    }

    /// Columns of final boxes in rows.
    fn end_columns(&self) -> usize {
        self.masks().saturating_add(ends::COLUMNS)
    }

    fn ends(&self) -> Recognised {
        if let Some(lists) = self.lists() {
            return Some(lists);
        }
        let columns = self.end_columns();
        if let Some((index, ())) = self.single(|_, own| (own == columns).then_some(())) {
            return Some((Form::Ends(Ends::Rows { columns }), vec![index]));
        }
        let numbered = (0..self.all.len()).find(|&i| matches!(self.all[i].shape, [_, 7]))?;
        Some((Form::Ends(Ends::Numbered), vec![numbered]))
    }

    /// Boxes, classes and scores in three outputs, with a batch axis or without.
    fn lists(&self) -> Recognised {
        for batch in [false, true] {
            let part = |i: usize| match (batch, self.all[i].shape) {
                (false, shape) => Some(shape),
                (true, [1, shape @ ..]) => Some(shape),
                (true, _) => None,
            };
            let of_rank =
                |wanted: usize| (0..self.all.len()).filter(move |&i| part(i).is_some_and(|s| s.len() == wanted));
            let boxes = of_rank(2).find(|&i| part(i).is_some_and(|s| s[1] == 4));
            let Some(boxes) = boxes else { continue };
            let lists: Vec<usize> =
                of_rank(1).filter(|&i| part(i).map(|s| s[0]) == part(boxes).map(|s| s[0])).collect();
            let [a, b] = lists[..] else { continue };
            let is_classes = |i: usize| {
                let name = self.all[i].name.to_lowercase();
                self.all[i].integer || name.contains("label") || name.contains("class")
            };
            let (classes, scores) = match (is_classes(a), is_classes(b)) {
                (true, false) => (a, b),
                (false, true) => (b, a),
                _ => continue,
            };
            let ends = Ends::Lists { by_number: !batch };
            return Some((Form::Ends(ends), vec![boxes, classes, scores]));
        }
        None
    }
}
