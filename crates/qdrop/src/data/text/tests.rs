//! Text tasks on small files; the tokenizer has one token per word.

use super::*;
use crate::error::Kind;
use std::fmt::Write;

/// Words that the test's tokenizer knows, behind `[PAD] [UNK] [CLS] [SEP]`.
const WORDS: &str = "a b c d e f g h good bad ?";

fn tokenizer(dir: &Path) -> PathBuf {
    let words = "[PAD] [UNK] [CLS] [SEP] ".to_string() + WORDS;
    let vocab: Vec<String> = words.split(' ').enumerate().map(|(i, w)| format!("\"{w}\":{i}")).collect();
    let special = |name: &str, id: usize| format!(r#""{name}":{{"id":"{name}","ids":[{id}],"tokens":["{name}"]}}"#);
    let part = |kind: &str, id: &str, of: u32| format!(r#"{{"{kind}":{{"id":"{id}","type_id":{of}}}}}"#);
    let [cls, a, sep] = [part("SpecialToken", "[CLS]", 0), part("Sequence", "A", 0), part("SpecialToken", "[SEP]", 0)];
    let [b, end] = [part("Sequence", "B", 1), part("SpecialToken", "[SEP]", 1)];
    let text = format!(
        r#"{{"version":"1.0","added_tokens":[],"normalizer":{{"type":"Lowercase"}},"pre_tokenizer":{{"type":"Whitespace"}},
        "post_processor":{{"type":"TemplateProcessing","single":[{cls},{a},{sep}],"pair":[{cls},{a},{sep},{b},{end}],
        "special_tokens":{{{},{}}}}},"decoder":null,"truncation":null,"padding":null,
        "model":{{"type":"WordLevel","unk_token":"[UNK]","vocab":{{{}}}}}}}"#,
        special("[CLS]", 2),
        special("[SEP]", 3),
        vocab.join(",")
    );
    let path = dir.join("tokenizer.json");
    std::fs::write(&path, text).unwrap();
    path
}

/// Inputs of a network, in an unusual order.
fn inputs(names: &[&str]) -> Vec<InputSpec> {
    names.iter().map(|n| InputSpec::new(*n, DType::I64, [None])).collect()
}

type Opened = Result<Box<dyn Samples + Send + Sync>>;

/// `content` as the file `name` of `task`, samples of eight tokens.
fn opened(task: Task, name: &str, content: &str) -> Opened {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, content).unwrap();
    let text = Text { task, tokenizer: tokenizer(dir.path()), max_length: Some(8), doc_stride: 1 };
    open_text(&path, &text, &inputs(&["attention_mask", "input_ids", "token_type_ids"]), None, &Limits::default())
}

fn records(task: Task, name: &str, content: &str) -> (Vec<Record>, usize) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, content).unwrap();
    records::read(&path, task).unwrap()
}

/// The message of an error, its file's folder left out.
fn refusal(opened: Opened) -> String {
    let text = opened.err().expect("an error").to_string();
    match text.split_once("dev.") {
        Some((_, rest)) => format!("dev.{rest}"),
        None => text,
    }
}

fn integers(samples: &dyn Samples, index: usize) -> Vec<Vec<i64>> {
    samples.get(index).unwrap().iter().map(|t| t.to_i64().unwrap()).collect()
}

#[test]
fn pairs_are_cut_longest_first_and_padded_right() {
    let header = "index\tsentence1\tsentence2\tlabel\n";
    let samples =
        opened(Task::Rte, "dev.tsv", &format!("{header}0\tA b\tc\tentailment\n1\ta b c d e f\tg\t1\n")).unwrap();
    let [mask, ids, types] = &integers(&samples, 0)[..] else { panic!() };
    assert_eq!(ids[..], [2, 4, 5, 3, 6, 3, 0, 0]);
    assert_eq!(mask[..], [1, 1, 1, 1, 1, 1, 0, 0]);
    assert_eq!(types[..], [0, 0, 0, 0, 1, 1, 0, 0]);
    assert_eq!(integers(&samples, 1)[1], [2, 4, 5, 6, 7, 3, 10, 3]);
    assert_eq!((samples.label(0), samples.label(1), samples.name(1)), (Some(0), Some(1), "line 3".into()));
    assert_eq!((samples.tokens(0), samples.tokens(1)), (Some(6), Some(8)));
    assert_eq!(samples.input_names().unwrap(), ["attention_mask", "input_ids", "token_type_ids"]);
}

#[test]
fn files_of_the_benchmark_are_read_with_their_quirks() {
    let pair = |r: &Record| (r.first.clone(), r.second.clone().unwrap_or_default());
    let (r, _) = records(Task::Cola, "train.tsv", "gj04\t1\t\tThey \"drank.\ngj04\t0\t*\tThey drank the.\n");
    assert_eq!((r[0].first.as_str(), r[0].label, r.len()), ("They \"drank.", Some(Label::Class(1)), 2));
    let (r, _) = records(Task::Cola, "test.tsv", "index\tsentence\n0\tBill.\n");
    assert_eq!((r[0].first.as_str(), r[0].label), ("Bill.", None));

    let (r, _) = records(
        Task::Mrpc,
        "dev.tsv",
        "\u{feff}Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n1\t7\t8\tHe said .\t\" The pie .\r\n",
    );
    assert_eq!((pair(&r[0]), r[0].label), (("He said .".into(), "\" The pie .".into()), Some(Label::Class(1))));

    let header = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n";
    let (r, skipped) = records(Task::Qqp, "train.tsv", &format!("{header}1\t2\t3\tWhy?\tHow?\t0\n4\t5\t6\tcut off\n"));
    assert_eq!((pair(&r[0]), r.len(), skipped), (("Why?".into(), "How?".into()), 1, 1));

    let header = "index\tgenre\tsentence1\tsentence2\tlabel1\tgold_label\n";
    let lines = "0\tx\tp\th\tneutral\tcontradiction\n1\tx\tp\th\tneutral\t-\n";
    let (r, skipped) = records(Task::Mnli, "dev_matched.tsv", &format!("{header}{lines}"));
    assert_eq!((r[0].label, r.len(), skipped), (Some(Label::Class(2)), 1, 1));

    let (r, _) = records(Task::Stsb, "dev.tsv", "index\tsentence1\tsentence2\tscore\n0\ta\tb\t3.750\n");
    assert_eq!(r[0].label, Some(Label::Number(3.75)));
    let (r, _) = records(Task::Qnli, "dev.tsv", "index\tquestion\tsentence\tlabel\n0\tq\ts\tnot_entailment\n");
    assert_eq!((pair(&r[0]), r[0].label), (("q".into(), "s".into()), Some(Label::Class(1))));
}

#[test]
fn csv_and_json_lines_hold_the_same() {
    let want =
        vec![Record { first: "a, \"b\"".into(), second: Some("c".into()), label: Some(Label::Class(1)), line: 2 }];
    assert_eq!(records(Task::Mnli, "x.csv", "premise,hypothesis,label\n\"a, \"\"b\"\"\",c,1\n").0, want);
    let line = r#"{"label": 1, "premise": "a, \"b\"", "hypothesis": "c", "idx": 0}"#;
    assert_eq!(records(Task::Mnli, "x.jsonl", &format!("\n{line}\n")).0, want);
    assert_eq!(records(Task::Mnli, "x.jsonl", &line.replace('1', "\"neutral\"")).0[0].label, Some(Label::Class(1)));
    assert_eq!(records(Task::Sst2, "x.jsonl", r#"{"sentence": "a", "label": -1}"#).0[0].label, None);
}

#[test]
fn what_cannot_be_read_is_named() {
    for (task, name, content, want) in [
        (
            Task::Sst2,
            "dev.tsv",
            "",
            "dev.tsv: line 1: expected a column `sentence` or `text`, got ``; the file must be one of task `sst2`",
        ),
        (Task::Sst2, "dev.tsv", "sentence\tlabel\n", "dev.tsv: the file has no records"),
        (
            Task::Mrpc,
            "dev.tsv",
            "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t2\t3\ta\tb\n1\t2\t3\ta\n",
            "dev.tsv: line 3: expected 5 columns, got 4; columns are separated by tabs",
        ),
        (
            Task::Sst2,
            "dev.tsv",
            "sentence\tlabel\na\t1\nb\t2\n",
            "dev.tsv: line 3: unknown label `2`, expected one of 0, 1",
        ),
        (
            Task::Rte,
            "dev.tsv",
            "sentence1\tsentence2\tlabel\na\tb\tyes\n",
            "dev.tsv: line 2: unknown label `yes`, expected one of entailment (0), not_entailment (1)",
        ),
        (
            Task::Stsb,
            "dev.tsv",
            "sentence1\tsentence2\tscore\na\tb\tNaN\n",
            "dev.tsv: line 2: label `NaN` is not a finite number",
        ),
        (
            Task::Sst2,
            "dev.xml",
            "",
            "dev.xml: cannot read task `sst2` from a file of type `xml`; give a .tsv, .csv or .jsonl file",
        ),
        (Task::Sst2, "dev.jsonl", r#"{"text": 1}"#, "dev.jsonl: line 1: expected a text `sentence` or `text`"),
        (Task::Squad, "dev.json", r#"{"data": []}"#, "dev.json: the file has no questions"),
    ] {
        assert_eq!(refusal(opened(task, name, content)), want);
    }
    let text = refusal(opened(Task::Squad, "dev.json", "[1]"));
    assert!(text.starts_with("dev.json: expected questions in the format of SQuAD v1.1: "), "{text}");
}

#[test]
fn tokenizers_and_inputs_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dev.tsv");
    std::fs::write(&path, "sentence\tlabel\na\t1\n").unwrap();
    let text = |tokenizer: &str, max_length| {
        let tokenizer = dir.path().join(tokenizer);
        Text { task: Task::Sst2, tokenizer, max_length, doc_stride: 1 }
    };
    let open = |text: Text, inputs: &[InputSpec]| match open_text(&path, &text, inputs, None, &Limits::default()) {
        Ok(_) => panic!("no error"),
        Err(error) => (error.kind(), error.message().to_string()),
    };
    let ids = inputs(&["input_ids"]);
    assert_eq!(open(text("none.json", None), &ids), (Kind::Io, "no such tokenizer".into()));
    for content in ["", "{}", "[PAD]\n[UNK]\n"] {
        std::fs::write(dir.path().join("bad.json"), content).unwrap();
        let (kind, message) = open(text("bad.json", None), &ids);
        assert_eq!(kind, Kind::Data);
        assert!(message.starts_with("expected a tokenizer, got another file: "), "{message}");
    }
    tokenizer(dir.path());
    assert_eq!(
        open(text("tokenizer.json", Some(3)), &ids).1,
        "expected samples longer than the 3 tokens around texts, got 3"
    );
    assert_eq!(
        open(text("tokenizer.json", None), &inputs(&["input_ids", "position_ids"])).1,
        "task `sst2` provides no input `position_ids`, only input_ids, attention_mask and token_type_ids"
    );
    let image = [InputSpec::new("input_ids", DType::F32, [Some(3), None, None])];
    assert_eq!(
        open(text("tokenizer.json", None), &image).1,
        "task `sst2` has lists of I64 or I32, network input `input_ids` expects F32 of rank 4"
    );
    let fixed = [InputSpec::new("input_ids:0", DType::I32, [Some(16)])];
    assert_eq!(open(text("tokenizer.json", Some(8)), &fixed).1, "samples have 8 tokens, the network expects 16");
    // What the network declares is the default.
    let samples = open_text(&path, &text("tokenizer.json", None), &fixed, None, &Limits::default()).unwrap();
    assert_eq!(samples.tokens(0), None, "no input marks padding");
    let tensor = samples.get(0).unwrap().remove(0);
    assert_eq!((tensor.shape(), tensor.dtype()), (&[16][..], DType::I32));

    let input = plan::Input { task: Some(Task::Sst2), ..Default::default() };
    let nowhere = Path::new("nowhere");
    let error = Text::resolve(&input, &[nowhere]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "task `sst2` needs a tokenizer, found no tokenizer.json next to the model or the samples; give the network's \
         tokenizer.json with --tokenizer"
    );
    let found = Text::resolve(&input, &[nowhere, dir.path()]).unwrap().unwrap();
    assert_eq!((found.tokenizer, found.doc_stride), (dir.path().join("tokenizer.json"), 128));
    assert_eq!(Text::resolve(&plan::Input::default(), &[]).unwrap(), None);
}

/// A file of SQuAD with one text and questions with their answers.
fn questions(context: &str, questions: &[(&str, &[&str])]) -> String {
    let mut text = format!(r#"{{"version":"1.1","data":[{{"title":"t","paragraphs":[{{"context":"{context}","qas":["#);
    for (i, (question, answers)) in questions.iter().enumerate() {
        let answers: Vec<String> = answers.iter().map(|a| format!(r#"{{"text":"{a}","answer_start":0}}"#)).collect();
        let comma = if i > 0 { "," } else { "" };
        write!(text, r#"{comma}{{"id":"q{i}","question":"{question}","answers":[{}]}}"#, answers.join(",")).unwrap();
    }
    text + "]}]}]}"
}

#[test]
fn long_texts_are_seen_through_windows_that_overlap() {
    // Room for three tokens of the text beside a question of two; neighbours share one.
    let file = questions("A b, É  c d", &[(" good ?", &["b"]), ("bad ?", &[])]);
    let samples = opened(Task::Squad, "dev.json", &file).unwrap();
    let ids: Vec<Vec<i64>> = (0..samples.len()).map(|i| integers(&samples, i).swap_remove(1)).collect();
    // The comma and the letter É are unknown words.
    assert_eq!(ids.len(), 6);
    assert_eq!(ids[0], [2, 12, 14, 3, 4, 5, 1, 3]);
    assert_eq!(ids[1], [2, 12, 14, 3, 1, 1, 6, 3]);
    assert_eq!(ids[2], [2, 12, 14, 3, 6, 7, 3, 0]);
    assert_eq!(ids[3][..3], [2, 13, 14]);
    let Some(Target::Window(window)) = samples.target(1).unwrap() else { panic!() };
    assert_eq!((window.question, &window.answers[..]), (0, &["b".to_string()][..]));
    let under: Vec<&str> =
        window.offsets.iter().map(|o| o.map_or("-", |(a, b)| &window.context[a as usize..b as usize])).collect();
    assert_eq!(under, ["-", "-", "-", "-", ",", "É", "c", "-"]);
    assert_eq!((samples.tokens(1), samples.tokens(2)), (Some(8), Some(7)));
    assert_eq!(samples.target(3).unwrap(), None);
    assert_eq!(samples.name(2), "question q0, window 3");

    let long = questions("a b", &[("a b c d e", &["a"])]);
    assert_eq!(
        refusal(opened(Task::Squad, "dev.json", &long)),
        "dev.json: question `q0`: expected room for more than the 1 tokens that windows share, got 0 next to a question of \
         5; raise --max-length, or lower --doc-stride"
    );
}

#[test]
fn a_part_of_the_records_is_spread_evenly() {
    let letters = || "abcdefghij".chars().collect::<Vec<_>>();
    assert_eq!(part(letters(), Some(4)), ['a', 'd', 'f', 'j']);
    assert_eq!(part(letters(), Some(99)), letters());
    assert_eq!(part(letters(), None), letters());
}

#[test]
fn a_template_that_takes_a_text_twice_is_no_internal_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = tokenizer(dir.path());
    let once = r#"{"Sequence":{"id":"B","type_id":1}}"#;
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace(once, &format!("{once},{once}"))).unwrap();
    let error = Encoder::open(&path, 8).unwrap().encode("a b c d", Some("e f g h")).unwrap_err();
    assert_eq!(error.kind(), Kind::Data, "{error}");
    assert!(error.message().ends_with("tokens, got 11 after the tokenizer's post-processor"), "{error}");
}

/// `records` of one text each, the tokens of the longest of the first `deciding` deciding the length.
fn lines(records: &[&str], deciding: usize) -> Records {
    let dir = tempfile::tempdir().unwrap();
    let encoder = Encoder::open(&tokenizer(dir.path()), 32).unwrap();
    let record = |(line, text): (usize, &&str)| Record { first: text.to_string(), second: None, label: None, line };
    let records = records.iter().enumerate().map(record).collect();
    let kinds = (vec![(Feed::Ids, DType::I64), (Feed::Mask, DType::I64)], vec!["ids".into(), "mask".into()]);
    Records::new(records, 0, ((0..deciding).collect(), true), encoder, kinds, &Limits::default()).unwrap()
}

#[test]
fn texts_that_decide_the_length_are_tokenized_once() {
    let texts = ["a b", "a b c d e f g", "h", "a b c d e f g h a b c d e f g h", "good"];
    let samples = lines(&texts, 3);
    // Nothing is left of these texts that could be tokenized again.
    let left: Vec<&str> = samples.records.iter().map(|r| r.first.as_str()).collect();
    assert_eq!(left, ["", "", "", texts[3], texts[4]]);
    let all: Vec<_> = (0..5).map(|i| integers(&samples, i)).collect();
    // Nine tokens, up to the next multiple of eight.
    assert!(all.iter().flatten().all(|tokens| tokens.len() == 16));
    assert_eq!(all[0][0][..6], [2, 4, 5, 3, 0, 0]);
    assert_eq!(all[0][1][..6], [1, 1, 1, 1, 0, 0]);
    assert_eq!((all[3][0][14], all[3][0][15]), (9, 3), "a longer text is cut");
    assert_eq!(all[4][0][..4], [2, 12, 3, 0]);

    let declared = lines(&texts, 0);
    assert_eq!(declared.records[0].first, texts[0]);
    assert_eq!(integers(&declared, 3)[0].len(), 32);
}

#[test]
fn the_rest_of_a_file_takes_the_length_of_those_within_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dev.tsv");
    std::fs::write(&path, "sentence\tlabel\na\t1\na b c d e f g h\t0\n").unwrap();
    let text = Text { task: Task::Sst2, tokenizer: tokenizer(dir.path()), max_length: None, doc_stride: 1 };
    let open = |limit, rest| {
        let samples = open_part(&path, &text, &inputs(&["input_ids"]), (limit, rest), &Limits::default()).unwrap();
        (0..samples.len()).map(|i| integers(&samples, i).remove(0)).collect::<Vec<_>>()
    };
    assert_eq!(open(Some(1), false), [[2, 4, 3, 0, 0, 0, 0, 0]]);
    assert_eq!(open(Some(1), true), [[2, 4, 3, 0, 0, 0, 0, 0], [2, 4, 5, 6, 7, 8, 9, 3]]);
    assert_eq!(open(None, false)[1][..11], [2, 4, 5, 6, 7, 8, 9, 10, 11, 3, 0]);
}

#[test]
fn tokenizing_stops_on_request() {
    let dir = tempfile::tempdir().unwrap();
    let text = |task| Text { task, tokenizer: tokenizer(dir.path()), max_length: None, doc_stride: 1 };
    let limits = Limits { stopped: &|| true, ..Limits::default() };
    let question = questions("a b", &[("a", &["a"])]);
    for (task, name, content) in
        [(Task::Sst2, "dev.tsv", "sentence\tlabel\na\t1\n"), (Task::Squad, "dev.json", &question)]
    {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        let opened = open_text(&path, &text(task), &inputs(&["input_ids"]), None, &limits);
        assert_eq!(opened.err().map(|e| e.kind()), Some(Kind::Interrupted));
    }
}
