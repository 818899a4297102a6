//! The report of a run: its files, and its page as a browser shows it.

mod common;

use common::{ok, run};
use image::RgbImage;
use qdrop::plan::{MethodName, Task};
use qdrop::report::{
    Accuracy, Curve, Effect, FloatNode, Histogram, LayerReport, Marked, Picture, PlannedUnit, Report, Score, SiteGrid,
    SiteReport, Stage, Timing, UnitReport,
};
use qdrop_testing::{browser, python};
use std::path::Path;
use std::process::Command;

const RUN: &str = "quantize model.onnx --calib images --eval list.csv --recipe short.toml -w 2 -a 2 --seed 5";

fn read(path: &Path) -> Report {
    Report::from_json(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn a_run_leaves_its_report_beside_the_file() {
    let dir = common::folder();
    let dir = dir.path();
    let printed = ok(dir, &format!("{RUN} -o out.onnx"));
    assert!(printed.contains("out.report.html") && printed.contains("out.report.json"), "{printed}");
    let report = read(&dir.join("out.report.json"));
    let names: Vec<&str> = report.units.iter().map(|u| u.name.as_str()).collect();
    assert_eq!(names, ["stem", "block", "head", "network"]);
    for unit in &report.units {
        let c = &unit.curve;
        assert!(!c.iteration.is_empty() && *c.iteration.last().unwrap() == unit.iterations, "{unit:?}");
        assert!([c.reconstruction.len(), c.rounding.len(), c.beta.len()] == [c.iteration.len(); 3]);
        assert!(unit.snr_after.is_some() && unit.planned >= unit.iterations, "{unit:?}");
    }
    let planned: Vec<&str> = report.plan.iter().map(|u| u.name.as_str()).collect();
    assert_eq!((report.layers.len(), planned.len()), (4, 4), "{planned:?}");
    for layer in &report.layers {
        let h = &layer.histogram;
        assert!((h.shares.iter().sum::<f64>() + h.below + h.above - 1.0).abs() < 1e-3, "{layer:?}");
        assert!(layer.learned && layer.unit.is_some() && layer.snr.is_some(), "{layer:?}");
    }
    assert!(report.layers.iter().any(|l| l.moved > 0.0), "learning moved nothing");
    assert!(!report.sites.is_empty());
    for site in &report.sites {
        let h = &site.histogram;
        let all = h.shares.iter().sum::<f64>() + h.below + h.above + site.zeros;
        assert!((all - 1.0).abs() < 1e-3 && site.effect.is_some_and(|e| e.refined <= e.first), "{site:?}");
        assert!(site.learned.step > 0.0 && site.learned.low <= 0.0 && site.min <= site.max, "{site:?}");
    }
    assert_eq!((report.seed, report.command[0].as_str()), (5, "qdrop"));
    assert_eq!(report.accuracy.as_ref().map(|a| a.result.samples), Some(40));

    // The page holds every unit, and is made anew from the JSON alone.
    let page = std::fs::read_to_string(dir.join("out.report.html")).unwrap();
    assert!(names.iter().all(|n| page.contains(n)) && page.contains("seed 5"));
    assert_eq!(ok(dir, "report out.report.json -o again.html").trim(), "again.html");
    assert_eq!(std::fs::read_to_string(dir.join("again.html")).unwrap(), page);

    // Its recipe alone leads to the same file, and so does a run without a report.
    std::fs::write(dir.join("explicit.toml"), &report.recipe).unwrap();
    ok(dir, "quantize model.onnx --calib images --recipe explicit.toml -o same.onnx --no-report");
    let bytes = |name: &str| std::fs::read(dir.join(name)).unwrap();
    assert!(bytes("same.onnx") == bytes("out.onnx"));
    assert!(!dir.join("same.report.html").exists() && !dir.join("same.report.json").exists());

    // From finished units come the same curves.
    let line = format!("{RUN} -o kept.onnx --work-dir work --report other");
    ok(dir, &line);
    let first = read(&dir.join("other.json"));
    ok(dir, &line);
    let again = read(&dir.join("other.json"));
    assert!(again.units.iter().all(|u| u.resumed) && !first.units[0].resumed);
    for (a, b) in first.units.iter().zip(&again.units) {
        assert_eq!((&a.curve, a.loss_after), (&b.curve, b.loss_after));
    }
}

#[test]
fn a_report_is_replaced_only_by_a_run_that_succeeds() {
    let dir = common::folder();
    let dir = dir.path();
    std::fs::write(dir.join("out.report.html"), "before").unwrap();
    let (code, _, said) = run(dir, "quantize model.onnx --calib corrupt --method rtn -o out.onnx");
    assert_eq!(code, Some(2), "{said}");
    assert_eq!(std::fs::read_to_string(dir.join("out.report.html")).unwrap(), "before");
    ok(dir, "quantize model.onnx --calib images --method rtn -o out.onnx");
    let page = std::fs::read_to_string(dir.join("out.report.html")).unwrap();
    assert!(page.contains("nearest rounding") && page.contains("block/conv1"), "{page}");
    assert!(!std::fs::read_dir(dir).unwrap().any(|e| e.unwrap().file_name().to_string_lossy().starts_with('.')));
}

#[test]
fn a_place_that_cannot_be_written_is_refused_before_work() {
    let dir = common::folder();
    let dir = dir.path();
    std::fs::create_dir(dir.join("folder.html")).unwrap();
    for (more, want) in [
        ("--report nowhere/r", "the directory `nowhere` does not exist"),
        ("--report folder", "expected a file name for the output, got a directory"),
        ("--report short.toml --no-report", "cannot be used with"),
    ] {
        let (code, _, said) = run(dir, &format!("{RUN} -o out.onnx {more}"));
        assert!(code == Some(2) && said.contains(want), "{more}: {said}");
        assert!(!dir.join("out.onnx").exists());
    }
    let (_, _, said) = run(dir, &format!("{RUN} -o r.html --report r"));
    assert!(said.contains("are the same file"), "{said}");
}

/// Holds the page against the judge; the text on it.
fn judged(page: &Path) -> Option<String> {
    let python = python()?;
    let judge = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/judge/page.py");
    let output = Command::new(python).arg(judge).arg(page).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    Some(found["text"].as_str().unwrap().to_string())
}

/// A report of `units` units of three layers and three sites each, whose names end in `strange`.
fn invented(units: usize, strange: &str) -> Report {
    let mut report = Report::new(MethodName::Qdrop);
    (report.model, report.output) = (format!("m{strange}.onnx"), Some(format!("o{strange}.onnx")));
    report.command = vec!["qdrop".into(), "quantize".into(), format!("it's {strange}")];
    report.recipe = format!("[input]\ntokenizer = '''{strange}'''\n");
    let noise = |i: usize| ((i * 7919 + 13) % 101) as f64 / 101.0;
    let histogram = |i: usize| Histogram {
        low: -1.5,
        high: 5.0,
        shares: (0..128).map(|b| noise(b + i) / 64.0).collect(),
        below: 0.0,
        above: 0.01,
    };
    for u in 0..units {
        report.plan.push(PlannedUnit { name: format!("unit{u}{strange}"), nodes: 5, ..PlannedUnit::default() });
        let layers: Vec<String> = (0..3).map(|i| format!("unit{u}/conv{i}{strange}")).collect();
        for (i, name) in layers.iter().enumerate() {
            report.layers.push(LayerReport {
                name: name.clone(),
                unit: Some(u),
                learned: true,
                shape: vec![64, 64, 3, 3],
                bits: 2,
                channels: 64,
                steps: [0.01, 0.02, 0.5],
                histogram: histogram(i),
                snr_nearest: Some(noise(u) * 9.0),
                ..LayerReport::default()
            });
            let grid = SiteGrid { step: 1.0, high: 3.0, above: 0.02, ..SiteGrid::default() };
            report.sites.push(SiteReport {
                name: format!("{name}.out"),
                unit: Some(u),
                bits: 2,
                histogram: histogram(i + 1),
                first: grid,
                refined: grid,
                learned: SiteGrid { step: 1.1, high: 3.3, ..grid },
                effect: Some(Effect { first: 0.1, refined: noise(u + i) }),
                ..SiteReport::default()
            });
        }
        let curve: Vec<usize> = (1..=100).collect();
        report.units.push(UnitReport {
            name: format!("unit{u}{strange}"),
            unit: Some(u),
            layers,
            loss_before: 2.0,
            loss_after: 1.0,
            snr_before: Some(5.0),
            snr_after: Some(10.0 + noise(u)),
            iterations: 100,
            planned: 200,
            reverted: u == 1,
            curve: Curve {
                reconstruction: curve.iter().map(|&i| noise(i) + 1.0 / i as f64).collect(),
                rounding: curve.iter().map(|&i| noise(i)).collect(),
                beta: curve.iter().map(|&i| 20.0 - 0.18 * i as f64).collect(),
                iteration: curve,
            },
            resumed: u == 2,
            seconds: 3.0,
        });
    }
    report.float.push(FloatNode { node: format!("attention{strange}"), reason: "product".into() });
    let score = |v| Score::new(10, [("top1", v)]);
    report.accuracy = Some(Accuracy { float: score(90.0), nearest: Some(score(10.0)), result: score(80.0) });
    report.timings.push(Timing { stage: Stage::Reconstruct, seconds: 10.0 });
    report
}

/// `report` of a detector, with six pictures of a photograph's size and many boxes.
fn with_pictures(mut report: Report, strange: &str) -> Report {
    let image = RgbImage::from_fn(320, 240, |x, y| {
        let noise = ((x * 7919 + y * 104_729) % 17) as u8;
        image::Rgb([(x / 2) as u8 + noise, (y / 2) as u8 + noise, 90 + noise])
    });
    let pixels = qdrop::data::Pixels { height: 240, width: 320, channels: 3, data: image.into_raw() };
    let jpeg = Some(base64(&pixels.to_jpeg(320).unwrap()));
    let marked = |i: usize, score: Option<f64>| Marked {
        name: format!("kind {i}{strange}"),
        score,
        bbox: [20.0 + 40.0 * i as f64, 30.0 + 20.0 * i as f64, 120.0, 160.0],
    };
    for id in 0..6 {
        let found = |n: usize| (0..n).map(|i| marked(i, Some(0.9 - i as f64 / 20.0))).collect::<Vec<_>>();
        report.pictures.push(Picture {
            id,
            name: format!("{id}{strange}.jpg"),
            // One stands upright.
            width: if id == 4 { 480 } else { 640 },
            height: if id == 4 { 640 } else { 480 },
            jpeg: jpeg.clone(),
            truth: (0..4).map(|i| marked(i, None)).collect(),
            float: Some(found(6)),
            result: found(5),
        });
    }
    let score = |v: f64| Score::new(128, Task::Coco.metrics().iter().map(|&m| (m, v)));
    report.accuracy = Some(Accuracy { float: score(34.0), nearest: Some(score(25.2)), result: score(33.4) });
    report
}

/// `bytes` in base64, bit by bit.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits = |i: usize| bytes.get(i / 8).map_or(0, |b| usize::from(b >> (7 - i % 8) & 1));
    let digit = |i: usize| char::from(DIGITS[(0..6).fold(0, |all, k| all << 1 | bits(6 * i + k))]);
    let text: String = (0..(bytes.len() * 8).div_ceil(6)).map(digit).collect();
    let padding = (4 - text.len() % 4) % 4;
    text + &"=".repeat(padding)
}

#[test]
fn pages_of_any_size_are_whole_and_load_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let strange = "<script>alert('\"&amp;</style>-->\u{202e}é";
    let empty = Report::new(MethodName::Rtn);
    let detector = with_pictures(invented(1, ""), strange);
    let reports = [empty, invented(1, ""), invented(3, strange), invented(33, ""), invented(300, ""), detector];
    for (report, most) in reports.iter().zip([20_000, 120_000, 200_000, 3_000_000, 6_000_000, 600_000]) {
        let read = Report::from_json(report.to_json().unwrap().as_bytes()).unwrap();
        assert_eq!(&read, report);
        let page = read.html();
        assert!(page.len() < most, "{} units: {} bytes", report.plan.len(), page.len());
        assert!(!page.contains("<script>alert"), "a name became part of the page");
        let path = dir.path().join("page.html");
        std::fs::write(&path, &page).unwrap();
        let Some(text) = judged(&path) else { continue };
        // Control characters are spelt out.
        let missing = report.units.iter().find(|u| !text.contains(&*qdrop::report::visible(&u.name, false)));
        assert!(missing.is_none(), "{missing:?} is not on the page");
    }
}

/// What Chromium printed about `page` in a window of `width` by `height` pixels, started with `more`.
fn shown(browser: &Path, page: &Path, dark: bool, (width, height): (u32, u32), more: &[&str]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"])
        .args(["--disable-background-networking", "--enable-logging=stderr"])
        .arg(format!("--user-data-dir={}", dir.path().display()))
        .arg(format!("--blink-settings=preferredColorScheme={}", if dark { 0 } else { 1 }))
        .arg(format!("--window-size={width},{height}"))
        .args(more)
        .arg(format!("file://{}", page.display()))
        .output()
        .expect("the browser starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    for wrong in ["CONSOLE", "Refused", "ERR_", "Failed to load", "violates"] {
        assert!(!said.contains(wrong), "{said}");
    }
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A picture of `page` in a window of `size` pixels.
fn picture(browser: &Path, page: &Path, dark: bool, size: (u32, u32)) -> RgbImage {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("page.png");
    shown(browser, page, dark, size, &[&format!("--screenshot={}", path.display())]);
    image::open(&path).unwrap().to_rgb8()
}

/// Counts on a page: pixels by which it is wider than its window, charts without anything drawn, charts, things it asked
/// the network for, errors of its script, units that a link to the last one of them leaves folded.
const LOOK: &str = r#"<script>
let errors = 0;
addEventListener("error", () => errors++);
addEventListener("securitypolicyviolation", () => errors++);
addEventListener("load", () => setTimeout(() => {
  const page = document.documentElement, charts = [...document.querySelectorAll("svg")];
  const drawn = c => [...c.querySelectorAll("polyline,polygon,circle,image,use")].some(m => m.getBoundingClientRect().width > 1);
  const last = [...document.querySelectorAll("[id^=unit]")].filter(u => u.querySelector("details")).pop();
  document.querySelectorAll("details").forEach(d => d.open = true);
  const found = [page.scrollWidth - page.clientWidth, charts.filter(c => !drawn(c)).length, charts.length];
  found.push(performance.getEntriesByType("resource").length, errors);
  if (last) { last.querySelector("details").open = false; location.hash = last.id; }
  setTimeout(() => {
    found.push(last && !last.querySelector("details").open ? 1 : 0);
    parent.postMessage(found.join(" "), "*");
  }, 100);
}, 100));
</script>"#;

/// What [`LOOK`] counts on `page` where it is `width` pixels wide; windows themselves are never narrower than 500.
fn counts(browser: &Path, page: &Path, width: u32) -> Vec<i64> {
    let dir = tempfile::tempdir().unwrap();
    let (inner, outer) = (dir.path().join("inner.html"), dir.path().join("outer.html"));
    let text = std::fs::read_to_string(page).unwrap();
    std::fs::write(&inner, text.replacen("<head>", &format!("<head>{LOOK}"), 1)).unwrap();
    let frame = format!("<iframe src=\"inner.html\" width=\"{width}\" height=\"900\" style=\"border:0\"></iframe>");
    let listen = "<script>addEventListener('message', e => document.body.append(`found:${e.data}:`))</script>";
    std::fs::write(&outer, format!("<!DOCTYPE html><body>{listen}{frame}</body>")).unwrap();
    let text = shown(browser, &outer, false, (1300, 1000), &["--virtual-time-budget=5000", "--dump-dom"]);
    let found = text.split("found:").nth(2).and_then(|t| t.split(':').next()).unwrap_or_else(|| panic!("{text}"));
    found.split(' ').map(|n| n.parse().unwrap()).collect()
}

/// Luminance of a pixel, 0 to 1.
fn luminance(&image::Rgb([r, g, b]): &image::Rgb<u8>) -> f64 {
    (0.2126 * f64::from(r) + 0.7152 * f64::from(g) + 0.0722 * f64::from(b)) / 255.0
}

#[test]
fn a_browser_shows_the_report_in_light_and_dark() {
    let Some(browser) = browser() else { return };
    let dir = common::folder();
    let dir = dir.path();
    ok(dir, &format!("{RUN} -o out.onnx"));
    let page = dir.join("out.report.html");
    // Everything unfolded, so that charts are seen.
    let open = std::fs::read_to_string(&page).unwrap().replace("<details>", "<details open>");
    std::fs::write(&page, open).unwrap();
    let mut grounds = Vec::new();
    for (dark, size) in [(false, (1200, 4000)), (true, (1200, 4000)), (false, (500, 6000))] {
        let shot = picture(&browser, &page, dark, size);
        assert_eq!((shot.width(), shot.height()), size);
        let ground = luminance(shot.get_pixel(2, 2));
        let far = |p: &&image::Rgb<u8>| (luminance(p) - ground).abs() > 0.5;
        let text = shot.pixels().filter(far).count() as f64 / f64::from(size.0 * size.1);
        assert!((0.003..0.2).contains(&text), "{text} of the picture is as dark or bright as text");
        // Charts have colours; text and tables have almost none.
        let coloured = |p: &&image::Rgb<u8>| p.0.iter().max().unwrap() - p.0.iter().min().unwrap() > 60;
        let coloured = shot.pixels().filter(coloured).count();
        assert!(coloured > 5000, "{coloured} pixels have a colour");
        grounds.push(ground);
    }
    assert!(grounds[0] > 0.9 && grounds[1] < 0.2 && grounds[2] > 0.9, "{grounds:?}");
}

#[test]
fn a_browser_finds_nothing_amiss_at_any_width() {
    let Some(browser) = browser() else { return };
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let strange = "<script>alert('\"&amp;</style>-->\u{202e}é";
    let long = "/a_very_long_name_of_a_module_without_a_single_space_in_it/and_one_more_below_it/Conv_output_0";
    let reports = [
        ("empty", Report::new(MethodName::Rtn)),
        ("strange", invented(3, strange)),
        ("long", invented(3, long)),
        ("large", invented(300, "")),
        ("detector", with_pictures(invented(1, ""), "")),
        ("strange detector", with_pictures(invented(1, ""), strange)),
    ];
    for (name, report) in reports {
        let page = dir.join(format!("{name}.html"));
        std::fs::write(&page, report.html()).unwrap();
        for width in [360, 800, 1280] {
            let found = counts(&browser, &page, width);
            assert_eq!((found[0], found[1], &found[3..]), (0, 0, &[0, 0, 0][..]), "{name} at {width}: {found:?}");
            assert!(found[2] >= 8 * report.units.len().min(80) as i64, "{name} at {width}: {found:?}");
        }
    }
}
