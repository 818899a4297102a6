//! Images with the boxes that networks found in them, drawn over the image as SVG.

use super::page::{self, bar, cells};
use super::{Accuracy, Report, Score, Table, metric, visible};
use maud::{Markup, html};
use serde::{Deserialize, Serialize};

/// Metrics that stand side by side; of more, the networks do.
pub(super) const ABREAST: usize = 4;
/// Colours of boxes, legible on photographs: found ones, and annotated ones.
const FOUND: &str = "#ff6a1f";
const TRUTH: &str = "#35c4ff";
/// Height of text, of lines and of dashes as shares of a side of the image: of the width in a page of small pictures, and of
/// the longer side in a picture of its own.
const SMALL: [f64; 3] = [1.0 / 24.0, 1.0 / 160.0, 1.0 / 48.0];
const LARGE: [f64; 3] = [1.0 / 44.0, 1.0 / 300.0, 1.0 / 90.0];

/// What an SVG file must say that it is.
const SVG: &str = "http://www.w3.org/2000/svg";
/// Width of a character as a share of its height, about.
const CHARACTER: f64 = 0.6;

/// A box in an image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Marked {
    /// What is in it.
    pub name: String,
    /// How sure the network is; `None` where it was annotated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// Left, top, width and height, in pixels of the image.
    pub bbox: [f64; 4],
}

/// An image with annotated objects and what networks found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Picture {
    /// Number of the image in its set.
    pub id: i64,
    /// Its file, without folders.
    pub name: String,
    /// Width of the image, in pixels.
    pub width: usize,
    /// Height of the image, in pixels.
    pub height: usize,
    /// The image, smaller, as a JPEG file in base64; `None` where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jpeg: Option<String>,
    /// Objects that are annotated.
    pub truth: Vec<Marked>,
    /// What the float network found, if it was measured beside another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub float: Option<Vec<Marked>>,
    /// What the network found that was measured, or the written file.
    pub result: Vec<Marked>,
}

/// `bytes` in base64.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let all = group.iter().fold(0u32, |all, &b| all << 8 | u32::from(b)) << (8 * (3 - group.len()));
        let digit = |i: usize| char::from(DIGITS[(all >> (18 - 6 * i)) as usize & 63]);
        (0..4).for_each(|i| text.push(if i <= group.len() { digit(i) } else { '=' }));
    }
    text
}

impl Picture {
    /// The picture with the boxes of the measured network, as an SVG file.
    pub fn svg(&self) -> String {
        let drawn = self.drawn(&self.result, self.image(None), &LARGE, true);
        visible(&format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{}\n", drawn.into_string()), true).into_owned()
    }

    /// The picture with the boxes of the float network beside those of the result; `number` tells it from others on the page.
    pub(super) fn compared(&self, number: usize) -> Markup {
        let id = format!("picture{number}");
        let pictures = [("float", self.float.as_ref()), ("result", Some(&self.result))];
        let pictures = pictures.into_iter().filter_map(|(name, boxes)| Some((name, boxes?)));
        let pictures = pictures.enumerate().map(|(i, (name, boxes))| {
            // The image is in the page once.
            let image = if i == 0 {
                self.image(Some(&id))
            } else {
                html! { use href={ "#" (id) } {} }
            };
            html! {
                figure {
                    figcaption { (name) span class="quiet" { ": " (boxes.len()) " found" } }
                    (self.drawn(boxes, image, &SMALL, false))
                }
            }
        });
        html! {
            div {
                p class="note" { b { (self.name) } ": " (self.truth.len()) " annotated" }
                div class="both" { @for picture in pictures { (picture) } }
            }
        }
    }

    /// The image, or a grey area where it is not known.
    fn image(&self, id: Option<&str>) -> Markup {
        let plain = |text: &&String| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b));
        match self.jpeg.as_ref().filter(plain) {
            Some(jpeg) => html! {
                image id=[id] width=(self.width) height=(self.height) preserveAspectRatio="none"
                    href={ "data:image/jpeg;base64," (jpeg) } {}
            },
            None => html! { rect id=[id] width=(self.width) height=(self.height) fill="#808080" {} },
        }
    }

    fn drawn(&self, found: &[Marked], image: Markup, [text, line, dash]: &[f64; 3], names: bool) -> Markup {
        // On a page all pictures are equally wide.
        let side = if names { self.width.max(self.height) } else { self.width };
        let [text, line, dash] = [text, line, dash].map(|share| share * side.max(1) as f64);
        let short = |v: f64| ((v * 1000.0).round() / 1000.0).to_string();
        let outline = |b: &Marked, color: &str, dashes: Option<String>| {
            let [left, top, width, height] = b.bbox.map(short);
            html! {
                rect x=(left) y=(top) width=(width) height=(height) fill="none" stroke=(color)
                    stroke-width=(short(line)) stroke-dasharray=[dashes] { title { (label(b)) } }
            }
        };
        let written = |b: &Marked, color: &str, below: bool| {
            let [left, top, _, height] = b.bbox;
            let lowest = (self.height as f64 - text * 0.3).max(text);
            // The whole name is in the image where it can be.
            let most = self.width as f64 - CHARACTER * text * label(b).chars().count() as f64;
            let left = (left + line).min(most).max(0.0);
            let y = if below { top + height - text * 0.3 } else { top + text };
            html! {
                text x=(short(left)) y=(short(y.clamp(text, lowest))) fill=(color) stroke="#000000"
                    stroke-width=(short(text / 5.0)) stroke-linejoin="round" paint-order="stroke" { (label(b)) }
            }
        };
        html! {
            svg xmlns=[names.then_some(SVG)] class="picture" role="img"
                viewBox={ "0 0 " (self.width) " " (self.height) } font-size=(short(text)) font-weight="600"
                font-family="system-ui, sans-serif" {
                title { (self.name) }
                (image)
                @for b in &self.truth { (outline(b, TRUTH, Some(short(dash)))) }
                // The best lie on top.
                @for b in found.iter().rev() { (outline(b, FOUND, None)) }
                @if names { @for b in &self.truth { (written(b, TRUTH, true)) } }
                @for b in found.iter().rev() { (written(b, "#ffffff", false)) }
            }
        }
    }
}

/// What is written at a box.
fn label(b: &Marked) -> String {
    match b.score {
        Some(score) => format!("{} {score:.2}", b.name),
        None => b.name.clone(),
    }
}

/// A page with `pictures` and the boxes of the measured network; each has a link to the file that `file` names.
pub fn album(title: &str, pictures: &[Picture], file: impl Fn(&Picture) -> String) -> String {
    let single = |picture: &Picture| {
        let counts = format!("{} found, {} annotated", picture.result.len(), picture.truth.len());
        html! {
            figure {
                figcaption { a class="title" href=(file(picture)) { (picture.name) } span class="quiet" { (counts) } }
                (picture.drawn(&picture.result, picture.image(None), &SMALL, false))
            }
        }
    };
    let pictures = page::side_by_side(pictures.iter().map(single));
    page::page(title, &html! { p { (legend()) } (pictures) })
}

/// What the colours of boxes mean.
fn legend() -> Markup {
    html! {
        span class="key found" { "found, with the score" } " "
        span class="key truth" { "annotated (dashed)" }
    }
}

impl Report {
    /// The figures of a detector, and what it found in some images.
    pub(super) fn detections(&self) -> Markup {
        let many = self.accuracy.as_ref().filter(|a| a.result.metrics.len() > ABREAST);
        if many.is_none() && self.pictures.is_empty() {
            return html! {};
        }
        html! {
            @if let Some(accuracy) = many { (figures(accuracy)) }
            @if !self.pictures.is_empty() {
                p { (legend()) }
                div class="pair" { @for (i, picture) in self.pictures.iter().enumerate() { (picture.compared(i)) } }
            }
        }
    }
}

/// Metrics one below the other, networks side by side.
fn figures(accuracy: &Accuracy) -> Markup {
    let columns: String = accuracy.rows().map(|(name, _)| format!("|>{name} %")).collect();
    let title = format!("Accuracy on {} samples", accuracy.result.samples);
    let row = |name: &str| {
        let value = |score: &Score| match score.metrics.get(name) {
            Some(v) => bar(&format!("{v:.2}"), v / 100.0),
            None => html! { "-" },
        };
        [html! { (metric(name)) }].into_iter().chain(accuracy.rows().map(|(_, score)| value(score))).collect()
    };
    let rows = accuracy.result.ordered().map(|(name, _)| row(name)).collect();
    cells(&Table::new(title, &format!("metric{columns}")), rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture() -> Picture {
        let marked = |name: &str, score| Marked { name: name.into(), score, bbox: [1.0, 2.0, 30.25, 20.0] };
        Picture {
            id: 7,
            name: "<a>.jpg".into(),
            width: 64,
            height: 48,
            jpeg: Some(base64(&[0xff, 0xd8, 0xff])),
            truth: vec![marked("cat & dog", None)],
            float: Some(vec![marked("cat", Some(0.876))]),
            result: Vec::new(),
        }
    }

    #[test]
    fn base64_is_that_of_the_standard() {
        let texts = ["", "f", "fo", "foo", "foob", "fooba", "foobar"];
        let want = ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"];
        assert_eq!(texts.map(|t| base64(t.as_bytes())), want);
        assert_eq!(base64(&[0xfb, 0xff, 0xfe]), "+//+");
    }

    #[test]
    fn pictures_hold_image_and_boxes_and_no_markup_of_names() {
        let picture = picture();
        let page = picture.compared(3).into_string();
        assert_eq!(page.matches("data:image/jpeg;base64,/9j/").count(), 1, "{page}");
        assert!(page.contains("id=\"picture3\"") && page.contains("<use href=\"#picture3\"></use>"), "{page}");
        assert!(
            page.contains("&lt;a&gt;.jpg") && page.contains("cat 0.88") && page.contains("cat &amp; dog"),
            "{page}"
        );
        assert!(page.contains("width=\"30.25\" height=\"20\"") && !page.contains("<a>"), "{page}");
        let file = picture.svg();
        assert!(
            file.starts_with("<?xml") && file.contains("<svg xmlns=") && file.trim_end().ends_with("</svg>"),
            "{file}"
        );
        // Without the float network there is one drawing, without the image a grey one.
        let alone = Picture { float: None, jpeg: Some("\"><script>".into()), ..picture };
        let page = alone.compared(0).into_string();
        assert!(page.matches("<svg").count() == 1 && page.contains("#808080") && !page.contains("script"), "{page}");
        let read: Picture = serde_json::from_str(&serde_json::to_string(&alone).unwrap()).unwrap();
        assert_eq!(read, alone);
    }
}
