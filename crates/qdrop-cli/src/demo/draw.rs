//! Pictures of the demo: one of ten shapes, plain or striped, anywhere and at any angle, on a busy background.
//!
//! A picture depends on the seed and its number alone.

use image::{Rgb, RgbImage};
use qdrop::engine::philox::Stream;
use std::f32::consts::{PI, TAU};

/// Height and width of a picture in pixels.
pub const SIDE: u32 = 32;
/// Signed distance (about, in units of the shape's radius; negative inside) of each shape.
const SHAPES: [fn(f32, f32) -> f32; 10] = [
    |x, y| x.hypot(y) - 0.9,
    |x, y| (x.hypot(y) - 0.72).abs() - 0.24,
    |x, y| x.abs().max(y.abs()) - 0.8,
    |x, y| (x.abs().max(y.abs()) - 0.64).abs() - 0.22,
    |x, y| y.max(0.866 * x - 0.5 * y).max(-0.866 * x - 0.5 * y) - 0.5,
    |x, y| x.hypot(y) - 0.4 - 0.65 * ((y.atan2(x) / TAU * 5.0).rem_euclid(1.0) * 2.0 - 1.0).abs(),
    |x, y| (x.abs().min(y.abs()) - 0.28).max(x.abs().max(y.abs()) - 0.95),
    |x, y| ((y + 0.35).hypot(x) - 0.95).max(-y - 0.35),
    |x, y| (x.hypot(y) - 0.95).max(0.75 - (x - 0.5).hypot(y)),
    |x, y| (x.abs().max(y.abs()) - 0.82).max(x.min(y) + 0.2),
];
/// Number of classes: every shape plain, then every shape striped.
pub const CLASSES: usize = 2 * SHAPES.len();

/// Random numbers of one picture, in order.
struct Numbers(std::vec::IntoIter<usize>);

impl Numbers {
    /// Uniform in `low..high`.
    fn between(&mut self, low: f32, high: f32) -> f32 {
        let word = self.0.next().unwrap_or_default();
        low + (high - low) * word as f32 / (1u32 << 24) as f32
    }

    fn color(&mut self) -> [f32; 3] {
        [(); 3].map(|()| self.between(0.1, 0.9))
    }
}

/// A straight wave over the plane, in -1..1.
struct Wave {
    x: f32,
    y: f32,
    phase: f32,
}

impl Wave {
    /// Of a period between `short` and `long` pixels, in any direction.
    fn new(random: &mut Numbers, short: f32, long: f32) -> Self {
        let (angle, speed) = (random.between(0.0, TAU), TAU / random.between(short, long));
        Wave { x: angle.cos() * speed, y: angle.sin() * speed, phase: random.between(0.0, TAU) }
    }

    fn at(&self, x: f32, y: f32) -> f32 {
        (self.x * x + self.y * y + self.phase).sin()
    }
}

/// A line across the picture.
struct Line {
    wave: Wave,
    color: [f32; 3],
    half: f32,
}

/// Picture number `index` of the stream named `seed`, which shows `class` (below [`CLASSES`]).
pub fn picture(seed: u64, index: usize, class: usize) -> RgbImage {
    let stream = |purpose| Stream::new(seed, index as u32, purpose, 0);
    let mut random = Numbers(stream(0).below(96, 1 << 24).into_iter());
    let random = &mut random;
    let shape = SHAPES[class % SHAPES.len()];
    let striped = class >= SHAPES.len();

    let back = [random.color(), random.color()];
    let slope = Wave::new(random, 60.0, 120.0);
    let texture = (Wave::new(random, 4.0, 12.0), random.between(0.0, 0.22));
    let lines = [(); 3].map(|()| Line {
        wave: Wave::new(random, 40.0, 90.0),
        color: random.color(),
        half: random.between(0.4, 1.1),
    });
    // The shape differs from the background in brightness, by little or by much, in either direction.
    let mean = |c: usize| (back[0][c] + back[1][c]) / 2.0;
    let level = (mean(0) + mean(1) + mean(2)) / 3.0;
    let shift = random.between(0.16, 0.5) * if level > 0.5 { -1.0 } else { 1.0 };
    let tint = random.color();
    let front: [f32; 3] = std::array::from_fn(|c| level + shift + 0.5 * (tint[c] - 0.5));
    let (stripes, depth) = (Wave::new(random, 3.2, 4.6), random.between(0.2, 0.45));
    let half = SIDE as f32 / 2.0;
    let center = [(); 2].map(|()| half + random.between(-5.0, 5.0));
    let radius = random.between(6.5, 11.5);
    let (angle, aspect) = (random.between(-PI, PI), random.between(0.8, 1.25));
    let noise = random.between(0.03, 0.12);

    let grain = stream(1).below((3 * SIDE * SIDE) as usize, 1 << 24);
    RgbImage::from_fn(SIDE, SIDE, |px, py| {
        let (x, y) = (px as f32, py as f32);
        let t = 0.5 + 0.5 * slope.at(x, y);
        let ripple = texture.1 * texture.0.at(x, y);
        let mut color: [f32; 3] = std::array::from_fn(|c| back[0][c] + t * (back[1][c] - back[0][c]) + ripple);
        for Line { wave, color: ink, half } in &lines {
            let distance = wave.at(x, y).asin().abs() / wave.x.hypot(wave.y);
            blend(&mut color, ink, half - distance + 0.5);
        }
        let (dx, dy) = ((x - center[0]) / radius, (y - center[1]) / radius);
        let (u, v) = (dx * angle.cos() + dy * angle.sin(), dy * angle.cos() - dx * angle.sin());
        let shade = if striped { depth * stripes.at(x, y).signum() } else { 0.0 };
        blend(&mut color, &front.map(|f| f + shade), 0.5 - shape(u * aspect, v / aspect) * radius);
        let at = 3 * (py * SIDE + px) as usize;
        Rgb(std::array::from_fn(|c| {
            let grain = (grain[at + c] as f32 / (1u32 << 24) as f32 - 0.5) * 3.46 * noise;
            ((color[c] + grain).clamp(0.0, 1.0) * 255.0).round() as u8
        }))
    })
}

/// Lays `ink` over `color` as thickly as `share` says, cut to 0..=1.
fn blend(color: &mut [f32; 3], ink: &[f32; 3], share: f32) {
    let share = share.clamp(0.0, 1.0);
    color.iter_mut().zip(ink).for_each(|(c, i)| *c += share * (i - *c));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_depend_on_seed_number_and_class_alone() {
        let one = picture(7, 3, 12);
        assert_eq!(one, picture(7, 3, 12));
        for other in [picture(8, 3, 12), picture(7, 4, 12), picture(7, 3, 2)] {
            assert_ne!(one, other);
        }
        assert_eq!(one.dimensions(), (SIDE, SIDE));
    }

    #[test]
    fn every_shape_covers_a_fair_part_of_its_square() {
        for (i, shape) in SHAPES.iter().enumerate() {
            let inside = (0..1600).filter(|k| shape((k % 40) as f32 / 20.0 - 1.0, (k / 40) as f32 / 20.0 - 1.0) < 0.0);
            let share = inside.count() as f32 / 1600.0;
            assert!((0.15..0.8).contains(&share), "shape {i}: {share}");
        }
    }
}
