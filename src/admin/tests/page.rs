//! The page: what it shows, and that nobody's text becomes a part of it.

use super::*;
use crate::types::Secret;
use crate::types::bearer::BearerToken;

/// The value of this directive in the page's policy.
fn directive<'a>(page: &'a Reply, name: &str) -> &'a str {
    let policy = page.header("content-security-policy").unwrap();
    let found = policy.split(';').find_map(|part| part.trim().strip_prefix(name));
    found.unwrap_or_else(|| panic!("no {name} in {policy}")).trim()
}

/// Everything between `<` and `>`, outside of the page's own style and script.
fn tags(page: &str) -> Vec<&str> {
    let mut rest = page;
    let mut found = Vec::new();
    while let Some((_, after)) = rest.split_once('<') {
        let (tag, after) = after.split_once('>').unwrap_or((after, ""));
        found.push(tag);
        rest = match ["style", "script"].iter().find(|own| tag.starts_with(**own)) {
            Some(own) => after.split_once(&format!("</{own}")).map_or("", |(_, rest)| rest),
            None => after,
        };
    }
    found
}

#[tokio::test]
async fn the_page_loads_nothing_and_runs_only_its_own_script() {
    let server = Server::start(Scripted::default(), Limits::default()).await;
    let page = server.ask("GET", "/").await;
    assert_eq!(directive(&page, "default-src"), "'none'");
    for (name, value) in
        [("base-uri", "'none'"), ("form-action", "'none'"), ("frame-ancestors", "'none'")]
    {
        assert_eq!(directive(&page, name), value);
    }
    assert_eq!(directive(&page, "connect-src"), "'self'");
    let policy = page.header("content-security-policy").unwrap();
    assert!(!policy.contains("unsafe"), "{policy}");
    // (The test's head is in lower case, so the nonces are compared so.)
    let nonce = directive(&page, "script-src").trim_matches('\'').strip_prefix("nonce-").unwrap();
    let lower = page.body.to_ascii_lowercase();
    assert_eq!(lower.matches(&format!("nonce=\"{nonce}\"")).count(), 2, "style and script");
    assert_eq!(lower.matches("<script").count(), 1);
    for forbidden in ["http://", "https://", " src=", " onclick", " style=", "javascript:"] {
        assert!(!page.body.contains(forbidden), "{forbidden}");
    }
    let again = server.ask("GET", "/").await;
    assert_ne!(directive(&page, "script-src"), directive(&again, "script-src"));
    server.stop().await;
}

#[tokio::test]
async fn names_reasons_and_errors_are_text_whatever_they_hold() {
    let hostile = [
        "<script>alert(1)</script>",
        "\"><img src=x onerror=alert(1)>",
        "' onmouseover='alert(1)",
        "</title></style></script><svg/onload=alert(1)>",
        "<!-- ",
        "]]>",
        "&lt;b&gt;",
        "javascript:alert(1)",
        "\u{202e}\u{0}<b>\u{2028}`${alert(1)}`",
    ];
    let page_with = async |text: &str| {
        let scripted = Scripted { hostile: Some(text.to_owned()), ..Scripted::default() };
        let server = Server::start(scripted, Limits::default()).await;
        let page = server.ask("GET", "/").await;
        server.stop().await;
        page
    };
    let harmless = page_with("harmless").await;
    let wanted = tags(&harmless.body).len();
    for text in hostile {
        let page = page_with(text).await;
        let found = tags(&page.body);
        // The same elements as with a harmless text: none was added, and none has other attributes.
        assert_eq!(found.len(), wanted, "{text}");
        let is_attribute =
            |tag: &str, name: &str| tag.split('"').step_by(2).any(|part| part.contains(name));
        for tag in found {
            for name in ["onerror", "onload", "onmouseover", "src"] {
                assert!(!is_attribute(tag, name), "{text}: <{tag}>");
            }
        }
        assert_eq!(page.body.matches("<script").count(), 1, "{text}");
    }
}

#[tokio::test]
async fn what_is_shown_has_units_and_its_exact_value() {
    let server = Server::start(Scripted::default(), Limits::default()).await;
    let page = server.ask("GET", "/").await.body;
    for part in [
        "arch&lt;i&gt;ver &amp; &quot;co&quot;",
        "All is well: 1 consumer works, at most 1.5 s and 9 messages behind.",
        "<span title=\"9 messages, 1.5 s\">9 messages, 1.5 s</span>",
        "<span title=\"12.50 messages/s, 1250 bytes/s\">12.5/s, 1.25 kB/s</span>",
        "<b>running</b>",
        "<span title=\"4000.0 s\">1 h 6 min</span>",
        "it was &lt;b&gt;away&lt;/b&gt;",
        "<span title=\"100 of 33,554,432 bytes\">100 B of 33.6 MB</span>",
        "Lag over the last hour: at most 9 messages",
        "Rate over the last hour: at most 1 message/s",
        "data-verb=\"restart\"",
        "<html lang=\"en\">",
        "name=\"viewport\"",
        "<noscript><meta http-equiv=\"refresh\"",
    ] {
        assert!(page.contains(part), "{part} is not in {page}");
    }
    // What is not known is not 0.
    assert!(page.contains(
        "<dt>retention may drop</dt><dd class=\"num\"><span title=\"not known\">–</span>"
    ));
    server.stop().await;
}

#[tokio::test]
async fn only_a_row_that_has_halted_at_a_message_has_a_button_to_skip_it() {
    let page = |halted: Option<u64>, is_super: bool| {
        let mut view = super::view(None);
        view.halted_offset = halted.map(Offset);
        view.super_stream = is_super.then(|| "<orders>".into());
        let status = super::super::status::Status::new(&[view], &[]);
        super::super::page::render(&status, &[], "nonce")
    };
    let buttons = |page: &str| page.matches("data-skip=").count();
    assert_eq!(buttons(&page(None, false)), 0);
    let one = page(Some(u64::MAX), false);
    let says = "data-skip=\"18446744073709551615\" data-name=\"arch&lt;i&gt;ver &amp; &quot;co&quot;\" data-stream=\"\"";
    assert!(buttons(&one) == 1 && one.contains(says), "{one}");
    let partition = page(Some(7), true);
    assert!(
        buttons(&partition) == 1 && partition.contains("data-stream=\"events\""),
        "{partition}"
    );
}

#[tokio::test]
async fn a_protected_page_asks_for_the_token_and_shows_nothing() {
    const TOKEN: &str = "correct-horse-battery-staple";
    let token = BearerToken::new(Secret::new(TOKEN)).unwrap();
    let door = Door::at(([0, 0, 0, 0], 1).into()).with_token(token, None, true);
    let server =
        Server::behind(Entrance { door, tls: None }, Scripted::default(), Limits::default()).await;
    let page = server.ask("GET", "/").await;
    assert_eq!((page.status, page.header("content-type")), (401, Some("text/html; charset=utf-8")));
    assert!(page.header("www-authenticate").is_some());
    assert!(page.body.contains("data-locked") && !page.body.contains("arch"), "{}", page.body);
    assert_eq!(directive(&page, "default-src"), "'none'");
    let page = server.ask_with("GET", "/", &format!("authorization: Bearer {TOKEN}\r\n")).await;
    assert!(page.status == 200 && page.body.contains("arch&lt;i&gt;ver"), "{}", page.body);
    server.stop().await;
}
