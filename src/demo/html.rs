//! As much HTML as the scripted browser needs: titles, text and forms of simple pages.

/// A form: where it goes and what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Form {
    /// As written; empty: the page itself.
    pub action: String,
    /// Whether it is sent by POST.
    pub post: bool,
    /// Inputs with a name: text fields with their value, boxes that are ticked.
    pub fields: Vec<(String, String)>,
    /// Buttons with a name and a value.
    pub buttons: Vec<(String, String)>,
}

/// The text of the first `title`.
pub(super) fn title(html: &str) -> String {
    let Some((_, rest)) = html.split_once("<title>") else { return String::new() };
    unescape(rest.split_once("</title>").map_or(rest, |(title, _)| title)).trim().to_owned()
}

/// What a person reads in the body.
pub(super) fn text(html: &str) -> String {
    let body = html.split_once("<body").map_or(html, |(_, body)| body);
    let mut text = String::new();
    let mut rest = body.split_once('>').map_or(body, |(_, rest)| rest);
    while let Some((before, tag)) = rest.split_once('<') {
        text.push_str(before);
        text.push(' ');
        let hidden = ["style", "script", "svg"].into_iter().find(|name| tag.starts_with(name));
        rest = match hidden.and_then(|name| tag.split_once(&format!("</{name}>"))) {
            Some((_, after)) => after,
            None => tag.split_once('>').map_or("", |(_, after)| after),
        };
    }
    text.push_str(rest);
    unescape(&text).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The first form.
pub(super) fn form(html: &str) -> Option<Form> {
    let (_, rest) = html.split_once("<form")?;
    let (head, rest) = rest.split_once('>')?;
    let inside = rest.split_once("</form>").map_or(rest, |(inside, _)| inside);
    let mut form = Form {
        action: attribute(head, "action").unwrap_or_default(),
        post: attribute(head, "method").is_some_and(|method| method.eq_ignore_ascii_case("post")),
        fields: Vec::new(),
        buttons: Vec::new(),
    };
    for tag in inside.split('<').filter_map(|piece| piece.split_once('>').map(|(tag, _)| tag)) {
        let Some(name) = attribute(tag, "name") else { continue };
        let value = attribute(tag, "value").unwrap_or_default();
        if tag.starts_with("button") {
            form.buttons.push((name, value));
        } else if tag.starts_with("input") {
            let is_box = attribute(tag, "type").is_some_and(|kind| kind == "checkbox");
            if !is_box || tag.split_whitespace().any(|word| word.trim_end_matches('/') == "checked") {
                form.fields.push((name, value));
            }
        }
    }
    Some(form)
}

/// `name="value"` in a tag; values in double quotes only.
fn attribute(tag: &str, name: &str) -> Option<String> {
    let (_, rest) = tag.split_once(&format!(" {name}=\""))?;
    rest.split_once('"').map(|(value, _)| unescape(value))
}

fn unescape(text: &str) -> String {
    text.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&#34;", "\"")
        .replace("&#39;", "'")
        .replace("&#x27;", "'")
        .replace("&nbsp;", " ")
        .replace("&#38;", "&")
        .replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = r#"<!doctype html><html><head><title>Tom &amp; Co</title><style>p{}</style></head>
        <body class="x"><style>b{}</style><h1>Hello</h1><p>you &lt;there&gt;</p>
        <form method="POST" action="/go?a=1&amp;b=2"><input name="user" value="al&quot;ice" required>
        <input type="checkbox" name="scope" value="read" checked><input type="checkbox" name="scope" value="write">
        <button name="answer" value="allow">Yes</button></form></body></html>"#;

    #[test]
    fn reads_what_a_person_reads() {
        assert_eq!(title(PAGE), "Tom & Co");
        assert_eq!(text(PAGE), "Hello you <there> Yes");
    }

    #[test]
    fn reads_a_form() {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(
            form(PAGE),
            Some(Form {
                action: "/go?a=1&b=2".to_owned(),
                post: true,
                fields: vec![pair("user", "al\"ice"), pair("scope", "read")],
                buttons: vec![pair("answer", "allow")],
            })
        );
        assert_eq!(form("<p>nothing</p>"), None);
    }
}
