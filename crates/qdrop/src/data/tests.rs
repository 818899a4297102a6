//! Files on disk, good and bad, through `open`.

use super::*;
use crate::plan::Color;
use crate::tensor::{DType, Data};
use image::{DynamicImage, ImageBuffer, Rgb, RgbImage};
use std::io::Write;
use std::path::PathBuf;

fn temp() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn picture(path: PathBuf, width: u32, height: u32) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    RgbImage::from_fn(width, height, |x, y| Rgb([x as u8, y as u8, 7])).save(path).unwrap();
}

fn raw() -> Prepare {
    Prepare::default()
}

fn open(path: &Path, prepare: &Prepare) -> Result<Box<dyn Samples + Send + Sync>> {
    super::open(path, prepare, &Limits::default())
}

fn refusal(path: &Path, prepare: &Prepare) -> String {
    let error = open(path, prepare).err().expect("an error");
    error.to_string().replace(&format!("{}/", path.parent().unwrap().display()), "")
}

#[test]
fn flat_folders_are_sorted_and_unlabelled() {
    let dir = temp();
    for name in ["b.png", "a.PNG", "c.bmp"] {
        picture(dir.path().join(name), 4, 3);
    }
    std::fs::write(dir.path().join("notes.txt"), "x").unwrap();
    std::fs::write(dir.path().join(".hidden.png"), "x").unwrap();
    let s = open(dir.path(), &raw()).unwrap();
    assert_eq!((s.len(), s.label(0), s.skipped()), (3, None, 0));
    let names: Vec<String> = (0..3).map(|i| s.name(i)).collect();
    assert!(names[0].ends_with("a.PNG") && names[1].ends_with("b.png") && names[2].ends_with("c.bmp"));
    let t = &s.get(0).unwrap()[0];
    assert_eq!(t.shape(), [3, 3, 4]);
    assert_eq!(t.as_f32().unwrap()[..5], [0.0, 1.0, 2.0, 3.0, 0.0]);
}

#[test]
fn sub_folders_are_classes_in_sorted_order() {
    let dir = temp();
    for name in ["dog/1.png", "cat/nested/2.png", "cat/9.png", "emu/0.png"] {
        picture(dir.path().join(name), 2, 2);
    }
    let s = open(dir.path(), &raw()).unwrap();
    let found: Vec<(String, Option<usize>)> =
        (0..s.len()).map(|i| (s.name(i).rsplit_once('/').unwrap().1.to_string(), s.label(i))).collect();
    let want = [("9.png", 0), ("2.png", 0), ("1.png", 1), ("0.png", 2)].map(|(n, l)| (n.to_string(), Some(l)));
    assert_eq!(found, want);
}

#[test]
fn bad_folders() {
    let dir = temp();
    let sub = |name: &str| dir.path().join(name);
    assert_eq!(refusal(&sub("none"), &raw()), "none: no such file or folder");
    std::fs::create_dir_all(sub("empty/void")).unwrap();
    let reads = "images are files ending in .png, .jpg, .jpeg, .bmp, .webp";
    assert_eq!(refusal(&sub("empty"), &raw()), format!("empty: no images found; {reads}"));
    picture(sub("mixed/a.png"), 2, 2);
    picture(sub("mixed/x/b.png"), 2, 2);
    let want = "mixed: images lie both in the folder and in its sub-folders; use either a flat folder, or one sub-folder per class";
    assert_eq!(refusal(&sub("mixed"), &raw()), want);
    picture(sub("hole/a/1.png"), 2, 2);
    std::fs::create_dir_all(sub("hole/b")).unwrap();
    assert!(refusal(&sub("hole"), &raw()).starts_with("hole/b: no images found in this class folder"));
    picture(sub("sizes/1.png"), 4, 3);
    picture(sub("sizes/2.png"), 4, 5);
    let e = refusal(&sub("sizes"), &raw());
    assert!(
        e.starts_with("sizes/2.png: the image has 5 x 4 pixels as network input, expected 3 x 4 as in `sizes/1.png`"),
        "{e}"
    );
    let crop = Prepare { crop: Some(2), ..raw() };
    assert_eq!(open(&sub("sizes"), &crop).unwrap().get(1).unwrap()[0].shape(), [3, 2, 2]);
    std::fs::write(sub("model.onnx"), "x").unwrap();
    assert!(
        refusal(&sub("model.onnx"), &raw()).starts_with("model.onnx: cannot read samples from a file of type `onnx`")
    );
}

#[test]
fn images_of_differing_sizes_share_a_canvas() {
    let dir = temp();
    let sizes = [(40, 30), (30, 40), (20, 20), (90, 10)];
    let paths: Vec<PathBuf> = (0..4).map(|i| dir.path().join(format!("{i}.png"))).collect();
    paths.iter().zip(sizes).for_each(|(path, (width, height))| picture(path.clone(), width, height));
    for skip_bad in [false, true] {
        let prepare = Prepare { resize: Some(24), max_size: Some(60), pad_multiple: Some(16), skip_bad, ..raw() };
        let all = open(dir.path(), &prepare).unwrap();
        let geometry = |samples: &dyn Samples, i| samples.geometry(i).unwrap();
        assert_eq!([0, 1, 2, 3].map(|i| geometry(&all, i).resized), [[24, 32], [32, 24], [24, 24], [6, 60]]);
        assert!((0..4).all(|i| all.get(i).unwrap()[0].shape() == [3, 32, 64] && geometry(&all, i).input == [32, 64]));
        assert_eq!((geometry(&all, 0).image, all.geometry(4)), ([30, 40], None));
        // The first two decide; what is larger than their canvas is made smaller.
        let limits = Limits::default();
        let chosen: Vec<usize> = spread(4, Some(2)).collect();
        let some = open_part(dir.path(), &prepare, Some(2), &limits).unwrap();
        assert_eq!((chosen, geometry(&some, 0).input), (vec![0, 3], [32, 64]));
        let one = open_part(dir.path(), &prepare, Some(1), &limits).unwrap();
        assert_eq!([0, 1, 2, 3].map(|i| geometry(&one, i).resized), [[24, 32], [32, 24], [24, 24], [3, 32]]);
        assert!((0..4).all(|i| one.get(i).unwrap()[0].shape() == [3, 32, 32]));
        // What wrappers and lists of files say is the same.
        let order = Subset::new(&all, vec![3, 0]).unwrap();
        assert_eq!([0, 1].map(|i| order.geometry(i)), [all.geometry(3), all.geometry(0)]);
        let named = open_images(paths.iter().rev().cloned(), &prepare, &limits).unwrap();
        assert_eq!((named.geometry(0), named.label(0)), (all.geometry(3), None));
        assert_eq!(named.get(1).unwrap(), all.get(2).unwrap());
        let fixed = Prepare { pad_to: Some((32, 48)), ..prepare.clone() };
        let e = refusal(dir.path(), &fixed);
        assert!(e.contains("3.png: the prepared image has 6 x 60 pixels, the canvas has 32 x 48; make images"), "{e}");
    }
    assert_eq!(open_images([], &raw(), &Limits::default()).err().unwrap().to_string(), "expected images, got none");
    // Memory counts for the canvas that all need together.
    let prepare = Prepare { resize: Some(300), pad_multiple: Some(1), ..raw() };
    let limits = Limits { memory: 8 << 20, ..Limits::default() };
    let e = super::open(dir.path(), &prepare, &limits).err().unwrap().to_string();
    assert!(e.contains(".png: the prepared image of ") && e.contains("MiB of memory"), "{e}");
}

#[test]
fn arrays_of_images_know_their_geometry() {
    let dir = temp();
    let path = dir.path().join("x.npy");
    std::fs::write(&path, npy("'|u1'", "False", "(2, 2, 4, 3)", &[9; 48])).unwrap();
    let boxed = Prepare { letterbox: Some(crate::plan::Canvas::square(8)), ..raw() };
    let s = open(&path, &boxed).unwrap();
    assert_eq!(s.get(1).unwrap()[0].shape(), [3, 8, 8]);
    let want = Geometry { image: [2, 4], resized: [4, 8], offset: [0, 0], input: [8, 8] };
    assert_eq!((s.geometry(1), s.geometry(2)), (Some(want), None));
    assert_eq!(open(&path, &raw()).unwrap().geometry(0), None, "taken as they are");
}

#[test]
fn corrupt_images_are_named_or_skipped() {
    let dir = temp();
    picture(dir.path().join("f/0.png"), 64, 64);
    picture(dir.path().join("f/1.jpg"), 64, 64);
    let png = std::fs::read(dir.path().join("f/0.png")).unwrap();
    let jpg = std::fs::read(dir.path().join("f/1.jpg")).unwrap();
    let bad: [(&str, &[u8]); 6] = [
        ("2.png", &png[..png.len() / 2]),
        ("3.jpg", &jpg[..jpg.len() / 2]),
        ("4.png", b""),
        ("5.png", b"hello, this is no image"),
        ("6.png", &png[..20]),
        ("7.jpg", &jpg[..8]),
    ];
    for (name, bytes) in bad {
        let path = dir.path().join("f").join(name);
        std::fs::write(&path, bytes).unwrap();
        let message = match open(&dir.path().join("f"), &raw()) {
            Err(e) => e.to_string(),
            Ok(s) => s.get(2).unwrap_err().to_string(),
        };
        assert!(message.contains(name) && message.contains("cannot decode the image"), "{name}: {message}");
        std::fs::remove_file(&path).unwrap();
    }
    for (name, bytes) in bad {
        std::fs::write(dir.path().join("f").join(name), bytes).unwrap();
    }
    let skip = Prepare { skip_bad: true, ..raw() };
    let s = open(&dir.path().join("f"), &skip).unwrap();
    assert_eq!((s.len(), s.skipped()), (2, 6));
    std::fs::remove_file(dir.path().join("f/0.png")).unwrap();
    std::fs::remove_file(dir.path().join("f/1.jpg")).unwrap();
    let e = refusal(&dir.path().join("f"), &skip);
    assert!(e.starts_with("none of 6 images can be read, the last one: "), "{e}");
}

#[test]
fn images_that_had_to_be_decoded_stay_where_there_is_room() {
    const SIDE: usize = 24;
    let dir = temp();
    let paths: Vec<PathBuf> = (0..5).map(|i| dir.path().join(format!("{i}.png"))).collect();
    paths.iter().zip(40..).for_each(|(path, width)| picture(path.clone(), width, 32));
    let prepare = Prepare { resize: Some(SIDE + 4), crop: Some(SIDE), color: Color::Bgr, divisor: 3.0, ..raw() };
    let skip = Prepare { skip_bad: true, ..prepare.clone() };
    let open = |prepare: &Prepare, images: usize| {
        let spare = (images * SIDE * SIDE * 3) as u64;
        super::open(dir.path(), prepare, &Limits { spare, ..Limits::default() }).unwrap()
    };
    let all = |samples: &dyn Samples| (0..5).filter_map(|i| samples.get(i).ok()).collect::<Vec<_>>();
    let want = all(&open(&prepare, 5));
    assert_eq!(want.len(), 5);
    let sets = [open(&skip, 5), open(&skip, 2), open(&skip, 0), open(&prepare, 5)];
    for set in &sets {
        assert_eq!(all(set), want);
    }
    // What was decoded when the set was opened needs its file no more.
    paths.iter().for_each(|path| std::fs::remove_file(path).unwrap());
    assert_eq!(sets.each_ref().map(|set| all(set).len()), [5, 2, 0, 0]);
    assert_eq!(all(&sets[0]), want);
    assert_eq!(sets.each_ref().map(|set| set.held_bytes() as usize), [5, 2, 0, 0].map(|n| n * SIDE * SIDE * 3));
}

#[test]
fn absurd_dimensions_are_refused() {
    let dir = temp();
    let header = |w: u32, h: u32| {
        let mut bmp = b"BM\x36\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0".to_vec();
        bmp.extend(w.to_le_bytes());
        bmp.extend(h.to_le_bytes());
        bmp.extend([1, 0, 24, 0]);
        bmp.extend([0; 24]);
        bmp
    };
    for (w, h) in [(60_000, 60_000), (30_000, 30_000), (0, 10)] {
        std::fs::write(dir.path().join("a.bmp"), header(w, h)).unwrap();
        assert!(open(dir.path(), &raw()).err().unwrap().to_string().contains("a.bmp"));
    }
}

#[test]
fn pixels_convert_as_pillow() {
    let dir = temp();
    let save = |name: &str, image: DynamicImage| image.save(dir.path().join(name)).unwrap();
    save("0.png", DynamicImage::ImageLuma8(ImageBuffer::from_raw(1, 1, vec![9]).unwrap()));
    save("1.png", DynamicImage::ImageLumaA8(ImageBuffer::from_raw(1, 1, vec![9, 0]).unwrap()));
    save("2.png", DynamicImage::ImageRgba8(ImageBuffer::from_raw(1, 1, vec![1, 2, 3, 0]).unwrap()));
    save("3.png", DynamicImage::ImageLuma16(ImageBuffer::from_raw(1, 1, vec![300]).unwrap()));
    save("4.png", DynamicImage::ImageRgb16(ImageBuffer::from_raw(1, 1, vec![0x01ff, 0x0280, 0xff00]).unwrap()));
    let s = open(dir.path(), &raw()).unwrap();
    let all: Vec<Vec<f32>> = (0..5).map(|i| s.get(i).unwrap()[0].to_f32().unwrap()).collect();
    assert_eq!(all, [[9.0; 3], [9.0; 3], [1.0, 2.0, 3.0], [255.0; 3], [1.0, 2.0, 255.0]].map(|v| v.to_vec()));
    let gray = open(dir.path(), &Prepare { color: Color::Gray, ..raw() }).unwrap();
    assert_eq!(gray.get(2).unwrap(), [Tensor::f32(&[1, 1, 1], vec![2.0])]);
}

#[test]
fn csv_lists() {
    let dir = temp();
    picture(dir.path().join("img/a, b.png"), 2, 2);
    picture(dir.path().join("c.png"), 2, 2);
    let list = dir.path().join("list.csv");
    let read = |text: &str| {
        std::fs::write(&list, text).unwrap();
        open(&list, &raw())
    };
    let s = read("\u{feff}file,label\n\"img/a, b.png\",3\nc.png,0\n").unwrap();
    assert_eq!((s.len(), s.label(0), s.label(1)), (2, Some(3), Some(0)));
    assert!(s.name(0).ends_with("a, b.png"));
    let s = read("label,extra,file\n 1 ,x,c.png\n").unwrap();
    assert_eq!(s.label(0), Some(1));
    assert_eq!(read("file\nc.png\n").unwrap().label(0), None);
    let message = |text: &str| {
        let e = read(text).err().unwrap().to_string();
        e.replace(&format!("{}/", dir.path().display()), "")
    };
    for (text, want) in [
        ("file,label\nc.png,0\nd.png,1\n", "list.csv: row 2: no such file `d.png`"),
        ("file,label\nc.png,x\n", "list.csv: row 1: label `x` is not an integer, expected a class from 0"),
        ("file,label\nc.png,\n", "list.csv: row 1: label `` is not an integer"),
        ("file,label\nc.png,-1\n", "list.csv: row 1: label -1 is negative, expected a class from 0"),
        ("c.png,0\n", "list.csv: expected a column `file` in the header, got `c.png,0`"),
        ("file,label\n", "list.csv: the list has no rows"),
        ("", "list.csv: expected a column `file` in the header"),
        ("file,label\nc.png\n", "list.csv: cannot read the list: "),
    ] {
        assert!(message(text).starts_with(want), "{}", message(text));
    }
    std::fs::write(dir.path().join("bad.png"), "no image").unwrap();
    let e = message("file\nc.png\nbad.png\n");
    assert!(e.starts_with("row 2: bad.png: cannot decode the image: its content is not PNG"), "{e}");
}

/// A version 1 npy file.
fn npy(descr: &str, fortran: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n");
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((header.len() as u16).to_le_bytes());
    file.extend(header.as_bytes());
    file.extend(data);
    file
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

#[test]
fn npy_arrays() {
    let dir = temp();
    let path = dir.path().join("x.npy");
    let read = |bytes: Vec<u8>| {
        std::fs::write(&path, bytes).unwrap();
        open(&path, &Prepare::preset("imagenet-norm").unwrap())
    };
    let s = read(npy("'<f4'", "False", "(2, 3)", &floats(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))).unwrap();
    assert_eq!((s.len(), s.name(1)), (2, "row 1".to_string()));
    assert_eq!(s.get(1).unwrap(), [Tensor::f32(&[3], vec![4.0, 5.0, 6.0])]);
    let s = read(npy("'<f4'", "True", "(2, 3)", &floats(&[1.0, 4.0, 2.0, 5.0, 3.0, 6.0]))).unwrap();
    assert_eq!(s.get(1).unwrap(), [Tensor::f32(&[3], vec![4.0, 5.0, 6.0])]);
    let s = read(npy("'>i2'", "False", "(2,)", &[1, 2, 255, 254])).unwrap();
    assert_eq!(s.get(1).unwrap()[0].data(), &Data::I16(vec![-2]));
    let s = read(npy("'|b1'", "False", "(1, 2)", &[0, 1])).unwrap();
    assert_eq!(s.get(0).unwrap()[0].data(), &Data::Bool(vec![false, true]));
    // Images in 8 bits are prepared, channels last or first.
    let last = read(npy("'|u1'", "False", "(1, 1, 2, 3)", &[1, 2, 3, 4, 5, 6])).unwrap().get(0).unwrap();
    let first = read(npy("'|u1'", "False", "(1, 3, 1, 2)", &[1, 4, 2, 5, 3, 6])).unwrap().get(0).unwrap();
    assert_eq!((last[0].dtype(), last[0].shape()), (DType::F32, &[3, 1, 2][..]));
    assert_eq!(last, first);

    let ok = npy("'<f4'", "False", "(2, 3)", &floats(&[0.0; 6]));
    for n in 0..ok.len() {
        let e = read(ok[..n].to_vec()).err().unwrap_or_else(|| panic!("cut at {n}"));
        assert!(e.to_string().contains("x.npy"), "{e}");
    }
    let message = |bytes| read(bytes).err().unwrap().to_string().replace(&format!("{}: ", path.display()), "");
    for (bytes, want) in [
        (
            npy("'<f4'", "False", "(2, 3)", &[0; 8]),
            "the array is cut off: shape [2, 3] of <f4 needs 24 bytes, the file has 8",
        ),
        (
            npy("'<f4'", "False", "(4611686018427387904, 8)", &[0; 8]),
            "shape [4611686018427387904, 8] has more elements than",
        ),
        (npy("'<f4'", "False", "(1099511627776, 1024)", &[0; 8]), "the array is cut off: "),
        (npy("'|O'", "False", "(1,)", &[0; 8]), "npy arrays of type `|O` are not supported"),
        (npy("'é'", "False", "(1,)", &[0; 8]), "npy arrays of type `é` are not supported"),
        (npy("[('a', '<f4')]", "False", "(1,)", &[0; 4]), "structured npy arrays are not supported"),
        (npy("'<f4'", "Maybe", "(1,)", &[0; 4]), "not a npy array: the header has no valid `fortran_order`"),
        (npy("'<f4'", "False", "(-1,)", &[0; 4]), "not a npy array: the header has no valid `shape`"),
        (npy("'<f4'", "False", "()", &[0; 4]), "array `x`: expected shape [N, ...], got a scalar"),
        (npy("'<f4'", "False", "(0, 3)", &[]), "array `x`: expected samples, got the empty shape [0, 3]"),
        (npy("'|u1'", "False", "(1, 5, 5, 5)", &[0; 125]), "expected images of shape [H, W, C] or [C, H, W]"),
        (b"\x93NUMPY\x07\x00aaaa".to_vec(), "not a npy array: version 7 is unknown"),
        (b"PK\x03\x04 not numpy".to_vec(), "not a npy array: the magic number is missing"),
    ] {
        let got = message(bytes);
        assert!(got.starts_with(want), "{got}");
    }
}

fn npz(path: &Path, arrays: &[(&str, Vec<u8>)], method: zip::CompressionMethod) {
    let mut zip = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
    for (name, bytes) in arrays {
        let options = zip::write::SimpleFileOptions::default().compression_method(method);
        zip.start_file(format!("{name}.npy"), options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap();
}

#[test]
fn npz_archives_map_to_inputs_by_name() {
    let dir = temp();
    let path = dir.path().join("x.npz");
    let arrays = [
        ("mask", npy("'<i8'", "False", "(2, 1)", &[1u64, 2].map(u64::to_le_bytes).concat())),
        ("ids", npy("'<f8'", "False", "(2, 2)", &[0.5f64, 1.5, 2.5, 3.5].map(f64::to_le_bytes).concat())),
        ("labels", npy("'<i4'", "False", "(2,)", &[7u32, 0].map(u32::to_le_bytes).concat())),
    ];
    let spec = |name: &str, dtype, n| InputSpec::new(name, dtype, [Some(n)]);
    for method in [zip::CompressionMethod::Stored, zip::CompressionMethod::Deflated] {
        npz(&path, &arrays, method);
        let s = open(&path, &raw()).unwrap();
        assert_eq!((s.len(), s.label(0), s.input_names()), (2, Some(7), Some(vec!["mask".into(), "ids".into()])));
        let by_name = fit(s, &[spec("ids", DType::F32, 2), spec("mask", DType::I64, 1)]).unwrap();
        assert_eq!(by_name.get(1).unwrap()[0], Tensor::f32(&[2], vec![2.5, 3.5]));
        assert_eq!(by_name.label(1), Some(0));
        let as_it_is = fit(open(&path, &raw()).unwrap(), &[spec("ids", DType::F64, 2)]).unwrap();
        assert_eq!(as_it_is.get(0).unwrap()[0].data(), &Data::F64(vec![0.5, 1.5]));
    }
    let wrong = |inputs: &[InputSpec]| fit(open(&path, &raw()).unwrap(), inputs).err().unwrap().to_string();
    let want = "no array is named like the network's inputs `x`, and the arrays `mask`, `ids` match no input; save one";
    assert!(wrong(&[spec("x", DType::F32, 2)]).starts_with(want));
    let want = "no array is named like the network's inputs `b`, and the arrays `mask` match no input; save one";
    assert!(wrong(&[spec("ids", DType::F64, 2), spec("b", DType::I64, 1)]).starts_with(want));
    let e = wrong(&[spec("ids", DType::I32, 2)]);
    assert!(e.starts_with("row 0: samples have type F64, network input `ids` expects I32"), "{e}");
    let e = wrong(&[spec("ids", DType::F32, 9)]);
    assert!(e.starts_with("row 0: samples have shape [2], network input `ids` expects [9]"), "{e}");

    let bytes = std::fs::read(&path).unwrap();
    for n in (0..bytes.len()).step_by(7) {
        std::fs::write(&path, &bytes[..n]).unwrap();
        assert!(open(&path, &raw()).is_err(), "cut at {n}");
    }
    let mut flipped = 0;
    for n in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[n] ^= 0x5a;
        std::fs::write(&path, &bad).unwrap();
        flipped += usize::from(open(&path, &raw()).is_err());
    }
    assert!(flipped > bytes.len() / 4, "{flipped} of {} flips noticed", bytes.len());
}

#[test]
fn a_number_alone_holds_for_all_samples() {
    let dir = temp();
    let path = dir.path().join("x.npz");
    let x = npy("'<f4'", "False", "(2, 3)", &floats(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]));
    let own = npy("'<f4'", "False", "(2,)", &floats(&[0.5, 0.25]));
    let all = npy("'<f4'", "False", "()", &floats(&[1.5]));
    npz(&path, &[("all", all), ("x", x), ("own", own)], zip::CompressionMethod::Stored);
    let vector = InputSpec::new("x", DType::F32, [Some(3)]).or([Some(1), Some(3)]);
    let [own, all] = ["own", "all"].map(|name| InputSpec::new(name, DType::F32, []));
    let s = fit(open(&path, &raw()).unwrap(), &[vector, own, all]).unwrap();
    let row = Tensor::f32(&[3], vec![3.0, 4.0, 5.0]);
    assert_eq!((s.len(), s.get(1).unwrap()), (2, vec![row, Tensor::scalar(0.25), Tensor::scalar(1.5)]));
}

#[test]
fn npz_labels_and_bombs() {
    let dir = temp();
    let path = dir.path().join("x.npz");
    let x = || ("x", npy("'<f4'", "False", "(2, 1)", &[0; 8]));
    let read = |arrays: &[(&str, Vec<u8>)]| {
        npz(&path, arrays, zip::CompressionMethod::Deflated);
        open(&path, &raw()).err().unwrap().to_string().replace(&format!("{}: ", path.display()), "")
    };
    let e = read(&[x(), ("y", npy("'|i1'", "False", "(2,)", &[0, 255]))]);
    assert_eq!(e, "array `y`: row 1: label -1 is negative, expected a class from 0");
    assert_eq!(read(&[x(), ("y", npy("'|i1'", "False", "(3,)", &[0; 3]))]), "expected 2 labels, got 3");
    let e = read(&[x(), ("label", npy("'|i1'", "False", "(2, 2)", &[0; 4]))]);
    assert_eq!(e, "array `label`: expected labels of shape [N], got [2, 2]");
    let e = read(&[x(), ("z", npy("'<f4'", "False", "(3, 1)", &[0; 12]))]);
    assert_eq!(e, "array `z`: expected 2 samples as in `x`, got 3");
    assert_eq!(read(&[]), "no arrays found, expected one per network input");
    // The declared shape bounds what is unpacked, whatever the archive holds.
    let mut bomb = x().1;
    bomb.resize(64 << 20, 0);
    npz(&path, &[("x", bomb)], zip::CompressionMethod::Deflated);
    assert_eq!(open(&path, &raw()).unwrap().len(), 2);
    // Arrays that each would fit are refused together, before one is unpacked: what they hold is no array.
    npz(&path, &[("x", vec![0; 600 << 10]), ("y", vec![0; 600 << 10])], zip::CompressionMethod::Deflated);
    assert!(std::fs::metadata(&path).unwrap().len() < 10 << 10);
    let limits = Limits { memory: 1 << 20, ..Limits::default() };
    let e = super::open(&path, &raw(), &limits).err().unwrap().to_string();
    assert!(
        e.starts_with(&format!("{}: the arrays take 2 MiB of memory, at most 1 MiB are allowed", path.display())),
        "{e}"
    );
    assert!(e.ends_with("allow more (--memory), or save fewer samples"), "{e}");
    let e = open(&path, &raw()).err().unwrap().to_string();
    assert!(e.contains("the magic number is missing"), "{e}");
}

#[test]
fn images_are_refused_before_they_take_too_much() {
    let dir = temp();
    // A thousand by a thousand black pixels are a small file in every format but BMP.
    for name in ["a.png", "a.jpg", "a.bmp", "a.webp"] {
        let path = dir.path().join(name);
        RgbImage::new(1000, 1000).save(&path).unwrap();
        for skip_bad in [false, true] {
            let prepare = Prepare { skip_bad, crop: Some(8), ..raw() };
            let folder = dir.path().join(format!("{name} {skip_bad}"));
            std::fs::create_dir(&folder).unwrap();
            std::fs::copy(&path, folder.join(name)).unwrap();
            assert_eq!(open(&folder, &prepare).unwrap().len(), 1);
            let limits = Limits { memory: 2 << 20, ..Limits::default() };
            let e = super::open(&folder, &prepare, &limits).err().unwrap().to_string();
            assert!(e.contains(name) && e.contains("MiB of memory, at most 2 MiB are allowed"), "{e}");
            assert!(e.contains("allow more (--memory), or give a smaller image"), "{e}");
        }
    }
    // What a long, thin image becomes.
    picture(dir.path().join("thin/a.png"), 4000, 2);
    let wide = Prepare { resize: Some(256), crop: Some(8), ..raw() };
    let limits = Limits { memory: 64 << 20, ..Limits::default() };
    let e = super::open(&dir.path().join("thin"), &wide, &limits).err().unwrap().to_string();
    assert!(e.contains("a.png: the prepared image of 2 x 4000 pixels takes"), "{e}");
}

#[test]
fn opening_many_images_can_be_stopped() {
    let dir = temp();
    (0..40).for_each(|i| picture(dir.path().join(format!("{i}.png")), 4, 4));
    let limits = Limits { stopped: &|| true, ..Limits::default() };
    let stopped = super::open(dir.path(), &Prepare { skip_bad: true, ..raw() }, &limits);
    assert_eq!(stopped.err().map(|e| e.kind()), Some(Kind::Interrupted));
}

#[test]
fn safetensors_files() {
    let dir = temp();
    let path = dir.path().join("x.safetensors");
    let data = floats(&[1.0, 2.0, 3.0, 4.0]);
    let view = |shape: Vec<usize>, data| safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape, data);
    let bytes = safetensors::serialize([("input", view(vec![4, 1], &data[..]).unwrap())], None).unwrap();
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(open(&path, &raw()).unwrap().get(2).unwrap(), [Tensor::f32(&[1], vec![3.0])]);
    for n in 0..bytes.len() {
        std::fs::write(&path, &bytes[..n]).unwrap();
        let e = open(&path, &raw()).err().unwrap().to_string();
        assert!(e.contains("not a safetensors file, or a damaged one"), "{e}");
    }
}

#[test]
fn shapes_are_checked_against_the_network() {
    let dir = temp();
    picture(dir.path().join("a.png"), 30, 32);
    let s = open(dir.path(), &raw()).unwrap();
    let spec = |shape: [Option<usize>; 3]| [InputSpec::new("input", DType::F32, shape)];
    let e = check_against(&s, &spec([Some(3), Some(32), Some(32)])).unwrap_err();
    assert_eq!(e.message(), "samples have shape [3, 32, 30], network input `input` expects [3, 32, 32]");
    check_against(&s, &spec([Some(3), None, None])).unwrap();
    let e = check_against(&s, &spec([None, None, Some(3)])).unwrap_err();
    assert!(e.to_string().contains("expects [?, ?, 3]"), "{e}");
    assert!(e.advice().is_some_and(|a| a.contains("--layout nhwc for images")), "{e}");
    let advice = |shape: [usize; 3]| check_against(&s, &spec(shape.map(Some))).unwrap_err().advice().map(String::from);
    assert_eq!(advice([1, 32, 30]).as_deref(), Some("the network takes gray images: give --color gray"));
    assert!(advice([3, 8, 8]).is_some_and(|a| a.starts_with("resize or crop")));
    let two = [spec([None; 3]), spec([None; 3])].concat();
    assert!(check_against(&s, &two).unwrap_err().message().starts_with("each sample has 1 tensor (images)"));
}

#[test]
fn a_part_meets_every_class() {
    let picked = |len, limit| spread(len, Some(limit)).collect::<Vec<_>>();
    assert!(picked(0, 4).is_empty() && picked(4, 0).is_empty());
    for (len, limit) in [(1000, 1000), (1000, 999), (1000, 32), (7, 3), (3, 9), (1 << 40, 5)] {
        let indices = picked(len, limit);
        assert_eq!(indices.len(), limit.min(len));
        assert!(indices.iter().is_sorted_by(|a, b| a < b) && indices.iter().all(|&i| i < len), "{indices:?}");
    }
    assert_eq!(picked(9, 9), (0..9).collect::<Vec<_>>());
    // Classes that come in turn, and classes one after the other: each gets about its share.
    for (len, classes, limit) in [(512, 20, 256), (512, 20, 128), (1000, 10, 100), (1000, 10, 500), (960, 2, 64)] {
        for of in [|i, classes, _| i % classes, |i: usize, classes: usize, len: usize| i * classes / len] {
            let mut seen = vec![0usize; classes];
            picked(len, limit).iter().for_each(|&i| seen[of(i, classes, len)] += 1);
            let share = limit / classes;
            assert!(seen.iter().all(|&n| n.abs_diff(share) <= share / 2 + 1), "{len} {classes} {limit}: {seen:?}");
        }
    }
}

#[test]
fn subsets() {
    let arrays = vec![("x".to_string(), Tensor::f32(&[3, 1], vec![0.0, 1.0, 2.0]))];
    let s = Arrays::new(arrays, Some(vec![5, 6, 7])).unwrap();
    let first = Subset::first(&s, 9);
    assert_eq!(first.len(), 3);
    let some = Subset::new(&s, vec![2, 0, 2]).unwrap();
    assert_eq!((some.len(), some.label(0), some.name(1)), (3, Some(7), "row 0".to_string()));
    assert_eq!(some.get(0).unwrap(), [Tensor::f32(&[1], vec![2.0])]);
    assert_eq!(Subset::new(&s, vec![3]).unwrap_err().message(), "expected sample indices below 3, got 3");
}
