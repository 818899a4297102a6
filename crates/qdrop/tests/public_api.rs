//! The public surface that is promised to stay: names at the crate's root and the modules that its documentation calls
//! stable, with their fields, variants and signatures, against a snapshot. A difference is a decision: run with
//! `QDROP_UPDATE_API=1`, read the change of `tests/fixtures/public_api.txt`, and note it in CHANGELOG.md.

use quote::ToTokens;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use syn::{Fields, ImplItem, Item, ItemUse, TraitItem, UseTree, Visibility};

/// Modules that the crate's documentation calls stable; the root's names come from others too.
const STABLE: [&str; 6] = ["data", "error", "plan", "report", "runtime", "tensor"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

/// Items of `folder` and below it that are not tests.
fn items(folder: &Path, into: &mut Vec<Item>) {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            items(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.extend(syn::parse_file(&std::fs::read_to_string(path).unwrap()).unwrap().items);
        }
    }
}

/// Names that `item`, a public re-export, gives.
fn names(item: &ItemUse) -> Vec<String> {
    fn walk(tree: &UseTree, into: &mut Vec<String>) {
        match tree {
            UseTree::Path(path) => walk(&path.tree, into),
            UseTree::Name(name) => into.push(name.ident.to_string()),
            UseTree::Group(group) => group.items.iter().for_each(|t| walk(t, into)),
            UseTree::Rename(rename) => into.push(rename.rename.to_string()),
            UseTree::Glob(_) => panic!("re-export names one by one"),
        }
    }
    let mut found = Vec::new();
    walk(&item.tree, &mut found);
    found
}

fn public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

/// Tokens as a line, without documentation.
fn line(tokens: impl ToTokens) -> String {
    let text = tokens.to_token_stream().to_string();
    let tight =
        [(" :: ", "::"), (" < ", "<"), (" > ", "> "), (" ,", ","), (" (", "("), ("( ", "("), (" )", ")"), ("& ", "&")];
    let text = tight.iter().fold(text, |text, (from, to)| text.replace(from, to));
    text.replace(" :", ":").replace(" ;", ";").replace(" >", ">").trim().to_string()
}

fn fields(fields: &Fields, into: &mut BTreeSet<String>, of: &str) {
    for (i, field) in fields.iter().enumerate().filter(|(_, f)| public(&f.vis)) {
        let name = field.ident.as_ref().map_or(i.to_string(), ToString::to_string);
        into.insert(format!("{of}.{name}: {}", line(&field.ty)));
    }
}

/// What `item` offers by its name, if it has one of its own.
fn offered(item: &Item) -> Option<(String, BTreeSet<String>)> {
    let mut lines = BTreeSet::new();
    let name = match item {
        Item::Struct(s) if public(&s.vis) => {
            fields(&s.fields, &mut lines, &s.ident.to_string());
            lines.insert(format!("struct {}{}", s.ident, line(&s.generics)));
            s.ident.to_string()
        }
        Item::Enum(e) if public(&e.vis) => {
            for v in &e.variants {
                lines.insert(format!("{}::{}{}", e.ident, v.ident, line(&v.fields).replace("pub ", "")));
            }
            lines.insert(format!("enum {}{}", e.ident, line(&e.generics)));
            e.ident.to_string()
        }
        Item::Trait(t) if public(&t.vis) => {
            for item in &t.items {
                if let TraitItem::Fn(f) = item {
                    lines.insert(format!("{}::{}", t.ident, line(&f.sig)));
                }
            }
            lines.insert(format!("trait {}: {}", t.ident, line(&t.supertraits)));
            t.ident.to_string()
        }
        Item::Fn(f) if public(&f.vis) => {
            lines.insert(line(&f.sig));
            f.sig.ident.to_string()
        }
        Item::Const(c) if public(&c.vis) => {
            lines.insert(format!("const {}: {}", c.ident, line(&c.ty)));
            c.ident.to_string()
        }
        Item::Type(t) if public(&t.vis) => {
            lines.insert(format!("type {} = {}", t.ident, line(&t.ty)));
            t.ident.to_string()
        }
        _ => return None,
    };
    // Attributes of variants and fields are part of their tokens.
    let lines = lines.into_iter().map(|l| strip_attributes(&l)).collect();
    Some((name, lines))
}

/// `text` without `# [...]`.
fn strip_attributes(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find("# [") {
        out.push_str(&rest[..at]);
        let mut depth = 0;
        let end = rest[at..].char_indices().find(|&(_, c)| {
            depth += i32::from(c == '[') - i32::from(c == ']');
            c == ']' && depth == 0
        });
        rest = end.map_or("", |(i, _)| &rest[at + i + 1..]).trim_start();
    }
    out + rest
}

/// Methods of the type called `name`.
fn methods(all: &[Item], name: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for item in all {
        let Item::Impl(block) = item else { continue };
        let of = line(&block.self_ty);
        if of.split('<').next().map(str::trim) != Some(name) {
            continue;
        }
        if let Some((_, path, _)) = &block.trait_ {
            found.insert(format!("{name}: {}", line(path)));
            continue;
        }
        for item in &block.items {
            if let ImplItem::Fn(f) = item
                && public(&f.vis)
            {
                found.insert(format!("{name}::{}", line(&f.sig)));
            }
        }
    }
    found
}

#[test]
fn the_public_surface_is_the_one_written_down() {
    let src = root().join("src");
    let mut all = Vec::new();
    items(&src, &mut all);
    let mut modules = vec![("".to_string(), src.join("lib.rs"))];
    modules.extend(STABLE.map(|m| {
        let (folder, file) = (src.join(m).join("mod.rs"), src.join(format!("{m}.rs")));
        (format!("{m}::"), if folder.exists() { folder } else { file })
    }));
    let mut text = String::new();
    for (prefix, path) in modules {
        let file = syn::parse_file(&std::fs::read_to_string(path).unwrap()).unwrap();
        let mut offers: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for item in &file.items {
            match item {
                Item::Use(item) if public(&item.vis) => {
                    for name in names(item) {
                        let defined = all.iter().filter_map(offered).filter(|(n, _)| *n == name);
                        let lines: BTreeSet<String> = defined.flat_map(|(_, lines)| lines).collect();
                        assert!(!lines.is_empty(), "{prefix}{name} is defined nowhere");
                        offers.entry(name).or_default().extend(lines);
                    }
                }
                other => offers.extend(offered(other)),
            }
        }
        for (name, mut lines) in offers {
            lines.extend(methods(&all, &name));
            text.push_str(&format!("{prefix}{name}\n"));
            lines.iter().for_each(|line| text.push_str(&format!("    {line}\n")));
        }
    }
    let path = root().join("tests/fixtures/public_api.txt");
    if std::env::var_os("QDROP_UPDATE_API").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    let (known, now): (BTreeSet<&str>, BTreeSet<&str>) = (known.lines().collect(), text.lines().collect());
    let gone: Vec<&&str> = known.difference(&now).collect();
    let new: Vec<&&str> = now.difference(&known).collect();
    assert!(gone.is_empty() && new.is_empty(), "gone: {gone:#?}\nnew: {new:#?}\nsee this file's head");
}
