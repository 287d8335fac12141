//! Every page, with hostile text wherever text comes from.

use super::*;

const HOSTILE: &str = "\"><script>alert(1)</script><img src=x onerror='alert(2)'>&{{7*7}}";

fn url(text: &str) -> Url {
    Url::parse(text).unwrap()
}

/// Every page there is, with this text wherever a text can come from.
fn pages(text: &str) -> Vec<Page> {
    let back = || Back::new(Some(url(&format!("https://app.example/done?x={text}#{text}"))));
    let provider = || text.to_owned();
    vec![
        Page::Connected {
            provider: provider(),
            services: vec![text.to_owned(), text.to_owned()],
            account: Some(text.to_owned()),
            back: back(),
        },
        Page::Connected { provider: provider(), services: vec![], account: None, back: None },
        Page::Denied { provider: provider(), back: back() },
        Page::Failed { provider: provider(), back: back() },
        link(false, text),
        link(true, text),
        Page::Expired,
        Page::AlreadyUsed,
        Page::Invalid,
        Page::OtherBrowser,
        Page::OtherUser,
        Page::NoCookie,
        Page::SignInFailed,
        Page::TryAgain,
        Page::Broken,
        Page::NotFound,
        Page::MethodNotAllowed { allowed: "GET" },
    ]
}

/// The page in front of a consent.
fn link(signs_in: bool, text: &str) -> Page {
    Page::Link(Box::new(Link {
        signs_in,
        provider: text.to_owned(),
        services: vec![text.to_owned()],
        user: text.to_owned(),
        organization: text.to_owned(),
        caller: text.to_owned(),
        token: "token".to_owned(),
        next: url("https://provider.example/authorize"),
    }))
}

/// What would begin or end a tag or an attribute.
fn markup(html: &str) -> [usize; 4] {
    ['<', '>', '"', '\''].map(|c| html.matches(c).count())
}

#[test]
fn nothing_is_unescaped() {
    for (hostile, harmless) in pages(HOSTILE).iter().zip(pages("x")) {
        let (hostile_html, harmless_html) = (hostile.render().unwrap(), harmless.render().unwrap());
        assert_eq!(markup(&hostile_html), markup(&harmless_html), "{}", hostile.name());
        assert!(!hostile_html.contains("<script") && !hostile_html.contains("<img"));
    }
}

#[test]
fn texts_are_shown_as_they_are_for_people() {
    let html = pages("Müller & <Söhne>")[0].render().unwrap();
    assert!(html.contains("<h1>Müller &#38; &#60;Söhne&#62; is connected</h1>"), "{html}");
    assert!(html.contains("<bdi>Müller &#38; &#60;Söhne&#62;</bdi>"));
    assert!(html.contains("Continue to app.example"));
}

#[test]
fn every_page_is_a_whole_and_accessible_document() {
    for page in pages("x") {
        let html = page.render().unwrap();
        for part in [
            "<!doctype html>",
            "<html lang=\"en\"",
            "<meta charset=\"utf-8\">",
            "name=\"viewport\"",
            "<main",
            "<footer>",
            "</html>",
        ] {
            assert_eq!(html.matches(part).count(), 1, "{part} in {}", page.name());
        }
        assert_eq!(html.matches("<h1>").count(), 1);
        let between = |open: &str, close: &str| {
            html.split_once(open).unwrap().1.split_once(close).unwrap().0.to_owned()
        };
        assert_eq!(between("<title>", "</title>"), between("<h1>", "</h1>"));
        assert!(html.contains(&format!("data-page=\"{}\"", page.name())));
        // No script, no third party, nothing that is fetched.
        assert_eq!(html.contains("<form"), page.form_target().is_some(), "{}", page.name());
        for fetched in ["src=", "@import", "url(", "<link", "<script", "action=\"", " on", "style=\""] {
            let found =
                html.match_indices(fetched).any(|(at, _)| fetched != " on" || is_handler(&html[at..]));
            assert!(!found, "{fetched} in {}", page.name());
        }
    }
}

/// ` onload=` and the like, but not the word "on".
fn is_handler(text: &str) -> bool {
    let word: String = text.trim_start().chars().take_while(char::is_ascii_alphabetic).collect();
    text.trim_start()[word.len()..].starts_with('=')
}

#[test]
fn pages_have_their_statuses() {
    let statuses: Vec<_> = pages("x").iter().map(|page| (page.name(), page.status().as_u16())).collect();
    assert_eq!(
        statuses,
        [
            ("connected", 200),
            ("connected", 200),
            ("denied", 200),
            ("failed", 500),
            ("confirm", 200),
            ("sign-in", 200),
            ("expired", 410),
            ("already-used", 410),
            ("invalid", 400),
            ("other-browser", 403),
            ("other-user", 403),
            ("no-cookie", 400),
            ("sign-in-failed", 400),
            ("try-again", 503),
            ("broken", 500),
            ("not-found", 404),
            ("method-not-allowed", 405),
        ]
    );
}

#[test]
fn only_web_addresses_become_links() {
    for bad in ["javascript:alert(1)", "data:text/html,x", "file:///etc/passwd", "app:done"] {
        assert_eq!(Back::new(Some(url(bad))), None, "{bad}");
    }
    let page = Page::from(CallbackOutcome::Denied {
        provider_name: "x".to_owned(),
        return_url: Some(url("javascript:alert(1)")),
    });
    assert!(!page.render().unwrap().contains("javascript"));
}

#[test]
fn only_try_again_links_to_itself() {
    for page in pages("x") {
        assert_eq!(page.render().unwrap().contains("href=\"\""), page == Page::TryAgain, "{}", page.name());
    }
}

#[test]
fn the_policy_names_the_style_of_the_page() {
    use base64::Engine as _;
    use sha2::Digest as _;
    let html = Page::Expired.render().unwrap();
    let style = html.split_once("<style>").unwrap().1.split_once("</style>").unwrap().0;
    let hash = base64::engine::general_purpose::STANDARD.encode(sha2::Sha256::digest(style.as_bytes()));
    let mut headers = http::HeaderMap::new();
    for (next, targets) in [
        (None, "'none'"),
        (Some("https://provider.example/authorize?x"), "'self' https:"),
        (Some("http://127.0.0.1:8080/authorize"), "'self' https: http://127.0.0.1:8080"),
    ] {
        super::super::headers::add_to(&mut headers, true, next.map(url).as_ref());
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(policy.contains(&format!("style-src 'sha256-{hash}'")), "{policy}");
        assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"), "{policy}");
        assert!(policy.contains(&format!("; form-action {targets}; ")), "{policy}");
    }
}

fn sample_link(signs_in: bool, user: &str, provider: &str, services: &[&str]) -> Page {
    let Page::Link(link) = link(signs_in, "") else { panic!("it is one") };
    Page::Link(Box::new(Link {
        provider: provider.to_owned(),
        services: services.iter().map(|&service| service.to_owned()).collect(),
        user: user.to_owned(),
        caller: "assistant".to_owned(),
        ..*link
    }))
}

/// Writes every page to `target/pages`, for `tests/screenshots/run` and for a look in a browser.
#[test]
fn pages_can_be_looked_at() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/pages");
    std::fs::create_dir_all(&folder).unwrap();
    let back = || Back::new(Some(url("https://assistant.example.com/chats/42?done=1")));
    let google = || "Google".to_owned();
    let samples = [
        (
            "connected",
            Page::Connected {
                provider: google(),
                services: vec!["Gmail".to_owned(), "Google Calendar".to_owned(), "Google Drive".to_owned()],
                account: Some("alice.liddell@example.com".to_owned()),
                back: back(),
            },
        ),
        (
            "connected-bare",
            Page::Connected { provider: "Linear".to_owned(), services: vec![], account: None, back: None },
        ),
        (
            "connected-long",
            Page::Connected {
                provider: "Wirtschaftsprüfungsgesellschaft Donaudampfschifffahrt".to_owned(),
                services: vec![
                    "Elektronische Rechnungseingangsverarbeitung".to_owned(),
                    "请求访问".to_owned(),
                ],
                account: Some(
                    "a.very.long.mailbox.name.that.does.not.break@subdomain.of.a.long.example.com".to_owned(),
                ),
                back: Back::new(Some(url(
                    "https://a-very-long-name-of-a-tenant.customers.assistant.example.com/",
                ))),
            },
        ),
        ("confirm", sample_link(false, "alice@example.com", "Google", &["Gmail", "Google Calendar"])),
        ("sign-in", sample_link(true, "login|248289761001", "Google", &["Gmail"])),
        (
            "confirm-long",
            sample_link(
                false,
                "a.very.long.mailbox.name.that.does.not.break@subdomain.of.a.long.example.com",
                "Wirtschaftsprüfungsgesellschaft Donaudampfschifffahrt",
                &["Elektronische Rechnungseingangsverarbeitung", "请求访问"],
            ),
        ),
        ("other-browser", Page::OtherBrowser),
        ("other-user", Page::OtherUser),
        ("no-cookie", Page::NoCookie),
        ("sign-in-failed", Page::SignInFailed),
        ("denied", Page::Denied { provider: google(), back: back() }),
        ("failed", Page::Failed { provider: google(), back: back() }),
        ("expired", Page::Expired),
        ("already-used", Page::AlreadyUsed),
        ("invalid", Page::Invalid),
        ("try-again", Page::TryAgain),
        ("broken", Page::Broken),
        ("not-found", Page::NotFound),
        ("method-not-allowed", Page::MethodNotAllowed { allowed: "GET" }),
    ];
    for (name, page) in samples {
        std::fs::write(folder.join(format!("{name}.html")), page.render().unwrap()).unwrap();
    }
}
