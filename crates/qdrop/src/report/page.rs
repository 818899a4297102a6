//! The frame of an HTML page: one file with its style, which loads and runs nothing from elsewhere.

use super::{Table, chart, visible};
use maud::{DOCTYPE, Markup, PreEscaped, html};

/// The style of pages, with a light and a dark theme, for wide and narrow screens.
const STYLE: &str = include_str!("page.css");
/// Sorts tables by the column whose head is clicked, and unfolds the target of a link. A page is complete without it.
const SORT: &str = include_str!("page.js");
/// The content security policy: the browser may load nothing but what is in the page itself.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:";

/// A whole page with `title` as its heading and `content` below it.
pub fn page(title: &str, content: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                // Without it browsers ask the server for an icon.
                link rel="icon" href="data:,";
                title { (title) }
                style { (PreEscaped(STYLE)) (PreEscaped(chart::style())) }
            }
            body {
                main { h1 { (title) } (content) }
                script { (PreEscaped(SORT)) }
            }
        }
    };
    visible(&page.into_string(), true).into_owned()
}

/// A section of the page with a heading; `id` is its anchor for links.
pub fn section(id: &str, heading: &str, content: &Markup) -> Markup {
    html! { section id=(id) { h2 { (heading) } (content) } }
}

/// A foldable section: `summary` is always visible.
pub fn fold(summary: &Markup, open: bool, content: &Markup) -> Markup {
    html! { details open[open] { summary { (summary) } (content) } }
}

/// Charts side by side, as many as fit.
pub fn side_by_side(charts: impl IntoIterator<Item = Markup>) -> Markup {
    html! { div class="charts" { @for chart in charts { (chart) } } }
}

/// A table of text.
pub fn table(t: &Table) -> Markup {
    let rows = t.rows.iter().map(|row| row.iter().map(|cell| html! { (cell) }).collect());
    cells(t, rows.collect())
}

/// A table with the title, header and alignment of `head`, and with `rows` of any content.
pub fn cells(head: &Table, rows: Vec<Vec<Markup>>) -> Markup {
    let class = |i: usize| if head.right.contains(&i) { Some("number") } else { None };
    html! {
        // A wide table is scrolled, not the page.
        div class="wide" {
            table {
                @if !head.title.is_empty() { caption { (head.title) } }
                thead { tr { @for (i, name) in head.header.iter().enumerate() { th class=[class(i)] { (name) } } } }
                tbody {
                    @for row in &rows {
                        tr { @for (i, cell) in row.iter().enumerate() { td class=[class(i)] { (cell) } } }
                    }
                }
            }
        }
    }
}

/// `text` in a cell of which the part `share` (0 to 1) is filled, so that rows can be compared at a glance.
pub fn bar(text: &str, share: f64) -> Markup {
    let width = if share.is_finite() { share.clamp(0.0, 1.0) * 100.0 } else { 0.0 };
    html! { span class="bar" style=(format!("--share:{width:.1}%")) { (text) } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_whole_and_escapes_names() {
        let mut t = Table::new("<t>", "name|>loss");
        t.row(["<script>alert(1)</script>", "0.5"]);
        let rows = html! { (table(&t)) (cells(&t, vec![vec![html! { "a" }, bar("1", 0.5)]])) };
        let content = section("units", "Units & more", &fold(&html! { "one" }, true, &rows));
        let page = page("\"'><&", &content);
        assert!(page.starts_with("<!DOCTYPE html><html lang=\"en\">") && page.ends_with("</body></html>"));
        assert!(page.contains("&lt;script&gt;alert(1)") && !page.contains("<script>alert"), "{page}");
        assert!(page.contains("<td class=\"number\">0.5</td>") && page.contains("Units &amp; more"));
        assert!(page.contains("--share:50.0%") && page.contains("<details open>"), "{page}");
        assert!(!page.contains("src=\"") && !page.contains("url(") && !page.contains("@import"));
    }
}
