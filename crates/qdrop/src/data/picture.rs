//! Images made smaller, to be shown to people.

use super::{Pixels, resample};
use crate::error::{Error, Result};
use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageEncoder};

/// Quality of pictures, of 100.
const QUALITY: u8 = 80;

impl Pixels {
    /// The image as a JPEG file, at most `side` (above 0) pixels wide and high. It is an error if there are no pixels, or more
    /// or fewer values than the sizes say.
    pub fn to_jpeg(self, side: usize) -> Result<Vec<u8>> {
        let Pixels { height, width, channels, ref data } = self;
        let values = height.checked_mul(width).and_then(|n| n.checked_mul(channels));
        if values != Some(data.len()) || data.is_empty() || ![1, 3].contains(&channels) {
            let message = format!("expected {height} x {width} x {channels} values, got {}", data.len());
            return Err(Error::data(message));
        }
        let longest = self.height.max(self.width);
        let scaled = |n: usize| (n * side).div_ceil(longest).max(1);
        let image = match longest > side {
            true => {
                let (height, width) = (scaled(self.height), scaled(self.width));
                resample::resize(self, height, width)
            }
            false => self,
        };
        let color = if image.channels == 1 { ExtendedColorType::L8 } else { ExtendedColorType::Rgb8 };
        let mut file = Vec::new();
        let encoder = JpegEncoder::new_with_quality(&mut file, QUALITY);
        let size = |n: usize| u32::try_from(n).map_err(|_| Error::data(format!("a side of {n} pixels is too long")));
        let (width, height) = (size(image.width)?, size(image.height)?);
        let encoded = encoder.write_image(&image.data, width, height, color);
        encoded.map_err(|e| Error::data(format!("cannot make a picture of {height} x {width} pixels: {e}")))?;
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_small_and_look_alike() {
        for channels in [1, 3] {
            let value = |i: usize| if (i / channels) % 60 < 30 { 200 } else { 40 };
            let data = (0..60 * 20 * channels).map(value).collect();
            let image = Pixels { height: 20, width: 60, channels, data };
            for (side, size) in [(30, (30, 10)), (100, (60, 20))] {
                let file = image.clone().to_jpeg(side).unwrap();
                let read = image::load_from_memory(&file).unwrap().to_rgb8();
                assert_eq!(read.dimensions(), size);
                let (left, right) = (read.get_pixel(2, 5).0, read.get_pixel(size.0 - 3, 5).0);
                assert!(left.iter().all(|v| v.abs_diff(200) < 6) && right.iter().all(|v| v.abs_diff(40) < 6));
            }
        }
        let short = Pixels { height: 2, width: 2, channels: 3, data: vec![0; 9] };
        assert_eq!(short.to_jpeg(10).unwrap_err().to_string(), "expected 2 x 2 x 3 values, got 9");
        let line = Pixels { height: 1, width: 5000, channels: 3, data: vec![9; 15_000] };
        assert!(line.to_jpeg(10).is_ok(), "the shorter side keeps a pixel");
    }
}
