//! How images become network input.

use super::prepare::*;
use super::*;
use crate::plan::{Canvas, Color, Input, Layout, PadPlace};
use crate::tensor::DType;

/// Values `1 + 16 y + x`.
fn ramp(height: usize, width: usize) -> Pixels {
    let data = (0..height * width).map(|i| (1 + i / width * 16 + i % width) as u8).collect();
    Pixels { height, width, channels: 1, data }
}

#[test]
fn crops_as_torchvision() {
    let crop = |image| {
        let six = Prepare { crop: Some(6), color: Color::Gray, ..Prepare::default() };
        six.apply(image).unwrap().as_f32().unwrap().to_vec()
    };
    // The upper left corner rounds half to even: 1.5 to 2, 2.5 to 2, .5 to 0.
    assert_eq!(crop(ramp(9, 12))[0], (1 + 2 * 16 + 3) as f32);
    assert_eq!(crop(ramp(12, 9))[0], (1 + 3 * 16 + 2) as f32);
    assert_eq!(crop(ramp(11, 7))[0], (1 + 2 * 16) as f32);
    let mut want = [[0f32; 6]; 6];
    for y in 0..3 {
        want[y + 1] = std::array::from_fn(|x| (1 + y * 16 + x + 4) as f32);
    }
    assert_eq!(crop(ramp(3, 15)), want.concat());
    assert_eq!(crop(ramp(5, 5))[..6], [1.0, 2.0, 3.0, 4.0, 5.0, 0.0]);
}

#[test]
fn the_longer_side_rounds_down() {
    let to7 = Prepare { resize: Some(7), ..Prepare::default() };
    let sizes = [((9, 12), (7, 9)), ((12, 9), (9, 7)), ((3, 20), (7, 46)), ((5, 5), (7, 7)), ((4, 7), (7, 12))];
    for ((h, w), want) in sizes {
        assert_eq!(to7.output_size(h, w).unwrap(), want);
    }
    let e = Prepare { resize: Some(16_384), ..Prepare::default() }.output_size(1, 32_768).unwrap_err();
    assert!(e.message().starts_with("resizing the shorter side of an image of 1 x 32768 pixels to 16384"), "{e}");
}

#[test]
fn layout_color_and_normalization() {
    let image = Pixels { height: 1, width: 2, channels: 3, data: vec![255, 0, 51, 102, 153, 204] };
    let p = Prepare { divisor: 255.0, mean: vec![0.5, 0.0, 0.0], std: vec![0.5, 1.0, 2.0], ..Prepare::default() };
    let t = p.apply(image.clone()).unwrap();
    assert_eq!(t, Tensor::f32(&[3, 1, 2], vec![1.0, (0.4 - 0.5) / 0.5, 0.0, 0.6, 0.1, 0.4]));
    let bgr = Prepare { color: Color::Bgr, layout: Layout::Nhwc, ..Prepare::default() };
    let t = bgr.apply(image.clone()).unwrap();
    assert_eq!(t, Tensor::f32(&[1, 2, 3], vec![51.0, 0.0, 255.0, 204.0, 153.0, 102.0]));
    let gray = Prepare { color: Color::Gray, ..Prepare::default() };
    assert_eq!(gray.apply(image).unwrap(), Tensor::f32(&[1, 1, 2], vec![82.0, 144.0]));
}

#[test]
fn a_wish_changes_the_preset_one_by_one() {
    let input = Input { preset: Some("imagenet".into()), resize: Some(0), crop: Some(32), ..Input::default() };
    let p = Prepare::resolve(&input).unwrap();
    assert_eq!(p, Prepare { crop: Some(32), ..Prepare::preset("imagenet-norm").unwrap() });
    assert!(Prepare::resolve(&Input::default()).unwrap().is_identity());
}

#[test]
fn bad_options_are_named() {
    let message = |p: Prepare| p.check().unwrap_err().message().to_string();
    let base = Prepare::default();
    for (p, want) in [
        (
            Prepare { resize: Some(20_000), ..base.clone() },
            "input option `resize` is 20000, expected 1 to 16384 pixels",
        ),
        (Prepare { divisor: 0.0, ..base.clone() }, "input option `divisor` is 0, expected a number above 0"),
        (Prepare { mean: vec![0.0; 2], ..base.clone() }, "input option `mean` has 2 values, expected 1 or 3"),
        (Prepare { mean: vec![f32::NAN], ..base.clone() }, "input option `mean` contains NaN, expected finite numbers"),
        (Prepare { std: vec![1.0, 0.0, 1.0], ..base }, "input option `std` contains 0, expected numbers above 0"),
    ] {
        assert_eq!(message(p), want);
    }
}

fn preset(name: &str) -> Prepare {
    Prepare::preset(name).unwrap()
}

/// The preset `name` for a network of 416 x 416 pixels.
fn at_416(name: &str) -> Prepare {
    preset(name).for_inputs(&[InputSpec::new("images", DType::F32, [Some(3), Some(416), Some(416)])])
}

#[test]
fn detectors_see_images_at_their_sizes_and_places() {
    let side = |geometry: Geometry| (geometry.resized, geometry.offset, geometry.input);
    let all =
        |name: &str| [(427, 640), (640, 427), (100, 100)].map(|(h, w)| side(at_416(name).geometry(h, w).unwrap()));
    let square = [416; 2];
    // YOLOX rounds down, and YOLOv5 and NanoDet to nearest: 427 * 0.65 is 277.55.
    let yolox = [([277, 416], [0, 0], square), ([416, 277], [0, 0], square), (square, [0, 0], square)];
    assert_eq!(all("yolox"), yolox);
    let centred = [([278, 416], [69, 0], square), ([416, 278], [0, 69], square), (square, [0, 0], square)];
    assert_eq!(all("yolov5"), centred);
    assert_eq!(all("nanodet"), centred);
    assert_eq!(all("nanodet-plus"), [(square, [0, 0], square); 3]);
    let shorter = [([800, 1199], [0, 0], [800, 1216]), ([1199, 800], [0, 0], [1216, 800])];
    for (name, multiple) in [("torchvision-detection", 32), ("detr", 1)] {
        let found = [(427, 640), (640, 427)].map(|(h, w)| side(preset(name).geometry(h, w).unwrap()));
        let want =
            shorter.map(|(resized, offset, input)| (resized, offset, if multiple == 1 { resized } else { input }));
        assert_eq!(found, want, "{name}");
        // A long image is limited by its longer side: 300 * 1333 / 1000 is 399.9.
        assert_eq!(preset(name).geometry(300, 1000).unwrap().resized, [399, 1333], "{name}");
    }
    assert_eq!(preset("torchvision-detection").output_size(300, 1000).unwrap(), (416, 1344));
}

#[test]
fn detectors_see_values_and_padding_as_they_were_trained() {
    // A red image of twice the width of its height.
    let red = || Pixels { height: 1, width: 2, channels: 3, data: [255, 0, 0].repeat(2) };
    let seen = |name: &str| {
        let prepare = Prepare { letterbox: Some(Canvas::square(2)), stretch: None, ..preset(name) };
        let prepare = Prepare { resize: None, max_size: None, pad_multiple: None, ..prepare };
        let values = prepare.apply(red()).unwrap().as_f32().unwrap().to_vec();
        // By channel: a pixel of the image, and one of the padding.
        [0, 1, 2].map(|c| (values[4 * c], values[4 * c + 3]))
    };
    let near = |name: &str, want: [(f32, f32); 3]| {
        let found = seen(name);
        let same = |(a, b): (&(f32, f32), &(f32, f32))| (a.0 - b.0).abs() < 1e-6 && (a.1 - b.1).abs() < 1e-6;
        assert!(found.iter().zip(&want).all(same), "{name}: {found:?}");
    };
    near("yolox", [(0.0, 114.0), (0.0, 114.0), (255.0, 114.0)]);
    near("yolov5", [(1.0, 114.0 / 255.0), (0.0, 114.0 / 255.0), (0.0, 114.0 / 255.0)]);
    near("torchvision-detection", [(1.0, 0.0), (0.0, 0.0), (0.0, 0.0)]);
    let bgr = [(0.0, 103.53, 57.375), (0.0, 116.28, 57.12), (255.0, 123.675, 58.395f32)];
    let bgr = bgr.map(|(v, mean, std)| ((v - mean) / std, -mean / std));
    near("nanodet", bgr);
    near("nanodet-plus", bgr);
    near("detr", [((1.0 - 0.485) / 0.229, 0.0), (-0.456 / 0.224, 0.0), (-0.406 / 0.225, 0.0)]);
}

#[test]
fn every_preset_is_named_and_consistent() {
    for name in PRESETS {
        preset(name).check().unwrap();
    }
    let error = Prepare::preset("yolo").unwrap_err().to_string();
    assert_eq!(error, format!("unknown input preset `yolo`; expected one of {}", PRESETS.join(", ")));
}

#[test]
fn images_lie_on_canvases_in_every_layout() {
    // The levels 10, 20 on a canvas of 2 x 4, at the left and in the middle.
    let image = || Pixels { height: 1, width: 2, channels: 1, data: vec![10, 20] };
    let to = |pad_place, layout| {
        let pad_to = Some((2, 4));
        let pad_value = vec![7.0];
        let prepare =
            Prepare { pad_to, pad_value, pad_place, layout, color: Color::Gray, divisor: 10.0, ..Prepare::default() };
        let tensor = prepare.apply(image()).unwrap();
        let shape = if layout == Layout::Nchw { [1, 2, 4] } else { [2, 4, 1] };
        assert_eq!(tensor.shape(), shape);
        tensor.as_f32().unwrap().to_vec()
    };
    for layout in [Layout::Nchw, Layout::Nhwc] {
        assert_eq!(to(PadPlace::TopLeft, layout), [1.0, 2.0, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7]);
        assert_eq!(to(PadPlace::Center, layout), [0.7, 1.0, 2.0, 0.7, 0.7, 0.7, 0.7, 0.7]);
    }
    let bgr = Prepare {
        pad_to: Some((1, 2)),
        pad_value: vec![1.0, 2.0, 3.0],
        color: Color::Bgr,
        layout: Layout::Nhwc,
        ..Prepare::default()
    };
    let pixel = Pixels { height: 1, width: 1, channels: 3, data: vec![50, 60, 70] };
    let want = vec![70.0, 60.0, 50.0, 1.0, 2.0, 3.0];
    assert_eq!(bgr.apply(pixel).unwrap(), Tensor::f32(&[1, 2, 3], want), "padding in the order of `color`");
}

#[test]
fn a_canvas_is_the_networks_where_it_is_fixed() {
    let spec = |shape: [Option<usize>; 3]| [InputSpec::new("images", DType::F32, shape)];
    let yolox = || preset("yolox");
    let fixed = yolox().for_inputs(&spec([Some(3), Some(320), Some(640)]));
    assert_eq!(fixed.letterbox, Some(Canvas::Size { height: 320, width: 640 }));
    let last = Prepare { layout: Layout::Nhwc, ..yolox() }.for_inputs(&spec([Some(320), Some(640), Some(3)]));
    assert_eq!(last.letterbox, fixed.letterbox);
    // One image without a batch axis: the first axis of the file was taken for one.
    let image = InputSpec::new("image", DType::F32, [Some(320), Some(640)]).or([Some(3), Some(320), Some(640)]);
    assert_eq!(yolox().for_inputs(&[image]).letterbox, fixed.letterbox);
    let given = Prepare { letterbox: Some(Canvas::square(64)), ..yolox() };
    assert_eq!(given.clone().for_inputs(&spec([Some(3), Some(320), Some(640)])), given);
    for open in [&spec([Some(3), None, Some(640)])[..], &[InputSpec::new("x", DType::F32, [Some(3)])], &[]] {
        let error = yolox().for_inputs(open).geometry(10, 10).unwrap_err().to_string();
        let want = "input option `letterbox`: height and width of the network's input are not fixed, so images need a \
                    size; give the size that the network is used at, such as --letterbox 640";
        assert_eq!(error, want);
    }
    let vision = preset("torchvision-detection").for_inputs(&spec([Some(3), Some(800), Some(1216)]));
    assert_eq!(vision.output_size(400, 500).unwrap(), (800, 1216));
    let error = vision.geometry(500, 400).unwrap_err().to_string();
    assert!(
        error.starts_with("the prepared image has 1000 x 800 pixels, the canvas has 800 x 1216; make images"),
        "{error}"
    );
    assert_eq!(vision.geometry_shrunk(500, 400).unwrap().resized, [800, 640]);
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    let canvas = Some(Canvas::square(64));
    let refused = |input: Input| Prepare::resolve(&input).unwrap_err().to_string();
    let with = |preset: &str| Input { preset: Some(preset.into()), ..Input::default() };
    let pair = |one: &str, other: &str| {
        let [this, that] = [one, other].map(|o| o.replace('_', "-"));
        format!(
            "input options `{one}` and `{other}` contradict each other; give one of them; --{this} 0 or --{that} 0 takes \
             back what a preset says"
        )
    };
    let none = Input::default;
    for (input, one, other) in [
        (Input { letterbox: canvas, stretch: canvas, ..none() }, "letterbox", "stretch"),
        (Input { letterbox: canvas, crop: Some(8), ..none() }, "letterbox", "crop"),
        (Input { letterbox: canvas, pad_multiple: Some(8), ..none() }, "letterbox", "pad_multiple"),
        (Input { stretch: canvas, resize: Some(8), ..none() }, "stretch", "resize"),
        (Input { stretch: canvas, crop: Some(8), ..none() }, "stretch", "crop"),
        (Input { stretch: canvas, pad_multiple: Some(8), ..none() }, "stretch", "pad_multiple"),
        (Input { pad_multiple: Some(8), ..with("imagenet") }, "pad_multiple", "crop"),
        (Input { letterbox: canvas, ..with("imagenet") }, "letterbox", "resize"),
        (Input { resize: Some(800), ..with("yolox") }, "letterbox", "resize"),
    ] {
        assert_eq!(refused(input), pair(one, other));
    }
    let off = Input { letterbox: Some(Canvas::Off), resize: Some(800), pad_multiple: Some(32), ..with("yolox") };
    assert_eq!(Prepare::resolve(&off).unwrap().output_size(400, 500).unwrap(), (800, 1024));
    let most = refused(Input { max_size: Some(8), ..none() });
    assert!(most.starts_with("input option `max_size` is given without `resize`; "), "{most}");
    for (input, option) in [
        (Input { pad_value: Some(vec![1.0]), ..none() }, "pad_value"),
        (Input { pad_place: Some(PadPlace::Center), ..with("imagenet") }, "pad_place"),
    ] {
        let want =
            format!("input option `{option}`: nothing is padded; give --letterbox or --pad-multiple, or leave it out");
        assert_eq!(refused(input), want);
    }
    let padded = |pad_value| refused(Input { letterbox: canvas, pad_value: Some(pad_value), ..none() });
    assert_eq!(padded(vec![1.0; 2]), "input option `pad_value` has 2 values, expected 1 or 3");
    assert_eq!(padded(vec![f32::NAN]), "input option `pad_value` contains NaN, expected finite numbers");
    let large = Input { letterbox: Some(Canvas::Size { height: 8, width: 20_000 }), ..none() };
    assert_eq!(refused(large), "input option `letterbox` is 20000, expected 1 to 16384 pixels");
}
