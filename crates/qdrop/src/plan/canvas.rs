//! What an image is fitted into: a canvas, and the place on it.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Height and width, in pixels, that an image is fitted into: `640`, `480x640` (height first), `network`, or `0` for none.
///
/// ```
/// use qdrop::plan::Canvas;
///
/// assert_eq!("480x640".parse::<Canvas>()?, Canvas::Size { height: 480, width: 640 });
/// assert_eq!("640".parse::<Canvas>()?, Canvas::square(640));
/// # Ok::<(), qdrop::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "String")]
pub enum Canvas {
    /// None: what a preset says is taken back.
    Off,
    /// Height and width of the network's input, which must be fixed.
    Network,
    /// A size.
    Size {
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
    },
}

/// A canvas as recipes hold it: a number, or text.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a number of pixels, \"HEIGHTxWIDTH\" or \"network\"")]
enum Written {
    Side(usize),
    Text(String),
}

impl TryFrom<Written> for Canvas {
    type Error = Error;

    fn try_from(written: Written) -> Result<Self> {
        match written {
            Written::Side(side) => Ok(Canvas::square(side)),
            Written::Text(text) => text.parse(),
        }
    }
}

impl From<Canvas> for String {
    fn from(canvas: Canvas) -> Self {
        canvas.to_string()
    }
}

impl Canvas {
    /// A square of `side` pixels; none for 0.
    pub fn square(side: usize) -> Self {
        if side == 0 { Canvas::Off } else { Canvas::Size { height: side, width: side } }
    }
}

impl FromStr for Canvas {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim();
        let bad = || Error::recipe(format!("expected pixels such as 640 or 480x640, or `network`, got `{text}`"));
        let number = |t: &str| t.trim().parse::<usize>().map_err(|_| bad());
        match text.split_once(['x', 'X']) {
            _ if text == "network" => Ok(Canvas::Network),
            None => Ok(Canvas::square(number(text)?)),
            Some((height, width)) => match (number(height)?, number(width)?) {
                (0, _) | (_, 0) => Err(bad()),
                (height, width) => Ok(Canvas::Size { height, width }),
            },
        }
    }
}

impl fmt::Display for Canvas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Canvas::Off => f.write_str("0"),
            Canvas::Network => f.write_str("network"),
            Canvas::Size { height, width } if height == width => write!(f, "{height}"),
            Canvas::Size { height, width } => write!(f, "{height}x{width}"),
        }
    }
}

/// Where an image lies on a canvas that is larger.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum PadPlace {
    /// In the upper left corner.
    #[default]
    TopLeft,
    /// In the middle; an odd row or column of padding lies below or to the right.
    Center,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Recipe;

    #[test]
    fn canvases_are_read_and_written() {
        let size = |height, width| Canvas::Size { height, width };
        for (text, want) in
            [("640", size(640, 640)), ("480x640", size(480, 640)), ("network", Canvas::Network), ("0", Canvas::Off)]
        {
            assert_eq!(text.parse::<Canvas>().unwrap(), want);
            assert_eq!(want.to_string(), text);
            let recipe = Recipe::from_toml(&format!("[input]\nletterbox = \"{text}\"\n")).unwrap();
            assert_eq!(recipe.input.letterbox, Some(want));
            assert_eq!(Recipe::from_toml(&recipe.to_toml().unwrap()).unwrap(), recipe);
        }
        assert_eq!(" 3 X 4 ".parse::<Canvas>().unwrap(), size(3, 4));
        assert_eq!(Recipe::from_toml("[input]\nstretch = 320\n").unwrap().input.stretch, Some(size(320, 320)));
        for bad in ["", "x", "640x", "0x640", "640x0", "-1", "1.5", "net", "640x640x3"] {
            let error = bad.parse::<Canvas>().unwrap_err().to_string();
            assert!(error.starts_with("expected pixels such as 640 or 480x640, or `network`, got `"), "{bad}: {error}");
            assert!(Recipe::from_toml(&format!("[input]\nletterbox = \"{bad}\"\n")).is_err());
        }
        let error = Recipe::from_toml("[input]\nletterbox = 1.5\n").unwrap_err().to_string();
        assert_eq!(error, "line 2: expected a number of pixels, \"HEIGHTxWIDTH\" or \"network\"");
    }
}
