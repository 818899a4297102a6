//! The families of detectors, and what their published evaluations count as a detection.

use crate::error::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// A family of detectors whose files put out the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Family {
    /// YOLOX: for every cell offsets of the box, objectness and scores.
    Yolox,
    /// YOLOX with boxes decoded in the file (YOLOv6 too): centre, width and height in pixels, objectness and scores.
    YoloxDecoded,
    /// YOLOv5 and YOLOv7: as decoded YOLOX, for three anchors per cell.
    Yolov5,
    /// YOLOv8, v9 and v11: centre, width, height and scores, one column per cell (or one row).
    Yolov8,
    /// NanoDet: scores and distributions of the distances to the four sides (GFL).
    Nanodet,
    /// PicoDet: the same, in outputs of their own for every level.
    Picodet,
    /// RetinaNet of torchvision without its last part: scores and offsets of anchors.
    Retinanet,
    /// FCOS of torchvision without its last part: scores, distances and centredness of cells.
    Fcos,
    /// DETR: scores of queries, the last of them for no object, and boxes as shares of the canvas.
    Detr,
    /// RT-DETR, Deformable DETR and their kin: the same with independent scores.
    RtDetr,
    /// Files that put out final boxes, scores and classes: torchvision's, Ultralytics', YOLOv7's.
    EndToEnd,
}

/// What counts as a detection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rules {
    /// A score must be above this.
    pub score: f32,
    /// Overlap above which the worse of two boxes of a class goes; `None` for no suppression.
    pub overlap: Option<f32>,
    /// Most detections in an image.
    pub most: usize,
    /// Most candidates, by score: in each level for anchors, else in all.
    pub candidates: usize,
    /// Whether a box can have several classes, or only the likeliest.
    pub several: bool,
    /// Whether boxes are cut at the edges of the image.
    pub clips: bool,
}

impl Family {
    /// All families.
    pub const ALL: [Family; 11] = [
        Family::Yolox,
        Family::YoloxDecoded,
        Family::Yolov5,
        Family::Yolov8,
        Family::Nanodet,
        Family::Picodet,
        Family::Retinanet,
        Family::Fcos,
        Family::Detr,
        Family::RtDetr,
        Family::EndToEnd,
    ];

    /// Its name (`yolox`).
    pub fn as_str(self) -> &'static str {
        match self {
            Family::Yolox => "yolox",
            Family::YoloxDecoded => "yolox-decoded",
            Family::Yolov5 => "yolov5",
            Family::Yolov8 => "yolov8",
            Family::Nanodet => "nanodet",
            Family::Picodet => "picodet",
            Family::Retinanet => "retinanet",
            Family::Fcos => "fcos",
            Family::Detr => "detr",
            Family::RtDetr => "rt-detr",
            Family::EndToEnd => "end-to-end",
        }
    }

    /// The outputs of its files, in words; C is the number of classes.
    pub(super) fn outputs(self) -> &'static str {
        match self {
            Family::Yolox => "[1, cells, 5+C], one row per cell of strides 8, 16 and 32",
            Family::YoloxDecoded => "[1, cells, 5+C], one row per cell of strides 8, 16 and 32",
            Family::Yolov5 => "[1, 3*cells, 5+C]",
            Family::Yolov8 => "[1, 4+C, cells] or [1, cells, 4+C]",
            Family::Nanodet => "[1, cells, C+4*bins], or [1, cells, C] and [1, cells, 4*bins] for each of 3 levels",
            Family::Picodet => "[1, cells, C] and [1, cells, 4*bins] for each of 4 levels",
            Family::Retinanet => {
                "[1, 9*cells, C] and [1, 9*cells, 4], of strides 8 to 128 together or for each level, or maps [1, 9*C, h, w] and [1, 36, h, w] for each level"
            }
            Family::Fcos => {
                "[1, cells, C], [1, cells, 4] and [1, cells, 1], of strides 8 to 128 together or for each level"
            }
            Family::Detr => "[1, queries, C+1] and [1, queries, 4]",
            Family::RtDetr => "[1, queries, C] and [1, queries, 4], or [1, queries, 4+C]",
            Family::EndToEnd => "boxes [M, 4], labels [M] and scores [M], or [1, M, 6], or [M, 7]",
        }
    }

    /// The rules of its published evaluation on COCO.
    pub(super) fn rules(self) -> Rules {
        let some = |score, overlap, most, clips| Rules {
            score,
            overlap: Some(overlap),
            most,
            candidates: 30_000,
            several: true,
            clips,
        };
        let all = |most| Rules { score: 0.0, overlap: None, most, candidates: 30_000, several: true, clips: false };
        match self {
            Family::Yolox | Family::YoloxDecoded => some(0.001, 0.65, 100, false),
            Family::Yolov5 => some(0.001, 0.65, 300, true),
            Family::Yolov8 => some(0.001, 0.7, 300, true),
            Family::Nanodet => some(0.05, 0.6, 100, true),
            Family::Picodet => some(0.025, 0.6, 100, true),
            Family::Retinanet => Rules { candidates: 1000, ..some(0.05, 0.5, 300, true) },
            Family::Fcos => Rules { candidates: 1000, ..some(0.2, 0.6, 100, true) },
            Family::Detr => Rules { several: false, ..all(100) },
            Family::RtDetr => all(300),
            Family::EndToEnd => all(usize::MAX),
        }
    }
}

impl FromStr for Family {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let name = text.to_lowercase().replace(['_', ' '], "-");
        let name = match name.as_str() {
            "yolov6" => "yolox-decoded",
            "yolov7" => "yolov5",
            "yolov9" | "yolov11" | "yolo11" => "yolov8",
            "yolov10" | "end2end" => "end-to-end",
            "rtdetr" | "deformable-detr" => "rt-detr",
            other => other,
        };
        Family::ALL.into_iter().find(|f| f.as_str() == name).ok_or_else(|| {
            let names: Vec<&str> = Family::ALL.iter().map(|f| f.as_str()).collect();
            Error::recipe(format!("expected one of the families {}, got `{text}`", names.join(", ")))
        })
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
